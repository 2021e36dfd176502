"""Blocks: which rows a task reads; and cutting them from the marks of a survey.

A source is surveyed once, in parallel, on the workers. The survey returns only marks: offsets of rows with their
numbers. Blocks are cut from the marks at exact rows: a span has the mark at which to start reading, the number of rows
to skip, and the number of rows to take. Rows never pass through the client.
"""

import bisect
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass

MOST_SPANS = 1_000  # files of a block: reading many small ones takes longer than classifying them


@dataclass(frozen=True)
class Span:
    """Rows of one file: rows `first_row` to `first_row + rows - 1` (from 0) of file number `file`.

    In a CSV file, they are among the bytes from `start` to before `stop`, after `skip` other rows.
    """

    rows: int
    first_row: int = 0
    file: int = 0
    start: int = 0
    stop: int = 0
    skip: int = 0


BLOCK_FIELDS = ("index", *Span.__dataclass_fields__)  # of the lines in plan.json


@dataclass(frozen=True)
class Block:
    """The rows that one task reads and one part has: a span or, where files are small, several, in order."""

    index: int
    spans: tuple[Span, ...]

    @property
    def rows(self) -> int:
        """The number of its rows."""
        return sum(span.rows for span in self.spans)

    def lines(self) -> list[tuple[int, ...]]:
        """Return it as in plan.json: BLOCK_FIELDS of each span."""
        return [(self.index, *astuple(span)) for span in self.spans]


def blocks_of_lines(lines: Iterable[Sequence[int]]) -> Iterator[Block]:
    """Yield the blocks of plan.json: lines with the same index, which follow each other, are one block."""
    for index, spans in itertools.groupby(lines, key=lambda line: line[0]):
        yield Block(index, tuple(Span(*span[1:]) for span in spans))


@dataclass(frozen=True)
class Marks:
    """Rows of a file with known offsets: `rows[i]` rows precede the byte `offsets[i]`; the last is the end of file."""

    offsets: tuple[int, ...]
    rows: tuple[int, ...]

    def span(self, file: int, first: int, rows: int) -> Span:
        """Return the span of `rows` rows from row `first` of file number `file`."""
        begin = bisect.bisect_right(self.rows, first, hi=len(self.rows) - 1) - 1
        end = bisect.bisect_left(self.rows, first + rows)
        return Span(rows, first, file, self.offsets[begin], self.offsets[end], first - self.rows[begin])

    def beginning(self, rows: int) -> "Marks":
        """Return the marks of the first rows alone."""
        if rows >= self.rows[-1]:
            return self
        end = bisect.bisect_left(self.rows, rows)
        return Marks(self.offsets[: end + 1], (*self.rows[:end], rows))


NO_ROWS = Marks((0,), (0,))


def beginnings(surveyed: Sequence[Marks], rows: int | None) -> list[Marks]:
    """Return the marks of the first rows of several inputs, or of all rows."""
    if rows is None:
        return list(surveyed)
    limited = []
    for marks in surveyed:
        limited.append(marks.beginning(rows))
        rows -= limited[-1].rows[-1]
    return limited


Sizes = Callable[[int], int]  # from the rows that are left to those of the next block
Shrink = Callable[[int, int], int]  # from rows and their bytes to fewer rows, if these are too many bytes
Joinable = Callable[[int, int], bool]  # whether a block may have rows of both files


def cut(
    surveyed: Sequence[Marks],
    rows_of_next: Sizes,
    shrink: Shrink = lambda rows, size: rows,
    joinable: Joinable = lambda one, other: True,
    chunk_rows: int = 1,
) -> Iterator[Block]:
    """Yield the blocks of a source.

    Parameters
    ----------
    surveyed : sequence of Marks
        The marks of each input.
    rows_of_next : callable
        `rows_of_next(left)` returns the number of rows of the next block, with `left` rows of the source to go.
    shrink : callable, optional
        `shrink(rows, size)` returns a smaller number of rows if their `size` in bytes is too large. It is called again
        until it returns `rows`.
    joinable : callable, optional
        Whether a block that ends with one input, given by its number, may go on with another one.
    chunk_rows : int, optional
        A block ends after whole chunks of an input, or at its end.

    Yields
    ------
    Block
        The next rows of the source.
    """
    cutter = _Cutter(surveyed, shrink, joinable, chunk_rows)
    for index in itertools.count():
        if not cutter.left:
            return
        yield Block(index, tuple(cutter.take(rows_of_next(cutter.left))))


class _Cutter:
    """A position in a source, from which spans are taken."""

    def __init__(self, surveyed: Sequence[Marks], shrink: Shrink, joinable: Joinable, chunk_rows: int):
        self.surveyed, self.shrink, self.joinable, self.chunk_rows = surveyed, shrink, joinable, chunk_rows
        self.left = sum(marks.rows[-1] for marks in surveyed)
        self.file = self.first = 0

    def take(self, wanted: int) -> Iterator[Span]:
        """Yield the spans of the next block: up to `wanted` rows of the next input, and of those after it."""
        taken = size = count = 0
        previous = None
        while self.left and count < MOST_SPANS:
            self._skip_finished_files()
            if previous is not None and not self.joinable(previous, self.file):
                return
            span = self._fitting(wanted - taken, taken, size)
            if not span.rows:
                return
            yield span
            taken, size, count, previous = taken + span.rows, size + span.stop - span.start, count + 1, self.file
            self.first, self.left = self.first + span.rows, self.left - span.rows

    def _skip_finished_files(self) -> None:
        while self.first == self.surveyed[self.file].rows[-1]:
            self.file, self.first = self.file + 1, 0

    def _fitting(self, wanted: int, taken: int, size: int) -> Span:
        """Return the next span, of no rows if the block is complete, with rows and bytes that it has already."""
        marks = self.surveyed[self.file]
        there = marks.rows[-1] - self.first
        rows = there if there <= wanted else wanted // self.chunk_rows * self.chunk_rows if taken else wanted
        span = marks.span(self.file, self.first, rows)
        while rows and (fewer := self.shrink(taken + rows, size + span.stop - span.start)) < taken + rows:
            rows = 0 if taken else fewer
            span = marks.span(self.file, self.first, rows)
        return span
