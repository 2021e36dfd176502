"""The pool of classifier processes of one Dask worker: start them, send them tasks, watch and replace them.

Each thread of the worker that has a task takes one child process, sends it the task through the child's own
pipe, and waits. No other code runs in the process of a classifier, so a crash, a hang or excessive memory use
costs one child process and one attempt at a block.

An existing pool does not fit: `concurrent.futures` and loky break the whole pool when one child dies, and so
does pebble 5.2 when an idle child dies. With one pipe per child, there is no shared queue whose lock could
stay locked when a child is killed.
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

Output = Callable[[int, bytes], None]  # called with a child's process ID and its output

PRELOAD = ["dask_classifier.engine.preload"]  # imports pandas once for all children
IDLE_SECONDS = 60.0  # children without a task for this long are stopped, and started again when needed
_READ_BYTES = 2**16  # read at a time from a child's output
# limits each child to one core: OpenMP (PyTorch, scikit-learn), BLAS libraries, Polars, Rust's Rayon, TensorFlow
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_THREADS += ("NUMEXPR_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS")
_THREADS += ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
_SOCKET_FOLDER_BYTES = 60  # a socket's path has at most 103 (macOS) or 107 (Linux); multiprocessing appends 32
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
_starting = threading.Lock()


class TimeoutExpired(Exception):
    """A task has exceeded its time limit."""


def start_forkserver() -> None:
    """Start the process from which children are forked. It loads pandas in the background."""
    with _starting:
        _ensure_forkserver()


def _ensure_forkserver() -> None:
    multiprocessing.set_forkserver_preload(PRELOAD)
    _make_short_folder_for_sockets()
    with _environment(_THREADS, "1"):
        multiprocessing.forkserver.ensure_running()


def _replace_forkserver() -> None:
    """Replace a forkserver that cannot be reached: a cleaner of TMPDIR removed its socket, or it is about to exit."""
    server = multiprocessing.forkserver._forkserver
    with server._lock:  # abandoned, not stopped: stopping waits for the server, which lives as long as its children
        if server._forkserver_pid is not None:
            os.close(server._forkserver_alive_fd)
            server._forkserver_alive_fd = server._forkserver_pid = server._forkserver_address = None
    # multiprocessing creates the socket's folder once per process, and reports an error at exit if it does not exist
    if folder := multiprocessing.current_process()._config.pop("tempdir", None):
        with contextlib.suppress(OSError):
            Path(folder).mkdir(mode=0o700, parents=True)
    Path(tempfile.gettempdir()).mkdir(parents=True, exist_ok=True)
    _ensure_forkserver()


def _make_short_folder_for_sockets() -> None:
    """Make multiprocessing's temporary folder elsewhere if TMPDIR is too long for the path of a socket.

    TMPDIR is often long under conda and in build systems. multiprocessing creates its folder once per process.
    """
    tmpdir = tempfile.gettempdir()
    short = next((folder for folder in _SHORT_FOLDERS if os.access(folder, os.W_OK | os.X_OK)), tmpdir)
    if len(os.fsencode(tmpdir)) <= _SOCKET_FOLDER_BYTES:
        return
    tempfile.tempdir = short
    try:
        multiprocessing.util.get_temp_dir()
    finally:
        tempfile.tempdir = tmpdir


@contextlib.contextmanager
def _environment(names: tuple[str, ...], value: str) -> Iterator[None]:
    """Set environment variables within a `with` block, except those that the user has set."""
    added = [name for name in names if name not in os.environ]
    os.environ.update(dict.fromkeys(added, value))
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Prevent multiprocessing from importing the user's script, or the command, in each child."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class Child:
    """One classifier process and the pipe to it."""

    def __init__(self, site: Site, environment: dict[str, str]):
        """Start a process. Raise ProcessDied if the forkserver cannot start it, or is killed meanwhile."""
        context = multiprocessing.get_context("forkserver")
        self.pipe, child_pipe = context.Pipe()
        self.output, child_output = context.Pipe(duplex=False)
        os.set_blocking(self.output.fileno(), False)
        try:
            with _starting, _without_main():
                self.process = self._start(context, (child_pipe, child_output, site, os.environ | environment))
        except (EOFError, OSError) as error:
            self._close_pipes()
            manner = f"could not be started ({type(error).__name__}: {error})"
            raise ProcessDied(manner) from error
        finally:
            child_pipe.close()
            child_output.close()
        self.used = time.monotonic()
        self.blocks = 0  # finished
        self.is_busy = False  # a task was sent, and its end has not come

    def _start(self, context, args: tuple):
        """Start the process as a daemon, so that the interpreter terminates it at exit instead of waiting for it."""
        _ensure_forkserver()  # multiprocessing would restart a killed forkserver without the limits on threads
        process = context.Process(target=serve, args=args, name=CLASSIFIER, daemon=True)
        try:
            process.start()
        except (FileNotFoundError, ConnectionRefusedError):  # nothing was started: nobody listens
            _replace_forkserver()
            process = context.Process(target=serve, args=args, name=CLASSIFIER, daemon=True)
            process.start()
        return process

    def _close_pipes(self) -> None:
        self.pipe.close()
        self.output.close()

    def call(self, task: str, args: tuple, *, on_report: Report, on_output: Output, timeout: float | None) -> object:
        """Run a task in the child and return its result. Raise what the task raises, or ProcessDied."""
        try:
            return self._call(task, args, on_report, on_output, time.monotonic() + timeout if timeout else None)
        except TimeoutExpired:
            self.kill_family()
            self.process.join()
            raise ProcessDied(f"took longer than {timeout:g} s and was killed") from None
        finally:
            self._read_rest(on_output)
            if not self.process.is_alive():
                self._close_pipes()

    def _call(self, task: str, args: tuple, on_report: Report, on_output: Output, deadline: float | None) -> object:
        try:
            self.is_busy = True
            self.pipe.send((task, args))
            while (message := self._next_message(deadline, on_output))[0] == "report":
                on_report(*message[1])
        except (EOFError, OSError):  # the child has closed the pipe, perhaps in the middle of a message
            self.process.join(5)
            self.kill_family()
            raise ProcessDied(_describe_exit(self.process.exitcode)) from None
        self.used, self.blocks, self.is_busy = time.monotonic(), self.blocks + 1, False
        kind, value = message
        if kind == "failed":
            raise value
        return value

    def _next_message(self, deadline: float | None, on_output: Output) -> tuple[str, object]:
        watched = [self.pipe, self.process.sentinel, self.output]
        ready = []
        while ready in ([], [self.output]):
            seconds_left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = wait(watched, seconds_left)
            if not ready or (seconds_left == 0.0 and ready == [self.output]):
                raise TimeoutExpired
            if self.output in ready and not self._read_output(on_output):
                watched.remove(self.output)  # the child has closed it
        if not self.pipe.poll():  # the child has exited, but one of its own children may keep the pipe open
            raise EOFError
        return self.pipe.recv()

    def _read_output(self, on_output: Output) -> bool:
        """Pass on output of the child; return False if there can be no more."""
        try:
            text = os.read(self.output.fileno(), _READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:  # closed
            return False
        if text:
            on_output(self.process.pid, text)
        return bool(text)

    def _read_rest(self, on_output: Output) -> None:
        """Pass on the remaining output of a finished task. One read is enough: it is as large as a pipe's buffer."""
        self._read_output(on_output)
        on_output(self.process.pid, b"")  # ends an unfinished line

    def memory(self) -> int:
        """Return the resident memory of the child and its own children in bytes; shared pages count repeatedly."""
        size, family = 0, []
        with contextlib.suppress(psutil.Error, OSError):
            family = [psutil.Process(self.process.pid)]
            family += family[0].children(recursive=True)
        for process in family:
            with contextlib.suppress(psutil.Error, OSError):  # it may just have exited
                size += process.memory_info().rss
        return size

    def kill_family(self) -> None:
        """Send SIGKILL to the child and to its own children."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        if self.process.is_alive():  # it has not created its process group yet
            self.process.kill()

    def kill(self) -> None:
        """Kill the child and its own children, and wait for the child's exit."""
        self.kill_family()
        self.process.join()
        self._close_pipes()


