"""Decompress files: which compression a file has, and its text as a stream that keeps what precedes a damage."""

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO, NamedTuple

from isal import igzip_lib

from .. import storage
from ..errors import SourceError, StorageError
from .layouts import is_utf8

READ_BYTES = 2**20  # of text, read at a time
_SUFFIXES = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".xz": "xz"}
_OTHERS = (".zip", ".lzma", ".snappy", ".lz4", ".z", ".br")  # which would be read as text
_BUFFER_BYTES = 2**18  # of the stored file, read at a time
_STEP_BYTES = 2**16  # of it, decompressed at a time: what follows the end of a stream is copied
_HEADER_BYTES = 2**12  # more than the header of a gzip member has: a file's name and a comment
_ISAL_NUMBER = re.compile(r"^Error -?\d+ ")
_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, igzip_lib.error)


def compression(url: str) -> str | None:
    """Return the compression of a file by its suffix: gzip, bz2, zstd, xz, or None. Raise StorageError for others."""
    suffix = "." + url.rpartition(".")[2].lower()
    if suffix in _OTHERS:
        raise StorageError(
            f"Cannot decompress {url}: {suffix} is not supported.", "Use .gz, .bz2, .zst, .xz, or plain CSV."
        )
    return _SUFFIXES.get(suffix)


class Packing(NamedTuple):
    """How the text of a file is stored: its compression, or None, and its encoding."""

    compression: str | None
    encoding: str


@contextlib.contextmanager
def open_text(url: str, packing: Packing) -> Iterator["TextStream"]:
    """Open a file for reading its text, as UTF-8, from the beginning."""
    stream = TextStream(url, packing)
    try:
        yield stream
    finally:
        stream.close()


class TextStream:
    """The text of a file, decompressed and as UTF-8, read from its beginning.

    If the file is damaged or truncated, all of the text before the damage is returned first. An encoding that is UTF-8
    is not decoded: bytes that are invalid in it make bad rows.
    """

    def __init__(self, url: str, packing: Packing):
        self.url, self.packing = url, packing
        self.offset = 0  # bytes of text that were read
        self._unpacked = 0  # bytes that were decompressed
        self._decoder = None if is_utf8(packing.encoding) else codecs.getincrementaldecoder(packing.encoding)()
        self._damage: StorageError | None = None
        self._open(_decompressing)

    def _open(self, decompressing: Callable) -> None:
        self._opened = contextlib.ExitStack()
        self._stored = _Stored(self.url, self._opened.enter_context(storage.open_stream(self.url)))
        buffered = io.BufferedReader(self._stored, _BUFFER_BYTES)
        self._stream = self._opened.enter_context(decompressing(buffered, self.packing.compression))

    def close(self) -> None:
        """Close the file."""
        self._opened.close()

    @property
    def is_damaged(self) -> bool:
        """Whether the file cannot be decompressed any further."""
        return self._damage is not None

    @property
    def stored_offset(self) -> int:
        """Bytes of the stored file that were read, at most a mebibyte ahead of the text."""
        return self._stored.offset

    def read(self, size: int = READ_BYTES) -> bytes:
        """Return up to `size` bytes, of another encoding than UTF-8 perhaps some more; b"" at the end.

        Raise StorageError where the file is damaged, SourceError where it is not in its encoding.
        """
        if self._damage:
            raise self._damage
        while True:
            data = self._read(size)
            text = self._decoded(data)
            if text or not data:
                self.offset += len(text)
                return text

    def _read(self, size: int) -> bytes:
        try:
            data = self._stream.read1(size)
        except StorageError:  # which is an OSError, but no damage
            raise
        except _DAMAGE as error:
            data = b"" if isinstance(error, _Hole) else self._rest_before_damage()
            self._damage = _damaged(self.url, error, self._unpacked + len(data))
            if not data:
                raise self._damage from error
        self._unpacked += len(data)
        return data

    def _rest_before_damage(self) -> bytes:
        """Return what the failed read has decompressed before it failed, with another stream, byte by byte.

        igzip, which is faster than zlib, keeps back what zlib returns of a stream that is cut off.
        """
        self.close()
        self._open(_decompressing_slowly)
        rest, left = [], self._unpacked
        try:
            while left and (data := self._stream.read1(min(left, READ_BYTES))):
                left -= len(data)
            while len(rest) < READ_BYTES and (data := self._stream.read1(1)):
                rest.append(data)
        except StorageError:
            raise
        except _DAMAGE:
            pass
        return b"".join(rest)

    def _decoded(self, data: bytes) -> bytes:
        if self._decoder is None:
            return data
        try:
            return self._decoder.decode(data, final=not data).encode("utf-8")
        except UnicodeError as error:
            raise not_in(self.packing.encoding, self.url, error) from error


