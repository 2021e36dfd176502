"""Types that a user asks for: which names are allowed, and how the text of a column becomes values.

pandas' CSV parser converts, so that the values are those of `pandas.read_csv(dtype=...)`. Only types whose values do
not depend on the other rows are allowed: a block has only some of them.
"""

import csv
import io
from typing import TYPE_CHECKING

from ..errors import UsageError
from .layouts import Layout

if TYPE_CHECKING:
    import pandas as pd

DATES = "datetime64"
_SIZES = (8, 16, 32, 64)
_INTEGERS = [f"{kind}{size}" for kind in ("int", "uint", "Int", "UInt") for size in _SIZES]
TYPES = (*_INTEGERS, "float32", "float64", "Float32", "Float64", "bool", "boolean", "str", DATES)


def parse_types(text: str) -> tuple[tuple[str, str], ...]:
    """Return the columns and types of "price=float64,when=datetime64". Raise UsageError for what is not understood."""
    types: dict[str, str] = {}
    for item in text.split(","):
        name, equals, kind = item.rpartition("=")
        if not equals or not name:
            raise UsageError(f"{item!r} is not a column with a type.", "Write --dtype price=float64,when=datetime64.")
        if kind not in TYPES:
            raise UsageError(f"{kind!r} is not a type of a column.", f"Choose one of {', '.join(TYPES)}.")
        types[name] = kind
    return tuple(types.items())


def converted(frame: "pd.DataFrame", layout: Layout) -> "pd.DataFrame":
    """Return a frame of text with the types of the layout. Raise ValueError for a value that has another type."""
    import pandas as pd

    types = {name: kind for name, kind in layout.types if name in frame.columns}
    if not types or frame.empty:
        return frame
    text = frame[list(types)].to_csv(index=False, header=False, quoting=csv.QUOTE_ALL, lineterminator="\n")
    try:
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
    except (TypeError, OverflowError) as error:  # a fraction or a large number where whole ones are wanted
        raise ValueError(str(error)) from error
    return frame.assign(**{name: values[name].set_axis(frame.index) for name in types})


def _dates(text: "pd.Series") -> "pd.Series":
    """Return dates in microseconds: pandas would choose another unit, or a time zone, by the values that it sees."""
    import pandas as pd

    dates = pd.to_datetime(text, format="ISO8601")
    if getattr(dates.dtype, "tz", None) is not None:
        raise ValueError("a date with a time zone")
    rounded = dates.dt.as_unit("us")
    if (dates.notna() & (dates != rounded)).any():
        raise ValueError("a date with nanoseconds")
    return rounded
