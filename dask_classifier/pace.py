"""When a run starts blocks, with its limits: as long as there is time, and with a warning if it will be late."""

import time
from collections import deque
from collections.abc import Iterable, Iterator

from .engine.executors import Executor
from .parts.receipts import Receipt
from .rows.blocks import Block
from .runs.limits import Watch
from .runs.plan_file import Cut
from .runs.progress import Progress
from .units import count_of, format_dollars

_RECENT = 50  # blocks by which the speed is known
_LOOK_SECONDS = 5.0  # between two looks at the cluster's size


class Pace:
    """Starts the blocks of a run in time, and lets a late run's cluster grow."""

    def __init__(self, cut: Cut, executor: Executor, progress: Progress, watch: Watch):
        self.executor, self.progress, self.watch = executor, progress, watch
        self.trial_speed = cut.seconds_a_row
        self.recent: deque[tuple[int, float]] = deque(maxlen=_RECENT)  # rows and seconds of blocks
        self.started = self.ended = self.rows_in_flight = 0
        self.has_grown = False
        self._size = (0.0, 1)  # when it was asked for, processes

    def in_time(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Yield blocks until a limit leaves no time for another."""
        for block in blocks:
            if self.watch.ends() and not self._has_time_for(block):
                return
            self.started += 1
            self.rows_in_flight += block.rows
            yield block

    def _has_time_for(self, block: Block) -> bool:
        """Return whether a block would be done in time, after those in flight."""
        seconds = (self.rows_in_flight + block.rows) * self._seconds_a_row() / self._processes()
        # before the first block is done, the speed is a guess, which is no reason to stop
        return self.watch.leaves_time_for(seconds if self.ended else 0.0)

    def _seconds_a_row(self) -> float:
        rows = sum(rows for rows, _ in self.recent)
        return sum(seconds for _, seconds in self.recent) / rows if rows else self.trial_speed

    def _processes(self) -> int:
        """Return the cluster's processes, which are asked for every few seconds only."""
        if time.monotonic() - self._size[0] > _LOOK_SECONDS:
            self._size = (time.monotonic(), self.executor.processes)
        return self._size[1]

    def finished(self, receipt: Receipt) -> None:
        """Count a finished block, and print what is to be printed now."""
        rows = receipt.rows + receipt.bad_rows
        self.ended += 1
        self.rows_in_flight -= rows
        self.recent.append((rows, receipt.seconds))
        if self.watch.limits.finish_by is None and self.watch.limits.budget is None:
            return
        is_known = self.ended >= 2 * self._processes()  # each process has done its first block, which takes longer
        for warning in self.watch.warnings(self.progress.snapshot().ends_at if is_known else None):
            self.progress.note(warning)
        if self.watch.is_late and self.watch.limits.scale_up_to and not self.has_grown:
            self._grow(self.watch.limits.scale_up_to)

    def _grow(self, workers: int) -> None:
        """Let the cluster grow, once."""
        self.has_grown = True
        more, price = self.executor.instances.grow(workers)
        if more:
            costs = f", for about ${format_dollars(more * price)} more per hour" if price else ""
            self.progress.note(f"the cluster grows by {count_of(more, 'worker')}{costs}")
