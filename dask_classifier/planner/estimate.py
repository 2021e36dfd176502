"""`Estimate`: how long a run takes and what it costs, here and on clusters of several sizes, and which one to take."""

import datetime
import math
import time
from dataclasses import asdict, dataclass
from typing import Any

from .. import templating
from ..show import charts
from ..units import format_dollars, format_seconds
from .target import Target

LOCAL, EC2 = "local", "ec2"
HEADER = ("", "instances", "minutes (80 %)", "dollars", "ends at", "what limits it")
HOUR = 3600.0  # the batch job's: what fits is recommended where no other time is given


@dataclass(frozen=True)
class Range:
    """A predicted time in seconds: the middle, and the ends of an interval that holds 80 % of the outcomes."""

    low: float
    mid: float
    high: float

    def __str__(self) -> str:
        return f"{_minutes(self.mid)} ({_minutes(self.low)}-{_minutes(self.high)})"


@dataclass(frozen=True)
class Choice:
    """One place and size for a run.

    Attributes
    ----------
    where : str
        "local" or "ec2".
    instances : int
        Workers on EC2; 0 here.
    processes : int
        Classifier processes.
    seconds : Range
        From the command to its end; on EC2, until all instances have terminated.
    dollars : float or None
        Estimated cost at the middle time; None without a price, 0 here.
    ends_at : float
        When it would end if it started now, at the middle time; seconds since 1970.
    starting, ending : float
        Seconds of it before the first block is begun, and after the results are published.
    blocks : int
        Blocks of the run.
    tail : float
        Seconds at the end in which some processes have nothing to do.
    label : str
        The place in words, such as "2 x 16" or "here, 2 cores".
    dollars_per_hour : float or None
        Price of all instances.
    ms_per_row : float
        Milliseconds per row of one process there, with all processes at work.
    sampled_ms_per_row : float
        The same as the sample alone predicts it, without what earlier runs have shown.
    first_call : float
        Seconds of the first call of a process.
    """

    where: str
    instances: int
    processes: int
    seconds: Range
    dollars: float | None
    ends_at: float
    starting: float
    ending: float
    blocks: int
    tail: float
    label: str
    dollars_per_hour: float | None = None
    ms_per_row: float = math.nan
    sampled_ms_per_row: float = math.nan
    first_call: float = 0.0
    deadline: float | None = None  # seconds after which the instances shut themselves down
    instance_type: str = ""  # of the workers on EC2

    @property
    def is_too_long(self) -> bool:
        """Whether its instances may shut themselves down before the end."""
        return self.deadline is not None and self.seconds.high > self.deadline

    @property
    def prediction(self) -> dict[str, Any]:
        """What plan.json keeps of it, for the record: give it to `run`. Its seconds end with the published results."""
        seconds = {name: value - self.ending for name, value in asdict(self.seconds).items()}
        names = (
            "where",
            "instance_type",
            "instances",
            "processes",
            "dollars",
            "dollars_per_hour",
            "starting",
            "ms_per_row",
        )
        names += ("sampled_ms_per_row", "first_call")
        return {"made_at": time.time(), "seconds": seconds} | {name: getattr(self, name) for name in names}

    @property
    def late(self) -> float:
        """When it ends at the slow end of the interval; seconds since 1970."""
        return self.ends_at + self.seconds.high - self.seconds.mid

    @property
    def most(self) -> float | None:
        """What it costs at the slow end of the interval."""
        return None if self.dollars is None else self.dollars * self.seconds.high / self.seconds.mid

    @property
    def limit(self) -> str:
        """What keeps it from being faster."""
        if self.starting > 0.3 * self.seconds.mid:
            return f"start-up is {self.starting / self.seconds.mid:.0%} of it"
        if self.blocks < 2 * self.processes:
            return f"only {self.blocks:,} blocks for {self.processes:,} processes"
        if self.tail > 0.1 * self.seconds.mid:
            return f"its last blocks take {format_seconds(self.tail)}"
        return ""


