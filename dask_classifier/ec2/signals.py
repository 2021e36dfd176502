"""Work that signals must not stop, and signals that must not kill."""

import contextlib
import signal
import threading
from collections.abc import Callable


def endings_as_exceptions() -> Callable[[], None]:
    """Let SIGTERM and SIGHUP raise SystemExit, so that `with` blocks end; returns what undoes it.

    Does nothing where the program has handlers of its own, or outside the main thread, which has all signals.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    ours = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_DFL]
    for each in ours:
        signal.signal(each, _exit)

    def undo() -> None:
        for each in ours:
            if threading.current_thread() is threading.main_thread() and signal.getsignal(each) is _exit:
                signal.signal(each, signal.SIG_DFL)

    return undo


def _exit(number, frame):
    raise SystemExit(128 + number)


def uninterrupted(work: Callable[[], None], say: Callable[[str], None]) -> None:
    """Do the work to its end in another thread, whatever is raised in this one; then raise what came first."""
    failures: list[BaseException] = []
    done = threading.Event()  # not Thread.join: Python 3.11 takes an interrupted join for the thread's end

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=guarded, name="dask-classify-ending")
    interrupts: list[BaseException] = []
    while not done.is_set():
        try:
            if thread.ident is None:
                thread.start()
            done.wait()
        except RuntimeError:  # no threads any more, in Python's own end; or started in an interrupted `start`
            if thread.ident is None:
                guarded()
        except BaseException as interrupt:  # Ctrl-C, or a signal that raises
            interrupts.append(interrupt)
            say("Ending the machines first; this takes a moment.")
    for error in [*failures, *interrupts]:
        raise error


def never_failing(say: Callable[[str], None]) -> Callable[[str], None]:
    """A terminal that has gone must not keep the machines from ending."""

    def said(text: str) -> None:
        with contextlib.suppress(Exception, SystemExit):
            say(text)

    return said
