"""Reading a finished run: head, to_pandas, to_dask, quarantined, fetch, verify."""

import hashlib
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from isal import igzip

from . import storage
from .borders import count_rows
from .errors import DamagedRun, UsageError
from .manifest import MANIFEST, PLAN, is_ours, read_json
from .parts import QUARANTINE_COLUMNS, Receipt, gzip_member, part_name, quarantine_name, receipt_name, zstd_frame
from .sources import READ_TEXT

_READ_PART = READ_TEXT | {"lineterminator": "\n"}  # a CR in a part is part of a value
_AT_ONCE = 8  # parts read at the same time


@dataclass(frozen=True)
class Verified:
    """What `verify` has found to be true."""

    parts: int
    rows: int
    bad_rows: int
    bytes: int
    sha256: str  # of all rows, decompressed, in order: what `zcat parts/*.csv.gz | sha256sum` prints


def open_run(output: str) -> "Result":
    """The result in a run's folder or s3:// URL. Raises DamagedRun where there is no complete run."""
    output = storage.absolute(str(output))
    if not storage.exists(storage.join(output, MANIFEST)):
        if storage.exists(storage.join(output, PLAN)):
            raise DamagedRun(f"The run in {output} is not complete.", "Finish it: give the same command with --resume.")
        raise DamagedRun(f"There is no run in {output}.", "A run's folder has a manifest.json.")
    return Result(output, read_json(output, MANIFEST))


