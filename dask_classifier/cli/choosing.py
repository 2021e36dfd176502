"""What `plan` and `run` have in common: estimates of a run, and the choice of a cluster by time and budget."""

import logging
import sys
from collections.abc import Container
from dataclasses import dataclass

import click
from dask.system import CPU_COUNT

from ..ec2.spec import ClusterSpec, spec_of
from ..engine.local import LocalCluster
from ..errors import UsageError
from ..planner import records
from ..planner.estimate import EC2, LOCAL, Choice, Estimate
from ..planner.places import Fleet, asked, unasked
from ..planner.planner import Planner, sample_of
from ..planner.recommendation import recommend
from ..planner.target import Target
from ..runs.limits import Limits
from ..runs.planning import Plan
from ..show.terminal import Display
from ..units import parse_count, parse_seconds


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

    def check(self, cluster: str) -> None:
        """Raise UsageError for an option that has no effect."""
        timed = self.finish_by or self.finish_in
        if self.partial and not timed:
            raise UsageError("--partial has no effect without a time.", "Give --finish-by 15:50 or --finish-in 45m.")
        if self.scale_up_to and not (timed and cluster == EC2):
            raise UsageError(
                "--scale-up-to has no effect without a time and a cluster on EC2.",
                "Give --finish-by and --cluster ec2.",
            )
        if self.budget and cluster not in {LOCAL, EC2}:
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
) -> Estimate:
    """Sample a plan on this computer, and return what its run takes here and on a fleet's clusters."""
    workers = min(processes or CPU_COUNT, CPU_COUNT)
    with LocalCluster(workers, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL) as cluster:
        sample = sample_of(plan, cluster, rows)
    past = records.records(history or plan.output.rpartition("/")[0])
    planner = Planner(plan, sample, past)
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
    wishes.check(cluster)
    target = Target.of(wishes.finish_by, wishes.finish_in, wishes.budget)
    open_choice = bool(target.finish_by) and workers is None and cluster in {LOCAL, EC2}
    if not open_choice and not target.budget:
        fleet = fleet_of(cluster, workers, options) if wishes.scale_up_to else None
        return Chosen(cluster, workers, _limits(wishes, target, fleet, workers))
    on_ec2 = cluster == EC2 or (free and _can_be_on_ec2(plan, options))
    fleet = fleet_of(EC2 if on_ec2 else LOCAL, workers if cluster == EC2 else None, options)
    instances = None if open_choice else workers or 1
    processes = workers if cluster == LOCAL else None
    places = {LOCAL, EC2} if on_ec2 and cluster != EC2 else {cluster}
    estimate = estimated(plan, fleet, target, processes=processes, instances=instances, places=places)
    display.say("\n".join(estimate.lines()))
    if target.budget and EC2 in places and all(choice.dollars is None for choice in estimate.choices[1:]):
        raise UsageError("No price is known, so a budget cannot be kept.", "Give one: --price 0.35.")
    choice = _best(estimate, cluster)
    if open_choice:
        _confirm(choice, yes=wishes.yes)
    number = choice.instances if choice.where == EC2 else choice.processes
    return Chosen(choice.where, number, _limits(wishes, target, fleet, number, choice), choice)


def _can_be_on_ec2(plan: Plan, options: dict) -> bool:
    """Whether there is an image, and instances can reach output and input."""
    urls = [plan.output, *(file.url for file in plan.source.files if file.known_rows is None)]
    has_image = bool(options.get("image")) or ClusterSpec.defaults().image != "none"
    return has_image and all("://" in url and not url.startswith(("file:", "local:")) for url in urls)


def _best(estimate: Estimate, cluster: str) -> Choice:
    """Return the recommended choice. Raise UsageError if there is none."""
    if estimate.choice:
        return estimate.choice
    elsewhere = None if cluster == EC2 else recommend(estimate.choices, estimate.target)[0]
    if elsewhere is not None:
        raise UsageError(
            f"This run cannot meet its time here; {estimate.choices[elsewhere].label} on EC2 would.",
            "Use --cluster ec2, with an image and an output in S3.",
        )
    raise UsageError(f"This run cannot meet its time or its budget: {estimate.why}.", "Give more of either.")


def _confirm(choice: Choice, *, yes: bool) -> None:
    """Ask whether to run there. Raise UsageError if nobody can answer."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("Nobody can be asked whether to start this run.", "Add --yes to start it without a question.")
    cost = "for nothing" if not choice.dollars else f"for about ${choice.dollars:.2f}"
    click.confirm(f"Run it with {choice.label}, {cost}?", abort=True, err=True)


def _limits(
    wishes: Wishes, target: Target, fleet: Fleet | None, workers: int | None, choice: Choice | None = None
) -> Limits:
    is_paid = fleet is not None and (choice is None or choice.where == EC2)
    return Limits(
        finish_by=target.finish_by,
        partial=wishes.partial,
        max_time=parse_seconds(wishes.max_time) if wishes.max_time else None,
        budget=target.budget if is_paid else None,
        dollars_per_hour=fleet.price_of(workers or 1).dollars if is_paid else None,
        scale_up_to=wishes.scale_up_to,
        price_of=(lambda number: fleet.price_of(number).dollars) if is_paid else None,
    )


def sampled_rows(text: str | None) -> int | None:
    """Parse the number of rows to sample; None for as many as are needed."""
    return None if text is None else parse_count(text, "number of rows")
