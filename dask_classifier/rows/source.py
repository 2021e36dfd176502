"""Where rows come from: `InputFile`, the interface of an input; `Source`, the inputs of one run; and cutting blocks.

A source is surveyed once, in parallel, on the workers. The survey returns only marks: offsets of rows with their
numbers. Blocks are cut from the marks at exact rows: a block has the mark at which to start reading, the number of rows
to skip, and the number of rows to take. Rows never pass through the client.

To add a kind of input, write a module with a frozen dataclass that implements `InputFile`, and add it to
`inputs.KINDS`, before CsvFile, which accepts every name.
"""

import bisect
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Self

from ..units import count_of, format_bytes
from .borders import Piece
from .layouts import Layout

if TYPE_CHECKING:
    from .chunks import Parsed


@dataclass(frozen=True)
class Block:
    """The rows that one task reads: rows `first_row` to `first_row + rows - 1` (from 0) of file number `file`.

    In a CSV file, they are among the bytes from `start` to before `stop`, after `skip` other rows.
    """

    index: int
    rows: int
    first_row: int
    file: int = 0
    start: int = 0
    stop: int = 0
    skip: int = 0


@dataclass(frozen=True)
class Marks:
    """Rows of a file with known offsets: `rows[i]` rows precede the byte `offsets[i]`; the last is the end of file."""

    offsets: tuple[int, ...]
    rows: tuple[int, ...]

    def between(self, first: int, rows: int) -> tuple[int, int]:
        """Return the numbers of the marks that enclose `rows` rows from row `first`."""
        begin = bisect.bisect_right(self.rows, first, hi=len(self.rows) - 1) - 1
        return begin, bisect.bisect_left(self.rows, first + rows)


class InputFile(ABC):
    """One input of a source: a file, or something that takes the place of a file.

    Implementations are frozen dataclasses of plain values: they are sent to the workers and written to plan.json.
    Fields whose names begin with `data_` are not part of a run's identity.
    """

    url: str  # as the user named it
    size: int  # stored size in bytes; 0 if nothing is stored

    # inspecting the input, on the client, which reads only the first rows

    @classmethod
    @abstractmethod
    def accepts(cls, name: str) -> bool:
        """Return whether this kind of input reads the name that the user gave: a path, a URL or a glob."""

    @classmethod
    @abstractmethod
    def expand(cls, name: str) -> list[str]:
        """Return the URLs that a name stands for, in order. Raise StorageError if there are none."""

    @classmethod
    @abstractmethod
    def look(cls, url: str, number: int, layout: Layout, copies: str) -> tuple[Self, tuple]:
        """Inspect an input: return it with its columns.

        Parameters
        ----------
        url : str
            One of the URLs that `expand` returned.
        number : int
            Position of the input in the source, from 0.
        layout : Layout
            Text format that the user gave.
        copies : str
            Folder for a decompressed copy.

        Returns
        -------
        InputFile
            The input.
        tuple
            Its columns; () if it has no rows.

        Raises
        ------
        StorageError
            The input cannot be read.
        SourceError
            The input has another format than this kind reads.
        """

    @property
    def known_rows(self) -> int | None:
        """The number of rows, or None if it is not known without a survey."""
        return None

    @property
    def rows_size(self) -> int:
        """Bytes of its rows, as stored: without what stands before them."""
        return self.size

    @abstractmethod
    def first_rows(self, rows: int, layout: Layout) -> bytes:
        """Return up to `rows` of the first rows as CSV without a header, in the format of `layout_of_rows`."""

    # a copy for the blocks to read, for inputs that cannot be read from the middle

    @property
    def is_compressed(self) -> bool:
        """Whether the rows take more bytes than are stored."""
        return False

    @property
    def needs_copy(self) -> bool:
        """Whether rows are read from a decompressed copy in the run's folder."""
        return False

    @property
    def copied_by_client(self) -> bool:
        """Whether the copy is written where the plan was made, and not on a worker."""
        return False

    def layout_of_rows(self, layout: Layout) -> Layout:
        """Return the text format of the rows that blocks read: copies are UTF-8."""
        return replace(layout, encoding="utf-8") if self.needs_copy else layout

    # locating its rows, in parallel, on the workers

    def pieces(self) -> list[int]:
        """Return the starts of the pieces, each surveyed by one task; [] if the rows are known without a survey."""
        return []

    @abstractmethod
    def marks(self, pieces: list[Piece]) -> Marks:
        """Join the surveyed pieces, in order, into the marks of the input."""

    # reading its rows, in a classifier process

    @abstractmethod
    def read(self, block: Block, layout: Layout) -> "Parsed":
        """Return the rows of one block. Raise SourceError if the input has changed since the survey."""

    @property
    def identity(self) -> dict[str, object]:
        """The values that distinguish this version of this input from others."""
        return {name: value for name, value in asdict(self).items() if not name.startswith("data_")}

    @property
    def words(self) -> str:
        """The input's name in messages."""
        return self.url


