"""The driver: a process beside the scheduler that runs a plan, and ends the cluster.

    python -m dask_classifier.detached.driver

gets a `State` and an `Assignment`, which has the TLS key, from standard input. `start` starts it, in the scheduler.
"""

import asyncio
import contextlib
import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from distributed import Scheduler

from .. import pipeline
from ..classifier.requirements import installed
from ..cluster import EC2Cluster
from ..ec2 import teardown
from ..ec2.aws import Aws
from ..ec2.handover import Handover
from ..engine.worker_plugin import explain_versions
from ..errors import PARTIAL_EXIT_CODE, ClusterError, DaskClassifyError, StorageError
from ..runs import lock
from ..runs.limits import Limits
from ..runs.planning import Plan, versions
from ..show.terminal import Display
from .state import State

_SAVE_SECONDS = 5.0  # between two states in the bucket
_END_SECONDS = 300.0  # for which the end is written again and again, if the bucket is out of reach
_MESSAGES, _MESSAGE_LENGTH = 50, 500  # that are kept
_MODULE = "dask_classifier.detached.driver"


@dataclass(frozen=True)
class Assignment:
    """What to run, on which cluster."""

    plan: Plan
    handover: Handover
    limits: Limits
    prediction: dict[str, Any] | None
    worker_timeout: str | None


@dataclass(frozen=True)
class Parcel:
    """What goes to the scheduler. Dask may log it, without what is secret: the TLS key and the credentials."""

    versions: dict[str, str]
    requirements: tuple[str, ...]
    state: dict[str, Any]
    assignment: bytes = field(repr=False)  # pickled, so that other versions can refuse it
    environment: dict[str, str] = field(repr=False)


async def start(parcel: Parcel, dask_scheduler: Scheduler) -> None:
    """Start the driver on the scheduler's instance; when it has ended, the scheduler ends, and then the instance.

    Called by `Client.run_on_scheduler`. Raises ClusterError if the versions differ, OSError if it cannot be started.
    """
    if (there := versions() | installed(parcel.requirements)) != parcel.versions:
        raise ClusterError(*explain_versions(there, parcel.versions))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", _MODULE, stdin=asyncio.subprocess.PIPE, env=os.environ | parcel.environment
    )
    process.stdin.write(pickle.dumps((parcel.state, parcel.assignment)))
    await process.stdin.drain()
    process.stdin.close()
    dask_scheduler.idle_timeout = None  # it lives as long as the driver
    # The scheduler keeps the task: asyncio itself would forget it.
    dask_scheduler.detached_run = asyncio.create_task(_end_with(process, dask_scheduler))


async def _end_with(process: asyncio.subprocess.Process, scheduler: Scheduler) -> None:
    code = await process.wait()
    sys.stderr.write(f"the driver of the run ended with exit code {code}\n")  # on the instance's console
    await scheduler.close(reason="the driver of the run has ended")


class Recorder(Display):
    """Writes the progress of a run to its folder, every few seconds, and what would be printed."""

    def __init__(self, state: State):
        super().__init__(quiet=True)
        self.state = state
        self._has_lock = False
        self._saving = threading.Lock()
        self._closed = threading.Event()

    def say(self, text: str, style: str = "") -> None:
        """Keep a message."""
        with self._lock:
            messages = [*self.state.messages, text[:_MESSAGE_LENGTH]][-_MESSAGES:]
            self.state = replace(self.state, said=self.state.said + 1, messages=messages)

    def connected(self, dashboard: str | None, processes: int) -> None:
        """Keep the number of processes; the dashboard's address here is no use elsewhere."""
        super().connected(None, processes)

    def stage(self, name: str) -> None:
        """Enter a stage: before the first one, the run's lock was acquired."""
        super().stage(name)
        if not self._has_lock:
            self._has_lock = True
            holder = lock.holder(self.state.folder).decode()
            with self._lock:
                self.state = replace(self.state, holder=holder)
            self.save()

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Do nothing: the state is saved before and after the run, too."""
        yield

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Save the state every few seconds."""
        thread = threading.Thread(target=self._save_until_closed, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._closed.set()
            thread.join()

    def _save_until_closed(self) -> None:
        while not self._closed.wait(_SAVE_SECONDS):
            self.save()

    def save(self) -> None:
        """Write the state to the run's folder. A run does not end because nobody can see how far it is."""
        with self._saving, contextlib.suppress(DaskClassifyError):
            self._write()

    def _write(self) -> None:
        progress = asdict(self.snapshot()) if self._has_lock else None
        with self._lock:
            self.state = replace(self.state, progress=progress)
        if self.state.is_current():
            self.state.save()

    def end(self, exit_code: int, error: DaskClassifyError | None = None) -> None:
        """Write how the run ended. Raises StorageError if the bucket is out of reach for too long."""
        words = (error.message, error.hint, error.details) if error else ()
        until = time.monotonic() + _END_SECONDS
        with self._lock:
            self.state = self.state.with_end(exit_code, *words, at=time.time())
        with self._saving:  # so that no older state is written after this one
            while True:
                try:
                    self._write()
                    return
                except StorageError:
                    if time.monotonic() > until:
                        raise
                time.sleep(_SAVE_SECONDS)


def drive(recorder: Recorder, todo: Assignment) -> None:
    """Run the plan, terminate all other instances, and record how it ended."""
    try:
        code, failure = _run(recorder, todo), None
    except DaskClassifyError as error:
        code, failure = error.exit_code, error
    except BaseException as error:
        text = f"The driver failed: {type(error).__name__}: {error}."
        failure = DaskClassifyError(text, "Please report this defect.").with_details(traceback.format_exc())
        code = failure.exit_code
    recorder.end(code, failure)


def _run(recorder: Recorder, todo: Assignment) -> int:
    """Return the exit code. Raises DaskClassifyError.

    The run's folder is locked until the other instances have terminated, since the manifest then gets their number.
    """
    with lock.held(todo.plan.folder), EC2Cluster.take_over(todo.handover, say=recorder.say) as cluster:
        result = pipeline.run(
            todo.plan,
            cluster,
            progress=recorder,
            worker_timeout=todo.worker_timeout,
            limits=todo.limits,
            prediction=todo.prediction,
        )
    return PARTIAL_EXIT_CODE if result.partial else 0


def main() -> None:
    """Read the assignment from standard input, and carry it out."""
    state, assignment = pickle.loads(sys.stdin.buffer.read())
    recorder, todo = Recorder(State.of(state)), pickle.loads(assignment)
    with recorder.saving():
        drive(recorder, todo)
    # Last of all: the default group of the VPC, which the instance now gets, may cut it off from everything.
    kept = todo.handover.cluster
    teardown.give_up_group(Aws(kept.spec.region), kept.id, todo.handover.scheduler)


if __name__ == "__main__":
    main()
