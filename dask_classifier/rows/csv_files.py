"""CSV files as inputs: inspect them, decompress them where needed, survey them and read their blocks.

Pieces of 16 MiB are scanned in parallel, with a mark about every 256 KiB. A compressed file (gzip, bz2, zstd, xz), or
one in an encoding in which the byte of a comma may be part of another character, is copied once into the run's folder,
as UTF-8, and the copy is read like any other file.
"""

import codecs
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

from .. import storage
from ..errors import SourceError
from .blocks import Marks, Span
from .borders import Piece, Rows, marks_of, survey
from .decompression import compression, open_decompressed
from .layouts import HEAD_BYTES, Layout, check_wanted, is_utf8, keeps_ascii, read_header
from .sniff import refuse_what_is_not_csv
from .source import SURVEY_BYTES, CopiedFile, StoredFile, Surveyed

MARK_SPACING = 2**18  # bytes between marks: at either end, a block reads at most this much more than its rows
MAX_ROW_BYTES = 64 * 2**20  # a longer row almost certainly has a quote that is never closed


@dataclass(frozen=True)
class CsvFile(StoredFile, CopiedFile):
    """A CSV file: the name that the user gave, its version, and where its rows are read."""

    url: str
    size: int
    version: str
    data_url: str  # equal to url, or the URL of the decompressed copy
    data_start: int | None = None  # offset in data_url of the first byte after byte order mark and header
    data_size: int = 0  # 0 until the copy exists

    @classmethod
    def accepts(cls, url: str) -> bool:
        """Return True: any file may be CSV."""
        return True

    @classmethod
    def found(cls, url: str, identity: storage.Identity, layout: Layout, copies: str) -> Self:
        """Return a file that is not inspected."""
        needs_copy = bool(compression(url)) or not keeps_ascii(layout.encoding)
        data_url = storage.join(copies, _name_of_copy(url, identity, layout)) if needs_copy else url
        return cls(url, identity.size, identity.version, data_url, data_size=0 if needs_copy else identity.size)

    def inspect(self, layout: Layout) -> tuple[Self, tuple]:
        """Read the beginning of the file: check that it is CSV, and return the input and its columns."""
        return self._inspected(self._head(layout.encoding)[0], layout)

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
    def needs_copy(self) -> bool:
        """Whether the file is compressed, or rows cannot be located among the bytes of its encoding."""
        return self.data_url != self.url

    @property
    def is_compressed(self) -> bool:
        """Whether the file's name has the suffix of a compression."""
        return bool(compression(self.url))

    @property
    def rows_size(self) -> int:
        """Bytes of its rows: without byte order mark and header, or, if there is a copy, as the file is stored."""
        return self.size if self.needs_copy else self.size - (self.data_start or 0)

    def _head(self, encoding: str) -> tuple[bytes, bool]:
        """Return the first bytes of the data that blocks read, and whether there are no more."""
        if not self.needs_copy:
            return storage.read(self.url, 0, min(HEAD_BYTES, self.data_size)), self.data_size <= HEAD_BYTES
        with open_decompressed(self.url) as stream:
            head = stream.read(HEAD_BYTES)
            complete = not stream.read(1)
        if is_utf8(encoding):
            return head, complete
        try:
            text = codecs.getincrementaldecoder(encoding)("replace").decode(head)
        except UnicodeError as error:  # UTF-16 without a byte order mark
            raise _not_in(encoding, self.url, error) from error
        return text.encode("utf-8", "replace"), complete

    def layout_of_rows(self, layout: Layout) -> Layout:
        """Return the text format of the rows that blocks read: copies are UTF-8."""
        return replace(layout, encoding="utf-8") if self.needs_copy else layout

    def first_rows(self, rows: int, layout: Layout) -> Rows:
        """Return the first rows, as far as they are within the first HEAD_BYTES."""
        head, complete = self._head(layout.encoding)
        head = head[self._inspected(head, layout)[0].data_start :]
        found = self._rows_of(head, layout)
        whole = len(found) - (0 if complete else 1)  # the last row may be truncated
        return found.part(0, min(rows, max(0, whole)))

    @staticmethod
    def _rows_of(text: bytes, layout: Layout) -> Rows:
        """Find the rows of text that begins at a row's start."""
        return Rows.of(text, layout.delimiter)

    @staticmethod
    def _survey(text: bytes, start: int, layout: Layout) -> Piece:
        """Find the rows of a piece of the file that begins at byte `start`."""
        return survey(text, start, layout.delimiter, MARK_SPACING)

    def with_copy_in(self, folder: str) -> Self:
        """Return this input with its copy in another folder."""
        return replace(self, data_url=storage.join(folder, self.data_url.rpartition("/")[2]))

    def write_copy(self, encoding: str) -> int:
        """Write the copy as UTF-8, in one pass, and return its size in bytes."""
        decode = codecs.getincrementaldecoder(encoding)()
        verbatim = is_utf8(encoding)  # bytes that are not UTF-8 then make bad rows
        size = 0
        self._check_unchanged()
        with open_decompressed(self.url) as stream, storage.open_whole(self.data_url) as copy:
            while data := stream.read(HEAD_BYTES):
                size += copy.write(data if verbatim else _decoded(decode, data, self.url, encoding))
            if not verbatim:
                size += copy.write(_decoded(decode, b"", self.url, encoding))
        return size

    def pieces(self) -> list[int]:
        """Return the starts of pieces of SURVEY_BYTES each; the first has byte order mark and header, too."""
        return list(range(0, self.data_size, SURVEY_BYTES))

    def survey(self, start: int, layout: Layout) -> Surveyed:
        """Scan the piece that begins right after the first line feed at or after `start - 1`."""
        begin = self._after_line_feed(start - 1) if start else 0
        stop = self._after_line_feed(min(start + SURVEY_BYTES, self.data_size) - 1)
        if stop - begin > SURVEY_BYTES + MAX_ROW_BYTES:
            raise SourceError(
                f"{self.url} has no line feed for {MAX_ROW_BYTES // 2**20} MiB after byte {begin:,}.",
                "Check that it is a CSV file.",
            )
        text = storage.read(self.data_url, begin, stop)
        if start:
            return Surveyed(self._survey(text, begin, layout))
        file, columns = (self, ()) if self.is_inspected else self._inspected(text[:HEAD_BYTES], layout)
        piece = self._survey(text[file.data_start :], file.data_start, layout)
        return Surveyed(piece, None if self.is_inspected else file, columns)

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

    def marks(self, pieces: list[Piece]) -> Marks:
        """Join the marks of the pieces. Raise SourceError if a row is too long."""
        marks = list(marks_of(pieces))
        offsets = [*(offset for offset, _ in marks[:-1]), self.data_size]
        joined = Marks(tuple(offsets), tuple(rows for _, rows in marks))
        self._check_row_lengths(joined)
        return joined

    def _check_row_lengths(self, marks: Marks) -> None:
        """Raise SourceError if marks are far apart: they are about MARK_SPACING apart unless one row is longer."""
        for offset, row, following in _gaps(marks):
            if following - offset > MAX_ROW_BYTES + SURVEY_BYTES:
                raise SourceError(
                    f"{self.url}: a row after byte {offset:,} (row {row + 1:,}) "
                    f"is longer than {MAX_ROW_BYTES // 2**20} MiB.",
                    "Check for a quote that is opened there and never closed.",
                )

    def read(self, span: Span, layout: Layout) -> Rows:
        """Read the rows of a span. Raise SourceError if the file has changed since the survey."""
        self._check_unchanged()
        rows = self._rows_of(storage.read(self.data_url, span.start, span.stop), layout)
        if len(rows) < span.skip + span.rows:
            raise self._changed()
        return rows.part(span.skip, span.skip + span.rows)

    def _check_unchanged(self) -> None:
        """Raise SourceError if the file is not the version that was inspected."""
        now = storage.identity(self.url)
        if (now.size, now.version) != (self.size, self.version):
            raise self._changed()

    def _changed(self) -> SourceError:
        return SourceError(
            f"{self.url} has changed since the run began.", "Start a new run when nothing writes to the file any more."
        )


def _gaps(marks: Marks) -> Iterator[tuple[int, int, int]]:
    return zip(marks.offsets, marks.rows, marks.offsets[1:], strict=False)


def _name_of_copy(url: str, identity: storage.Identity, layout: Layout) -> str:
    """Return a name that depends on file, version and encoding, so that no run uses the copy of another input."""
    of = repr((url, identity.size, identity.version, layout.encoding))
    return f"00000-{hashlib.sha256(of.encode('utf-8', 'backslashreplace')).hexdigest()[:12]}.csv"


def _decoded(decoder, data: bytes, url: str, encoding: str) -> bytes:
    try:
        return decoder.decode(data, final=not data).encode("utf-8")
    except UnicodeError as error:
        raise _not_in(encoding, url, error) from error


def _not_in(encoding: str, url: str, error: UnicodeError) -> SourceError:
    return SourceError(f"{url} is not in the encoding {encoding}: {error}.", "Check --encoding.")
