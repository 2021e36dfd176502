"""`Archive`: an environment in a bucket, where instances fetch it."""

import hashlib
import shutil
import tempfile
import urllib.parse
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .. import storage
from ..classifier.requirements import pinned
from ..errors import ClusterError, StorageError
from . import pip
from .lock import REQUIREMENTS, WHEELS, Lock, lock, requirements_of
from .wheels import EPOCH

_SMALL = 2**23  # bytes; a smaller archive is written even if it is there, in case somebody has changed it


@dataclass(frozen=True)
class Archive:
    """An environment in a bucket.

    Parameters
    ----------
    url : str
        s3:// URL of a ZIP file with requirements.txt and wheels.
    sha256 : str
        Of the file, in hex.
    digest : str
        SHA-256 in hex of the names, versions and hashes of all wheels.
    packages : int
        Number of wheels.
    """

    url: str
    sha256: str
    digest: str
    packages: int

    def as_json(self) -> dict[str, object]:
        """Return what a manifest records of it."""
        return {"packages": self.packages, "packages_sha256": self.digest}


@contextmanager
def packed(
    requirements: Iterable[str],
    *,
    everything: bool = False,
    python: str,
    architecture: str,
    index_url: str | None = None,
    wheels: bool = False,
) -> Iterator[tuple[Lock, Path]]:
    """Yield the lock of an environment, and a folder with requirements.txt and wheels, which is deleted afterwards.

    Parameters
    ----------
    requirements, everything
        As for `pinned`.
    python
        Minor version of Python on the machines, such as "3.11".
    architecture
        Of the machines: "x86_64" or "arm64".
    index_url
        Index here and on the machines. Default: that of pip's configuration here, and PyPI on the machines, so that
        wheels from elsewhere are put into the folder.
    wheels
        Whether all wheels are put into the folder, so that machines need no index.

    Raises
    ------
    UsageError
        If a requirement is wrong, or something that is needed is not installed here.
    ClusterError
        If a package has no wheel for these machines, or the index cannot be reached.
    """
    with tempfile.TemporaryDirectory(prefix="dask-classify-") as name:
        folder, options = Path(name), pip.options_for(python, architecture, index_url)
        locked = lock(pinned(requirements, everything=everything), folder, options, architecture, index_url)
        file = folder / REQUIREMENTS
        if sent := locked.lines if wheels else () if index_url else locked.private:
            file.write_text(requirements_of(sent))
            pip.download(file, folder / WHEELS, options)
        index = ["--no-index"] if wheels else _index(index_url)
        file.write_text(requirements_of(locked.lines, *index))
        yield locked, folder


def _index(url: str | None) -> list[str]:
    """Return the lines that name an index. Over plain HTTP, pip must be told to trust it; hashes are checked anyway."""
    if not url:
        return []
    host = urllib.parse.urlsplit(url).netloc
    return [f"--index-url {url}", *([f"--trusted-host {host}"] if url.startswith("http://") else [])]


def upload(locked: Lock, folder: Path, staging: str) -> Archive:
    """Write an environment to a bucket, below the URL `staging`, unless it is there. Raises ClusterError."""
    file = folder / "environment.zip"
    _zip([folder / REQUIREMENTS, *sorted((folder / WHEELS).iterdir())], file)
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    url = storage.join(storage.absolute(staging), f"environment-{sha256[:16]}.zip")
    size = file.stat().st_size
    try:
        if size < _SMALL or not (storage.exists(url) and storage.identity(url).size == size):
            _copy(file, url)
    except StorageError as error:
        raise ClusterError(error.message, error.hint) from error
    return Archive(url, sha256, locked.digest, len(locked.lines))


def _zip(files: list[Path], archive: Path) -> None:
    """Pack files: wheels, which are compressed already, in a folder of their own."""
    with zipfile.ZipFile(archive, "w") as out:
        for file in files:
            name = file.name if file.name == REQUIREMENTS else f"{WHEELS}/{file.name}"
            with file.open("rb") as content, out.open(zipfile.ZipInfo(name, EPOCH), "w", force_zip64=True) as entry:
                shutil.copyfileobj(content, entry)


def _copy(file: Path, url: str) -> None:
    with file.open("rb") as content, storage.open_whole(url) as out:
        shutil.copyfileobj(content, out, 2**23)
