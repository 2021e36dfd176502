"""How far a run is, for whoever shows it: counts, speed and time left; prints nothing."""

import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .. import templating
from ..parts.receipts import Receipt
from ..units import format_share

CLASSIFYING = "classifying"  # the stage whose rows/s are a run's speed
Place = tuple[str, str, int]  # worker, host, process ID
_WINDOW_SECONDS = 60.0  # speed is measured over the last minute


@dataclass(frozen=True)
class Snapshot:
    """How far a run is, at one moment."""

    stage: str
    rows: int  #: of all
    done: int  #: rows classified or set aside, also those of blocks that are not finished
    bad_rows: int
    blocks: int
    blocks_done: int
    blocks_in_flight: int
    rows_a_second: float
    seconds_left: float | None
    by_worker: dict[str, int] = field(default_factory=dict)  #: rows of finished blocks

    def html(
        self, title: str, times: dict[str, str], *, link: bool = False, notes: Mapping[str, str] | None = None
    ) -> str:
        """Return a bar, and numbers with names.

        Parameters
        ----------
        title : str
            The run, or the address of its page.
        times : dict of str to str
            More numbers with names.
        link : bool, optional
            The title is an address to go to. [default: False]
        notes : Mapping of str to str, optional
            Lines below.
        """
        cells = {
            "rows done": f"{self.done:,}",
            "rows left": f"{max(0, self.rows - self.done):,}",
            "rows/s while classifying": f"{self.rows_a_second:,.0f}",
            "bad rows": f"{self.bad_rows:,}",
            "blocks done": f"{self.blocks_done:,} of {self.blocks:,}",
            "blocks in flight": f"{self.blocks_in_flight:,}",
        }
        return templating.render(
            "progress.html",
            stage=self.stage,
            title=title,
            link=link,
            share=self.share,
            percentage=format_share(int(1000 * self.share) / 1000) if self.blocks else "",
            cells=(cells if self.blocks else {}) | times,  # before that, there is nothing to count
            notes=notes or {},
        )

    @property
    def share(self) -> float:
        """Of the rows, what is done: 0 to 1."""
        return min(1.0, self.done / self.rows) if self.rows else float(self.stage == "complete")


class Finished(NamedTuple):
    """A block that is done, and where: what counts of a receipt. No text of the user's."""

    index: int
    rows: int
    bad_rows: int
    worker: str
    host: str
    pid: int
    kind: str = ""  # of its first bad row: what the classifier raised, such as ValueError, or "malformed"

    @classmethod
    def of(cls, receipt: Receipt) -> "Finished":
        """From its receipt."""
        return cls(
            receipt.index, receipt.rows, receipt.bad_rows, receipt.worker, receipt.host, receipt.pid, receipt.first_kind
        )

    @property
    def place(self) -> Place:
        """The process that did it."""
        return self.worker, self.host, self.pid


class Beginning(NamedTuple):
    """What a run has to do, and what an earlier attempt of it has done."""

    rows: int
    blocks: int
    finished: tuple[int, ...]  # blocks
    done: int  # rows of them
    bad_rows: int

    @classmethod
    def of(cls, rows: int, blocks: int, receipts: tuple[Receipt, ...]) -> "Beginning":
        """From the receipts of the earlier attempt."""
        bad_rows = sum(receipt.bad_rows for receipt in receipts)
        done = sum(receipt.rows for receipt in receipts) + bad_rows
        return cls(rows, blocks, tuple(receipt.index for receipt in receipts), done, bad_rows)


