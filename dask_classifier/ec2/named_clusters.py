"""Clusters that stay after their command (`up`): what is kept of them in the user's home, readable by nobody else."""

import contextlib
import dataclasses
import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import ClusterError, UsageError
from .boot import Tls
from .spec import ClusterSpec

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}")
_TAKEN = {"local", "inline", "ec2"}


@dataclass(frozen=True)
class Saved:
    """A cluster that runs, or ran. `deadline` is in seconds since 1970."""

    id: str
    spec: ClusterSpec
    tls: Tls
    deadline: float

    @property
    def name(self) -> str:
        """What `--cluster` is given."""
        return self.spec.name


def check_name(name: str) -> str:
    """Raises UsageError for a name that no cluster may have."""
    if not _NAME.fullmatch(name) or name in _TAKEN:
        raise UsageError(
            f"{name!r} cannot be a cluster's name.", "Use letters, digits, - and _; not local, inline, ec2."
        )
    return name


def _folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "dask-classify" / "clusters"


def path(name: str) -> Path:
    """Where a cluster of this name is kept."""
    return _folder() / f"{check_name(name)}.json"


def names() -> list[str]:
    """The names of all clusters that are kept here."""
    return sorted(file.stem for file in _folder().glob("*.json"))


def _make_folder() -> None:
    _folder().mkdir(parents=True, exist_ok=True, mode=0o700)


def _unwritable(file: Path, error: OSError) -> UsageError:
    return UsageError(
        f"The cluster's file {file} cannot be written: {error.strerror}.", "The cluster's key is kept there."
    )


@contextlib.contextmanager
def locked(name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Be the only command on this computer that starts or changes this cluster: two would name their machines alike.

    Waits for another one, after saying so. The system gives the lock back when a command dies. Raises UsageError.
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
            say(f"Another command is changing the cluster {name}; waiting until it is done.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def save(cluster: Saved, *, new: bool = False) -> None:
    """Write it with mode 600: whoever has the key may use the cluster. Raises UsageError where `new` is not."""
    file = path(cluster.name)
    text = json.dumps(dataclasses.asdict(cluster), indent=1)
    temporary = file.with_suffix(f".{os.getpid()}")
    try:
        _make_folder()
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            out.write(text)
        if new:
            os.link(temporary, file)  # fails where there is one, however close together two commands are
        else:
            temporary.replace(file)
    except FileExistsError:
        raise UsageError(
            f"A cluster named {cluster.name} exists.", f"End it: dask-classify down --name {cluster.name}."
        ) from None
    except OSError as error:
        raise _unwritable(file, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def load(name: str) -> Saved:
    """Raises ClusterError where there is none, UsageError for a wrong name."""
    try:
        told = json.loads(path(name).read_text())
        spec = {key: tuple(value) if isinstance(value, list) else value for key, value in told.pop("spec").items()}
        return Saved(**told | {"spec": ClusterSpec(**spec), "tls": Tls(**told["tls"])})
    except FileNotFoundError:
        raise ClusterError(
            f"There is no cluster named {name} here.", f"Start one with `dask-classify up --name {name} --workers 2`."
        ) from None
    except (ValueError, TypeError, KeyError) as error:
        raise ClusterError(
            f"The cluster's file {path(name)} cannot be read: {error}.", "`dask-classify status` finds clusters by tag."
        ) from error


def forget(name: str, id: str) -> None:
    """Remove what is kept of this cluster, and not of another that has its name by now."""
    with contextlib.suppress(ClusterError):
        if load(name).id == id:
            path(name).unlink(missing_ok=True)
