"""Nested values of Arrow, such as lists and structs, in Parquet that pandas has written.

In its metadata, the type of a list is `list<item: int64>[pyarrow]`, a name that pandas does not know when it reads it.
"""

import json

import pandas as pd
import pyarrow as pa

from ..rows.tables import is_nested

_PANDAS = b"pandas"  # the key of what pandas says of the columns, in the metadata of a schema


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """Return a table of a part as a frame. Nested values keep Arrow's types, which Dask does not turn into text.

    Integers remain integers even with missing values, as in a categorical column.
    """
    frame = table.to_pandas(integer_object_nulls=True, use_threads=False)
    for place, column in enumerate(table.columns):
        if is_nested(column.type):
            frame.isetitem(place, pd.array(column, dtype=pd.ArrowDtype(column.type)))
    return frame


def readable(schema: pa.Schema) -> pa.Schema:
    """Return a schema in whose metadata no type has a name that pandas cannot read: such columns have objects."""
    metadata = schema.metadata or {}
    if _PANDAS not in metadata:
        return schema
    described = json.loads(metadata[_PANDAS])
    unknown = [column for column in described["columns"] if not _is_known(column["numpy_type"])]
    if not unknown:
        return schema
    for column in unknown:
        column["numpy_type"] = "object"
    return schema.with_metadata(metadata | {_PANDAS: json.dumps(described).encode()})


def _is_known(name: str) -> bool:
    try:
        pd.api.types.pandas_dtype(name)
    except (TypeError, ValueError, NotImplementedError):
        return False
    return True
