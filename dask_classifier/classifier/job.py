"""What a task is told, and what it tells: small values that travel, and that the client knows without pandas."""

import functools
import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import NamedTuple

from ..errors import TooManyBadRows
from ..rows.layouts import Layout

# The tasks, by name: the client, the scheduler and the Dask workers need not import what a classifier process needs.
UNPACK, SURVEY, TRY_OUT, CLASSIFY_BLOCK = (
    f"dask_classifier.tasks:{name}" for name in ("unpack", "survey", "try_out", "classify_block")
)


@dataclass(frozen=True)
class Settings:
    """What a task must know to do a block: small enough to travel with each."""

    output: str
    fingerprint: str
    layout: Layout  # of what blocks read
    entry: str  # of the classifier
    slowness: int | None
    chunk_rows: int
    part_format: str
    header: bool  # a header line in the first part
    max_bad_rows: int  # in the whole run


class Trial(NamedTuple):
    """What trying the classifier out on the first rows has shown."""

    rows: int
    seconds_a_row: float


@functools.cache
def versions() -> dict[str, str]:
    """The versions on which the bytes of a run depend."""
    names = ("dask-classify", "pandas", "numpy", "pyarrow")
    return {"python": ".".join(platform.python_version_tuple()[:2])} | {name: version(name) for name in names}


def too_many(first: str, allowed: int, traceback: str) -> TooManyBadRows:
    """The error that names the first bad row; `traceback` is that of the classifier, "" where it did not raise."""
    limit = "no bad row is" if allowed == 0 else "1 bad row is" if allowed == 1 else f"{allowed:,} bad rows are"
    if traceback:
        check, fix = number_hint(traceback), "fix the classifier"
    else:
        check, fix = "Check --delimiter and --encoding.", "fix the input"
    allow = "Allow more bad rows, such as --max-bad 10, with --resume"
    error = TooManyBadRows(
        f"Stopped at a bad row, where {limit} allowed: {first}.", f"{check} {allow}, or {fix} and start again.".strip()
    )
    return error.with_details(traceback)


def number_hint(traceback: str) -> str:
    """What to do where the classifier's traceback ends as that of text taken for a number or for a missing value."""
    last = traceback.rpartition("\n")[2]
    if last.startswith(("ValueError: could not convert string to float", "ValueError: invalid literal for int()")):
        return 'A missing value is the empty text: convert with pd.to_numeric(column, errors="coerce").'
    if last.startswith("TypeError") and "argument" not in last:
        return 'Values are text: convert numbers with pd.to_numeric(column, errors="coerce").'
    return ""
