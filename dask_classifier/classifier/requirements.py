"""What a classifier needs: packages with exact versions, from a file, its own script, or all that are installed."""

import functools
import importlib.metadata
import platform
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from ..errors import UsageError
from .bundle import Bundle

# The reference implementation's, of https://peps.python.org/pep-0723/#reference-implementation
_SCRIPT = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
_HASHES = re.compile(r"\s--hash=\S+")
OURSELVES = "dask-classify"
_MACHINES = ("x86_64", "aarch64")  # of workers
LINUX = {"os_name": "posix", "sys_platform": "linux", "platform_system": "Linux"}  # what workers run, for markers


def pinned(
    requirements: str | Path | Iterable[str] | None, package: Bundle | None = None, *, everything: bool = False
) -> tuple[str, ...]:
    """Return what is needed as "name==version", sorted by name.

    Parameters
    ----------
    requirements : str, Path or iterable of str, optional
        A file with a requirement per line, or requirements as pip reads them: "scikit-learn>=1.5".
    package : Bundle, optional
        A classifier, whose file may have requirements of its own: a block `# /// script`, as in PEP 723.
    everything : bool
        Whether all packages that are installed here are needed.

    Returns
    -------
    tuple of str
        With the versions that are installed here.

    Raises
    ------
    UsageError
        If a requirement cannot be read, or is not met by what is installed here.
    """
    texts = _of_file(Path(requirements)) if isinstance(requirements, str | Path) else list(requirements or ())
    texts += _of_script(package) if package else []
    texts += _of_everything() if everything else []
    pins = [_pin(_parsed(text)) for text in texts]
    return tuple(sorted({pin for pin in pins if pin}))


def version_of(pin: str) -> tuple[str, str]:
    """Return name and version of "name[extra]==version"."""
    requirement = Requirement(pin)
    return canonicalize_name(requirement.name), str(requirement.specifier).removeprefix("==")


@functools.cache
def installed(pins: tuple[str, ...]) -> dict[str, str]:
    """Return the versions that are installed here of what is pinned, by name; "none" where there is none."""
    return {name: _installed_version(name) or "none" for name, _ in map(version_of, pins)}


def _of_file(file: Path) -> list[str]:
    """Return the requirements of a file like pip's, whose hashes and comments do not count."""
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"Cannot read the requirements in {file}: {reason}.", "Check --requirements.") from error
    lines = [re.sub(r"(^|\s)#.*", "", _HASHES.sub("", line)).strip() for line in text.replace("\\\n", " ").splitlines()]
    for line in lines:
        if line.startswith("-"):
            raise UsageError(
                f"{file} has the option {line.split()[0]!r}, which is not a requirement.",
                "Name packages only. The index of instances is --index-url.",
            )
    return [line for line in lines if line]


def _of_script(package: Bundle) -> list[str]:
    """Return the requirements in the classifier's own file, and check that they allow this Python."""
    path = PurePosixPath(*package.entry.partition(":")[0].split("."))
    name = next((name for name in (f"{path}.py", f"{path}/__init__.py") if name in package.files), "")
    text = package.files.get(name, b"").decode(errors="replace").replace("\r\n", "\n")
    blocks = [match["content"] for match in _SCRIPT.finditer(text) if match["type"] == "script"]
    if not blocks:
        return []
    if len(blocks) > 1:
        raise UsageError(f"{name} has several blocks '# /// script'.", "Leave one of them.")
    try:
        lines = (line.removeprefix("#").removeprefix(" ") for line in blocks[0].splitlines())
        script = tomllib.loads("\n".join(lines))
        wanted, dependencies = script.get("requires-python", ""), script.get("dependencies", [])
        if not isinstance(dependencies, list) or not all(isinstance(text, str) for text in [wanted, *dependencies]):
            raise ValueError("requires-python must be a text, and dependencies a list of texts")
        allowed = SpecifierSet(wanted)
    except ValueError as error:  # also those of tomllib and packaging
        raise UsageError(f"The block '# /// script' of {name} cannot be read: {error}.", "See PEP 723.") from error
    if not allowed.contains(platform.python_version(), prereleases=True):
        raise UsageError(
            f"{name} requires Python {wanted}, and this is {platform.python_version()}.",
            "Use another Python, or change requires-python.",
        )
    return dependencies


def _of_everything() -> list[str]:
    names = {distribution.metadata["Name"] for distribution in importlib.metadata.distributions()}
    return [name for name in names if name and canonicalize_name(name) != OURSELVES]


def _parsed(text: str) -> Requirement:
    try:
        return Requirement(text)
    except InvalidRequirement as error:
        raise UsageError(
            f"{text!r} is not a requirement.", "Write it as for pip, with ==, >=, <= or ~=: scikit-learn>=1.5."
        ) from error


def _pin(requirement: Requirement) -> str | None:
    """Return a requirement with the version that is installed here; None if it is not for Linux."""
    if requirement.marker:
        machines = [requirement.marker.evaluate(LINUX | {"platform_machine": name}) for name in _MACHINES]
        if len(set(machines)) > 1:
            raise UsageError(
                f"{requirement} depends on the processor, and all workers must have the same packages.",
                "Write it without platform_machine.",
            )
        if not machines[0]:
            return None
    here = _installed_version(requirement.name)
    if not here:
        raise UsageError(
            f"{requirement} is not installed here, and workers must have the same packages.",
            f"Install it: pip install {str(requirement).partition(';')[0]!r}",
        )
    if not requirement.specifier.contains(here, prereleases=True):
        raise UsageError(
            f"The classifier requires {requirement}, but {here} is installed here.",
            "Install the required version, or change the requirement.",
        )
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{canonicalize_name(requirement.name)}{extras}=={here}"


def _installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
