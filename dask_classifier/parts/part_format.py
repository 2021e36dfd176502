"""What every format of parts can do.

To add a format, write one file with a subclass of `PartFormat`, and name it in `formats.FORMATS`. The command needs the
formats' names, and no pandas: implementations import it where they use it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from ..rows.chunks import Parsed
    from .columns import Columns


class PartFormat(ABC):
    """How the rows of a block are stored in a part.

    `header` tells, where a method has it, whether the part begins with a line of the columns' names; formats that carry
    names with the rows ignore it.
    """

    name: str  # of the format; also the suffix of its files
    joins: bool = True  # whether parts, one after the other, are a valid file

    # writing

    @abstractmethod
    def encode(self, frames: "list[pd.DataFrame]", parsed: "Parsed", *, header: bool) -> bytes:
        """Return a part of the classified rows of one block, in order. Raises WrongAnswer where they do not fit."""

    def convert(self, data: bytes, written_as: "PartFormat", columns: "Columns", *, header: bool) -> bytes:
        """Return the part of another format in this one, without a header. Only formats whose parts join need it."""
        raise NotImplementedError

    def header(self, names: Sequence[str]) -> bytes:
        """Return the columns' names as the beginning of a file; b"" where they come with the rows."""
        return b""

    # reading

    @abstractmethod
    def rows(self, data: bytes, *, header: bool) -> int:
        """Count the rows of a part."""

    @abstractmethod
    def content(self, data: bytes) -> bytes:
        """Return what `verify` digests: the part, decompressed where it is text."""

    @abstractmethod
    def text(self, data: bytes, *, header: bool) -> bytes:
        """Return the rows of a part as CSV, without a header."""

    @abstractmethod
    def read(self, data: bytes, columns: "Columns", *, header: bool) -> "pd.DataFrame":
        """Return the rows of a part, the index a column like the others."""

    @abstractmethod
    def first_values(
        self, url: str, size: int, names: Sequence[str], places: Sequence[int], most: int, *, header: bool
    ) -> dict[int, list[str]]:
        """Return the values of some of the columns `names`, as text, in at most `most` of a part's first rows.

        Reads no more of the part of `size` bytes at `url` than that takes.
        """
