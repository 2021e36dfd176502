"""Measure the classifier on rows from all over a source, in classifier processes that all work at the same time.

The source is surveyed, as by a run. Each round then takes 500 rows or fewer from fifty places: each of its five calls
has rows from ten places of one fifth of the source. So a sorted file does not mislead, and the time per row is known
along the source. Rounds are repeated until the mean is precise or the time is used up.
"""

import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

from dask.system import CPU_COUNT

from ..classifier.job import MEASURE, TRIAL_SECONDS, Measured, Trial
from ..engine.executors import Executor
from ..engine.flight import Outcome
from ..engine.prepare import TRIAL_CHUNKS, first_rows, survey, try_out, write_copies
from ..errors import BlocksFailed, ProcessDied, UsageError
from ..rows.blocks import Marks, Span
from ..rows.reading import size_of
from ..rows.source import InputFile, Source
from ..runs.planning import Plan

STRATA, PLACES = 5, 10  # fifths of the source, and places of a call
_LEAST_SECONDS, _SHARE = 2.0, 0.01  # of sampling: the larger of two seconds and 1 % of the work
_MOST_SECONDS, _MARGIN = 10.0, 0.75  # the share of the time that may be planned
_CALL_SECONDS = 0.2  # at least, for cheap classifiers: a block has a cost of its own
_MOST_CALL_ROWS = 20_000
_PRECISE = 0.01  # standard error of the mean, relative, at which sampling ends
_GOLDEN = 0.6180339887  # multiples of it, modulo 1, cover an interval evenly, however many there are


@dataclass(frozen=True)
class Measurements:
    """Measurements of rows from each fifth of a source: (number of the fifth, measurement)."""

    calls: tuple[tuple[int, Measured], ...]

    @property
    def rows(self) -> int:
        """Rows that were classified."""
        return sum(measured.rows for _, measured in self.calls)

    @cached_property
    def profile(self) -> list[float]:
        """Mean seconds per row in each fifth of the source."""
        seconds, rows = [0.0] * STRATA, [0] * STRATA
        for fifth, measured in self.calls:
            seconds[fifth] += measured.seconds
            rows[fifth] += measured.rows
        overall = sum(seconds) / max(sum(rows), 1)
        return [spent / count if count else overall for spent, count in zip(seconds, rows, strict=True)]

    @property
    def seconds_a_row(self) -> float:
        """Mean seconds per row over the source."""
        return statistics.fmean(self.profile)

    @property
    def cpu_share(self) -> float:
        """Share of the time in which a process used a core: below 1, it waited for something else."""
        wall = sum(measured.seconds for _, measured in self.calls)
        return min(1.0, sum(measured.cpu_seconds for _, measured in self.calls) / wall) if wall else 1.0

    @property
    def each(self) -> list[float]:
        """Seconds per row of each call."""
        return [measured.seconds / measured.rows for _, measured in self.calls if measured.rows]

    @property
    def degrees_of_freedom(self) -> int:
        """Of the scatter: around the mean of each fifth or, of a single round, around a straight line."""
        return len(self.each) - STRATA if len(self.each) > STRATA else len(self.each) - 2

    @property
    def relative_error(self) -> float:
        """Standard error of the mean seconds per row, over the mean, from the scatter of calls."""
        if self.degrees_of_freedom < 1:
            return 0.5  # hardly anything is known
        fifths = [fifth for fifth, measured in self.calls if measured.rows]
        expected = [self.profile[fifth] for fifth in fifths]
        if len(fifths) <= STRATA:
            slope, intercept = statistics.linear_regression(fifths, self.each)
            expected = [slope * fifth + intercept for fifth in fifths]
        squares = sum((value - mean) ** 2 for value, mean in zip(self.each, expected, strict=True))
        return math.sqrt(squares / self.degrees_of_freedom / len(fifths)) / self.seconds_a_row


@dataclass(frozen=True)
class Sample:
    """What a sample has shown.

    Attributes
    ----------
    rows : int
        Rows of the source.
    marks : tuple of Marks
        From the survey, for cutting the source.
    row_bytes : float
        Length of a row.
    trial : Trial
        The trial on the first rows, by which a run sizes its blocks.
    measured : Measurements
        Of rows from all over the source.
    loading, first_call : float
        Seconds in which a process loads the classifier and calls it for the first time, and those of the call.
    processes : int
        Processes that worked at the same time.
    cores : int
        Cores that they shared.
    is_remote : bool
        Whether that was on other computers.
    start_seconds : float
        From the start of the cluster to the end of the survey.
    seconds : float
        Time that sampling took after that.
    """

    rows: int
    marks: tuple[Marks, ...]
    row_bytes: float
    trial: Trial
    measured: Measurements
    loading: float
    first_call: float
    processes: int
    cores: int
    is_remote: bool
    start_seconds: float
    seconds: float