class SurveyedFile(InputFile):
    """An input whose rows must be located before they can be cut, if necessary in a decompressed copy."""

    @abstractmethod
    def with_copy_in(self, folder: str) -> Self:
        """Return this input with its copy in another folder."""

    @abstractmethod
    def write_copy(self, encoding: str) -> int:
        """Write the copy and return its size in bytes."""

    @abstractmethod
    def pieces(self) -> list[int]:
        """Return the starts of the pieces, each surveyed by one task."""

    @abstractmethod
    def survey(self, start: int, delimiter: str) -> Piece:
        """Locate the rows in the piece at `start`. Raise SourceError if it cannot be cut into rows."""


@dataclass(frozen=True)
class Source:
    """The inputs of one run, and the text format of the user's files."""

    layout: Layout
    files: tuple[InputFile, ...]

    def __str__(self) -> str:
        """Return the name or the number of the inputs, and their size."""
        if len(self.files) == 1 and self.files[0].known_rows is not None:
            return self.files[0].words
        name = self.files[0].words if len(self.files) == 1 else count_of(len(self.files), "file")
        return f"{name}, {format_bytes(self.size)}"

    @property
    def size(self) -> int:
        """The stored size of all inputs in bytes."""
        return sum(file.size for file in self.files)

    @property
    def rows_size(self) -> int:
        """Bytes of the rows of all inputs, as stored."""
        return sum(file.rows_size for file in self.files)

    @property
    def known_rows(self) -> int | None:
        """The number of rows, or None if it is not known without a survey."""
        known = [file.known_rows for file in self.files]
        return None if None in known else sum(rows for rows in known if rows)

    @property
    def copies(self) -> list[tuple[int, SurveyedFile]]:
        """The inputs that need a decompressed copy before they can be cut, with their numbers."""
        surveyed = [(number, file) for number, file in enumerate(self.files) if isinstance(file, SurveyedFile)]
        return [(number, file) for number, file in surveyed if file.needs_copy]

    def with_copies(self, sizes: dict[int, int]) -> "Source":
        """Return this source with the sizes of the decompressed copies, given by input number."""
        files = (replace(file, data_size=sizes[n]) if n in sizes else file for n, file in enumerate(self.files))
        return replace(self, files=tuple(files))

    def first_rows(self, rows: int) -> tuple[str, Layout, bytes]:
        """Return the name of the first input that has rows, their text format, and up to `rows` of them as CSV.

        The CSV text has no header.
        """
        for file in self.files:
            if text := file.first_rows(rows, self.layout):
                return file.url, file.layout_of_rows(self.layout), text
        return "the source", self.layout, b""

    def pieces(self) -> list[tuple[int, int]]:
        """Return the pieces to survey, one per task, as (file number, start of the piece)."""
        return [(number, start) for number, file in enumerate(self.files) for start in file.pieces()]

    def marks(self, surveyed: list[tuple[int, Piece]]) -> list[Marks]:
        """Join the surveyed pieces, given as (file number, piece) in order, into the marks of each input."""
        pieces_of = defaultdict(list)
        for number, piece in surveyed:
            pieces_of[number].append(piece)
        return [file.marks(pieces_of[number]) for number, file in enumerate(self.files)]


def cut(
    surveyed: list[Marks],
    rows_of_next: Callable[[int], int],
    shrink: Callable[[int, int], int] = lambda rows, size: rows,
) -> Iterator[Block]:
    """Yield the blocks of a source. No block spans two inputs.

    Parameters
    ----------
    surveyed : list of Marks
        The marks of each input.
    rows_of_next : callable
        `rows_of_next(left)` returns the number of rows of the next block, with `left` rows of the source to go.
    shrink : callable, optional
        `shrink(rows, size)` returns a smaller number of rows if their `size` in bytes is too large. It is called again
        until it returns `rows`.

    Yields
    ------
    Block
        The next rows of the source.
    """
    index, left = 0, sum(marks.rows[-1] for marks in surveyed)
    for number, marks in enumerate(surveyed):
        first, total = 0, marks.rows[-1]
        while first < total:
            rows = min(rows_of_next(left), total - first)
            begin, end = marks.between(first, rows)
            while (fewer := shrink(rows, marks.offsets[end] - marks.offsets[begin])) < rows:
                rows = fewer
                begin, end = marks.between(first, rows)
            skip = first - marks.rows[begin]
            yield Block(index, rows, first, number, marks.offsets[begin], marks.offsets[end], skip)
            index, first, left = index + 1, first + rows, left - rows
