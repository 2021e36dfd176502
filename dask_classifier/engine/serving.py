"""What a classifier process does: take tasks from a pipe, one after the other, until its parent is gone."""

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
    """Do tasks until the pipe is closed. What is printed goes to `output`."""
    os.environ.update(environment)  # the forkserver has that of the first cluster's time
    multiprocessing.current_process().daemon = False  # a classifier may have children of its own
    os.setsid()  # a process group of its own: Ctrl-C does not reach it, and it goes with all that it has started
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _print_to(output)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            task, args = pipe.recv()
        except (EOFError, ConnectionError):
            return
        pipe.send(_outcome(task, args, site, pipe))


def _print_to(output: Connection) -> None:
    """Send to a pipe what this process and those that it starts print: on the terminal, it would break the display."""
    for descriptor in (1, 2):
        os.dup2(output.fileno(), descriptor)
    output.close()
    sys.stdout, sys.stderr = map(_stream, (1, 2))  # those of the forkserver may be buffered, or of a file


def _stream(descriptor: int) -> TextIO:
    """A text stream whose lines go out at once, and in which any text can be printed."""
    binary = os.fdopen(descriptor, "wb", buffering=0, closefd=False)
    return io.TextIOWrapper(binary, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _end_with_parent() -> None:
    """Sleeps until the parent is gone, even by SIGKILL, then ends this process and all that it has started."""
    wait([multiprocessing.parent_process().sentinel])
    os.killpg(os.getpid(), signal.SIGKILL)


def _outcome(task: str, args: tuple, site: Site, pipe: Connection) -> tuple[str, object]:
    try:
        return "done", resolve_name(task)(site, _reporter(pipe), *args)
    except DaskClassifyError as error:
        error.__cause__ = error.__context__ = None  # the user's, which may not survive pickling
        return "failed", error.with_traceback(None)
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
