"""What a classifier process gets and returns: small values that are cheap to send and do not need pandas."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..rows.layouts import Layout  # imports numpy

# Tasks are named, so that client, scheduler and Dask workers need not import what a classifier process needs.
WRITE_COPY, SURVEY, TRY_OUT, MEASURE, UNPACK, CLASSIFY_BLOCK, WRITE_PIECE = (
    f"dask_classifier.tasks:{name}"
    for name in ("write_copy", "survey", "try_out", "measure", "unpack", "classify_block", "write_piece")
)

TRIAL_SECONDS = 0.25  # duration of a trial; a longer one would waste time, since the first block repeats its work

Report = Callable[[int, int], None]  # called with the rows and bad rows of the running task so far


class Site(NamedTuple):
    """Where a task runs."""

    worker: str  # the Dask worker's name
    folder: str  # where the classifier's files are


@dataclass(frozen=True)
class Job:
    """Everything that all blocks of a run have in common: small enough to be sent with each task."""

    output: str
    fingerprint: str
    layout: "Layout"  # of the source
    entry: str  # of the classifier
    slowness: int | None
    chunk_rows: int
    part_format: str
    header: bool  # a header line in the first part
    max_bad_rows: int  # in the whole run


class Trial(NamedTuple):
    """The result of a trial on the first rows: rows of the sample, and measured seconds per row."""

    rows: int
    seconds_a_row: float


class Measured(NamedTuple):
    """A measurement of some rows: their number, and seconds for reading them as CSV, classifying and compressing."""

    rows: int
    seconds: float
    cpu_seconds: float  # of the process that did it
    loading: float | None  # seconds for loading the classifier, and its first call; None if it was loaded already
    first_call: float = 0.0  # seconds of these for the call
