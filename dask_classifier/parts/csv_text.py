"""A block's answers as CSV, byte for byte as pandas' `to_csv` writes them chunk by chunk.

That costs more than reading, compressing and writing together, so there are two short cuts, each taken only
where its bytes are provably the same:

- `to_csv` once for the whole block, where all its chunks have the same columns of plain types: then a value's
  text depends on that value alone;
- the rows' own text with the new columns' text behind it, where the answers are the block's rows, unchanged,
  with more columns, and nothing in them needs quotes.
"""

import numpy as np
import pandas as pd

from ..classifier.contract import COLUMN, Answer
from ..errors import WrongAnswer
from ..rows.chunks import Parsed

_NEED_QUOTES = frozenset('",\r\n')


def as_frames(answers: list[Answer], parsed: Parsed) -> list[pd.DataFrame]:
    """The answers to a block's rows as frames: one, where each value's text is the same in it; else one for
    each chunk.
    """
    if answers and all(answer.values is not None for answer in answers):
        whole = _with_values(answers, parsed)
        return [answer.frame for answer in answers] if whole is None else [whole]
    frames = [answer.frame for answer in answers]
    types = [(frame.index.dtype, *frame.dtypes) for frame in frames]
    alike = len(frames) > 1 and all(each == types[0] for each in types) and all(map(_is_plain_type, types[0]))
    return [pd.concat(frames)] if alike else frames


def _with_values(answers: list[Answer], parsed: Parsed) -> pd.DataFrame | None:
    """The block's rows, or those that have answers, with the values behind them; None where their types differ."""
    parts = [answer.values for answer in answers]
    if not _is_plain_type(parts[0].dtype) or any(part.dtype != parts[0].dtype for part in parts):
        return None
    values = np.concatenate(parts) if isinstance(parts[0], np.ndarray) else pd.concat(map(pd.Series, parts)).array
    complete = parsed.frame is not None and len(parsed.frame) == len(values)
    rows = parsed.frame if complete else pd.concat([answer.chunk for answer in answers])
    return rows.assign(**{COLUMN: values})


def _is_plain_type(dtype) -> bool:
    """Whether `to_csv` looks at each value alone: not so for dates, which lose midnight when all have it."""
    return dtype == "str" or (isinstance(dtype, np.dtype) and dtype.kind in "iufb")


def to_csv(frames: list[pd.DataFrame], parsed: Parsed, *, header: bool) -> bytes:
    """Return what `as_frames` gave, one after the other; `header` puts the columns' names on top.

    Raises WrongAnswer for text that is not Unicode.
    """
    names = _header(frames[0]) if header and frames else b""
    behind = _behind_the_rows(frames[0], parsed) if len(frames) == 1 else None
    return names + (b"".join(_csv(frame) for frame in frames) if behind is None else behind)


def _header(frame: pd.DataFrame) -> bytes:
    """Return the line of the columns' names: also one, of tuples, where pandas would write a line for each level."""
    none = frame.iloc[:0]
    return _csv(none if none.columns.nlevels == 1 else none.set_axis(none.columns.map(str), axis=1), header=True)


def _csv(frame: pd.DataFrame, *, header: bool = False) -> bytes:
    return _encoded(frame.to_csv(header=header, lineterminator="\n"))


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise WrongAnswer(
            f"it holds text that is not Unicode: {error}", "Return text that can be written as UTF-8."
        ) from error


def _behind_the_rows(whole: pd.DataFrame, parsed: Parsed) -> bytes | None:
    """The lines of the rows' text, each with its new values; None where that would not be what `to_csv` writes."""
    known = 0 if parsed.frame is None else parsed.frame.shape[1]
    if not parsed.plain or parsed.layout.delimiter != "," or not whole.iloc[:, :known].equals(parsed.frame):
        return None
    columns = [_texts(whole.iloc[:, place]) for place in range(known, whole.shape[1])]
    if None in columns or not columns:
        return None
    lines = parsed.rows.text.decode().removesuffix("\n").split("\n")
    return _encoded("".join([f"{','.join(fields)}\n" for fields in zip(lines, *columns, strict=True)]))


def _texts(values: pd.Series) -> list[str] | None:
    """Each value as `to_csv` writes it, where that needs no quotes."""
    if values.dtype == "str":
        texts = values.fillna("").tolist()
        return texts if _NEED_QUOTES.isdisjoint("".join(texts)) else None
    if not isinstance(values.dtype, np.dtype):
        return None
    if values.dtype == np.float64:
        return ["" if value != value else repr(value) for value in values.tolist()]
    return list(map(str, values.tolist())) if values.dtype.kind in "iub" else None
