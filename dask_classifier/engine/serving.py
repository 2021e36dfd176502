"""The main loop of a classifier process: run tasks from a pipe, one at a time, until the parent process exits."""

import io
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection, wait
from pkgutil import resolve_name
from typing import TextIO

from ..classifier.job import Report, Site
from ..errors import DaskClassifyError, TaskFailed

REPORT_SECONDS = 0.2


def serve(pipe: Connection, output: Connection, site: Site, environment: dict[str, str]) -> None:
    """Run tasks until the pipe is closed. Standard output and standard error go to `output`."""
    os.environ.update(environment)  # the forkserver still has the environment of the first cluster in this process
    multiprocessing.current_process().daemon = False  # daemons cannot have children, but a classifier may start some
    os.setsid()  # in its own process group, it is not reached by Ctrl-C and can be killed with all of its children
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _redirect_output(output)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    while True:
        try:
            task, args = pipe.recv()
        except (EOFError, ConnectionError):
            return
        pipe.send(_outcome(task, args, site, pipe))


def _redirect_output(output: Connection) -> None:
    """Redirect the output of this process and its children to a pipe. On the terminal, it would disturb the display."""
    for descriptor in (1, 2):
        os.dup2(output.fileno(), descriptor)
    output.close()
    sys.stdout, sys.stderr = map(_stream, (1, 2))  # the forkserver's streams may be buffered, or write to a file


def _stream(descriptor: int) -> TextIO:
    """Return a line-buffered text stream that accepts any text."""
    binary = os.fdopen(descriptor, "wb", buffering=0, closefd=False)
    return io.TextIOWrapper(binary, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _exit_with_parent() -> None:
    """Wait for the parent's exit, even by SIGKILL; then kill this process and all of its children."""
    wait([multiprocessing.parent_process().sentinel])
    os.killpg(os.getpid(), signal.SIGKILL)


def _outcome(task: str, args: tuple, site: Site, pipe: Connection) -> tuple[str, object]:
    try:
        return "done", resolve_name(task)(site, _reporter(pipe), *args)
    except DaskClassifyError as error:
        error.__cause__ = error.__context__ = None  # exceptions of the user's code may not survive pickling
        return "failed", error.with_traceback(None)
    except BaseException as error:
        message = f"{type(error).__name__} in {task}: {error}\n{traceback.format_exc()}"
        return "failed", TaskFailed(
            message, "The process may have run out of memory. If not, this is a defect of dask-classify: report it."
        )


def _reporter(pipe: Connection) -> Report:
    """Return a function that reports progress to the parent, every 0.2 s at most."""
    last = time.monotonic()

    def report(rows: int, bad_rows: int) -> None:
        nonlocal last
        if time.monotonic() - last >= REPORT_SECONDS:
            last = time.monotonic()
            pipe.send(("report", (rows, bad_rows)))

    return report
