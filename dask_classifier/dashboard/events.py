"""A run as the scheduler of its cluster knows it, from events that the client and the workers send."""

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ..runs.progress import Beginning, Finished, Place, Progress, Snapshot, names_of

PLUGIN = "dask-classify"
TOPICS = f"{PLUGIN}-"  # how those of runs begin
PAGE_TOPIC = f"{PLUGIN}/page"  # what is told for the page alone, of all runs: Dask keeps each topic for ever
_MOST_POINTS = 1200  # of a run's history; then every other one goes


def topic(run_id: str) -> str:
    """What the workers of a run tell of blocks in flight; the client listens, too."""
    return TOPICS + run_id


def run_of(topic: str) -> str:
    """The run that a topic is about."""
    return topic.removeprefix(TOPICS)


class Flight(NamedTuple):
    """A block in flight, and the process that it is in. No text of the user's."""

    block: int
    rows: int
    bad_rows: int
    pid: int = 0
    seconds: float = 0.0  # in flight
    cpu: float = 0.0  # percent of one core
    memory: int = 0  # bytes


@dataclass
class FollowedRun:
    """A run as the scheduler knows it. Times are seconds since 1970."""

    id: str
    title: str = ""
    classifier: str = ""
    report: str = ""  # where it will be
    complete: bool = False
    client: str = ""  # Dask's name of it
    deadline: float | None = None  # when the machines end themselves
    began: float = field(default_factory=time.time)
    ended: float | None = None
    classified: bool = False  # all blocks are done, and the speed is that of the whole stage
    progress: Progress = field(default_factory=Progress)
    kinds: Counter[str] = field(default_factory=Counter)  # of bad rows: blocks whose first is of this kind
    flights: dict[str, tuple[str, dict[int, Flight]]] = field(default_factory=dict)  # worker to host, and its blocks
    history: list[tuple[float, int]] = field(default_factory=list)  # when, rows done
    _spacing: float = 1.0  # seconds between two points of the history

    def hear(self, told: dict[str, Any]) -> None:
        """One event."""
        if "tasks" in told:
            flights = [Flight(*values) for values in told["tasks"]]
            self.flights[told["name"]] = told.get("host", ""), {each.block: each for each in flights}
            self.progress.under_way(told["name"], {each.block: (each.rows, each.bad_rows) for each in flights})
        for block in (Finished(*values) for values in told.get("finished", ())):
            self.progress.count(block)
            self.kinds.update([block.kind] if block.kind else [])
        self.title = told.get("title", self.title)
        self.classifier = told.get("classifier", self.classifier)
        self.report = told.get("report", self.report)
        self.client = told.get("client", self.client)
        self.deadline = told.get("deadline", self.deadline)
        if "stage" in told:
            self.progress.stage(told["stage"])
        if "classified" in told:
            self.classified = True
            self.progress.classified(told["classified"])
        if "beginning" in told:
            self.progress.start(Beginning(*told["beginning"]))
        if "end" in told:
            self._end(told["end"])
        self._remember()

    def snapshot(self) -> Snapshot:
        """How far it is, or was at its end, with its speed while it classified."""
        now = self.progress.snapshot()
        if self.classified:
            return replace(now, seconds_left=None)
        if not self.ended or not self.history:
            return now
        then, before = self.history[0]
        seconds = max(self.ended - then, 1e-9)
        return replace(now, rows_a_second=(now.done - before) / seconds, seconds_left=None)

    def in_flight(self) -> list[tuple[str, Flight]]:
        """Where, for people, and what: each block in flight, in the order of blocks; none when the run has ended."""
        flying = self._flying()
        names = names_of({place for place, _ in flying} | self.progress.places())
        return sorted(((names[place], flight) for place, flight in flying), key=lambda each: each[1].block)

    def rows_by_worker(self) -> dict[str, int]:
        """Rows done, those of blocks in flight among them, by worker or process."""
        flying: Counter[Place] = Counter()
        for place, flight in self._flying():
            flying[place] += flight.rows + flight.bad_rows
        return self.progress.rows_by_worker(flying)

    def _flying(self) -> list[tuple[Place, Flight]]:
        if self.ended:
            return []
        found = []
        for number, worker, _, _ in self.progress.in_flight():
            host, flights = self.flights[worker]
            found.append(((worker, host, flights[number].pid), flights[number]))
        return found

    def _end(self, how: str) -> None:
        self.progress.stage(how)
        self.ended, self.complete = time.time(), how == "complete"

    def _remember(self) -> None:
        now = self.ended or time.time()
        if self.progress.begun and (not self.history or now - self.history[-1][0] >= self._spacing):
            self.history.append((now, self.snapshot().done))
        if len(self.history) > _MOST_POINTS:
            self._spacing *= 2
            del self.history[1::2]


def newest_run(scheduler) -> FollowedRun | None:
    """The run of a scheduler that began last; None where there was none yet."""
    plugin = scheduler.plugins.get(PLUGIN)
    return plugin and plugin.newest
