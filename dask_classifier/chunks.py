"""CSV text to DataFrames of at most 100 rows, and bad rows with reasons.

A block's text is parsed once and cut in views, at a twentieth of the cost of parsing every chunk. Chunk k of
a file always is its rows 100 k to 100 k + 99, however the file was cut into blocks; malformed rows are
missing from it. Only where pandas refuses a text is it halved, until the rows that are to blame stand alone.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from .sources import READ_TEXT, Layout, Rows


@dataclass(frozen=True)
class BadRow:
    """A row that could not be parsed, or on which the classifier failed."""

    row: int  # number in its source, from 1: row 1 is the first below the header
    reason: str
    raw: str  # the row's text, without its line break; bytes that are no text in the encoding appear as \\xNN


@dataclass(frozen=True)
class Chunk:
    """At most `chunk_rows` rows as a DataFrame (index: first column; all text), and the malformed rows
    between them.
    """

    frame: pd.DataFrame
    numbers: list[int]  # of each row of the frame: its place in the block's rows, from 0
    malformed: list[tuple[int, str]]  # place in the block's rows, reason


def cut(rows: Rows, layout: Layout, chunk_rows: int) -> Iterator[Chunk]:
    """The chunks of one block."""
    try:
        whole = _parse(rows, 0, len(rows), layout)
    except ValueError:  # ParserError and UnicodeError are ValueErrors
        whole = None
    for first in range(0, len(rows), chunk_rows):
        stop = min(first + chunk_rows, len(rows))
        if whole is not None:
            yield Chunk(whole.iloc[first:stop], list(range(first, stop)), [])
        else:
            frames, numbers, malformed = _salvage(rows, first, stop, layout)
            yield Chunk(pd.concat(frames) if frames else _empty(layout), numbers, malformed)


def _parse(rows: Rows, first: int, stop: int, layout: Layout) -> pd.DataFrame:
    """Rows `first` to before `stop` as pandas reads them. Raises ValueError where it refuses.

    A first line of the right width makes pandas refuse every wider row; without it, it would take a first
    column for an index.
    """
    width = len(layout.columns)
    text = layout.delimiter.join("0" * width).encode() + b"\n" + rows.text[rows.starts[first] : rows.starts[stop]]
    frame = pd.read_csv(
        io.BytesIO(text),
        sep=layout.delimiter,
        encoding=layout.encoding,
        header=None,
        names=list(layout.columns),
        **READ_TEXT,
    ).iloc[1:]
    if len(frame) != stop - first:
        raise ValueError(f"pandas reads {len(frame)} rows where {stop - first} were found")
    return frame.set_index(frame.columns[0])


def _empty(layout: Layout) -> pd.DataFrame:
    frame = pd.DataFrame(columns=list(layout.columns), dtype=str)
    return frame.set_index(frame.columns[0])


def _salvage(
    rows: Rows, first: int, stop: int, layout: Layout
) -> tuple[list[pd.DataFrame], list[int], list[tuple[int, str]]]:
    """The frames that can be read between two rows, the rows' places in the block, and what is malformed."""
    try:
        return [_parse(rows, first, stop, layout)], list(range(first, stop)), []
    except ValueError as error:
        if stop - first == 1:
            return [], [], [(first, _reason(error, len(layout.columns)))]
    middle = (first + stop) // 2
    left, right = _salvage(rows, first, middle, layout), _salvage(rows, middle, stop, layout)
    return left[0] + right[0], left[1] + right[1], left[2] + right[2]


def _reason(error: ValueError, width: int) -> str:
    """pandas' reason in our words: its line numbers count in a text that nobody has."""
    text = str(error).strip()
    if "Expected" in text and "saw" in text:
        return f"{text.rsplit('saw', 1)[1].strip()} fields where the header has {width}"
    if "EOF inside string" in text:
        return "a quote is not closed"
    if isinstance(error, UnicodeError):
        return f"not {error.encoding}: {error.reason}"
    return text.removeprefix("Error tokenizing data. C error: ")


def bad_row(rows: Rows, place: int, first_row: int, reason: str, encoding: str) -> BadRow:
    """The bad row at a place in a block whose first row is number `first_row` (from 0) of its source."""
    raw = rows.text[rows.starts[place] : rows.starts[place + 1]].rstrip(b"\r\n")
    return BadRow(first_row + place + 1, reason, raw.decode(encoding, "backslashreplace"))
