"""Find where rows begin in CSV bytes, exactly as pandas' C tokenizer does.

A line break ends a row unless it is inside quotes. A quote opens a quoted field only at the start of a field: in
`5" pipe,x` it is an ordinary character. Three rules give the effect of a run of quotes on the state, which is inside
or outside quotes:

- An even run (`""`, an escaped quote, or an empty field) does not change the state.
- An odd run at the start of a field toggles the state: it opens a quoted field or, inside quotes and after a comma in
  the text, closes it.
- An odd run elsewhere always leads outside: it closes a quoted field, or is a character of an unquoted one.

The state after any run therefore depends only on the runs since the last one of the third kind. A piece of a file can
be scanned without knowing what precedes it: once for each of the two states in which it may begin. This makes the scan
parallel and exact. A piece begins right after a line feed, so it never splits a run of quotes or a CRLF.

Blank rows (only spaces and tabs) are skipped, as in pandas. There is one difference: after a blank line that ends in a
lone CR, pandas drops a delimiter (docs/decisions.md).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

LINE_FEED, CARRIAGE_RETURN, QUOTE = b'\n\r"'
_BLANKS = list(b" \t\r\n")


@dataclass(frozen=True)
class Scan:
    """The result of scanning a piece of CSV: where its rows begin, and whether it ends inside quotes."""

    starts: np.ndarray  # offset of each row's first byte in the piece, int64, ascending
    inside: bool


class Anatomy:
    """The line breaks and quotes of a piece of CSV, located once for both states in which it may begin."""

    def __init__(self, piece: bytes, delimiter: str = ",", *, feeds_only: bool = False):
        self.piece, self.delimiter, self.feeds_only = piece, delimiter, feeds_only
        self.data = np.frombuffer(piece, np.uint8)
        self.breaks = self._line_breaks()
        self.runs, self.turns, self.reset = self._odd_runs_of_quotes()
        self.breaks_after = np.searchsorted(self.runs, self.breaks) if len(self.runs) else None

    def scan(self, *, inside: bool = False) -> Scan:
        """Return the rows that begin in the piece, which begins at a row's start or, with `inside`, inside quotes."""
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
        """Return the offset of the last byte of each line break: LF, CRLF or a lone CR."""
        feeds = np.flatnonzero(self.data == LINE_FEED)
        if self.feeds_only or CARRIAGE_RETURN not in self.piece:
            return feeds
        returns = np.flatnonzero(self.data == CARRIAGE_RETURN)
        after = self.data[np.minimum(returns + 1, len(self.data) - 1)]
        return np.sort(np.concatenate([feeds, returns[after != LINE_FEED]]))

    def _odd_runs_of_quotes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return where odd runs begin, the number of toggles up to each, and that number at the last reset.

        A run that is not at the start of a field resets the state; before the first one, the last value is -1.
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
        spaces = {" ", "\t"} - {self.delimiter}
        rest_is_blank = re.compile(rb"[%s]*(?:[\r\n]|\Z)" % "".join(spaces).encode())
        for row in np.flatnonzero(np.isin(first, [ord(space) for space in spaces])):
            blank[row] = rest_is_blank.match(self.piece, starts[row]) is not None
        return starts[~blank] if blank.any() else starts


def scan(piece: bytes, delimiter: str = ",") -> Scan:
    """Return the rows of a piece that begins at a row's start."""
    return Anatomy(piece, delimiter).scan()


def scan_part(part: bytes) -> np.ndarray:
    """Return where the rows begin in CSV that pandas has written.

    pandas terminates each row with LF, and does not quote a CR in a value. It writes no blank rows: a line of spaces
    is a value.
    """
    return Anatomy(part, feeds_only=True).scan().starts


def count_rows(part: bytes) -> int:
    """Count the rows in CSV that pandas has written."""
    return len(scan_part(part))


