"""The driver: a process beside the scheduler that runs a plan, and ends the cluster.

    python -m dask_classifier.detached.driver

gets an `Assignment` from standard input, which carries the TLS key. `start` starts it, within the scheduler.
"""

import asyncio
import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from distributed import Scheduler

from .. import __version__, pipeline
from ..cluster import EC2Cluster
from ..ec2.handover import Handover
from ..errors import PARTIAL_EXIT_CODE, ClusterError, DaskClassifyError
from ..runs.limits import Limits
from ..runs.planning import Plan
from ..show.terminal import Display
from .state import State, saved_if_possible

_SAVE_SECONDS = 5.0  # between two states in the bucket
_MESSAGES = 50  # that are kept
_DEFECT_EXIT_CODE = 1
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

    version: str
    state: dict[str, Any]
    assignment: bytes = field(repr=False)  # pickled, so that another version can refuse it
    environment: dict[str, str] = field(repr=False)


async def start(parcel: Parcel, dask_scheduler: Scheduler) -> None:
    """Start the driver on the scheduler's instance; when it has ended, the scheduler ends, and then the instance.

    Called by `Client.run_on_scheduler`. Raises ClusterError if the versions differ.
    """
    if parcel.version != __version__:
        raise ClusterError(
            f"The instances have version {__version__} of dask-classify, and this computer has {parcel.version}.",
            "Use an --image with the same version, or none.",
        )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", _MODULE, stdin=asyncio.subprocess.PIPE, env=os.environ | parcel.environment
    )
    process.stdin.write(pickle.dumps((parcel.state, parcel.assignment)))
    await process.stdin.drain()
    process.stdin.close()
    # The scheduler keeps the task: asyncio itself would forget it.
    dask_scheduler.detached_run = asyncio.create_task(_end_with(process, dask_scheduler))


async def _end_with(process: asyncio.subprocess.Process, scheduler: Scheduler) -> None:
    await process.wait()
    await scheduler.close(reason="the driver of the run has ended")


class Recorder(Display):
    """Writes the progress of a run to its folder, every few seconds, and what would be printed."""

    def __init__(self, state: State):
        super().__init__(quiet=True)
        self.state = state
        self._begun = False
        self._saving = threading.Lock()
        self._closed = threading.Event()

    def say(self, text: str, style: str = "") -> None:
        """Keep a message."""
        with self._lock:
            messages = [*self.state.messages, text][-_MESSAGES:]
            self.state = replace(self.state, said=self.state.said + 1, messages=messages)

    def connected(self, dashboard: str | None, processes: int) -> None:
        """Keep the number of processes; the dashboard's address here is no use elsewhere."""
        super().connected(None, processes)

    def stage(self, name: str) -> None:
        """Enter a stage; the first one shows that the run has begun."""
        super().stage(name)
        is_first, self._begun = not self._begun, True
        if is_first:
            self.save()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Do nothing: the state is saved before and after the run, too."""
        yield

    @contextmanager
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
        """Write the state to the run's folder, if possible."""
        with self._saving:
            progress = asdict(self.snapshot()) if self._begun else None
            with self._lock:
                self.state = replace(self.state, progress=progress)
            saved_if_possible(self.state)

    def end(self, exit_code: int, message: str = "", hint: str = "") -> None:
        """Write how the run ended."""
        self.save()
        with self._saving:  # so that no older state is written after this one
            self.state = self.state.with_end(exit_code, message, hint, at=time.time())
            self.state.save()


def drive(recorder: Recorder, assignment: bytes) -> None:
    """Run the plan, terminate all other instances, and record how it ended."""
    try:
        recorder.end(_run(recorder, pickle.loads(assignment)))
    except DaskClassifyError as error:
        recorder.end(error.exit_code, error.message, error.hint)
    except BaseException as error:
        recorder.say(traceback.format_exc())
        recorder.end(
            _DEFECT_EXIT_CODE, f"The driver failed: {type(error).__name__}: {error}.", "Please report this defect."
        )


def _run(recorder: Recorder, todo: Assignment) -> int:
    """Return the exit code. Raises DaskClassifyError."""
    with EC2Cluster.take_over(todo.handover, say=recorder.say) as cluster:
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
    recorder = Recorder(State.of(state))
    with recorder.saving():
        drive(recorder, assignment)


if __name__ == "__main__":
    main()
