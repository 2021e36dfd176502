"""The only door to files and objects (fsspec): list, ranged read, whole-object write.

A URL is a local path or anything that fsspec knows, such as s3://bucket/key. What exists under a name is
always whole: a local file is written under a temporary name, flushed and renamed; an object is one PUT.
Failures come out as StorageError, with the URL and a hint.
"""

import contextlib
import errno
import lzma
import os
import tempfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import fsspec
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError, NoCredentialsError
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import infer_compression
from isal import igzip, isal_zlib

from .errors import StorageError

_TEMPORARY = ".tmp-"  # part of the name of a file that is being written
_HINTS = {
    errno.ENOSPC: "The disk is full. Make room, then go on with --resume.",
    errno.EDQUOT: "The disk quota is used up. Make room, then go on with --resume.",
    errno.EFBIG: "The file is larger than this system allows.",
    errno.EROFS: "The file system is read-only. Choose another folder.",
    errno.ENOTDIR: "A part of the path is a file, not a folder.",
}


@dataclass(frozen=True)
class Identity:
    """What tells one version of a file from another: its size in bytes, and its ETag or time of change."""

    size: int
    version: str


def _filesystem(url: str):
    """The file system of `url` and the path there. Listings are never cached: workers change them."""
    options = {"use_listings_cache": False} if "://" in url and not url.startswith("file://") else {}
    try:
        if "::" not in url or url.partition("::")[0] in fsspec.available_protocols():
            return fsspec.core.url_to_fs(url, **options)
        return _unchained(url, options)
    except (ValueError, ImportError) as error:
        raise StorageError(f"Cannot use {url}: {error}.", "Use a local path or s3://bucket/key.") from error


def _unchained(url: str, options: dict):
    """The file system and the path of a name with "::" in it, which fsspec would take for a chain of file systems."""
    protocol = url.partition("://")[0] if "://" in url else "file"
    kind = fsspec.get_filesystem_class(protocol)
    return kind(**kind._get_kwargs_from_urls(url), **options), kind._strip_protocol(url)


_EXPIRED = "The credentials have expired: run `aws sso login`, or get new ones, then --resume."
_SIGNING_HINTS = {
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestTimeTooSkewed": "This computer's clock is wrong: set it.",
    "SignatureDoesNotMatch": "The secret key is wrong, or this computer's clock is.",
}


@dataclass(frozen=True)
class Upload:
    """An upload of a large object that was begun, and neither completed nor dropped. Its pieces are stored, and paid.

    `name` is relative to the folder that was looked at, or "" for an upload to the very URL.
    """

    url: str
    name: str
    id: str
    began: float  # seconds since 1970, by the store's clock


