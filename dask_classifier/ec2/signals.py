"""Signals during a cluster's life: they raise exceptions, and they do not interrupt the teardown."""

import contextlib
import signal
import threading
from collections.abc import Callable


def raise_on_signals() -> Callable[[], None]:
    """Let SIGTERM and SIGHUP raise SystemExit, so that `with` blocks exit. Return a function that undoes this.

    Does nothing if the program has its own handlers, or outside the main thread, which receives all signals.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    ours = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _exit)

    def undo() -> None:
        for number in ours:
            if threading.current_thread() is threading.main_thread() and signal.getsignal(number) is _exit:
                signal.signal(number, signal.SIG_DFL)

    return undo


def _exit(number, frame):
    raise SystemExit(128 + number)


def uninterrupted(work: Callable[[], None], say: Callable[[str], None]) -> None:
    """Complete the work in another thread, whatever is raised in this one; then raise the first exception, if any."""
    failures: list[BaseException] = []
    done = threading.Event()  # not Thread.join: in Python 3.11, an interrupted join looks as if the thread had finished

    def work_and_signal() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=work_and_signal, name="dask-classify-teardown")
    interrupts: list[BaseException] = []
    while not done.is_set():
        try:
            if thread.ident is None:
                thread.start()
            done.wait()
        except RuntimeError:  # Python is exiting and starts no threads; or `start` was interrupted
            if thread.ident is None:
                work_and_signal()
        except BaseException as interrupt:  # Ctrl-C, or a signal that raises
            interrupts.append(interrupt)
            say("Terminating the instances first; this takes a moment.")
    for error in [*failures, *interrupts]:
        raise error


def never_failing(say: Callable[[str], None]) -> Callable[[str], None]:
    """Wrap `say` so that it never raises: a closed terminal must not prevent the teardown."""

    def say_safely(text: str) -> None:
        with contextlib.suppress(Exception, SystemExit):
            say(text)

    return say_safely
