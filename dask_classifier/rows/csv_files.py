"""CSV files as inputs: looked at, copied where they are compressed, surveyed, read.

Pieces of some MiB are scanned in parallel, and marks come back about every 256 KiB. A compressed file (gzip, bz2, zstd,
xz), or one in an encoding in which a comma may be part of another character, is copied once, as UTF-8, into the run's
folder, and then is read like any other.
"""

import codecs
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from .. import storage
from ..errors import SourceError
from .borders import Piece, Rows, marks_of, scan, survey
from .layouts import HEAD_BYTES, Layout, is_utf8, keeps_ascii, read_header
from .sniff import refuse_what_is_not_csv
from .source import Block, InputFile, Marks

if TYPE_CHECKING:
    from .chunks import Parsed

PIECE_BYTES = 16 * 2**20  # what one survey task reads
MARK_SPACING = 2**18  # bytes between marks: a block reads at most this much too much at either end
MAX_ROW_BYTES = 64 * 2**20  # a longer row is a quote that was never closed


@dataclass(frozen=True)
class CsvFile(InputFile):
    """A CSV file: as the user named it, its version, and where its rows are to be read."""

    url: str
    size: int
    version: str
    data_url: str  # = url, or that of the decompressed copy
    data_start: int = 0  # offset of the first byte after byte order mark and header, in data_url
    data_size: int = 0  # 0 until there is a copy

    @classmethod
    def accepts(cls, name: str) -> bool:
        """Any file may be CSV."""
        return True

    @classmethod
    def expand(cls, name: str) -> list[str]:
        """Return the files that a path, URL or glob names."""
        return [storage.absolute(url) for url in storage.expand(name)]

    @classmethod
    def look(cls, url: str, number: int, layout: Layout, copies: str) -> tuple[Self, tuple]:
        """Read the beginning of the file: its header, and whether it is CSV."""
        identity = storage.identity(url)
        needs_copy = bool(storage.compression(url)) or not keeps_ascii(layout.encoding)
        data_url = storage.join(copies, _name_of_copy(number, url, identity, layout)) if needs_copy else url
        file = cls(url, identity.size, identity.version, data_url, data_size=0 if needs_copy else identity.size)
        head, _ = file._head(layout.encoding)
        refuse_what_is_not_csv(head, url)
        start, columns = read_header(head, file.layout_of_rows(layout), url)
        return replace(file, data_start=start), columns

    @property
    def needs_copy(self) -> bool:
        """Whether the file is compressed, or its encoding hides where rows begin."""
        return self.data_url != self.url

    def _head(self, encoding: str) -> tuple[bytes, bool]:
        """The first bytes of what blocks will read, and whether they are all of it."""
        if not self.needs_copy:
            return storage.read(self.url, 0, min(HEAD_BYTES, self.data_size)), self.data_size <= HEAD_BYTES
        with storage.open_decompressed(self.url) as stream:
            head = stream.read(HEAD_BYTES)
            complete = not stream.read(1)
        if is_utf8(encoding):
            return head, complete
        try:
            text = codecs.getincrementaldecoder(encoding)("replace").decode(head)
        except UnicodeError as error:  # UTF-16 without a byte order mark
            raise _not_in(encoding, self.url, error) from error
        return text.encode("utf-8", "replace"), complete

    def first_rows(self, rows: int, layout: Layout) -> bytes:
        """Return the first rows, as far as they are within the first bytes."""
        head, complete = self._head(layout.encoding)
        head = head[self.data_start :]
        starts = [*scan(head, layout.delimiter).starts.tolist(), len(head)]
        whole = len(starts) - (1 if complete else 2)  # the last may be cut off
        return head[: starts[min(rows, whole)]] if whole > 0 else b""

    def write_copy(self, encoding: str) -> int:
        """Write the copy, as UTF-8, in one pass, and return its size in bytes."""
        decode = codecs.getincrementaldecoder(encoding)()
        as_it_is = is_utf8(encoding)  # bytes that are not UTF-8 then make bad rows
        size = 0
        self._check_unchanged()
        with storage.open_decompressed(self.url) as stream, storage.open_whole(self.data_url) as copy:
            while data := stream.read(HEAD_BYTES):
                size += copy.write(data if as_it_is else _decoded(decode, data, self.url, encoding))
            if not as_it_is:
                size += copy.write(_decoded(decode, b"", self.url, encoding))
        return size

    def pieces(self) -> list[int]:
        """Return a start for each PIECE_BYTES."""
        return list(range(self.data_start, self.data_size, PIECE_BYTES))

    def survey(self, start: int, delimiter: str) -> Piece:
        """Scan the piece that begins right after the first line feed at or after `start`."""
        begin = start if start == self.data_start else self._after_line_feed(start - 1)
        stop = self._after_line_feed(min(start + PIECE_BYTES, self.data_size) - 1)
        if stop - begin > PIECE_BYTES + MAX_ROW_BYTES:
            raise SourceError(
                f"{self.url} has no line feed for {MAX_ROW_BYTES // 2**20} MiB after byte {begin:,}.",
                "Is it a CSV file?",
            )
        return survey(storage.read(self.data_url, begin, stop), begin, delimiter, MARK_SPACING)

    def _after_line_feed(self, offset: int) -> int:
        """The offset after the first line feed at or after `offset`, or the file's end."""
        while offset < self.data_size:
            window = storage.read(self.data_url, offset, min(offset + MARK_SPACING, self.data_size))
            if (place := window.find(b"\n")) >= 0:
                return offset + place + 1
            if not window:
                raise self._changed()
            offset += len(window)
        return self.data_size

    def marks(self, pieces: list[Piece]) -> Marks:
        """Join the marks of the pieces. Raises SourceError where a row is too long."""
        marks = list(marks_of(pieces))
        offsets = [*(offset for offset, _ in marks[:-1]), self.data_size]
        joined = Marks(tuple(offsets), tuple(rows for _, rows in marks))
        self._check_row_lengths(joined)
        return joined

    def _check_row_lengths(self, marks: Marks) -> None:
        """Marks are about MARK_SPACING apart, except where one row is longer."""
        for offset, row, following in _gaps(marks):
            if following - offset > MAX_ROW_BYTES + PIECE_BYTES:
                raise SourceError(
                    f"{self.url}: a row after byte {offset:,} (row {row + 1:,}) "
                    f"is longer than {MAX_ROW_BYTES // 2**20} MiB.",
                    "Is a quote not closed there?",
                )

    def read(self, block: Block, layout: Layout) -> "Parsed":
        """Read the rows of one block. Raises SourceError where the file is no longer what was surveyed."""
        from .chunks import parse  # imports pandas

        self._check_unchanged()
        rows = Rows.of(storage.read(self.data_url, block.start, block.stop), layout.delimiter)
        if len(rows) < block.skip + block.rows:
            raise self._changed()
        begin, *_ = wanted = rows.starts[block.skip : block.skip + block.rows + 1]
        return parse(Rows(rows.text[begin : wanted[-1]], [start - begin for start in wanted]), layout)

    def _check_unchanged(self) -> None:
        """Raises SourceError where the file is not the version that was looked at."""
        now = storage.identity(self.url)
        if (now.size, now.version) != (self.size, self.version):
            raise self._changed()

    def _changed(self) -> SourceError:
        return SourceError(
            f"{self.url} changed since the run began.", "Start a new run once nobody writes to it any more."
        )


def _gaps(marks: Marks) -> Iterator[tuple[int, int, int]]:
    return zip(marks.offsets, marks.rows, marks.offsets[1:], strict=False)


def _name_of_copy(number: int, url: str, identity: storage.Identity, layout: Layout) -> str:
    """Another file, another version or another encoding has another name: no run takes the copy of another's."""
    of = repr((url, identity.size, identity.version, layout.encoding))
    return f"{number:05d}-{hashlib.sha256(of.encode('utf-8', 'backslashreplace')).hexdigest()[:12]}.csv"


def _decoded(decoder, data: bytes, url: str, encoding: str) -> bytes:
    try:
        return decoder.decode(data, final=not data).encode("utf-8")
    except UnicodeError as error:
        raise _not_in(encoding, url, error) from error


def _not_in(encoding: str, url: str, error: UnicodeError) -> SourceError:
    return SourceError(f"{url} is not in the encoding {encoding}: {error}.", "Check --encoding.")
