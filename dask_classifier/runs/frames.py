"""Read a run's rows and bad rows into DataFrames, and write them as one Parquet file."""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from .. import storage
from ..errors import StorageError, UsageError
from ..parts.columns import read_csv
from ..parts.nested import readable
from ..parts.parquet_parts import table_of
from ..parts.receipts import QUARANTINE_COLUMNS
from ..rows.layouts import Layout
from ..rows.types import converted

_AT_ONCE = 8  # footers read at the same time
_NUMBER = r"([+-]?(0|[1-9]\d*)(\.\d*)?([eE][+-]?\d+)?)?"  # may be empty; 007 is an identifier, not a number


def with_types(frame: pd.DataFrame, convert: bool, dtype: Mapping[str, object]) -> pd.DataFrame:
    """Return a frame with the types of `dtype` and, with `convert`, numbers in text columns of nothing else."""
    types = {str(name): target for name, target in dtype.items()}
    if missing := sorted(set(types) - set(map(str, frame.columns))):
        raise UsageError(f"The result has no column {missing[0]!r}.", f"Its columns are {', '.join(frame.columns)}.")
    texts = [name for name in frame.columns if frame[name].dtype == "str"]
    for name in texts:
        if name in types:
            frame[name] = _as_type(frame[name], types[name])
        elif convert and frame[name].str.fullmatch(_NUMBER).all():
            frame[name] = _exact_numbers(frame[name])
    return frame.astype({name: target for name, target in types.items() if name not in texts})


def _exact_numbers(text: pd.Series) -> pd.Series:
    """Convert text to numbers unless that would change their values, as for long integers with missing values."""
    numbers = pd.to_numeric(text)
    whole = not text.str.contains(r"[.eE]").any()
    too_long = numbers.dtype.kind == "f" and (numbers.abs() >= 2**53).any()
    return text if numbers.dtype.kind == "O" or (whole and too_long) else numbers


def _as_type(text: pd.Series, dtype: object) -> pd.Series:
    try:
        if str(pd.api.types.pandas_dtype(dtype)) in {"bool", "boolean"}:  # any text is true for NumPy
            layout = Layout(types=((str(text.name), "boolean"),))
            return converted(text.to_frame(str(text.name)), layout)[str(text.name)].astype(dtype)
        return text.replace("", None).astype(dtype)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"The column {text.name!r} does not fit the type {dtype}: {error}.",
            "Choose another type. If some values are empty, it must allow missing values, as float64 and Int64 do.",
        ) from error


def read_quarantine(text: bytes) -> pd.DataFrame:
    """Return the bad rows in the text of quarantine files."""
    if not text:
        return pd.DataFrame(columns=list(QUARANTINE_COLUMNS))
    return read_csv(text, QUARANTINE_COLUMNS).astype({"row": int})


def write_parquet(stream: BinaryIO, frames: Iterable[pd.DataFrame], names: Sequence[str]) -> None:
    """Write all frames to one Parquet file, with the types of the first one. Raise UsageError if others differ.

    Without a frame, the file has columns of text with these names.
    """
    tables = (frame.reset_index() for frame in frames)
    first = next(tables, pd.DataFrame(columns=list(names), dtype=str))
    table = pa.Table.from_pandas(first, preserve_index=False)
    with pq.ParquetWriter(stream, table.schema) as writer:
        writer.write_table(table)
        for frame in tables:
            with _same_types():
                writer.write_table(pa.Table.from_pandas(frame, table.schema, preserve_index=False))


def join_parquet(stream: BinaryIO, parts: Sequence[tuple[str, Callable[[], bytes]]]) -> None:
    """Write the rows of Parquet files, at least one, each given by its URL and a function that reads it, to one file.

    Types may differ as those of parts do: whole numbers of one where there are only missing values in another, or
    decimals of several precisions. Raise UsageError if no type holds the values of all.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        schemas = list(pool.map(_schema_of, parts))
    with _same_types():
        schema = _common(schemas)
    with pq.ParquetWriter(stream, schema) as writer:
        for _, read in parts:
            table = table_of(read())
            with _same_types():
                writer.write_table(table.select(schema.names).cast(schema))


def _schema_of(part: tuple[str, Callable[[], bytes]]) -> pa.Schema:
    """Return the schema in a footer. Of a file without one, reading it says what is wrong."""
    url, read = part
    try:
        with storage.open_ranged(url) as stream:
            return pq.read_schema(stream)
    except (pa.ArrowException, StorageError):
        return pq.read_schema(io.BytesIO(read()))


def _common(schemas: Sequence[pa.Schema]) -> pa.Schema:
    first = schemas[0]
    if all(first.equals(other) for other in schemas):
        return readable(first)
    return pa.unify_schemas([_plain(schema) for schema in schemas], promote_options="permissive")


def _plain(schema: pa.Schema) -> pa.Schema:
    """Return a schema with values in place of categories, whose numbers differ from part to part."""
    types = [field.type.value_type if pa.types.is_dictionary(field.type) else field.type for field in schema]
    return pa.schema(list(zip(schema.names, types, strict=True)))


@contextmanager
def _same_types() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise UsageError(f"The column types of the parts differ: {error}.", "Fetch the run as CSV.") from error
