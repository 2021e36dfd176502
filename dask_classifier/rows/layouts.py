"""How the rows of a source are written down: delimiter, encoding, header; the names of the columns."""

import codecs
import io
import re
from dataclasses import dataclass

from ..errors import SourceError, UsageError
from .borders import scan

HEAD_BYTES = 2**20  # a header is within these
READ_TEXT = {"dtype": str, "keep_default_na": False, "na_filter": False}  # every value is the text in the file
_PLAIN_NAMES = re.compile(rb"[\w .:/()%+-]+")


@dataclass(frozen=True)
class Layout:
    """How the rows of a source are written down."""

    delimiter: str = ","
    encoding: str = "utf-8"
    header_row: bool = True
    columns: tuple[str | int, ...] = ()  # empty: nothing but empty files


def check_layout(layout: Layout) -> None:
    """Raises UsageError for a delimiter or an encoding that cannot be used."""
    if len(layout.delimiter) != 1 or not layout.delimiter.isascii() or layout.delimiter in '"\r\n':
        raise UsageError(
            f"{layout.delimiter!r} cannot be a delimiter.", "Give one ASCII character, such as ; or a tab ('\\t')."
        )
    try:
        codecs.lookup(layout.encoding)
        "a,\n".encode(layout.encoding)
    except (LookupError, TypeError, UnicodeError):
        raise UsageError(f"{layout.encoding!r} is not a text encoding.", "Try utf-8, cp1252 or utf-16.") from None


def keeps_ascii(encoding: str) -> bool:
    """Whether a byte below 128 always is that ASCII character, so that rows can be found among the bytes."""
    if is_utf8(encoding) or codecs.lookup(encoding).name == "ascii":
        return True
    if codecs.lookup(encoding).name.startswith(("iso2022", "hz", "utf-7")):
        return False  # in these, escapes give ASCII bytes another meaning
    every = bytes(range(256)).decode(encoding, "replace")
    return len(every) == 256 and every[:128] == bytes(range(128)).decode("ascii")


def is_utf8(encoding: str) -> bool:
    """Whether an encoding is UTF-8, by any of its names."""
    return codecs.lookup(encoding).name in {"utf-8", "utf-8-sig"}


def read_header(head: bytes, layout: Layout, url: str) -> tuple[int, tuple]:
    """Where the rows begin, and the columns' names as pandas gives them: of the header, or 0, 1, 2 ...
    without one.
    """
    mark = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) and layout.encoding.lower().startswith("utf") else 0
    starts = scan(head[mark:], layout.delimiter).starts
    if not len(starts):
        return mark, ()
    if len(starts) == 1 and len(head) >= HEAD_BYTES:
        raise SourceError(
            f"{url} has no row within its first {HEAD_BYTES // 2**20} MiB.",
            "Is it a CSV file, and the encoding right?",
        )
    stop = mark + int(starts[1]) if len(starts) > 1 else len(head)
    columns = _names(head[mark + int(starts[0]) : stop], layout, url)
    return (stop if layout.header_row else mark), columns


def _names(first: bytes, layout: Layout, url: str) -> tuple:
    """The columns' names as pandas makes them of the first row."""
    fields = first.rstrip(b"\r\n").split(layout.delimiter.encode())
    if _PLAIN_NAMES.fullmatch(b"".join(fields)) and all(fields) and len(set(fields)) == len(fields):
        # pandas would give just these names, after it was imported for half a second
        return tuple(field.decode() for field in fields) if layout.header_row else tuple(range(len(fields)))
    import pandas as pd

    options = {"sep": layout.delimiter, "encoding": layout.encoding, "header": 0 if layout.header_row else None}
    try:
        return tuple(pd.read_csv(io.BytesIO(first), **options, **READ_TEXT).columns.tolist())
    except (ValueError, UnicodeError) as error:
        raise SourceError(
            f"The first row of {url} cannot be read: {str(error).strip()}.", "Check --delimiter and --encoding."
        ) from error
