"""How far a run is, for whoever shows it: counts, speed and time left; prints nothing."""

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field

from .executors import Watcher
from .receipts import Receipt

Place = tuple[str, str, int]  # worker, host, process ID
_WINDOW_SECONDS = 60.0  # speed is measured over the last minute


@dataclass(frozen=True)
class Snapshot:
    """How far a run is, at one moment."""

    phase: str
    rows: int  # of all
    done: int  # rows classified or set aside, also those of blocks that are not finished
    bad_rows: int
    blocks: int
    blocks_done: int
    rows_a_second: float
    seconds_left: float | None
    by_worker: dict[str, int] = field(default_factory=dict)  # rows of finished blocks


class Progress:
    """Collects what a run tells; may be asked from another thread at any time.

    Pass one to `run`, subclass it to hear of events, or poll `snapshot`.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._phase = "starting"
        self._rows = self._blocks = 0
        self._finished: set[int] = set()  # blocks
        self._done = self._bad_rows = 0  # rows of finished blocks
        self._by_place: Counter[Place] = Counter()
        self._under_way: dict[str, dict[int, tuple[int, int]]] = {}
        self._marks: deque[tuple[float, int]] = deque()
        self.watcher = Watcher(self._hear, self.died, self.leaving)

    # what the pipeline tells

    def phase(self, name: str) -> None:
        """The run has come to another stage: 'trying the classifier', 'finding rows', 'classifying' ..."""
        self._phase = name

    def connected(self, dashboard: str | None, processes: int) -> None:
        """The cluster is there."""

    def begin(self, rows: int, blocks: int, receipts: tuple[Receipt, ...]) -> None:
        """The blocks are known, and those of an earlier attempt that are done."""
        with self._lock:
            self._rows, self._blocks = rows, blocks
            for receipt in receipts:
                self._count(receipt)
            self._by_place.clear()  # of this attempt's workers
            self._marks.append((time.monotonic(), self._done))

    def finished(self, receipt: Receipt) -> None:
        """A block is done."""
        with self._lock:
            self._count(receipt)

    def _count(self, receipt: Receipt) -> None:
        rows = receipt.rows + receipt.bad_rows
        self._finished.add(receipt.index)
        self._done += rows
        self._bad_rows += receipt.bad_rows
        self._by_place[_place(receipt)] += rows

    def died(self, index: int, manner: str, again: bool) -> None:
        """A classifier process ended in the middle of a block, which is tried again or given up."""

    def leaving(self, worker: str, why: str) -> None:
        """A worker leaves the cluster; its blocks go to others."""

    def _hear(self, worker: str, rows: dict[int, tuple[int, int]]) -> None:
        with self._lock:
            self._under_way[worker] = rows

    # what a display asks

    def snapshot(self) -> Snapshot:
        """How far the run is now."""
        with self._lock:
            under_way = [
                counts
                for rows in self._under_way.values()
                for number, counts in rows.items()
                if number not in self._finished
            ]
            bad = self._bad_rows + sum(bad for _, bad in under_way)
            done = self._done + sum(rows + bad for rows, bad in under_way)
            speed = self._speed(done)
            left = (self._rows - done) / speed if speed > 0 else None
            return Snapshot(
                self._phase,
                self._rows,
                done,
                bad,
                self._blocks,
                len(self._finished),
                speed,
                left,
                _named(self._by_place),
            )

    def _speed(self, done: int) -> float:
        now = time.monotonic()
        if not self._marks:
            return 0.0
        self._marks.append((now, done))
        while now - self._marks[0][0] > _WINDOW_SECONDS and len(self._marks) > 2:
            self._marks.popleft()
        then, before = self._marks[0]
        return max(0, done - before) / (now - then) if now > then else 0.0


def _place(receipt: Receipt) -> Place:
    return receipt.worker, receipt.host, receipt.pid


def rows_by_worker(receipts: list[Receipt]) -> dict[str, int]:
    """Rows that each worker classified or set aside; where there was one worker, that each of its processes did."""
    rows: Counter[Place] = Counter()
    for receipt in receipts:
        rows[_place(receipt)] += receipt.rows + receipt.bad_rows
    return _named(rows)


def _named(rows: Counter[Place]) -> dict[str, int]:
    one = len({(worker, host) for worker, host, _ in rows}) == 1
    named: Counter[str] = Counter()
    for (worker, host, pid), count in rows.items():
        named[f"process {pid}" if one else f"{worker} on {host}"] += count
    return dict(sorted(named.items()))
