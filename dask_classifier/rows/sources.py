"""Cuts CSV files or generated rows into blocks; reads one block.

A CSV file is surveyed once, in parallel: pieces of some MiB are scanned wherever the workers are, and only
the marks come back (a row's start and its number, about every 256 KiB). From the marks, blocks are cut at
exact rows: a block says from which mark to read, how many rows to pass over, and how many to take. Rows never
pass through the client.

A packed file (gzip, bz2, zstd, xz), or one in an encoding in which a comma may be part of another character,
is unpacked once, as UTF-8, into the run's folder, and then is a CSV file like any other.
"""

import bisect
import codecs
import functools
import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from .. import generate, storage
from ..errors import SourceError, UsageError
from .borders import Piece, marks_of, scan, survey
from .layouts import HEAD_BYTES, Layout, check_layout, is_utf8, keeps_ascii, read_header
from .sniff import refuse_what_is_not_csv

PIECE_BYTES = 16 * 2**20  # what one survey task reads
MARK_SPACING = 2**18  # bytes between marks: a block reads at most this much too much at either end
MAX_ROW_BYTES = 64 * 2**20  # a longer row is a quote that was never closed
_HEADS_AT_ONCE = 16  # files whose first bytes are read at the same time


@dataclass(frozen=True)
class GeneratedRows:
    """Synthetic rows: a file that is made where it is read."""

    rows: int
    seed: int = 0
    url: str = "generated"


@dataclass(frozen=True)
class CsvFile:
    """One input file: as the user named it, its version, and where its rows are to be read."""

    url: str
    size: int
    version: str
    data_url: str  # = url, or where it is unpacked
    data_start: int = 0  # offset of the first byte after byte order mark and header, in data_url
    data_size: int = 0  # 0 until it is unpacked

    @property
    def packed(self) -> bool:
        """Whether the rows are read from an unpacked copy in the run's folder."""
        return self.data_url != self.url


@dataclass(frozen=True)
class Source:
    """Where rows come from. `layout` is how the user's files are written, `data_layout` what blocks read."""

    layout: Layout
    files: tuple[CsvFile | GeneratedRows, ...]

    @property
    def data_layout(self) -> Layout:
        """Unpacked copies are UTF-8."""
        return replace(self.layout, encoding="utf-8") if any(self.packed_files) else self.layout

    @property
    def csv_files(self) -> list[tuple[int, CsvFile]]:
        """The numbered files that are CSV."""
        return [(number, file) for number, file in enumerate(self.files) if isinstance(file, CsvFile)]

    @property
    def packed_files(self) -> list[tuple[int, CsvFile]]:
        """The numbered files that must be unpacked before they can be cut."""
        return [(number, file) for number, file in self.csv_files if file.packed]

    def unpacked(self, sizes: dict[int, int]) -> "Source":
        """The same source, with the sizes of the unpacked copies filled in."""
        return replace(
            self,
            files=tuple(replace(file, data_size=sizes[n]) if n in sizes else file for n, file in enumerate(self.files)),
        )


@dataclass(frozen=True)
class Block:
    """What one task reads: rows `first_row` to `first_row + rows - 1` (from 0) of file number `file` of the
    source.

    In a CSV file they are among the bytes `start` to before `stop`, after `skip` other rows.
    """

    index: int
    rows: int
    first_row: int
    file: int = 0
    start: int = 0
    stop: int = 0
    skip: int = 0


# --- looking at the source: no row leaves the machine that looks, but for the first ones -----------


def generated(rows: int, seed: int = 0) -> Source:
    """A source of `rows` synthetic rows."""
    return Source(Layout(columns=generate.COLUMNS), (GeneratedRows(rows, seed),))


def csv_files(patterns: Iterable[str], layout: Layout, unpack_folder: str) -> Source:
    """The files that URLs and globs name, in the order given, with the columns of their common header.

    Raises StorageError for a file that cannot be read, UsageError for an unusable layout, SourceError for
    different headers.
    """
    check_layout(layout)
    urls = [storage.absolute(url) for pattern in patterns for url in storage.expand(pattern)]
    if doubles := sorted(url for url, times in Counter(urls).items() if times > 1):
        raise UsageError(f"{doubles[0]} is named twice.", "Each file is classified once: name it once.")
    with ThreadPoolExecutor(_HEADS_AT_ONCE) as pool:
        look = functools.partial(_look_at, layout=layout, unpack_folder=unpack_folder)
        seen = list(pool.map(look, urls, itertools.count()))
    headers = [(file, columns) for file, columns in seen if columns]
    for file, columns in headers[1:]:
        if columns != headers[0][1]:
            raise SourceError(
                f"{headers[0][0].url} and {file.url} have different headers: "
                f"{_named(headers[0][1])} and {_named(columns)}.",
                "Classify files of different kinds in different runs.",
            )
    columns = headers[0][1] if headers else ()
    return Source(replace(layout, columns=columns), tuple(file for file, _ in seen))


