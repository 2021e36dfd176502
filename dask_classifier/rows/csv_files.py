"""CSV files as inputs: inspect them, survey them and read their blocks.

Pieces of 16 MiB are scanned in parallel, with a mark about every 256 KiB. A file is packed if its text is not in it as
it is: it is compressed (gzip, bz2, zstd, xz), or in an encoding in which the byte of a comma may be part of another
character. A small packed file is read from its beginning by each block. A large one flows: a worker reads it once, into
pieces that are classified while it goes on.
"""

import contextlib
import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

from .. import storage
from ..errors import StorageError
from .blocks import NO_ROWS, Marks, Span
from .borders import Anatomy, Piece, Rows, Scan, marks_of, survey
from .decompression import Packing, TextStream, compression, open_text
from .layouts import HEAD_BYTES, Layout, check_wanted, keeps_ascii, read_header
from .row_stream import MAX_ROW_BYTES, RowStream, no_line_feed, row_too_long, text_between
from .sniff import compression_of, refuse_what_is_not_csv
from .source import SURVEY_BYTES, CopiedFile, FlowingFile, StoredFile, Surveyed

MARK_SPACING = 2**18  # bytes between marks: at either end, a block reads at most this much more than its rows
# the largest packed files that do not flow, by compression: each of their blocks reads them again, in 0.1 s at most
SMALL_BYTES = {"gzip": 2**22, "zstd": 2**22, "bz2": 2**19, "xz": 2**19, None: 2**24}


