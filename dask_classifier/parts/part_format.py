"""The interface of part formats.

To add a format, write a module with a subclass of `PartFormat`, and add it to `formats.FORMATS`. The command needs only
the names of the formats, so implementations import pandas where they use it.
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

    The parameter `header` of the methods is whether the part begins with a header line. Formats that store the columns'
    names with the rows ignore it.
    """

    name: str  # of the format; also the suffix of its files
    joins: bool = True  # whether concatenated parts are a valid file

    # writing

    @abstractmethod
    def encode(self, frames: "list[pd.DataFrame]", parsed: "Parsed | None", *, header: bool) -> bytes:
        """Return a part with the classified rows of one block. Raise WrongAnswer if they do not fit the format.

        `parsed` is the block as it was read, or None if only the frames are known.
        """

    def convert(self, data: bytes, written_as: "PartFormat", columns: "Columns", *, header: bool) -> bytes:
        """Convert a part of another format into this one, without a header."""
        frame = written_as.read(data, columns, header=header)
        return self.encode([frame.set_index(frame.columns[0])], None, header=False)

    def header(self, names: Sequence[str]) -> bytes:
        """Return the columns' names as the beginning of a file; b"" if they are stored with the rows."""
        return b""

    # reading

    @abstractmethod
    def rows(self, data: bytes, *, header: bool) -> int:
        """Count the rows of a part."""

    @abstractmethod
    def content(self, data: bytes) -> bytes:
        """Return the bytes that `verify` digests: the part, decompressed if it is text."""

    @abstractmethod
    def text(self, data: bytes, *, header: bool) -> bytes:
        """Return the rows of a part as CSV, without a header."""

    @abstractmethod
    def read(self, data: bytes, columns: "Columns", *, header: bool) -> "pd.DataFrame":
        """Return the rows of a part as a frame in which the index is an ordinary column."""

    @abstractmethod
    def first_values(
        self, url: str, size: int, names: Sequence[str], places: Sequence[int], most: int, *, header: bool
    ) -> dict[int, list[str]]:
        """Return the first values of some columns of a part, as text, without reading more of it than needed.

        Parameters
        ----------
        url : str
            Where the part is.
        size : int
            Size of the part in bytes.
        names : sequence of str
            Names of all its columns.
        places : sequence of int
            Positions of the columns to return.
        most : int
            Maximum number of rows.
        header : bool
            Whether the part begins with a header line.

        Returns
        -------
        dict of int to list of str
            The values of each column, by position.
        """
