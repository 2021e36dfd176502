"""Where tasks run: in this process, or in the classifier processes of a Dask cluster.

A failure is an outcome, too, so that Dask neither repeats nor logs it. On Dask, a window of tasks is in flight at a
time, and a task whose process died runs again in another process, three times in all.
"""

import contextlib
import itertools
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import NamedTuple, Protocol

from distributed import Client, as_completed
from distributed.scheduler import KilledWorker

from ..classifier.bundle import Bundle
from ..classifier.job import Site
from ..config import s3_environment
from ..dashboard import events
from ..dashboard.scheduler_plugin import RunsPlugin, page_path
from ..errors import ClusterError, DaskClassifyError, ProcessDied, UsageError
from ..rows.blocks import Block
from ..runs.planning import versions
from ..runs.progress import Progress
from ..units import Renewal
from .instances import InstanceCluster, OtherCluster
from .worker_plugin import ClassifierPlugin, Died, run_task

TRIES = 3  # processes that a task may kill before it is given up
_TASKS_A_PROCESS = 3  # in flight: more than two, so that Dask keeps the rest on the scheduler and not on one worker
_WINDOW_SECONDS = 5  # between two looks at the cluster's size
_LOOK_SECONDS = 0.05  # between two looks at whether the time is over
_TELL_SECONDS = 2  # at most, to wait until the scheduler has heard


Over = Callable[[], bool]  # whether the time is over


class Outcome(NamedTuple):
    """The result of the task for one argument, or its error."""

    number: int  # of the argument, from 0, or its `index`
    value: object = None
    error: DaskClassifyError | None = None


class Executor(Protocol):
    """What a run needs of the place where its tasks run."""

    client_name: str
    """The Dask client's id, or ""."""
    dashboard: str | None
    """URL of the Classify page, or None."""
    instances: InstanceCluster
    """What is known of the cluster's instances."""

    @property
    def processes(self) -> int:
        """Classifier processes, at least 1."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether tasks run in other processes than this one and its children, perhaps on other computers."""
        ...

    def each(
        self, task: str, arguments: Iterable[tuple], timeout: float | None = None, is_over: Over | None = None
    ) -> Iterator[Outcome]:
        """Run a task, named as "module:function", for each tuple of arguments, and yield outcomes as they come.

        It ends early once `is_over` returns True: tasks that are still running are given up.
        """
        ...

    def soon(self, task: str, args: tuple, near: str, is_over: Over | None = None) -> Outcome | None:
        """Run a task before those that wait, if possible on the worker `near`; None if `is_over` returns True before.

        `near` is the name of a worker, or "" for any.
        """
        ...

    def tell(self, **news: object) -> None:
        """Send the dashboard's page what only the client knows."""
        ...

    def close(self) -> None:
        """Remove what was made for the run."""
        ...