@dataclass(frozen=True)
class CsvFile(StoredFile, FlowingFile, CopiedFile):
    """A CSV file: the name that the user gave, its version, and where its text is read."""

    url: str
    size: int
    version: str
    data_url: str  # equal to url, or the URL of a copy of the text
    data_start: int | None = None  # offset of the first byte after byte order mark and header in the text
    data_size: int = 0  # of the text; 0 until it is known
    data_packing: Packing | None = None  # of a packed file
    data_flows: bool = False  # whether it is large, and packed
    data_pieces: str = ""  # the folder of its pieces, if it flows, and a digest for their names

    @classmethod
    def accepts(cls, url: str) -> bool:
        """Return True: any file may be CSV."""
        return True

    @classmethod
    def found(cls, url: str, identity: storage.Identity, layout: Layout, copies: str) -> Self:
        """Return a file that is not inspected."""
        of = repr((url, identity.size, identity.version, layout.encoding))  # so that no run has the pieces of another
        digest = hashlib.sha256(of.encode("utf-8", "backslashreplace")).hexdigest()[:12]
        pieces = storage.join(copies, digest)
        file = cls(url, identity.size, identity.version, url, data_size=identity.size, data_pieces=pieces)
        kind = compression(url)
        return file._packed(kind, layout) if kind or not keeps_ascii(layout.encoding) else file

    def _packed(self, kind: str | None, layout: Layout) -> Self:
        """Return this file as one whose text is packed."""
        packing = Packing(kind, layout.encoding)
        return replace(self, data_size=0, data_packing=packing, data_flows=self.size > SMALL_BYTES[kind])

    def restored(self, stored: dict[str, Any]) -> Self:
        """Return this input with what plan.json has of its text."""
        names = ("data_size", "data_start", "data_flows")
        known = {name: stored[name] for name in names if stored.get(name) is not None}
        packing = stored.get("data_packing")
        return replace(self, **known, data_packing=Packing(*packing) if packing else self.data_packing)

    def inspect(self, layout: Layout) -> tuple[Self, tuple]:
        """Read the beginning of the file: check that it is CSV, and return the input and its columns."""
        file, head = self, self._head()[0]
        if not self.is_packed and (kind := compression_of(head)):  # although its name does not say so
            file = self._packed(kind, layout)
            head = file._head()[0]
        return file._inspected(head, layout)

    def _inspected(self, head: bytes, layout: Layout) -> tuple[Self, tuple]:
        refuse_what_is_not_csv(head, self.url)
        start, columns = read_header(head, self.layout_of_rows(layout), self.url)
        if columns:
            check_wanted(layout, columns, self.url)
        return replace(self, data_start=start), columns

    @property
    def is_inspected(self) -> bool:
        """Whether it is known where its rows begin."""
        return self.data_start is not None

    @property
    def is_packed(self) -> bool:
        """Whether the text is not in the file as it is."""
        return self.data_packing is not None

    @property
    def is_compressed(self) -> bool:
        """Whether the text takes more bytes than are stored."""
        return self.data_packing is not None and self.data_packing.compression is not None

    @property
    def is_copied(self) -> bool:
        """Whether the text is read from a copy."""
        return self.data_url != self.url

    @property
    def flows(self) -> bool:
        """Whether the file is read once, into pieces."""
        return self.data_flows and not self.is_copied

    @property
    def needs_copy(self) -> bool:
        """Whether it cannot be read without a copy: False for a file."""
        return False

    @property
    def rows_size(self) -> int:
        """Bytes of its rows: without byte order mark and header, or, if it is packed, of the file as it is stored."""
        return self.size if self.is_packed else self.size - (self.data_start or 0)

    def _head(self) -> tuple[bytes, bool]:
        """Return the first bytes of the text, and whether there are no more."""
        if not self.data_packing:
            return storage.read(self.data_url, 0, min(HEAD_BYTES, self.data_size)), self.data_size <= HEAD_BYTES
        head, complete = b"", True
        with open_text(self.url, self.data_packing) as text:
            try:
                while len(head) <= HEAD_BYTES and (data := text.read()):
                    head += data
            except StorageError:
                if not (text.is_damaged and head and self.flows):
                    raise
                complete = False  # its run classifies the rows before the damage, and then reports it
        return head[:HEAD_BYTES], complete and len(head) <= HEAD_BYTES

    def layout_of_rows(self, layout: Layout) -> Layout:
        """Return the text format of the rows that blocks read: those of a packed file are UTF-8."""
        return replace(layout, encoding="utf-8") if self.is_packed else layout

    def first_rows(self, rows: int, layout: Layout) -> Rows:
        """Return the first rows, as far as they are within the first HEAD_BYTES."""
        head, complete = self._head()
        head = head[self._inspected(head, layout)[0].data_start :]
        found = self._rows_of(head, layout)
        whole = len(found) - (0 if complete else 1)  # the last row may be truncated
        return found.part(0, min(rows, max(0, whole)))

    def rows_near(self, offset: int, rows: int, layout: Layout) -> Rows:
        """Return whole rows behind a byte; of a packed file, the first ones."""
        if self.is_packed or offset < (self.data_start or 0):
            return self.first_rows(rows, layout)
        text = storage.read(self.data_url, offset, min(offset + MARK_SPACING, self.data_size))
        begin = text.find(b"\n") + 1
        stop = text.rfind(b"\n") + 1 if offset + MARK_SPACING < self.data_size else len(text)
        found = self._rows_of(text[begin:stop], layout)
        return found.part(0, min(rows, len(found))) if len(found) else self.first_rows(rows, layout)

    @staticmethod
    def _rows_of(text: bytes, layout: Layout) -> Rows:
        """Find the rows of text that begins at a row's start."""
        return Rows.of(text, layout.delimiter)

    @staticmethod
    def _survey(text: bytes, start: int, layout: Layout) -> Piece:
        """Find the rows of a piece of the file that begins at byte `start`."""
        return survey(text, start, layout.delimiter, MARK_SPACING)

    @staticmethod
    def _scan(text: bytes, inside: bool, layout: Layout) -> Scan:
        """Find the rows of text that begins after a line feed, perhaps inside quotes."""
        return Anatomy(text, layout.delimiter).scan(inside=inside)

    # a packed file

    def open_rows(self, layout: Layout) -> RowStream:
        """Open the file for reading its rows from the first one. Raise SourceError if it has changed."""
        self._check_unchanged()
        text = TextStream(self.url, self.data_packing)
        try:
            return RowStream(text, self.data_start, functools.partial(self._scan, layout=layout))
        except BaseException:
            text.close()
            raise

    def piece(self, first_row: int, rows: int) -> str:
        """Return the URL of the piece with these rows: one name for one text, whoever writes it."""
        folder, _, digest = self.data_pieces.rpartition("/")
        return storage.join(folder, f"{first_row}-{digest}{rows:x}.csv")

    def with_copy_in(self, folder: str) -> Self:
        """Return this input with a copy in a folder."""
        return replace(self, data_url=storage.join(folder, f"{self.data_pieces.rpartition('/')[2]}.csv"))

    def write_copy(self, layout: Layout, rows: int | None = None) -> int:
        """Write the copy, of the whole text or of the first rows, and return its size in bytes."""
        self._check_unchanged()
        stop = None if rows is None else self._end_of(rows, layout)
        size = 0
        with open_text(self.url, self.data_packing) as text, storage.open_whole(self.data_url) as copy:
            while size != stop and (data := text.read()):
                size += copy.write(data if stop is None else data[: stop - size])
        return size

    def _end_of(self, rows: int, layout: Layout) -> int:
        """Return where the text of the first rows ends."""
        file = self if self.is_inspected else self.inspect(layout)[0]
        with contextlib.closing(file.open_rows(layout)) as stream:
            stream.skip(rows)
            return stream.offset

    # the survey

    def pieces(self) -> list[int]:
        """Return the starts of pieces of SURVEY_BYTES each; the first has byte order mark and header, too.

        A small packed file is one piece. Of a file that flows, only the beginning is looked at, if it was not yet.
        """
        if self.is_packed and not self.is_copied:
            return [] if self.flows and self.is_inspected else [0]
        return list(range(0, self.data_size, SURVEY_BYTES))

    def survey(self, start: int, layout: Layout) -> Surveyed:
        """Scan the piece that begins right after the first line feed at or after `start - 1`.

        Raise SourceError if no rows are found because the file has changed: no block would notice that.
        """
        surveyed = self._surveyed(start, layout)
        if surveyed.piece is not NO_ROWS and not any(surveyed.piece.rows):
            self._check_unchanged()
        return surveyed

    def _surveyed(self, start: int, layout: Layout) -> Surveyed:
        if self.is_packed and not self.is_copied:
            return self._survey_packed(layout)
        begin = self._after_line_feed(start - 1) if start else 0
        is_last = start + SURVEY_BYTES >= self.data_size
        stop = self.data_size if is_last else self._after_line_feed(start + SURVEY_BYTES - 1)
        if stop - begin > SURVEY_BYTES + MAX_ROW_BYTES:
            raise no_line_feed(self.url, begin)
        text = storage.read(self.data_url, begin, stop)
        if start:
            return Surveyed(self._survey(text, begin, layout))
        if self.is_inspected:
            return Surveyed(self._survey(text[self.data_start :], self.data_start, layout))
        if not self.is_packed and compression_of(text):
            file, columns = self.inspect(layout)
            return file._survey_packed(layout)._replace(columns=columns)
        file, columns = self._inspected(text[:HEAD_BYTES], layout)
        return Surveyed(self._survey(text[file.data_start :], file.data_start, layout), file, columns)

    def _survey_packed(self, layout: Layout) -> Surveyed:
        """Read the whole file, and return marks in its text."""
        file, columns = (self, ()) if self.is_inspected else self.inspect(layout)
        if file.flows:
            return Surveyed(NO_ROWS, file, columns)
        with contextlib.closing(file.open_rows(layout)) as rows:
            marks = list(rows.marks(MARK_SPACING))
            if rows.damage:
                raise rows.damage
        file = replace(file, data_size=marks[-1][0])
        return Surveyed(Marks(*zip(*marks, strict=True)), file, columns)

    def _after_line_feed(self, offset: int) -> int:
        """Return the offset after the first line feed at or after `offset`, or the size of the file."""
        while offset < self.data_size:
            window = storage.read(self.data_url, offset, min(offset + MARK_SPACING, self.data_size))
            if (place := window.find(b"\n")) >= 0:
                return offset + place + 1
            if not window:
                raise self._changed()
            offset += len(window)
        return self.data_size

    def marks(self, pieces: list) -> Marks:
        """Join the marks of the pieces. Raise SourceError if a row is too long."""
        if self.is_packed and not self.is_copied:
            return pieces[0] if pieces else NO_ROWS
        marks = list(marks_of(pieces))
        offsets = [*(offset for offset, _ in marks[:-1]), self.data_size]
        joined = Marks(tuple(offsets), tuple(rows for _, rows in marks))
        self._check_row_lengths(joined)
        return joined

    def _check_row_lengths(self, marks: Marks) -> None:
        """Raise SourceError if marks are far apart: they are about MARK_SPACING apart unless one row is longer."""
        for offset, row, following in _gaps(marks):
            if following - offset > MAX_ROW_BYTES + SURVEY_BYTES:
                raise row_too_long(self.url, offset, row)

    # reading

    def read(self, span: Span, layout: Layout) -> Rows:
        """Read the rows of a span. Raise SourceError if the file has changed since the survey."""
        if self.flows:
            self._check_unchanged()
            return self._rows_of_piece(span, layout)
        try:
            rows = self._rows_of(self._text(span), layout)
        finally:
            self._check_unchanged()  # afterwards: it may change while it is read
        if len(rows) < span.skip + span.rows:
            raise self._changed()
        return rows.part(span.skip, span.skip + span.rows)

    def _rows_of_piece(self, span: Span, layout: Layout) -> Rows:
        url = self.piece(span.first_row, span.rows)
        text = storage.read(url)
        rows = self._rows_of(text, layout)
        if len(rows) != span.rows or len(text) != span.stop:
            raise StorageError(f"{url} does not have the rows of its block.", "Run the same command with --resume.")
        return rows

    def _text(self, span: Span) -> bytes:
        if self.is_copied or not self.data_packing:
            return storage.read(self.data_url, span.start, span.stop)
        with open_text(self.url, self.data_packing) as text:
            return text_between(text, span.start, span.stop)


def _gaps(marks: Marks) -> Iterator[tuple[int, int, int]]:
    return zip(marks.offsets, marks.rows, marks.offsets[1:], strict=False)