def _named(columns: tuple) -> str:
    return ",".join(map(str, columns))


def _look_at(url: str, number: int, layout: Layout, unpack_folder: str) -> tuple[CsvFile, tuple]:
    found = storage.identity(url)
    packed = bool(storage.compression(url)) or not keeps_ascii(layout.encoding)
    data_url = storage.join(unpack_folder, _name_of_copy(number, url, found, layout)) if packed else url
    file = CsvFile(url, found.size, found.version, data_url, data_size=0 if packed else found.size)
    head, _ = _head(file, layout.encoding)
    refuse_what_is_not_csv(head, url)
    start, columns = read_header(head, replace(layout, encoding="utf-8") if packed else layout, url)
    return replace(file, data_start=start), columns


def _name_of_copy(number: int, url: str, found: storage.Identity, layout: Layout) -> str:
    """Another file, another version or another encoding has another name: no run takes the copy of another's."""
    of = repr((url, found.size, found.version, layout.encoding))
    return f"{number:05d}-{hashlib.sha256(of.encode('utf-8', 'backslashreplace')).hexdigest()[:12]}.csv"


def _head(file: CsvFile, encoding: str) -> tuple[bytes, bool]:
    """The first bytes of what blocks will read of a file, and whether they are all of it."""
    if not file.packed:
        return storage.read(file.url, 0, min(HEAD_BYTES, file.data_size)), file.data_size <= HEAD_BYTES
    with storage.open_unpacked(file.url) as stream:
        head = stream.read(HEAD_BYTES)
        complete = not stream.read(1)
    if is_utf8(encoding):
        return head, complete
    try:
        text = codecs.getincrementaldecoder(encoding)("replace").decode(head)
    except UnicodeError as error:  # UTF-16 without a byte order mark
        raise _not_in(encoding, file.url, error) from error
    return text.encode("utf-8", "replace"), complete


def first_rows(source: Source, rows: int) -> tuple[str, bytes]:
    """Up to `rows` rows of the first file that has any, as CSV without a header in the data_layout; and the
    file's name.
    """
    for file in source.files:
        if isinstance(file, GeneratedRows):
            return file.url, generate.csv_rows(file.seed, 0, min(rows, file.rows))
        head, complete = _head(file, source.layout.encoding)
        head = head[file.data_start :]
        starts = [*scan(head, source.layout.delimiter).starts.tolist(), len(head)]
        whole = len(starts) - (1 if complete else 2)  # the last may be cut off
        if whole > 0:
            return file.url, head[: starts[min(rows, whole)]]
    return "the source", b""


def unpack(file: CsvFile, encoding: str) -> int:
    """Write the unpacked copy of a file, as UTF-8, in one pass; returns its size in bytes."""
    decode = codecs.getincrementaldecoder(encoding)()
    plain = is_utf8(encoding)  # bytes that are no UTF-8 then make bad rows
    size = 0
    check_unchanged(file)
    with storage.open_unpacked(file.url) as packed, storage.open_whole(file.data_url) as unpacked:
        while data := packed.read(HEAD_BYTES):
            size += unpacked.write(data if plain else _decoded(decode, data, file.url, encoding))
        if not plain:
            size += unpacked.write(_decoded(decode, b"", file.url, encoding))
    return size


def _decoded(decoder, data: bytes, url: str, encoding: str) -> bytes:
    try:
        return decoder.decode(data, final=not data).encode("utf-8")
    except UnicodeError as error:
        raise _not_in(encoding, url, error) from error


def _not_in(encoding: str, url: str, error: UnicodeError) -> SourceError:
    return SourceError(f"{url} is not in the encoding {encoding}: {error}.", "Check --encoding.")


# --- cutting ---------------------------------------------------------------------------------------


def pieces(source: Source) -> list[tuple[int, int]]:
    """The survey's tasks: (file number, nominal start) of pieces of PIECE_BYTES."""
    return [
        (number, start)
        for number, file in source.csv_files
        for start in range(file.data_start, file.data_size, PIECE_BYTES)
    ]


def survey_piece(file: CsvFile, nominal: int, delimiter: str) -> Piece:
    """Scan the piece of a file that begins right after the first line feed at or after its nominal start."""
    start = nominal if nominal == file.data_start else _after_line_feed(file, nominal - 1)
    stop = _after_line_feed(file, min(nominal + PIECE_BYTES, file.data_size) - 1)
    if stop - start > PIECE_BYTES + MAX_ROW_BYTES:
        raise SourceError(
            f"{file.url} has no line feed for {MAX_ROW_BYTES // 2**20} MiB after byte {start:,}.", "Is it a CSV file?"
        )
    return survey(storage.read(file.data_url, start, stop), start, delimiter, MARK_SPACING)


