"""What a run must meet: a time and a budget, as people type them."""

import datetime
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from ..errors import UsageError
from ..units import parse_dollars, parse_seconds

if TYPE_CHECKING:
    from .estimate import Choice

_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True)
class Target:
    """When a run must have ended, in seconds since 1970, and what it may cost in $; None where it does not matter."""

    finish_by: float | None = None
    budget: float | None = None
    tomorrow: bool = False  # whether the clock time that was given has passed today

    @classmethod
    def of(
        cls, finish_by: str | None = None, finish_in: str | float | None = None, budget: str | float | None = None
    ) -> Self:
        """Parse "15:50", "45m" and "3". Raise UsageError for anything else, or for both times."""
        if finish_by is not None and finish_in is not None:
            raise UsageError("Two times are given.", "Use --finish-by 15:50 or --finish-in 45m, not both.")
        dollars = None if budget is None else parse_dollars(budget, "budget", "--budget 3")
        if finish_in is not None:
            return cls(time.time() + parse_seconds(finish_in), dollars)
        if finish_by is None:
            return cls(None, dollars)
        moment, tomorrow = _next(finish_by)
        return cls(moment, dollars, tomorrow)

    @property
    def is_given(self) -> bool:
        """Whether there is something to meet."""
        return self.finish_by is not None or self.budget is not None

    def is_met(self, choice: "Choice") -> bool:
        """Whether a choice surely meets time and budget: at the slow end of its interval."""
        return self._in_time(choice) and self._in_budget(choice) and not choice.is_too_long

    def _in_time(self, choice: "Choice") -> bool:
        return self.finish_by is None or choice.late <= self.finish_by

    def _in_budget(self, choice: "Choice") -> bool:
        return self.budget is None or (choice.most is not None and choice.most <= self.budget)

    def verdict(self, choice: "Choice") -> str:
        """Say how a choice misses the target, in few words; "" if it surely meets it."""
        if choice.is_too_long:
            return "past --deadline"
        if not self._in_time(choice):
            return "too late" if choice.ends_at > self.finish_by else "may be too late"
        if not self._in_budget(choice):
            return "no price" if choice.dollars is None else "above the budget"
        return ""


def _next(text: str) -> tuple[float, bool]:
    """Return when the clock next shows a time such as "15:50", and whether that is tomorrow. Raise UsageError."""
    match = _CLOCK.fullmatch(text.strip())
    if not match:
        raise UsageError(f"{text!r} is not a time of day.", "Write hours and minutes, as in --finish-by 15:50.")
    now = datetime.datetime.now()
    moment = now.replace(hour=int(match[1]), minute=int(match[2]), second=0, microsecond=0)
    if moment > now:
        return moment.timestamp(), False
    return (moment + datetime.timedelta(days=1)).timestamp(), True
