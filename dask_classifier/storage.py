"""All access to files and objects, with fsspec: listing, reading ranges, and atomic writing.

A URL is a local path or anything that fsspec supports, such as s3://bucket/key. No incomplete file is ever visible
under its name: a local file is written under a temporary name, flushed and renamed, and an object appears when its
upload is complete. Failures are raised as StorageError, with the URL and a hint.
"""

import contextlib
import errno
import os
import secrets
import socket
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import fsspec
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    InvalidRegionError,
    NoCredentialsError,
)
from fsspec.implementations.local import LocalFileSystem

from .config import of_bucket
from .errors import StorageError

TEMPORARY = ".tmp-"  # part of the name of a file that is being written
_RESUME = "Continue with --resume."
_HINTS = {
    errno.ENOSPC: "Free some disk space, then continue with --resume.",
    errno.EDQUOT: "Delete some files to stay within the disk quota, then continue with --resume.",
    errno.EFBIG: "Choose a file system that allows larger files.",
    errno.EROFS: "Choose a folder on a file system that is not read-only.",
    errno.ENOTDIR: "Check the path: a part of it is a file, not a folder.",
}


@dataclass(frozen=True)
class Identity:
    """The values that distinguish versions of a file: its size in bytes, and its ETag or modification time."""

    size: int
    version: str


# botocore repeats a request after 503, other answers that allow it, and timeouts, at random moments in growing
# intervals: https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html
_PATIENT_REQUESTS = {
    "retries": {"mode": "standard", "total_max_attempts": 8},
    "connect_timeout": 20,
    "read_timeout": 60,
}


def _options_of_s3(bucket: str) -> dict[str, object]:
    """Return s3fs' options for a bucket, from the configuration."""
    settings, options = of_bucket(bucket), {"config_kwargs": _settings_of_botocore()}
    names = {"anonymous": "anon", "requester-pays": "requester_pays", "endpoint-url": "endpoint_url"}
    options |= {option: settings[name] for name, option in names.items() if name in settings}
    if "encryption" in settings:
        options["s3_additional_kwargs"] = {"ServerSideEncryption": settings["encryption"]}
        if "kms-key" in settings:
            options["s3_additional_kwargs"]["SSEKMSKeyId"] = settings["kms-key"]
    return options


def _settings_of_botocore() -> dict[str, object]:
    """Return botocore's settings: those of the user's fsspec configuration and AWS_MAX_ATTEMPTS come first."""
    chosen = dict(_PATIENT_REQUESTS)
    if "AWS_MAX_ATTEMPTS" in os.environ:
        chosen["retries"] = {"mode": os.environ.get("AWS_RETRY_MODE", "standard")}
    return chosen | fsspec.config.conf.get("s3", {}).get("config_kwargs", {})


def filesystem_of(url: str):
    """Return the file system of `url`, and the path on it. Listings are never cached, because workers write files."""
    options = {"use_listings_cache": False} if "://" in url and not url.startswith("file://") else {}
    if url.startswith(("s3://", "s3a://")):
        options |= _options_of_s3(url.partition("://")[2].partition("/")[0])
    try:
        if "::" not in url or url.partition("::")[0] in fsspec.available_protocols():
            return fsspec.core.url_to_fs(url, **options)
        return _unchained(url, options)
    except (ValueError, ImportError, OSError) as error:  # an OSError of a protocol that connects at once, as FTP does
        raise StorageError(f"Cannot use {url}: {error}.", "Use a local path or s3://bucket/key.") from error


def _unchained(url: str, options: dict):
    """Return file system and path of a name that contains "::", which fsspec would take for a chain of file systems."""
    protocol = url.partition("://")[0] if "://" in url else "file"
    kind = fsspec.get_filesystem_class(protocol)
    return kind(**kind._get_kwargs_from_urls(url), **options), kind._strip_protocol(url)


_EXPIRED = "Run `aws sso login`, or get new credentials in another way, then continue with --resume."
_SIGNING_HINTS = {
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestTimeTooSkewed": "Set this computer's clock.",
    "SignatureDoesNotMatch": "Check the secret key and this computer's clock.",
}


_OF_STORAGE = OSError, BotoCoreError, ClientError  # and aiohttp's, which takes long to import: a body that is cut off
_WRONG_ADDRESS = {  # botocore's plain ValueErrors
    "Invalid endpoint": "Check AWS_ENDPOINT_URL, and endpoint-url in Dask's configuration.",
    "Cannot traverse all of S3": "Name a bucket: s3://bucket/key.",
}


