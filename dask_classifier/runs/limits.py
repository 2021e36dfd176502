"""When a run must end: a time, a duration, a budget; and whether it will make it."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from ..units import format_dollars, format_seconds

FINISH_BY, MAX_TIME, BUDGET = "--finish-by", "--max-time", "--budget"
_TERMINATE_SECONDS = 60.0  # in which instances still cost something
_PUBLISH_SECONDS = 2.0  # for manifest and report
_WARN_SHARE, _WARN_SECONDS = 0.9, 30.0  # of the budget, and before the stop, whichever is earlier
_LATE_LOOKS = 3  # in a row, before a run is called late: its first speed is not its last


@dataclass(frozen=True)
class Limits:
    """The limits of a run; None where there is none.

    Attributes
    ----------
    finish_by : float, optional
        When it should have ended, in seconds since 1970.
    partial : bool
        Whether, at `finish_by`, what is there is published; otherwise the run goes on.
    max_time : float, optional
        Seconds from the start of the run after which it stops.
    budget : float, optional
        Dollars after which it stops.
    dollars_per_hour : float, optional
        Price of all instances, for the budget. Default: as the cluster knows it.
    scale_up_to : int, optional
        Workers up to which a cluster may grow, once, if the run would be late.
    """

    finish_by: float | None = None
    partial: bool = False
    max_time: float | None = None
    budget: float | None = None
    dollars_per_hour: float | None = None
    scale_up_to: int | None = None


Cost = Callable[[], tuple[float, float] | None]  # returns $ until now and $/h, or None if they are not known


@dataclass
class Watch:
    """Watches a run's limits.

    `began` is when the run was started or, on EC2, when its instances were requested; `cost` asks the cluster.
    """

    limits: Limits
    began: float
    cost: Cost = lambda: None
    stopped_by: str = ""  # once a limit has ended the run: its option
    is_late: bool = False  # whether it was reported that the run will be late
    _late_looks: int = 0
    _has_warned: bool = False
    _is_unenforced: bool = False  # whether it was reported that the price is unknown

    @property
    def dollars(self) -> float | None:
        """What the instances have cost so far, as an estimate."""
        known = self._cost()
        return known and known[0]

    def _cost(self) -> tuple[float, float] | None:
        if self.limits.dollars_per_hour is not None:
            rate = self.limits.dollars_per_hour
            return rate * (time.time() - self.began) / 3600, rate
        return self.cost()

    def ends(self) -> tuple[float, str] | None:
        """Return when the run must stop, and the option that says so; None if nothing does."""
        limits, ends = self.limits, []
        if limits.max_time is not None:
            ends.append((self.began + limits.max_time, MAX_TIME))
        if limits.budget is not None and (known := self._cost()) and known[1]:
            left = (limits.budget - known[0]) / known[1] * 3600
            ends.append((time.time() + left - _TERMINATE_SECONDS, BUDGET))
        if limits.finish_by is not None and limits.partial:
            ends.append((limits.finish_by - _PUBLISH_SECONDS, FINISH_BY))
        return min(ends, default=None)

    @property
    def publishes(self) -> bool:
        """Whether the time is over at which finished blocks are published."""
        return self.limits.partial and self.stopped_by == FINISH_BY

    def is_over(self) -> bool:
        """Return whether the run must stop now, and remember by which limit."""
        ends = self.ends()
        if ends and time.time() >= ends[0]:
            self.stopped_by = self.stopped_by or ends[1]
            return True
        return False

    def leaves_time_for(self, seconds: float) -> bool:
        """Return whether a block may start that would be done in so many seconds, after those in flight."""
        ends = self.ends()
        if not ends or time.time() + seconds < ends[0]:
            return True
        self.stopped_by = ends[1]
        return False

    def warnings(self, ends_at: float | None) -> list[str]:
        """Return what is to be printed now, each warning once. `ends_at` is when the run ends at the measured speed."""
        finish_by, budget = self.limits.finish_by, self.limits.budget
        texts = []
        self._late_looks = self._late_looks + 1 if finish_by and ends_at and ends_at > finish_by else 0
        if self._late_looks >= _LATE_LOOKS and not self.is_late:
            self.is_late = True
            over = format_seconds(ends_at - finish_by)
            if self.limits.partial:
                texts.append(f"all rows would take until about {_clock(ends_at)}; at {_clock(finish_by)}, the run ends")
            else:
                texts.append(f"the run will finish about {_clock(ends_at)}, {over} after {_clock(finish_by)}")
        if budget and not self._has_warned:
            texts += self._about_the_budget(budget)
        return texts

    def _about_the_budget(self, budget: float) -> list[str]:
        known = self._cost()
        if known is None:
            is_new, self._is_unenforced = not self._is_unenforced, True
            return ["the budget has no effect as long as the price is unknown: dollars_per_hour gives it"] * is_new
        spent, rate = known
        before_the_stop = budget - (_TERMINATE_SECONDS + _WARN_SECONDS) * rate / 3600
        if spent < min(_WARN_SHARE * budget, before_the_stop):
            return []
        self._has_warned = True
        return [f"about ${format_dollars(spent)} of the budget of ${format_dollars(budget)} is spent"]


def _clock(moment: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(moment))
