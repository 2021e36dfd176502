"""Reading a finished run: head, to_pandas, to_dask, quarantined, fetch, verify."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .. import storage, templating
from ..errors import DamagedRun, StorageError
from ..parts.columns import Columns
from ..parts.formats import CSV, CSV_GZ, FORMATS
from ..parts.part_format import PartFormat
from ..parts.receipts import Receipt
from ..parts.run_folder import MANIFEST, MISSING, PLAN, REPORT, RunFolder, part_name, quarantine_name
from ..rows.borders import scan_part
from .fetching import fetch
from .manifest import Manifest
from .verify import Verified, check_bytes, missing, verify
from .writing import write_rows

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd

_AT_ONCE = 8  # parts read at the same time


def open_run(output: str | Path) -> "Result":
    """Open a finished run.

    Parameters
    ----------
    output : str or Path
        Folder or s3:// URL of the run.

    Returns
    -------
    Result
        The complete run.

    Raises
    ------
    DamagedRun
        There is no complete run.

    Examples
    --------
    >>> dc.open_run("runs/today").head()  # doctest: +SKIP
    """
    folder = RunFolder(storage.absolute(str(output)))
    if not folder.exists(MANIFEST):
        if folder.exists(PLAN):
            raise DamagedRun(
                f"The run in {folder} is not complete.", "Finish it: repeat the command of the run, with --resume."
            )
        raise DamagedRun(f"There is no run in {folder}.", "A run's folder has a manifest.json.")
    return Result(folder.url, Manifest(folder.read_json(MANIFEST)))


class Result:
    """A complete run, from `run`, `classify` or `open_run`.

    Attributes
    ----------
    output : str
        Folder or URL of the run.
    manifest : Manifest
        What manifest.json holds.
    folder : RunFolder
        The run's files by their names.
    """

    def __init__(self, output: str, manifest: Manifest):
        self.output: str = output
        self.manifest: Manifest = manifest
        self.folder: RunFolder = RunFolder(output)

    def __repr__(self) -> str:
        holes = f", {self.manifest['rows_missing']:,} rows missing" if self.partial else ""
        counts = f"{self.rows:,} rows, {self.bad_rows:,} bad rows, {len(self.receipts):,} parts"
        return f"<Result: {counts} in {self.output}{holes}>"

    def _repr_html_(self) -> str:
        places = {"output": self.output, "report": self.report}
        return templating.table("Result", {**self.words, "columns": ", ".join(self.columns), **places})

    @property
    def report(self) -> str:
        """Path or URL of report.html, the page for people."""
        return self.folder.path(REPORT)

    @property
    def words(self) -> dict[str, str]:
        """Counts of rows and parts, formatted for people."""
        return self.manifest.words

    @property
    def rows(self) -> int:
        """Number of rows in the parts."""
        return self.manifest["rows_out"]

    @property
    def bad_rows(self) -> int:
        """Number of quarantined rows."""
        return self.manifest["bad_rows"]

    @property
    def partial(self) -> bool:
        """Whether rows are missing, because the time was over: missing.json names them, and `resume` adds them."""
        return self.manifest.get("partial", False)

    @property
    def missing(self) -> list[dict[str, Any]]:
        """The rows that a partial run does not have: file, first_row and last_row (from 1), rows."""
        return self.folder.read_json(MISSING)["holes"] if self.partial else []

    @property
    def columns(self) -> list[str]:
        """Names of the parts' columns, the index first."""
        return self.manifest["columns"]

    @property
    def receipts(self) -> list[Receipt]:
        """The receipts of all parts, in order."""
        return [Receipt.of(fields) for fields in self.manifest["parts"]]

    @property
    def new_receipts(self) -> list[Receipt]:
        """The receipts of the last attempt, without those that `resume` found done."""
        resumed = set(self.manifest.get("resumed", ()))
        return [receipt for receipt in self.receipts if receipt.index not in resumed]

    @property
    def part_format(self) -> PartFormat:
        """How the parts are stored."""
        return FORMATS[self.manifest["output_format"]]

    def urls(self, receipts: list[Receipt] | None = None) -> list[str]:
        """Return the paths or URLs of parts.

        Parameters
        ----------
        receipts : list of Receipt, optional
            Of which parts. Default: all, in order.

        Returns
        -------
        list of str
            One for each receipt.
        """
        some = self.receipts if receipts is None else receipts
        return [self.folder.path(part_name(receipt.index, self.part_format.name)) for receipt in some]

    # reading

    def head(self, rows: int = 5) -> "pd.DataFrame":
        """Return the first rows, without reading more parts than that takes.

        Parameters
        ----------
        rows : int
            Number of rows.

        Returns
        -------
        pandas.DataFrame
            The rows, indexed by the source's first column.
        """
        frames, count = [], 0
        for frame in self._frames():
            frames.append(frame)
            count += len(frame)
            if count >= rows:
                break
        return self._concat(frames).head(rows)

    def to_pandas(self, *, convert: bool = False, dtype: "Mapping[str, Any] | None" = None) -> "pd.DataFrame":
        """Return all rows, in order, in memory; columns that were text for the classifier are text.

        Parameters
        ----------
        convert : bool
            Make numbers of text columns in which every value is a number or empty, and none has leading zeros; empty
            values become NaN.
        dtype : mapping of str to dtype, optional
            Types of columns, such as {"price": "float64", "when": "datetime64[us]"}. Empty values become missing.

        Returns
        -------
        pandas.DataFrame
            One row per row of the parts, indexed by the source's first column.

        Raises
        ------
        UsageError
            A column does not exist, or its values do not fit the type.
        """
        from .frames import with_types

        return with_types(self._concat(list(self._frames())), convert, dtype or {})

    def to_dask(self) -> "dd.DataFrame":
        """Return all rows as a Dask DataFrame.

        Returns
        -------
        dask.dataframe.DataFrame
            One partition for each part, read when needed.
        """
        import dask.dataframe as dd  # slow to import, and few need it

        receipts = [receipt for receipt in self.receipts if receipt.rows]
        if not receipts:
            return dd.from_pandas(self._columns.empty(), npartitions=1)
        return dd.from_map(self.part, receipts, meta=self.part(receipts[0]).iloc[:0])

    def first_lines(self, rows: int) -> str:
        """Return the columns' names and the first rows as CSV.

        Parameters
        ----------
        rows : int
            Number of rows.

        Returns
        -------
        str
            A header line and the rows.
        """
        lines = [CSV.header(self.columns).decode()]
        for receipt in self.receipts:
            if receipt.rows:
                text = self.part_format.text(self.stored(receipt), header=self.begins_with_names(receipt))
                starts = [*scan_part(text).tolist(), len(text)]
                stop = min(rows, len(starts) - 1)
                lines.append(text[: starts[stop]].decode())
                rows -= stop
            if rows <= 0:
                break
        return "".join(lines)

    def begins_with_names(self, receipt: Receipt) -> bool:
        """Whether a part begins with a line of the columns' names."""
        return bool(self.manifest["header"] and receipt.index == 0 and receipt.rows)

    @property
    def _columns(self) -> Columns:
        return Columns(tuple(self.columns), self.manifest["kinds"])

    def _frames(self) -> Iterator["pd.DataFrame"]:
        return (self.part(receipt) for receipt in self.receipts if receipt.rows)

    def part(self, receipt: Receipt) -> "pd.DataFrame":
        """Return the rows of one part.

        Parameters
        ----------
        receipt : Receipt
            The part's receipt.

        Returns
        -------
        pandas.DataFrame
            The rows, indexed by the source's first column.
        """
        header = self.begins_with_names(receipt)
        frame = self.part_format.read(self.stored(receipt), self._columns, header=header)
        return frame.set_index(frame.columns[0])

    def _concat(self, frames: list["pd.DataFrame"]) -> "pd.DataFrame":
        import pandas as pd

        return pd.concat(frames) if frames else self._columns.empty()

    def quarantined(self) -> "pd.DataFrame":
        """Return the bad rows.

        Returns
        -------
        pandas.DataFrame
            Columns `source` (URL), `row` (number in the source, from 1), `reason` and `raw` (the row's text).
        """
        from .frames import read_quarantine

        names = [quarantine_name(receipt.index) for receipt in self.receipts if receipt.bad_rows]
        return read_quarantine(b"".join(map(CSV_GZ.content, self.folder.read_many(names))))

    # fetching

    def fetch(self, file: str | Path, *, header: bool = True) -> int:
        """Write all rows, in order, to one file.

        Parameters
        ----------
        file : str or Path
            Path or URL. The suffix sets the format: .gz and .zst are compressed CSV, .jsonl.gz JSON Lines, .parquet
            Parquet. Suffixes of other formats are refused; any other name is plain CSV.
        header : bool
            Whether CSV begins with a line of the columns' names.

        Returns
        -------
        int
            Size of the file in bytes.

        Notes
        -----
        If it is interrupted, and the file is local and has the format of the parts, the next call for the same file
        goes on where it was.
        """
        return fetch(self, str(file), header=header)

    def write_to(self, stream: BinaryIO, name: str = "", *, header: bool | None = None) -> None:
        """Write all rows, in order, to a binary stream.

        Parameters
        ----------
        stream : binary file
            Where to write.
        name : str
            A file name, whose suffix sets the format as in `fetch`.
        header : bool, optional
            Whether CSV begins with a line of the columns' names. Default: as in the run's first part.
        """
        write_rows(self, stream, name, header=header)

    def read_ahead(
        self, read: Callable[[Receipt], bytes], receipts: Sequence[Receipt] | None = None
    ) -> Iterator[bytes]:
        """Yield what `read` gives for each receipt, or for some of them, in order.

        A few are read at the same time, and no more are in memory.
        """
        receipts = self.receipts if receipts is None else receipts
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for first in range(0, len(receipts), _AT_ONCE):
                yield from pool.map(read, receipts[first : first + _AT_ONCE])

    def stored(self, receipt: Receipt) -> bytes:
        """Return the bytes of a part as its receipt has them. Raises DamagedRun where they differ or are missing."""
        name = part_name(receipt.index, self.part_format.name)
        try:
            data = self.folder.read(name)
        except StorageError as error:
            if self.folder.exists(name):
                raise
            raise missing(name, self.output) from error
        check_bytes(data, receipt.bytes, receipt.sha256, name)
        return data

    # verifying

    def verify(self) -> Verified:
        """Read every part again and prove the manifest: sizes, digests, row counts, no part missing or extra.

        Returns
        -------
        Verified
            Counts, and a digest of all rows.

        Raises
        ------
        DamagedRun
            The first thing that is wrong.
        """
        return verify(self)
