"""A complete run in figures: for the report's page, the terminal and programs."""

import itertools
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .. import templating
from ..parts.receipts import Receipt
from ..parts.run_folder import PLAN
from ..runs.account import account_of
from ..runs.manifest import Stage
from ..runs.places import place_names
from ..runs.result import Result
from ..runs.stages import classifying_speed
from ..units import format_seconds, format_share
from . import samples

_MAX_BINS = 120  # in the curve over time
_BIN_SECONDS = 0.5  # at least
_SLOWEST = 5  # blocks listed
_ODD = 1.5  # a block is highlighted above this multiple of the median time per row
_ODD_SECONDS = 0.5  # shorter blocks are not highlighted, because their time per row is not precise


@dataclass(frozen=True)
class WorkerShare:
    """The work of one worker or, if there was only one worker, of one of its processes."""

    name: str
    rows: int
    blocks: int
    seconds: float  # in total over its processes
    ms_a_row: float


@dataclass(frozen=True)
class BlockSpeed:
    """The speed of a block."""

    index: int
    rows: int
    began: float  # seconds since the start of the run
    seconds: float
    ms_a_row: float
    worker: str
    odd: bool  # whether it was much slower than the others


@dataclass(frozen=True)
class Figures:
    """A run in numbers. Times are in seconds."""

    output: str
    source: tuple[str, ...]
    classifier: str
    started: float  # since 1970
    seconds: float
    words: dict[str, str]  # rows and parts as text, for people
    rows_in: int
    rows_out: int
    bad_rows: int
    parts: int
    resumed_parts: int  # finished by an earlier attempt
    bytes: int
    hosts: tuple[str, ...]  # on which rows were classified
    processes: int
    at_work: float  # share of the processes' time between the first and the last block that was spent on blocks
    classifying_seconds: float | None  # None if an earlier version made the run, which did not record times
    rows_a_second: float | None  # of this attempt, while classifying
    stages: tuple[Stage, ...]
    speed: tuple[tuple[float, float], ...]  # (seconds since the start, rows per second)
    workers: tuple[WorkerShare, ...]
    blocks: tuple[BlockSpeed, ...]
    answers: tuple[samples.Answers, ...]
    quarantine: samples.BadRows
    settings: dict[str, Any]
    versions: dict[str, str]
    fingerprint: str
    machines: dict[str, Any] | None
    account: dict[str, str]  # digests, cost and prediction as text, for people

    @property
    def slowest(self) -> list[BlockSpeed]:
        """The blocks with the longest time per row, the slowest first."""
        return sorted(self.blocks, key=lambda block: -block.ms_a_row)[:_SLOWEST]

    def as_json(self) -> dict[str, Any]:
        """Return the figures as a dict that can be written as JSON."""
        fields = asdict(self) | {"stages": [stage._asdict() for stage in self.stages]}
        return {name: value for name, value in fields.items() if name not in {"words", "account"}}

    def _repr_html_(self) -> str:
        return templating.table("Report", totals(self))


def figures(result: Result) -> Figures:
    """Return the figures of a run, from its manifest, its plan and a sample of its rows."""
    manifest, plan = result.manifest, result.folder.read_json(PLAN)
    identity = plan["identity"]
    started = manifest["started"]
    receipts = result.new_receipts
    names = place_names(receipts)
    seconds, speed = classifying_speed(manifest) or (None, None)
    return Figures(
        output=result.output,
        source=tuple(file.get("url", "generated") for file in identity["source"]),
        classifier=identity["classifier"],
        started=started,
        seconds=manifest["seconds"],
        words=result.words,
        rows_in=manifest["rows_in"],
        rows_out=result.rows,
        bad_rows=result.bad_rows,
        parts=len(manifest["parts"]),
        resumed_parts=len(manifest.get("resumed", ())),
        bytes=manifest["bytes"],
        hosts=tuple(sorted({receipt.host for receipt in receipts})),
        processes=_processes(receipts),
        at_work=_at_work(receipts),
        classifying_seconds=seconds,
        rows_a_second=speed,
        stages=tuple(Stage(*values) for values in manifest.get("stages", ())),
        speed=_speed(receipts, started),
        workers=_worker_shares(receipts, names),
        blocks=_block_speeds(receipts, names, started),
        answers=tuple(samples.answers(result, identity["columns"])),
        quarantine=samples.bad_rows(result),
        settings={name: value for name, value in identity.items() if not name.startswith(("version", "source"))},
        versions=manifest["versions"],
        fingerprint=manifest["fingerprint"],
        machines=manifest.get("machines"),
        account=account_of(manifest),
    )


def _all_rows(receipt: Receipt) -> int:
    return receipt.rows + receipt.bad_rows


