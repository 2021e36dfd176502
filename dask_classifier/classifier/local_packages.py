"""Packages that were installed from here, and not from an index: which these are, and what they contain."""

import contextlib
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterable
from importlib.metadata import Distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..errors import UsageError

_PROJECT_FILES = ("pyproject.toml", "setup.py")
_NOT_CODE = {"build", "dist", "__pycache__", "node_modules"}  # folders


def is_local(distribution: Distribution) -> bool:
    """Return whether a package was installed from a folder, a file or a repository, and not from an index (PEP 610).

    conda's packages name the folder in which they were built: they are taken from the index. No others are, even if
    their folder is gone: on an index, somebody else's package may have that name.
    """
    origin = distribution.read_text("direct_url.json")
    is_condas = (distribution.read_text("INSTALLER") or "").strip() == "conda"
    return (bool(origin) and not is_condas) or folder_of_editable(distribution) is not None


def folder_of_editable(distribution: Distribution) -> str | None:
    """Return the folder of a package of which only a reference is installed; None for others."""
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        return unquote(urlsplit(origin["url"]).path)
    folder = Path(str(distribution.locate_file("")))  # by `setup.py develop`, its description is in its own folder
    is_developed = not origin and distribution.read_text("RECORD") is None
    return str(folder) if is_developed and any((folder / name).is_file() for name in _PROJECT_FILES) else None


def contents(names: Iterable[str]) -> dict[str, str]:
    """Return a digest of each of these packages that was installed from here: its version says little of its code.

    Raises UsageError if a file of one cannot be read.
    """
    distributions = {name: importlib.metadata.distribution(name) for name in names}
    try:
        return {name: _digest(one) for name, one in sorted(distributions.items()) if is_local(one)}
    except OSError as error:
        raise UsageError(
            f"Cannot read {error.filename or 'it'}, a file of a package that the classifier needs: {error.strerror}.",
            "Check its permissions.",
        ) from error


def _digest(distribution: Distribution) -> str:
    """SHA-256 in hex, 16 digits: of the Python files of an editable package, of all recorded ones of any other."""
    folder = folder_of_editable(distribution)
    lines = _lines_of(Path(folder)) if folder else _lines_of_record(distribution.read_text("RECORD") or "")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def _lines_of_record(record: str) -> Iterable[str]:
    """Yield the lines of the package's own files, with their digests; scripts have the paths of an environment."""
    for line in record.splitlines():
        first = line.partition("/")[0]
        if first != ".." and not first.endswith(".dist-info") and ".pyc," not in line:
            yield line


def _lines_of(folder: Path) -> Iterable[str]:
    for file in _code(folder):
        yield f"{file.relative_to(folder)},{hashlib.sha256(file.read_bytes()).hexdigest()}"


def _is_environment(folder: Path) -> bool:
    with contextlib.suppress(OSError):  # of a folder that may not be entered
        return (folder / "pyvenv.cfg").exists()
    return False


def _code(folder: Path) -> Iterable[Path]:
    """Yield the Python files of a project, without those of its virtual environments."""
    for here, folders, files in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and name not in _NOT_CODE and not _is_environment(Path(here, name))
        ]
        yield from (Path(here, name) for name in files if name.endswith(".py") and name[0] != ".")
