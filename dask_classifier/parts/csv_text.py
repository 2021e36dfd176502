"""Format a block's answers as CSV, byte for byte as pandas' `to_csv` writes them chunk by chunk.

Arrow's nested values are written as Python's lists and dicts, because pandas shortens long ones.

Calling `to_csv` for each chunk takes longer than reading, compressing and writing together. Two shortcuts are taken,
each only if its output is provably the same:

- Call `to_csv` once for the whole block if all its chunks have the same columns of plain types: then the text of a
  value depends on that value alone.
- Append the text of the new columns to the original text of the rows if the answers are the block's rows, unchanged,
  with more columns, and nothing in them needs quotes.
"""

import numpy as np
import pandas as pd

from ..classifier.contract import COLUMN, Answer
from ..errors import WrongAnswer
from ..rows.chunks import Parsed
from ..rows.tables import with_objects

_NEED_QUOTES = frozenset('",\r\n')


def as_frames(answers: list[Answer], parsed: Parsed) -> list[pd.DataFrame]:
    """Return the answers to a block's rows as one frame if the values keep their text in it, else as one per chunk."""
    if answers and all(answer.values is not None for answer in answers):
        whole = _with_values(answers, parsed)
        return [answer.frame for answer in answers] if whole is None else [whole]
    frames = [answer.frame for answer in answers]
    types = [(frame.index.dtype, *frame.dtypes) for frame in frames]
    uniform = len(frames) > 1 and all(other == types[0] for other in types[1:]) and all(map(_is_plain_type, types[0]))
    return [pd.concat(frames)] if uniform else frames


def _with_values(answers: list[Answer], parsed: Parsed) -> pd.DataFrame | None:
    """Return the rows that have answers with the column of values, or None if types differ or are not plain."""
    parts = [answer.values for answer in answers]
    if not _is_plain_type(parts[0].dtype) or any(part.dtype != parts[0].dtype for part in parts):
        return None
    values = np.concatenate(parts) if isinstance(parts[0], np.ndarray) else pd.concat(map(pd.Series, parts)).array
    complete = parsed.frame is not None and len(parsed.frame) == len(values)
    rows = parsed.frame if complete else pd.concat([answer.chunk for answer in answers])
    if not all(map(_is_plain_type, (rows.index.dtype, *rows.dtypes))):  # with --dtype and --typed
        return None
    return rows.assign(**{COLUMN: values})


def _is_plain_type(dtype) -> bool:
    """Return whether `to_csv` formats each value alone, unlike dates, whose time it omits if all are at midnight."""
    return dtype == "str" or (isinstance(dtype, np.dtype) and dtype.kind in "iufb")


def to_csv(frames: list[pd.DataFrame], parsed: Parsed | None, *, header: bool) -> bytes:
    """Return the frames from `as_frames` as CSV, one after the other, after a header line if `header` is true.

    Raise WrongAnswer for text that is not Unicode.
    """
    names = _header(frames[0]) if header and frames else b""
    appended = _appended_to_rows(frames[0], parsed) if parsed and len(frames) == 1 else None
    return names + (b"".join(_csv(frame) for frame in frames) if appended is None else appended)


def _header(frame: pd.DataFrame) -> bytes:
    """Return the header line: a single one, of tuples, where pandas would write one line per level of the columns."""
    empty = frame.iloc[:0]
    return _csv(empty if empty.columns.nlevels == 1 else empty.set_axis(empty.columns.map(str), axis=1), header=True)


def _csv(frame: pd.DataFrame, *, header: bool = False) -> bytes:
    return _encoded(with_objects(frame).to_csv(header=header, lineterminator="\n"))


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise WrongAnswer.not_unicode(error) from error


def _appended_to_rows(whole: pd.DataFrame, parsed: Parsed) -> bytes | None:
    """Return the lines of the rows' text with the new values appended, or None if `to_csv` would write other bytes."""
    known = 0 if parsed.frame is None else parsed.frame.shape[1]
    if not parsed.plain or parsed.layout.delimiter != "," or not whole.iloc[:, :known].equals(parsed.frame):
        return None
    columns = [_texts(whole.iloc[:, place]) for place in range(known, whole.shape[1])]
    if None in columns or not columns:
        return None
    lines = parsed.rows.text.decode().removesuffix("\n").split("\n")
    return _encoded("".join([f"{','.join(fields)}\n" for fields in zip(lines, *columns, strict=True)]))


def _texts(values: pd.Series) -> list[str] | None:
    """Return each value as `to_csv` writes it, or None if one may need quotes."""
    if values.dtype == "str":
        texts = values.fillna("").tolist()
        return texts if _NEED_QUOTES.isdisjoint("".join(texts)) else None
    if not isinstance(values.dtype, np.dtype):
        return None
    if values.dtype == np.float64:
        return ["" if value != value else repr(value) for value in values.tolist()]
    return list(map(str, values.tolist())) if values.dtype.kind in "iub" else None
