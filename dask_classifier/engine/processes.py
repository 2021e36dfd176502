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
import types
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from pathlib import Path

import psutil

from ..classifier.job import Report, Site
from ..errors import ProcessDied
from ..raised import CLASSIFIER
from ..units import Renewal
from .serving import serve

Output = Callable[[int, bytes], None]  # a child's process ID, and what it has printed

PRELOAD = ["dask_classifier.engine.preload"]  # and with it pandas: imported once, shared by all children
REST_SECONDS = 60.0  # without a task; a child that is needed again is started again
_MOST_OUTPUT = 2**16  # bytes read at a time of what a child prints
# a core for each child, and no more: OpenMP (PyTorch, scikit-learn), BLAS libraries, Polars, Rust's Rayon, TensorFlow
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_THREADS += ("NUMEXPR_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS")
_THREADS += ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
_SOCKET_FOLDER_BYTES = 60  # of the 103 (macOS) or 107 (Linux) of a socket's path; multiprocessing adds 32
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
_starting = threading.Lock()


class TimeoutExpired(Exception):
    """A task has taken longer than it may."""


def start_forkserver() -> None:
    """Start the process from which the children are forked, so that pandas loads while others still do other
    things.
    """
    with _starting:
        _ensure_forkserver()


def _ensure_forkserver() -> None:
    multiprocessing.set_forkserver_preload(PRELOAD)
    _make_short_folder_for_sockets()
    with _environment(_THREADS, "1"):
        multiprocessing.forkserver.ensure_running()


def _start_forkserver_anew() -> None:
    """Replace a forkserver that cannot be reached: something that cleans TMPDIR has removed its socket."""
    server = multiprocessing.forkserver._forkserver
    with server._lock:  # forgotten, not stopped: it would have to be waited for, and lives as long as its children
        if server._forkserver_pid is not None:
            os.close(server._forkserver_alive_fd)
            server._forkserver_alive_fd = server._forkserver_pid = server._forkserver_address = None
    # the folder of the socket, made once in a process; at its end, multiprocessing complains where it is missing
    if folder := multiprocessing.current_process()._config.pop("tempdir", None):
        with contextlib.suppress(OSError):
            Path(folder).mkdir(mode=0o700, parents=True)
    Path(tempfile.gettempdir()).mkdir(parents=True, exist_ok=True)
    _ensure_forkserver()


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
        """Start a process. Raises ProcessDied where the forkserver is killed at that moment, or cannot start it."""
        context = multiprocessing.get_context("forkserver")
        self.pipe, theirs = context.Pipe()
        self.output, output = context.Pipe(duplex=False)
        os.set_blocking(self.output.fileno(), False)
        try:
            with _starting, _without_main():
                self.process = self._start(context, (theirs, output, site, os.environ | environment))
        except (EOFError, OSError) as error:
            self._close_pipes()
            manner = f"could not be started ({type(error).__name__}: {error})"
            raise ProcessDied(manner) from error
        finally:
            theirs.close()
            output.close()
        self.used = time.monotonic()
        self.blocks = 0  # done

    def _start(self, context, args: tuple):
        """A daemon, so that an interpreter that ends, however hurriedly, ends it and does not wait for it."""
        _ensure_forkserver()  # one that was killed would start again without the limits on threads
        process = context.Process(target=serve, args=args, name=CLASSIFIER, daemon=True)
        try:
            process.start()
        except FileNotFoundError:
            _start_forkserver_anew()
            process = context.Process(target=serve, args=args, name=CLASSIFIER, daemon=True)
            process.start()
        return process

    def _close_pipes(self) -> None:
        self.pipe.close()
        self.output.close()

    def call(self, task: str, args: tuple, *, on_report: Report, on_output: Output, timeout: float | None) -> object:
        """Run a task in the child. Raises what it raises, or ProcessDied."""
        try:
            return self._call(task, args, on_report, on_output, time.monotonic() + timeout if timeout else None)
        except TimeoutExpired:
            self.kill_family()
            self.process.join()
            raise ProcessDied(f"took longer than {timeout:g} s and was ended") from None
        finally:
            self._read_rest(on_output)
            if not self.process.is_alive():
                self._close_pipes()

    def _call(self, task: str, args: tuple, on_report: Report, on_output: Output, deadline: float | None) -> object:
        try:
            self.pipe.send((task, args))
            while (message := self._next_message(deadline, on_output))[0] == "report":
                on_report(*message[1])
        except (EOFError, OSError):  # the pipe's other end is gone, perhaps within a message
            self.process.join(5)
            self.kill_family()
            raise ProcessDied(_manner(self.process.exitcode)) from None
        self.used, self.blocks = time.monotonic(), self.blocks + 1
        kind, value = message
        if kind == "failed":
            raise value
        return value

    def _next_message(self, deadline: float | None, on_output: Output) -> tuple[str, object]:
        watched = [self.pipe, self.process.sentinel, self.output]
        ready = []
        while ready in ([], [self.output]):
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = wait(watched, left)
            if not ready or (left == 0.0 and ready == [self.output]):
                raise TimeoutExpired
            if self.output in ready and not self._read_output(on_output):
                watched.remove(self.output)  # the child has closed it
        if not self.pipe.poll():  # the child is gone, though a child of its own may still hold the pipe's other end
            raise EOFError
        return self.pipe.recv()

    def _read_output(self, on_output: Output) -> bool:
        """Pass on some of what the child has printed; whether it may print more."""
        try:
            text = os.read(self.output.fileno(), _MOST_OUTPUT)
        except BlockingIOError:
            return True
        except OSError:  # closed
            return False
        if text:
            on_output(self.process.pid, text)
        return bool(text)

    def _read_rest(self, on_output: Output) -> None:
        """Pass on what the child printed before it was done: a pipe holds no more than one reading."""
        self._read_output(on_output)
        on_output(self.process.pid, b"")  # a line that has no end may be its last one

    def memory(self) -> int:
        """Return the bytes of memory of the child and its own children, as the system counts them for each."""
        size, family = 0, []
        with contextlib.suppress(psutil.Error, OSError):
            family = [psutil.Process(self.process.pid)]
            family += family[0].children(recursive=True)
        for process in family:
            with contextlib.suppress(psutil.Error, OSError):  # it may just have ended
                size += process.memory_info().rss
        return size

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
        self._close_pipes()


