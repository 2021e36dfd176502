"""The plugin that gives a Dask worker its classifier processes, and the Dask task that uses them."""

import contextlib
import multiprocessing
import queue
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil
from distributed import WorkerPlugin, get_worker
from tornado.ioloop import PeriodicCallback

from ..classifier.bundle import Bundle
from ..classifier.job import CLASSIFY_BLOCK, UNPACK, Site
from ..classifier.requirements import installed
from ..dashboard.events import PAGE_TOPIC, run_of
from ..errors import ClusterError, DaskClassifyError, ProcessDied
from ..parts.receipts import Receipt
from ..runs.planning import versions
from ..runs.progress import Finished
from ..units import Renewal
from . import spot
from .printed import Printed
from .processes import ClassifierProcesses, start_forkserver

_REPORT_SECONDS = 0.5
_UNPACKING_IDLE_SECONDS = 600.0


@dataclass(frozen=True)
class Died:
    """The result of a Dask task whose process died."""

    manner: str


@dataclass(frozen=True)
class Forgotten:
    """The result of a Dask task on a worker that does not know the run: the connection to the scheduler was lost."""


class UnderWay(NamedTuple):
    """A block in flight."""

    rows: int  # so far
    bad_rows: int  # so far
    pid: int
    began: float  # on this computer's monotonic clock


def run_task(number: int, args: tuple, *, plugin: str, task: str, timeout: float | None) -> object:
    """Wait for a classifier process in a thread of the worker. This is the Dask task; it returns failures as values."""
    if not (here := get_worker().plugins.get(plugin)):
        return Forgotten()  # of a client that has lost its connection
    try:
        return here.call(number, task, args, timeout)
    except ProcessDied as death:
        return Died(death.message)
    except DaskClassifyError as error:
        return error


class ClassifierPlugin(WorkerPlugin):
    """Give each Dask worker, even one that joins later, its classifier processes and the classifier's files."""

    def __init__(
        self,
        name: str,
        package: Bundle,
        expected: dict[str, str],
        environment: dict[str, str],
        renewal: Renewal | None = None,
    ):
        self.name, self.package, self.expected = name, package, expected
        self.environment, self.renewal = environment, renewal

    def setup(self, worker) -> None:
        """Install the classifier's files. Processes start with their first task."""
        if multiprocessing.current_process().daemon:
            multiprocessing.current_process().daemon = False  # under a Nanny; daemons cannot have children
        start_forkserver()
        self.folder = tempfile.mkdtemp(prefix="classifier-", dir=worker.local_directory)
        self.package.install(Path(self.folder))
        self.worker_name = str(worker.name)
        site = Site(self.worker_name, self.folder)
        self.pool = ClassifierProcesses(worker.state.nthreads, site, self.environment, self.renewal)
        # it has an input open, which it would have to read from its beginning again
        self.unpacking = ClassifierProcesses(1, site, self.environment, idle_seconds=_UNPACKING_IDLE_SECONDS)
        self.printed = Printed()
        self.blocks: dict[int, UnderWay] = {}
        self.usage = Usage()
        self.finished: queue.SimpleQueue[Finished] = queue.SimpleQueue()  # not yet reported to the page
        self.worker, self.proc = worker, worker.monitor.proc
        # with a memory limit, Dask would pause the worker for memory that its children share
        worker.monitor.proc = Family(self.proc, self._pids, memory=not worker.memory_manager.memory_limit)
        self.reporting = PeriodicCallback(self._report, _REPORT_SECONDS * 1000)
        self.reporting.start()
        self.stop_spot_watch = spot.watch(worker, self._report_leaving)

    def _pids(self) -> list[int]:
        return self.pool.pids() + self.unpacking.pids()

    def _report_leaving(self, reason: str) -> None:
        event = {"name": self.worker_name, "leaving": reason}
        self.worker.loop.add_callback(self.worker.log_event, self.name, event)

    def teardown(self, worker) -> None:
        """Stop the processes and restore the worker."""
        with contextlib.suppress(Exception):  # the scheduler may have exited
            self._report()
        self.reporting.stop()
        self.stop_spot_watch.set()
        self.pool.close()
        self.unpacking.close()
        worker.monitor.proc = self.proc
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, number: int, task: str, args: tuple, timeout: float | None) -> object:
        """Run one task in a process of this worker."""
        if (there := versions() | installed(self.package.requirements)) != self.expected:
            raise ClusterError(*explain_versions(there, self.expected))

        def on_start(pid: int) -> None:
            if task == CLASSIFY_BLOCK:  # the numbers of other tasks are not those of blocks
                self.blocks[number] = UnderWay(0, 0, pid, time.monotonic())

        def on_report(rows: int, bad: int) -> None:
            if task == CLASSIFY_BLOCK:
                self.blocks[number] = self.blocks[number]._replace(rows=rows, bad_rows=bad)

        self._restore_files()
        pool = self.unpacking if task == UNPACK else self.pool
        try:
            result = pool.call(
                task, *args, on_start=on_start, on_report=on_report, on_output=self.printed.add, timeout=timeout
            )
            if isinstance(result, Receipt):
                self.finished.put(Finished.of(result))
            return result
        finally:
            if task == CLASSIFY_BLOCK:
                self.blocks.pop(number, None)
            self._report_printed()  # before the result, so that the client gets the lines before the run is over

    def _restore_files(self) -> None:
        """Install the classifier's files again if they were removed, as by a cleaner of temporary folders."""
        if not all(Path(self.folder, name).exists() for name in self.package.files):
            Path(self.folder).mkdir(parents=True, exist_ok=True)
            self.package.install(Path(self.folder))

    def _report_printed(self) -> None:
        if lines := self.printed.take():
            self.worker.log_event(self.name, {"name": self.worker_name, "printed": lines})

    def _report(self) -> None:
        """Report finished blocks, then those in flight: a block that is in neither report would seem to be lost."""
        self.pool.stop_idle()
        self.unpacking.stop_idle()
        self._report_printed()
        now = time.monotonic()
        self.usage.keep({block.pid for block in self.blocks.copy().values()})
        tasks = [
            (number, block.rows, block.bad_rows, block.pid, round(now - block.began, 1), *self.usage.of(block.pid))
            for number, block in self.blocks.copy().items()
        ]
        if finished := [self.finished.get() for _ in range(self.finished.qsize())]:
            self.worker.log_event(PAGE_TOPIC, {"run": run_of(self.name), "finished": finished})
        if tasks:
            event = {"name": self.worker_name, "host": socket.gethostname(), "tasks": tasks}
            self.worker.log_event(self.name, event)


