"""What `plan` and `run` have in common: estimates of a run, and the choice of a cluster by time and budget."""

import logging
import sys
from collections.abc import Container
from dataclasses import dataclass, replace

import click
from dask.system import CPU_COUNT

from .. import storage
from ..config import configured
from ..ec2.spec import NO_STAGING, ClusterSpec, spec_of
from ..engine.connect import INLINE
from ..engine.local import LocalCluster
from ..errors import ClusterError, DaskClassifyError, Interrupted, StorageError, UsageError
from ..parts.run_folder import PACKAGES
from ..planner import records
from ..planner.estimate import EC2, LOCAL, Choice, Estimate, tomorrows_note
from ..planner.places import Fleet, asked, unasked
from ..planner.planner import Planner, sample_of
from ..planner.recommendation import recommend
from ..planner.target import Target
from ..runs.earlier import Earlier, look_unlocked
from ..runs.limits import Limits
from ..runs.outline import EXACT, Outline
from ..runs.planning import Plan
from ..show.terminal import Display
from ..units import format_bytes, format_dollars, parse_count, parse_seconds

_MOST_BYTES = 20 * 2**30  # of remote input that an estimate reads


@dataclass(frozen=True)
class Wishes:
    """The options of `run` about time and money, as typed."""

    finish_by: str | None = None
    finish_in: str | None = None
    budget: str | None = None
    max_time: str | None = None
    partial: bool = False
    scale_up_to: int | None = None
    yes: bool = False

    def check(self, cluster: str, *, free: bool = False) -> None:
        """Raise UsageError for an option that has no effect; `free` says that no cluster was named."""
        timed = self.finish_by is not None or self.finish_in is not None
        if self.partial and not timed:
            raise UsageError("--partial has no effect without a time.", "Give --finish-by 15:50 or --finish-in 45m.")
        if self.scale_up_to and not (timed and cluster == EC2):
            raise UsageError(
                "--scale-up-to has no effect without a time and a cluster on EC2.",
                "Give --finish-by and --cluster ec2.",
            )
        if self.budget and cluster != EC2 and not (free and timed):
            raise UsageError(f"--budget has no effect with the cluster {cluster}.", "Leave it out.")


@dataclass(frozen=True)
class Chosen:
    """A cluster for a run, its limits, and what was predicted for it."""

    cluster: str
    workers: int | None
    limits: Limits
    choice: Choice | None = None


def estimated(
    plan: Plan,
    fleet: Fleet | None,
    target: Target,
    *,
    processes: int | None = None,
    instances: int | None = None,
    rows: int | None = None,
    history: str | None = None,
    places: Container[str] = (LOCAL, EC2),
    earlier: Earlier | None = None,
) -> Estimate:
    """Sample a plan on this computer, and return what its run takes here and on a fleet's clusters."""
    _refuse_much_to_read(plan)
    workers = min(processes or CPU_COUNT, CPU_COUNT)
    with LocalCluster(workers, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL) as cluster:
        sample = sample_of(plan, cluster, rows)
    past = records.records(history or plan.output.rpartition("/")[0])
    planner = Planner(plan, sample, past, earlier)
    return planner.estimate(fleet, target, processes=processes, instances=instances, places=places)


def fleet_of(cluster: str, workers: int | None, options: dict) -> Fleet:
    """Return the clusters on EC2 to compare with: as AWS offers them if the run is to be there."""
    return asked(spec_of(workers, options)) if cluster == EC2 else unasked(ClusterSpec.defaults())


def choose(
    plan: Plan, cluster: str, workers: int | None, options: dict, wishes: Wishes, display: Display, *, free: bool
) -> Chosen:
    """Choose the cluster of a run by its time and budget, if the number of workers is not given.

    Parameters
    ----------
    plan : Plan
        What to do.
    cluster : str
        The cluster of the command.
    workers : int or None
        Its workers.
    options : dict
        Its EC2 options.
    wishes : Wishes
        Time and budget.
    display : Display
        Where the chosen row is shown.
    free : bool
        Whether the cluster was left open, so that EC2 may be chosen if it can be used.

    Raises
    ------
    UsageError
        Nothing meets the time or the budget, or nobody can be asked.
    """
    wishes.check(cluster, free=free)
    target = Target.of(wishes.finish_by, wishes.finish_in, wishes.budget)
    is_open = bool(target.finish_by) and workers is None and cluster in {LOCAL, EC2}
    limits = _limits(wishes, target, cluster)
    if cluster == EC2 and is_empty(plan):
        display.say("The source has no rows, so no instances are launched.")
        return Chosen(INLINE, None, replace(limits, budget=None))
    if not is_open and not (target.budget and cluster == EC2):
        if note := tomorrows_note(target):
            display.say(note)
        return Chosen(cluster, workers, limits)
    earlier = looked(plan, cluster)
    if earlier.complete or not Outline.of(plan, 1).rows:  # at most parts have to be joined
        return Chosen(LOCAL if is_open else cluster, workers, limits)
    fleet, places = None, {cluster}
    if cluster == EC2:
        fleet = asked(spec_of(workers or options.get("min_workers"), options))
    elif free and _can_be_on_ec2(plan, options):
        fleet = _asked_if_possible(options, display)
        places |= {EC2} if fleet else set()
    instances = None if is_open else workers or 1
    fleet = fleet or unasked(ClusterSpec.defaults())
    estimate = estimated(plan, fleet, target, instances=instances, places=places, earlier=earlier)
    display.say("\n".join(estimate.lines()))
    choice = _best(estimate, cluster, places, wishes)
    if is_open:
        _confirm(choice, yes=wishes.yes)
    number = choice.instances if choice.where == EC2 else choice.processes
    return Chosen(choice.where, number, _limits(wishes, target, choice.where), choice)