def _manner(exitcode: int | None) -> str:
    """How a process ended, for people."""
    if exitcode is not None and exitcode < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-exitcode).name}"
    return f"ended with exit code {exitcode}"


class ClassifierProcesses:
    """At most `count` children, started when they are first needed, replaced when they die.

    They have this process's environment variables, and those of `environment`. A child that is worn after a block, as
    `renewal` says, is replaced.
    """

    def __init__(
        self, count: int, site: Site, environment: dict[str, str] | None = None, renewal: Renewal | None = None
    ):
        self.site, self.environment, self.renewal = site, environment or {}, renewal
        self.count = count
        self._idle: queue.LifoQueue[Child | None] = queue.LifoQueue()
        self._alive: set[Child] = set()
        self._closed = False
        self._lock = threading.Lock()  # of _alive and _closed
        for _ in range(count):
            self._idle.put(None)

    def call(
        self,
        task: str,
        *args,
        on_start: Callable[[int], None] = lambda pid: None,
        on_report: Report = lambda rows, bad: None,
        on_output: Output = lambda pid, text: None,
        timeout: float | None = None,
    ) -> object:
        """Run a task, "module:function", as `function(site, report, *args)` in a child, when one is free.

        Calls `on_start` with the child's process ID. Raises what the task raises, or ProcessDied.
        """
        child = self._idle.get()
        try:
            child = self._living(child)
            on_start(child.process.pid)
            return child.call(task, args, on_report=on_report, on_output=on_output, timeout=timeout)
        except ProcessDied:
            self._forget(child)
            child = None
            raise
        finally:
            try:
                child = self._unless_worn(child)
            finally:
                self._idle.put(child)

    def _unless_worn(self, child: Child | None) -> Child | None:
        """The child, or None in place of one that is to be renewed."""
        if child is None or not self.renewal or not self.renewal.is_due(child.blocks, child.memory):
            return child
        self._forget(child)
        child.kill()
        return None

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