def explain_versions(installed: dict[str, str], expected: dict[str, str]) -> tuple[str, str]:
    """Return the message and the hint for versions on another computer that differ from those here."""
    differences = [
        f"{name} {installed.get(name)} (you have {version})"
        for name, version in expected.items()
        if installed.get(name) != version
    ]
    return (
        f"Package versions on the workers differ from yours: {', '.join(differences)}.",
        "The output could differ, too. Install the same versions on both sides, such as those in constraints.txt.",
    )


class Usage:
    """CPU and memory use of classifier processes.

    It is separate from Dask's monitor, because psutil measures CPU use since the last call.
    """

    def __init__(self):
        self._known: dict[int, psutil.Process] = {}

    def keep(self, pids: set[int]) -> None:
        """Forget all processes except those with these IDs."""
        self._known = {pid: process for pid, process in self._known.items() if pid in pids}

    def of(self, pid: int) -> tuple[float, int]:
        """Return the CPU use since the last call, in percent of one core, and memory in bytes; zeros after its exit."""
        try:
            if pid not in self._known:
                self._known[pid] = psutil.Process(pid)
            return self._known[pid].cpu_percent(), self._known[pid].memory_info().rss
        except psutil.Error:
            self._known.pop(pid, None)
            return 0.0, 0


class Family:
    """A worker's process and its classifier processes, with the interface of a single psutil process.

    With it, Dask's dashboard includes the classifier processes in the worker's CPU and memory use.
    """

    def __init__(self, proc: psutil.Process, pids: Callable[[], list[int]], *, memory: bool):
        self._proc, self._pids, self._memory = proc, pids, memory
        self._children: dict[int, psutil.Process] = {}

    def __getattr__(self, name: str):
        return getattr(self._proc, name)

    def _processes(self) -> Iterator[psutil.Process]:
        yield self._proc
        for pid in self._pids():
            with contextlib.suppress(psutil.Error):  # it may just have exited
                yield self._children.setdefault(pid, psutil.Process(pid))

    def cpu_percent(self) -> float:
        """Return the CPU use since the last call, in percent of one core."""
        return sum(_zero_after_exit(process.cpu_percent) for process in self._processes())

    def memory_info(self):
        """Return the memory in bytes; pages that several processes share are counted for each of them."""
        own = self._proc.memory_info()
        if not self._memory:
            return own
        sizes = (_zero_after_exit(lambda p=process: p.memory_info().rss) for process in self._processes())
        return own._replace(rss=sum(sizes))


def _zero_after_exit(measure: Callable[[], float]) -> float:
    try:
        return measure()
    except psutil.Error:
        return 0
