"""`estimate`: sample a plan's rows, simulate its run in several places, and recommend one."""

import math
import time
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

import numpy as np
from distributed import Client
from distributed.deploy.cluster import Cluster

from ..ec2.spec import ClusterSpec
from ..engine.connect import connect
from ..runs.earlier import Earlier
from ..runs.plan_file import Cut
from ..runs.planning import Plan, new_run_id
from ..runs.progress import Progress
from ..units import count_of, format_seconds
from . import records
from .estimate import EC2, LOCAL, Choice, Estimate, Range, tomorrows_note
from .places import EC2_END_SECONDS, EC2_START_SECONDS, SIZES, Fleet, Place, here, unasked
from .recommendation import recommend
from .records import Record
from .sample import PLACES, Sample, take_sample
from .simulation import LOCAL_BLOCK_SECONDS, S3_BLOCK_SECONDS, Schedule, blocks_of, simulate, work_of
from .target import Target

END_SECONDS = 0.3  # manifest and report
# relative allowances for what a sample does not show: standard deviations of the work, without and with earlier runs,
# and half-widths of the start, measured and guessed; benchmarks/calibration.py checks the ranges that they give
_UNSEEN, _UNSEEN_WARM, _UNSEEN_START, _UNSEEN_EC2 = 0.025, 0.02, 0.15, 0.35
_NORMAL_80 = 1.2816  # of a normal distribution, 80 % lie within this many standard deviations
_STUDENT_80 = {1: 3.078, 2: 1.886, 3: 1.638, 4: 1.533, 5: 1.476, 6: 1.440, 7: 1.415, 8: 1.397, 9: 1.383, 10: 1.372}
_MOST_INSTANCES = 256


def estimate(
    plan: Plan,
    cluster: Cluster | Client | str | None = None,
    *,
    sample: int | None = None,
    processes: int | None = None,
    instances: int | None = None,
    finish_by: str | None = None,
    finish_in: str | float | None = None,
    budget: str | float | None = None,
    spec: ClusterSpec | None = None,
    history: str | None = None,
    worker_timeout: str | float | None = None,
) -> Estimate:
    """Measure a sample of a plan's rows, and predict what the run takes here and on EC2.

    Nothing is written or launched.

    Parameters
    ----------
    plan : Plan
        What to do, from `plan`.
    cluster : Dask cluster, Client or str, optional
        Where to measure; as of `run`. Default: all cores of this computer.
    sample : int, optional
        Rows to measure. Default: up to 500 in each round, for two seconds or 1 % of the work, whichever is more.
    processes : int, optional
        Classifier processes of a run here. Default: those of the cluster.
    instances : int, optional
        Workers on EC2. Default: several sizes.
    finish_by, finish_in : str, optional
        When the run must have ended: a time of day such as "15:50", or a time from now such as "45m".
    budget : float, optional
        What it may cost in $.
    spec : ClusterSpec, optional
        Options of the clusters on EC2, for which the package's table of prices counts. Default: those of Dask's
        configuration.
    history : str, optional
        Folder or s3:// prefix with earlier runs. Default: the folder that will hold this run's.
    worker_timeout : float or str, optional
        As of `run`.

    Returns
    -------
    Estimate
        Minutes, dollars and a recommendation.

    Raises
    ------
    UsageError
        The source has no rows, or an argument is wrong.
    WrongAnswer, TooManyBadRows, StorageError, SourceError, ClusterError
        What a run raises.

    Examples
    --------
    >>> dc.estimate(plan, finish_in="45m")  # doctest: +SKIP
    """
    target = Target.of(finish_by, finish_in, budget)
    spec = spec or ClusterSpec.defaults()
    sampled = sample_of(plan, cluster, sample, worker_timeout)
    past = records.records(history or plan.output.rpartition("/")[0])
    return Planner(plan, sampled, past).estimate(unasked(spec), target, processes=processes, instances=instances)


def sample_of(plan: Plan, cluster, rows: int | None = None, worker_timeout: str | float | None = None) -> Sample:
    """Sample a plan's rows on a cluster."""
    began = time.perf_counter()
    with connect(cluster, new_run_id(), plan.package, Progress(), worker_timeout=worker_timeout) as executor:
        return take_sample(plan, executor, rows, began)


