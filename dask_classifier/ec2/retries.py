"""Pauses between attempts, for all that EC2 may do only later: list, answer, launch, terminate."""

import threading
import time

_PAUSES = (0.2, 0.5, 1, 2, 3, 5)  # seconds between attempts; the last one repeats


class Retries:
    """Growing pauses until a limit in seconds, followed by one last attempt.

    There is an attempt after the limit because this process may have been stopped, or the computer asleep, since the
    attempt before.

    Parameters
    ----------
    limit
        In seconds, from the creation of this object.
    stopping
        An event that ends a pause early.
    longest
        The longest pause in seconds.
    """

    def __init__(self, limit: float, stopping: threading.Event | None = None, *, longest: float = _PAUSES[-1]):
        self._began, self._limit, self._longest = time.monotonic(), limit, longest
        self._pauses = iter(_PAUSES)
        self._stopping = stopping or threading.Event()
        self._over = False

    def spent(self) -> float:
        """Return the seconds since the beginning."""
        return time.monotonic() - self._began

    def pause(self, *, least: float = 0) -> bool:
        """Pause, for at least `least` seconds. Return False, without a pause, once the last attempt has been made."""
        if self._over:
            return False
        seconds = max(least, min(next(self._pauses, self._longest), self._longest))
        remaining = self._limit - self.spent()
        self._over = seconds > remaining
        self._stopping.wait(max(0, min(seconds, remaining)))
        return True
