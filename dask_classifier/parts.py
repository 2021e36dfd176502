"""What one block leaves: a part, a quarantine file when it had bad rows, and a receipt, written in this
order.

Their bytes depend on the block and the settings alone, so doing a block twice, or on two workers at once, is
harmless.
"""

import hashlib
import io
import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from isal import igzip_lib

from . import storage
from .chunks import BadRow
from .errors import WrongAnswer

QUARANTINE_COLUMNS = ("source", "row", "reason", "raw")


def gzip_member(data: bytes) -> bytes:
    """One gzip member without a time stamp. ISA-L level 1: 330 MB/s and smaller than zlib's level 6 at 19
    MB/s.
    """
    return igzip_lib.compress(data, 1, flag=igzip_lib.COMP_GZIP)


def zstd_frame(data: bytes) -> bytes:
    """One zstd frame, level 3."""
    return zstandard.compress(data, 3)


_PACKERS: dict[str, Callable[[bytes], bytes]] = {"csv.gz": gzip_member, "csv.zst": zstd_frame}
FORMATS = (*_PACKERS, "parquet")


def part_name(index: int, part_format: str) -> str:
    """Where a block's part is, relative to the run's folder."""
    return f"parts/part-{index:05d}.{part_format}"


def receipt_name(index: int) -> str:
    """Where a block's receipt is, relative to the run's folder."""
    return f"parts/part-{index:05d}.json"


def quarantine_name(index: int) -> str:
    """Where a block's bad rows are, relative to the run's folder."""
    return f"quarantine/part-{index:05d}.csv.gz"


@dataclass(frozen=True)
class Receipt:
    """That a part exists, and how it came about. Written after the part."""

    fingerprint: str  # of the plan
    index: int  # of the block, and so of the part
    rows: int  # in the part
    bad_rows: int  # in the quarantine file
    bytes: int  # of the part, as stored
    sha256: str  # of the part, as stored
    quarantine_bytes: int
    quarantine_sha256: str
    columns: tuple[str, ...]  # of the part, the index first; () where it has no rows
    kinds: str  # of each column, as numpy's type has it: i, u, f, b, or O for text and all else
    first_bad_row: str  # one sentence, or ""
    started: float  # seconds since 1970
    seconds: float
    worker: str
    host: str
    pid: int

    @classmethod
    def from_json(cls, text: bytes) -> "Receipt":
        """Raises ValueError where the text is no receipt."""
        try:
            fields = json.loads(text)
            return cls(**fields | {"columns": tuple(fields["columns"])})
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a receipt: {error}") from error


def describe_bad_row(source: str, bad: BadRow) -> str:
    """One sentence for people."""
    raw = bad.raw if len(bad.raw) <= 200 else bad.raw[:200] + "..."
    return f"row {bad.row:,} of {source}: {bad.reason}: {raw!r}"


class PartWriter:
    """Collects a block's classified chunks and bad rows; `commit` writes its files and returns the receipt."""

    def __init__(self, output: str, index: int, *, part_format: str, header: bool, fingerprint: str, worker: str):
        self.output, self.index, self.part_format, self.header = output, index, part_format, header
        self.fingerprint, self.worker, self.started = fingerprint, worker, time.time()
        self.pieces: list[bytes] = []
        self.frames: list[pd.DataFrame] = []
        self.bad_rows: list[tuple[str, BadRow]] = []
        self.rows = 0
        self.columns: tuple[str, ...] = ()
        self.kinds = ""

    def write(self, answer: pd.DataFrame) -> None:
        """Add classified rows. Raises WrongAnswer where their columns are not those of the rows before."""
        columns = (str(answer.index.name), *map(str, answer.columns))
        if self.columns and columns != self.columns:
            raise WrongAnswer(
                f"its columns are {columns}, after {self.columns}", "Return the same columns for each chunk."
            )
        if self.part_format == "parquet":
            self.frames.append(answer)
        else:
            self.pieces.append(_to_csv(answer, header=self.header and not self.columns))
        kinds = "".join(_kind(dtype) for dtype in (answer.index.dtype, *answer.dtypes))
        self.kinds = common_kinds([kinds, self.kinds or kinds])
        self.columns, self.rows = columns, self.rows + len(answer)

    def quarantine(self, source: str, bad: BadRow) -> None:
        """Set a bad row aside."""
        self.bad_rows.append((source, bad))

    def commit(self) -> Receipt:
        """Write part, quarantine file and receipt."""
        part, bad = self._part(), self._quarantined()
        storage.write(storage.join(self.output, part_name(self.index, self.part_format)), part)
        if bad:
            storage.write(storage.join(self.output, quarantine_name(self.index)), bad)
        receipt = self._receipt(part, bad)
        storage.write(storage.join(self.output, receipt_name(self.index)), json.dumps(asdict(receipt)).encode())
        return receipt

    def _part(self) -> bytes:
        if self.part_format != "parquet":
            return _PACKERS[self.part_format](b"".join(self.pieces))
        frame = pd.concat(self.frames) if self.frames else pd.DataFrame()
        try:
            table = pa.Table.from_pandas(frame.reset_index() if len(frame) else frame, preserve_index=False)
        except (pa.ArrowException, ValueError, TypeError) as error:
            raise WrongAnswer(
                f"it cannot be stored as Parquet: {error}", "Return one type a column, or use csv.gz."
            ) from error
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        return buffer.getvalue()

    def _quarantined(self) -> bytes:
        if not self.bad_rows:
            return b""
        rows = [(source, bad.row, bad.reason, bad.raw) for source, bad in self.bad_rows]
        text = pd.DataFrame(rows, columns=QUARANTINE_COLUMNS).to_csv(index=False, header=False, lineterminator="\n")
        return gzip_member(text.encode("utf-8", "backslashreplace"))

    def _receipt(self, part: bytes, bad: bytes) -> Receipt:
        return Receipt(
            fingerprint=self.fingerprint,
            index=self.index,
            rows=self.rows,
            bad_rows=len(self.bad_rows),
            bytes=len(part),
            sha256=hashlib.sha256(part).hexdigest(),
            quarantine_bytes=len(bad),
            quarantine_sha256=hashlib.sha256(bad).hexdigest() if bad else "",
            columns=self.columns,
            kinds=self.kinds,
            first_bad_row=describe_bad_row(*self.bad_rows[0]) if self.bad_rows else "",
            started=self.started,
            seconds=time.time() - self.started,
            worker=self.worker,
            host=socket.gethostname(),
            pid=os.getpid(),
        )


def _kind(dtype) -> str:
    return dtype.kind if dtype.kind in "iufb" else "O"


def common_kinds(several: list[str]) -> str:
    """The kinds that hold the values of several answers: floats hold integers, text holds all."""

    def common(kinds: tuple[str, ...]) -> str:
        if len(set(kinds)) == 1:
            return kinds[0]
        return "f" if set(kinds) <= set("iuf") else "O"

    return "".join(map(common, zip(*several, strict=True)))


def _to_csv(answer: pd.DataFrame, *, header: bool) -> bytes:
    try:
        return answer.to_csv(header=header, lineterminator="\n").encode()
    except UnicodeEncodeError as error:
        raise WrongAnswer(
            f"it holds text that is not Unicode: {error}", "Return text that can be written as UTF-8."
        ) from error
