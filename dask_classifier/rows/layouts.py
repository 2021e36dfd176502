"""The text format of a source: delimiter, encoding, header, and the names of the columns."""

import codecs
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import SourceError, UsageError
from .borders import scan

HEAD_BYTES = 2**20  # a header must be within these
READ_TEXT = {"dtype": str, "keep_default_na": False, "na_filter": False}  # every value is the text in the file
_PLAIN_NAMES = re.compile(rb"[\w .:/()%+-]+")


CSV, JSON_LINES = "csv", "jsonl"
NO_INDEX, ROW = "none", "row"  # no column becomes the index, but the number of the row, which gets this name


@dataclass(frozen=True)
class Layout:
    """The text format of a source, its columns, and what a classifier gets of them."""

    delimiter: str = ","
    encoding: str = "utf-8"
    header_row: bool = True
    columns: tuple[str | int, ...] = ()  # () if all files are empty
    wanted: tuple[str | int, ...] = ()  # the columns that a classifier gets; () for all
    typed: bool = False  # whether it gets the types of the file, if that has types, and not text
    types: tuple[tuple[str | int, str], ...] = ()  # columns of text that it gets as values of a type
    guessed: tuple[str | int, ...] = ()  # those of them whose type was guessed, so that values must be written like it
    na_values: tuple[str, ...] = ()  # texts that are missing values in these columns, in addition to those of pandas
    index: str | int = ""  # the column that becomes the index of a chunk, "" for the first one, or NO_INDEX
    format: str = CSV  # of the rows that blocks read: CSV or JSON_LINES

    @property
    def words_of_types(self) -> str:
        """Columns and their types, for people."""
        return ",".join(f"{name}={kind}" for name, kind in self.types)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the index and the columns of a chunk."""
        if not (columns := self.wanted or self.columns):
            return ()
        index = ROW if self.index == NO_INDEX else self.index_of(columns)
        return str(index), *(str(name) for name in columns if name != index)

    def index_of(self, columns: Sequence[str | int]) -> str | int | None:
        """Return which of these columns becomes the index; None if none does."""
        if self.index == NO_INDEX or not len(columns):
            return None
        return columns[0] if self.index == "" else self.index


def by_number(layout: Layout) -> Layout:
    """Return the layout of files without a header, whose columns have numbers instead of names."""

    def number(name: str | int) -> str | int:
        return int(name) if str(name).isdecimal() else name

    return replace(
        layout,
        wanted=tuple(map(number, layout.wanted)),
        types=tuple((number(name), kind) for name, kind in layout.types),
        index=number(layout.index),
    )


def check_layout(layout: Layout) -> None:
    """Raise UsageError for a delimiter, an encoding or columns that cannot be used."""
    if len(layout.delimiter) != 1 or not layout.delimiter.isascii() or layout.delimiter in '"\r\n':
        raise UsageError(
            f"{layout.delimiter!r} is not a valid delimiter.", "Give one ASCII character, such as ; or a tab ('\\t')."
        )
    if len(set(layout.wanted)) < len(layout.wanted):
        raise UsageError("A column is named twice in --columns.", "Name each column once.")
    if layout.wanted and (useless := set(dict(layout.types)) - set(layout.wanted)):
        name = repr(min(useless, key=str))
        raise UsageError(f"The column {name} is in --dtype, but not in --columns.", "Name it in both, or in none.")
    if layout.wanted and layout.index not in {"", NO_INDEX, *layout.wanted}:
        raise UsageError(
            f"The column {layout.index!r} is in --index, but not in --columns.",
            "Name it in both, or leave --index out.",
        )
    try:
        codecs.lookup(layout.encoding)
        "a,\n".encode(layout.encoding)
    except (LookupError, TypeError, UnicodeError):
        raise UsageError(f"{layout.encoding!r} is not a text encoding.", "Try utf-8, cp1252 or utf-16.") from None


def check_wanted(layout: Layout, columns: Sequence[str | int], url: str) -> None:
    """Raise UsageError if a column that the user names is not in the file."""
    index = (layout.index,) if layout.index not in {"", NO_INDEX} else ()
    if missing := [name for name in (*layout.wanted, *dict(layout.types), *index) if name not in columns]:
        hint = f"It has {', '.join(map(str, columns))}: check --columns, --dtype and --index."
        raise UsageError(f"{url} does not have the column {missing[0]!r}.", hint)
    if layout.index == NO_INDEX and ROW in (layout.wanted or columns):
        raise UsageError(
            f"{url} has a column {ROW!r}, which is the name of the row numbers of --index none.",
            "Choose another index, or leave that column out with --columns.",
        )


def keeps_ascii(encoding: str) -> bool:
    """Return whether a byte below 128 always is that ASCII character, so that rows can be located among the bytes."""
    if is_utf8(encoding) or codecs.lookup(encoding).name == "ascii":
        return True
    if codecs.lookup(encoding).name.startswith(("iso2022", "hz", "utf-7")):
        return False  # escape sequences in these encodings give ASCII bytes another meaning
    characters = bytes(range(256)).decode(encoding, "replace")
    return len(characters) == 256 and characters[:128] == bytes(range(128)).decode("ascii")


def is_utf8(encoding: str) -> bool:
    """Return whether an encoding is UTF-8, by any of its names."""
    return codecs.lookup(encoding).name in {"utf-8", "utf-8-sig"}


def skip_mark(head: bytes) -> int:
    """Return where a UTF-8 text begins, after a byte order mark if it has one."""
    return len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0


def first_row_too_long(url: str) -> SourceError:
    """Return the error for a file whose first row is not complete in its head."""
    return SourceError(
        f"The first row of {url} is longer than {HEAD_BYTES // 2**20} MiB.",
        "Check that it is a CSV file, or JSON Lines, and check --encoding.",
    )


def read_header(head: bytes, layout: Layout, url: str) -> tuple[int, tuple]:
    """Return where the rows begin, and the columns' names as pandas gives them: from the header, or 0, 1, 2 ..."""
    mark = skip_mark(head) if codecs.lookup(layout.encoding).name.startswith("utf") else 0
    starts = scan(head[mark:], layout.delimiter).starts
    if not len(starts):
        return mark, ()
    if len(starts) == 1 and len(head) >= HEAD_BYTES:
        raise first_row_too_long(url)
    stop = mark + int(starts[1]) if len(starts) > 1 else len(head)
    columns = _names(head[mark + int(starts[0]) : stop], layout, url)
    return (stop if layout.header_row else mark), columns


def _names(first: bytes, layout: Layout, url: str) -> tuple:
    """Return the columns' names that pandas makes from the first row."""
    fields = first.rstrip(b"\r\n").split(layout.delimiter.encode())
    if _PLAIN_NAMES.fullmatch(b"".join(fields)) and all(fields) and len(set(fields)) == len(fields):
        # pandas would give the same names, but importing it takes half a second
        return tuple(field.decode() for field in fields) if layout.header_row else tuple(range(len(fields)))
    import pandas as pd

    options = {"sep": layout.delimiter, "encoding": layout.encoding, "header": 0 if layout.header_row else None}
    try:
        return tuple(pd.read_csv(io.BytesIO(first), **options, **READ_TEXT).columns.tolist())
    except (ValueError, UnicodeError) as error:
        raise SourceError(
            f"The first row of {url} cannot be read: {str(error).strip()}.", "Check --delimiter and --encoding."
        ) from error
