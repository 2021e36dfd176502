"""What a classifier process is given and what it returns: small values that travel, and that need no pandas."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ..rows.layouts import Layout

# The tasks, by name: the client, the scheduler and the Dask workers need not import what a classifier process needs.
WRITE_COPY, SURVEY, TRY_OUT, CLASSIFY_BLOCK = (
    f"dask_classifier.tasks:{name}" for name in ("write_copy", "survey", "try_out", "classify_block")
)

Report = Callable[[int, int], None]  # rows and bad rows so far, of the task that is running


class Site(NamedTuple):
    """Where a task runs."""

    worker: str  # the Dask worker's name
    folder: str  # where the classifier's files are


@dataclass(frozen=True)
class Job:
    """What all blocks of a run have in common: small enough to travel with each task."""

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
    """The measurement of a trial on the first rows."""

    rows: int
    seconds_a_row: float