class Result:
    """A complete run. `output` is its folder, `manifest` the contents of manifest.json."""

    def __init__(self, output: str, manifest: dict):
        self.output, self.manifest = output, manifest

    def __repr__(self):
        return (
            f"<Result: {self.rows:,} rows, {self.bad_rows:,} bad rows, {len(self.receipts):,} parts in {self.output}>"
        )

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
        return [Receipt(**fields | {"columns": tuple(fields["columns"])}) for fields in self.manifest["parts"]]

    @property
    def _format(self) -> str:
        return self.manifest["output_format"]

    def urls(self) -> list[str]:
        """Where the parts are, in order."""
        return [self._url(part_name(receipt.index, self._format)) for receipt in self.receipts]

    def _url(self, name: str) -> str:
        return storage.join(self.output, name)

    # reading

    def head(self, rows: int = 5) -> pd.DataFrame:
        """The first rows, without reading more parts than that takes."""
        frames, count = [], 0
        for receipt in self.receipts:
            if count >= rows:
                break
            frames.append(self._frame(receipt))
            count += receipt.rows
        return pd.concat(frames).head(rows) if frames else self._empty()

    def to_pandas(self) -> pd.DataFrame:
        """All rows, in order, in memory: the index is the source's first column; what the source had is text."""
        frames = [self._frame(receipt) for receipt in self.receipts if receipt.rows]
        return pd.concat(frames) if frames else self._empty()

    def to_dask(self):
        """All rows as a Dask DataFrame with one partition for each part, read when needed."""
        import dask.dataframe as dd  # slow to import, and few need it

        receipts = [receipt for receipt in self.receipts if receipt.rows]
        if not receipts:
            return dd.from_pandas(self._empty(), npartitions=1)
        return dd.from_map(self._frame, receipts, meta=self._frame(receipts[0]).iloc[:0])

    def _frame(self, receipt: Receipt) -> pd.DataFrame:
        """One part. Columns are text, but those that were numbers or truth values in all the answers."""
        data = storage.read(self._url(part_name(receipt.index, self._format)))
        if not receipt.rows:
            return self._empty()
        if self._format == "parquet":
            frame = pq.read_table(io.BytesIO(data)).to_pandas()
        else:
            header = 0 if self.manifest["header"] and receipt.index == 0 else None
            text = io.BytesIO(unpacked(data, self._format))
            frame = pd.read_csv(text, names=list(receipt.columns), header=header, **_READ_PART)
            for name, kind in list(zip(receipt.columns, self.manifest["kinds"], strict=True))[1:]:
                frame[name] = _as_kind(frame[name], kind)
        return frame.set_index(frame.columns[0])

    def _empty(self) -> pd.DataFrame:
        frame = pd.DataFrame(columns=self.columns or ["ID"], dtype=str)
        return frame.set_index(frame.columns[0])

    def quarantined(self) -> pd.DataFrame:
        """The bad rows: source, row (its number in the source, from 1), reason, raw (its text)."""
        names = [self._url(quarantine_name(receipt.index)) for receipt in self.receipts if receipt.bad_rows]
        text = b"".join(unpacked(data, "csv.gz") for data in storage.read_many(names))
        if not text:
            return pd.DataFrame(columns=list(QUARANTINE_COLUMNS))
        frame = pd.read_csv(io.BytesIO(text), names=list(QUARANTINE_COLUMNS), header=None, **_READ_PART)
        return frame.astype({"row": int})

    # fetching

    def fetch(self, file: str) -> int:
        """Write all rows, in order, to one file; returns its size in bytes.

        The suffix says how: .gz and .zst are compressed, .parquet is Parquet, anything else is plain CSV.
        """
        with storage.open_whole(storage.absolute(file)) as stream:
            self.write_to(stream, file)
            return stream.tell()

    def write_to(self, stream: BinaryIO, name: str = "") -> None:
        """Write all rows, in order, to a binary stream, in the format that `name`'s suffix says."""
        wanted = next((kind for kind in ("gz", "zst", "parquet") if name.endswith(f".{kind}")), "csv")
        if wanted == "parquet":
            self._write_parquet(stream)
        elif self._format == f"csv.{wanted}":  # compressed members joined are one valid file: nothing to unpack
            for data in self._parts():
                stream.write(data)
        else:
            pack = {"gz": gzip_member, "zst": zstd_frame}.get(wanted, bytes)
            for text in self._texts():
                stream.write(pack(text))

    def _write_parquet(self, stream: BinaryIO) -> None:
        receipts = [receipt for receipt in self.receipts if receipt.rows]
        if not receipts:
            raise UsageError("The run has no rows, and so no types for Parquet.", "Fetch it as CSV.")
        first = pa.Table.from_pandas(self._frame(receipts[0]).reset_index(), preserve_index=False)
        with pq.ParquetWriter(stream, first.schema) as writer:
            for receipt in receipts:
                frame = self._frame(receipt).reset_index()
                try:
                    writer.write_table(pa.Table.from_pandas(frame, first.schema, preserve_index=False))
                except (pa.ArrowException, ValueError, TypeError) as error:
                    raise UsageError(f"The parts' types differ: {error}.", "Fetch it as CSV.") from error

    def _parts(self) -> Iterator[bytes]:
        """The stored bytes of each part, in order, read some ahead."""
        yield from _ahead(storage.read, self.urls())

    def _texts(self) -> Iterator[bytes]:
        """The CSV text of each part, in order."""
        for receipt, data in zip(self.receipts, self._parts(), strict=True):
            if self._format != "parquet":
                yield unpacked(data, self._format)
            elif receipt.rows:
                text = pq.read_table(io.BytesIO(data)).to_pandas()
                yield text.to_csv(index=False, header=False, lineterminator="\n").encode()

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
            is_what = "is missing" if wrong[0] in expected else "does not belong to it"
            raise DamagedRun(f"{wrong[0]} of {self.output} {is_what}.", "Run it again with --overwrite.")

    def _names(self, receipt: Receipt) -> list[str]:
        names = [part_name(receipt.index, self._format), receipt_name(receipt.index)]
        return [*names, quarantine_name(receipt.index)] if receipt.bad_rows else names

    def _verified_text(self, receipt: Receipt) -> bytes:
        """The text of a part that is what its receipt says. Raises DamagedRun."""
        data = storage.read(self._url(part_name(receipt.index, self._format)))
        _verify_bytes(data, receipt.bytes, receipt.sha256, part_name(receipt.index, self._format))
        if receipt.bad_rows:
            bad, name = storage.read(self._url(quarantine_name(receipt.index))), quarantine_name(receipt.index)
            _verify_bytes(bad, receipt.quarantine_bytes, receipt.quarantine_sha256, name)
            _verify_rows(count_rows(unpacked(bad, "csv.gz")), receipt.bad_rows, name)
        if self._format == "parquet":
            _verify_rows(
                pq.read_metadata(io.BytesIO(data)).num_rows, receipt.rows, part_name(receipt.index, self._format)
            )
            return data
        text = unpacked(data, self._format)
        header = bool(self.manifest["header"] and receipt.index == 0 and receipt.rows)
        _verify_rows(count_rows(text) - header, receipt.rows, part_name(receipt.index, self._format))
        return text


def unpacked(data: bytes, part_format: str) -> bytes:
    """The CSV text of a stored part."""
    if part_format == "csv.gz":
        return igzip.decompress(data)
    with pa.CompressedInputStream(io.BytesIO(data), "zstd") as stream:
        return stream.read()


def _as_kind(text: pd.Series, kind: str) -> pd.Series:
    """Text as what it was before it was written: kind is that of a numpy type, i, u, f, b; anything else is text."""
    if kind in "iuf":
        return pd.to_numeric(text).astype({"i": "int64", "u": "uint64", "f": "float64"}[kind])
    return text == "True" if kind == "b" else text


def _ahead(read, items: list) -> Iterator:
    """`read` of each item, in order, with a few being read at the same time and no more in memory."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for first in range(0, len(items), _AT_ONCE):
            yield from pool.map(read, items[first : first + _AT_ONCE])


def _verify_bytes(data: bytes, size: int, sha256: str, name: str) -> None:
    if len(data) != size or hashlib.sha256(data).hexdigest() != sha256:
        raise DamagedRun(f"{name} has changed: its receipt says other bytes.", "Run it again with --overwrite.")


def _verify_rows(found: int, expected: int, name: str) -> None:
    if found != expected:
        raise DamagedRun(
            f"{name} has {found:,} rows where its receipt says {expected:,}.", "Run it again with --overwrite."
        )
