"""A run's parts and bad rows as DataFrames, and as Parquet."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import UsageError
from ..parts.formats import unpacked
from ..parts.receipts import QUARANTINE_COLUMNS
from ..rows.layouts import READ_TEXT

# a CR in a part is part of a value, and a line of spaces is one: pandas writes neither as a border between rows
_READ_PART = READ_TEXT | {"lineterminator": "\n", "skip_blank_lines": False}
_NUMBER = r"([+-]?(0|[1-9]\d*)(\.\d*)?([eE][+-]?\d+)?)?"  # or nothing; 007 is a name, not a number
_NULLABLE = {"i": pd.Int64Dtype(), "u": pd.UInt64Dtype(), "b": pd.BooleanDtype()}
_TYPES = {"i": pa.int64(), "u": pa.uint64(), "f": pa.float64()}


@dataclass(frozen=True)
class Shape:
    """What the parts of one run have in common."""

    columns: tuple[str, ...]  # the index first
    kinds: str  # of each column, over all parts, as receipts have them
    part_format: str

    def read(self, data: bytes, *, header: bool) -> pd.DataFrame:
        """Return the rows of one part.

        Columns are text, except those that were numbers or booleans in all the answers; these are nullable where the
        classifier's own were. A name that occurs twice is numbered as pandas.read_csv does: A, A.1.
        """
        if self.part_format == "parquet":
            frame = _parquet(data)
        else:
            names = _unique(self.columns)
            text = io.BytesIO(unpacked(data, self.part_format))
            frame = pd.read_csv(text, names=names, header=0 if header else None, **_READ_PART)
            frame = frame.assign(
                **{
                    name: _as_kind(frame[name], kind)
                    for name, kind in list(zip(names, self.kinds, strict=True))[1:]
                    if kind != "O"
                }
            )
        return frame.set_index(frame.columns[0])

    def empty(self) -> pd.DataFrame:
        """Return a frame without rows."""
        frame = pd.DataFrame(columns=_unique(self.columns) or ["ID"], dtype=str)
        return frame.set_index(frame.columns[0])


def _unique(names: tuple[str, ...]) -> list[str]:
    """Number the names that occur again, as pandas.read_csv does with a header: A, A.1, A.2."""
    if len(set(names)) == len(names):
        return list(names)
    header = pd.DataFrame([names]).to_csv(index=False, header=False)
    return pd.read_csv(io.StringIO(header), **READ_TEXT).columns.tolist()


def _as_kind(text: pd.Series, kind: str) -> pd.Series:
    """Return text as the numbers or booleans that it was before it was written; the empty text is a missing one.

    pyarrow reads integers exactly; pandas.to_numeric makes floats of all where one is missing.
    """
    values = pa.array(text.array, pa.large_string())
    values = pc.if_else(pc.equal(values, ""), None, values)
    values = pc.equal(values, "True") if kind in "bB" else values.cast(_TYPES[kind.lower()])
    nullable = kind.isupper() or (values.null_count and kind != "f")  # runs before 0.1.0 do not tell the two apart
    column = _NULLABLE[kind.lower()].__from_arrow__(values) if nullable else values.to_numpy(zero_copy_only=False)
    return pd.Series(column, index=text.index)


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
    frame = pd.read_csv(io.BytesIO(text), names=list(QUARANTINE_COLUMNS), header=None, **_READ_PART)
    return frame.astype({"row": int})


# --- Parquet -----------------------------------------------------------------------------------------


def parquet_rows(data: bytes) -> int:
    """The rows of a Parquet part."""
    return pq.read_metadata(io.BytesIO(data)).num_rows


def _parquet(data: bytes) -> pd.DataFrame:
    """Return a Parquet part; integers among missing values, as in a categorical column, stay integers."""
    return pq.read_table(io.BytesIO(data)).to_pandas(integer_object_nulls=True)


def parquet_text(data: bytes) -> bytes:
    """The rows of a Parquet part as CSV."""
    frame = _parquet(data)
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
