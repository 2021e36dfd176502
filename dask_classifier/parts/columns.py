"""The columns of a run's parts: their names and kinds, and converting text back to the types of the answers."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..rows.layouts import READ_TEXT

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Columns:
    """The columns that all parts of one run have."""

    names: tuple[str, ...]  # the index first
    kinds: str  # of each column, over all parts, as receipts have them

    @property
    def unique(self) -> list[str]:
        """The names, with duplicates numbered as pandas.read_csv numbers them in a header: A, A.1, A.2."""
        if len(set(self.names)) == len(self.names):
            return list(self.names)
        import pandas as pd

        header = pd.DataFrame([self.names]).to_csv(index=False, header=False)
        return pd.read_csv(io.StringIO(header), **READ_TEXT).columns.tolist()

    def typed(self, frame: "pd.DataFrame") -> "pd.DataFrame":
        """Return a frame of text with numbers, booleans and dates in the columns where all answers had them.

        Their types are nullable if the classifier's own were. Numbers have 64 bits, and dates microseconds.
        """
        kinds = zip(self.unique, self.kinds, strict=True)
        return frame.assign(**{name: _as_kind(frame[name], kind) for name, kind in kinds if kind != "O"})

    def empty(self) -> "pd.DataFrame":
        """Return a frame without rows."""
        import pandas as pd

        frame = pd.DataFrame(columns=self.unique or ["ID"], dtype=str)
        return frame.set_index(frame.columns[0])


def read_csv(text: bytes, names: Sequence[str], *, header: bool = False) -> "pd.DataFrame":
    """Return the rows of a part or a quarantine file, which pandas has written, as text.

    There, a CR is part of a value, and a line of spaces is a value: neither is a border between rows.
    """
    import pandas as pd

    options = READ_TEXT | {"lineterminator": "\n", "skip_blank_lines": False}
    return pd.read_csv(io.BytesIO(text), names=list(names), header=0 if header else None, **options)


def _as_kind(text: "pd.Series", kind: str) -> "pd.Series":
    """Convert text back to the numbers, booleans or dates of the answers; an empty text is a missing value.

    pyarrow reads integers exactly; pandas.to_numeric turns all of them into floats if one is missing.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    if kind == "M":
        return pd.to_datetime(text, format="ISO8601").dt.as_unit("us")
    types = {"i": pa.int64(), "u": pa.uint64(), "f": pa.float64()}
    nullable_types = {"i": pd.Int64Dtype(), "u": pd.UInt64Dtype(), "b": pd.BooleanDtype()}
    values = pa.array(text.array, pa.large_string())
    values = pc.if_else(pc.equal(values, ""), None, values)
    values = pc.equal(values, "True") if kind in "bB" else values.cast(types[kind.lower()])
    nullable = kind.isupper() or (values.null_count and kind != "f")  # runs before 0.1.0 have no uppercase kinds
    column = nullable_types[kind.lower()].__from_arrow__(values) if nullable else values.to_numpy(zero_copy_only=False)
    return pd.Series(column, index=text.index)
