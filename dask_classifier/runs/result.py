"""Reading a finished run: head, to_pandas, to_dask, quarantined, fetch, verify."""

import csv
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .. import storage, templating
from ..errors import DamagedRun, StorageError, UsageError
from ..parts.formats import gzip_member, unpacked, zstd_frame
from ..parts.receipts import Receipt, part_name, quarantine_name, receipt_name
from ..rows.borders import count_rows, scan_part
from ..units import format_bytes
from .run_folder import MANIFEST, PLAN, REPORT, Manifest, is_ours, read_json

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd

    from .frames import Shape

# suffixes that promise another format than those that `fetch` writes
_NOT_WRITTEN = {"bz2", "xz", "zip", "7z", "lz4", "tsv", "tab", "json", "jsonl", "ndjson", "xls", "xlsx", "ods"}
_NOT_WRITTEN |= {"feather", "arrow", "ipc", "orc", "avro", "pkl", "pickle", "h5", "hdf5", "sqlite", "db", "html", "xml"}
_AT_ONCE = 8  # parts read at the same time
_DO_IT_AGAIN = "Delete that file, and give the run's command with --resume."


@dataclass(frozen=True)
class Verified:
    """What `verify` has found to be true."""

    parts: int
    rows: int
    bad_rows: int
    bytes: int
    #: SHA-256 in hex of all parts, decompressed, in order: what `zcat parts/*.csv.gz | sha256sum` prints; of Parquet
    #: parts, as they are stored, so it depends on the number of parts, too
    sha256: str

    def _repr_html_(self) -> str:
        counts = {"parts": f"{self.parts:,}", "rows": f"{self.rows:,}", "bad rows": f"{self.bad_rows:,}"}
        return templating.table(
            "Verified", counts | {"size": format_bytes(self.bytes), "SHA-256 of all rows": self.sha256}
        )


def open_run(output: str | Path) -> "Result":
    """The result in a run's folder or s3:// URL. Raises DamagedRun where there is no complete run."""
    output = storage.absolute(str(output))
    if not storage.exists(storage.join(output, MANIFEST)):
        if storage.exists(storage.join(output, PLAN)):
            raise DamagedRun(f"The run in {output} is not complete.", "Finish it: give the same command with --resume.")
        raise DamagedRun(f"There is no run in {output}.", "A run's folder has a manifest.json.")
    return Result(output, Manifest(read_json(output, MANIFEST)))


