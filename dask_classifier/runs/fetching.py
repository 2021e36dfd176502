"""Write all rows of a run to one file; if that is interrupted, the next time goes on where it was."""

import contextlib
import fcntl
import hashlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .. import storage
from ..errors import UsageError
from ..parts.formats import format_of_file
from ..parts.receipts import Receipt
from .writing import line_before_parts

if TYPE_CHECKING:
    from .result import Result


def fetch(result: "Result", file: str, *, header: bool) -> int:
    """Write all rows, in order, to a file, and return its size in bytes.

    A local file with the parts as they are stored is written under another name first, which is kept if that is
    interrupted. What it has is compared with the receipts before more is written.
    """
    url, target = storage.absolute(file), format_of_file(file)
    has_names = any(map(result.begins_with_names, result.receipts[:1]))
    as_stored = target is result.part_format and target.joins and (header or not has_names)
    if not storage.is_local(url) or not as_stored:
        with storage.open_whole(url) as stream:
            result.write_to(stream, file, header=header)
            return stream.tell()
    with storage.explaining("write", url):
        return _Download(result, Path(url), header=header).complete()


_TRIES = 5  # to lock an unfinished file that others finish


class _Download:
    """A local file, header and parts one after the other, of which a beginning may be there."""

    def __init__(self, result: "Result", path: Path, *, header: bool):
        self.result, self.path = result, path
        of = f"{[receipt.sha256 for receipt in result.receipts]} {header}"
        digest = hashlib.sha256(of.encode()).hexdigest()[:12]
        self.unfinished = path.with_name(f".{path.name}.unfinished-{digest}")
        self.names = line_before_parts(result, header=header)

    def complete(self) -> int:
        """Write what is missing, give the file its name, and return its size."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._opened() as stream:
            for data in self._rest(stream):
                stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
            size = stream.tell()
            self.unfinished.replace(self.path)
        return size

    def _opened(self) -> BinaryIO:
        """Return the unfinished file, locked: not one that another command has just finished and renamed."""
        for _ in range(_TRIES):
            stream = self.unfinished.open("a+b")
            try:
                self._lock(stream)
                if self._is_there(stream):
                    return stream
            except BaseException:
                stream.close()
                raise
            stream.close()
        return self.unfinished.open("a+b")  # in a network folder, perhaps, where the numbers of inodes change

    def _is_there(self, stream: BinaryIO) -> bool:
        """Return whether an open file still has its name."""
        with contextlib.suppress(FileNotFoundError):
            return os.fstat(stream.fileno()).st_ino == self.unfinished.stat().st_ino
        return False

    def _lock(self, stream: BinaryIO) -> None:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"Another command is writing {self.path}.", "Wait for it, or name another file.") from None
        except OSError:  # a network folder without locks
            pass

    def _rest(self, stream: BinaryIO) -> Iterator[bytes]:
        """Yield what the file does not have, after cutting off what is not whole or not right in it."""
        stream.seek(0)
        receipts = self.result.receipts
        there = stream.read(len(self.names)) == self.names
        done = sum(1 for _ in itertools.takewhile(lambda receipt: _has(stream, receipt), receipts)) if there else 0
        stream.truncate(len(self.names) * there + sum(receipt.bytes for receipt in receipts[:done]))
        stream.seek(0, os.SEEK_END)
        if not there:
            yield self.names
        yield from self.result.read_ahead(self.result.stored, receipts[done:])


def _has(stream: BinaryIO, receipt: Receipt) -> bool:
    """Return whether the next bytes are those of a part."""
    data = stream.read(receipt.bytes)
    return len(data) == receipt.bytes and hashlib.sha256(data).hexdigest() == receipt.sha256
