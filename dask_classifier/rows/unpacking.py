"""Read a file that flows into pieces, some at a time: what a worker is asked for, and what it answers.

A worker keeps the open file between two orders. If another one gets the next order, because the worker was lost, it
reads the file from its beginning up to the first row of the order.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from .. import storage
from ..errors import SourceError, StorageError
from .layouts import Layout
from .row_stream import RowStream
from .source import FlowingFile

_WRITTEN_AT_ONCE = 8
MOST_BYTES = 2**26  # of text in the pieces of one order, unless a single one is larger


class Order(NamedTuple):
    """Which rows of a file a worker reads."""

    first: int  # row, from 0
    sizes: tuple[int, ...]  # rows of the pieces that follow each other
    exact: bool = False  # whether the pieces must have these rows; if not, they end with the file, or are smaller
    largest: int | None = None  # bytes of a piece, unless a single chunk is larger; None: of any size
    chunk_rows: int = 1  # of which a piece has a multiple
    written: bool = True  # whether the pieces are written, and not only counted


class Unpacked(NamedTuple):
    """The pieces that were read for an order."""

    pieces: tuple[tuple[int, int], ...]  # rows and bytes of each
    share: float  # of the stored file that these pieces and those before them take up, roughly
    ended: bool  # whether the file has no more rows that can be read
    damage: StorageError | None  # why not, if it is damaged behind them
    worker: str  # the Dask worker that has the file open


class Unpacker:
    """Reads pieces of files, and keeps the last one open."""

    def __init__(self):
        self._of: tuple[FlowingFile, Layout] | None = None
        self._rows: RowStream | None = None

    def unpack(self, file: FlowingFile, layout: Layout, order: Order, worker: str) -> Unpacked:
        """Read the pieces of an order. Raise SourceError if the file has changed."""
        try:
            return self._unpack(file, self._at(file, layout, order.first), order, worker)
        except BaseException:
            self.close()
            raise

    def _unpack(self, file: FlowingFile, rows: RowStream, order: Order, worker: str) -> Unpacked:
        pieces, written, size = [], [], 0
        with ThreadPoolExecutor(_WRITTEN_AT_ONCE) as pool:
            for wanted in order.sizes:
                first = rows.row
                text, found = rows.take(wanted, order.largest, order.chunk_rows)
                if order.exact and found != wanted:
                    raise _changed(file)
                if not found:
                    break
                if order.written:
                    written.append(pool.submit(storage.write, file.piece(first, found), text))
                pieces.append((found, len(text)))
                size += len(text)
                if size >= MOST_BYTES or found < wanted:  # else a size that the limit cut could begin in a chunk
                    break
        for one in written:
            one.result()  # raises what has gone wrong
        share = rows.text.stored_offset / file.size * rows.offset / max(1, rows.text.offset)
        return Unpacked(tuple(pieces), share, rows.is_at_end, rows.damage if rows.is_at_end else None, worker)

    def _at(self, file: FlowingFile, layout: Layout, row: int) -> RowStream:
        """Return the rows of a file from a row on."""
        if self._of != (file, layout) or self._rows.row > row:
            self.close()
            self._of, self._rows = (file, layout), file.open_rows(layout)
        missing = row - self._rows.row
        if self._rows.skip(missing) < missing:
            raise _changed(file)
        return self._rows

    def close(self) -> None:
        """Close the file."""
        if self._rows is not None:
            self._rows.close()
        self._of = self._rows = None


def _changed(file: FlowingFile) -> SourceError:
    return SourceError(
        f"{file.url} has changed since the run began.", "Start a new run when nothing writes to the file any more."
    )
