"""Write the files of one block, in this order: its part, a quarantine file if it has bad rows, and its receipt.

The bytes of part and quarantine file depend only on the block and the settings, so it is harmless to classify a block
twice, or on two workers at once.
"""

import hashlib
import json
import os
import socket
import time
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ..classifier.contract import Answer
from ..classifier.job import Job
from ..errors import DaskClassifyError, TooManyBadRows, WrongAnswer
from ..rows.chunks import BadRow, Parsed
from .compression import gzip_member
from .csv_text import as_frames
from .formats import FORMATS
from .receipts import QUARANTINE_COLUMNS, Receipt, common_kinds
from .run_folder import RunFolder, part_name, quarantine_name, receipt_name


class PartWriter:
    """Collect a block's answers and bad rows; `commit` writes its files and returns the receipt."""

    def __init__(self, job: Job, index: int, parsed: Parsed, worker: str):
        self.folder, self.index, self.parsed = RunFolder(job.output), index, parsed
        self.part_format, self.fingerprint, self.worker = FORMATS[job.part_format], job.fingerprint, worker
        self.header = job.header and index == 0
        self.started = time.time()
        self.answers: list[Answer] = []
        self.bad_rows: list[tuple[str, BadRow]] = []
        self.rows = 0

    def write(self, answer: Answer) -> None:
        """Add classified rows. Raise WrongAnswer if their columns differ from those of earlier rows."""
        if self.answers and not answer.has_columns_of(self.answers[0]):
            before, now = _names(self.answers[0].frame), _names(answer.frame)
            raise WrongAnswer(
                f"its columns changed from {', '.join(before)} to {', '.join(now)}",
                "Return the same columns for each chunk.",
            )
        self.answers.append(answer)
        self.rows += len(answer)

    def quarantine(self, source: str, bad: BadRow) -> None:
        """Add a bad row. Text that is not Unicode, as in some exceptions, is escaped, since it cannot be written."""
        bad = replace(bad, reason=_unicode(bad.reason), raw=_unicode(bad.raw), traceback=_unicode(bad.traceback))
        self.bad_rows.append((_unicode(source), bad))

    def check_bad_rows(self, allowed: int) -> None:
        """Raise TooManyBadRows if the block alone has more bad rows than the run may have."""
        if len(self.bad_rows) > allowed:
            source, first = self.bad_rows[0]
            raise TooManyBadRows.of(first.describe(source), allowed, first.traceback)

    def check_rows(self, rows: int) -> None:
        """Raise DaskClassifyError if the number of classified and quarantined rows is not that of the block."""
        if self.rows + len(self.bad_rows) != rows:
            raise DaskClassifyError(
                f"Block {self.index} has {rows} rows, but {self.rows} were classified "
                f"and {len(self.bad_rows)} quarantined.",
                "This is a bug in dask-classify: please report it. None of this block's files were written.",
            )

    def commit(self) -> Receipt:
        """Write part, quarantine file and receipt."""
        frames, part, bad = self.encoded()
        self.folder.write(part_name(self.index, self.part_format.name), part)
        if bad:
            self.folder.write(quarantine_name(self.index), bad)
        receipt = self._receipt(frames, part, bad)
        self.folder.write(receipt_name(self.index), json.dumps(asdict(receipt)).encode())
        return receipt

    def encoded(self) -> tuple[list[pd.DataFrame], bytes, bytes]:
        """Return the rows as frames, and the contents of the part and of the quarantine file."""
        frames = as_frames(self.answers, self.parsed)
        return frames, self.part_format.encode(frames, self.parsed, header=self.header), self._quarantined()

    def _quarantined(self) -> bytes:
        if not self.bad_rows:
            return b""
        rows = [(source, bad.row, bad.reason, bad.raw) for source, bad in self.bad_rows]
        text = pd.DataFrame(rows, columns=QUARANTINE_COLUMNS).to_csv(index=False, header=False, lineterminator="\n")
        return gzip_member(text.encode())

    def _receipt(self, frames: list[pd.DataFrame], part: bytes, bad: bytes) -> Receipt:
        return Receipt(
            fingerprint=self.fingerprint,
            index=self.index,
            rows=self.rows,
            bad_rows=len(self.bad_rows),
            bytes=len(part),
            sha256=hashlib.sha256(part).hexdigest(),
            quarantine_bytes=len(bad),
            quarantine_sha256=hashlib.sha256(bad).hexdigest() if bad else "",
            columns=_names(frames[0]) if frames else (),
            kinds=common_kinds([_kinds(frame) for frame in frames]),
            first_bad_row=self.bad_rows[0][1].describe(self.bad_rows[0][0]) if self.bad_rows else "",
            first_traceback=self.bad_rows[0][1].traceback if self.bad_rows else "",
            first_kind=self.bad_rows[0][1].kind if self.bad_rows else "",
            started=self.started,
            seconds=time.time() - self.started,
            worker=self.worker,
            host=socket.gethostname(),
            pid=os.getpid(),
        )


def _unicode(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _names(frame: pd.DataFrame) -> tuple[str, ...]:
    return (str(frame.index.name), *map(str, frame.columns))


def _kinds(frame: pd.DataFrame) -> str:
    columns = (frame.iloc[:, place] for place in range(frame.shape[1]))
    return _kind(frame.index) + "".join(map(_kind, columns))


def _kind(values: pd.Index | pd.Series) -> str:
    """Return the kind of a column. Integers and booleans of pandas and Arrow are nullable, those of NumPy are not."""
    dtype = values.dtype
    if dtype.kind == "M":
        return "M" if _are_plain_dates(values) else "O"
    if dtype.kind not in "iufb":
        return "O"
    return dtype.kind if isinstance(dtype, np.dtype) or dtype.kind == "f" else dtype.kind.upper()


def _are_plain_dates(values: pd.Index | pd.Series) -> bool:
    """Return whether dates can be read again from their text: no time zone, no nanoseconds, years of four digits."""
    dates = pa.array(values)
    if pa.types.is_timestamp(dates.type) and (dates.type.tz or dates.type.unit == "ns"):
        return False
    years = pc.min_max(pc.year(dates)).as_py()
    return years["min"] is None or (years["min"] >= 1000 and years["max"] <= 9999)
