"""Track the progress of a run for displays: counts, speed and time left."""

import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from ..parts.receipts import Receipt
from ..units import format_seconds
from .places import Place, rows_by_name

CLASSIFYING = "classifying"  # the stage in which a run's speed is measured
_WINDOW_SECONDS = 60.0  # the speed is that of the last minute


@dataclass(frozen=True)
class Snapshot:
    """The progress of a run at one moment."""

    stage: str
    rows: int  #: in all
    done: int  #: rows classified or quarantined, including those of unfinished blocks
    bad_rows: int
    blocks: int
    blocks_done: int
    blocks_in_flight: int
    rows_a_second: float
    seconds_left: float | None
    by_worker: dict[str, int] = field(default_factory=dict)  #: rows of finished blocks
    finish_by: float | None = None  #: when it should have ended, in seconds since 1970
    is_estimate: bool = False  #: whether rows and blocks are estimates, since a compressed input is not read to its end
    counted: str = ""  #: of what a stage before "classifying" works on, such as "120 of 10,000 files"

    @property
    def share(self) -> float:
        """The share of the rows that is done, from 0 to 1."""
        return min(1.0, self.done / self.rows) if self.rows else float(self.stage == "complete")

    @property
    def ends_at(self) -> float | None:
        """When it ends at the current speed, in seconds since 1970; None if that is not known."""
        return None if self.seconds_left is None or not self.rows else time.time() + self.seconds_left

    @property
    def pace(self) -> str:
        """Whether it will end in time, in words; "" if no time was given or nothing is known."""
        if self.finish_by is None or self.ends_at is None or self.done >= self.rows:
            return ""
        late = self.ends_at - self.finish_by
        ends = time.strftime("%H:%M:%S", time.localtime(self.ends_at))
        return f"ends {ends}, {f'{format_seconds(late)} late' if late > 0 else 'in time'}"


class Finished(NamedTuple):
    """A finished block, and the process that classified it: the counts of a receipt, without any of the user's data."""

    index: int
    rows: int
    bad_rows: int
    worker: str
    host: str
    pid: int
    kind: str = ""  # of its first bad row: the type of the classifier's exception, or "malformed"

    @classmethod
    def of(cls, receipt: Receipt) -> "Finished":
        """Make it from the block's receipt."""
        return cls(
            receipt.index, receipt.rows, receipt.bad_rows, receipt.worker, receipt.host, receipt.pid, receipt.first_kind
        )

    @property
    def place(self) -> Place:
        """The process that classified the block."""
        return self.worker, self.host, self.pid


class Beginning(NamedTuple):
    """The size of a run, and the work that an earlier attempt has done."""

    rows: int
    blocks: int
    finished: tuple[int, ...]  # blocks of the earlier attempt
    done: int  # rows in them
    bad_rows: int  # in them

    @classmethod
    def of(cls, rows: int, blocks: int, receipts: tuple[Receipt, ...]) -> "Beginning":
        """Make it from the receipts of the earlier attempt."""
        bad_rows = sum(receipt.bad_rows for receipt in receipts)
        done = sum(receipt.rows for receipt in receipts) + bad_rows
        return cls(rows, blocks, tuple(receipt.index for receipt in receipts), done, bad_rows)