@dataclass(frozen=True)
class Estimate:
    """What a run takes, from a sample of its rows.

    Attributes
    ----------
    rows : int
        Rows of the source.
    ms_per_row : float
        Mean milliseconds per row of one process, with all processes at work.
    sampled : int
        Rows that were classified for this.
    places : int
        Places of the source from which they came.
    spread : tuple of float
        Median and maximum milliseconds per row, over the sampled calls.
    choices : tuple of Choice
        Places and sizes.
    recommended : int or None
        Number of a choice, from 0; None if none meets the target.
    why : str
        Why it is recommended, or what could be had.
    target : Target
        The time and the budget that were given.
    notes : tuple of str
        What is not known, and where prices come from.
    made_at : float
        Seconds since 1970.
    """

    rows: int
    ms_per_row: float
    sampled: int
    places: int
    spread: tuple[float, float]
    choices: tuple[Choice, ...]
    recommended: int | None
    why: str
    target: Target
    notes: tuple[str, ...]
    made_at: float

    @property
    def choice(self) -> Choice | None:
        """The recommended choice."""
        return None if self.recommended is None else self.choices[self.recommended]

    def as_json(self) -> dict[str, Any]:
        """Return the fields of `dask-classify plan --json`."""
        fields = asdict(self)
        options = [
            choice | {"limit": each.limit} for choice, each in zip(fields.pop("choices"), self.choices, strict=True)
        ]
        return fields | {"options": options}

    def lines(self) -> list[str]:
        """Return the table and its notes as text."""
        rows = [HEADER, *(self._cells(number, choice) for number, choice in enumerate(self.choices))]
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return [*table, *self.remarks]

    @property
    def remarks(self) -> list[str]:
        """The speed, what is not known, and the recommendation, in words."""
        median, largest = self.spread
        speed = (
            f"{self.ms_per_row:.3g} ms per row (of calls: median {median:.3g}, largest {largest:.3g}), "
            f"from {self.sampled:,} rows in {self.places} places"
        )
        return [speed, *self.notes, self.why]

    def _cells(self, number: int, choice: Choice) -> tuple[str, ...]:
        dollars = "?" if choice.dollars is None else format_dollars(choice.dollars)
        mark = ">" if number == self.recommended else ""
        limit = self.target.verdict(choice) or choice.limit
        return mark, choice.label, str(choice.seconds), dollars, clock(choice.ends_at), limit

    def __repr__(self) -> str:
        best = self.choice or self.choices[0]
        return f"<Estimate: {self.rows:,} rows, {best.label}: {best.seconds} at {self.ms_per_row:.3g} ms per row>"

    def _repr_html_(self) -> str:
        dots = [
            (choice.seconds.mid / 60, choice.dollars, f"{choice.label}: {choice.seconds}", number == self.recommended)
            for number, choice in enumerate(self.choices)
            if choice.dollars is not None
        ]
        plot = charts.dots(dots, x_label="minutes", description="dollars by minutes") if len(dots) > 1 else ""
        rows = [self._cells(number, choice) for number, choice in enumerate(self.choices)]
        return templating.render("estimate.html", header=HEADER, rows=rows, notes=self.remarks, plot=plot)


def clock(moment: float) -> str:
    """Return a time of day here, with the date unless it is today."""
    then, now = datetime.datetime.fromtimestamp(moment), datetime.datetime.now()
    return then.strftime("%H:%M" if then.date() == now.date() else "%d %b %H:%M")


def tomorrows_note(target: Target) -> str:
    """Return what is said of a clock time that has passed today; "" of any other."""
    return f"{clock(target.finish_by)} is tomorrow: that time has passed today" if target.tomorrow else ""


def _minutes(seconds: float) -> str:
    """Return a time without more digits than an estimate has."""
    if seconds < 90:
        return f"{seconds:.0f}s"
    if seconds < 595:
        tens = round(seconds / 10)
        return f"{tens // 6}m{tens % 6 * 10:02d}s"
    minutes = round(seconds / 60)
    return f"{minutes}m" if minutes < 90 else f"{minutes // 60}h{minutes % 60:02d}"
