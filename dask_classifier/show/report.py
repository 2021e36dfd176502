"""What a finished run was: its figures for programs, and report.html for people."""

import os
from collections import defaultdict
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from .. import storage, templating
from ..parts.receipts import Receipt
from ..parts.run_folder import PLAN, REPORT
from ..runs.manifest import Stage
from ..runs.progress import classifying_speed, place_names
from ..runs.result import Result
from ..units import format_seconds, format_share
from . import charts, samples

_BINS = 120  # of the curve over time
_MOST_DOTS = 1500
_SLOWEST = 5  # blocks that are named
_MOST_WORKERS = 64  # that the page shows
_ODD = 1.5  # times the median of milliseconds a row: a block stands out
_BLOCK_SECONDS = 0.5  # a shorter block's milliseconds a row say little


@dataclass(frozen=True)
class WorkerShare:
    """What one worker did; where there was one worker, what each of its processes did."""

    name: str
    rows: int
    blocks: int
    seconds: float  # of all its processes
    ms_a_row: float


@dataclass(frozen=True)
class BlockSpeed:
    """How fast a block was. `began` is in seconds since the run began."""

    index: int
    rows: int
    began: float
    seconds: float
    ms_a_row: float
    worker: str
    odd: bool  # much slower than the others


@dataclass(frozen=True)
class Figures:
    """A run in numbers. Times are in seconds."""

    output: str
    source: tuple[str, ...]
    classifier: str
    started: float  # since 1970
    seconds: float
    words: dict[str, str]  # rows and parts, for people
    rows_in: int
    rows_out: int
    bad_rows: int
    parts: int
    resumed_parts: int  # that an earlier attempt had done
    bytes: int
    hosts: tuple[str, ...]  # that classified
    processes: int
    at_work: float  # share of the processes' time, from the first block to the last, spent on blocks
    classifying_seconds: float | None  # None where an earlier version kept no times
    rows_a_second: float | None  # of this attempt, while classifying
    stages: tuple[Stage, ...]
    speed: tuple[tuple[float, float], ...]  # (seconds since the start, rows a second)
    workers: tuple[WorkerShare, ...]
    blocks: tuple[BlockSpeed, ...]
    answers: tuple[samples.Answers, ...]
    quarantine: samples.BadRows
    settings: dict[str, Any]
    versions: dict[str, str]
    fingerprint: str
    machines: dict[str, Any] | None

    @property
    def slowest(self) -> list[BlockSpeed]:
        """The blocks that took longest for a row, the slowest first."""
        return sorted(self.blocks, key=lambda block: -block.ms_a_row)[:_SLOWEST]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        fields = asdict(self) | {"stages": [stage._asdict() for stage in self.stages]}
        return {name: value for name, value in fields.items() if name != "words"}


def figures(result: Result) -> Figures:
    """Look at a run: its manifest, its plan, and a sample of its rows."""
    manifest, plan = result.manifest, result.folder.read_json(PLAN)
    identity = plan["identity"]
    started = manifest["started"]
    new = result.new_receipts
    names = place_names(new)
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
        hosts=tuple(sorted({each.host for each in new})),
        processes=len({(each.host, each.pid) for each in new}),
        at_work=_at_work(new),
        classifying_seconds=seconds,
        rows_a_second=speed,
        stages=tuple(Stage(*each) for each in manifest.get("stages", ())),
        speed=_speed(new, started),
        workers=_shares(new, names),
        blocks=_speeds(new, names, started),
        answers=tuple(samples.answers(result, identity["columns"])),
        quarantine=samples.bad_rows(result),
        settings={name: value for name, value in identity.items() if not name.startswith(("version", "source"))},
        versions=manifest["versions"],
        fingerprint=manifest["fingerprint"],
        machines=manifest.get("machines"),
    )


def _all_rows(receipt: Receipt) -> int:
    return receipt.rows + receipt.bad_rows


def _at_work(receipts: list[Receipt]) -> float:
    if not receipts:
        return 0.0
    first, last = min(each.started for each in receipts), max(each.started + each.seconds for each in receipts)
    processes = len({(each.host, each.pid) for each in receipts})
    return min(1.0, sum(each.seconds for each in receipts) / (processes * max(last - first, 1e-9)))


def _speed(receipts: list[Receipt], started: float) -> tuple[tuple[float, float], ...]:
    """Rows a second over time: each block's rows, spread evenly over its seconds."""
    if not receipts:
        return ()
    begins = np.array([each.started - started for each in receipts])
    ends = begins + np.maximum([each.seconds for each in receipts], 1e-6)
    rows = np.array([_all_rows(each) for each in receipts])
    edges = np.linspace(begins.min(), ends.max(), _bins(ends.max() - begins.min()) + 1)
    # rows done until each edge, by blocks done and by those under way
    done = [(rows * np.clip((edge - begins) / (ends - begins), 0, 1)).sum() for edge in edges]
    middles, speeds = (edges[1:] + edges[:-1]) / 2, np.diff(done) / np.diff(edges)
    if len(speeds) == 1:  # a curve has two ends
        middles, speeds = edges, np.repeat(speeds, 2)
    return tuple(zip(middles.round(2).tolist(), speeds.round(1).tolist(), strict=True))


def _bins(seconds: float) -> int:
    """Of half a second at least, and no more than a page shows."""
    return max(1, min(_BINS, int(seconds / 0.5)))


