"""Signals that interrupt the command: Ctrl-C, SIGTERM and SIGHUP become one KeyboardInterrupt."""

import os
import signal
import sys
import threading

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def listen() -> None:
    """Turn the signals into KeyboardInterrupt from now on, except those that are ignored, as under nohup."""
    sys.unraisablehook = _again_if_dropped
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(number, frame):
    """One clean-up, which a second signal does not disturb."""
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def _again_if_dropped(told):
    """Python drops what is raised within a destructor: an interrupt comes again, a moment later."""
    if not issubclass(told.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(told)
        return
    signal.signal(signal.SIGINT, _interrupt)
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
