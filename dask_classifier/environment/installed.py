"""Which installed packages an environment needs, and which of them no index has."""

import importlib.metadata
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ..classifier.local_packages import is_local
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
