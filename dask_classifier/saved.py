"""Clusters that stay after their command (`up`): what is kept of them in the user's home, readable by nobody else."""

import dataclasses
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from .bootstrap import Tls
from .errors import ClusterError, UsageError
from .machines import ClusterSpec

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}")
_TAKEN = {"local", "inline", "ec2"}


@dataclass(frozen=True)
class Saved:
    """A cluster that runs, or ran. `deadline` is in seconds since 1970; `groups` are ids of security groups."""

    id: str
    spec: ClusterSpec
    tls: Tls
    deadline: float
    groups: list[str]
    region: str

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


def save(cluster: Saved) -> None:
    """Write it with mode 600: whoever has the key may use the cluster."""
    file = path(cluster.name)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = file.with_suffix(f".{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        json.dump(dataclasses.asdict(cluster), out, indent=1)
    temporary.replace(file)


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
            f"{path(name)} cannot be read: {error}.", "`dask-classify status` finds clusters by tag."
        ) from error


def forget(name: str) -> None:
    """Remove what is kept."""
    path(name).unlink(missing_ok=True)
