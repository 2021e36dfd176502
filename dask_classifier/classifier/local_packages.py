"""Packages that were installed from here, and not from an index: which these are, and what they contain."""

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterable
from importlib.metadata import Distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

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
    """Return a digest of each of these packages that was installed from here: its version says little of its code."""
    distributions = {name: importlib.metadata.distribution(name) for name in names}
    return {name: _digest(one) for name, one in sorted(distributions.items()) if is_local(one)}


def _digest(distribution: Distribution) -> str:
    """SHA-256 in hex, 16 digits: of the Python files of an editable package, of the record of any other."""
    folder = folder_of_editable(distribution)
    record = distribution.read_text("RECORD") or ""  # which has the digests of all files
    digest = hashlib.sha256(b"" if folder else record.encode())
    for file in sorted(_code(Path(folder))) if folder else ():
        digest.update(f"{file.relative_to(folder)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def _code(folder: Path) -> Iterable[Path]:
    """Yield the Python files of a project, without those of its virtual environments."""
    for here, folders, files in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and name not in _NOT_CODE and not Path(here, name, "pyvenv.cfg").exists()
        ]
        yield from (Path(here, name) for name in files if name.endswith(".py"))