class Progress:
    """Collect the events of a run. Another thread may read its state at any time.

    Pass an instance to `run`. Call `snapshot` for the current state, or override methods to handle events.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._stage, self._counted = "starting", ""
        self._rows = self._blocks = 0
        self._is_estimate = False
        self._finished: set[int] = set()  # numbers of blocks
        self._done = self._bad_rows = 0  # rows of finished blocks
        self._already = 0  # rows done by an earlier attempt
        self._classifying_seconds: float | None = None  # set when that stage is over
        self._by_place: Counter[Place] = Counter()
        self._under_way: dict[str, dict[int, tuple[int, int]]] = {}
        self._marks: deque[tuple[float, int]] = deque()
        self._finish_by: float | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Surround the run with a display; override it in a subclass that shows the run."""
        yield

    # called by the pipeline and the executor

    def stage(self, name: str) -> None:
        """Enter another stage: 'trying the classifier', 'finding rows', 'classifying' ..."""
        self._stage, self._counted = name, ""

    def counted(self, done: int, total: int, what: str) -> None:
        """Record how much of the input a stage before 'classifying' has looked at."""
        self._counted = f"{done:,} of {total:,} {what}"

    def aim(self, finish_by: float | None) -> None:
        """Record when the run should have ended, in seconds since 1970."""
        self._finish_by = finish_by

    def classified(self, seconds: float) -> None:
        """Record the duration of the stage 'classifying' when all blocks are done; it now determines the speed."""
        self._classifying_seconds = seconds

    def connected(self, dashboard: str | None, processes: int) -> None:
        """Handle the connection to the cluster, with the dashboard's address and the number of processes."""

    def begin(self, rows: int, blocks: int, receipts: tuple[Receipt, ...]) -> None:
        """Record the numbers of rows and blocks, and the receipts of an earlier attempt."""
        self.start(Beginning.of(rows, blocks, receipts))

    def start(self, beginning: Beginning) -> None:
        """Record the same as `begin`, given as counts."""
        with self._lock:
            self._rows, self._blocks = beginning.rows, beginning.blocks
            self._finished = set(beginning.finished)
            self._done, self._bad_rows = beginning.done, beginning.bad_rows
            self._already, self._classifying_seconds = beginning.done, None
            self._marks.append((time.monotonic(), self._done))

    def resize(self, rows: int, blocks: int, is_estimate: bool) -> None:
        """Record the numbers of rows and blocks as they become known, while a compressed input is read."""
        with self._lock:
            self._rows, self._blocks, self._is_estimate = rows, blocks, is_estimate

    def finished(self, receipt: Receipt) -> None:
        """Record a finished block."""
        self.count(Finished.of(receipt))

    def count(self, block: Finished) -> None:
        """Record the same as `finished`, given as counts."""
        with self._lock:
            if block.index in self._finished:
                return  # two workers may classify the same block
            rows = block.rows + block.bad_rows
            self._finished.add(block.index)
            self._done += rows
            self._bad_rows += block.bad_rows
            self._by_place[block.place] += rows

    def note(self, text: str) -> None:
        """Handle a message for the user; the run continues."""

    def died(self, index: int, manner: str, again: bool) -> None:
        """Handle the end of a classifier process in the middle of a block, which is tried again or given up."""

    def printed(self, worker: str, lines: list[str]) -> None:
        """Write lines that a worker's classifier processes have printed to standard error."""
        for line in lines:
            sys.stderr.write(f"{worker}: {line}\n")

    def leaving(self, worker: str, why: str) -> None:
        """Handle a worker that leaves the cluster; its blocks go to others."""

    def under_way(self, worker: str, rows: dict[int, tuple[int, int]]) -> None:
        """Record a worker's blocks in flight, by number, with their rows and bad rows so far."""
        with self._lock:
            self._under_way[worker] = rows

    # called by displays

    @property
    def begun(self) -> bool:
        """Whether the numbers of rows and blocks are known."""
        return bool(self._marks)

    def snapshot(self) -> Snapshot:
        """Return the current progress."""
        with self._lock:
            under_way = {number: counts for number, _, *counts in self._in_flight()}
            bad = self._bad_rows + sum(bad for _, bad in under_way.values())
            done = self._done + sum(map(sum, under_way.values()))
            speed = self._speed(done)
            left = (self._rows - done) / speed if speed > 0 else None
            return Snapshot(
                self._stage,
                self._rows,
                done,
                bad,
                self._blocks,
                len(self._finished),
                len(under_way),
                speed,
                left,
                rows_by_name(self._by_place),
                self._finish_by,
                self._is_estimate,
                self._counted,
            )

    def rows_by_worker(self, flying: Mapping[Place, int]) -> dict[str, int]:
        """Return the rows of finished blocks plus `flying`, those of blocks in flight, by worker or process."""
        with self._lock:
            rows = Counter(self._by_place)
        rows.update(flying)
        return rows_by_name(rows)

    def places(self) -> set[Place]:
        """Return the processes that have finished a block."""
        with self._lock:
            return set(self._by_place)

    def in_flight(self) -> list[tuple[int, str, int, int]]:
        """Return the blocks in flight: number, worker, rows and bad rows so far."""
        with self._lock:
            return self._in_flight()

    def _in_flight(self) -> list[tuple[int, str, int, int]]:
        blocks_by_number = {  # the last report of a lost worker remains while another worker repeats its block
            number: (number, worker, rows, bad)
            for worker, blocks in self._under_way.items()
            for number, (rows, bad) in blocks.items()
            if number not in self._finished
        }
        return list(blocks_by_number.values())

    def _speed(self, done: int) -> float:
        if self._classifying_seconds is not None:
            return (done - self._already) / max(self._classifying_seconds, 1e-9)
        now = time.monotonic()
        if not self._marks:
            return 0.0
        self._marks.append((now, done))
        while now - self._marks[0][0] > _WINDOW_SECONDS and len(self._marks) > 2:
            self._marks.popleft()
        then, before = self._marks[0]
        return max(0, done - before) / (now - then) if now > then else 0.0