@dataclass(frozen=True)
class Piece:
    """The survey of a piece of a file, for each state in which it may begin: outside quotes (0) or inside (1)."""

    start: int  # offset of the piece in the file
    rows: tuple[int, int]  # number of rows that begin in the piece
    ends_inside: tuple[bool, bool]
    marks: tuple[list[tuple[int, int]], list[tuple[int, int]]]  # (offset in the file, rows of the piece before it)


def survey(piece: bytes, start: int, delimiter: str, spacing: int) -> Piece:
    """Scan a piece at offset `start` of its file, for both states, with a mark about every `spacing` bytes."""
    anatomy = Anatomy(piece, delimiter)
    scans = [anatomy.scan(inside=inside) for inside in (False, True)]
    marks = tuple([(start + int(scan.starts[row]), row) for row in _mark_rows(scan.starts, spacing)] for scan in scans)
    return Piece(start, tuple(len(scan.starts) for scan in scans), tuple(scan.inside for scan in scans), marks)


def survey_lines(piece: bytes, start: int, spacing: int) -> Piece:
    """Locate the lines that are not empty in a piece at offset `start` of its file, whatever quotes are in them."""
    starts = lines_of(piece)
    marks = [(start + int(starts[row]), row) for row in _mark_rows(starts, spacing)]
    return Piece(start, (len(starts), len(starts)), (False, False), (marks, marks))


def lines_of(text: bytes) -> np.ndarray:
    """Return where the lines of a text begin that have more than spaces."""
    data = np.frombuffer(text, np.uint8)
    feeds = np.flatnonzero(data == LINE_FEED)
    starts = np.concatenate([[0], feeds + 1]).astype(np.int64, copy=False)
    starts = starts[starts < len(text)]
    starts = starts[data[starts] != LINE_FEED]
    if np.isin(data[starts], _BLANKS).any():
        starts = starts[np.add.reduceat(~np.isin(data, _BLANKS), starts, dtype=np.int64) > 0]
    return starts


def _mark_rows(starts: np.ndarray, spacing: int) -> list[int]:
    if not len(starts):
        return []
    wanted = np.searchsorted(starts, np.arange(0, int(starts[-1]) + 1, spacing))
    return np.unique(wanted).tolist()


def marks_of(pieces: list[Piece]) -> Iterator[tuple[int, int]]:
    """Yield offsets of rows in a file, each with the number of rows before it, and finally (-1, number of all rows).

    `pieces` are in order. The first begins at a row's start, so the state at the beginning of each is known.
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
    """CSV text without a header, and where each row begins in it."""

    text: bytes
    starts: list[int]  # of each row, then the end of the text
    ends_inside: bool = False  # whether the text ends inside quotes, which would go on in a text behind it
    separate: bool = False  # whether it must not be parsed as a whole, since a file in it ends inside quotes

    def __len__(self) -> int:
        return len(self.starts) - 1

    @classmethod
    def of(cls, text: bytes, delimiter: str) -> Self:
        """Find the rows of CSV text that begins at a row's start."""
        found = scan(text, delimiter)
        return cls(text, [*found.starts.tolist(), len(text)], found.inside)

    @classmethod
    def of_lines(cls, text: bytes) -> Self:
        """Return the lines of a text that are not empty, whatever quotes are in them."""
        return cls(text, [*lines_of(text).tolist(), len(text)])

    def part(self, first: int, stop: int) -> Self:
        """Return the rows from `first` to before `stop`."""
        begin, *_ = starts = self.starts[first : stop + 1]
        ends_inside = self.ends_inside and stop == len(self)
        return type(self)(self.text[begin : starts[-1]], [start - begin for start in starts], ends_inside)

    @classmethod
    def joined(cls, several: Sequence[Self]) -> Self:
        """Join rows of several files. A line feed is added where the last row of a file has none."""
        if len(several) == 1:
            return several[0]
        texts, starts, size = [], [], 0
        for rows in several:
            texts.append(rows.text if rows.text.endswith(b"\n") or not len(rows) else rows.text + b"\n")
            starts += [size + start for start in rows.starts[:-1]]
            size += len(texts[-1])
        return cls(b"".join(texts), [*starts, size], separate=any(rows.ends_inside for rows in several[:-1]))
