"""Parse CSV text into DataFrames of at most 100 rows, and bad rows with reasons.

A block's text is parsed once and sliced into views, which costs a twentieth of parsing each chunk. Chunk k of a file
always consists of its rows 100 k to 100 k + 99, without the malformed ones, no matter how the file was cut into blocks.
A text that pandas refuses is halved until each row that causes an error is on its own.

pyarrow parses plain text, in which every line is a row and every comma separates fields, in a tenth of the time, into
the same arrays as pandas.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from ..raised import Raised
from .blocks import Span
from .borders import Rows
from .json_lines import json_frame
from .layouts import CSV, JSON_LINES, NO_INDEX, READ_TEXT, ROW, Layout, is_utf8
from .tables import with_objects
from .types import converted

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MOST_FOR_PYARROW = 2**31 - 1  # bytes per block
_MOST_SHOWN = 200  # characters of a bad row in a message


@dataclass(frozen=True)
class BadRow:
    """A row that could not be parsed, or on which the classifier failed."""

    row: int  # number in its source, from 1: row 1 is the first below the header
    reason: str
    raw: str  # the row's text, without its line break; bytes that are invalid in the encoding appear as \\xNN
    traceback: str = ""  # of the classifier's exception
    kind: str = "malformed"  # or the type of the classifier's exception

    def describe(self, source: str) -> str:
        """Return the row's number, source, reason and text as one line."""
        raw = self.raw if len(self.raw) <= _MOST_SHOWN else f"{self.raw[:_MOST_SHOWN]}..."
        return f"row {self.row:,} of {source}: {self.reason}: {raw!r}"


@dataclass(frozen=True)
class Chunk:
    """At most `chunk_rows` rows as a DataFrame as the classifier gets it, and the malformed rows among them."""

    frame: pd.DataFrame
    numbers: Sequence[int]  # for each row of the frame, its place among the block's rows, from 0
    malformed: list[tuple[int, Raised]]  # place among the block's rows, reason

    def bad_rows(self, failed: list[tuple[int, Raised]]) -> list[tuple[int, Raised]]:
        """Return all bad rows in order, as (place in the block, reason); `failed` has places in the frame."""
        places = [(self.numbers[place], raised) for place, raised in failed]
        return sorted(self.malformed + places, key=lambda bad: bad[0])


@dataclass(frozen=True)
class Parsed:
    """A block's rows, parsed as pandas reads them."""

    rows: Rows | pd.DataFrame  # as they were read
    layout: Layout
    frame: pd.DataFrame | None  # all rows; None if some are malformed
    plain: bool  # whether each line of the rows' text is a row of the frame, its fields joined by the delimiter
    numbers: np.ndarray | None = None  # of the rows in their files, if these are the index

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def has_values(self) -> bool:
        """Whether the frame has more than text."""
        layout = self.layout
        return isinstance(self.rows, pd.DataFrame) or bool(layout.types) or layout.typed or layout.index == NO_INDEX

    def bad_row(self, place: int, raised: Raised, first_row: int) -> BadRow:
        """Return the bad row at a place in a block whose first row is number `first_row` (from 0) of its source."""
        return BadRow(first_row + place + 1, raised.reason, self._text(place), raised.traceback, raised.kind)

    def _text(self, place: int) -> str:
        if isinstance(self.rows, pd.DataFrame):
            with_index = self.layout.index != NO_INDEX
            row = with_objects(self.rows.iloc[[place]])
            return row.to_csv(header=False, index=with_index, lineterminator="\n").removesuffix("\n")
        raw = self.rows.text[self.rows.starts[place] : self.rows.starts[place + 1]].rstrip(b"\r\n")
        return raw.decode(self.layout.encoding, "backslashreplace")


def parse(rows: Rows | pd.DataFrame, layout: Layout, spans: Sequence[Span] = ()) -> Parsed:
    """Parse a block's rows, unless they are a frame already. Without spans, they are the first rows of a file."""
    numbers = _row_numbers(spans or [Span(len(rows))]) if layout.index == NO_INDEX else None
    if isinstance(rows, pd.DataFrame):
        return Parsed(rows, layout, _numbered(rows, numbers), plain=False)
    frame, plain = _frame(rows, layout)
    frame = frame if frame is None else _numbered(frame, numbers)
    return Parsed(rows, layout, frame, plain, numbers)


def _frame(rows: Rows, layout: Layout) -> tuple[pd.DataFrame | None, bool]:
    """Return all rows, or None if some are malformed, and whether a row's text is its fields and delimiters."""
    if rows.separate:
        return None, False
    if layout.format == CSV and _is_plain(rows, layout.encoding):
        try:
            return _parse_plain(rows.text, layout), not (layout.wanted or layout.types or layout.index != "")
        except (pa.ArrowInvalid, ValueError):  # a row of another width, invalid bytes or values: let pandas decide
            pass
    try:
        return _parse(rows, 0, len(rows), layout), False
    except ValueError:  # ParserError and UnicodeError are ValueErrors
        return None, False


def _row_numbers(spans: Sequence[Span]) -> np.ndarray:
    """Return the numbers of rows in their files, from 1."""
    return np.concatenate([np.arange(span.first_row, span.first_row + span.rows) + 1 for span in spans])


def _numbered(frame: pd.DataFrame, numbers: np.ndarray | None) -> pd.DataFrame:
    """Return the frame with numbers as its index, if there are any."""
    return frame if numbers is None else frame.set_axis(pd.Index(numbers, name=ROW))


