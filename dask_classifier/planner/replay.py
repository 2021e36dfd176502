"""Replay a finished run with other numbers of processes, and name where its time went.

The blocks take as long as they took, in their order, as in Sparklens for Spark (https://github.com/qubole/sparklens).
"""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .. import templating
from ..errors import UsageError
from ..parts.receipts import Receipt
from ..runs.places import place_of
from ..runs.result import Result
from ..units import format_seconds, format_share
from .simulation import simulate

_FACTORS = (0.25, 0.5, 1, 2, 4, 8)  # of the number of processes


@dataclass(frozen=True)
class Replayed:
    """A number of processes, the seconds that the run would take, and the share of their time spent on blocks."""

    processes: int
    seconds: float
    busy: float


@dataclass(frozen=True)
class Replay:
    """A finished run, and the same blocks on other numbers of processes.

    Attributes
    ----------
    output : str
        The run.
    processes : int
        Classifier processes that it had.
    seconds : float
        What it took.
    starting : float
        Seconds before its first block.
    tail : float
        Seconds at the end in which at least one process had nothing to do.
    idle : float
        Share of the processes' time, from the first block to the last, in which they had no block.
    lost : float
        Seconds of processes without a block between two of theirs, such as for blocks that were tried again.
    choices : tuple of Replayed
        Other numbers of processes.
    """

    output: str
    processes: int
    seconds: float
    starting: float
    tail: float
    idle: float
    lost: float
    choices: tuple[Replayed, ...]
    rows: int = 0  # of the last attempt, as are all of these numbers
    blocks: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the fields of `dask-classify plan --from RUN --json`."""
        return asdict(self)

    @property
    def words(self) -> dict[str, str]:
        """Where the time went, in words."""
        return {
            "run": f"{self.output}, last attempt: {self.rows:,} rows in {self.blocks:,} blocks",
            "time": f"{format_seconds(self.seconds)} on {_counted(self.processes)}",
            "start-up": f"{format_seconds(self.starting)} before the first block",
            "tail": f"{format_seconds(self.tail)} in which not all processes had a block",
            "gaps": f"{format_seconds(self.lost)} of processes between blocks: retries, waiting, storage",
            "idle": f"{format_share(round(self.idle, 3))} of the processes' time from the first block to the last",
        }

    def lines(self) -> list[str]:
        """Return the words and the table as text."""
        words = [f"{name:<10} {text}" for name, text in self.words.items()]
        rows = [("processes", "time", "busy"), *map(_cells, self.choices)]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        table = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return [*words, "", "With other numbers of processes, each on a core of its own:", *table]

    def _repr_html_(self) -> str:
        times = {f"{each.processes} processes": format_seconds(each.seconds) for each in self.choices}
        return templating.table("Replay", self.words | times)


def _counted(processes: int) -> str:
    return f"{processes:,} process{'' if processes == 1 else 'es'}"


def _cells(each: Replayed) -> tuple[str, str, str]:
    return f"{each.processes:,}", format_seconds(each.seconds), format_share(round(each.busy, 2))


def replay_of(result: Result, processes: Sequence[int] | None = None) -> Replay:
    """Replay a run.

    Parameters
    ----------
    result : Result
        A finished run.
    processes : sequence of int, optional
        Numbers of processes. Default: from a quarter to eight times as many as it had.

    Raises
    ------
    UsageError
        Its last attempt has classified nothing.
    """
    receipts = sorted(result.new_receipts, key=lambda receipt: receipt.index)
    if not receipts:
        raise UsageError(f"The last attempt of {result.output} has classified nothing.", "Name another run.")
    manifest = result.manifest
    slots = _slots(receipts)
    had = len(slots)
    first = min(receipt.started for receipt in receipts)
    ends = [slot[-1].started + slot[-1].seconds for slot in slots]
    work = np.array([receipt.seconds for receipt in receipts])
    around = manifest["seconds"] - (max(ends) - first)
    gaps = [gap for slot in slots for gap in _gaps(slot)]
    gap = float(np.median(gaps or [0.0]))
    counts = processes or sorted({max(1, round(had * factor)) for factor in _FACTORS})
    schedules = [(count, simulate(work, count, block_seconds=gap)) for count in counts]
    return Replay(
        output=result.output,
        processes=had,
        seconds=manifest["seconds"],
        starting=first - manifest["started"],
        tail=max(ends) - min(ends),
        idle=1 - work.sum() / (had * (max(ends) - first) or 1),
        lost=sum(gaps),
        rows=sum(receipt.rows + receipt.bad_rows for receipt in receipts),
        blocks=len(receipts),
        choices=tuple(Replayed(count, around + each.seconds, each.busy) for count, each in schedules),
    )


def _slots(receipts: Sequence[Receipt]) -> list[list[Receipt]]:
    """Return the blocks of each process, in order, together with those of the processes that replaced it."""
    last_start = {}
    for receipt in receipts:
        place = place_of(receipt)
        last_start[place] = max(last_start.get(place, 0.0), receipt.started)
    slots: dict[tuple, list[Receipt]] = {}  # by the process that has it now
    for receipt in sorted(receipts, key=lambda each: each.started):
        place = place_of(receipt)
        if place not in slots:
            left = next((old for old, slot in slots.items() if _is_left(slot[-1], receipt, last_start)), None)
            slots[place] = slots.pop(left) if left else []
        slots[place].append(receipt)
    return list(slots.values())


def _is_left(last: Receipt, receipt: Receipt, last_start: dict) -> bool:
    """Whether a process has done its last block before another one begins."""
    return last.started == last_start[place_of(last)] and last.started + last.seconds <= receipt.started


def _gaps(slot: Sequence[Receipt]) -> list[float]:
    """Return the seconds between consecutive blocks."""
    return [max(0.0, after.started - before.started - before.seconds) for before, after in itertools.pairwise(slot)]
