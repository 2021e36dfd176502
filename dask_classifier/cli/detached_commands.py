"""What the commands for detached runs do: run --detach, attach, wait, cancel."""

import contextlib
import json
import logging
import shlex
import sys
import time
from typing import Any

import click
from distributed.utils import silence_logging_cmgr

from ..detached import following
from ..detached.following import Follower
from ..detached.handing_over import explained, first_state, hand_over, record_failure
from ..detached.state import State
from ..ec2.announcement import clock
from ..errors import PARTIAL_EXIT_CODE, ClusterError, DaskClassifyError, InstancesLeft, Interrupted, StorageError
from ..parts.run_folder import DETACHED, MANIFEST, RunFolder
from ..runs.limits import Limits
from ..runs.lock import held
from ..runs.planning import Plan
from ..runs.result import open_run
from ..show.terminal import Display
from ..units import count_of
from .clusters import cluster_of_run
from .conclusion import conclude


def start(
    plan: Plan,
    cluster_options: dict,
    display: Display,
    *,
    limits: Limits,
    prediction: dict[str, Any] | None,
    worker_timeout: str | None,
    as_json: bool,
) -> None:
    """Start a cluster, hand the run over to its scheduler's instance, and return once the first blocks are known."""
    state = None
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(silence_logging_cmgr(logging.CRITICAL))
            with held(plan.folder):  # so that nobody else has it; the driver acquires it again
                cluster = stack.enter_context(cluster_of_run(display, **cluster_options, detached=plan.output))
            display.say("Handing the run over to the scheduler's instance")
            state = first_state(plan, cluster, limits)
            wishes = {"limits": limits, "prediction": prediction, "worker_timeout": worker_timeout}
            hand_over(state, plan, cluster, **wishes)
            now = Follower(state, quiet=display.console.quiet).follow(until=lambda state: state.is_begun)
            if now.error:
                raise explained(now.error)
            with contextlib.suppress(KeyboardInterrupt):  # too late: the run goes on
                cluster.leave()
    except BaseException as error:
        if state:
            with contextlib.suppress(DaskClassifyError):  # which must not hide the error
                record_failure(state, error)
        if isinstance(error, KeyboardInterrupt):
            raise _interrupted(state) from None
        raise
    display.say(_farewell(now))
    if as_json:
        click.echo(json.dumps(now.as_json()))


def _interrupted(state: State | None) -> Interrupted:
    again = f"Give the command again, with --output {state.output} --resume." if state else "Give the command again."
    return Interrupted("Interrupted before the run could go on by itself.", again)


def _farewell(state: State) -> str:
    run = shlex.quote(state.output)
    size, until = count_of(state.instances, "instance"), clock(state.deadline)
    return "\n".join(
        [
            f"The run goes on without this computer: {size}, until {until} at the latest.",
            f"Its dashboard: {state.dashboard}",
            "Next:",
            f"  dask-classify attach {run}",
            f"  dask-classify wait {run}",
            f"  dask-classify cancel {run}",
        ]
    )


def attach(run_url: str, *, quiet: bool, traceback: bool = False) -> None:
    """Run `dask-classify attach` and `wait`: follow the run, then print its result or raise its error."""
    folder = RunFolder(run_url)
    if not folder.exists(DETACHED) and folder.exists(MANIFEST):  # it was completed by a command that stayed
        result = open_run(run_url)
        conclude(result, Display(quiet=quiet), result.manifest["started"])
        sys.exit(PARTIAL_EXIT_CODE if result.partial else 0)
    follower = Follower(State.load(run_url), quiet=quiet)
    state, left, is_known = _followed(follower), None, True
    try:
        following.see_it_terminated(state, follower.say)
    except InstancesLeft as error:
        left = error
    except ClusterError as error:
        is_known = False
        click.echo(error.message, err=True)
    may_be_left = state.exit_code == InstancesLeft.exit_code and (left or not is_known)
    if state.error and not may_be_left and (code := state.result_code()) is not None:
        state = state.with_end(code, at=state.ended)  # what had failed was done since
    if state.error:
        _print_traceback(state, wanted=traceback)
        raise left or state.error
    conclude(open_run(state.output), follower, state.started, state.ended, state.finish_by)
    if left:
        raise left
    sys.exit(state.exit_code)


def _followed(follower: Follower) -> State:
    """Return the last state of a run, once it is over."""
    state = follower.state
    if not state.is_over:
        since = time.strftime("%H:%M", time.localtime(state.started))
        where = f"{count_of(state.instances, 'instance')} in {state.region}"
        follower.say(f"Running since {since} on {where}; dashboard: {state.dashboard}")
    try:
        return follower.follow()
    except KeyboardInterrupt:
        raise Interrupted(
            "Interrupted: the run goes on.", f"To end it, use `dask-classify cancel {shlex.quote(state.output)}`."
        ) from None
    except ClusterError as lost:  # the driver was lost
        try:
            following.clear_up(follower.state, lost, follower.say)
        except (ClusterError, StorageError) as error:
            click.echo(error.message, err=True)
        raise


def _print_traceback(state: State, *, wanted: bool) -> None:
    if wanted and state.details:
        click.echo(f"Traceback of the classifier (most recent call last):\n{state.details}\n", err=True)


def cancel(run_url: str) -> None:
    """Run `dask-classify cancel`: terminate the instances of a run, unless it is over."""

    def say(text: str) -> None:
        click.echo(text, err=True)

    state = State.load(run_url)
    if state.is_over:
        following.see_it_terminated(state, say)
        say(f"The run is already over: {_outcome(state)}.")
        return
    state = following.cancel(state, say)
    say(f"The run is over: {_outcome(state)}." if state.exit_code != Interrupted.exit_code else state.message)
    if state.hint:
        say(state.hint)


def _outcome(state: State) -> str:
    if state.error:
        return f"exit code {state.exit_code}, {state.message.rstrip('.')}"
    return "complete but partial" if state.exit_code else "complete"
