"""Tables of typed values, from DataFrames and Parquet, as the text that pandas writes for them."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import SourceError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@contextmanager
def as_text(source: str) -> Iterator[None]:
    """Raise SourceError where the `with` block meets values that have no text, such as a date in the year 20000."""
    import pyarrow as pa

    try:
        yield
    except MemoryError:  # which is an ArrowException, too
        raise
    except (pa.ArrowException, ArithmeticError, LookupError, UnicodeError) as error:
        text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
        raise SourceError(
            f"{source} has values that cannot be written as text: {text.rstrip('.')}.",
            "Leave their column out with --columns, change its type or, of Parquet, give the classifier its types: "
            "--typed.",
        ) from error


def nested_column(table: "pd.DataFrame") -> object:
    """Return the name of the first column whose values have no text of their own, such as lists; None if none has."""
    for place, name in enumerate(table.columns):
        if _has_no_text(table.iloc[:, place]):
            return name
    return None


def _has_no_text(column: "pd.Series") -> bool:
    """Return whether values are longer than their text may be, as of arrays, or are not text, as bytes."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    if isinstance(column.dtype, pd.ArrowDtype):
        arrow = _stored_type(column.dtype.pyarrow_dtype)
        binary = pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary
        return is_nested(arrow) or any(is_one(arrow) for is_one in binary)
    nested = (list, tuple, dict, set, frozenset, bytes, bytearray, np.ndarray, pd.Series, pd.DataFrame)
    return column.dtype == object and any(isinstance(value, nested) for value in column)


def is_nested(arrow: "pa.DataType") -> bool:
    """Return whether values of a type consist of several, as those of lists, structs and tensors."""
    import pyarrow as pa

    return pa.types.is_nested(_stored_type(arrow))


def with_objects(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return a table with Python's lists and dicts in place of Arrow's nested values, in the index, too.

    pandas would write only the first and the last three values of a list that has more than 1,000.
    """
    import pandas as pd

    def is_nested_type(dtype: object) -> bool:
        return isinstance(dtype, pd.ArrowDtype) and is_nested(dtype.pyarrow_dtype)

    places = [place for place, dtype in enumerate(table.dtypes) if is_nested_type(dtype)]
    table = table.copy(deep=False) if places else table
    for place in places:
        table.isetitem(place, pd.Series(table.iloc[:, place].tolist(), table.index, dtype=object))
    if is_nested_type(table.index.dtype):
        table = table.set_axis(pd.Index(pd.Series(table.index.tolist(), dtype=object), name=table.index.name))
    return table


def _stored_type(arrow: "pa.DataType") -> "pa.DataType":
    """Return the type in which values are stored: a tensor is a list, and a UUID is bytes."""
    import pyarrow as pa

    while isinstance(arrow, pa.BaseExtensionType):
        arrow = arrow.storage_type
    return arrow


def csv_of(table: "pd.DataFrame", *, header: bool = True) -> bytes:
    """The rows as CSV; quoted where pandas would write a lone CR, or the blank line of a single column, bare."""
    text = table.to_csv(index=False, header=header, lineterminator="\n")
    if "\r" in text or table.shape[1] == 1:
        text = table.to_csv(index=False, header=header, lineterminator="\n", quoting=csv.QUOTE_ALL)
    return text.encode("utf-8", "backslashreplace")
