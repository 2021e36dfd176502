"""A DataFrame or an Arrow table as an input: CSV text that the client keeps until the run writes it to its folder."""

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from .. import storage
from ..errors import SourceError, UsageError
from .blocks import Marks
from .borders import Piece
from .csv_files import CsvFile
from .layouts import HEAD_BYTES, Layout, read_header
from .tables import as_text, csv_of, nested_column

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class FrameInput(CsvFile):
    """The rows of a frame as CSV. The text is not a field and is not pickled, so it does not travel with tasks."""

    rows: int = 0

    @classmethod
    def of(cls, frame: Any, layout: Layout, copies: str) -> tuple[Self, tuple]:
        """Return the input and its columns. `frame` is a pandas DataFrame, or has an Arrow C stream.

        Raise UsageError for values that are not written completely as text.
        """
        table = _table(frame)
        with as_text("The DataFrame"):
            text = csv_of(table)
        digest = hashlib.sha256(text).hexdigest()
        file = cls("DataFrame", len(text), digest, storage.join(copies, f"00000-{digest[:12]}.csv"), rows=len(table))
        start, columns = read_header(text[:HEAD_BYTES], layout, file.url)
        file = replace(file, data_start=start)
        object.__setattr__(file, "_text", text)
        return file, columns

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_text"}

    @property
    def text(self) -> bytes:
        """The rows as CSV, with a header."""
        if "_text" not in vars(self):
            raise SourceError(
                "The rows of the DataFrame are not here: its plan was copied or pickled.",
                "Make the plan again where the DataFrame is.",
            )
        return vars(self)["_text"]

    @property
    def is_stored(self) -> bool:
        """False: the client has the rows."""
        return False

    @property
    def known_rows(self) -> int:
        """The number of rows."""
        return self.rows

    @property
    def words(self) -> str:
        """Its size, for messages."""
        return f"a DataFrame of {self.rows:,} rows"

    @property
    def needs_copy(self) -> bool:
        """True: workers cannot read the rows from anywhere else."""
        return True

    @property
    def copied_by_client(self) -> bool:
        """True: only the client has the rows."""
        return True

    def _head(self) -> tuple[bytes, bool]:
        return self.text[:HEAD_BYTES], len(self.text) <= HEAD_BYTES

    def with_copy_in(self, folder: str) -> Self:
        """Return this input, with its text, and with its copy in another folder."""
        moved = replace(self, data_url=storage.join(folder, self.data_url.rpartition("/")[2]))
        object.__setattr__(moved, "_text", self.text)
        return moved

    def write_copy(self, layout: Layout, rows: int | None = None) -> int:
        """Write the rows to the run's folder, and return their size in bytes."""
        storage.write(self.data_url, self.text)
        return len(self.text)

    def marks(self, pieces: list[Piece]) -> Marks:
        """Join the marks of the pieces. Raise SourceError if the text has other rows than the frame."""
        marks = super().marks(pieces)
        if self.data_size == self.size and marks.rows[-1] != self.rows:  # else only its beginning was surveyed
            raise SourceError(
                f"The DataFrame has {self.rows:,} rows, but {marks.rows[-1]:,} as CSV.",
                "This is a defect of dask-classify: report it. Write the DataFrame to a file and use that instead.",
            )
        return marks

    def _check_unchanged(self) -> None:
        if storage.identity(self.data_url).size != self.data_size:
            raise self._changed()

    def _changed(self) -> SourceError:
        return SourceError(f"{self.data_url} has changed since the run began.", "Start over with --overwrite.")


def is_frame(value: object) -> bool:
    """Return whether a value is a pandas DataFrame, or a table with Arrow's C stream, such as pyarrow's or polars'."""
    return hasattr(value, "__arrow_c_stream__") and hasattr(value, "columns")


def _table(frame: Any) -> "pd.DataFrame":
    """The rows as a DataFrame without an index: of pandas' frames, the index becomes the first column."""
    import pandas as pd

    if isinstance(frame, pd.DataFrame):
        flat = frame if frame.columns.nlevels == 1 else frame.set_axis(list(map(str, frame.columns)), axis=1)
        try:
            table = flat.reset_index()
        except ValueError as error:
            raise UsageError(
                f"The index and a column of the DataFrame have the same name: {error}.",
                "Rename the index: df.rename_axis('id').",
            ) from error
    else:
        import pyarrow as pa

        table = pa.table(frame).to_pandas(types_mapper=pd.ArrowDtype)  # NumPy would make floats of missing integers
    if (name := nested_column(table)) is not None:
        raise UsageError(
            f"The column {name!r} of the DataFrame contains lists, bytes or other nested values.",
            "Convert them to text, for example with json.dumps.",
        )
    return table
