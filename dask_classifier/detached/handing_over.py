"""Handing a run over: from the command that has started its cluster, to a driver on the scheduler's instance."""

import time
from typing import Any

import cloudpickle
import distributed

from .. import __version__
from ..cluster import EC2Cluster
from ..config import s3_environment
from ..errors import ClusterError, DaskClassifyError, Interrupted
from ..runs import lock
from ..runs.limits import Limits
from ..runs.planning import Plan
from . import driver
from .state import State

_RIGHTS = "Let the instances' role do more: `dask-classify doctor --policy --detach` prints its policy."
_UPDATE = "Use an --image with the same versions as here, or none."


def first_state(plan: Plan, cluster: EC2Cluster, limits: Limits) -> State:
    """Return the state of a run that is to be handed over. It is not written yet."""
    handover = cluster.handover()
    return State(
        output=plan.output,
        cluster=cluster.id,
        region=cluster.aws.region,
        scheduler=handover.scheduler,
        instances=1 + len(cluster.worker_spec),
        dashboard=cluster.dashboard_link,
        started=handover.began,
        deadline=cluster.deadline,
        version=__version__,
        single_file=plan.single_file,
        finish_by=limits.finish_by,
    )


def hand_over(
    state: State,
    plan: Plan,
    cluster: EC2Cluster,
    *,
    limits: Limits,
    prediction: dict[str, Any] | None = None,
    worker_timeout: str | None = None,
) -> None:
    """Start the driver of a run. The cluster is not closed.

    Parameters
    ----------
    state : State
        The run's first state, which is written to its folder.
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

    Raises
    ------
    ClusterError
        The driver could not be started, or the instances have other versions.
    StorageError
        The output cannot be written to.
    """
    state.save()
    todo = driver.Assignment(plan, cluster.handover(), limits, prediction, worker_timeout)
    environment = {"TZ": _time_zone()} | s3_environment() | cluster.environment()
    names = plan.package.requirements
    parcel = driver.Parcel(plan.versions, names, state.as_json(), cloudpickle.dumps(todo), environment)
    cluster.hand_over()
    try:
        with distributed.Client(cluster, set_as_default=False, timeout=cluster.connect_seconds) as client:
            client.run_on_scheduler(driver.start, parcel)
    except DaskClassifyError:
        raise
    except (ImportError, AttributeError, TypeError) as error:  # of a version that has no driver, or another one
        raise ClusterError(f"The instances cannot drive a run: {error}.", _UPDATE) from error
    except (OSError, TimeoutError) as error:
        raise ClusterError(
            f"The run could not be handed over to the scheduler's instance: {error}.", "Try again."
        ) from error


def _time_zone() -> str:
    """Return the present offset of this computer's clock as a POSIX time zone: messages of the driver have times."""
    minutes = time.localtime().tm_gmtoff // 60
    hours, rest = divmod(abs(minutes), 60)
    ahead = minutes >= 0
    return f"<{'+' if ahead else '-'}{hours:02}{rest:02}>{'-' if ahead else ''}{hours}:{rest:02}"


def explained(error: DaskClassifyError) -> DaskClassifyError:
    """Give an error a hint that fits: it was raised by an instance, which has other permissions than the caller."""
    if "UnauthorizedOperation" in error.message:
        error.hint = _RIGHTS
    return error


def record_failure(state: State, error: BaseException) -> None:
    """Record that a run was not handed over, after its cluster was closed, and free the lock of its driver."""
    if not state.is_current():
        return
    state = State.load(state.output)
    if not state.is_over:
        failure = error if isinstance(error, DaskClassifyError) else Interrupted("The run was not handed over.", "")
        state.with_end(failure.exit_code, failure.message, failure.hint, at=time.time()).save()
    if state.holder:
        lock.forget(state.folder, state.holder.encode())
