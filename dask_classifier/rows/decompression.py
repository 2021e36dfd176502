"""Decompress files: which compression a name has, and a stream that notices damage."""

import bz2
import contextlib
import lzma
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from isal import igzip, isal_zlib

from .. import storage
from ..errors import StorageError

_SUFFIXES = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".xz": "xz"}
_OTHERS = (".zip", ".lzma", ".snappy", ".lz4", ".z", ".br")  # which would be read as text


def compression(url: str) -> str | None:
    """Return the compression of a file by its suffix: gzip, bz2, zstd, xz, or None. Raise StorageError for others."""
    suffix = "." + url.rpartition(".")[2].lower()
    if suffix in _OTHERS:
        raise StorageError(
            f"Cannot decompress {url}: {suffix} is not supported.", "Use .gz, .bz2, .zst, .xz, or plain CSV."
        )
    return _SUFFIXES.get(suffix)


@contextlib.contextmanager
def open_decompressed(url: str) -> Iterator["Decompressed"]:
    """Open `url` for reading, decompressed according to its suffix."""
    kind = compression(url)
    with storage.open_stream(url) as stored, contextlib.ExitStack() as stack:
        yield Decompressed(url, stack.enter_context(_decompressing(stored, kind)) if kind else stored)


class Decompressed:
    """A stream whose `read` raises StorageError if the compressed file is damaged or truncated."""

    def __init__(self, url: str, stream: BinaryIO):
        self.url, self.stream = url, stream

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes; b"" at the end."""
        try:
            return self.stream.read(size)
        except (OSError, EOFError, zlib.error, lzma.LZMAError, isal_zlib.error) as error:
            raise StorageError(
                f"Cannot decompress {self.url}: {error}.",
                "Check that the file is complete and that its suffix is right.",
            ) from error


def _decompressing(stored: BinaryIO, kind: str) -> BinaryIO:
    """Return a decompressing stream that joins members and detects a missing end."""
    if kind == "zstd":
        import pyarrow as pa  # slow to import, and rarely needed

        return pa.CompressedInputStream(stored, "zstd")
    if kind == "gzip":
        return igzip.IGzipFile(fileobj=stored)
    return bz2.BZ2File(stored) if kind == "bz2" else lzma.LZMAFile(stored)
