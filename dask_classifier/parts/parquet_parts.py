"""Parts as Parquet files, with the types of the classifier's answers."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

from ..errors import WrongAnswer
from .part_format import PartFormat

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ..rows.chunks import Parsed
    from .columns import Columns


_MOST_NESTED = 1000  # characters of a value


class ParquetParts(PartFormat):
    """Parquet, compressed with zstd."""

    name = "parquet"
    joins = False

    def encode(self, frames: "list[pd.DataFrame]", parsed: "Parsed | None", *, header: bool) -> bytes:
        """Return one Parquet file. Raise WrongAnswer if a column has values of several types."""
        import pandas as pd
        import pyarrow as pa
        import pyarrow.parquet as pq

        from .nested import readable

        frame = pd.concat(frames) if frames else pd.DataFrame()
        try:
            table = pa.Table.from_pandas(frame.reset_index() if len(frame) else frame, preserve_index=False)
        except (pa.ArrowException, ValueError, TypeError) as error:
            raise WrongAnswer(
                f"it cannot be stored as Parquet: {error.args[0]}",
                "Return one type per column, or use --output-format csv.gz.",
            ) from error
        table = table.replace_schema_metadata(readable(table.schema).metadata)
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        return buffer.getvalue()

    def rows(self, data: bytes, *, header: bool) -> int:
        """Return the number of rows in the footer."""
        import pyarrow.parquet as pq

        return pq.read_metadata(io.BytesIO(data)).num_rows

    def content(self, data: bytes) -> bytes:
        """Return the stored part."""
        return data

    def text(self, data: bytes, *, header: bool) -> bytes:
        """Return the rows as pandas writes them to CSV, but nested values as Python writes them."""
        from ..rows.tables import with_objects

        return with_objects(self._frame(data)).to_csv(index=False, header=False, lineterminator="\n").encode()

    def read(self, data: bytes, columns: "Columns", *, header: bool) -> "pd.DataFrame":
        """Read the rows with the types stored in Parquet."""
        return self._frame(data)

    @staticmethod
    def _frame(data: bytes) -> "pd.DataFrame":
        from .nested import to_pandas

        return to_pandas(table_of(data))

    def first_values(
        self, url: str, size: int, names: Sequence[str], places: Sequence[int], most: int, *, header: bool
    ) -> dict[int, list[str]]:
        """Read the footer, and these columns of the first row group; missing values become empty texts."""
        from .. import storage

        wanted = [names[place] for place in places]
        with storage.open_ranged(url) as stream:
            batches = _opened(stream).iter_batches(most, row_groups=[0], columns=wanted, use_threads=False)
            batch = next(batches, None)
        return {place: _texts(batch.column(name)) if batch else [] for place, name in zip(places, wanted, strict=True)}


def _texts(column: "pa.Array") -> list[str]:
    """Return values as text, as Arrow writes it where Python has no such values, as dates after the year 9999.

    Nested values are cut off; those of which neither has a text are empty.
    """
    import pyarrow as pa

    from ..rows.tables import is_nested

    try:
        values = column.to_pylist()
    except (ValueError, OverflowError):
        try:
            values = column.cast("string").to_pylist()
        except pa.ArrowException:
            values = [None] * len(column)
    most = _MOST_NESTED if is_nested(column.type) else None
    return ["" if value is None or value != value else str(value)[:most] for value in values]  # NaN is not NaN


def table_of(data: bytes) -> "pa.Table":
    """Return the rows of a Parquet file, with metadata that pandas can read."""
    from .nested import readable

    table = _opened(io.BytesIO(data)).read(use_threads=False)
    return table.replace_schema_metadata(readable(table.schema).metadata)


def _opened(stream: BinaryIO) -> "pq.ParquetFile":
    """Open a Parquet file without the threads that read ahead.

    They hold `stream` for some milliseconds longer than is needed. If the interpreter ends meanwhile, Arrow aborts the
    process, or waits without end (apache/arrow, issues 33975 and 50482).
    """
    import pyarrow.parquet as pq

    return pq.ParquetFile(stream, pre_buffer=False)
