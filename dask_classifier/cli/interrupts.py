"""Signals that interrupt the command: Ctrl-C, SIGTERM and SIGHUP become one KeyboardInterrupt."""

import os
import signal
import sys
import threading

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def listen() -> None:
    """Turn the signals into KeyboardInterrupt from now on, except those that are ignored, as under nohup."""
    sys.unraisablehook = _repeat_interrupt
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(number, frame):
    """Interrupt the command, and ignore further signals so that they do not disturb the clean-up."""
    for signal_number in _SIGNALS:
        signal.signal(signal_number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _repeat_interrupt(unraisable):
    """Send an interrupt again that was raised within a destructor, where Python drops exceptions."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    signal.signal(signal.SIGINT, _interrupt)
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