@contextlib.contextmanager
def explaining(action: str, url: str) -> Iterator[None]:
    """Convert the exceptions of file systems into StorageError."""
    try:
        yield
    except StorageError:  # which is an OSError, and explained already
        raise
    except Exception as error:
        address = next((hint for text, hint in _WRONG_ADDRESS.items() if str(error).startswith(text)), None)
        if not (address or isinstance(error, _OF_STORAGE) or type(error).__module__.startswith("aiohttp.")):
            raise
        if action == "write" and isinstance(error, FileNotFoundError) and not _is_bucket(error):
            raise StorageError(f"Cannot write {url}: its folder was deleted in the meantime.", _RESUME) from error
        raise StorageError(f"Cannot {action} {url}: {_reason(error)}.", address or _hint(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "the bucket does not exist" if _is_bucket(error) else "it does not exist"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.rstrip(".")
    return str(error).rstrip(".") or type(error).__name__


def _is_bucket(error: FileNotFoundError) -> bool:
    return "bucket does not exist" in str(error)


def code_of(error: Exception) -> str:
    """Return AWS's code of an error, even if s3fs has translated the error; "" if there is none."""
    original = error if isinstance(error, ClientError) else error.__cause__
    return original.response.get("Error", {}).get("Code", "") if isinstance(original, ClientError) else ""


def _hint(error: Exception) -> str:
    if isinstance(error, NoCredentialsError):
        return "Set up AWS credentials: run `aws configure`, set AWS_PROFILE, or use an instance profile."
    if isinstance(error, EndpointConnectionError | InvalidRegionError):
        return "Check the network, AWS_ENDPOINT_URL and the region."
    if hint := _SIGNING_HINTS.get(code_of(error)):
        return hint
    if isinstance(error, PermissionError) and error.errno is None:  # from S3, which answers HEAD only with "Forbidden"
        return "Check that your credentials are valid and allow this; `dask-classify doctor` checks both."
    if isinstance(error, PermissionError):
        return "Check the permissions of the file and its folder."
    if isinstance(error, FileNotFoundError):
        return "Create the bucket before the run." if _is_bucket(error) else "Check the spelling."
    return _HINTS.get(getattr(error, "errno", None), "")


def absolute(url: str) -> str:
    """Return a URL that is valid in any process: a local path becomes absolute, others do not change."""
    filesystem, path = filesystem_of(url)
    return path if isinstance(filesystem, LocalFileSystem) else url.rstrip("/")


def join(folder: str, *names: str) -> str:
    """Join a folder and names below it."""
    return "/".join([folder.rstrip("/"), *names])


def listed(name: str) -> list[tuple[str, Identity]]:
    """Return the files that a path, a URL, a glob or a folder names, sorted, with their identities.

    Of a folder, these are all files below it, without those whose own or whose folder's name begins with a dot or an
    underscore: other tools keep their notes in such files. Raise StorageError if there are none, or one of them cannot
    be read.
    """
    filesystem, path = filesystem_of(name)
    with explaining("list", name):
        if any(c in path for c in "*?[") and not filesystem.exists(path):
            found = filesystem.glob(path, detail=True)
            if not found:
                raise StorageError(f"No file matches {name}.", "Quote the pattern, and check it with ls.")
        elif name.endswith("/") or filesystem.isdir(path):
            below = filesystem.find(path, detail=True)
            found = {each: info for each, info in below.items() if not _is_note(each.removeprefix(path))}
            if not found:
                raise StorageError(f"The folder {name} has no files.", "Check the spelling.")
        else:
            found = {path: {}}
    is_local = isinstance(filesystem, LocalFileSystem)
    urls = {each if is_local else filesystem.unstrip_protocol(each): info for each, info in sorted(found.items())}
    # the listings of other stores need not have the same values as what `identity` asks for
    trusted = hasattr(filesystem, "call_s3") and len(urls) > 1
    return [(url, _identity_of(info, url) if trusted else identity(url)) for url, info in urls.items()]


def _is_note(name: str) -> bool:
    """Whether a name below a folder is that of a note, or of the object that S3's console makes for a folder."""
    return not name.strip("/") or name.endswith("/") or any(part.startswith((".", "_")) for part in name.split("/"))


def identity(url: str) -> Identity:
    """Return the size and version of a file. Raise StorageError if it cannot be read."""
    filesystem, path = filesystem_of(url)
    with explaining("read", url):
        if isinstance(filesystem, LocalFileSystem):
            status = Path(path).stat()
            if not stat.S_ISREG(status.st_mode):
                raise StorageError(
                    f"Cannot read {url}: it is not a file.", "Give a file, or a pattern such as 'folder/*.csv'."
                )
            return Identity(status.st_size, str(status.st_mtime_ns))
        return _identity_of(filesystem.info(path), url)


def _identity_of(info: dict, url: str) -> Identity:
    if info["type"] == "directory":
        raise StorageError(
            f"Cannot read {url}: it is a folder.", "Give a file, or a pattern such as 's3://bucket/*.csv'."
        )
    version = info.get("ETag") or info.get("LastModified") or info.get("mtime") or info.get("created")
    return Identity(info["size"], str(version).strip('"'))


def exists(url: str) -> bool:
    """Return whether a file or an object exists."""
    filesystem, path = filesystem_of(url)
    with explaining("access", url):
        return filesystem.exists(path)


def sizes(folder: str) -> dict[str, int]:
    """Return the sizes in bytes of all files below a folder, by name relative to it; {} if there is no such folder."""
    filesystem, path = filesystem_of(folder)
    with explaining("list", folder):
        try:
            files = filesystem.find(path, detail=True)
        except FileNotFoundError:
            if not isinstance(filesystem, LocalFileSystem):
                raise  # an object store lists a missing folder as empty, so the bucket is missing
            return {}
    return {name[len(path) :].lstrip("/"): info["size"] for name, info in files.items()}


def read(url: str, start: int = 0, stop: int | None = None) -> bytes:
    """Return the bytes of `url` from `start` to before `stop`, or to the end; fewer if the file ends earlier."""
    if stop is not None and stop <= start:
        return b""
    filesystem, path = filesystem_of(url)
    with explaining("read", url):
        return filesystem.cat_file(path, start=start, end=stop)


@contextlib.contextmanager
def open_ranged(url: str) -> Iterator[BinaryIO]:
    """Open `url` for reading at any offset. Each read of an object requests only its own bytes."""
    filesystem, path = filesystem_of(url)
    with explaining("read", url), filesystem.open(path, "rb", cache_type="none") as stream:
        yield _Explaining(stream, url)


class _Explaining:
    """A stream whose errors are those of the storage, so that they are not mistaken for faults of its content."""

    def __init__(self, stream: BinaryIO, url: str):
        self._stream, self._url = stream, url

    def read(self, *size: int) -> bytes:
        with explaining("read", self._url):
            return self._stream.read(*size)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


def read_many(urls: list[str]) -> list[bytes]:
    """Return the contents of files, in the order of `urls`; many are read at the same time."""
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(read, urls))


@contextlib.contextmanager
def open_stream(url: str) -> Iterator[BinaryIO]:
    """Open `url` for reading from its beginning, some mebibytes at a time."""
    filesystem, path = filesystem_of(url)
    with explaining("read", url), filesystem.open(path, "rb") as stream:
        yield stream


def write(url: str, data: bytes) -> None:
    """Write a file or object atomically: afterwards it contains all of `data`, or what it contained before."""
    with open_whole(url) as stream:
        stream.write(data)


@contextlib.contextmanager
def open_whole(url: str) -> Iterator[BinaryIO]:
    """Open a file or an object for writing. It appears, complete, when the context exits without an error."""
    filesystem, path = filesystem_of(url)
    with explaining("write", url):
        with (
            _local_whole(Path(path))
            if isinstance(filesystem, LocalFileSystem)
            else _remote_whole(filesystem, path) as out
        ):
            yield out


@contextlib.contextmanager
def _local_whole(path: Path) -> Iterator[BinaryIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}{TEMPORARY}{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())  # a full disk makes this fail before the rename
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


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


def is_local(url: str) -> bool:
    """Return whether a URL is a path on this computer."""
    return isinstance(filesystem_of(url)[0], LocalFileSystem)


def delete(url: str) -> None:
    """Delete a file or an object if it exists."""
    filesystem, path = filesystem_of(url)
    with explaining("delete", url), contextlib.suppress(FileNotFoundError):
        filesystem.rm_file(path)


@contextlib.contextmanager
def probe(folder: str) -> Iterator[str]:
    """Write a small file for others to look for, and yield its name; it is deleted, as are folders made for it."""
    path = Path(folder)
    made = [] if "://" in folder else missing_folders(path)
    # in a run's folder, a later run deletes it, as every temporary file, if this one is killed
    name = join(folder, f".probe{TEMPORARY}{secrets.token_hex(4)}")
    write(name, b"")
    try:
        yield name
    finally:
        with contextlib.suppress(OSError):  # no right to delete, or someone else has written there meanwhile
            delete(name)
            for each in made:
                each.rmdir()


def missing_folders(folder: Path) -> list[Path]:
    """Return a folder and those above it that do not exist, or may not be looked at; the innermost comes first."""
    return [path for path in (folder, *folder.parents) if not os.path.lexists(path)]


def check_seen(probe: str, worker: str, target: str, hint: str) -> None:
    """Raise StorageError if a worker does not see a probe of this computer, so that `target` would be elsewhere."""
    if not exists(probe):
        raise StorageError(
            f"The worker {worker} on {socket.gethostname()} does not see files that this computer writes to {target}.",
            hint,
        )


def delete_unfinished(folder: str) -> None:
    """Delete the files that killed writers left in a local folder. In S3, they leave `unfinished_uploads` instead."""
    filesystem, _ = filesystem_of(folder)
    for name in sizes(folder) if isinstance(filesystem, LocalFileSystem) else ():
        if _is_unfinished(name):
            delete(join(folder, name))


def _is_unfinished(name: str) -> bool:
    """Return whether this is the temporary name of a file that is being written or was left by a killed writer."""
    return TEMPORARY in Path(name).name
