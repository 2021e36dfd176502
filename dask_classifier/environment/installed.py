"""Which installed packages an environment needs, and which of them no index has."""

import importlib.metadata
import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ..classifier.requirements import LINUX, OURSELVES
from ..errors import UsageError
from .pip import MACHINES


@dataclass(frozen=True)
class Needed:
    """The packages of an environment: `pins` as "name==version" from an index, `local` from here."""

    pins: tuple[str, ...]
    local: tuple[Distribution, ...]


def needed(requirements: Iterable[str], architecture: str) -> Needed:
    """Return this package, what is required, and all that these depend on, with the versions that are installed here.

    Parameters
    ----------
    requirements
        As "name==version".
    architecture
        Of the machines: "x86_64" or "arm64", as AWS names them.

    Raises
    ------
    UsageError
        If a package that another one needs on the machines is not installed here.
    """
    markers = LINUX | {"platform_machine": MACHINES[architecture]}
    found: dict[str, Distribution] = {}
    rest = [(Requirement(text), "this run") for text in (OURSELVES, *requirements)]
    seen: set[tuple[str, str]] = set()  # names, each with an extra or with ""
    while rest:
        requirement, wanted_by = rest.pop()
        name = canonicalize_name(requirement.name)
        found[name] = _distribution(name, wanted_by)
        for extra in {"", *requirement.extras} - {extra for other, extra in seen if other == name}:
            seen.add((name, extra))
            rest += [(one, name) for one in _dependencies(found[name], {**markers, "extra": extra})]
    local = tuple(found[name] for name in sorted(found) if name == OURSELVES or is_local(found[name]))
    return Needed(tuple(f"{name}=={one.version}" for name, one in sorted(found.items()) if one not in local), local)


def _distribution(name: str, wanted_by: str) -> Distribution:
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise UsageError(
            f"{name}, which {wanted_by} needs on the instances, is not installed here.",
            "Install it, or give an --image.",
        ) from None


def _dependencies(distribution: Distribution, markers: dict[str, str]) -> list[Requirement]:
    """Return what a package requires on the machines, with the extra that the markers name."""
    requirements = map(Requirement, distribution.requires or [])
    return [one for one in requirements if not one.marker or one.marker.evaluate(markers)]


def is_local(distribution: Distribution) -> bool:
    """Return whether a package was installed from a folder, a file or a repository, and not from an index (PEP 610).

    conda's packages name the folder in which they were built: they are taken from the index. No others are, even if
    their folder is gone: on an index, somebody else's package may have that name.
    """
    origin = distribution.read_text("direct_url.json")
    return bool(origin) and (distribution.read_text("INSTALLER") or "").strip() != "conda"


def folder_of_editable(distribution: Distribution) -> str | None:
    """Return the folder of a package of which only a reference is installed; None for others."""
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    return unquote(urlsplit(origin["url"]).path) if origin.get("dir_info", {}).get("editable") else None