def is_empty(plan: Plan) -> bool:
    """Whether the source surely has no rows."""
    outline = Outline.of(plan, 1)
    return not outline.rows and outline.rows_precision == EXACT


def looked(plan: Plan, cluster: str) -> Earlier:
    """Look at the output folder, before anything is measured. Raise ClusterError if a run on EC2 cannot read it."""
    try:
        return look_unlocked(plan)
    except StorageError as error:
        if cluster == EC2:
            raise ClusterError(error.message, error.hint) from error
        raise


def _refuse_much_to_read(plan: Plan) -> None:
    """Raise UsageError if a sample would read a very large remote input to this computer."""
    size = sum(file.size for file in plan.source.files if "://" in file.url)
    if size > _MOST_BYTES:
        raise UsageError(
            f"An estimate would read {format_bytes(size)} from elsewhere to this computer.",
            "Do without: --sample 0 for a plan; for a run, give --workers and no --budget.",
        )


def _asked_if_possible(options: dict, display: Display) -> Fleet | None:
    """Return the clusters on EC2, or None if AWS cannot be asked: the run may do without."""
    try:
        return asked(spec_of(options.get("min_workers"), options))
    except DaskClassifyError as error:
        display.say(f"EC2 is not considered: {error.message}")
        return None


def _can_be_on_ec2(plan: Plan, options: dict) -> bool:
    """Whether EC2 is configured, with an image or a place for packages, and instances can reach output and input."""
    urls = [plan.output, *(file.url for file in plan.source.files if file.is_stored)]
    is_configured = bool(options.get("image") or configured().get("image") or configured().get("staging"))
    return is_configured and all("://" in url and not url.startswith(("file:", "local:")) for url in urls)


def _best(estimate: Estimate, cluster: str, places: set[str], wishes: Wishes) -> Choice:
    """Return the recommended choice or, if a partial run will do, the fastest. Raise UsageError if there is none."""
    if estimate.choice:
        return estimate.choice
    possible = [choice for choice in estimate.choices if choice.where in places and not choice.is_too_long]
    if not possible:
        raise _unmet(estimate, "Give the instances a later --deadline.")
    if wishes.budget and EC2 in places:
        if all(choice.dollars is None for choice in possible if choice.where == EC2):
            raise UsageError(
                "The price of the instances is unknown, so a budget cannot be enforced.",
                "Give the price: --price 0.35.",
            )
        possible = [choice for choice in possible if replace(estimate.target, finish_by=None).is_met(choice)]
    if wishes.partial and possible:
        return min(possible, key=lambda choice: choice.late)
    elsewhere = None if cluster == EC2 else recommend(estimate.choices, estimate.target)[0]
    if elsewhere is not None:
        raise UsageError(
            f"This run cannot meet its time here; {estimate.choices[elsewhere].label} on EC2 would.",
            "Use --cluster ec2, with an output in S3.",
        )
    raise _unmet(estimate, "Allow more time or money.")


def _unmet(estimate: Estimate, hint: str) -> UsageError:
    return UsageError(f"This run cannot meet its time or its budget: {estimate.why}.", hint)


def _confirm(choice: Choice, *, yes: bool) -> None:
    """Ask whether to run there. Raise UsageError if nobody can answer."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            "This run needs a confirmation, but standard input is not a terminal.", "Add --yes to start it."
        )
    try:
        is_wanted = click.confirm(f"Start this run ({choice.label}) {_cost_of(choice)}?", err=True)
    except click.Abort:  # Ctrl-C, or the end of the input
        is_wanted = False
    if not is_wanted:
        raise Interrupted("The run was not started.", "Give --workers to choose the size yourself.")


def _cost_of(choice: Choice) -> str:
    if choice.dollars is None:
        return "at an unknown price"
    return f"for about ${format_dollars(choice.dollars)}" if choice.dollars else "at no cost"


def _limits(wishes: Wishes, target: Target, cluster: str) -> Limits:
    return Limits(
        finish_by=target.finish_by,
        partial=wishes.partial,
        max_time=None if wishes.max_time is None else parse_seconds(wishes.max_time),
        budget=target.budget if cluster == EC2 else None,
        scale_up_to=wishes.scale_up_to,
    )


def packages_of(plan: Plan, options: dict) -> dict:
    """Return the options of instances that say which packages they install, if there is no image."""
    if options.get("image"):
        return {}
    return {"requirements": plan.package.requirements, "staging": options.get("staging") or staging_in(plan.output)}


def staging_in(output: str | None) -> str:
    """Return where instances get their packages; nowhere without an output that they can reach."""
    return storage.join(output, PACKAGES) if output and output.startswith(("s3://", "s3a://")) else NO_STAGING


def sampled_rows(text: str | None) -> int | None:
    """Parse the number of rows to sample; None for as many as are needed."""
    return None if text is None else parse_count(text, "number of rows")
