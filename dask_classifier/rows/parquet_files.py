"""Parquet files as inputs. A classifier gets their values as text, as pandas writes them to CSV, or with their types.

The footer says how many rows each row group has, so nothing needs to be searched. A row group can only be read from its
start, but not all of it has to be in memory.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from .. import storage
from ..errors import SourceError, StorageError, UsageError
from .blocks import Marks, Span
from .borders import Rows
from .layouts import Layout, check_wanted
from .source import InputFile, StoredFile, Surveyed
from .tables import as_text, csv_of, nested_column

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

_MARK_BYTES = 2**18  # between marks, as if rows were of equal length
_BATCH_ROWS = 8192  # decoded at a time
_READ_BYTES = 2**20  # of a column, read from a disk at a time
_UNNAMED = "__index_level_"  # the beginning of the names that pandas gives to an index without one


@dataclass(frozen=True)
class ParquetFile(StoredFile):
    """A Parquet file: its name and version, and how many rows it has."""

    url: str
    size: int
    version: str
    data_rows: int | None = None  # None until the footer was read
    data_types: tuple[str, ...] = ()  # Arrow's, of the columns that the classifier gets, if it gets types

    @classmethod
    def accepts(cls, url: str) -> bool:
        """Return whether the name ends with .parquet or .pq."""
        return url.lower().endswith((".parquet", ".pq"))

    @classmethod
    def found(cls, url: str, identity: storage.Identity, layout: Layout, copies: str) -> Self:
        """Return a file that is not inspected."""
        return cls(url, identity.size, identity.version)

    @property
    def is_inspected(self) -> bool:
        """Whether the footer was read."""
        return self.data_rows is not None

    @property
    def known_rows(self) -> int | None:
        """The number of rows in the footer, if it was read."""
        return self.data_rows

    def inspect(self, layout: Layout) -> tuple[Self, tuple]:
        """Read the footer."""
        with self._opened() as parquet:
            return self._inspected(parquet, layout)

    def _inspected(self, parquet: "pq.ParquetFile", layout: Layout) -> tuple[Self, tuple]:
        stored = dict(_columns(parquet))
        if len(stored) < len(parquet.schema_arrow.names):
            raise SourceError(f"{self.url} has two columns of the same name.", "Rename one of them.")
        check_wanted(layout, tuple(stored), self.url)
        columns = layout.wanted or tuple(stored)
        types = tuple(str(parquet.schema_arrow.field(stored[name]).type) for name in columns) if layout.typed else ()
        return replace(self, data_rows=parquet.metadata.num_rows, data_types=types), columns

    def fits(self, first: InputFile, expected: tuple, columns: tuple) -> bool:
        """Return whether names and, if the classifier gets them, types of the columns are the same."""
        return columns == expected and (not isinstance(first, ParquetFile) or first.data_types == self.data_types)

    def header(self, columns: tuple) -> str:
        """Return the columns with their types, if these matter."""
        if not self.data_types:
            return super().header(columns)
        return ",".join(f"{name} {kind}" for name, kind in zip(columns, self.data_types, strict=True))

    @contextmanager
    def _opened(self) -> "Iterator[pq.ParquetFile]":
        """Open the file. Columns come from a disk in pieces, read by this thread, and as a whole from a bucket.

        Whole columns take as many bytes as they have in the row group, and threads that read them may still hold the
        stream when the interpreter ends, which they abort. But a request for each piece would be slow.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        ahead = not storage.is_local(self.url)
        with storage.open_ranged(self.url) as stream:
            try:
                yield pq.ParquetFile(stream, pre_buffer=ahead, buffer_size=0 if ahead else _READ_BYTES)
            except StorageError:  # which is an OSError, but says nothing of the file
                raise
            except (pa.ArrowException, OSError, EOFError) as error:
                raise SourceError(
                    f"{self.url} cannot be read as Parquet: {str(error).rstrip('.')}.",
                    "Check that the file is complete.",
                ) from error

    def layout_of_rows(self, layout: Layout) -> Layout:
        """Return the format of the text that `read` makes."""
        return replace(layout, delimiter=",", encoding="utf-8", wanted=())

    def first_rows(self, rows: int, layout: Layout) -> "Rows | pd.DataFrame":
        """Return the first rows."""
        return self.read(Span(min(rows, self.data_rows or 0)), self.layout_of_rows(layout))

    # the survey

    def pieces(self) -> list[int]:
        """Return a single piece: the footer has all that is needed."""
        return [0]

    def survey(self, start: int, layout: Layout) -> Surveyed:
        """Read the footer: a mark about every _MARK_BYTES of each row group."""
        with self._opened() as parquet:
            file, columns = self._inspected(parquet, layout)
            if not file.data_rows:
                self._check_unchanged()  # no block would notice it
            return Surveyed(_marks(parquet, layout.wanted), None if self.is_inspected else file, columns)

    def marks(self, pieces: list[Marks]) -> Marks:
        """Return the marks of the footer."""
        return pieces[0]

    # reading

    def read(self, span: Span, layout: Layout) -> "Rows | pd.DataFrame":
        """Return the rows of a span: as CSV or, with `layout.typed`, as a frame with Arrow's types."""
        import pandas as pd

        try:
            with self._opened() as parquet:
                table = _rows(parquet, span, layout.columns)
        finally:
            self._check_unchanged()  # afterwards: it may change while it is read
        if layout.typed:
            frame = table.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True, use_threads=False)
            frame.columns = list(layout.columns)
            from .chunks import indexed  # imports pandas

            return indexed(frame, layout)
        with as_text(self.url):
            frame = table.to_pandas(types_mapper=_type_for_text, ignore_metadata=True, use_threads=False)
            frame.columns = list(layout.columns)
            if (name := nested_column(frame)) is not None:
                raise UsageError(
                    f"The column {name!r} of {self.url} contains lists, bytes or other nested values.",
                    "Leave it out with --columns, or give the classifier the types of the file: --typed.",
                )
            return Rows.of(csv_of(frame, header=False), ",")