@contextlib.contextmanager
def _explained(action: str, url: str) -> Iterator[None]:
    """Turn what a file system raises into one StorageError."""
    try:
        yield
    except StorageError:  # which is an OSError, and explained already
        raise
    except (OSError, BotoCoreError, ClientError) as error:
        raise StorageError(f"Cannot {action} {url}: {_reason(error)}.", _hint(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "the bucket does not exist" if _is_bucket(error) else "it does not exist"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).rstrip(".") or type(error).__name__


def _is_bucket(error: FileNotFoundError) -> bool:
    return "bucket does not exist" in str(error)


def _code(error: Exception) -> str:
    """AWS's code of an error, also of one that s3fs has translated, or ""."""
    found = error if isinstance(error, ClientError) else error.__cause__
    return found.response.get("Error", {}).get("Code", "") if isinstance(found, ClientError) else ""


def _hint(error: Exception) -> str:
    if isinstance(error, NoCredentialsError):
        return "Give AWS credentials: `aws configure`, AWS_PROFILE, or an instance profile."
    if isinstance(error, EndpointConnectionError):
        return "Check the network, AWS_ENDPOINT_URL and the region."
    if hint := _SIGNING_HINTS.get(_code(error)):
        return hint
    if isinstance(error, PermissionError) and error.errno is None:  # of S3, which tells HEAD no more than "Forbidden"
        return "Check that your credentials are current and allow this; `dask-classify doctor` looks at both."
    if isinstance(error, PermissionError):
        return "You lack the permission."
    if isinstance(error, FileNotFoundError):
        return "Create the bucket before the run." if _is_bucket(error) else "Check the spelling."
    return _HINTS.get(getattr(error, "errno", None), "")


def absolute(url: str) -> str:
    """The URL as any process would have to say it: a local path becomes absolute, others stay."""
    filesystem, path = _filesystem(url)
    return path if isinstance(filesystem, LocalFileSystem) else url.rstrip("/")


def join(folder: str, *names: str) -> str:
    """A name below a folder."""
    return "/".join([folder.rstrip("/"), *names])


def compression(url: str) -> str | None:
    """The compression that the suffix of `url` says, as fsspec names it: gzip, bz2, zstd, xz, or None."""
    kind = infer_compression(url)
    if kind not in {None, "gzip", "bz2", "zstd", "xz"}:
        raise StorageError(
            f"Cannot decompress {url}: {kind} is not supported.", "Use .gz, .bz2, .zst, .xz, or plain CSV."
        )
    return kind


def expand(pattern: str) -> list[str]:
    """The files that a URL or a glob names, sorted; raises StorageError where there is none."""
    filesystem, path = _filesystem(pattern)
    with _explained("list", pattern):
        literal = not any(c in path for c in "*?[") or filesystem.exists(path)
        found = [path] if literal else sorted(filesystem.glob(path))
    if not found:
        raise StorageError(f"No file matches {pattern}.", "Quote the pattern, and check it with ls.")
    return [
        filesystem.unstrip_protocol(name) if not isinstance(filesystem, LocalFileSystem) else name for name in found
    ]


def identity(url: str) -> Identity:
    """Size and version of a file. Raises StorageError."""
    filesystem, path = _filesystem(url)
    with _explained("read", url):
        if isinstance(filesystem, LocalFileSystem):
            status = Path(path).stat()
            if not Path(path).is_file():
                raise StorageError(
                    f"Cannot read {url}: it is not a file.", "Name a file, or a pattern such as 'folder/*.csv'."
                )
            return Identity(status.st_size, str(status.st_mtime_ns))
        info = filesystem.info(path)
    if info["type"] == "directory":
        raise StorageError(
            f"Cannot read {url}: it is a folder.", "Name a file, or a pattern such as 's3://bucket/*.csv'."
        )
    version = info.get("ETag") or info.get("LastModified") or info.get("mtime") or info.get("created")
    return Identity(info["size"], str(version).strip('"'))


def exists(url: str) -> bool:
    """Whether a file or an object has this name."""
    filesystem, path = _filesystem(url)
    with _explained("look for", url):
        return filesystem.exists(path)


def sizes(folder: str) -> dict[str, int]:
    """The files below a folder: name relative to the folder to size in bytes; {} where there is no such
    folder.
    """
    filesystem, path = _filesystem(folder)
    with _explained("list", folder):
        try:
            found = filesystem.find(path, detail=True)
        except FileNotFoundError:
            if not isinstance(filesystem, LocalFileSystem):
                raise  # an object store lists a missing folder as empty: this is a missing bucket
            return {}
    return {name[len(path) :].lstrip("/"): info["size"] for name, info in found.items()}


def read(url: str, start: int = 0, stop: int | None = None) -> bytes:
    """The bytes of `url` from `start` to before `stop`, or to the end; fewer where the file ends earlier."""
    if stop is not None and stop <= start:
        return b""
    filesystem, path = _filesystem(url)
    with _explained("read", url):
        return filesystem.cat_file(path, start=start, end=stop)


@contextlib.contextmanager
def open_ranged(url: str) -> Iterator[BinaryIO]:
    """A stream of `url` that can be read at any place. Of an object, each read asks for its own bytes and no more."""
    filesystem, path = _filesystem(url)
    with _explained("read", url), filesystem.open(path, "rb", cache_type="none") as stream:
        yield stream


def read_many(urls: list[str]) -> list[bytes]:
    """Whole files, in the order of `urls`, many at the same time."""
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(read, urls))


@contextlib.contextmanager
def open_decompressed(url: str) -> Iterator["Decompressed"]:
    """A stream of what `url` holds, decompressed by its suffix."""
    filesystem, path = _filesystem(url)
    kind = compression(url)
    with _explained("read", url), contextlib.ExitStack() as stack:
        stored = stack.enter_context(filesystem.open(path, "rb"))
        yield Decompressed(url, stack.enter_context(_decompressing(stored, kind)) if kind else stored)


