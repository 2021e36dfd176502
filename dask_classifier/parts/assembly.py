"""Assemble one file from the parts of a run, in order and in parallel: pieces of several parts are written by workers.

In S3 the file is a multipart upload: a part that is large enough is copied within S3, and small parts are joined to
pieces. In a folder, each piece is written at its place in a temporary file, which is renamed at the end. Either way,
the file is not visible before it is whole.
"""

import hashlib
import os
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .. import s3, storage
from ..errors import DamagedRun
from .receipts import Receipt
from .run_folder import RunFolder, part_name

_LOCAL_PIECE_BYTES = 16 * 2**20
_AT_ONCE = 16  # parts of a piece that are read at the same time
_SPARE_PIECES = 1_000  # fewer than S3 allows


class StoredPart(NamedTuple):
    """A part as its receipt has it."""

    url: str
    bytes: int
    sha256: str

    def read(self) -> bytes:
        """Return its bytes. Raise DamagedRun if they are not those of the receipt."""
        data = storage.read(self.url)
        if len(data) != self.bytes or hashlib.sha256(data).hexdigest() != self.sha256:
            raise _mismatch(self.url)
        return data


def _mismatch(url: str) -> DamagedRun:
    return DamagedRun(
        f"{url} does not match its receipt (size or SHA-256).",
        "Delete that file, then repeat the command of the run, with --resume.",
    )


@dataclass(frozen=True)
class Piece:
    """Parts that one task writes: the piece's number, from 1, and its place in the file."""

    number: int
    start: int
    parts: tuple[StoredPart, ...]
    before: bytes = b""  # of the first part: a header

    def read(self) -> bytes:
        """Return its bytes."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return self.before + b"".join(pool.map(StoredPart.read, self.parts))


class Assembly(ABC):
    """How a file is assembled in one kind of store."""

    least_bytes: int  # of each piece but the last

    @abstractmethod
    def write(self, piece: Piece) -> str:
        """Write a piece, on a worker, and return what `finish` needs to know of it."""

    @abstractmethod
    def finish(self, written: Sequence[str]) -> None:
        """Make the file visible, given what `write` has returned for each piece, in order."""

    @abstractmethod
    def abort(self) -> None:
        """Delete what was written."""


def begin(url: str, size: int) -> Assembly:
    """Begin to assemble a file of some size."""
    if s3.is_s3(url):
        least = max(s3.LEAST_PIECE_BYTES, -(-size // (s3.MOST_PIECES - _SPARE_PIECES)))
        return InS3(url, s3.begin_upload(url), least)
    if storage.is_local(url):
        return InFolder.begin(url, size)
    return Whole(url)


@dataclass(frozen=True)
class InS3(Assembly):
    """A multipart upload."""

    url: str
    upload: str
    least_bytes: int

    def write(self, piece: Piece) -> str:
        """Copy a part within S3, or upload several as one piece; return the ETag.

        Of a part that S3 copies, only the size is compared with its receipt.
        """
        first = piece.parts[0] if piece.parts else None
        alone = first and len(piece.parts) == 1 and not piece.before and s3.are_in_one_store(first.url, self.url)
        if alone and first.bytes >= self.least_bytes:
            if storage.identity(first.url).size != first.bytes:
                raise _mismatch(first.url)
            return s3.copy_piece(self.url, self.upload, piece.number, first.url)
        return s3.upload_piece(self.url, self.upload, piece.number, piece.read())

    def finish(self, written: Sequence[str]) -> None:
        """Complete the upload."""
        s3.complete(self.url, self.upload, list(written))

    def abort(self) -> None:
        """Abort the upload."""
        s3.abort(s3.Upload(self.url, "", self.upload, time.time()))


@dataclass(frozen=True)
class InFolder(Assembly):
    """A temporary file beside the final one."""

    url: str
    temporary: str
    least_bytes: int = _LOCAL_PIECE_BYTES

    @classmethod
    def begin(cls, url: str, size: int) -> "InFolder":
        """Make the temporary file, with its size, so that a full disk is noticed now."""
        path = Path(url)
        new = cls(url, str(path.with_name(f".{path.name}{storage.TEMPORARY}{secrets.token_hex(8)}")))
        try:
            with storage.explaining("write", url):
                path.parent.mkdir(parents=True, exist_ok=True)
                with Path(new.temporary).open("xb") as file:
                    if size:
                        os.posix_fallocate(file.fileno(), 0, size)
        except BaseException:
            new.abort()
            raise
        return new

    def write(self, piece: Piece) -> str:
        """Write the piece at its place."""
        data = piece.read()
        with storage.explaining("write", self.url), Path(self.temporary).open("r+b") as file:
            file.seek(piece.start)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return ""

    def finish(self, written: Sequence[str]) -> None:
        """Rename the temporary file."""
        with storage.explaining("write", self.url):
            Path(self.temporary).replace(self.url)

    def abort(self) -> None:
        """Delete the temporary file."""
        with suppress(OSError):
            Path(self.temporary).unlink()


@dataclass(frozen=True)
class Whole(Assembly):
    """Of other stores: a single piece."""

    url: str
    least_bytes: int = 2**63

    def write(self, piece: Piece) -> str:
        """Write the file, part by part."""
        with storage.open_whole(self.url) as stream:
            stream.write(piece.before)
            for part in piece.parts:
                stream.write(part.read())
        return ""

    def finish(self, written: Sequence[str]) -> None:
        """Do nothing: it is visible already."""

    def abort(self) -> None:
        """Do nothing."""


def pieces_of(
    folder: RunFolder, part_format: str, receipts: Sequence[Receipt], least_bytes: int, before: bytes
) -> Iterator[Piece]:
    """Yield the pieces of a file with all parts, in order: each has as many parts as make `least_bytes`."""
    number, start, size, parts = 1, 0, len(before), []
    for receipt in receipts:
        url = folder.path(part_name(receipt.index, part_format))
        parts.append(StoredPart(url, receipt.bytes, receipt.sha256))
        size += receipt.bytes
        if size >= least_bytes:
            yield Piece(number, start, tuple(parts), before)
            number, start, size, parts, before = number + 1, start + size, 0, [], b""
    if parts or number == 1:
        yield Piece(number, start, tuple(parts), before)
