"""Generated rows as an input: each process generates the rows of the blocks that it reads."""

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
    """Synthetic rows from the module `generate`."""

    rows: int
    seed: int = 0
    url: str = "generated"

    size = 0  # nothing is stored

    @classmethod
    def accepts(cls, name: str) -> bool:
        """Return False: generated rows are requested with `rows`, not by a name."""
        return False

    @classmethod
    def expand(cls, name: str) -> list[str]:
        """Return the name itself."""
        return [name]

    @classmethod
    def look(cls, url: str, number: int, layout: Layout, copies: str) -> tuple[Self, tuple]:
        """Return an input of no rows, and the columns."""
        return cls(0), generate.COLUMNS

    @property
    def known_rows(self) -> int:
        """The number of rows."""
        return self.rows

    @property
    def words(self) -> str:
        """The number of rows, for messages."""
        return f"{self.rows:,} generated rows"

    def first_rows(self, rows: int, layout: Layout) -> bytes:
        """Return the first rows."""
        return generate.csv_rows(self.seed, 0, min(rows, self.rows))

    def marks(self, pieces: list[Piece]) -> Marks:
        """Return marks for the first row and the end; generated rows have no offsets."""
        return Marks((0, 0), (0, self.rows))

    def read(self, block: Block, layout: Layout) -> "Parsed":
        """Generate the rows of one block."""
        from .chunks import parse  # imports pandas

        return parse(Rows.of(generate.csv_rows(self.seed, block.first_row, block.rows), layout.delimiter), layout)
