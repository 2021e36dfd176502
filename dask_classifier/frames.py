"""A run's parts and bad rows as DataFrames, and as Parquet."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from .errors import UsageError
from .layouts import READ_TEXT
from .packing import unpacked
from .receipts import QUARANTINE_COLUMNS

_READ_PART = READ_TEXT | {"lineterminator": "\n"}  # a CR in a part is part of a value


@dataclass(frozen=True)
class Shape:
    """What the parts of one run have in common."""

    columns: tuple[str, ...]  # the index first
    kinds: str  # of each column, over all parts: i, u, f, b, or O for text and all else
    part_format: str

    def read(self, data: bytes, *, header: bool) -> pd.DataFrame:
        """One part. Columns are text, but those that were numbers or truth values in all the answers."""
        if self.part_format == "parquet":
            frame = pq.read_table(io.BytesIO(data)).to_pandas()
        else:
            text = io.BytesIO(unpacked(data, self.part_format))
            frame = pd.read_csv(text, names=list(self.columns), header=0 if header else None, **_READ_PART)
            for name, kind in list(zip(self.columns, self.kinds, strict=True))[1:]:
                frame[name] = _as_kind(frame[name], kind)
        return frame.set_index(frame.columns[0])

    def empty(self) -> pd.DataFrame:
        """No rows."""
        frame = pd.DataFrame(columns=self.columns or ["ID"], dtype=str)
        return frame.set_index(frame.columns[0])


def _as_kind(text: pd.Series, kind: str) -> pd.Series:
    """Text as what it was before it was written: kind is that of a numpy type, i, u, f, b; anything else is text."""
    if kind in "iuf":
        return pd.to_numeric(text).astype({"i": "int64", "u": "uint64", "f": "float64"}[kind])
    return text == "True" if kind == "b" else text


def read_quarantine(text: bytes) -> pd.DataFrame:
    """The bad rows in the text of quarantine files."""
    if not text:
        return pd.DataFrame(columns=list(QUARANTINE_COLUMNS))
    frame = pd.read_csv(io.BytesIO(text), names=list(QUARANTINE_COLUMNS), header=None, **_READ_PART)
    return frame.astype({"row": int})


# --- Parquet -----------------------------------------------------------------------------------------


def parquet_rows(data: bytes) -> int:
    """The rows of a Parquet part."""
    return pq.read_metadata(io.BytesIO(data)).num_rows


def parquet_text(data: bytes) -> bytes:
    """The rows of a Parquet part as CSV."""
    frame = pq.read_table(io.BytesIO(data)).to_pandas()
    return frame.to_csv(index=False, header=False, lineterminator="\n").encode()


def first_texts(stream: BinaryIO, columns: list[str], most: int) -> dict[str, list[str]]:
    """The values of some columns in the first rows of a Parquet part, as text; missing ones as none. Reads the footer
    and, of the first row group, these columns.
    """
    batch = next(pq.ParquetFile(stream).iter_batches(most, row_groups=[0], columns=columns), None)
    frame = batch.to_pandas() if batch else pd.DataFrame(columns=columns)
    return {
        name: ["" if missing else str(value) for value, missing in zip(frame[name], frame[name].isna(), strict=True)]
        for name in columns
    }


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
