"""The classifier processes of one Dask worker: started, fed a block, watched, replaced.

Each thread of the worker that has a task takes one child process, hands it the task through a pipe of the
child's own, and waits. So nothing else runs where a classifier runs, and a crash, a hang or a memory blow-up
costs a child and a block.

Why not a ready-made pool: `concurrent.futures` and loky give up the whole pool when one child dies, and so
does pebble 5.2 when the child is idle. With one pipe a child there is no shared queue whose lock a killed
child could take along.
"""

import contextlib
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.util
import os
import queue
import signal
import sys
import tempfile
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from pkgutil import resolve_name
from typing import NamedTuple

from .errors import DaskClassifyError

Report = Callable[[int, int], None]  # rows and bad rows so far, of the task at work
PRELOAD = ["dask_classifier.preload"]  # and with it pandas: imported once, shared by all children
REPORT_SECONDS = 0.2
REST_SECONDS = 60.0  # without a task; a child that is needed again is started again
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # a core for each child, and no more
_SOCKET_FOLDER_BYTES = 60  # of the 103 (macOS) or 107 (Linux) of a socket's path; multiprocessing adds 32
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
_starting = threading.Lock()


class Site(NamedTuple):
    """Where a task runs."""

    worker: str  # the Dask worker's name
    folder: str  # where the classifier's files are


class ProcessDied(DaskClassifyError):
    """A classifier process ended, or was ended, before its task was done."""


class TimeoutExpired(Exception):
    """A task has taken longer than it may."""


class TaskFailed(DaskClassifyError):
    """A task raised what no task should raise; the message holds the traceback."""


def start_forkserver() -> None:
    """Start the process from which the children are forked, so that pandas loads while others still do other
    things.
    """
    with _starting:
        multiprocessing.set_forkserver_preload(PRELOAD)
        _make_short_folder_for_sockets()
        with _environment(_THREADS, "1"):
            multiprocessing.forkserver.ensure_running()


def _make_short_folder_for_sockets() -> None:
    """Have multiprocessing make its temporary folder, which it makes once, where a socket's path stays within the
    system's limit, also when TMPDIR is long (conda and build systems like it so).
    """
    given = tempfile.gettempdir()
    short = next((each for each in _SHORT_FOLDERS if os.access(each, os.W_OK | os.X_OK)), given)
    if len(os.fsencode(given)) <= _SOCKET_FOLDER_BYTES:
        return
    tempfile.tempdir = short
    try:
        multiprocessing.util.get_temp_dir()
    finally:
        tempfile.tempdir = given


