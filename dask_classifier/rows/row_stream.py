"""Rows of a text that can be read only from its beginning: a compressed file, or one in an encoding such as UTF-16."""

from collections.abc import Callable, Iterator

import numpy as np

from ..errors import SourceError, StorageError
from .borders import Scan
from .decompression import TextStream

MAX_ROW_BYTES = 64 * 2**20  # a longer row almost certainly has a quote that is never closed

FindRows = Callable[
    [bytes, bool], Scan
]  # of a text that begins at a row's start or, if the flag is true, inside quotes


class RowStream:
    """The rows of a text stream, taken in order.

    Parameters
    ----------
    text : TextStream
        The text, at its beginning.
    start : int
        Bytes of text before the first row: byte order mark and header.
    find_rows : callable
        `find_rows(text, inside)` finds the rows in a text that begins after a line feed.
    """

    def __init__(self, text: TextStream, start: int, find_rows: FindRows):
        self.text, self.find_rows = text, find_rows
        self.row = 0  # number of the next row, from 0
        self.offset = start  # in the text, of the first byte that is not taken
        self.ended = False  # whether the text has been read to its end, or as far as possible
        self.damage: StorageError | None = None  # why not to its end
        self._inside = False  # whether the scanned text ends inside quotes
        self._scanned: list[bytes] = []  # not yet taken
        self._starts = np.empty(0, np.int64)  # of the rows in it
        self._size = 0  # of it, in bytes
        self._tail = b""  # after the last line feed: not yet scanned
        self._skip(start)

    def _skip(self, start: int) -> None:
        while start > 0 and (data := self.text.read(start)):
            self._tail, start = data[start:], start - len(data)

    @property
    def is_at_end(self) -> bool:
        """Whether all rows are taken, as far as is known without reading on."""
        return self.ended and not len(self._starts)

    def close(self) -> None:
        """Close the file."""
        self.text.close()

    def take(self, rows: int, largest: int | None = None, chunk_rows: int = 1) -> tuple[bytes, int]:
        """Return the text of the next rows, and their number: fewer at the end.

        If the text of all would have more bytes than `largest`, it is that of as many whole chunks as fit, or of one.
        Blank lines belong to the row before them. Raise SourceError for a row that is too long.
        """
        self._read_up_to(rows, largest, chunk_rows)
        rows = min(rows, len(self._starts))
        if largest is not None and self._end_of(rows) > largest:
            fitting = int(np.searchsorted(self._starts, largest, side="right")) - 1  # rows that end at a later start
            rows = min(rows, max(fitting // chunk_rows, 1) * chunk_rows)
        stop = self._end_of(rows)
        text = b"".join(self._scanned)
        self._scanned, self._size = [text[stop:]], len(text) - stop
        self._starts = self._starts[rows:] - stop
        self.row, self.offset = self.row + rows, self.offset + stop
        return text[:stop], rows

    def skip(self, rows: int) -> int:
        """Go on by a number of rows, and return how many there were."""
        skipped = 0
        while skipped < rows:
            self._read_up_to(1)
            there = max(1, len(self._starts) - (not self.ended))  # not more than was read: rows may be long
            if not (found := self.take(min(rows - skipped, there))[1]):
                break
            skipped += found
        return skipped

    def marks(self, spacing: int) -> Iterator[tuple[int, int]]:
        """Yield the offset and the number of a row about every `spacing` bytes, to the end, and finally of the end."""
        while not self.is_at_end:
            self._read_up_to(1)
            before = self.offset, self.row
            rows = int(np.searchsorted(self._starts, spacing)) or 1
            if self.take(rows)[1]:
                yield before
        yield self.offset, self.row

    def _end_of(self, rows: int) -> int:
        """Return where the row after the next `rows` rows begins, or where the text ends, in what was scanned."""
        return int(self._starts[rows]) if rows < len(self._starts) else self._size

    def _read_up_to(self, rows: int, largest: int | None = None, chunk_rows: int = 1) -> None:
        """Read until one more row begins than wanted, so that the last one is complete, or to the end.

        Less is enough if it has more bytes than `largest`, and a chunk.
        """
        while len(self._starts) <= rows and not self.ended:
            if largest is not None and self._size > largest and len(self._starts) > chunk_rows:
                return
            self._read()
            begin = int(self._starts[-1]) if len(self._starts) else 0
            if len(self._tail) > MAX_ROW_BYTES:
                raise no_line_feed(self.text.url, self.offset + self._size)
            if self._size + len(self._tail) - begin > MAX_ROW_BYTES:
                raise row_too_long(self.text.url, self.offset + begin, self.row + max(0, len(self._starts) - 1))

    def _read(self) -> None:
        """Read and scan the text up to a line feed; at the end, or where the file is damaged, up to there."""
        try:
            data = self.text.read()
        except StorageError as error:
            if not self.text.is_damaged:
                raise
            self._end_at_damage(error)
            return
        text = self._tail + data
        stop = text.rfind(b"\n") + 1 if data else len(text)
        self._tail = text[stop:]
        self._scan(text[:stop])
        self.ended = not data

    def _scan(self, text: bytes) -> None:
        if not text:
            return
        scan = self.find_rows(text, self._inside)
        self._starts = np.concatenate([self._starts, scan.starts + self._size])
        self._inside = scan.inside
        self._scanned.append(text)
        self._size += len(text)

    def _end_at_damage(self, damage: StorageError) -> None:
        """Leave out the row that is cut off: what is behind the last line feed, and what is inside quotes there."""
        self.ended, self.damage, self._tail = True, damage, b""
        if self._inside and len(self._starts):
            text, begin = b"".join(self._scanned), int(self._starts[-1])
            self._scanned, self._size, self._starts = [text[:begin]], begin, self._starts[:-1]


def row_too_long(url: str, offset: int, row: int) -> SourceError:
    """Return the error for a row, of which the number (from 0) and a byte before it are known."""
    return SourceError(
        f"{url}: a row after byte {offset:,} (row {row + 1:,}) is longer than {MAX_ROW_BYTES // 2**20} MiB.",
        "Check for a quote that is opened there and never closed.",
    )


def no_line_feed(url: str, offset: int) -> SourceError:
    """Return the error for text without a line feed, such as that of a classic Mac."""
    mebibytes = MAX_ROW_BYTES // 2**20
    return SourceError(
        f"{url} has no line feed for {mebibytes} MiB after byte {offset:,}.", "Check that it is a CSV file."
    )


def text_between(stream: TextStream, start: int, stop: int) -> bytes:
    """Return a text from the byte `start` to before `stop`; less if it ends before. The stream is at its beginning."""
    pieces = []
    while stream.offset < stop and (data := stream.read()):
        begin = stream.offset - len(data)
        if stream.offset > start:
            pieces.append(data[max(0, start - begin) : stop - begin])
    return b"".join(pieces)
