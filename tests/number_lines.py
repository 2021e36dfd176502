"""A kind of input from outside of the package: `numbers:1000` stands for a thousand rows of a number and its square."""

from dataclasses import dataclass

from dask_classifier.errors import SourceError
from dask_classifier.rows.blocks import Marks, Span
from dask_classifier.rows.borders import Rows
from dask_classifier.rows.source import NamedInput


@dataclass(frozen=True)
class Numbers(NamedInput):
    url: str
    rows: int

    size = 0

    @classmethod
    def accepts(cls, name):
        return name.startswith("numbers:")

    @classmethod
    def named(cls, name):
        count = name.removeprefix("numbers:")
        if not count.isdecimal():
            raise SourceError(f"{name} has no number of rows.", "Write numbers:1000.")
        return [cls(name, int(count))]

    def inspect(self, layout):
        return self, ("number", "square")

    @property
    def known_rows(self):
        return self.rows

    def first_rows(self, rows, layout):
        return self.read(Span(min(rows, self.rows)), layout)

    def marks(self, pieces):
        return Marks((0, 0), (0, self.rows))

    def read(self, span, layout):
        return Rows.of(self._text(span.first_row, span.rows), layout.delimiter)

    def _text(self, first, rows):
        return "".join(f"{number},{number**2}\n" for number in range(first, first + rows)).encode()
