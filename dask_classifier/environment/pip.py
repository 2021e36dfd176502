"""pip, run for another machine: which wheels it would install there, and what went wrong, in a line."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import ClusterError

# The C library of Debian 12, on which Python's images have been based since 2023. An older one runs there, too.
_GLIBC = range(17, 37)
MACHINES = {"x86_64": "x86_64", "arm64": "aarch64"}  # AWS's name of an architecture to that of Linux and of wheels
_UNREACHABLE = re.compile(r"connection broken by|Max retries exceeded|NameResolutionError|Connection refused|timed out")
_NO_WHEEL = re.compile(r"No matching distribution found for (([\w.-]+)==\S+)")  # groups: the pin, its name
_PATIENCE = ["--retries", "2", "--timeout", "15"]


def options_for(python: str, architecture: str, index_url: str | None = None) -> list[str]:
    """Return pip's options for wheels of Linux with this minor version of Python, and this architecture."""
    machine = MACHINES[architecture]
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in reversed(_GLIBC)]
    platforms += [f"manylinux2014_{machine}", f"linux_{machine}"]
    if architecture == "x86_64":
        platforms += ["manylinux2010_x86_64", "manylinux1_x86_64"]
    words = ["--only-binary", ":all:", "--implementation", "cp", "--python-version", python]
    words += [word for name in platforms for word in ("--platform", name)]
    return words + (["--index-url", index_url] if index_url else [])


def resolve(
    pins: Sequence[str],
    wheels: Iterable[Path],
    options: list[str],
    folder: Path,
    pack: Callable[[str], Path | None] = lambda name: None,
) -> list[dict[str, Any]]:
    """Return what pip would install for these versions and wheels: the entries `install` of its report.

    Dependencies are not looked up. If the index has no wheel of a package, `pack` may return one. Raises ClusterError
    if it does not, or if the index cannot be reached.
    """
    report, wanted = folder / "report.json", folder / "wanted.txt"
    words = ["install", "--dry-run", "--no-deps", "--ignore-installed", "--target", str(folder / "nowhere")]
    words += ["--report", str(report), *options, "--requirement", str(wanted), *_PATIENCE]
    left, local = list(pins), list(wheels)
    while True:
        wanted.write_text("".join(f"{line}\n" for line in [*left, *(wheel.as_uri() for wheel in local)]))
        done = _call(words)
        missing = _NO_WHEEL.search(done.stderr)
        wheel = missing and missing[1] in left and not _UNREACHABLE.search(done.stderr) and pack(missing[2])
        if not wheel:
            _check(done)
            return json.loads(report.read_text())["install"]
        left.remove(missing[1])
        local.append(wheel)


def download(requirements: Path, wheels: Path, options: list[str]) -> None:
    """Download the wheels of a file of requirements to a folder. Raises ClusterError."""
    words = ["download", "--no-deps", "--dest", str(wheels), *options, "--requirement", str(requirements)]
    _check(_call([*words, *_PATIENCE]))


def build(name: str, source: str, folder: Path, index_url: str | None = None) -> Path:
    """Build the wheel of a package from its folder, into another one, and return its path. Raises ClusterError.

    What the build needs comes from this index. Default: that of pip's configuration.
    """
    before = set(folder.glob("*.whl"))
    index = ["--index-url", index_url] if index_url else []
    done = _call(["wheel", "--no-deps", "--wheel-dir", str(folder), *index, source])
    built = set(folder.glob("*.whl")) - before
    if done.returncode or len(built) != 1:
        raise ClusterError(
            f"Cannot build a wheel of {name} from {source}: {_last_error(done.stderr)}.",
            "Install the package without --editable, or give an --image that contains it.",
        )
    return built.pop()


def _check(done: subprocess.CompletedProcess[str]) -> None:
    """Raise ClusterError with the last line of pip's errors, if it has failed."""
    if not done.returncode:
        return
    reason = _last_error(done.stderr)
    if "No module named pip" in done.stderr:
        raise ClusterError(
            "pip, which finds the packages for instances, is not installed.", "Install it, or give an --image."
        )
    if _UNREACHABLE.search(done.stderr):
        raise ClusterError(
            f"The package index cannot be reached: {reason}.", "Check the network, pip's configuration and --index-url."
        )
    hint = "Each package must have a wheel for Linux. Change the requirements, or give an --image."
    if re.search(r"==\S+\+", reason):
        hint = "Name the index of that version in pip's configuration, as extra-index-url: its wheels are then sent."
    raise ClusterError(f"The environment of the instances cannot be put together: {reason}.", hint)


def _call(words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run pip; what it builds has no time of its own."""
    command = [sys.executable, "-m", "pip", "--quiet", *words, "--disable-pip-version-check", "--no-input"]
    environment = {"SOURCE_DATE_EPOCH": "315532800", **os.environ}
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment)


def _last_error(text: str) -> str:
    """Return the last error that pip has printed, without its label and full stop."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR: ")] or lines or ["pip printed nothing"]
    return errors[-1].removeprefix("ERROR: ").rstrip(".")
