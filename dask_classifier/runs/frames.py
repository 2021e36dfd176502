"""A run's rows and bad rows as DataFrames, and as one Parquet file."""

from collections.abc import Iterable, Mapping
from typing import BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import UsageError
from ..parts.columns import read_csv
from ..parts.receipts import QUARANTINE_COLUMNS

_NUMBER = r"([+-]?(0|[1-9]\d*)(\.\d*)?([eE][+-]?\d+)?)?"  # or nothing; 007 is a name, not a number


def with_types(frame: pd.DataFrame, convert: bool, dtype: Mapping[str, object]) -> pd.DataFrame:
    """Return a frame with the types of `dtype`, and with `convert` numbers where a text column holds nothing else."""
    types = {str(name): wanted for name, wanted in dtype.items()}
    if missing := sorted(set(types) - set(map(str, frame.columns))):
        raise UsageError(f"The result has no column {missing[0]!r}.", f"Its columns are {', '.join(frame.columns)}.")
    texts = [name for name in frame.columns if frame[name].dtype == "str"]
    for name in texts:
        if name in types:
            frame[name] = _as_type(frame[name], types[name])
        elif convert and frame[name].str.fullmatch(_NUMBER).all():
            frame[name] = _exact_numbers(frame[name])
    return frame.astype({name: wanted for name, wanted in types.items() if name not in texts})


def _exact_numbers(text: pd.Series) -> pd.Series:
    """Return text as numbers; but as it is where these would be other numbers, as long integers among missing ones."""
    numbers = pd.to_numeric(text)
    whole = not text.str.contains(r"[.eE]").any()
    too_long = numbers.dtype.kind == "f" and (numbers.abs() >= 2**53).any()
    return text if numbers.dtype.kind == "O" or (whole and too_long) else numbers


def _as_type(text: pd.Series, wanted: object) -> pd.Series:
    try:
        return text.replace("", None).astype(wanted)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"The column {text.name!r} does not fit the type {wanted}: {error}.",
            "Choose another type; one that holds missing values, such as float64 or Int64, where some are empty.",
        ) from error


def read_quarantine(text: bytes) -> pd.DataFrame:
    """The bad rows in the text of quarantine files."""
    if not text:
        return pd.DataFrame(columns=list(QUARANTINE_COLUMNS))
    return read_csv(text, QUARANTINE_COLUMNS).astype({"row": int})


def write_parquet(stream: BinaryIO, frames: Iterable[pd.DataFrame]) -> None:
    """One Parquet file of all frames, with the types of the first. Raises UsageError where others have other types."""
    tables = (frame.reset_index() for frame in frames)
    first = next(tables, None)
    if first is None:
        raise UsageError("The run has no rows, and so no types for Parquet.", "Fetch it as CSV.")
    table = pa.Table.from_pandas(first, preserve_index=False)
    with pq.ParquetWriter(stream, table.schema) as writer:
        writer.write_table(table)
        for frame in tables:
            try:
                writer.write_table(pa.Table.from_pandas(frame, table.schema, preserve_index=False))
            except (pa.ArrowException, ValueError, TypeError) as error:
                raise UsageError(f"The parts' types differ: {error}.", "Fetch it as CSV.") from error
