"""Where tasks run: in this process, or in the classifier processes of a Dask cluster.

A failure is an outcome, too, so that Dask neither repeats nor logs it.
"""

import contextlib
import itertools
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import Protocol

from distributed import Client

from ..classifier.bundle import Bundle
from ..classifier.job import Site
from ..classifier.requirements import version_of
from ..config import s3_environment
from ..dashboard import events
from ..dashboard.scheduler_plugin import RunsPlugin, page_path
from ..errors import ClusterError, DaskClassifyError, UsageError
from ..rows.blocks import Block
from ..runs.planning import versions
from ..runs.progress import Progress
from ..units import Renewal
from .connection import Connection
from .flight import Flight, Outcome, Over
from .instances import InstanceCluster, OtherCluster
from .worker_plugin import ClassifierPlugin

_TELL_SECONDS = 2  # at most, to wait until the scheduler has heard


class Executor(Protocol):
    """What a run needs of the place where its tasks run."""

    dashboard: str | None
    """URL of the Classify page, or None."""
    instances: InstanceCluster
    """What is known of the cluster's instances."""

    @property
    def client_name(self) -> str:
        """The Dask client's id, or ""."""
        ...

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
        try:
            package.install(Path(self._folder))
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
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
        connection: Connection,
        run_id: str,
        package: Bundle,
        progress: Progress,
        renewal: Renewal | None = None,
    ):
        self.connection, self.instances, self.progress = connection, connection.instances, progress
        self.topic = self.plugin = events.topic(run_id)
        self._page_listens = self._is_closed = False
        self.dashboard = self._page()
        self._has_page = self._page_listens
        self._tries = itertools.count()
        self._threads = 0
        try:
            environment = s3_environment() | self.instances.environment()
            expected = versions() | dict(map(version_of, package.requirements))
            self._worker_plugin = ClassifierPlugin(self.plugin, package, expected, environment, renewal)
            connection.join = self._join_again
            self._join_first()
        except BaseException as error:
            self.close()  # else every worker that joins the cluster later would load the plugin, and fail to start
            if not isinstance(error, OSError):
                raise
            raise _unprepared(error) from error

    @property
    def client_name(self) -> str:
        """The client's id."""
        return self.client.id

    @property
    def client(self) -> Client:
        """The client; after a lost connection, another one."""
        return self.connection.client

    def _join(self) -> None:
        """Register on the scheduler what the run needs there. Raises OSError if the connection is lost."""
        self.tell(client=self.client.id)  # first: the scheduler clears the workers when this client is killed
        self.client.subscribe_topic(self.topic, self._hear)
        try:
            self.client.register_plugin(self._worker_plugin)
        except (OSError, DaskClassifyError):
            raise
        except Exception as error:
            raise _unprepared(error) from error

    def _join_first(self) -> None:
        """Register on the first connection or, if that is lost meanwhile, on another one."""
        try:
            self._join()
        except OSError:
            if not self.connection.is_lost_soon():
                raise
            self.connection.ensure()

    def _join_again(self) -> None:
        """Register on a new connection: first whom the run belongs to, else the scheduler would clear the workers."""
        if self._has_page:
            self.client.register_plugin(RunsPlugin())
        self._page_listens = self._has_page
        self._join()
        if self._page_listens != self._has_page:
            raise OSError("the scheduler did not hear of the new client")

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
        try:
            self._threads = sum(self.client.nthreads().values())
        except Exception:  # while there is no connection, there are as many as before
            if self.connection.is_joined():
                raise
        return max(1, self._threads, self.instances.expected_processes)

    @property
    def is_remote(self) -> bool:
        """Whether workers are other processes than this one, perhaps on other computers."""
        return not all(address.startswith("inproc://") for address in self.connection.ask(Client.nthreads))

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
        return self._each(Flight(self, task, timeout, is_over), arguments)

    def soon(self, task: str, args: tuple, near: str, is_over: Over | None = None) -> Outcome | None:
        """Run the task on the worker `near`, if it is there."""
        address = next((address for address, name in self._names().items() if name == near), None)
        where = {"workers": address, "allow_other_workers": True} if address else {}
        flight = Flight(self, task, None, is_over, {"priority": 1, **where})
        with contextlib.closing(self._each(flight, [args])) as outcomes:
            return next(outcomes, None)

    def _names(self) -> dict[str, str]:
        """Return the workers' names, by their addresses."""
        workers = self.connection.ask(lambda client: client.scheduler_info(n_workers=-1)["workers"])
        return {address: str(worker["name"]) for address, worker in workers.items()}

    def _each(self, flight: Flight, arguments: Iterable[tuple]) -> Iterator[Outcome]:
        left = _numbered(arguments)
        try:
            flight.begin(left)
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
        self.connection.first._event_handlers.pop(self.topic, None)  # if it has lost its connection


def _numbered(arguments: Iterable[tuple]) -> Iterator[tuple[int, tuple]]:
    """Number the tasks: by the block that is their last argument, else by their order."""
    for number, args in enumerate(arguments):
        yield args[-1].index if isinstance(args[-1], Block) else number, args


def _unprepared(error: Exception) -> ClusterError:
    return ClusterError(
        f"Cannot prepare the cluster's workers: {type(error).__name__}: {error}.",
        "Install this version of dask-classify on the workers.",
    )
