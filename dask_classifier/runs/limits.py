"""When a run must end: a time, a duration, a budget; and whether it will make it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ..units import format_dollars, format_seconds

FINISH_BY, MAX_TIME, BUDGET = "--finish-by", "--max-time", "--budget"
_TERMINATE_SECONDS = 60.0  # in which instances still cost something
_PUBLISH_SECONDS = 2.0  # for manifest and report
_WARN_SHARE = 0.9  # of the budget
_JUDGED_SHARE, _JUDGED_SECONDS = 0.05, 20.0  # of the rows, or of the time, after which a run's speed is judged


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
        Price of all instances, for the budget.
    scale_up_to : int, optional
        Workers up to which a cluster may grow, once, if the run would be late.
    price_of : callable, optional
        The price of all instances, in $/h, for a number of workers.
    """

    finish_by: float | None = None
    partial: bool = False
    max_time: float | None = None
    budget: float | None = None
    dollars_per_hour: float | None = None
    scale_up_to: int | None = None
    price_of: Callable[[int], float | None] | None = None


@dataclass
class Watch:
    """Watches a run's limits. `began` is when it was started or, on EC2, when its instances were requested."""

    limits: Limits
    began: float
    stopped_by: str = ""  # once a limit has ended the run: its option
    _price: float | None = None
    _spent: float = 0.0  # dollars until the price changed
    _since: float = 0.0
    _said: set[str] = field(default_factory=set)

    def __post_init__(self):
        self._price, self._since = self.limits.dollars_per_hour, self.began

    @property
    def dollars(self) -> float | None:
        """What the instances have cost so far, as an estimate."""
        return None if self._price is None else self._spent + self._price * (time.time() - self._since) / 3600

    def grown(self, workers: int) -> None:
        """Count the price of more workers from now on."""
        self._spent, self._since = self.dollars or 0.0, time.time()
        self._price = self.limits.price_of(workers) if self.limits.price_of else None

    def ends(self) -> tuple[float, str] | None:
        """Return when the run must stop, and the option that says so; None if nothing does."""
        limits, ends = self.limits, []
        if limits.max_time is not None:
            ends.append((self.began + limits.max_time, MAX_TIME))
        if limits.budget is not None and self._price:
            seconds = (limits.budget - self._spent) / self._price * 3600
            ends.append((self._since + seconds - _TERMINATE_SECONDS, BUDGET))
        if limits.finish_by is not None and limits.partial:
            ends.append((limits.finish_by - _PUBLISH_SECONDS, FINISH_BY))
        return min(ends, default=None)

    def is_over(self) -> bool:
        """Return whether the run must stop now, and remember by which limit."""
        ends = self.ends()
        if ends and time.time() >= ends[0]:
            self.stopped_by = self.stopped_by or ends[1]
        return bool(self.stopped_by) and (not ends or time.time() >= ends[0])

    def leaves_time_for(self, blocks: int, seconds: float, processes: int) -> bool:
        """Return whether another block may start: not if those in flight will use up the time.

        `blocks` are in flight, and take `seconds` each.
        """
        ends = self.ends()
        if not ends or time.time() + blocks * seconds / max(processes, 1) < ends[0]:
            return True
        self.stopped_by = ends[1]
        return False

    def warnings(self, ends_at: float | None, share: float) -> list[str]:
        """Return what is to be said now, each thing once.

        Parameters
        ----------
        ends_at : float or None
            When the run ends at the measured rate.
        share : float
            Share of its rows that is done.
        """
        said = []
        if self._is_late(ends_at, share):
            over = format_seconds(ends_at - self.limits.finish_by)
            said.append(
                ("late", f"the run will end about {_clock(ends_at)}, {over} after {_clock(self.limits.finish_by)}")
            )
        budget = self.limits.budget
        if budget and self.dollars is not None and self.dollars >= _WARN_SHARE * budget:
            said.append(
                ("budget", f"about ${format_dollars(self.dollars)} of the budget of ${format_dollars(budget)} is spent")
            )
        new = [text for name, text in said if name not in self._said]
        self._said |= {name for name, _ in said}
        return new

    def _is_late(self, ends_at: float | None, share: float) -> bool:
        judged = share >= _JUDGED_SHARE or time.time() - self.began >= _JUDGED_SECONDS
        return bool(self.limits.finish_by and ends_at and judged and ends_at > self.limits.finish_by)

    @property
    def is_late(self) -> bool:
        """Whether it was said that the run will be late."""
        return "late" in self._said


def _clock(moment: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(moment))
