"""Generated rows as an input: each process generates the rows of the blocks that it reads."""

from dataclasses import dataclass
from typing import Self

from .. import generate
from .blocks import Marks, Span
from .borders import Piece, Rows
from .layouts import Layout
from .source import InputFile


@dataclass(frozen=True)
class GeneratedRows(InputFile):
    """Synthetic rows from the module `generate`."""

    rows: int
    seed: int = 0
    url: str = "generated"

    size = 0  # nothing is stored

    def inspect(self, layout: Layout) -> tuple[Self, tuple]:
        """Return the input and the columns."""
        return self, generate.COLUMNS

    @property
    def known_rows(self) -> int:
        """The number of rows."""
        return self.rows

    @property
    def words(self) -> str:
        """The number of rows, for messages."""
        return f"{self.rows:,} generated rows"

    def first_rows(self, rows: int, layout: Layout) -> Rows:
        """Return the first rows."""
        return self.read(Span(min(rows, self.rows)), layout)

    def marks(self, pieces: list[Piece]) -> Marks:
        """Return marks for the first row and the end; generated rows have no offsets."""
        return Marks((0, 0), (0, self.rows))

    def read(self, span: Span, layout: Layout) -> Rows:
        """Generate the rows of a span."""
        return Rows.of(generate.csv_rows(self.seed, span.first_row, span.rows), layout.delimiter)