class Decompressed:
    """A stream whose `read` raises StorageError for an archive that is damaged or cut off."""

    def __init__(self, url: str, stream: BinaryIO):
        self.url, self.stream = url, stream

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; b"" at the end."""
        try:
            return self.stream.read(size)
        except (OSError, EOFError, zlib.error, lzma.LZMAError, isal_zlib.error) as error:
            raise StorageError(
                f"Cannot decompress {self.url}: {error}.", "Is the file whole, and its suffix right?"
            ) from error


def _decompressing(stored: BinaryIO, kind: str) -> BinaryIO:
    """A decompressing stream that joins members and notices a missing end (fsspec's zstd does neither)."""
    if kind == "zstd":
        import pyarrow as pa  # slow to import, and few need it

        return pa.CompressedInputStream(stored, "zstd")
    return igzip.IGzipFile(fileobj=stored) if kind == "gzip" else fsspec.compression.compr[kind](stored, mode="rb")


def write(url: str, data: bytes) -> None:
    """Write a whole file or object: afterwards `url` holds all of `data`, or what it held before."""
    with open_whole(url) as stream:
        stream.write(data)


@contextlib.contextmanager
def open_whole(url: str) -> Iterator[BinaryIO]:
    """A stream to a file or an object that comes into being, whole, when the block is left without an error."""
    filesystem, path = _filesystem(url)
    with _explained("write", url):
        with (
            _local_whole(Path(path))
            if isinstance(filesystem, LocalFileSystem)
            else _remote_whole(filesystem, path) as out
        ):
            yield out


@contextlib.contextmanager
def _local_whole(path: Path) -> Iterator[BinaryIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}{_TEMPORARY}")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(descriptor)  # a full disk says so here, not after the rename
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def _remote_whole(filesystem, path: str) -> Iterator[BinaryIO]:
    stream = filesystem.open(path, "wb")
    try:
        yield stream
    except BaseException:
        stream.discard()
        stream.closed = True  # closing would complete the upload
        raise
    stream.close()


def delete(url: str) -> None:
    """Remove a file or an object; it is no error when it is gone already."""
    filesystem, path = _filesystem(url)
    with _explained("delete", url), contextlib.suppress(FileNotFoundError):
        filesystem.rm_file(path)


def delete_unfinished(folder: str) -> None:
    """Remove the files that killed writers left in a local folder; in S3 these are `unfinished_uploads`."""
    filesystem, _ = _filesystem(folder)
    for name in sizes(folder) if isinstance(filesystem, LocalFileSystem) else ():
        if _is_unfinished(name):
            delete(join(folder, name))


def unfinished_uploads(url: str) -> list[Upload]:
    """Uploads to `url`, or below it, that are under way or were cut off; none where a store knows no such thing."""
    filesystem, path = _filesystem(url)
    if not hasattr(filesystem, "call_s3"):
        return []
    bucket, key, _ = filesystem.split_path(path)
    found, start = [], {}
    with _explained("list uploads to", url):
        while start is not None:
            told = filesystem.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=key, **start)
            found += told.get("Uploads", [])
            following = {"KeyMarker": told.get("NextKeyMarker"), "UploadIdMarker": told.get("NextUploadIdMarker")}
            start = {name: value for name, value in following.items() if value} if told.get("IsTruncated") else None
    names = [(each["Key"].removeprefix(key), each) for each in found]
    return [
        Upload(f"s3://{bucket}/{each['Key']}", name.lstrip("/"), each["UploadId"], each["Initiated"].timestamp())
        for name, each in names
        if not name or name.startswith("/") or not key or key.endswith("/")
    ]


def abort(upload: Upload) -> None:
    """Drop what was uploaded; it is no error when it is gone already."""
    filesystem, path = _filesystem(upload.url)
    bucket, key, _ = filesystem.split_path(path)
    with _explained("abort the upload to", upload.url), contextlib.suppress(FileNotFoundError):
        filesystem.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload.id)


def _is_unfinished(name: str) -> bool:
    """Whether this is the temporary name of a file that is being written, or that a killed writer left."""
    return _TEMPORARY in Path(name).name
