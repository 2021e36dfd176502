"""How long a plan will take, from the speed of a trial."""

from dataclasses import dataclass
from typing import Self

from .. import templating
from ..classifier.job import Trial
from ..units import format_seconds
from .outline import AT_LEAST, EXACT, Outline


@dataclass(frozen=True)
class Estimate:
    """Time and cost of a run.

    Attributes
    ----------
    rows : int
        Rows of the source.
    rows_precision : str
        "exact", "about" or "at least": files are not read to their end.
    processes : int
        Classifier processes.
    ms_per_row : float or None
        Milliseconds of one process per row; None if the trial classified no row.
    seconds : float or None
        Time for classifying all rows, without the start and end of instances.
    dollars : float or None
        Cost of the instances for that time; None without a price.
    """

    rows: int
    rows_precision: str
    processes: int
    ms_per_row: float | None
    seconds: float | None
    dollars: float | None = None

    @classmethod
    def of(cls, outline: Outline, trial: Trial, dollars_per_hour: float | None = None) -> Self:
        """Return rows times time per row, over processes; what comes on top is a few percent (docs/performance.md)."""
        counts = outline.rows, outline.rows_precision, outline.processes
        if not trial.rows:
            return cls(*counts, None, None)
        seconds = outline.rows * trial.seconds_a_row / outline.processes
        dollars = dollars_per_hour * seconds / 3600 if dollars_per_hour else None
        return cls(*counts, 1000 * trial.seconds_a_row, seconds, dollars)

    @property
    def words(self) -> dict[str, str]:
        """Time and cost for people."""
        if self.seconds is None:
            return {"time": "unknown: the trial classified no row"}
        roughly = "at least" if self.rows_precision == AT_LEAST else "about"
        words = {"time": f"{roughly} {format_seconds(self.seconds)} of work, at {self.ms_per_row:.3g} ms/row"}
        if self.dollars is not None:
            words["cost"] = f"{roughly} ${self.dollars:.2f}, plus a few minutes of instance start-up and shutdown"
        return words

    def __repr__(self) -> str:
        rows = f"{self.rows:,}" if self.rows_precision == EXACT else f"{self.rows_precision} {self.rows:,}"
        return f"<Estimate: {rows} rows on {self.processes:,} processes, {', '.join(self.words.values())}>"

    def _repr_html_(self) -> str:
        rows = f"{self.rows:,}" if self.rows_precision == EXACT else f"{self.rows_precision} {self.rows:,}"
        return templating.table("Estimate", {"rows": rows, "processes": f"{self.processes:,}"} | self.words)
