"""Wheels of packages that no index has: built from their folder, or packed again from the installed files."""

import base64
import csv
import hashlib
import io
import zipfile
from collections.abc import Callable
from importlib.metadata import Distribution
from pathlib import Path

from packaging.utils import canonicalize_name

from ..classifier.local_packages import folder_of_editable
from ..classifier.requirements import OURSELVES
from ..errors import ClusterError
from . import pip

_NOT_PACKED = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}  # pip writes these when it installs
EPOCH = (1980, 1, 1, 0, 0, 0)  # so that equal files make equal archives


def wheel_of(distribution: Distribution, folder: Path, index_url: str | None = None) -> Path:
    """Write the wheel of an installed package to a folder, and return its path. Raises ClusterError.

    `index_url` is where a build finds what it needs.
    """
    if canonicalize_name(distribution.metadata["Name"]) == OURSELVES:
        return _pack(distribution, folder, _files_of_ours)
    if source := folder_of_editable(distribution):
        return pip.build(distribution.metadata["Name"], source, folder, index_url)
    return _pack(distribution, folder, _files)


def _pack(distribution: Distribution, folder: Path, files_of: Callable[[Distribution], dict[str, Path]]) -> Path:
    """Pack the installed files; scripts are left out, since workers start modules."""
    name, version = distribution.metadata["Name"], distribution.version
    files, tag = files_of(distribution), _tag(distribution)
    information = next((path.split("/")[0] for path in files if path.endswith(".dist-info/METADATA")), "")
    if not tag or not information or not all(file.is_file() for file in files.values()):
        raise ClusterError(
            f"{name} {version} was not installed as a wheel, or files of it are missing, so it cannot be sent to "
            "instances.",
            "Install it again with pip, or give an --image that contains it.",
        )
    wheel = folder / f"{canonicalize_name(name).replace('-', '_')}-{version}-{tag}.whl"
    record = []
    with zipfile.ZipFile(wheel, "w") as packed:
        for path, file in sorted(files.items()):
            content = file.read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append((path, f"sha256={digest}", len(content)))
            packed.writestr(zipfile.ZipInfo(path, EPOCH), content, zipfile.ZIP_DEFLATED)
        lines = io.StringIO()
        csv.writer(lines, lineterminator="\n").writerows([*record, (f"{information}/RECORD", "", "")])
        packed.writestr(zipfile.ZipInfo(f"{information}/RECORD", EPOCH), lines.getvalue(), zipfile.ZIP_DEFLATED)
    return wheel


def is_pure(distribution: Distribution) -> bool:
    """Return whether an installed package contains nothing that depends on the machine."""
    return "Root-Is-Purelib: true" in (distribution.read_text("WHEEL") or "")


def _tag(distribution: Distribution) -> str:
    """Return what a wheel's name says of where it runs, such as "py2.py3-none-any"; "" if that is unknown."""
    described = (distribution.read_text("WHEEL") or "").splitlines()
    tags = [line.removeprefix("Tag: ").split("-") for line in described if line.startswith("Tag: ")]
    return "-".join(".".join(sorted(set(part))) for part in zip(*tags, strict=True))


def _files(distribution: Distribution) -> dict[str, Path]:
    """Return the installed files by their names in a wheel."""
    files = [file for file in distribution.files or [] if ".." not in file.parts and file.suffix != ".pyc"]
    return {
        file.as_posix(): Path(str(distribution.locate_file(file)))
        for file in files
        if not (file.parts[0].endswith(".dist-info") and file.name in _NOT_PACKED)
    }


def _files_of_ours(distribution: Distribution) -> dict[str, Path]:
    """Return those of this package, wherever it is: it may be installed as a reference to its folder."""
    package = Path(__file__).parents[1]
    code = {file.relative_to(package.parent).as_posix(): file for file in package.rglob("*") if file.is_file()}
    described = {name: file for name, file in _files(distribution).items() if ".dist-info/" in name}
    return described | {name: file for name, file in code.items() if "__pycache__" not in name}