def not_in(encoding: str, url: str, error: UnicodeError) -> SourceError:
    """Return the error for a file that is not in its encoding."""
    return SourceError(f"{url} is not in the encoding {encoding}: {error}.", "Check --encoding.")


def _damaged(url: str, error: Exception, offset: int) -> StorageError:
    return StorageError(
        f"Cannot decompress {url} after byte {offset:,} of its text: {_ISAL_NUMBER.sub('', str(error)).rstrip('.')}.",
        "Check that the file is complete and that its suffix is right.",
    )


class _Stored(io.RawIOBase):
    """A stored file. An error of the storage is a StorageError, so that it is not mistaken for a damage of the file."""

    def __init__(self, url: str, stream: BinaryIO):
        self.url, self.stream, self.offset = url, stream, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        with storage.explaining("read", self.url):
            size = self.stream.readinto(buffer)
        self.offset += size
        return size


class _Zstd:
    """A Zstandard stream of pyarrow, whose `read` returns what it has, as `read1` of the others does."""

    def __init__(self, stored: io.BufferedReader):
        import pyarrow as pa  # slow to import, and rarely needed

        self._stored, self._stream = stored, pa.CompressedInputStream(stored, "zstd")
        self.close = self._stream.close

    def read1(self, size: int) -> bytes:
        """Return up to `size` bytes of text; b"" at the end."""
        data = self._stream.read(size)
        if not data and not self._stored.raw.offset:  # for pyarrow, a file without a frame is complete
            raise EOFError("the end is missing")
        return data


class _Hole(EOFError):
    """Zeros are where data was; all that precedes them was returned."""


_NEW_STREAM = {
    "gzip": partial(igzip_lib.IgzipDecompressor, flag=igzip_lib.DECOMP_GZIP),  # several times faster than zlib
    "bz2": bz2.BZ2Decompressor,
    "xz": lzma.LZMADecompressor,
}


class _Streams:
    """The text of gzip, bz2 or xz streams that follow each other, as several processes write them.

    Python's own files of bz2 and xz end without an error at whatever cannot be read behind a stream, and those of gzip
    pass over zeros, which a crash of a machine leaves in place of a member. Either would lose rows.
    """

    def __init__(self, stored: io.BufferedReader, kind: str):
        self._stored, self._kind = stored, kind
        self._stream = _NEW_STREAM[kind]()

    def read1(self, size: int) -> bytes:
        """Return up to `size` bytes of text; b"" at the end."""
        while True:
            data = b""
            if self._stream.eof:
                if not (data := self._next()):
                    return b""
                self._stream = _NEW_STREAM[self._kind]()
            elif self._stream.needs_input and not (data := self._stored.read(_STEP_BYTES)):
                raise EOFError("the end is missing")
            if text := self._stream.decompress(data, size):
                return text

    def _next(self) -> bytes:
        """Return the beginning of the next stream; b"" if there is none.

        A file of gzip or xz may end with zeros; only streams of xz may have some between them.
        """
        zeros = b"" if self._kind == "bz2" else b"\0"
        padded, data = False, self._stream.unused_data or self._stored.read(_STEP_BYTES)
        while data and not (begun := data.lstrip(zeros)):
            padded, data = True, self._stored.read(_STEP_BYTES)
        if not data:
            return b""
        if self._kind == "gzip" and (padded or len(begun) < len(data)):
            raise _Hole("zeros are in place of data")
        # igzip needs the whole header of a gzip member at once, if it has several fields or a checksum
        return begun if len(begun) >= _HEADER_BYTES else begun + self._stored.read(_STEP_BYTES)


def _decompressing_slowly(stored: io.BufferedReader, kind: str | None):
    """Return the same, with the standard library where that differs."""
    return gzip.GzipFile(fileobj=stored) if kind == "gzip" else _decompressing(stored, kind)


def _decompressing(stored: io.BufferedReader, kind: str | None):
    """Return a stream with `read1`, as a context, that joins streams and detects a missing end."""
    if kind == "zstd":
        return contextlib.closing(_Zstd(stored))
    if kind is None:
        return stored
    return contextlib.nullcontext(_Streams(stored, kind))
