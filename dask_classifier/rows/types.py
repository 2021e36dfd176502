"""Types that a user asks for: which names are allowed, and how the text of a column becomes values.

pandas' CSV parser converts, so that the values are those of `pandas.read_csv(dtype=...)`. Only types whose values do
not depend on the other rows are allowed: a block has only some of them.
"""

import csv
import io
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import UsageError
from .layouts import Layout

if TYPE_CHECKING:
    import pandas as pd

DATES = "datetime64"
_SIZES = (8, 16, 32, 64)
_INTEGERS = [f"{kind}{size}" for kind in ("int", "uint", "Int", "UInt") for size in _SIZES]
# How values of a type are usually written; a float, with no more digits before the point than it surely keeps.
WRITTEN = {
    "boolean": re.compile(r"True|False|TRUE|FALSE|true|false"),
    "Int64": re.compile(r"-?(0|[1-9][0-9]{0,17})"),
    "float64": re.compile(r"-?((0|[1-9][0-9]{0,14})|(0|[1-9][0-9]*)\.[0-9]+)([eE][+-]?[0-9]+)?"),
    DATES: re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?)?"),
}
_POINTED = "[.eE]"  # in a number that is written like a float
TYPES = (*_INTEGERS, "float32", "float64", "Float32", "Float64", "bool", "boolean", "str", DATES)


def parse_types(types: str | Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return columns and types, of "price=float64,when=datetime64" or of a mapping, whose names may have commas.

    Raise UsageError for what is not understood.
    """
    named = dict(map(_named, types.split(","))) if isinstance(types, str) else types
    for kind in map(str, named.values()):
        if kind not in TYPES:
            raise UsageError(f"{kind!r} is not a type of a column.", f"Choose one of {', '.join(TYPES)}.")
    return tuple((str(name), str(kind)) for name, kind in named.items())


def _named(item: str) -> tuple[str, str]:
    name, equals, kind = item.rpartition("=")
    if not equals or not name:
        raise UsageError(f"{item!r} is not a column with a type.", "Write --dtype price=float64,when=datetime64.")
    return name, kind


def converted(frame: "pd.DataFrame", layout: Layout) -> "pd.DataFrame":
    """Return a frame of text with the types of the layout. Raise ValueError for a value that has another type."""
    types = {name: kind for name, kind in layout.types if name in frame.columns}
    if not types or frame.empty:
        return frame
    for name in types:
        if name in layout.guessed:
            _check_written(frame[name], types[name], layout)
    mixed = [name for name, kind in types.items() if kind in _INTEGERS and _pointed(frame[name], layout).any()]
    plain = {name: kind for name, kind in types.items() if name not in mixed}
    try:
        values = dict(_parsed(frame[list(plain)], plain, layout)) if plain else {}
        values |= {name: _integers(frame[name], types[name], layout) for name in mixed}
    except (TypeError, OverflowError) as error:  # a fraction or a large number where whole ones are wanted
        raise ValueError(str(error)) from error
    frame = frame.copy(deep=False)
    for name in types:  # `assign` takes names alone, and columns without a header have numbers
        frame[name] = values[name].set_axis(frame.index)
    return frame


def is_missing(text: "pd.Series", layout: Layout) -> "pd.Series":
    """Return which texts are missing values."""
    from pandas._libs.parsers import STR_NA_VALUES

    return text.isin(STR_NA_VALUES | set(layout.na_values))


def _pointed(text: "pd.Series", layout: Layout) -> "pd.Series":
    """Return which values are written like floats."""
    return text.str.contains(_POINTED) & ~is_missing(text, layout)


def _check_written(text: "pd.Series", kind: str, layout: Layout) -> None:
    """Raise ValueError for a value that is not written like those from which its type was guessed: 00501, 5.0."""
    fits = text.str.fullmatch(f"(?:{WRITTEN[kind].pattern})") | is_missing(text, layout)
    if not fits.all():
        raise ValueError(f"{text[~fits].iloc[0]!r} is not written like the other values of its column, {kind}")


def _parsed(frame: "pd.DataFrame", types: dict[str, str], layout: Layout) -> "pd.DataFrame":
    """Return columns of text as pandas' parser reads them."""
    import pandas as pd

    text = frame.to_csv(index=False, header=False, quoting=csv.QUOTE_ALL, lineterminator="\n")
    values = pd.read_csv(
        io.StringIO(text),
        header=None,
        names=list(types),
        dtype={name: str if kind == DATES else kind for name, kind in types.items()},
        na_values=list(layout.na_values),
    )
    for name, kind in types.items():
        if kind == DATES:
            values[name] = _dates(values[name])
    return values


def _integers(text: "pd.Series", kind: str, layout: Layout) -> "pd.Series":
    """Parse whole numbers and those that are written like floats apart.

    pandas' parser makes floats of all if one is, and so rounds long ones: a value would depend on the other rows.
    """
    name, pointed = str(text.name), _pointed(text, layout)
    nullable = {name: kind.replace("uint", "UInt").replace("int", "Int")}
    whole, other = (
        _parsed(text.where(kept, "").to_frame(name), nullable, layout)[name].set_axis(text.index)
        for kept in (~pointed, pointed)
    )
    return whole.where(~pointed, other).astype(kind)


def _dates(text: "pd.Series") -> "pd.Series":
    """Return dates in microseconds: pandas would choose another unit, or a time zone, by the values that it sees."""
    import pandas as pd

    if text.str.strip().str.lower().isin(["now", "today"]).any():  # which pandas takes for the time of the clock
        raise ValueError("a date that depends on when it is read")
    dates = pd.to_datetime(text, format="ISO8601")
    if getattr(dates.dtype, "tz", None) is not None:
        raise ValueError("a date with a time zone")
    rounded = dates.dt.as_unit("us")
    if (dates.notna() & (dates != rounded)).any():
        raise ValueError("a date with nanoseconds")
    return rounded
