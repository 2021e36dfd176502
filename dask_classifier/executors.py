"""Where tasks run: in this process, or in the classifier processes of a Dask cluster. The pipeline does not
know which.

Both offer `each`: run a task for each of many arguments, a window of them at a time, and give outcomes as
they come. A failure is an outcome like another, so that Dask neither repeats nor logs it; a task whose
process died is given to another one, three times.
"""

import contextlib
import itertools
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil
from distributed import Client, WorkerPlugin, as_completed, get_worker
from distributed.deploy.cluster import Cluster
from distributed.scheduler import KilledWorker
from tornado.ioloop import PeriodicCallback

from .errors import ClusterError, DaskClassifyError, UsageError
from .processes import ClassifierProcesses, ProcessDied, Site, start_forkserver
from .shipping import Package
from .sources import Block
from .tasks import forget_classifiers, versions

TRIES = 3  # processes that a task may kill before it is given up
_TASKS_A_PROCESS = 3  # in flight: more than two, so that Dask keeps the rest on the scheduler and not on one worker
_TELL_SECONDS = 0.5
_WORKER_SECONDS = 30  # to wait for a first worker


class Outcome(NamedTuple):
    """What became of the task for one argument."""

    number: int  # of the argument, from 0, or its `index`
    value: object = None
    error: DaskClassifyError | None = None


@dataclass(frozen=True)
class Died:
    """What a Dask task returns when its process died."""

    manner: str


@dataclass
class Watcher:
    """What somebody who follows a run is told."""

    on_rows: Callable[[str, dict[int, tuple[int, int]]], None] = lambda worker, rows: (
        None
    )  # in flight: number to rows, bad rows
    on_death: Callable[[int, str, bool], None] = lambda number, manner, again: None


class InlineExecutor:
    """Runs tasks in this process, one after the other, without Dask: for a debugger."""

    processes = 1
    dashboard = None

    def __init__(self, package: Package, watcher: Watcher):
        self.watcher = watcher
        self._package = package
        self._folder = tempfile.mkdtemp(prefix="dask-classify-")
        package.unpack(Path(self._folder))
        by_value = package.entry.endswith(".pickle")
        # modules are imported from where they are, so that a debugger shows the user's own file
        self.site = Site("inline", self._folder if by_value else package.home)
        self._path = list(sys.path)
        self._forget_code()

    def _forget_code(self) -> None:
        """An earlier run in this process may have imported an earlier version of the classifier."""
        forget_classifiers()
        for name in self._package.modules:
            sys.modules.pop(name, None)

    def each(self, function: Callable, arguments: Iterable[tuple], timeout: float | None = None) -> Iterator[Outcome]:
        """Run the task for each tuple of arguments, when the outcome is asked for."""
        if timeout:
            raise UsageError(
                "A block that runs inline cannot be ended.", "Leave --block-timeout out, or --cluster inline."
            )
        for number, args in _numbered(arguments):

            def report(rows: int, bad: int, number: int = number) -> None:
                self.watcher.on_rows("inline", {number: (rows, bad)})

            try:
                yield Outcome(number, function(self.site, report, *args))
            except DaskClassifyError as error:
                yield Outcome(number, error=error)
            self.watcher.on_rows("inline", {})

    def close(self) -> None:
        """Remove what was laid down, and imported, for the run."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._forget_code()
        sys.path[:] = self._path


class DaskExecutor:
    """Runs tasks in the classifier processes of a Dask cluster's workers."""

    def __init__(self, client: Client, run_id: str, package: Package, watcher: Watcher):
        self.client, self.watcher = client, watcher
        self.dashboard = client.dashboard_link
        self.topic = self.plugin = f"dask-classify-{run_id}"
        self._tries = itertools.count()
        client.subscribe_topic(self.topic, self._hear)
        try:
            client.register_plugin(ClassifierPlugin(self.plugin, package, versions()))
        except Exception as error:
            raise ClusterError(
                f"The cluster's workers cannot be prepared: {type(error).__name__}: {error}.",
                "They need this version of dask-classify: install it where they run.",
            ) from error

    @property
    def processes(self) -> int:
        """Classifier processes in the cluster: one for each thread of each worker."""
        return max(1, sum(self.client.nthreads().values()))

    def _hear(self, event: tuple[float, dict]) -> None:
        told = event[1]
        self.watcher.on_rows(told["worker"], {number: (rows, bad) for number, rows, bad in told["tasks"]})

    def each(self, function: Callable, arguments: Iterable[tuple], timeout: float | None = None) -> Iterator[Outcome]:
        """Run the task for each tuple of arguments; outcomes in the order in which they come."""
        left = _numbered(arguments)
        flight = _Flight(self, function, timeout)
        try:
            flight.submit(itertools.islice(left, flight.room()))
            for outcome in flight.landed():
                if outcome:
                    yield outcome
                flight.submit(itertools.islice(left, flight.room()))
        finally:
            flight.cancel()

    def close(self) -> None:
        """Take the classifier processes away from the cluster."""
        with contextlib.suppress(Exception):  # the cluster may be gone already, and then so are they
            self.client.unsubscribe_topic(self.topic)
            self.client.unregister_worker_plugin(self.plugin)


