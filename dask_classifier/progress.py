"""How far a run is, for whoever shows it: counts, speed and time left; prints nothing."""

import threading
import time
from collections import deque
from dataclasses import dataclass, field

from .executors import Watcher
from .parts import Receipt

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
        self._resumed_rows = 0
        self._receipts: dict[int, Receipt] = {}
        self._under_way: dict[str, dict[int, tuple[int, int]]] = {}
        self._marks: deque[tuple[float, int]] = deque()
        self.watcher = Watcher(self._hear, self.died)

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
            self._receipts = {receipt.index: receipt for receipt in receipts}
            self._resumed_rows = sum(receipt.rows + receipt.bad_rows for receipt in receipts)
            self._marks.append((time.monotonic(), self._resumed_rows))

    def finished(self, receipt: Receipt) -> None:
        """A block is done."""
        with self._lock:
            self._receipts[receipt.index] = receipt

    def died(self, index: int, manner: str, again: bool) -> None:
        """A classifier process ended in the middle of a block, which is tried again or given up."""

    def _hear(self, worker: str, rows: dict[int, tuple[int, int]]) -> None:
        with self._lock:
            self._under_way[worker] = rows

    # what a display asks

    def snapshot(self) -> Snapshot:
        """How far the run is now."""
        with self._lock:
            receipts = list(self._receipts.values())
            under_way = {
                n: each for rows in self._under_way.values() for n, each in rows.items() if n not in self._receipts
            }
            bad = sum(receipt.bad_rows for receipt in receipts) + sum(bad for _, bad in under_way.values())
            done = sum(receipt.rows for receipt in receipts) + sum(rows for rows, _ in under_way.values()) + bad
            speed = self._speed(done)
            left = (self._rows - done) / speed if speed > 0 else None
            by_worker = rows_by_worker(receipts)
        return Snapshot(self._phase, self._rows, done, bad, self._blocks, len(receipts), speed, left, by_worker)

    def _speed(self, done: int) -> float:
        now = time.monotonic()
        if not self._marks:
            return 0.0
        self._marks.append((now, done))
        while now - self._marks[0][0] > _WINDOW_SECONDS and len(self._marks) > 2:
            self._marks.popleft()
        then, before = self._marks[0]
        return max(0, done - before) / (now - then) if now > then else 0.0


def rows_by_worker(receipts: list[Receipt]) -> dict[str, int]:
    """Rows that each worker classified or set aside; on one machine, that each process did."""
    several = len({(receipt.worker, receipt.host) for receipt in receipts}) > 1
    counts: dict[str, int] = {}
    for receipt in receipts:
        name = f"{receipt.worker} on {receipt.host}" if several else f"process {receipt.pid}"
        counts[name] = counts.get(name, 0) + receipt.rows + receipt.bad_rows
    return dict(sorted(counts.items()))
