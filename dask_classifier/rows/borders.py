"""Finds where rows begin in CSV bytes, exactly as pandas' C tokenizer does.

A line break ends a row unless it stands inside quotes, and a quote opens a quoted field only at the start of
a field: in `5" pipe,x` it is an ordinary character. What a run of quotes does to the state follows from three
facts:

- an even run (`""`, an escaped quote, or an empty field) leaves the state as it was;
- an odd run at the start of a field turns the state round: it opens, or (inside quotes, after a comma in the
  text) it closes;
- an odd run elsewhere leaves us outside: it closes a quoted field, or it is a character of an unquoted one.

So the state after any run is known from the runs since the last one of the third kind, and a piece of a file
can be scanned without knowing what stands before it, once for each of the two states in which it may begin.
That is what makes the scan parallel and exact. A piece begins right after a line feed, so it never cuts a run
of quotes or a CRLF.

Blank rows (only spaces and tabs) are no rows, as in pandas. One thing differs: after a blank line that ends in a lone
CR, pandas swallows a delimiter (docs/decisions.md).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np

LINE_FEED, CARRIAGE_RETURN, QUOTE = b'\n\r"'


@dataclass(frozen=True)
class Scan:
    """What a piece of CSV holds: where its rows begin, and whether it ends inside quotes."""

    starts: np.ndarray  # offsets in the piece of each row's first byte, int64, ascending
    inside: bool


class Anatomy:
    """The line breaks and quotes of a piece of CSV, found once and good for both states in which it may
    begin.
    """

    def __init__(self, piece: bytes, delimiter: str = ",", *, feeds_only: bool = False):
        self.piece, self.delimiter, self.feeds_only = piece, delimiter, feeds_only
        self.data = np.frombuffer(piece, np.uint8)
        self.breaks = self._line_breaks()
        self.runs, self.turns, self.reset = self._odd_runs_of_quotes()
        self.breaks_after = np.searchsorted(self.runs, self.breaks) if len(self.runs) else None

    def scan(self, *, inside: bool = False) -> Scan:
        """The rows that begin in the piece, which itself begins at a row's start or, with `inside`, within
        quotes.
        """
        breaks, inside_at_end = self.breaks, inside
        if self.breaks_after is not None:
            states = np.where(self.reset >= 0, self.turns - self.reset, self.turns + inside) % 2
            breaks = breaks[np.concatenate([[inside], states])[self.breaks_after] == 0]
            inside_at_end = bool(states[-1])
        elif inside:
            breaks = breaks[:0]
        starts = breaks + 1 if inside else np.concatenate([[0], breaks + 1]).astype(np.int64, copy=False)
        if len(starts) and starts[-1] == len(self.piece):
            starts = starts[:-1]
        return Scan(starts if self.feeds_only else self._without_blank_rows(starts), inside_at_end)

    def _line_breaks(self) -> np.ndarray:
        """Offsets of the last byte of each line break: LF, CRLF, or a CR alone."""
        feeds = np.flatnonzero(self.data == LINE_FEED)
        if self.feeds_only or CARRIAGE_RETURN not in self.piece:
            return feeds
        returns = np.flatnonzero(self.data == CARRIAGE_RETURN)
        after = self.data[np.minimum(returns + 1, len(self.data) - 1)]
        return np.sort(np.concatenate([feeds, returns[after != LINE_FEED]]))

    def _odd_runs_of_quotes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where odd runs begin; how often the state has turned by then; that count at the last reset, or -1
        before any.
        """
        quotes = np.flatnonzero(self.data == QUOTE) if QUOTE in self.piece else np.empty(0, np.int64)
        first_of_run = np.flatnonzero(np.diff(quotes, prepend=-2) != 1)
        lengths = np.diff(first_of_run, append=len(quotes))
        runs = quotes[first_of_run[lengths % 2 == 1]]
        previous = self.data[np.maximum(runs - 1, 0)] if len(runs) else runs
        openers = (ord(self.delimiter), LINE_FEED) + (() if self.feeds_only else (CARRIAGE_RETURN,))
        at_field_start = (runs == 0) | np.isin(previous, openers)
        turns = np.cumsum(at_field_start)
        return runs, turns, np.maximum.accumulate(np.where(at_field_start, -1, turns))

    def _without_blank_rows(self, starts: np.ndarray) -> np.ndarray:
        first = self.data[starts]
        blank = (first == LINE_FEED) | (first == CARRIAGE_RETURN)
        whites = {" ", "\t"} - {self.delimiter}
        rest_is_blank = re.compile(rb"[%s]*(?:[\r\n]|\Z)" % "".join(whites).encode())
        for row in np.flatnonzero(np.isin(first, [ord(white) for white in whites])):
            blank[row] = rest_is_blank.match(self.piece, starts[row]) is not None
        return starts[~blank] if blank.any() else starts


def scan(piece: bytes, delimiter: str = ",") -> Scan:
    """The rows of a piece that begins at a row's start."""
    return Anatomy(piece, delimiter).scan()


def scan_part(part: bytes) -> np.ndarray:
    """Return where the rows of CSV that pandas has written begin.

    pandas ends each row with LF and leaves a CR in a value unquoted. It writes no blank rows: a line of spaces is a
    value.
    """
    return Anatomy(part, feeds_only=True).scan().starts


def count_rows(part: bytes) -> int:
    """The rows of CSV that pandas has written."""
    return len(scan_part(part))


@dataclass(frozen=True)
class Piece:
    """What one piece of a file may hold, for each state in which it may begin: a row's start (0), within
    quotes (1).
    """

    start: int  # the piece's offset in the file
    rows: tuple[int, int]  # rows that begin in the piece
    ends_inside: tuple[bool, bool]
    marks: tuple[list[tuple[int, int]], list[tuple[int, int]]]  # (offset in the file, rows of the piece before it)


def survey(piece: bytes, start: int, delimiter: str, spacing: int) -> Piece:
    """Scan a piece that begins at offset `start` of its file, for both states; a mark about every `spacing`
    bytes.
    """
    anatomy = Anatomy(piece, delimiter)
    scans = [anatomy.scan(inside=inside) for inside in (False, True)]
    marks = tuple(
        [(start + int(found.starts[row]), row) for row in _mark_rows(found.starts, spacing)] for found in scans
    )
    return Piece(start, tuple(len(found.starts) for found in scans), tuple(found.inside for found in scans), marks)


def _mark_rows(starts: np.ndarray, spacing: int) -> list[int]:
    if not len(starts):
        return []
    wanted = np.searchsorted(starts, np.arange(0, int(starts[-1]) + 1, spacing))
    return np.unique(wanted).tolist()


def marks_of(pieces: list[Piece]) -> Iterator[tuple[int, int]]:
    """Offsets of rows' starts and the number of rows before each, through a whole file; the last is (-1, all
    rows).

    `pieces` are in order; the first begins at a row's start, so each state follows from the one before.
    """
    inside, rows = False, 0
    for piece in pieces:
        for offset, before in piece.marks[inside]:
            yield offset, rows + before
        rows += piece.rows[inside]
        inside = piece.ends_inside[inside]
    yield -1, rows


@dataclass(frozen=True)
class Rows:
    """CSV text without a header, and where in it each row begins."""

    text: bytes
    starts: list[int]  # one more than there are rows: the last is the end

    def __len__(self) -> int:
        return len(self.starts) - 1

    @classmethod
    def of(cls, text: bytes, delimiter: str) -> Self:
        """Find the rows of CSV text that begins at a row's start."""
        return cls(text, [*scan(text, delimiter).starts.tolist(), len(text)])