@dataclass(frozen=True)
class Planner:
    """Predicts runs of one plan from its sample, and from earlier runs."""

    plan: Plan
    sample: Sample
    past: Sequence[Record] = ()
    earlier: Earlier | None = None  # an attempt that is to be resumed

    def estimate(
        self,
        fleet: Fleet | None,
        target: Target,
        *,
        processes: int | None = None,
        instances: int | None = None,
        places: Container[str] = (LOCAL, EC2),
    ) -> Estimate:
        """Return the choices: here, and on clusters of `fleet` of several sizes, or of `instances` workers.

        One of those in `places` is recommended.
        """
        local = self.choice(self._this(processes))
        choices = [local, *(self._fleet_choices(fleet, target, instances) if fleet else [])]
        number, why = recommend(choices, target, places)
        measured = self.sample.measured
        median, largest = _quantiles(measured.each)
        return Estimate(
            rows=self.sample.rows,
            ms_per_row=local.ms_per_row,
            sampled=measured.rows,
            places=min(measured.rows, PLACES * len(measured.calls), self.sample.rows),
            spread=(1000 * median, 1000 * largest),
            choices=tuple(choices),
            recommended=number,
            why=why,
            target=target,
            notes=tuple(self._notes(fleet, target, choices)),
            made_at=time.time(),
        )

    def _this(self, processes: int | None) -> Place:
        """Return this computer, or the cluster on which the sample was measured."""
        place = here(processes or self.sample.processes, self.sample.cores)
        return replace(place, label=f"this cluster, {place.processes} processes") if self.sample.is_remote else place

    def _fleet_choices(self, fleet: Fleet, target: Target, instances: int | None) -> list[Choice]:
        """Return clusters of doubling size, as long as they are clearly faster, and the smallest that meets a time."""
        if instances:
            return [self.choice(fleet.place(instances))]
        choices = []
        for size in [size for size in SIZES if size >= fleet.fewest] or [fleet.fewest]:
            choice = self.choice(fleet.place(size))
            if choices and choice.seconds.mid > 0.95 * choices[-1].seconds.mid:
                break
            choices.append(choice)
        if target.finish_by and (size := self._smallest(fleet, target)) not in {
            0,
            *(each.instances for each in choices),
        }:
            choices = sorted([*choices, self.choice(fleet.place(size))], key=lambda each: each.instances)
        return choices

    def _smallest(self, fleet: Fleet, target: Target) -> int:
        """Return the smallest number of instances that surely ends in time; 0 if none does."""
        in_time = replace(target, budget=None)
        low, high = fleet.fewest - 1, _MOST_INSTANCES + 1  # low does not meet it; high does, or none does
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if in_time.is_met(self.choice(fleet.place(middle))) else (middle, high)
        return high if high <= _MOST_INSTANCES else 0

    def choice(self, place: Place) -> Choice:
        """Predict the run in one place."""
        factor, runs = self._correction(place)
        slowdown = factor * self._slowdown(place)
        schedule = self._schedule(place, slowdown)
        starting, ending, unsure = self._around(place)
        total = starting + schedule.seconds + ending
        error = math.hypot(schedule.seconds * self._relative_error(runs), (starting + ending) * unsure)
        seconds = Range(max(total - error, 0.5 * total), total, total + error)
        dollars = place.price.cost(total) if place.price else 0.0
        return Choice(
            where=place.where,
            instance_type=place.instance_type,
            instances=place.instances,
            processes=place.processes,
            seconds=seconds,
            dollars=dollars,
            ends_at=time.time() + total,
            starting=starting,
            ending=ending,
            deadline=place.deadline,
            blocks=schedule.blocks,
            tail=schedule.tail,
            label=place.label,
            dollars_per_hour=place.price.dollars if place.price else 0.0,
            ms_per_row=1000 * slowdown * self.sample.measured.seconds_a_row,
            sampled_ms_per_row=self._sampled_ms(place),
            first_call=self.sample.first_call,
        )

    def _schedule(self, place: Place, slowdown: float) -> Schedule:
        cut = self._earlier_cut()
        blocks = cut.blocks if cut else blocks_of(self.plan, self.sample, place.processes)
        work = work_of(blocks, self.sample.measured.profile) * slowdown
        if cut:
            missing = {block.index for block in cut.missing(self.earlier.receipts)}
            work = work[[block.index in missing for block in blocks]]
        elif done := self._rows_done():  # of the first blocks, more or less
            work = work[np.cumsum([block.rows for block in blocks]) > done]
        block_seconds = S3_BLOCK_SECONDS if "://" in self.plan.output else LOCAL_BLOCK_SECONDS
        return simulate(
            work, place.processes, first_seconds=self.sample.loading * slowdown, block_seconds=block_seconds
        )

    def _rows_done(self) -> int:
        """Return the rows that an earlier attempt has classified."""
        return sum(receipt.rows + receipt.bad_rows for receipt in self.earlier.receipts) if self.earlier else 0

    def _earlier_cut(self) -> Cut | None:
        """Return the cut of the run that is to be resumed, if all of its blocks are known."""
        cut = self.earlier and self.earlier.cut
        return cut if cut and cut.complete else None

    def _correction(self, place: Place) -> tuple[float, int]:
        where = place.where, place.instance_type
        return records.correction(self.past, self.plan, where, place.processes, self._sampled_ms(place))

    def _sampled_ms(self, place: Place) -> float:
        """Milliseconds per row in a place, as the sample alone predicts it."""
        return 1000 * self._slowdown(place) * self.sample.measured.seconds_a_row

    def _slowdown(self, place: Place) -> float:
        """How much slower a process is there than when it was sampled, because others share its core."""
        sampled = self._crowding(self.sample.processes, self.sample.cores)
        return self._crowding(place.processes, place.cores) / sampled

    def _crowding(self, processes: int, cores: int) -> float:
        """How much slower processes are that share cores."""
        return max(1.0, processes * self.sample.measured.cpu_share / cores)

    def _around(self, place: Place) -> tuple[float, float, float]:
        """Return the seconds before the first block and after the last one, and their relative uncertainty."""
        if place.where == LOCAL:
            return self.sample.start_seconds, END_SECONDS, _UNSEEN_START
        known = records.usual_start(self.past)
        start = (known or EC2_START_SECONDS) + self.sample.start_seconds
        return start, EC2_END_SECONDS, _UNSEEN_START if known else _UNSEEN_EC2

    def _relative_error(self, runs: int) -> float:
        """Half the width of the interval of the work, relative, from the sample's scatter and what it cannot see."""
        measured = self.sample.measured
        degrees = max(1, measured.degrees_of_freedom)
        scatter = measured.relative_error * _STUDENT_80.get(degrees, _NORMAL_80 * (1 + 0.6 / degrees))
        return math.hypot(scatter, _NORMAL_80 * (_UNSEEN_WARM if runs else _UNSEEN))

    def _notes(self, fleet: Fleet | None, target: Target, choices: list[Choice]) -> list[str]:
        notes = []
        if any(choice.where == EC2 for choice in choices):
            notes += self._notes_of_ec2(fleet)
        if done := self._rows_done():
            notes.append(f"{done:,} of {self.sample.rows:,} rows are done already")
        if runs := self._correction(self._this(choices[0].processes))[1]:
            notes.append(f"time per row here corrected by {count_of(runs, 'earlier run')} of this classifier")
        if past := records.calibration(self.past):
            notes.append(str(past))
        if note := tomorrows_note(target):
            notes.append(note)
        return notes

    def _notes_of_ec2(self, fleet: Fleet) -> list[str]:
        known, (_, runs) = records.usual_start(self.past), self._correction(fleet.place(fleet.fewest))
        start = f"{EC2_START_SECONDS / 60:.0f}m, a guess: no run on EC2 yet"
        if known:
            start = f"{format_seconds(known)}, the median of earlier runs"
        speed = "a core there counts as fast as one here, and the range does not allow for another speed"
        if runs:
            speed = f"the speed there is that of {count_of(runs, 'earlier run')} of this classifier"
        return [f"start-up on EC2: {start}", speed, fleet.note]


def _quantiles(each: Sequence[float]) -> tuple[float, float]:
    """Return median and maximum."""
    ordered = sorted(each)
    return ordered[len(ordered) // 2], ordered[-1]