class Result:
    """A complete run, as `run` and `open_run` give it. `output` is its folder, `manifest` what manifest.json holds."""

    def __init__(self, output: str, manifest: Manifest):
        self.output: str = output
        self.manifest: Manifest = manifest

    def __repr__(self) -> str:
        return (
            f"<Result: {self.rows:,} rows, {self.bad_rows:,} bad rows, {len(self.receipts):,} parts in {self.output}>"
        )

    def _repr_html_(self) -> str:
        places = {"output": self.output, "report": self.report}
        return templating.table("Result", {**self.words, "columns": ", ".join(self.columns), **places})

    @property
    def report(self) -> str:
        """Where report.html is, the page for people: a path, or an s3:// URL."""
        return self._url(REPORT)

    @property
    def words(self) -> dict[str, str]:
        """Rows in, out and set aside, and parts, for people."""
        return self.manifest.words

    @property
    def rows(self) -> int:
        """Rows in the parts."""
        return self.manifest["rows_out"]

    @property
    def bad_rows(self) -> int:
        """Rows set aside."""
        return self.manifest["bad_rows"]

    @property
    def columns(self) -> list[str]:
        """The parts' columns, the index first."""
        return self.manifest["columns"]

    @property
    def receipts(self) -> list[Receipt]:
        """The receipts of all parts, in order."""
        return [Receipt.of(fields) for fields in self.manifest["parts"]]

    @property
    def new_receipts(self) -> list[Receipt]:
        """Those of the last attempt, which `resume` has not found done."""
        resumed = set(self.manifest.get("resumed", ()))
        return [receipt for receipt in self.receipts if receipt.index not in resumed]

    @property
    def _format(self) -> str:
        return self.manifest["output_format"]

    def urls(self, receipts: list[Receipt] | None = None) -> list[str]:
        """Where the parts are, in order: all, or those of some receipts."""
        some = self.receipts if receipts is None else receipts
        return [self._url(part_name(receipt.index, self._format)) for receipt in some]

    def _url(self, name: str) -> str:
        return storage.join(self.output, name)

    # reading

    def head(self, rows: int = 5) -> "pd.DataFrame":
        """The first rows, without reading more parts than that takes."""
        frames, count = [], 0
        for frame in self._frames():
            frames.append(frame)
            count += len(frame)
            if count >= rows:
                break
        return self._concat(frames).head(rows)

    def to_pandas(self, *, convert: bool = False, dtype: "Mapping[str, Any] | None" = None) -> "pd.DataFrame":
        """Return all rows, in order, in memory; the source's columns are text unless you ask for other types.

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
        """All rows as a Dask DataFrame with one partition for each part, read when needed."""
        import dask.dataframe as dd  # slow to import, and few need it

        receipts = [receipt for receipt in self.receipts if receipt.rows]
        if not receipts:
            return dd.from_pandas(self._shape().empty(), npartitions=1)
        return dd.from_map(self.part, receipts, meta=self.part(receipts[0]).iloc[:0])

    def first_lines(self, rows: int) -> str:
        """The columns' names and the first rows, as CSV."""
        if self._format == "parquet":
            return self.head(rows).to_csv(lineterminator="\n")
        lines = [self._header_line()]
        for receipt in self.receipts:
            if receipt.rows:
                text = unpacked(self._stored(receipt), self._format)
                starts = [*scan_part(text).tolist(), len(text)]
                header = self._has_header(receipt)
                stop = min(header + rows, len(starts) - 1)
                lines.append(text[starts[header] : starts[stop]].decode())
                rows -= stop - header
            if rows <= 0:
                break
        return "".join(lines)

    def _has_header(self, receipt: Receipt) -> bool:
        return bool(self.manifest["header"] and receipt.index == 0 and receipt.rows)

    def _shape(self) -> "Shape":
        from .frames import Shape  # imports pandas, which most commands do without

        return Shape(tuple(self.columns), self.manifest["kinds"], self._format)

    def _frames(self) -> Iterator["pd.DataFrame"]:
        return (self.part(receipt) for receipt in self.receipts if receipt.rows)

    def part(self, receipt: Receipt) -> "pd.DataFrame":
        """The rows of one part."""
        data = self._stored(receipt)
        return self._shape().read(data, header=self._has_header(receipt))

    def _concat(self, frames: list["pd.DataFrame"]) -> "pd.DataFrame":
        import pandas as pd

        return pd.concat(frames) if frames else self._shape().empty()

    def quarantined(self) -> "pd.DataFrame":
        """The bad rows: source, row (its number in the source, from 1), reason, raw (its text)."""
        from .frames import read_quarantine

        names = [self._url(quarantine_name(receipt.index)) for receipt in self.receipts if receipt.bad_rows]
        return read_quarantine(b"".join(unpacked(data, "csv.gz") for data in storage.read_many(names)))

    # fetching

    def fetch(self, file: str | Path, *, header: bool = True) -> int:
        """Write all rows, in order, to one file.

        Parameters
        ----------
        file : str or Path
            Path or URL. The suffix sets the format: .gz and .zst are compressed CSV, .parquet is Parquet. Suffixes of
            other formats are refused; any other name is plain CSV.
        header : bool
            Whether CSV begins with a line of the columns' names.

        Returns
        -------
        int
            Size of the file in bytes.
        """
        with storage.open_whole(storage.absolute(str(file))) as stream:
            self.write_to(stream, str(file), header=header)
            return stream.tell()

    def write_to(self, stream: BinaryIO, name: str = "", *, header: bool | None = None) -> None:
        """Write all rows, in order, to a binary stream, in the format that the suffix of `name` sets.

        By default, CSV has a header line where the run's first part was to have one.
        """
        wanted = _format_of(name)
        if wanted == "parquet":
            from .frames import write_parquet

            write_parquet(stream, self._frames())
            return
        compress = {"gz": gzip_member, "zst": zstd_frame}.get(wanted, bytes)
        header = self.manifest["header"] if header is None else header
        if header and self.columns:  # a run without rows has none
            stream.write(compress(self._header_line().encode()))
        for member in self._members(f"csv.{wanted}", compress):
            stream.write(member)

    def _header_line(self) -> str:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(self.columns)
        return line.getvalue()

    def _members(self, wanted: str, compress: Callable[[bytes], bytes]) -> Iterator[bytes]:
        """The rows of each part, in order, without a header, in a CSV format: its compressed members joined are one
        valid file, so those of the run's own format are copied as they are.
        """
        for receipt, data in zip(self.receipts, self._parts(), strict=True):
            if self._format == wanted and not self._has_header(receipt):
                yield data
            elif receipt.rows:
                yield compress(self._text(receipt, data))

    def _text(self, receipt: Receipt, data: bytes) -> bytes:
        """The rows of a part as CSV, without a header."""
        if self._format == "parquet":
            from .frames import parquet_text

            return parquet_text(data)
        text = unpacked(data, self._format)
        if not self._has_header(receipt):
            return text
        starts = scan_part(text)
        return text[starts[1] :] if len(starts) > 1 else b""

    def _parts(self) -> Iterator[bytes]:
        """The stored bytes of each part, in order, read some ahead."""
        yield from _ahead(self._stored, self.receipts)

    def _stored(self, receipt: Receipt) -> bytes:
        """The bytes of a part as its receipt has them. Raises DamagedRun where they are others, or not there."""
        name = part_name(receipt.index, self._format)
        try:
            data = storage.read(self._url(name))
        except StorageError as error:
            if storage.exists(self._url(name)):
                raise
            raise _missing(name, self.output) from error
        _verify_bytes(data, receipt.bytes, receipt.sha256, name)
        return data

    # verifying

    def verify(self) -> Verified:
        """Read every part again and prove the manifest: sizes, digests, rows, receipts, and that no other
        parts are there.

        Raises DamagedRun with the first thing that is wrong.
        """
        self._verify_sums()
        self._verify_names()
        digest = hashlib.sha256()
        receipts = self.receipts
        for _receipt, text in zip(receipts, _ahead(self._verified_text, receipts), strict=True):
            digest.update(text)
        return Verified(len(receipts), self.rows, self.bad_rows, self.manifest["bytes"], digest.hexdigest())

    def _verify_sums(self) -> None:
        receipts, blocks = self.receipts, read_json(self.output, PLAN)
        rows = sum(receipt.rows for receipt in receipts), sum(receipt.bad_rows for receipt in receipts)
        if rows != (self.rows, self.bad_rows) or sum(rows) != self.manifest["rows_in"] or sum(rows) != blocks["rows"]:
            raise DamagedRun(
                f"The receipts of {self.output} do not add up to the manifest's rows.", "Run it again with --overwrite."
            )
        if blocks["fingerprint"] != self.manifest["fingerprint"] or len(blocks["blocks"]) != len(receipts):
            raise DamagedRun(
                f"plan.json and manifest.json of {self.output} are of different runs.", "Run it again with --overwrite."
            )

    def _verify_names(self) -> None:
        expected = {name for receipt in self.receipts for name in self._names(receipt)}
        found = {
            name for name in storage.sizes(self.output) if name.startswith(("parts/", "quarantine/")) and is_ours(name)
        }
        wrong = sorted(found ^ expected)
        if wrong:
            if wrong[0] in expected:
                raise _missing(wrong[0], self.output)
            raise DamagedRun(f"{wrong[0]} of {self.output} does not belong to it.", "Delete that file.")

    def _names(self, receipt: Receipt) -> list[str]:
        names = [part_name(receipt.index, self._format), receipt_name(receipt.index)]
        return [*names, quarantine_name(receipt.index)] if receipt.bad_rows else names

    def _verified_text(self, receipt: Receipt) -> bytes:
        """The text of a part that is what its receipt says. Raises DamagedRun."""
        data = self._stored(receipt)
        if receipt.bad_rows:
            bad, name = storage.read(self._url(quarantine_name(receipt.index))), quarantine_name(receipt.index)
            _verify_bytes(bad, receipt.quarantine_bytes, receipt.quarantine_sha256, name)
            _verify_rows(count_rows(unpacked(bad, "csv.gz")), receipt.bad_rows, name)
        if self._format == "parquet":
            from .frames import parquet_rows

            _verify_rows(parquet_rows(data), receipt.rows, part_name(receipt.index, self._format))
            return data
        text = unpacked(data, self._format)
        _verify_rows(count_rows(text) - self._has_header(receipt), receipt.rows, part_name(receipt.index, self._format))
        return text