@dataclass
class _Flight:
    """The tasks of one `each` that are under way."""

    executor: DaskExecutor
    function: Callable
    timeout: float | None
    under_way: dict = field(default_factory=dict)  # future to (number, args, tries)
    _window: tuple[float, int] = (0.0, 0)  # asked when, tasks

    def __post_init__(self):
        self.completed = as_completed([], loop=self.executor.client.loop, with_results=True, raise_errors=False)

    def room(self) -> int:
        """How many more tasks may be under way; asks for the cluster's size every few seconds, since workers
        come and go.
        """
        asked, size = self._window
        if time.monotonic() - asked > 5:
            size = self.executor.processes * _TASKS_A_PROCESS
            self._window = (time.monotonic(), size)
        return max(0, size - len(self.under_way))

    def submit(self, tasks: Iterable[tuple[int, tuple]], tries: int = 1) -> None:
        """Start tasks: (number, arguments)."""
        tasks = list(tasks)
        if not tasks:
            return
        executor = self.executor
        call = {"plugin": executor.plugin, "function": self.function, "timeout": self.timeout, "pure": False}
        keys = [(f"{self.function.__name__}-{executor.plugin}", number, next(executor._tries)) for number, _ in tasks]
        futures = executor.client.map(in_classifier_process, *zip(*tasks, strict=True), key=keys, **call)
        self.under_way |= {future: (number, args, tries) for future, (number, args) in zip(futures, tasks, strict=True)}
        self.completed.update(futures)

    def landed(self) -> Iterator[Outcome | None]:
        """Outcomes as they come, until nothing is under way; None where a task starts again."""
        while self.under_way:
            future, result = next(self.completed)
            number, args, tries = self.under_way.pop(future)
            yield self._outcome(number, args, tries, result, future.status)

    def _outcome(self, number: int, args: tuple, tries: int, result: object, status: str) -> Outcome | None:
        if status != "finished":
            return Outcome(number, error=_cluster_failure(result))
        if isinstance(result, DaskClassifyError):
            return Outcome(number, error=result)
        if not isinstance(result, Died):
            return Outcome(number, result)
        self.executor.watcher.on_death(number, result.manner, tries < TRIES)
        if tries < TRIES:
            self.submit([(number, args)], tries + 1)
            return None
        return Outcome(number, error=ProcessDied(f"{result.manner}, {TRIES} times"))

    def cancel(self) -> None:
        """Let go of what is still under way."""
        with contextlib.suppress(Exception):  # the cluster may be gone
            self.executor.client.cancel(list(self.under_way), force=True)


def _cluster_failure(result: object) -> DaskClassifyError:
    """What Dask says of a task that never came to its end."""
    error = result[1] if isinstance(result, tuple) else result
    if isinstance(error, KilledWorker):
        return ProcessDied(f"took its Dask worker along, {error.allowed_failures + 1} times")
    if isinstance(error, DaskClassifyError):
        return error
    return ClusterError(
        f"The cluster was lost: {type(error).__name__}: {error}.",
        "What is done is kept: go on with --resume on another cluster.",
    )


def _numbered(arguments: Iterable[tuple]) -> Iterator[tuple[int, tuple]]:
    """Number the tasks: by the block that is their last argument, else by their order."""
    for number, args in enumerate(arguments):
        yield args[-1].index if isinstance(args[-1], Block) else number, args


# --- on the worker ---------------------------------------------------------------------------------


def in_classifier_process(
    number: int, args: tuple, *, plugin: str, function: Callable, timeout: float | None
) -> object:
    """The Dask task: a thread of the worker that waits for a classifier process. Returns failures as values."""
    try:
        return get_worker().plugins[plugin].call(number, function, args, timeout)
    except ProcessDied as death:
        return Died(death.message)
    except DaskClassifyError as error:
        return error