@contextlib.contextmanager
def _environment(names: tuple[str, ...], value: str) -> Iterator[None]:
    """Set variables that the user has not set, for as long as the block lasts."""
    added = [name for name in names if name not in os.environ]
    os.environ.update(dict.fromkeys(added, value))
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Keep multiprocessing from running the user's script, or the command, again in each child."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class Child:
    """One classifier process and the pipe to it."""

    def __init__(self, site: Site, environment: dict[str, str]):
        context = multiprocessing.get_context("forkserver")
        self.pipe, theirs = context.Pipe()
        with _starting, _without_main():
            # a daemon, so that an interpreter that ends, however hurriedly, ends it and does not wait for it
            args = (theirs, site, os.environ | environment)
            self.process = context.Process(target=_serve, args=args, name="classifier", daemon=True)
            self.process.start()
        theirs.close()
        self.used = time.monotonic()

    def call(self, task: str, args: tuple, *, on_report: Report, timeout: float | None) -> object:
        """Run a task in the child. Raises what it raises, or ProcessDied."""
        deadline = time.monotonic() + timeout if timeout else None
        try:
            self.pipe.send((task, args))
            while (message := self._next_message(deadline))[0] == "report":
                on_report(*message[1])
        except (EOFError, OSError):  # the pipe's other end is gone, perhaps within a message
            self.process.join(5)
            self.kill_family()
            raise ProcessDied(_manner(self.process.exitcode)) from None
        except TimeoutExpired:
            self.kill()
            raise ProcessDied(f"took longer than {timeout:g} s and was ended") from None
        self.used = time.monotonic()
        kind, value = message
        if kind == "failed":
            raise value
        return value

    def _next_message(self, deadline: float | None) -> tuple[str, object]:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not wait([self.pipe, self.process.sentinel], left):
            raise TimeoutExpired
        if not self.pipe.poll():  # the child is gone, though a child of its own may still hold the pipe's other end
            raise EOFError
        return self.pipe.recv()

    def kill_family(self) -> None:
        """Send SIGKILL to the child and to its own children."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        if self.process.is_alive():  # it has not come so far as to lead a group
            self.process.kill()

    def kill(self) -> None:
        """End the child and its own children, now."""
        self.kill_family()
        self.process.join()
        self.pipe.close()


def _manner(exitcode: int | None) -> str:
    """How a process ended, for people."""
    if exitcode is not None and exitcode < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-exitcode).name}"
    return f"ended with exit code {exitcode}"


class ClassifierProcesses:
    """At most `count` children, started when they are first needed, replaced when they die.

    They have this process's environment variables, and those of `environment`.
    """

    def __init__(self, count: int, site: Site, environment: dict[str, str] | None = None):
        self.site, self.environment = site, environment or {}
        self.count = count
        self._idle: queue.LifoQueue[Child | None] = queue.LifoQueue()
        self._alive: set[Child] = set()
        self._closed = False
        self._lock = threading.Lock()  # of _alive and _closed
        for _ in range(count):
            self._idle.put(None)

    def call(
        self, task: str, *args, on_report: Report = lambda rows, bad: None, timeout: float | None = None
    ) -> object:
        """Run a task, "module:function", as `function(site, report, *args)` in a child, when one is free.

        Raises what it raises, or ProcessDied.
        """
        child = self._idle.get()
        try:
            child = self._living(child)
            return child.call(task, args, on_report=on_report, timeout=timeout)
        except ProcessDied:
            self._forget(child)
            child = None
            raise
        finally:
            self._idle.put(child)

    def _living(self, child: Child | None) -> Child:
        if child is not None and child.process.is_alive():
            return child
        self._forget(child)
        if self._closed:
            raise ProcessDied("was ended with its worker")
        child = Child(self.site, self.environment)
        with self._lock:
            self._alive.add(child)
            closed = self._closed
        if closed:  # in the meantime
            self._forget(child)
            child.kill()
            raise ProcessDied("was ended with its worker")
        return child

    def _forget(self, child: Child | None) -> None:
        with self._lock:
            self._alive.discard(child)

    def rest(self) -> None:
        """End children that have had nothing to do for a while: the client of a cluster elsewhere may be gone."""
        idle = []
        with contextlib.suppress(queue.Empty):
            while len(idle) < self.count:
                idle.append(self._idle.get_nowait())
        for child in idle:
            if child is not None and time.monotonic() - child.used > REST_SECONDS:
                self._forget(child)
                child.kill()
                child = None
            self._idle.put(child)

    def pids(self) -> list[int]:
        """The children's process IDs."""
        with self._lock:
            return [child.process.pid for child in self._alive]

    def close(self) -> None:
        """End all children, whatever they are doing; no other starts."""
        with self._lock:
            self._closed, children = True, tuple(self._alive)
        for child in children:
            child.kill_family()
        for child in children:
            child.process.join(5)


# --- in the child ----------------------------------------------------------------------------------


def _serve(pipe: Connection, site: Site, environment: dict[str, str]) -> None:
    """Do tasks until the pipe is closed."""
    os.environ.update(environment)  # the forkserver has that of the first cluster's time
    multiprocessing.current_process().daemon = False  # a classifier may have children of its own
    os.setsid()  # a process group of its own: Ctrl-C does not reach it, and it goes with all that it has started
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)  # what a classifier prints is talk, not data
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            task, args = pipe.recv()
        except (EOFError, ConnectionError):
            return
        pipe.send(_outcome(task, args, site, pipe))


def _end_with_parent() -> None:
    """Sleeps until the parent is gone, even by SIGKILL, then ends this process and all that it has started."""
    wait([multiprocessing.parent_process().sentinel])
    os.killpg(os.getpid(), signal.SIGKILL)


def _outcome(task: str, args: tuple, site: Site, pipe: Connection) -> tuple[str, object]:
    try:
        return "done", resolve_name(task)(site, _reporter(pipe), *args)
    except DaskClassifyError as error:
        return "failed", error
    except BaseException as error:
        message = f"{type(error).__name__} in {task}: {error}\n{traceback.format_exc()}"
        return "failed", TaskFailed(
            message, "This is a defect of dask-classify, or a process out of memory: please report it."
        )


def _reporter(pipe: Connection) -> Report:
    """A report function that talks to the parent a few times a second at most."""
    last = time.monotonic()

    def report(rows: int, bad_rows: int) -> None:
        nonlocal last
        if time.monotonic() - last >= REPORT_SECONDS:
            last = time.monotonic()
            pipe.send(("report", (rows, bad_rows)))

    return report
