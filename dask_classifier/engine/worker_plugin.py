"""What a Dask worker has of us: its classifier processes, given to it by a plugin, and the task that uses them."""

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
from ..classifier.job import CLASSIFY_BLOCK, Site
from ..dashboard.events import PAGE_TOPIC, run_of
from ..errors import ClusterError, DaskClassifyError, ProcessDied
from ..parts.receipts import Receipt
from ..runs.planning import versions
from ..runs.progress import Finished
from ..units import Renewal
from . import spot
from .printed import Printed
from .processes import ClassifierProcesses, start_forkserver

_TELL_SECONDS = 0.5


@dataclass(frozen=True)
class Died:
    """What a Dask task returns when its process died."""

    manner: str


class UnderWay(NamedTuple):
    """A block in flight: rows so far, where, and since when on this machine's monotonic clock."""

    rows: int
    bad_rows: int
    pid: int
    began: float


def in_classifier_process(number: int, args: tuple, *, plugin: str, task: str, timeout: float | None) -> object:
    """The Dask task: a thread of the worker that waits for a classifier process. Returns failures as values."""
    try:
        return get_worker().plugins[plugin].call(number, task, args, timeout)
    except ProcessDied as death:
        return Died(death.message)
    except DaskClassifyError as error:
        return error


class ClassifierPlugin(WorkerPlugin):
    """Gives a Dask worker its classifier processes and the classifier's files, also a worker that joins
    later.
    """

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
        """Lay the files down; the processes start with their first task."""
        if multiprocessing.current_process().daemon:
            multiprocessing.current_process().daemon = False  # a Nanny's child; else it may have no children
        start_forkserver()
        self.folder = tempfile.mkdtemp(prefix="classifier-", dir=worker.local_directory)
        self.package.install(Path(self.folder))
        self.worker_name = str(worker.name)
        site = Site(self.worker_name, self.folder)
        self.pool = ClassifierProcesses(worker.state.nthreads, site, self.environment, self.renewal)
        self.printed = Printed()
        self.blocks: dict[int, UnderWay] = {}
        self.usage = Usage()
        self.finished: queue.SimpleQueue[Finished] = queue.SimpleQueue()  # that the page has not heard of
        self.worker, self.proc = worker, worker.monitor.proc
        # where Dask watches memory, it would pause a worker for what its children share
        worker.monitor.proc = Family(self.proc, self.pool, memory=not worker.memory_manager.memory_limit)
        self.telling = PeriodicCallback(self._tell, _TELL_SECONDS * 1000)
        self.telling.start()
        self.watch_is_over = spot.watch(worker, self._leave)

    def _leave(self, why: str) -> None:
        told = {"name": self.worker_name, "leaving": why}
        self.worker.loop.add_callback(self.worker.log_event, self.name, told)

    def teardown(self, worker) -> None:
        """End the processes."""
        with contextlib.suppress(Exception):  # the scheduler may be gone
            self._tell()
        self.telling.stop()
        self.watch_is_over.set()
        self.pool.close()
        worker.monitor.proc = self.proc
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, number: int, task: str, args: tuple, timeout: float | None) -> object:
        """Run one task in a process of this worker."""
        if (mine := versions()) != self.expected:
            raise ClusterError(*_explain_versions(mine, self.expected))

        def on_start(pid: int) -> None:
            if task == CLASSIFY_BLOCK:  # others have numbers of their own
                self.blocks[number] = UnderWay(0, 0, pid, time.monotonic())

        def on_report(rows: int, bad: int) -> None:
            if task == CLASSIFY_BLOCK:
                self.blocks[number] = self.blocks[number]._replace(rows=rows, bad_rows=bad)

        self._restore_files()
        try:
            done = self.pool.call(
                task, *args, on_start=on_start, on_report=on_report, on_output=self.printed.add, timeout=timeout
            )
            if isinstance(done, Receipt):
                self.finished.put(Finished.of(done))
            return done
        finally:
            self.blocks.pop(number, None)
            self._tell_printed()  # before the outcome, so that the client hears of it before the run is over

    def _restore_files(self) -> None:
        """Lay the classifier's files down again where something that cleans temporary folders has removed them."""
        if not all(Path(self.folder, name).exists() for name in self.package.files):
            Path(self.folder).mkdir(parents=True, exist_ok=True)
            self.package.install(Path(self.folder))

    def _tell_printed(self) -> None:
        if lines := self.printed.take():
            self.worker.log_event(self.name, {"name": self.worker_name, "printed": lines})

    def _tell(self) -> None:
        """What is done first: a block that is neither done nor in flight would look lost."""
        self.pool.rest()
        self._tell_printed()
        now = time.monotonic()
        self.usage.keep({at.pid for at in self.blocks.copy().values()})
        tasks = [
            (number, at.rows, at.bad_rows, at.pid, round(now - at.began, 1), *self.usage.of(at.pid))
            for number, at in self.blocks.copy().items()
        ]
        if finished := [self.finished.get() for _ in range(self.finished.qsize())]:
            self.worker.log_event(PAGE_TOPIC, {"run": run_of(self.name), "finished": finished})
        if tasks:
            told = {"name": self.worker_name, "host": socket.gethostname(), "tasks": tasks}
            self.worker.log_event(self.name, told)


def _explain_versions(mine: dict[str, str], expected: dict[str, str]) -> tuple[str, str]:
    differences = [
        f"{name} {mine.get(name)} (you have {want})" for name, want in expected.items() if mine.get(name) != want
    ]
    return (
        f"The workers' versions are not yours: {', '.join(differences)}.",
        "They would write other bytes. Install the same versions on both sides, as constraints.txt has them.",
    )


class Usage:
    """What classifier processes use. Dask's monitor has its own, since CPU time counts from one look to the next."""

    def __init__(self):
        self._known: dict[int, psutil.Process] = {}

    def keep(self, pids: set[int]) -> None:
        """Forget processes that are at work no more."""
        self._known = {pid: process for pid, process in self._known.items() if pid in pids}

    def of(self, pid: int) -> tuple[float, int]:
        """Return percent of one core since the last look, and bytes of memory; zeros for a process that is gone."""
        try:
            if pid not in self._known:
                self._known[pid] = psutil.Process(pid)
            return self._known[pid].cpu_percent(), self._known[pid].memory_info().rss
        except psutil.Error:
            self._known.pop(pid, None)
            return 0.0, 0


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