def _processes(receipts: list[Receipt]) -> int:
    """Return the largest number of blocks at the same time: processes may have been replaced by others."""
    edges = [(receipt.started, 1) for receipt in receipts]
    edges += [(receipt.started + receipt.seconds, -1) for receipt in receipts]
    return max(itertools.accumulate(change for _, change in sorted(edges)), default=0)


def _at_work(receipts: list[Receipt]) -> float:
    if not receipts:
        return 0.0
    first = min(receipt.started for receipt in receipts)
    last = max(receipt.started + receipt.seconds for receipt in receipts)
    busy_seconds = sum(receipt.seconds for receipt in receipts)
    return min(1.0, busy_seconds / (_processes(receipts) * max(last - first, 1e-9)))


def _speed(receipts: list[Receipt], started: float) -> tuple[tuple[float, float], ...]:
    """Return the rows per second over time, with each block's rows spread evenly over its duration."""
    if not receipts:
        return ()
    begins = np.array([receipt.started - started for receipt in receipts])
    ends = begins + np.maximum([receipt.seconds for receipt in receipts], 1e-6)
    rows = np.array([_all_rows(receipt) for receipt in receipts])
    edges = np.linspace(begins.min(), ends.max(), _number_of_bins(ends.max() - begins.min()) + 1)
    # the rows done at each edge, in finished blocks and in those in flight
    done = [(rows * np.clip((edge - begins) / (ends - begins), 0, 1)).sum() for edge in edges]
    middles, speeds = (edges[1:] + edges[:-1]) / 2, np.diff(done) / np.diff(edges)
    if len(speeds) == 1:  # a curve needs two points
        middles, speeds = edges, np.repeat(speeds, 2)
    return tuple(zip(middles.round(2).tolist(), speeds.round(1).tolist(), strict=True))


def _number_of_bins(seconds: float) -> int:
    return max(1, min(_MAX_BINS, int(seconds / _BIN_SECONDS)))


def _worker_shares(receipts: list[Receipt], names: dict[int, str]) -> tuple[WorkerShare, ...]:
    by_worker: dict[str, list[Receipt]] = defaultdict(list)
    for receipt in receipts:
        by_worker[names[receipt.index]].append(receipt)
    shares = []
    for name, blocks in by_worker.items():
        rows, seconds = sum(map(_all_rows, blocks)), sum(receipt.seconds for receipt in blocks)
        shares.append(WorkerShare(name, rows, len(blocks), round(seconds, 3), 1000 * seconds / max(rows, 1)))
    return tuple(sorted(shares, key=lambda share: -share.rows))


def _block_speeds(receipts: list[Receipt], names: dict[int, str], started: float) -> tuple[BlockSpeed, ...]:
    with_rows = [receipt for receipt in receipts if _all_rows(receipt)]
    seconds_per_row = sorted(receipt.seconds / _all_rows(receipt) for receipt in with_rows)
    limit = _ODD * seconds_per_row[len(seconds_per_row) // 2] if seconds_per_row else 0
    return tuple(
        BlockSpeed(
            receipt.index,
            _all_rows(receipt),
            round(receipt.started - started, 3),
            round(receipt.seconds, 3),
            1000 * receipt.seconds / _all_rows(receipt),
            names[receipt.index],
            receipt.seconds / _all_rows(receipt) > limit and receipt.seconds > _ODD_SECONDS,
        )
        for receipt in with_rows
    )


def totals(run: Figures) -> dict[str, str]:
    """Return the totals of a run as text, by name."""
    words = dict(run.words)
    if run.bad_rows:
        for name, rows in (("rows out", run.rows_out), ("rows quarantined", run.bad_rows)):
            words[name] = f"{rows:,} ({format_share(rows / run.rows_in)})"
    words["time"] = format_seconds(run.seconds)
    if run.rows_a_second is not None:
        words["speed"] = f"{run.rows_a_second:,.0f} rows/s while classifying"
    words["processes"] = f"{run.processes:,}"
    words["processes at work"] = format_share(round(run.at_work, 3))
    if run.hosts:
        words |= {"host": run.hosts[0]} if len(run.hosts) == 1 else {"hosts": f"{len(run.hosts):,}"}
    if run.resumed_parts:
        parts = "1 part" if run.resumed_parts == 1 else f"{run.resumed_parts:,} parts"
        words["resumed"] = f"{parts} kept from an earlier attempt"
    if run.machines:
        left = run.machines["left"]
        ended = f"{run.machines['started']} started, {run.machines['terminated']} terminated"
        words["instances"] = ended + (f", not terminated: {', '.join(left)}" if left else "")
    return words | run.account
