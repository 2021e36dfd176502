"""Tasks in flight on a Dask cluster, a window of them at a time.

A task whose process died runs again in another process, three times in all. One that was lost with the connection to
the scheduler starts again on the next connection.
"""

import contextlib
import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from distributed import Future, as_completed
from distributed.scheduler import KilledWorker

from ..classifier.job import CLASSIFY_BLOCK
from ..errors import ClusterError, DaskClassifyError, ProcessDied
from .connection import KEPT, LOST, Over, lost
from .worker_plugin import Died, Forgotten, run_task

if TYPE_CHECKING:
    from .executors import DaskExecutor

TRIES = 3  # processes that a task may kill before it is given up
_TASKS_A_PROCESS = 3  # in flight: more than two, so that Dask keeps the rest on the scheduler and not on one worker
_WINDOW_SECONDS = 5  # between two looks at the cluster's size
_REMINDER_SECONDS = 0.5  # in which a worker hears that a run goes on
_LOOK_SECONDS = 0.05  # between two looks at whether the time is over, or the connection lost


class Outcome(NamedTuple):
    """The result of the task for one argument, or its error."""

    number: int  # of the argument, from 0, or its `index`
    value: object = None
    error: DaskClassifyError | None = None


@dataclass
class Flight:
    """The running tasks of one call of `each`."""

    executor: "DaskExecutor"
    task: str
    timeout: float | None
    is_over: Over | None = None
    where: dict[str, object] = field(default_factory=dict)  # keywords of Dask's `submit`
    under_way: dict = field(default_factory=dict)  # future to (number, args, tries)
    _window: tuple[float, int] = (0.0, 0)  # asked when, tasks

    def __post_init__(self):
        self.completed = as_completed([], loop=self.executor.client.loop, with_results=True, raise_errors=False)

    def room(self) -> int:
        """Return how many more tasks may run. Ask for the cluster's size every few seconds: workers come and go."""
        if self._window_is_old():
            self._window = (time.monotonic(), self.executor.processes * _TASKS_A_PROCESS)
        return max(0, self._window[1] - len(self.under_way))

    def _window_is_old(self) -> bool:
        return time.monotonic() - self._window[0] > _WINDOW_SECONDS

    def begin(self, tasks: Iterator[tuple[int, tuple]]) -> None:
        """Start one task for each process, then those that wait behind them.

        The first ones start one by one: which task is next may only be known after more of the input was read.
        """
        for task in itertools.islice(tasks, self.room() // _TASKS_A_PROCESS):
            self.submit([task])
        self.submit(itertools.islice(tasks, self.room()))

    def is_low(self) -> bool:
        """Whether it is time for more tasks. Many at a time cost the client a third of one by one; until then, more
        than one waits for each process.
        """
        return len(self.under_way) <= self._window[1] * 5 // 6 or self._window_is_old()

    def submit(self, tasks: Iterable[tuple[int, tuple]], tries: int = 1) -> None:
        """Start tasks: (number, arguments)."""
        tasks = list(tasks)
        if not tasks:
            return
        executor = self.executor
        call = {"plugin": executor.plugin, "task": self.task, "timeout": self.timeout, "pure": False} | self.where
        name = f"{self.task.rpartition(':')[2]}-{executor.plugin}"
        futures = []
        while not futures:
            if not executor.connection.ensure(self.is_over):
                return  # the time is over, and with it these tasks
            keys = [(name, number, next(executor._tries)) for number, _ in tasks]
            try:
                futures = executor.client.map(run_task, *zip(*tasks, strict=True), key=keys, **call)
            except Exception:  # of a client that has just lost its connection
                if executor.connection.is_joined():
                    raise
        self.under_way |= {future: (number, args, tries) for future, (number, args) in zip(futures, tasks, strict=True)}
        self.completed.update(futures)

    def landed(self) -> Iterator[Outcome | None]:
        """Outcomes as they come, until nothing is under way or the time is over; None where a task starts again."""
        while self.under_way and self._wait():
            future, result = next(self.completed)
            if future not in self.under_way:
                continue  # it has started again on another connection
            number, args, tries = self.under_way.pop(future)
            if _is_lost(result):
                self.submit([(number, args)], tries)
                continue
            yield self._outcome(number, args, tries, result, future.status)

    def _wait(self) -> bool:
        """Wait for an outcome; return False if the time is over before.

        Raises ClusterError if none will ever come.
        """
        while not self.completed.has_ready():
            if self.is_over and self.is_over():
                return False
            if not self.executor.connection.is_joined() or self._lost():
                self._start_again()
            if self.executor.instances.is_abandoned():
                raise ClusterError("All workers were lost, and are not replaced.", KEPT)
            with self.completed.thread_condition:
                self.completed.thread_condition.wait(_LOOK_SECONDS)
        return True

    def _start_again(self) -> None:
        """Start on a new connection what was under way on a lost one. Some of it Dask does not even give up."""
        if self.executor.connection.ensure(self.is_over):
            for future in self._lost():
                number, args, tries = self.under_way.pop(future)
                self.submit([(number, args)], tries)

    def _lost(self) -> list[Future]:
        """Return what is under way on an earlier connection; another flight may have made a new one."""
        return [future for future in self.under_way if future.client is not self.executor.client]

    def _outcome(self, number: int, args: tuple, tries: int, result: object, status: str) -> Outcome | None:
        if status != "finished" and _is_failure(result):
            return Outcome(number, error=_cluster_failure(result))
        if isinstance(result, DaskClassifyError):
            return Outcome(number, error=result)
        if isinstance(result, Forgotten):
            return self._remind(number, args, tries)
        if not isinstance(result, Died):
            return Outcome(number, result)
        if self.task == CLASSIFY_BLOCK:
            self.executor.progress.died(number, result.manner, tries < TRIES)
        elif tries < TRIES:
            self.executor.progress.note(f"a classifier process {result.manner}; its task is tried again")
        if tries < TRIES:
            self.submit([(number, args)], tries + 1)
            return None
        return Outcome(number, error=ProcessDied(f"{result.manner}, {TRIES} times"))

    def _remind(self, number: int, args: tuple, tries: int) -> Outcome | None:
        """Start a task again whose worker has been told that the run is over, but not yet that it goes on."""
        if tries >= TRIES:
            return Outcome(number, error=lost("the worker was told that the run has ended"))
        time.sleep(_REMINDER_SECONDS)
        self.submit([(number, args)], tries + 1)
        return None

    def cancel(self) -> None:
        """Cancel the tasks that are still running."""
        with contextlib.suppress(Exception):  # the cluster may be gone
            self.executor.client.cancel(list(self.under_way), force=True)


def _error_in(result: object) -> object:
    return result[1] if isinstance(result, tuple) and len(result) == 3 else result


def _is_failure(result: object) -> bool:
    """Whether a result is Dask's reason for having none: a task that was given up may still deliver its result."""
    return isinstance(_error_in(result), BaseException)


def _is_lost(result: object) -> bool:
    """Whether Dask has given up a task because the connection to the scheduler was lost."""
    return getattr(_error_in(result), "reason", None) == LOST


def _cluster_failure(result: object) -> DaskClassifyError:
    """Turn Dask's reason for a task that never finished into an error."""
    error = _error_in(result)
    if isinstance(error, KilledWorker):
        return ProcessDied(f"brought down its Dask worker, {error.allowed_failures + 1} times")
    if isinstance(error, DaskClassifyError):
        return error
    why = getattr(error, "reason", None) or f"{type(error).__name__}: {error}"  # Dask's reasons are words-with-hyphens
    return lost(why.replace("-", " "))