def _describe_exit(exitcode: int | None) -> str:
    """Return a phrase that follows "the process"."""
    if exitcode is not None and exitcode < 0:
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-exitcode).name}"
    return f"exited with code {exitcode}"


class ClassifierProcesses:
    """A pool of child processes that are started when first needed, and replaced when they die.

    Parameters
    ----------
    count : int
        Largest number of children.
    site : Site
        Where their tasks run.
    environment : dict of str to str, optional
        Their environment variables, in addition to those of this process.
    renewal : Renewal, optional
        When a child is replaced, by its blocks or its memory. [default: never]
    idle_seconds : float, optional
        Seconds after which a child without a task is stopped.
    """

    def __init__(
        self,
        count: int,
        site: Site,
        environment: dict[str, str] | None = None,
        renewal: Renewal | None = None,
        idle_seconds: float = IDLE_SECONDS,
    ):
        self.site, self.environment, self.renewal = site, environment or {}, renewal
        self.count, self.idle_seconds = count, idle_seconds
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
        """Run a task in the next free child and return its result.

        Parameters
        ----------
        task : str
            "module:function", called as `function(site, report, *args)`.
        *args
            Arguments of the task.
        on_start : callable, optional
            Called with the child's process ID before the task starts.
        on_report : callable, optional
            Called with the rows and bad rows so far while the task runs.
        on_output : callable, optional
            Called with the child's process ID and its output; an empty output means that the task is done.
        timeout : float, optional
            Seconds after which the child is killed.

        Raises
        ------
        ProcessDied
            The child died, timed out, or could not be started. Other exceptions are those of the task.
        """
        child = self._idle.get()
        try:
            child = self._start_if_dead(child)
            on_start(child.process.pid)
            return child.call(task, args, on_report=on_report, on_output=on_output, timeout=timeout)
        except ProcessDied:
            self._forget(child)
            child = None
            raise
        except BaseException:
            if child and child.is_busy:  # what it will still send would be taken for the answer to the next task
                self._forget(child)
                child.kill()
                child = None
            raise
        finally:
            try:
                child = self._stop_if_due(child)
            finally:
                self._idle.put(child)

    def _stop_if_due(self, child: Child | None) -> Child | None:
        """Return the child; stop it and return None if its renewal is due."""
        if child is None or not self.renewal or not self.renewal.is_due(child.blocks, child.memory):
            return child
        self._forget(child)
        child.kill()
        return None

    def _start_if_dead(self, child: Child | None) -> Child:
        if child is not None and child.process.is_alive():
            return child
        self._forget(child)
        if self._closed:
            raise ProcessDied("was killed when its worker shut down")
        child = Child(self.site, self.environment)
        with self._lock:
            self._alive.add(child)
            closed = self._closed
        if closed:  # meanwhile, in another thread
            self._forget(child)
            child.kill()
            raise ProcessDied("was killed when its worker shut down")
        return child

    def _forget(self, child: Child | None) -> None:
        with self._lock:
            self._alive.discard(child)

    def stop_idle(self) -> None:
        """Stop children that have been idle for `idle_seconds`: the client of a remote cluster may have exited."""
        idle = []
        with contextlib.suppress(queue.Empty):
            while len(idle) < self.count:
                idle.append(self._idle.get_nowait())
        for child in reversed(idle):  # in their order: the last one used is the next, and has the classifier loaded
            if child is not None and time.monotonic() - child.used > self.idle_seconds:
                self._forget(child)
                child.kill()
                child = None
            self._idle.put(child)

    def pids(self) -> list[int]:
        """Return the children's process IDs."""
        with self._lock:
            return [child.process.pid for child in self._alive]

    def close(self) -> None:
        """Kill all children, even busy ones, and start no more."""
        with self._lock:
            self._closed, children = True, tuple(self._alive)
        for child in children:
            child.kill_family()
        for child in children:
            child.process.join(5)