def _format_of(name: str) -> str:
    """Return "gz", "zst", "parquet" or "csv" by a file's suffixes. Raises UsageError for suffixes of other formats."""
    suffixes = name.lower().rpartition("/")[2].split(".")[1:]
    compressed = bool(suffixes) and suffixes[-1] in {"gz", "zst"}
    inner = suffixes[-2:-1] if compressed else suffixes[-1:]
    if inner and (inner[0] in _NOT_WRITTEN or (compressed and inner[0] == "parquet")):
        raise UsageError(
            f"{name} cannot be written: .{'.'.join(suffixes[-2 if compressed else -1 :])} is not among the formats.",
            "Choose .csv, .csv.gz, .csv.zst or .parquet.",
        )
    return suffixes[-1] if compressed or inner == ["parquet"] else "csv"


def _ahead(read, items: list) -> Iterator:
    """`read` of each item, in order, with a few being read at the same time and no more in memory."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for first in range(0, len(items), _AT_ONCE):
            yield from pool.map(read, items[first : first + _AT_ONCE])


def _missing(name: str, output: str) -> DamagedRun:
    return DamagedRun(f"{name} of {output} is missing.", "Give the run's command with --resume.")


def _verify_bytes(data: bytes, size: int, sha256: str, name: str) -> None:
    if len(data) != size or hashlib.sha256(data).hexdigest() != sha256:
        raise DamagedRun(f"{name} does not match its receipt (size or SHA-256).", _DO_IT_AGAIN)


def _verify_rows(found: int, expected: int, name: str) -> None:
    if found != expected:
        raise DamagedRun(f"{name} has {found:,} rows where its receipt says {expected:,}.", _DO_IT_AGAIN)
