"""The time that a scheduler and its first workers have to get ready, and what is said meanwhile."""

import time
from collections.abc import Callable

from ..errors import ClusterError
from ..units import format_seconds
from .spec import ClusterSpec

_PATIENCE_SECONDS, _TALK_SECONDS = 10.0, 30.0  # until the first message while waiting, and between two messages


class BringUp:
    """The clock of one start; `states` tells the states of the instances, as ` (2 running)`."""

    def __init__(self, spec: ClusterSpec, say: Callable[[str], None], states: Callable[[], str]):
        self._spec, self._say, self._states = spec, say, states
        self.restart()

    def restart(self) -> None:
        """Begin the time again."""
        self._began = time.monotonic()
        self._talk_at = self._began + _PATIENCE_SECONDS

    def check(self, what: str) -> None:
        """Raise ClusterError if the time is over; `what` is the beginning of the message: what is waited for."""
        now, limit = time.monotonic(), self._spec.bring_up_limit
        if now - self._began > limit:
            raise ClusterError(
                f"{what} after {limit:.0f} seconds.",
                "Check that the image runs and the security group admits you, or wait longer with --bring-up-limit.",
            )
        if now >= self._talk_at:
            self._talk_at = now + _TALK_SECONDS
            spent = f"{format_seconds(now - self._began)} of at most {format_seconds(limit)}"
            then = "pull the image" if self._spec.image else "install their packages"
            self._say(f"{what} after {spent}. Instances first boot, then {then}{self._states()}.")
