"""A DataFrame or an Arrow table as an input: CSV text that the client holds, until the run writes it to its folder."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Self

from .. import storage
from ..errors import SourceError
from .csv_files import CsvFile
from .layouts import HEAD_BYTES, Layout, read_header


@dataclass(frozen=True)
class FrameInput(CsvFile):
    """The rows of a frame as CSV. The text is not a field, so it does not travel with tasks or stand in plan.json."""

    @classmethod
    def of(cls, frame: Any, layout: Layout, copies: str) -> tuple[Self, tuple]:
        """Return the input and its columns. `frame` is a pandas DataFrame, or has an Arrow C stream."""
        text = _csv(frame)
        digest = hashlib.sha256(text).hexdigest()
        made = cls("DataFrame", len(text), digest, storage.join(copies, f"00000-{digest[:12]}.csv"))
        start, columns = read_header(text[:HEAD_BYTES], layout, made.url)
        made = replace(made, data_start=start)
        object.__setattr__(made, "_text", text)
        return made, columns

    @property
    def copied_by_client(self) -> bool:
        """Only the client has the rows."""
        return True

    def _head(self, encoding: str) -> tuple[bytes, bool]:
        return self._text[:HEAD_BYTES], len(self._text) <= HEAD_BYTES

    def write_copy(self, encoding: str) -> int:
        """Write the rows to the run's folder, and return their size in bytes."""
        storage.write(self.data_url, self._text)
        return len(self._text)

    def _check_unchanged(self) -> None:
        if storage.identity(self.data_url).size != self.data_size:
            raise self._changed()

    def _changed(self) -> SourceError:
        return SourceError(f"{self.data_url} has changed since the run began.", "Start again with --overwrite.")


def is_frame(value: object) -> bool:
    """Whether a value is a pandas DataFrame, or a table that offers Arrow's C stream, as pyarrow's and polars' do."""
    return hasattr(value, "__arrow_c_stream__") and hasattr(value, "columns")


def _csv(frame: Any) -> bytes:
    """The rows as text: of pandas' frames, the index is the first column."""
    import pandas as pd

    if isinstance(frame, pd.DataFrame):
        table = frame.reset_index()
    else:
        import pyarrow as pa

        table = pa.table(frame).to_pandas(types_mapper=pd.ArrowDtype)  # NumPy would make floats of missing integers
    return table.to_csv(index=False, lineterminator="\n").encode("utf-8", "backslashreplace")