class InlineExecutor:
    """Runs tasks in this process, one after the other, without Dask: for a debugger."""

    processes = 1
    is_remote = False
    dashboard = None
    instances: InstanceCluster = OtherCluster()
    client_name = ""

    def __init__(self, package: Bundle, progress: Progress):
        self.progress = progress
        self._package = package
        self._folder = tempfile.mkdtemp(prefix="dask-classify-")
        package.install(Path(self._folder))
        by_value = package.entry.endswith(".pickle")
        # modules are imported from where they are, so that a debugger shows the user's own file
        self.site = Site("inline", self._folder if by_value else package.home)
        self._path = list(sys.path)
        self._forget_code()

    def _forget_code(self) -> None:
        """An earlier run in this process may have imported an earlier version of the classifier."""
        from ..tasks import forget_classifiers  # imported here because nothing else in this process needs pandas

        forget_classifiers()
        for name in self._package.modules:
            sys.modules.pop(name, None)

    def each(
        self, task: str, arguments: Iterable[tuple], timeout: float | None = None, is_over: Over | None = None
    ) -> Iterator[Outcome]:
        """Run the task lazily, as each outcome is requested; a running one is not given up."""
        if timeout:
            raise UsageError(
                "A block that runs inline cannot be timed out.", "Leave --block-timeout out, or --cluster inline."
            )
        function = resolve_name(task)
        for number, args in _numbered(arguments):
            if is_over and is_over():
                return

            def report(rows: int, bad: int, number: int = number) -> None:
                self.progress.under_way("inline", {number: (rows, bad)})

            try:
                yield Outcome(number, function(self.site, report, *args))
            except DaskClassifyError as error:
                yield Outcome(number, error=error)
            self.progress.under_way("inline", {})

    def soon(self, task: str, args: tuple, near: str, is_over: Over | None = None) -> Outcome | None:
        """Run the task."""
        return next(self.each(task, [args], is_over=is_over), None)

    def tell(self, **news: object) -> None:
        """Do nothing: there is no dashboard."""

    def close(self) -> None:
        """Remove the files created and the modules imported for the run."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._forget_code()
        sys.path[:] = self._path


class DaskExecutor:
    """Runs tasks in the classifier processes of a Dask cluster's workers."""

    def __init__(
        self,
        client: Client,
        instances: InstanceCluster,
        run_id: str,
        package: Bundle,
        progress: Progress,
        renewal: Renewal | None = None,
    ):
        self.client, self.instances, self.progress = client, instances, progress
        self.topic = self.plugin = events.topic(run_id)
        self._page_listens = self._is_closed = False
        self.client_name = client.id
        self.dashboard = self._page()
        self._tries = itertools.count()
        self.tell(client=client.id)  # first: the scheduler clears the workers when this client is killed
        client.subscribe_topic(self.topic, self._hear)
        try:
            plugin = ClassifierPlugin(
                self.plugin, package, versions(), s3_environment() | instances.environment(), renewal
            )
            client.register_plugin(plugin)
        except BaseException as error:
            self.close()  # else every worker that joins the cluster later would load the plugin, and fail to start
            if not isinstance(error, Exception) or isinstance(error, DaskClassifyError):
                raise
            raise ClusterError(
                f"Cannot prepare the cluster's workers: {type(error).__name__}: {error}.",
                "Install this version of dask-classify on the workers.",
            ) from error

    def _page(self) -> str | None:
        """Return the URL of the Classify page, or of Dask's dashboard if the scheduler does not have this package."""
        link = self.client.dashboard_link
        try:
            self.client.register_plugin(RunsPlugin())
            path = self.client.run_on_scheduler(page_path)
        except Exception as error:
            self.progress.note(
                f"the dashboard does not show this run: the scheduler reported {type(error).__name__}: {error}"
            )
            return link
        self._page_listens = True
        return link and path and link.replace("/status", path)

    def tell(self, **news: object) -> None:
        """Send the dashboard's page what only the client knows. The run neither depends on it nor waits for it."""
        if not self._page_listens:
            return
        message = {"run": events.run_of(self.topic)} | news
        try:
            self.client.sync(
                self.client.scheduler.log_event, topic=events.PAGE_TOPIC, msg=message, callback_timeout=_TELL_SECONDS
            )
        except Exception:
            self._page_listens = False

    @property
    def processes(self) -> int:
        """Classifier processes in the cluster: one for each thread of each worker, also of one still to come."""
        return max(1, sum(self.client.nthreads().values()), self.instances.expected_processes)

    @property
    def is_remote(self) -> bool:
        """Whether workers are other processes than this one, perhaps on other computers."""
        return not all(address.startswith("inproc://") for address in self.client.nthreads())

    def _hear(self, event: tuple[float, dict]) -> None:
        news = event[1]
        worker = news["name"]  # Dask overwrites "worker" with an address
        if "leaving" in news:
            self.progress.leaving(worker, news["leaving"])
        elif "printed" in news:
            self.progress.printed(worker, news["printed"])
        else:
            self.progress.under_way(worker, {number: (rows, bad) for number, rows, bad, *_ in news["tasks"]})

    def each(
        self, task: str, arguments: Iterable[tuple], timeout: float | None = None, is_over: Over | None = None
    ) -> Iterator[Outcome]:
        """Run the task for each tuple of arguments; outcomes in the order in which they come."""
        return self._each(_Flight(self, task, timeout, is_over), arguments)

    def soon(self, task: str, args: tuple, near: str, is_over: Over | None = None) -> Outcome | None:
        """Run the task on the worker `near`, if it is there."""
        address = next((address for address, name in self._names().items() if name == near), None)
        where = {"workers": address, "allow_other_workers": True} if address else {}
        flight = _Flight(self, task, None, is_over, {"priority": 1, **where})
        with contextlib.closing(self._each(flight, [args])) as outcomes:
            return next(outcomes, None)

    def _names(self) -> dict[str, str]:
        """Return the workers' names, by their addresses."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        return {address: str(worker["name"]) for address, worker in workers.items()}

    def _each(self, flight: "_Flight", arguments: Iterable[tuple]) -> Iterator[Outcome]:
        left = _numbered(arguments)
        try:
            flight.submit(itertools.islice(left, flight.room()))
            for outcome in flight.landed():
                if outcome:
                    yield outcome
                if flight.is_low():
                    flight.submit(itertools.islice(left, flight.room()))
        finally:
            flight.cancel()

    def close(self) -> None:
        """Take the classifier processes away from the cluster, unless that was done before."""
        if self._is_closed:
            return
        self._is_closed = True
        with contextlib.suppress(Exception):  # the cluster may be gone already, and then so are they
            self.client.unsubscribe_topic(self.topic)
            self.client.unregister_worker_plugin(self.plugin)


@dataclass
class _Flight:
    """The running tasks of one call of `each`."""

    executor: DaskExecutor
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
        keys = [(name, number, next(executor._tries)) for number, _ in tasks]
        futures = executor.client.map(run_task, *zip(*tasks, strict=True), key=keys, **call)
        self.under_way |= {future: (number, args, tries) for future, (number, args) in zip(futures, tasks, strict=True)}
        self.completed.update(futures)

    def landed(self) -> Iterator[Outcome | None]:
        """Outcomes as they come, until nothing is under way or the time is over; None where a task starts again."""
        while self.under_way and self._wait():
            future, result = next(self.completed)
            number, args, tries = self.under_way.pop(future)
            yield self._outcome(number, args, tries, result, future.status)

    def _wait(self) -> bool:
        """Wait for an outcome if the time may be over before; return whether there is one to come."""
        while self.is_over and not self.completed.has_ready():
            if self.is_over():
                return False
            time.sleep(_LOOK_SECONDS)
        return True

    def _outcome(self, number: int, args: tuple, tries: int, result: object, status: str) -> Outcome | None:
        if status != "finished" and _is_failure(result):
            return Outcome(number, error=_cluster_failure(result))
        if isinstance(result, DaskClassifyError):
            return Outcome(number, error=result)
        if not isinstance(result, Died):
            return Outcome(number, result)
        self.executor.progress.died(number, result.manner, tries < TRIES)
        if tries < TRIES:
            self.submit([(number, args)], tries + 1)
            return None
        return Outcome(number, error=ProcessDied(f"{result.manner}, {TRIES} times"))

    def cancel(self) -> None:
        """Cancel the tasks that are still running."""
        with contextlib.suppress(Exception):  # the cluster may be gone
            self.executor.client.cancel(list(self.under_way), force=True)


def _is_failure(result: object) -> bool:
    """Whether a result is Dask's reason for having none: a task that was given up may still deliver its result."""
    return isinstance(result[1] if isinstance(result, tuple) and len(result) == 3 else result, BaseException)


_REASONS = {"scheduler-connection-lost": "its scheduler closed it"}


def _cluster_failure(result: object) -> DaskClassifyError:
    """Turn Dask's reason for a task that never finished into an error."""
    error = result[1] if isinstance(result, tuple) else result
    if isinstance(error, KilledWorker):
        return ProcessDied(f"brought down its Dask worker, {error.allowed_failures + 1} times")
    if isinstance(error, DaskClassifyError):
        return error
    why = getattr(error, "reason", None) or f"{type(error).__name__}: {error}"  # Dask's reasons are words-with-hyphens
    return ClusterError(
        f"Lost the connection to the cluster: {_REASONS.get(why, why.replace('-', ' '))}.",
        "Finished blocks are kept. Continue on another cluster with --resume.",
    )


def _numbered(arguments: Iterable[tuple]) -> Iterator[tuple[int, tuple]]:
    """Number the tasks: by the block that is their last argument, else by their order."""
    for number, args in enumerate(arguments):
        yield args[-1].index if isinstance(args[-1], Block) else number, args