def _type_for_text(kind: "pa.DataType") -> "pd.ArrowDtype | None":
    """Return Arrow's type, or None for pandas' own: that of floats, whose NaN is a missing value."""
    import pandas as pd
    import pyarrow as pa

    return None if pa.types.is_floating(kind) else pd.ArrowDtype(kind)


def _columns(parquet: "pq.ParquetFile") -> list[tuple[str, str]]:
    """Return the columns' names, as given to classifiers and as stored; those of a pandas index come first."""
    stored = list(parquet.schema_arrow.names)
    index = (parquet.schema_arrow.pandas_metadata or {}).get("index_columns", [])
    first = [name for name in index if isinstance(name, str) and name in stored]
    return [(_name(name, stored), name) for name in [*first, *(name for name in stored if name not in first)]]


def _name(name: str, stored: list[str]) -> str:
    """Return the name of a column; of an index without one, "index", as pandas does, if nothing else has that name."""
    is_single = sum(other.startswith(_UNNAMED) for other in stored) == 1 and "index" not in stored
    return "index" if name.startswith(_UNNAMED) and is_single else name


def _marks(parquet: "pq.ParquetFile", wanted: tuple[str, ...]) -> Marks:
    """Return marks as in a file in which rows have the mean length of their row group."""
    offsets, rows, size, count = [], [], 0, 0
    paths = [parquet.schema.column(place).path for place in range(len(parquet.schema))]
    places = [place for place, path in enumerate(paths) if not wanted or _is_of(path, wanted)]
    for number in range(parquet.metadata.num_row_groups):
        group = parquet.metadata.row_group(number)
        group_bytes = sum(group.column(place).total_uncompressed_size for place in places)
        steps = max(1, min(group.num_rows, group_bytes // _MARK_BYTES))
        offsets += [size + group_bytes * step // steps for step in range(steps)]
        rows += [count + group.num_rows * step // steps for step in range(steps)]
        size, count = size + group_bytes, count + group.num_rows
    return Marks((*offsets, size), (*rows, count))


def _is_of(path: str, wanted: tuple[str, ...]) -> bool:
    """Whether a stored column belongs to one of these; both may have dots in their names."""
    return any(path == name or path.startswith(f"{name}.") for name in wanted)


def _rows(parquet: "pq.ParquetFile", span: Span, columns: tuple) -> "pa.Table":
    """Return the rows of a span, in columns with these names, decoding no more than what stands before them."""
    import pyarrow as pa

    stored = dict(_columns(parquet))
    names = [stored[name] for name in columns]
    counts = [parquet.metadata.row_group(number).num_rows for number in range(parquet.metadata.num_row_groups)]
    starts = [0, *itertools.accumulate(counts)]
    stop = span.first_row + span.rows
    groups = [n for n, count in enumerate(counts) if starts[n] < stop and starts[n] + count > span.first_row]
    batches, place = [], starts[groups[0]] if groups else 0
    decoded = parquet.iter_batches(_BATCH_ROWS, row_groups=groups, columns=names, use_threads=False) if groups else ()
    for batch in decoded:
        first, last = max(span.first_row - place, 0), min(stop - place, batch.num_rows)
        if first < last:
            batches.append(batch.slice(first, last - first))
        place += batch.num_rows
        if place >= stop:
            break
    table = pa.Table.from_batches(batches) if batches else parquet.schema_arrow.empty_table()
    return _plain(table.select(names))


def _plain(table: "pa.Table") -> "pa.Table":
    """Return a table in which categories are values: their codes depend on how the file was cut."""
    import pyarrow as pa

    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(field.type.value_type))
    return table
