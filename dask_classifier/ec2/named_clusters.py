"""Named clusters, which outlive the command that starts them (`up`): their files in the user's home folder."""

import contextlib
import dataclasses
import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..environment.archive import Archive
from ..errors import ClusterError, UsageError
from .boot import Tls
from .spec import ClusterSpec

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}")
_RESERVED = {"local", "inline", "ec2"}


@dataclass(frozen=True)
class NamedCluster:
    """A running cluster, as another process connects to it. `deadline` is in seconds since 1970."""

    id: str
    spec: ClusterSpec
    tls: Tls
    deadline: float
    packages: Archive | None = None  # that its instances install

    @property
    def name(self) -> str:
        """The value for `--cluster`, of a cluster of `up`."""
        return self.spec.name


def check_name(name: str) -> str:
    """Return the name. Raise UsageError if a cluster cannot have it."""
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise UsageError(
            f"{name!r} cannot be the name of a cluster.", "Use letters, digits, - and _; not local, inline or ec2."
        )
    return name


def _folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "dask-classify" / "clusters"


def path(name: str) -> Path:
    """Return the file of the cluster with this name."""
    return _folder() / f"{check_name(name)}.json"


def names() -> list[str]:
    """Return the names of the clusters that have a file on this computer."""
    return sorted(file.stem for file in _folder().glob("*.json"))


def _make_folder() -> None:
    _folder().mkdir(parents=True, exist_ok=True, mode=0o700)


def _unwritable(file: Path, error: OSError) -> UsageError:
    return UsageError(
        f"Cannot write the cluster's file {file}: {error.strerror}.",
        "Make this location writable, or set XDG_STATE_HOME to another folder: the cluster's TLS key is kept there.",
    )


@contextlib.contextmanager
def locked(name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a cluster, so that no other command on this computer starts or changes it meanwhile.

    Two commands at once would give the same names to their instances. If another command holds the lock, print a
    message and wait. The operating system releases the lock if a command is killed. Raises UsageError.
    """
    file = path(name).with_suffix(".lock")
    try:
        _make_folder()
        lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _unwritable(file, error) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Another command is changing the cluster {name}; waiting for it to finish.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def save(cluster: NamedCluster, *, new: bool = False) -> None:
    """Write the cluster's file, with mode 600: its TLS key gives access to the cluster.

    Raises UsageError if it cannot be written, or if it exists although the cluster is `new`.
    """
    file = path(cluster.name)
    text = json.dumps(dataclasses.asdict(cluster), indent=1)
    temporary = file.with_suffix(f".{os.getpid()}")
    try:
        _make_folder()
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            out.write(text)
        if new:
            os.link(temporary, file)  # fails if the file exists, even if two commands run at the same time
        else:
            temporary.replace(file)
    except FileExistsError:
        raise UsageError(
            f"A cluster named {cluster.name} already exists.",
            f"Choose another name, or terminate it: dask-classify down --name {cluster.name}.",
        ) from None
    except OSError as error:
        raise _unwritable(file, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def load(name: str) -> NamedCluster:
    """Read the cluster's file. Raises ClusterError if there is none, and UsageError for an invalid name."""
    file = path(name)
    try:
        fields = json.loads(file.read_text())
        spec = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.pop("spec").items()}
        packages = Archive(**fields["packages"]) if fields.get("packages") else None
        known = {"spec": ClusterSpec(**spec), "tls": Tls(**fields["tls"]), "packages": packages}
        return NamedCluster(**fields | known)
    except FileNotFoundError:
        raise ClusterError(
            f"There is no cluster named {name} on this computer.",
            f"Start one with `dask-classify up --name {name} --workers 2`.",
        ) from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ClusterError(
            f"Cannot read the cluster's file {file}: {error}.",
            "Find the cluster with `dask-classify status`, and terminate it with `dask-classify reap --cluster ID`.",
        ) from error


def forget(name: str, id: str) -> None:
    """Delete the cluster's file, unless it belongs to a newer cluster with the same name."""
    with contextlib.suppress(ClusterError):
        if load(name).id == id:
            path(name).unlink(missing_ok=True)