def _shares(receipts: list[Receipt], names: dict[int, str]) -> tuple[WorkerShare, ...]:
    mine: dict[str, list[Receipt]] = defaultdict(list)
    for receipt in receipts:
        mine[names[receipt.index]].append(receipt)
    shares = []
    for name, several in mine.items():
        rows, seconds = sum(map(_all_rows, several)), sum(each.seconds for each in several)
        shares.append(WorkerShare(name, rows, len(several), round(seconds, 3), 1000 * seconds / max(rows, 1)))
    return tuple(sorted(shares, key=lambda share: -share.rows))


def _speeds(receipts: list[Receipt], names: dict[int, str], started: float) -> tuple[BlockSpeed, ...]:
    with_rows = [receipt for receipt in receipts if _all_rows(receipt)]
    paces = sorted(each.seconds / _all_rows(each) for each in with_rows)
    limit = _ODD * paces[len(paces) // 2] if paces else 0
    return tuple(
        BlockSpeed(
            each.index,
            _all_rows(each),
            round(each.started - started, 3),
            round(each.seconds, 3),
            1000 * each.seconds / _all_rows(each),
            names[each.index],
            each.seconds / _all_rows(each) > limit and each.seconds > _BLOCK_SECONDS,
        )
        for each in with_rows
    )


# --- the page ------------------------------------------------------------------------------------------


def save(result: Result) -> str:
    """Write report.html into the run's folder; returns where it is. Raises StorageError."""
    result.folder.write(REPORT, html(figures(result)).encode())
    return result.report


def html(run: Figures, place: str | None = None) -> str:
    """Return one self-contained page: no script, nothing from elsewhere.

    Parameters
    ----------
    run : Figures
        What it shows.
    place : str, optional
        Where the page will be, for its links to the run's files. [default: in the run's folder]
    """
    return templating.render(
        "report.html",
        run=run,
        name=run.output.rstrip("/").rpartition("/")[2],
        when=when(run.started),
        totals=totals(run),
        links=_links(run, place or storage.join(run.output, REPORT)),
        stages=_stages(run),
        speed=charts.area(run.speed, x_label="seconds since the run began", description="Rows per second over time"),
        dots=charts.dots(_dots(run.blocks), x_label="block", description="Milliseconds per row of each block"),
        slowest=run.slowest,
        workers=run.workers[:_MOST_WORKERS],
        more_workers=run.workers[_MOST_WORKERS:],
        all_rows=sum(share.rows for share in run.workers) or 1,
        most_rows=max((share.rows for share in run.workers), default=1),
        answers=[(each, _histogram(each)) for each in run.answers],
        settings=_settings(run.settings),
        share=format_share,
    )


def when(seconds: float) -> str:
    """A moment in this machine's time zone and, where that is another one, in UTC."""
    local, utc = datetime.fromtimestamp(seconds).astimezone(), datetime.fromtimestamp(seconds, UTC)
    text = f"{local:%Y-%m-%d %H:%M:%S %Z}"
    if not local.utcoffset():
        return text
    return f"{text} ({utc:%H:%M:%S} UTC)" if local.date() == utc.date() else f"{text} ({utc:%Y-%m-%d %H:%M:%S} UTC)"


def _links(run: Figures, place: str) -> dict[str, str]:
    """The run's files, and where they are as seen from the page; none where a browser could not open them."""
    if "://" in run.output or "://" in place:
        return {}
    names = ["parts/", *(["quarantine/"] if run.bad_rows else []), "manifest.json"]
    folder = quote(os.path.relpath(run.output, Path(place).parent))
    return {name: name if folder == "." else f"{folder}/{name}" for name in names}


_WORDS = {None: "not used", True: "yes", False: "no", "auto": "sized by measurement"}


def _settings(settings: dict[str, Any]) -> dict[str, str]:
    """What the plan says, for people."""

    def text(value: object) -> str:
        if isinstance(value, list | tuple):
            return ", ".join(map(str, value))
        return _WORDS.get(value, str(value)) if not isinstance(value, int) or isinstance(value, bool) else f"{value:,}"

    names = {"header": "header line in the output", "header row": "header line in the source"}
    return {names.get(name, name): text(value) for name, value in settings.items()}


def totals(run: Figures) -> dict[str, str]:
    """The run's figures in names and words."""
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
        words["machines"] = ended + (f", left: {', '.join(left)}" if left else "")
    return words


def _stages(run: Figures) -> list[dict[str, Any]]:
    """The bars of the timeline, as shares of the whole."""
    total = sum(stage.seconds for stage in run.stages) or 1
    return [
        {"name": stage.name, "seconds": format_seconds(stage.seconds), "share": stage.seconds / total}
        for stage in run.stages
    ]


def _dots(blocks: tuple[BlockSpeed, ...]) -> list[tuple[float, float, str, bool]]:
    """All that stand out, and of the others as many as a page can show."""
    odd = [block for block in blocks if block.odd][:_MOST_DOTS]
    plain = [block for block in blocks if not block.odd]
    shown = odd + plain[:: max(1, -(-len(plain) // _MOST_DOTS))]
    return [
        (
            block.index,
            block.ms_a_row,
            f"block {block.index}: {block.rows:,} rows, {block.ms_a_row:.3g} ms/row, {block.worker}",
            block.odd,
        )
        for block in shown
    ]


def _histogram(each: samples.Answers) -> str:
    if not each.edges:
        return ""
    return charts.histogram(each.edges, each.counts, x_label="value", description=f"Values of {each.column}")
