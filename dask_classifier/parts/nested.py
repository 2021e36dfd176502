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

    def of_nested(kind: pa.DataType) -> pd.ArrowDtype | None:
        return pd.ArrowDtype(kind) if is_nested(kind) else None

    return table.to_pandas(integer_object_nulls=True, use_threads=False, types_mapper=of_nested)


def readable(schema: pa.Schema) -> pa.Schema:
    """Return a schema whose metadata call a column `object` if pandas does not know the name of its type.

    Such types are nested ones, decimals, and bytes of a fixed length.
    """
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
