"""Generated rows as an input: a file that is made where it is read."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from .. import generate
from .borders import Piece, Rows
from .layouts import Layout
from .source import Block, InputFile, Marks

if TYPE_CHECKING:
    from .chunks import Parsed


@dataclass(frozen=True)
class GeneratedRows(InputFile):
    """Synthetic rows, which `generate` makes."""

    rows: int
    seed: int = 0
    url: str = "generated"

    size = 0  # nothing is stored

    @classmethod
    def accepts(cls, name: str) -> bool:
        """No name stands for generated rows: `rows` asks for them."""
        return False

    @classmethod
    def expand(cls, name: str) -> list[str]:
        """Return the name."""
        return [name]

    @classmethod
    def look(cls, url: str, number: int, layout: Layout, copies: str) -> tuple[Self, tuple]:
        """Return no rows, with their columns."""
        return cls(0), generate.COLUMNS

    @property
    def known_rows(self) -> int:
        """The number of rows."""
        return self.rows

    @property
    def words(self) -> str:
        """Their number."""
        return f"{self.rows:,} generated rows"

    def first_rows(self, rows: int, layout: Layout) -> bytes:
        """Return the first rows."""
        return generate.csv_rows(self.seed, 0, min(rows, self.rows))

    def marks(self, pieces: list[Piece]) -> Marks:
        """Return the first row and the end: rows have no place in bytes."""
        return Marks((0, 0), (0, self.rows))

    def read(self, block: Block, layout: Layout) -> "Parsed":
        """Make the rows of one block."""
        from .chunks import parse  # imports pandas

        return parse(Rows.of(generate.csv_rows(self.seed, block.first_row, block.rows), layout.delimiter), layout)
