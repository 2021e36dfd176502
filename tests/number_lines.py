"""A kind of input from outside of the package: `numbers:1000` stands for a thousand rows of a number and its square."""

from dataclasses import dataclass

from dask_classifier.errors import SourceError
from dask_classifier.rows.borders import Rows
from dask_classifier.rows.chunks import parse
from dask_classifier.rows.source import InputFile, Marks


@dataclass(frozen=True)
class Numbers(InputFile):
    url: str
    rows: int

    size = 0

    @classmethod
    def accepts(cls, name):
        return name.startswith("numbers:")

    @classmethod
    def expand(cls, name):
        return [name]

    @classmethod
    def look(cls, url, number, layout, copies):
        count = url.removeprefix("numbers:")
        if not count.isdecimal():
            raise SourceError(f"{url} has no number of rows.", "Write numbers:1000.")
        return cls(url, int(count)), ("number", "square")

    @property
    def known_rows(self):
        return self.rows

    def first_rows(self, rows, layout):
        return self._text(0, min(rows, self.rows))

    def marks(self, pieces):
        return Marks((0, 0), (0, self.rows))

    def read(self, block, layout):
        return parse(Rows.of(self._text(block.first_row, block.rows), layout.delimiter), layout)

    def _text(self, first, rows):
        return "".join(f"{number},{number**2}\n" for number in range(first, first + rows)).encode()
