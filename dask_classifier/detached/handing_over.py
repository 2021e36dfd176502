"""Handing a run over: from the command that has started its cluster, to a driver on the scheduler's instance."""

import time
from typing import Any

import cloudpickle
import distributed

from .. import __version__
from ..cluster import EC2Cluster
from ..config import s3_environment
from ..errors import ClusterError, DaskClassifyError
from ..runs.limits import Limits
from ..runs.planning import Plan
from . import driver
from .state import State

_LOOK_SECONDS = 1.0
_RIGHTS = "Let the instances' role do more: `dask-classify doctor --policy --detach` prints its policy."


def hand_over(
    plan: Plan,
    cluster: EC2Cluster,
    *,
    limits: Limits,
    prediction: dict[str, Any] | None = None,
    worker_timeout: str | None = None,
) -> State:
    """Start the driver of a run, and return once it has begun the run. The cluster is not closed.

    Parameters
    ----------
    plan : Plan
        What to do. Nobody may hold the lock of its folder: the driver acquires it.
    cluster : EC2Cluster
        Where to do it, started with `detached=plan.output`.
    limits : Limits
        When the run must end, and what it may cost.
    prediction : dict, optional
        What was predicted, for the record.
    worker_timeout : str, optional
        Time limit for the first worker.

    Returns
    -------
    State
        The run's state, which is in its folder, too.

    Raises
    ------
    ClusterError
        The driver could not be started, or did not begin within the bring-up limit.
    DaskClassifyError
        What the driver raised before it began.
    """
    state = _first_state(plan, cluster, limits)
    state.save()
    cluster.replace_no_more()
    todo = driver.Assignment(plan, cluster.handover(), limits, prediction, worker_timeout)
    environment = s3_environment() | cluster.environment()
    parcel = driver.Parcel(__version__, state.as_json(), cloudpickle.dumps(todo), environment)
    with distributed.Client(cluster, set_as_default=False, timeout=cluster.connect_seconds) as client:
        try:
            client.run_on_scheduler(driver.start, parcel)
        except ModuleNotFoundError as error:
            raise ClusterError(
                f"The instances cannot drive a run: {error}.",
                "Use an --image with this version of dask-classify, or none.",
            ) from error
    return _begun(state, cluster.spec.bring_up_limit)


def _first_state(plan: Plan, cluster: EC2Cluster, limits: Limits) -> State:
    return State(
        output=plan.output,
        cluster=cluster.id,
        region=cluster.aws.region,
        scheduler=cluster.handover().scheduler,
        instances=1 + len(cluster.worker_spec),
        dashboard=cluster.dashboard_link,
        started=time.time(),
        deadline=cluster.deadline,
        version=__version__,
        finish_by=limits.finish_by,
    )


def _explained(error: DaskClassifyError) -> DaskClassifyError:
    """Give an error a hint that fits: it was raised by an instance, which has other permissions than the caller."""
    if "UnauthorizedOperation" in error.message:
        error.hint = _RIGHTS
    return error


def _begun(state: State, limit: float) -> State:
    """Wait until the driver has begun the run."""
    until = time.monotonic() + limit
    while not state.progress:
        if state.is_over:
            raise _explained(state.error)
        if time.monotonic() > until:
            raise ClusterError(
                f"The scheduler's instance has not begun the run after {limit:.0f} seconds.",
                "Check that it can write to the output, or wait longer with --bring-up-limit.",
            )
        time.sleep(_LOOK_SECONDS)
        state = State.load(state.output)
    return state
