"""Tables of typed values, from DataFrames and Parquet, as the text that pandas writes for them."""

import csv
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import SourceError

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def as_text(source: str) -> Iterator[None]:
    """Raise SourceError where the `with` block meets values that have no text, such as a date in the year 20000."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, ArithmeticError, LookupError, UnicodeError) as error:
        raise SourceError(
            f"{source} has values that cannot be written as text: {str(error).rstrip('.')}.",
            "Leave their column out with --columns, or change its type.",
        ) from error


def nested_column(table: "pd.DataFrame") -> object:
    """Return the name of the first column whose values have no text of their own, such as lists; None if none has."""
    for place, name in enumerate(table.columns):
        if _is_nested(table.iloc[:, place]):
            return name
    return None


def _is_nested(column: "pd.Series") -> bool:
    """Return whether values are longer than their text may be, as of arrays, or are not text, as bytes."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    if isinstance(column.dtype, pd.ArrowDtype):
        arrow = column.dtype.pyarrow_dtype
        while isinstance(arrow, pa.BaseExtensionType):  # a tensor is a list, and a UUID is bytes
            arrow = arrow.storage_type
        binary = pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary
        return pa.types.is_nested(arrow) or any(is_one(arrow) for is_one in binary)
    nested = (list, tuple, dict, set, frozenset, bytes, bytearray, np.ndarray, pd.Series, pd.DataFrame)
    return column.dtype == object and any(isinstance(value, nested) for value in column)


def csv_of(table: "pd.DataFrame", *, header: bool = True) -> bytes:
    """The rows as CSV; quoted where pandas would write a lone CR, or the blank line of a single column, bare.

    Each row is quoted by what is in it alone, so that its text does not depend on the other rows of its block.
    """
    if table.shape[1] == 1:
        return _csv(table, header=header, quoting=csv.QUOTE_ALL)
    text = _csv(table, header=header)
    if b"\r" not in text:
        return text
    pieces, place = [_csv(table.iloc[:0], quoting=csv.QUOTE_ALL)] if header else [], 0
    for has_cr, rows in itertools.groupby(_has_cr(table)):
        stop = place + len(list(rows))
        quoting = csv.QUOTE_ALL if has_cr else csv.QUOTE_MINIMAL
        pieces.append(_csv(table.iloc[place:stop], header=False, quoting=quoting))
        place = stop
    return b"".join(pieces)


def _has_cr(table: "pd.DataFrame") -> list[bool]:
    """Return which rows have a CR in a value."""
    columns = (table.iloc[:, place].astype(str).str.contains("\r", regex=False) for place in range(table.shape[1]))
    return [any(row) for row in zip(*columns, strict=True)]


def _csv(table: "pd.DataFrame", *, header: bool = True, quoting: int = csv.QUOTE_MINIMAL) -> bytes:
    text = table.to_csv(index=False, header=header, lineterminator="\n", quoting=quoting)
    return text.encode("utf-8", "backslashreplace")
