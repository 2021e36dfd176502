"""`Lock`: the exact wheels of an environment, with their hashes."""

import hashlib
import importlib.metadata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import ClusterError
from . import pip
from .installed import needed
from .wheels import is_pure, wheel_of

REQUIREMENTS, WHEELS = "requirements.txt", "wheels"
_PYPI = "files.pythonhosted.org"


@dataclass(frozen=True)
class Lock:
    """The wheels of an environment.

    Parameters
    ----------
    lines : tuple of str
        As in a file of requirements: "name==version --hash=sha256:...".
    private : tuple of str
        Those of the lines whose wheels come from another index than PyPI, and not from local packages.
    """

    lines: tuple[str, ...]
    private: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 in hex of all names, versions and hashes."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()


def requirements_of(lines: Iterable[str], *options: str) -> str:
    """Return the text of a file that pip installs, in a folder with another one of wheels."""
    head = ["--require-hashes", "--only-binary :all:", f"--find-links {WHEELS}", *options]
    return "".join(f"{line}\n" for line in [*head, *lines])


def lock(
    requirements: Iterable[str], folder: Path, options: list[str], architecture: str, index_url: str | None = None
) -> Lock:
    """Choose the wheels, and write those of local packages to the folder `wheels` in `folder`.

    Parameters
    ----------
    requirements
        What the classifier needs, as "name==version".
    folder
        An empty folder.
    options
        Of pip, for the machines: see `pip.options_for`.
    architecture
        Of the machines: "x86_64" or "arm64".
    index_url
        Where the builds of local packages find what they need. Default: as pip is configured.

    Raises
    ------
    UsageError
        If something that is needed is not installed here.
    ClusterError
        If a package has no wheel for these machines, or the index cannot be reached.
    """
    packages, wheels = needed(requirements, architecture), folder / WHEELS
    wheels.mkdir()
    local = [wheel_of(one, wheels, index_url) for one in packages.local]

    def pack(name: str) -> Path | None:
        """Pack what an index has only as source, if it runs on any machine."""
        distribution = importlib.metadata.distribution(name)
        return wheel_of(distribution, wheels) if is_pure(distribution) else None

    entries = pip.resolve(packages.pins, local, options, folder, pack)
    urls = {_line(entry): entry["download_info"]["url"] for entry in entries}
    private = [
        line
        for line, url in urls.items()
        if not url.startswith(f"{wheels.as_uri()}/") and urlsplit(url).hostname != _PYPI
    ]
    return Lock(tuple(sorted(urls)), tuple(sorted(private)))


def _line(entry: dict) -> str:
    name, version = entry["metadata"]["name"], entry["metadata"]["version"]
    archive = entry["download_info"].get("archive_info", {})
    digest = archive.get("hashes", {}).get("sha256") or archive.get("hash", "").removeprefix("sha256=")
    if not digest:
        raise ClusterError(
            f"The package index gives no hash of {name} {version}.", "Use another --index-url, or give an --image."
        )
    return f"{name.lower()}=={version} --hash=sha256:{digest}"
