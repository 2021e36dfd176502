"""What the commands for detached runs do: run --detach, attach, wait, cancel."""

import json
import logging
import shlex
import sys
import time
from contextlib import ExitStack
from typing import Any

import click
from distributed.utils import silence_logging_cmgr

from ..detached import following
from ..detached.following import Follower
from ..detached.handing_over import hand_over
from ..detached.state import State
from ..errors import PARTIAL_EXIT_CODE, Interrupted
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
    """Start a cluster, hand the run over to its scheduler's instance, and leave both alone."""
    try:
        with ExitStack() as stack:
            stack.enter_context(silence_logging_cmgr(logging.CRITICAL))
            with held(plan.folder):  # so that nobody else has it; the driver acquires it again
                cluster = stack.enter_context(cluster_of_run(display, plan, **cluster_options, detached=plan.output))
            display.say("Handing the run over to the scheduler's instance")
            wishes = {"limits": limits, "prediction": prediction, "worker_timeout": worker_timeout}
            state = hand_over(plan, cluster, **wishes)
            cluster.leave()
    except KeyboardInterrupt:
        raise Interrupted("Interrupted before the run could go on by itself.", "Give the command again.") from None
    display.say(_farewell(state))
    if as_json:
        click.echo(json.dumps(state.as_json()))


def _farewell(state: State) -> str:
    run = shlex.quote(state.output)
    until = time.strftime("%H:%M", time.localtime(state.deadline))
    return "\n".join(
        [
            f"The run goes on without this computer: {count_of(state.instances, 'instance')}, until {until} at most.",
            f"Its dashboard: {state.dashboard}",
            "Next:",
            f"  dask-classify attach {run}",
            f"  dask-classify wait {run}",
            f"  dask-classify cancel {run}",
        ]
    )


def attach(run_url: str, *, quiet: bool) -> None:
    """Run `dask-classify attach` and `wait`: follow the run, then print its result or raise its error."""
    state = State.load(run_url)
    follower = Follower(state, quiet=quiet)
    if not state.is_over:
        since = time.strftime("%H:%M", time.localtime(state.started))
        instances = count_of(state.instances, "instance")
        follower.say(f"The run goes on, since {since}, on {instances} in {state.region}; dashboard: {state.dashboard}")
    try:
        state = follower.follow()
    except KeyboardInterrupt:
        raise Interrupted(
            "Interrupted: the run goes on.", f"To end it, use `dask-classify cancel {shlex.quote(run_url)}`."
        ) from None
    following.see_it_gone(state, follower.say)
    if state.exit_code not in {0, PARTIAL_EXIT_CODE}:
        raise state.error
    conclude(open_run(state.output), follower, state.ended - state.started, state.finish_by)
    if state.exit_code:
        sys.exit(state.exit_code)


def cancel(run_url: str) -> None:
    """Run `dask-classify cancel`: terminate the instances of a run, unless it is over."""

    def say(text: str) -> None:
        click.echo(text, err=True)

    state = State.load(run_url)
    if state.is_over:
        following.see_it_gone(state, say)
        say(f"The run is already over: {_outcome(state)}.")
        return
    state = following.cancel(state, say)
    say(f"The run is over: {_outcome(state)}." if state.exit_code != Interrupted.exit_code else state.message)
    if state.hint:
        say(state.hint)


def _outcome(state: State) -> str:
    words = {0: "complete", PARTIAL_EXIT_CODE: "complete but partial"}
    return words.get(state.exit_code or 0, f"exit code {state.exit_code}, {state.message.rstrip('.')}")