def take_sample(plan: Plan, executor: Executor, rows: int | None, began: float) -> Sample:
    """Try the classifier out, survey the source, and measure `rows` rows, or as many as the time allows.

    Parameters
    ----------
    plan : Plan
        What to classify.
    executor : Executor
        Where.
    rows : int, optional
        Rows to measure, rounded up to whole rounds. Default: at least one round of 500 rows, more if that is not
        precise; but for at most two seconds or 1 % of the work, whichever is more.
    began : float
        When the cluster was started, by `time.perf_counter`.

    Raises
    ------
    UsageError
        The source has no rows.
    WrongAnswer, TooManyBadRows, StorageError, SourceError
        What a run raises.
    """
    name, layout, first = first_rows(plan, TRIAL_CHUNKS)
    trial_began = time.perf_counter()
    trial = try_out(executor, plan, name, layout, first)
    trial_seconds = time.perf_counter() - trial_began
    if len(first) and not trial.rows:
        raise BlocksFailed(
            "The classifier process exited on the first rows, so nothing can be estimated.",
            "Try it on a few rows: dask-classify --rows 100 --cluster inline. Or estimate nothing: --sample 0.",
        )
    with _readable(plan, executor) as source:
        source, marks = survey(source, executor, plan.limit)
        total = sum(each.rows[-1] for each in marks)
        if not total:
            raise UsageError("The source has no rows to sample.", "Give an input with rows, or do without: --sample 0.")
        start_seconds, began = time.perf_counter() - began, time.perf_counter()
        sampler = _Sampler(plan, source, marks, trial, executor.processes, rows)
        with closing(executor.each(MEASURE, sampler.arguments(), plan.block_timeout)) as outcomes:
            for outcome in outcomes:
                sampler.done[outcome.number] = _measured(outcome)
    firsts = [measured for measured in sampler.done.values() if measured.loading is not None]
    return Sample(
        rows=total,
        marks=tuple(marks),
        row_bytes=size_of(first) / trial.rows if trial.rows else 0.0,
        trial=trial,
        measured=sampler.measured,
        # with a single process, the trial has loaded the classifier
        loading=max((measured.loading for measured in firsts), default=max(0.0, trial_seconds - 2 * TRIAL_SECONDS)),
        first_call=max((measured.first_call for measured in firsts), default=0.0),
        processes=executor.processes,
        cores=executor.processes if executor.is_remote else CPU_COUNT,
        is_remote=executor.is_remote,
        start_seconds=start_seconds,
        seconds=time.perf_counter() - began,
    )


def _measured(outcome: Outcome) -> Measured:
    """Return the measurement of a call. Raise the error if there is one."""
    if isinstance(outcome.error, ProcessDied):
        raise BlocksFailed(
            f"The classifier process exited on sampled rows: it {outcome.error.message}.",
            "Estimate nothing: --sample 0. A run names the blocks with such rows.",
        )
    if outcome.error:
        raise outcome.error
    return outcome.value


@contextmanager
def _readable(plan: Plan, executor: Executor) -> Iterator[Source]:
    """Return the source so that each place can be read, for the `with` block.

    Large compressed files, and a DataFrame, have copies in a temporary folder.
    """
    source = plan.source
    copied = [*source.copies, *source.flowing]
    if not copied:
        yield source
        return
    if executor.is_remote:
        raise UsageError(
            "Large compressed inputs cannot be sampled on another computer.",
            "Estimate on this one: leave the cluster out.",
        )
    with tempfile.TemporaryDirectory(prefix="dask-classify-") as folder:
        moved = {number: file.with_copy_in(folder) for number, file in copied}
        source = replace(source, files=tuple(moved.get(number, file) for number, file in enumerate(source.files)))
        yield source.with_copies(write_copies(list(moved.items()), source.layout, executor, plan.limit))


