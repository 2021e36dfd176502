"""Guess the types of columns of text from rows all over the source; blocks check them later, in every row.

A type is chosen only if each value of the sample is written as that type usually is. 007 remains text, since a number
would lose its zeros, and so do whole numbers beyond 64 bits.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import DaskClassifyError
from .borders import Rows
from .layouts import NO_INDEX, Layout
from .source import Source
from .types import converted

if TYPE_CHECKING:
    import pandas as pd

PLACES = 20  # in which rows are read
_PLACE_ROWS = 500
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?)?")
_BOOLEAN = re.compile(r"True|False|TRUE|FALSE|true|false")
_KINDS = (
    (_BOOLEAN, "boolean"),
    (_INTEGER, "Int64"),
    (_NUMBER, "float64"),
    (_DATE, "datetime64"),
)  # the first that fits


def infer_types(source: Source) -> tuple[tuple[str, str], ...]:
    """Return the types of columns: those of the layout, and guesses for the others that are not text.

    The index remains text. Numbers and booleans are nullable, since values may be missing where the sample has none.
    """
    layout, guessed = source.layout, {}
    given = dict(layout.types)
    frames = list(_samples(source))
    for name in layout.wanted or layout.columns:
        if name not in given and name != _index(layout) and (kind := _kind(name, frames, layout)):
            guessed[str(name)] = kind
    return (*layout.types, *guessed.items())


def _index(layout: Layout) -> str | int | None:
    """Return the column that becomes the index."""
    first = (*layout.wanted, *layout.columns)[:1]
    return None if layout.index == NO_INDEX else layout.index or (first[0] if first else None)


def _samples(source: Source) -> "Iterator[pd.DataFrame]":
    """Yield rows as frames of text, from places that are evenly spread over the bytes of the source."""
    from .chunks import text_frame

    for file, rows in _places(source):
        layout = file.layout_of_rows(source.layout)
        if isinstance(rows, Rows) and len(rows):
            try:
                yield text_frame(rows, layout)
            except ValueError:  # malformed rows, or a place in the middle of quotes
                continue


def _places(source: Source) -> Iterator[tuple]:
    sizes = [max(1, file.size) for file in source.files]
    width = sum(sizes) / PLACES
    wanted, before = [(place + 0.5) * width for place in range(1, PLACES)], 0
    yield source.files[0], source.files[0].first_rows(_PLACE_ROWS, source.layout)
    for file, size in zip(source.files, sizes, strict=True):
        inside = [position for position in wanted if before <= position < before + size]
        for position in inside[:1] if file.is_packed else inside:  # a packed file has only its beginning to offer
            try:
                yield file, file.rows_near(int(position - before), _PLACE_ROWS, source.layout)
            except DaskClassifyError:  # reported where it belongs, when the run reads all rows
                continue
        before += size


def _kind(name: str | int, frames: "list[pd.DataFrame]", layout: Layout) -> str | None:
    """Return the type that fits all values of a column, or None: it remains text."""
    from pandas._libs.parsers import STR_NA_VALUES

    missing = STR_NA_VALUES | set(layout.na_values)
    values = {value for frame in frames for value in frame[name] if value not in missing}
    fitting = (kind for pattern, kind in _KINDS if all(map(pattern.fullmatch, values)))
    kind = next(fitting, None) if values else None
    return kind if kind and _is_convertible(values, kind) else None


def _is_convertible(values: set[str], kind: str) -> bool:
    """Return whether all values are of a type, and not only written like it, as is 2026-02-30."""
    import pandas as pd

    try:
        converted(pd.DataFrame({"values": pd.Series(sorted(values), dtype="str")}), Layout(types=(("values", kind),)))
    except ValueError:
        return False
    return True