def _after_line_feed(file: CsvFile, offset: int) -> int:
    """The offset after the first line feed at or after `offset`, or the file's end."""
    while offset < file.data_size:
        window = storage.read(file.data_url, offset, min(offset + MARK_SPACING, file.data_size))
        if (found := window.find(b"\n")) >= 0:
            return offset + found + 1
        if not window:
            raise _changed(file.url)
        offset += len(window)
    return file.data_size


@dataclass(frozen=True)
class Marks:
    """Rows of a file whose place is known: `rows[i]` rows stand before the byte `offsets[i]`; the last is the
    end.
    """

    offsets: tuple[int, ...]
    rows: tuple[int, ...]


def marks(source: Source, surveyed: list[tuple[int, Piece]]) -> list[Marks]:
    """Join the survey's pieces, (file number, piece) in order, to the marks of each file of the source."""
    result, pieces_of = [], defaultdict(list)
    for number, piece in surveyed:
        pieces_of[number].append(piece)
    for number, file in enumerate(source.files):
        if isinstance(file, GeneratedRows):
            result.append(Marks((0, 0), (0, file.rows)))
            continue
        found = list(marks_of(pieces_of[number]))
        offsets = [*(offset for offset, _ in found[:-1]), file.data_size]
        result.append(Marks(tuple(offsets), tuple(rows for _, rows in found)))
        _check_row_lengths(file, result[-1])
    return result


def _check_row_lengths(file: CsvFile, found: Marks) -> None:
    """Marks are about MARK_SPACING apart, but where one row is longer."""
    for offset, row, following in zip(found.offsets, found.rows, found.offsets[1:], strict=False):
        if following - offset > MAX_ROW_BYTES + PIECE_BYTES:
            raise SourceError(
                f"{file.url}: a row after byte {offset:,} (row {row + 1:,}) "
                f"is longer than {MAX_ROW_BYTES // 2**20} MiB.",
                "Is a quote not closed there?",
            )


def cut(
    surveyed: list[Marks],
    rows_of_next: Callable[[int], int],
    shrink: Callable[[int, int], int] = lambda rows, size: rows,
) -> Iterator[Block]:
    """The blocks of a source: `rows_of_next(left)` gives the rows of the next block, with `left` rows of the source to
    go; `shrink(rows, size)` gives fewer where their `size` in bytes is too large, and is asked until it agrees.

    No block spans two files.
    """
    index, left = 0, sum(found.rows[-1] for found in surveyed)
    for number, found in enumerate(surveyed):
        first, total = 0, found.rows[-1]
        while first < total:
            rows = min(rows_of_next(left), total - first)
            begin, end = _between(found, first, rows)
            while (fewer := shrink(rows, found.offsets[end] - found.offsets[begin])) < rows:
                rows = fewer
                begin, end = _between(found, first, rows)
            skip = first - found.rows[begin]
            yield Block(index, rows, first, number, found.offsets[begin], found.offsets[end], skip)
            index, first, left = index + 1, first + rows, left - rows


def _between(found: Marks, first: int, rows: int) -> tuple[int, int]:
    """The marks between which some rows are."""
    begin = bisect.bisect_right(found.rows, first, hi=len(found.rows) - 1) - 1
    return begin, bisect.bisect_left(found.rows, first + rows)


# --- reading ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """CSV text without a header, and where in it each row begins."""

    text: bytes
    starts: list[int]  # one more than there are rows: the last is the end

    def __len__(self):
        return len(self.starts) - 1


def read(file: CsvFile | GeneratedRows, block: Block, delimiter: str) -> Rows:
    """The rows of one block of a file. Raises SourceError where the file is no longer what was surveyed."""
    if isinstance(file, GeneratedRows):
        return rows_of(generate.csv_rows(file.seed, block.first_row, block.rows), delimiter)
    check_unchanged(file)
    found = rows_of(storage.read(file.data_url, block.start, block.stop), delimiter)
    if len(found) < block.skip + block.rows:
        raise _changed(file.url)
    begin, *_ = wanted = found.starts[block.skip : block.skip + block.rows + 1]
    return Rows(found.text[begin : wanted[-1]], [start - begin for start in wanted])


def rows_of(text: bytes, delimiter: str) -> Rows:
    """CSV text that begins at a row's start, with its rows found."""
    return Rows(text, [*scan(text, delimiter).starts.tolist(), len(text)])


def check_unchanged(file: CsvFile) -> None:
    """Raises SourceError where a file is not the version that was looked at."""
    found = storage.identity(file.url)
    if (found.size, found.version) != (file.size, file.version):
        raise _changed(file.url)


def _changed(url: str) -> SourceError:
    return SourceError(f"{url} changed since the run began.", "Start a new run once nobody writes to it any more.")