class _Sampler:
    """Chooses places of a source for one call after the other, and decides when there are enough."""

    def __init__(self, plan: Plan, source: Source, marks: list[Marks], trial: Trial, processes: int, rows: int | None):
        self.job = plan.job(plan.max_bad.of(10**9))
        self.source, self.marks = source, marks
        self.done: dict[int, Measured] = {}
        self.asked = 0  # rows
        self.total = sum(each.rows[-1] for each in marks)
        self.wanted = None if rows is None else min(rows, self.total)
        speed = max(trial.seconds_a_row, 1e-7)
        self.processes, self.chunk_rows, self.trial_speed = processes, plan.chunk_rows, speed
        self.budget = max(_LEAST_SECONDS, min(_SHARE * self.total * speed / processes, _MOST_SECONDS))
        self.call_rows = self._first_call_rows()

    def _first_call_rows(self) -> int:
        """Return the rows of the first calls: a chunk, unless five calls would then take more time than there is."""
        if self.wanted is not None and self.wanted < STRATA * self.chunk_rows:
            return max(1, math.ceil(self.wanted / STRATA))
        affordable = self.budget * min(self.processes, STRATA) / STRATA / self.trial_speed
        return self._fitting(min(self.chunk_rows, max(PLACES, int(affordable))))

    def _fitting(self, rows: int) -> int:
        return max(1, min(rows, self.total // STRATA))

    def arguments(self) -> Iterator[tuple]:
        """Yield the arguments of the next call, round by round.

        Several calls are under way at a time, so each round is decided with what has been measured until then.
        """
        began = time.perf_counter()
        for number in itertools.count():
            if number and number % STRATA == 0:
                if self._is_enough(number, time.perf_counter() - began):
                    return
                self._adapt()
            self.asked += self.call_rows
            yield self.job, self._places(number)

    def _adapt(self) -> None:
        """Make the calls of a cheap classifier larger: a block has a cost of its own, which does not count per row."""
        if self.wanted is None and self.done:
            chunks = math.ceil(_CALL_SECONDS / (self._speed() * self.chunk_rows))
            rows = max(1, min(chunks, _MOST_CALL_ROWS // self.chunk_rows)) * self.chunk_rows
            self.call_rows = max(self.call_rows, self._fitting(rows))

    def _speed(self) -> float:
        """Seconds per row, as far as it is known."""
        return self.measured.seconds_a_row if self.done else self.trial_speed

    def _is_enough(self, calls: int, seconds: float) -> bool:
        if self.wanted is not None:
            return calls * self.call_rows >= self.wanted
        under_way = self.asked - sum(measured.rows for measured in self.done.values())
        more = (under_way + STRATA * self.call_rows) * self._speed() / self.processes
        if seconds + more > _MARGIN * self.budget:  # the last rows may be slower than the first ones
            return True
        is_precise = len(self.done) > 2 * STRATA and self.measured.relative_error < _PRECISE
        return is_precise and seconds > _LEAST_SECONDS / 4

    @property
    def measured(self) -> Measurements:
        """What has been measured so far, without calls that were much smaller than later ones."""
        most = max((measured.rows for measured in self.done.values()), default=0)
        calls = [(number % STRATA, one) for number, one in sorted(self.done.items()) if 4 * one.rows >= most]
        return Measurements(tuple(calls))

    def _places(self, number: int) -> list[tuple[InputFile, Span]]:
        """Return the places of a call: evenly over its fifth, and elsewhere in each round."""
        shift = (0.5 + (number // STRATA) * _GOLDEN) % 1
        width = self.total / STRATA / PLACES
        first = (number % STRATA) * self.total / STRATA
        rows = [self.call_rows // PLACES + (place < self.call_rows % PLACES) for place in range(PLACES)]
        chosen = [self._place(first + (place + shift) * width, count) for place, count in enumerate(rows) if count]
        # a call has one text format; copies of files in another encoding than UTF-8 have another one than the rest
        layouts = [file.layout_of_rows(self.source.layout) for file, _ in chosen]
        return [place for place, layout in zip(chosen, layouts, strict=True) if layout == layouts[0]]

    def _place(self, position: float, rows: int) -> tuple[InputFile, Span]:
        """Return rows at a position of the source, or before it, where a file ends."""
        before = 0
        for number, marks in enumerate(self.marks):
            there = marks.rows[-1]
            if position < before + there:
                rows = min(rows, there)
                first = max(0, min(int(position) - before, there - rows))
                return self.source.files[number], marks.span(number, first, rows)
            before += there
        raise IndexError(position)