def cut(parsed: Parsed, chunk_rows: int, begin: int = 0, end: int | None = None) -> Iterator[Chunk]:
    """Yield the chunks of rows that follow each other in one file: those from `begin` to before `end`."""
    end = len(parsed) if end is None else end
    for first in range(begin, end, chunk_rows):
        stop = min(first + chunk_rows, end)
        if parsed.frame is not None:
            yield Chunk(parsed.frame.iloc[first:stop], range(first, stop), [])
        else:
            frames, places, malformed = _salvage(parsed.rows, first, stop, parsed.layout)
            frame = pd.concat(frames) if frames else _empty(parsed.layout)
            numbers = None if parsed.numbers is None else parsed.numbers[places]
            yield Chunk(_numbered(frame, numbers), places, malformed)


def _is_plain(rows: Rows, encoding: str) -> bool:
    """Return whether every line is a row, and each byte stands for itself, a delimiter or a line feed."""
    text = rows.text
    return (
        0 < len(rows) <= len(text) < _MOST_FOR_PYARROW
        and text.count(b"\n") + (not text.endswith(b"\n")) == len(rows)
        and not any(special in text for special in (b'"', b"\r", b"\0"))
        and not text.startswith(_BYTE_ORDER_MARK)
        and (text.isascii() or is_utf8(encoding))
    )


def _parse_plain(text: bytes, layout: Layout) -> pd.DataFrame:
    """Parse plain text as pandas does. Raise ArrowInvalid for rows of another width and bytes that are not UTF-8.

    The whole text is one pyarrow block: several blocks would give chunked arrays, which are slower.
    """
    names = [str(number) for number in range(len(layout.columns))]
    table = pyarrow.csv.read_csv(
        pa.BufferReader(text),
        pyarrow.csv.ReadOptions(use_threads=False, block_size=len(text) + 1, column_names=names),
        pyarrow.csv.ParseOptions(delimiter=layout.delimiter, quote_char=False),
        pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.large_string()), strings_can_be_null=False),
    )
    frame = pd.DataFrame({number: pd.array(column, dtype="str") for number, column in enumerate(table.columns)})
    frame.columns = list(layout.columns)
    return _indexed(frame, layout)


def _indexed(frame: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """Return the columns that the classifier gets, indexed by one of them."""
    frame = frame[list(layout.wanted)] if layout.wanted else frame
    return indexed(converted(frame, layout), layout)


def indexed(frame: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """Return the frame indexed by the column of the layout; rows are numbered later if there is none."""
    index = layout.index_of(frame.columns)
    return frame if index is None else frame.set_index(index)


def well_formed(rows: Rows, layout: Layout) -> pd.DataFrame:
    """Return the rows that can be parsed as text, with all columns and without an index."""
    frames, _, _ = _salvage(rows, 0, len(rows), layout, _text_frame)
    return pd.concat(frames) if frames else pd.DataFrame(columns=list(layout.columns), dtype=str)


def _text_frame(rows: Rows, first: int, stop: int, layout: Layout) -> pd.DataFrame:
    text = rows.text[rows.starts[first] : rows.starts[stop]]
    is_json = layout.format == JSON_LINES
    frame = json_frame(text, layout.columns, others=bool(layout.wanted)) if is_json else _parse_csv(text, layout)
    if len(frame) != stop - first:
        raise ValueError(f"pandas reads {len(frame)} rows instead of {stop - first}")
    return frame


def _parse(rows: Rows, first: int, stop: int, layout: Layout) -> pd.DataFrame:
    """Parse the rows from `first` to before `stop`. Raise ValueError for a row that cannot be parsed."""
    return _indexed(_text_frame(rows, first, stop, layout), layout)


def _parse_csv(text: bytes, layout: Layout) -> pd.DataFrame:
    """Parse CSV with pandas. Raise ValueError if it refuses a row.

    An additional first line of the right width makes pandas refuse every wider row. Without it, pandas would take the
    first column of wider rows for an index.
    """
    width = len(layout.columns)
    return pd.read_csv(
        io.BytesIO(layout.delimiter.join("0" * width).encode() + b"\n" + text),
        sep=layout.delimiter,
        encoding=layout.encoding,
        header=None,
        names=list(layout.columns),
        **READ_TEXT,
    ).iloc[1:]


def _empty(layout: Layout) -> pd.DataFrame:
    return _indexed(pd.DataFrame(columns=list(layout.columns), dtype=str), layout)


def _salvage(
    rows: Rows, first: int, stop: int, layout: Layout, parse: Callable[..., pd.DataFrame] = _parse
) -> tuple[list[pd.DataFrame], list[int], list[tuple[int, Raised]]]:
    """Return the frames that can be parsed between two rows, the rows' places in the block, and the malformed rows."""
    try:
        return [parse(rows, first, stop, layout)], list(range(first, stop)), []
    except ValueError as error:
        if stop - first == 1:
            return [], [], [(first, Raised(_reason(error, len(layout.columns))))]
    middle = (first + stop) // 2
    halves = _salvage(rows, first, middle, layout, parse), _salvage(rows, middle, stop, layout, parse)
    return tuple(left + right for left, right in zip(*halves, strict=True))


def _reason(error: ValueError, width: int) -> str:
    """Return pandas' reason in other words: its line numbers refer to a text that the user does not have."""
    text = str(error).strip()
    if "Expected" in text and "saw" in text:
        return f"{text.rsplit('saw', 1)[1].strip()} fields, but the header has {width}"
    if "EOF inside string" in text:
        return "a quote is not closed"
    if text.startswith("Integer column has NA values"):
        return "a whole number is missing; the type Int64 allows that"
    if isinstance(error, UnicodeError):
        return f"not valid {error.encoding}: {error.reason}"
    return text.removeprefix("Error tokenizing data. C error: ")
