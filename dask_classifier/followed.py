"""A run as the scheduler of its cluster knows it, from events that the client and the workers send."""

import time
from dataclasses import dataclass, field, replace
from typing import Any

from .progress import Beginning, Finished, Progress, Snapshot

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


@dataclass
class FollowedRun:
    """A run as the scheduler knows it. Times are seconds since 1970."""

    id: str
    title: str = ""
    client: str = ""  # Dask's name of it
    deadline: float | None = None  # when the machines end themselves
    began: float = field(default_factory=time.time)
    ended: float | None = None
    classified: bool = False  # all blocks are done, and the speed is that of the whole stage
    progress: Progress = field(default_factory=Progress)
    history: list[tuple[float, int]] = field(default_factory=list)  # when, rows done
    _spacing: float = 1.0  # seconds between two points of the history

    def hear(self, told: dict[str, Any]) -> None:
        """One event."""
        if "tasks" in told:
            self.progress.under_way(told["name"], {number: (rows, bad) for number, rows, bad in told["tasks"]})
        for values in told.get("finished", ()):
            self.progress.count(Finished(*values))
        self.title = told.get("title", self.title)
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

    def _end(self, how: str) -> None:
        self.progress.stage(how)
        self.ended = time.time()

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
