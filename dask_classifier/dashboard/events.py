"""The state of a run on the scheduler of its cluster, collected from events of the client and the workers."""

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ..runs.places import Place, names_of
from ..runs.progress import Beginning, Finished, Progress, Snapshot

PLUGIN = "dask-classify"
TOPICS = f"{PLUGIN}-"  # prefix of the topics of runs
PAGE_TOPIC = f"{PLUGIN}/page"  # for the page only; shared by all runs, because Dask never deletes a topic
_MAX_POINTS = 1200  # in a run's history; then every other point is dropped


def topic(run_id: str) -> str:
    """Return the topic of the workers' events about blocks in flight. The client subscribes to it, too."""
    return TOPICS + run_id


def run_of(topic: str) -> str:
    """Return the ID of the run that a topic belongs to."""
    return topic.removeprefix(TOPICS)


class Flight(NamedTuple):
    """A block in flight and its process, without any of the user's data."""

    block: int
    rows: int
    bad_rows: int
    pid: int = 0
    seconds: float = 0.0  # in flight
    cpu: float = 0.0  # percent of one core
    memory: int = 0  # bytes


@dataclass
class FollowedRun:
    """The state of a run. Times are seconds since 1970."""

    id: str
    title: str = ""
    classifier: str = ""
    report: str = ""  # path or URL of report.html
    complete: bool = False
    client: str = ""  # ID of the Dask client
    deadline: float | None = None  # when the instances shut themselves down
    began: float = field(default_factory=time.time)
    ended: float | None = None
    classified: bool = False  # whether all blocks are done, and the speed is that of the whole stage
    progress: Progress = field(default_factory=Progress)
    kinds: Counter[str] = field(default_factory=Counter)  # blocks by the kind of their first bad row
    flights: dict[str, tuple[str, dict[int, Flight]]] = field(default_factory=dict)  # by worker: host, blocks in flight
    history: list[tuple[float, int]] = field(default_factory=list)  # (time, rows done)
    _spacing: float = 1.0  # seconds between two points of the history
    _stage: str = ""  # before the end

    def handle(self, event: dict[str, Any]) -> None:
        """Update the state with an event."""
        if "tasks" in event:
            flights = [Flight(*values) for values in event["tasks"]]
            self.flights[event["name"]] = event.get("host", ""), {flight.block: flight for flight in flights}
            self.progress.under_way(event["name"], {flight.block: (flight.rows, flight.bad_rows) for flight in flights})
        for block in (Finished(*values) for values in event.get("finished", ())):
            self.progress.count(block)
            self.kinds.update([block.kind] if block.kind else [])
        self.title = event.get("title", self.title)
        self.classifier = event.get("classifier", self.classifier)
        self.report = event.get("report", self.report)
        if "client" in event and self.ended:
            self._go_on()
        self.client = event.get("client", self.client)
        self.deadline = event.get("deadline", self.deadline)
        if "finish_by" in event:
            self.progress.aim(event["finish_by"])
        if "stage" in event:
            self.progress.stage(event["stage"])
        if "classified" in event:
            self.classified = True
            self.progress.classified(event["classified"])
        if "beginning" in event:
            self.progress.start(Beginning(*event["beginning"]))
        if "size" in event:
            self.progress.resize(*event["size"])
        if "end" in event:
            self._end(event["end"])
        self._record_history()

    def snapshot(self) -> Snapshot:
        """Return the current progress or, after the end of the run, the final one with the average speed."""
        now = self.progress.snapshot()
        if self.classified:
            return replace(now, seconds_left=None)
        if not self.ended or not self.history:
            return now
        then, before = self.history[0]
        seconds = max(self.ended - then, 1e-9)
        return replace(now, rows_a_second=(now.done - before) / seconds, seconds_left=None)

    def in_flight(self) -> list[tuple[str, Flight]]:
        """Return the blocks in flight, in order, each with the name of its worker or process; none after the end."""
        placed = self._placed_flights()
        names = names_of({place for place, _ in placed} | self.progress.places())
        return sorted(((names[place], flight) for place, flight in placed), key=lambda item: item[1].block)

    def rows_by_worker(self) -> dict[str, int]:
        """Return the rows done, including those of blocks in flight, by worker or process."""
        rows_in_flight: Counter[Place] = Counter()
        for place, flight in self._placed_flights():
            rows_in_flight[place] += flight.rows + flight.bad_rows
        return self.progress.rows_by_worker(rows_in_flight)

    def _placed_flights(self) -> list[tuple[Place, Flight]]:
        if self.ended:
            return []
        placed = []
        for number, worker, _, _ in self.progress.in_flight():
            host, flights = self.flights[worker]
            placed.append(((worker, host, flights[number].pid), flights[number]))
        return placed

    def _go_on(self) -> None:
        """The client that had disconnected is back."""
        self.ended = None
        self.progress.stage(self._stage)

    def _end(self, outcome: str) -> None:
        self._stage = self.progress.snapshot().stage
        self.progress.stage(outcome)
        self.ended, self.complete = time.time(), outcome == "complete"

    def _record_history(self) -> None:
        now = self.ended or time.time()
        if self.progress.begun and (not self.history or now - self.history[-1][0] >= self._spacing):
            self.history.append((now, self.snapshot().done))
        if len(self.history) > _MAX_POINTS:
            self._spacing *= 2
            del self.history[1::2]


def newest_run(scheduler) -> FollowedRun | None:
    """Return the scheduler's run that started last, or None before the first run."""
    plugin = scheduler.plugins.get(PLUGIN)
    return plugin and plugin.newest