class Progress:
    """Collects what a run tells; may be asked from another thread at any time.

    Pass one to `run`, subclass it to hear of events, or poll `snapshot`.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._stage = "starting"
        self._rows = self._blocks = 0
        self._finished: set[int] = set()  # blocks
        self._done = self._bad_rows = 0  # rows of finished blocks
        self._already = 0  # rows that an earlier attempt had done
        self._classifying_seconds: float | None = None  # once that stage is over
        self._by_place: Counter[Place] = Counter()
        self._under_way: dict[str, dict[int, tuple[int, int]]] = {}
        self._marks: deque[tuple[float, int]] = deque()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Around the run: for whoever shows it as it goes on."""
        yield

    # what the pipeline and the executor tell

    def stage(self, name: str) -> None:
        """The run has come to another stage: 'trying the classifier', 'finding rows', 'classifying' ..."""
        self._stage = name

    def classified(self, seconds: float) -> None:
        """All blocks are done; the stage took this long. From now on, the speed is that of the whole stage."""
        self._classifying_seconds = seconds

    def connected(self, dashboard: str | None, processes: int) -> None:
        """The cluster is there."""

    def begin(self, rows: int, blocks: int, receipts: tuple[Receipt, ...]) -> None:
        """The blocks are known, and those of an earlier attempt that are done."""
        self.start(Beginning.of(rows, blocks, receipts))

    def start(self, beginning: Beginning) -> None:
        """What `begin` says, in few words."""
        with self._lock:
            self._rows, self._blocks = beginning.rows, beginning.blocks
            self._finished = set(beginning.finished)
            self._done, self._bad_rows = beginning.done, beginning.bad_rows
            self._already, self._classifying_seconds = beginning.done, None
            self._marks.append((time.monotonic(), self._done))

    def finished(self, receipt: Receipt) -> None:
        """A block is done."""
        self.count(Finished.of(receipt))

    def count(self, block: Finished) -> None:
        """What `finished` says, in few words."""
        with self._lock:
            if block.index in self._finished:
                return  # two workers may do one block
            rows = block.rows + block.bad_rows
            self._finished.add(block.index)
            self._done += rows
            self._bad_rows += block.bad_rows
            self._by_place[block.place] += rows

    def note(self, text: str) -> None:
        """Something that a person should know, though the run goes on."""

    def died(self, index: int, manner: str, again: bool) -> None:
        """A classifier process ended in the middle of a block, which is tried again or given up."""

    def printed(self, worker: str, lines: list[str]) -> None:
        """A worker's classifier processes have printed something; goes to standard error."""
        for line in lines:
            sys.stderr.write(f"{worker}: {line}\n")

    def leaving(self, worker: str, why: str) -> None:
        """A worker leaves the cluster; its blocks go to others."""

    def under_way(self, worker: str, rows: dict[int, tuple[int, int]]) -> None:
        """A worker's blocks in flight: number to rows and bad rows so far."""
        with self._lock:
            self._under_way[worker] = rows

    # what a display asks

    @property
    def begun(self) -> bool:
        """Whether it is known how much there is to do."""
        return bool(self._marks)

    def snapshot(self) -> Snapshot:
        """How far the run is now."""
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
                _named(self._by_place),
            )

    def rows_by_worker(self, flying: Mapping[Place, int]) -> dict[str, int]:
        """Return rows of finished blocks, and `flying`, rows of blocks in flight, by worker or process."""
        with self._lock:
            rows = Counter(self._by_place)
        rows.update(flying)
        return _named(rows)

    def places(self) -> set[Place]:
        """Return the processes that have finished a block."""
        with self._lock:
            return set(self._by_place)

    def in_flight(self) -> list[tuple[int, str, int, int]]:
        """Blocks under way: number, worker, rows and bad rows so far."""
        with self._lock:
            return self._in_flight()

    def _in_flight(self) -> list[tuple[int, str, int, int]]:
        found = {  # by number: a worker that was lost leaves its last word, and another does the block again
            number: (number, worker, rows, bad)
            for worker, blocks in self._under_way.items()
            for number, (rows, bad) in blocks.items()
            if number not in self._finished
        }
        return list(found.values())

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


def classifying_speed(manifest: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return how fast a complete run was: the one speed that the terminal, the report and the page show.

    Parameters
    ----------
    manifest : Mapping
        The contents of manifest.json.

    Returns
    -------
    tuple of float, or None
        Seconds of the stage `classifying`, and rows per second in it: rows of this attempt, bad ones included, without
        those of blocks that `--resume` found done. None where the manifest has no such stage (an earlier version
        wrote it) or nothing was classified.
    """
    seconds = sum(spent for name, _, spent in manifest.get("stages", ()) if name == CLASSIFYING)
    resumed = set(manifest.get("resumed", ()))
    rows = sum(part["rows"] + part["bad_rows"] for part in manifest["parts"] if part["index"] not in resumed)
    return (seconds, rows / seconds) if seconds > 0 and rows else None


def rows_by_worker(receipts: list[Receipt]) -> dict[str, int]:
    """Rows that each worker classified or set aside; where there was one worker, that each of its processes did."""
    rows: Counter[Place] = Counter()
    for receipt in receipts:
        rows[Finished.of(receipt).place] += receipt.rows + receipt.bad_rows
    return _named(rows)


def place_names(receipts: list[Receipt]) -> dict[int, str]:
    """Where each block was done, for people: by worker, or, where there was one, by process."""
    names = names_of({Finished.of(receipt).place for receipt in receipts})
    return {receipt.index: names[Finished.of(receipt).place] for receipt in receipts}


def _named(rows: Counter[Place]) -> dict[str, int]:
    names, named = names_of(set(rows)), Counter[str]()
    for place, count in rows.items():
        named[names[place]] += count
    return dict(sorted(named.items()))


def names_of(places: set[Place]) -> dict[Place, str]:
    """Names for people: of workers or, where there is one, of its processes."""
    one = len({(worker, host) for worker, host, _ in places}) == 1
    return {(worker, host, pid): f"process {pid}" if one else f"{worker} on {host}" for worker, host, pid in places}
