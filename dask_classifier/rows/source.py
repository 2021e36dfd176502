"""Where rows come from: `InputFile`, what every kind of input can do; `Source`, the inputs of one run; cutting them.

A source is surveyed once, in parallel, wherever the workers are; only marks come back (a row's start and its
number). From the marks, blocks are cut at exact rows: a block says from which mark to read, how many rows to skip,
and how many to take. Rows never pass through the client.

To add a kind of input, write one file with a frozen dataclass that implements `InputFile`, and name it in
`inputs.KINDS`.
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
    """What one task reads: rows `first_row` to `first_row + rows - 1` (from 0) of file number `file` of the source.

    In a CSV file they are among the bytes from `start` to before `stop`, after `skip` other rows.
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
    """Rows of a file whose place is known: `rows[i]` rows stand before the byte `offsets[i]`; the last is the end."""

    offsets: tuple[int, ...]
    rows: tuple[int, ...]

    def between(self, first: int, rows: int) -> tuple[int, int]:
        """Return the numbers of the marks between which `rows` rows from row `first` are."""
        begin = bisect.bisect_right(self.rows, first, hi=len(self.rows) - 1) - 1
        return begin, bisect.bisect_left(self.rows, first + rows)


class InputFile(ABC):
    """One input of a source: a file, or what stands for one.

    Implementations are frozen dataclasses of plain values: they travel to the workers, and stand in plan.json. Fields
    whose names begin with `data_` are not part of a run's identity.
    """

    url: str  # as the user named it
    size: int  # bytes, as stored; 0 where that means nothing

    # looking at it, on the client: no row leaves the machine, except the first ones

    @classmethod
    @abstractmethod
    def accepts(cls, name: str) -> bool:
        """Whether this kind of input reads what the user named: a path, a URL or a glob."""

    @classmethod
    @abstractmethod
    def expand(cls, name: str) -> list[str]:
        """Return the URLs that a name stands for, in order. Raises StorageError where there are none."""

    @classmethod
    @abstractmethod
    def look(cls, url: str, number: int, layout: Layout, copies: str) -> tuple[Self, tuple]:
        """Return the input and its columns, () where it has no rows; `copies` is the folder for a decompressed copy.

        Raises StorageError where it cannot be read, SourceError where it is not what it seems to be.
        """

    @property
    def known_rows(self) -> int | None:
        """The number of rows, where it is known without a survey."""
        return None

    @abstractmethod
    def first_rows(self, rows: int, layout: Layout) -> bytes:
        """Return up to `rows` of the first rows as CSV without a header, as `layout_of_rows` has it."""

    # a copy that blocks read instead, where the input cannot be read from the middle

    @property
    def needs_copy(self) -> bool:
        """Whether rows are read from a decompressed copy in the run's folder."""
        return False

    @property
    def copied_by_client(self) -> bool:
        """Whether the copy is written where the plan was made, and not on a worker."""
        return False

    def write_copy(self, encoding: str) -> int:
        """Write the copy and return its size in bytes."""
        raise NotImplementedError

    def layout_of_rows(self, layout: Layout) -> Layout:
        """Return how the rows that blocks read are written: copies are UTF-8."""
        return replace(layout, encoding="utf-8") if self.needs_copy else layout

    # finding its rows, in parallel, on the workers

    def pieces(self) -> list[int]:
        """Return the starts of the pieces that are surveyed each by a task; none where the rows are known."""
        return []

    def survey(self, start: int, delimiter: str) -> Piece:
        """Find the rows in the piece at `start`. Raises SourceError where it cannot be cut into rows."""
        raise NotImplementedError

    @abstractmethod
    def marks(self, pieces: list[Piece]) -> Marks:
        """Join what the survey of each piece has found, in order."""

    # reading it, in a classifier process

    @abstractmethod
    def read(self, block: Block, layout: Layout) -> "Parsed":
        """Return the rows of one block. Raises SourceError where the input changed since the survey."""

    @property
    def identity(self) -> dict[str, object]:
        """What tells this input, in this version, from others."""
        return {name: value for name, value in asdict(self).items() if not name.startswith("data_")}

    @property
    def words(self) -> str:
        """Its name in messages."""
        return self.url


@dataclass(frozen=True)
class Source:
    """The inputs of one run, and how the user's files are written."""

    layout: Layout
    files: tuple[InputFile, ...]

    def __str__(self) -> str:
        """A line for people."""
        if len(self.files) == 1 and self.files[0].known_rows is not None:
            return self.files[0].words
        name = self.files[0].words if len(self.files) == 1 else count_of(len(self.files), "file")
        return f"{name}, {format_bytes(self.size)}"

    @property
    def size(self) -> int:
        """Bytes of all inputs, as stored."""
        return sum(file.size for file in self.files)

    @property
    def known_rows(self) -> int | None:
        """The number of rows, where it is known without a survey."""
        known = [file.known_rows for file in self.files]
        return None if None in known else sum(rows for rows in known if rows)

    @property
    def copies(self) -> list[tuple[int, InputFile]]:
        """The numbered inputs that need a decompressed copy before they can be cut."""
        return [(number, file) for number, file in enumerate(self.files) if file.needs_copy]

    def with_copies(self, sizes: dict[int, int]) -> "Source":
        """Return the same source, with the sizes of the decompressed copies filled in."""
        files = (replace(file, data_size=sizes[n]) if n in sizes else file for n, file in enumerate(self.files))
        return replace(self, files=tuple(files))

    def first_rows(self, rows: int) -> tuple[str, Layout, bytes]:
        """Return up to `rows` rows of the first input that has any, as CSV without a header: its name, how they are
        written, and the text.
        """
        for file in self.files:
            if text := file.first_rows(rows, self.layout):
                return file.url, file.layout_of_rows(self.layout), text
        return "the source", self.layout, b""

    def pieces(self) -> list[tuple[int, int]]:
        """Return the survey's tasks: (file number, start of a piece)."""
        return [(number, start) for number, file in enumerate(self.files) for start in file.pieces()]

    def marks(self, surveyed: list[tuple[int, Piece]]) -> list[Marks]:
        """Join the survey's pieces, (file number, piece) in order, to the marks of each input."""
        pieces_of = defaultdict(list)
        for number, piece in surveyed:
            pieces_of[number].append(piece)
        return [file.marks(pieces_of[number]) for number, file in enumerate(self.files)]


def cut(
    surveyed: list[Marks],
    rows_of_next: Callable[[int], int],
    shrink: Callable[[int, int], int] = lambda rows, size: rows,
) -> Iterator[Block]:
    """Yield the blocks of a source, none of which spans two inputs.

    `rows_of_next(left)` gives the rows of the next block, with `left` rows of the source to go; `shrink(rows, size)`
    gives fewer where their `size` in bytes is too large, and is asked until it agrees.
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