class ClassifierPlugin(WorkerPlugin):
    """Gives a Dask worker its classifier processes and the classifier's files, also a worker that joins
    later.
    """

    def __init__(self, name: str, package: Package, expected: dict[str, str]):
        self.name, self.package, self.expected = name, package, expected

    def setup(self, worker) -> None:
        """Lay the files down; the processes start with their first task."""
        if multiprocessing.current_process().daemon:
            multiprocessing.current_process().daemon = False  # a Nanny's child; else it may have no children
        start_forkserver()
        self.folder = tempfile.mkdtemp(prefix="classifier-", dir=worker.local_directory)
        self.package.unpack(Path(self.folder))
        self.pool = ClassifierProcesses(worker.state.nthreads, Site(str(worker.name), self.folder))
        self.rows: dict[int, tuple[int, int]] = {}
        self.worker, self.proc = worker, worker.monitor.proc
        # where Dask watches memory, it would pause a worker for what its children share
        worker.monitor.proc = Family(self.proc, self.pool, memory=not worker.memory_manager.memory_limit)
        self.telling = PeriodicCallback(self._tell, _TELL_SECONDS * 1000)
        self.telling.start()

    def teardown(self, worker) -> None:
        """End the processes."""
        self.telling.stop()
        self.pool.close()
        worker.monitor.proc = self.proc
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, number: int, function: Callable, args: tuple, timeout: float | None) -> object:
        """Run one task in a process of this worker."""
        if (mine := versions()) != self.expected:
            raise ClusterError(*_explain_versions(mine, self.expected))

        def on_report(rows: int, bad: int) -> None:
            self.rows[number] = (rows, bad)

        try:
            return self.pool.call(function, *args, on_report=on_report, timeout=timeout)
        finally:
            self.rows.pop(number, None)

    def _tell(self) -> None:
        self.pool.rest()
        if self.rows:
            tasks = [(number, rows, bad) for number, (rows, bad) in self.rows.copy().items()]
            self.worker.log_event(self.name, {"worker": str(self.worker.name), "tasks": tasks})


def _explain_versions(mine: dict[str, str], expected: dict[str, str]) -> tuple[str, str]:
    differences = [
        f"{name} {mine.get(name)} (you have {want})" for name, want in expected.items() if mine.get(name) != want
    ]
    return (
        f"The workers' versions are not yours: {', '.join(differences)}.",
        "They would write other bytes. Install the same versions on both sides, as constraints.txt has them.",
    )


class Family:
    """A worker's process together with its classifier processes, as psutil shows one process: the dashboard
    then tells the truth.
    """

    def __init__(self, proc: psutil.Process, pool: ClassifierProcesses, *, memory: bool):
        self._proc, self._pool, self._memory = proc, pool, memory
        self._children: dict[int, psutil.Process] = {}

    def __getattr__(self, name: str):
        return getattr(self._proc, name)

    def _each(self) -> Iterator[psutil.Process]:
        yield self._proc
        for pid in self._pool.pids():
            with contextlib.suppress(psutil.Error):  # it may just have ended
                yield self._children.setdefault(pid, psutil.Process(pid))

    def cpu_percent(self) -> float:
        """CPU use since the last call, in percent of one core."""
        return sum(_zero_if_gone(process.cpu_percent) for process in self._each())

    def memory_info(self):
        """Memory in bytes; pages that processes share are counted once for each."""
        own = self._proc.memory_info()
        if not self._memory:
            return own
        return own._replace(rss=sum(_zero_if_gone(lambda p=process: p.memory_info().rss) for process in self._each()))


def _zero_if_gone(measure: Callable[[], float]) -> float:
    try:
        return measure()
    except psutil.Error:
        return 0


# --- choosing --------------------------------------------------------------------------------------


@contextlib.contextmanager
def connect(cluster, run_id: str, package: Package, watcher: Watcher) -> Iterator[InlineExecutor | DaskExecutor]:
    """An executor on a cluster: None or "inline", an address, a Dask cluster, or a Client. Raises
    ClusterError.
    """
    with contextlib.ExitStack() as stack:
        if cluster is None or cluster == "inline":
            executor = InlineExecutor(package, watcher)
        else:
            client = cluster if isinstance(cluster, Client) else stack.enter_context(_client(cluster))
            _wait_for_workers(client)
            executor = DaskExecutor(client, run_id, package, watcher)
        stack.callback(executor.close)
        yield executor


def _wait_for_workers(client: Client) -> None:
    try:
        client.wait_for_workers(1, timeout=_WORKER_SECONDS)
    except TimeoutError as error:
        raise ClusterError(
            f"The cluster has had no worker for {_WORKER_SECONDS} seconds.", "Start its workers, then try again."
        ) from error


def _client(cluster: str | Cluster) -> Client:
    try:
        client = Client(cluster, set_as_default=False, timeout="10s")
    except (OSError, ValueError, TimeoutError) as error:
        raise ClusterError(
            f"There is no Dask cluster at {cluster}: {error}.", "Is its scheduler running, and reachable from here?"
        ) from error
    return client


__all__ = ["DaskExecutor", "InlineExecutor", "Outcome", "Watcher", "connect"]
