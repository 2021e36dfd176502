"""The display of a run on standard error: a live progress bar in a terminal, otherwise a line every few seconds."""

import os
import shlex
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..parts.receipts import Receipt
from ..parts.run_folder import REPORT
from ..runs.account import account_of
from ..runs.places import rows_by_worker
from ..runs.progress import Progress, Snapshot
from ..runs.result import Result
from ..runs.stages import classifying_speed
from ..units import count_of, format_seconds, roughly
from .figures import Figures, totals

PLAIN_SECONDS = 5.0  # between plain lines at first; later, a tenth of the time so far
_MAX_PLAIN_SECONDS = 60.0
_PLAIN_WIDTH = 70  # of a plain line, after the time of day
_FILE_WIDTH = 200  # of what is piped or written to a file, unless COLUMNS is set
_MAX_WIDTH = 80  # of the next steps with their explanations
_ENDING = 30  # characters shown of the end of a long line
_SEPARATOR = "  "  # between the items of a line
_MAX_WORKERS = 16  # in a table, which must fit a screen


def console_of(stream: TextIO, *, quiet: bool = False) -> Console:
    """Return a console that is as wide as its terminal; one that is no terminal breaks no line of a table."""
    console = Console(file=stream, quiet=quiet, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _FILE_WIDTH
    return console


class Display(Progress):
    """Show a run, or nothing if `quiet`."""

    def __init__(self, *, quiet: bool = False):
        super().__init__()
        self.console = console_of(sys.stderr, quiet=quiet)
        self._over = threading.Event()

    def say(self, text: str, style: str = "") -> None:
        """Print a message."""
        self.console.print(text, style=style, soft_wrap=True, markup=False)

    def lines(self, text: str) -> None:
        """Print lines of data. A terminal shows only the beginning and the end of a long line, where the answer is."""
        width = self.console.width if self.console.is_terminal else None
        for line in text.splitlines():
            short = line if not width or len(line) <= width else f"{line[: width - _ENDING - 1]}…{line[-_ENDING:]}"
            self.console.print(Text(short), no_wrap=True, crop=False, overflow="ignore")

    def warn(self, text: str) -> None:
        """Print a warning."""
        self.say(f"Warning: {text}", "yellow")

    def connected(self, dashboard: str | None, processes: int) -> None:
        """Print the number of classifier processes and the dashboard's address."""
        address = f"; dashboard: {dashboard}" if dashboard else ""
        self.say(f"{processes} classifier process{'' if processes == 1 else 'es'}{address}")

    def begin(self, rows: int, blocks: int, receipts: tuple[Receipt, ...]) -> None:
        """Print the numbers of rows and blocks, or of blocks left if the run is resumed."""
        super().begin(rows, blocks, receipts)
        is_estimate = self.snapshot().is_estimate
        if is_estimate and receipts:
            self.say(f"{count_of(len(receipts), 'block')} are already done; about {roughly(rows):,} rows in all")
        elif is_estimate:
            self.say(f"about {roughly(rows):,} rows; a compressed input is classified while it is read")
        elif receipts:
            self.say(f"{len(receipts):,} of {blocks:,} blocks are already done; {blocks - len(receipts):,} to go")
        else:
            self.say(f"{rows:,} rows in {blocks:,} block{'' if blocks == 1 else 's'}")

    def note(self, text: str) -> None:
        """Print a warning; the run continues."""
        self.warn(text)

    def died(self, index: int, manner: str, again: bool) -> None:
        """Print a warning about a process that died, with the block that it was working on."""
        block = "the block will be tried again" if again else "the block has failed"
        self.warn(f"a classifier process {manner} on block {index}; {block}")

    def printed(self, worker: str, lines: list[str]) -> None:
        """Print the output of classifiers above the progress bar."""
        for line in lines:
            self.say(f"{worker}: {line}", "dim")

    def leaving(self, worker: str, why: str) -> None:
        """Print a warning about a worker that leaves the cluster."""
        self.warn(f"{worker} is leaving the cluster: {why}; its blocks go to other workers")

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the run within a `with` block."""
        if self.console.quiet:
            yield
        elif self.console.is_terminal:
            with Live(get_renderable=self._live_view, console=self.console, refresh_per_second=4, transient=True):
                yield
        else:
            printer = threading.Thread(target=self._print_plain_lines, daemon=True)
            printer.start()
            try:
                yield
            finally:
                self._over.set()
                printer.join()

    def _print_plain_lines(self) -> None:
        began = time.monotonic()
        while not self._over.wait(min(max(PLAIN_SECONDS, (time.monotonic() - began) / 10), _MAX_PLAIN_SECONDS)):
            self.say(f"{time.strftime('%H:%M:%S')}  {describe(self.snapshot(), _PLAIN_WIDTH)}")

    def _live_view(self) -> RenderableType:
        now = self.snapshot()
        if not now.rows:
            return describe(now)
        grid = Table.grid()
        grid.add_row(ProgressBar(total=now.rows, completed=min(now.done, now.rows), width=self.console.width))
        grid.add_row(Text(describe(now, self.console.width), no_wrap=True))
        grid.add_row(_workers(now.by_worker))
        return grid


def describe(now: Snapshot, width: int | None = None) -> str:
    """Return the progress in one line, with as many items as fit, the most important first."""
    if not now.rows:
        return f"{now.stage} ... {now.counted}".rstrip()
    rows, blocks = (f"~{roughly(n):,}" if now.is_estimate else f"{n:,}" for n in (now.rows, now.blocks))
    items = [f"{100 * now.done // now.rows}%", f"{now.done:,}/{rows} rows"]
    if now.pace:
        items.append(now.pace)
    items.append(f"{now.rows_a_second:,.0f} rows/s")
    if now.seconds_left and now.done < now.rows:
        items.append(f"{format_seconds(now.seconds_left)} left")
    if now.bad_rows:
        items.append(f"{now.bad_rows:,} bad")
    items.append(f"{now.blocks_done:,}/{blocks} blocks")
    items.append(now.stage)
    while width and len(_SEPARATOR.join(items)) > width:
        items.pop()
    return _SEPARATOR.join(items)


def _workers(by_worker: dict[str, int]) -> RenderableType:
    """Return the rows per worker, the busiest first. Only finished blocks count, so the sum is below the total."""
    if not by_worker:
        return ""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, rows in sorted(by_worker.items(), key=lambda item: -item[1])[:_MAX_WORKERS]:
        table.add_row(name, f"{rows:,} rows")
    if len(by_worker) > _MAX_WORKERS:
        table.add_row(f"and {len(by_worker) - _MAX_WORKERS} more", "")
    return Group(Text("in finished blocks:", style="dim"), table)


def summary(result: Result, seconds: float | None) -> RenderableType:
    """Return a table of rows in, out and quarantined, time and speed, and the rows of each worker.

    Parameters
    ----------
    result : Result
        The complete run.
    seconds : float or None
        Duration of the whole command; None if the run was already complete, which leaves out time and speed.
    """
    lines = result.words
    speed = classifying_speed(result.manifest)
    if seconds and speed:
        lines |= {
            "time": f"{format_seconds(seconds)}, of which {format_seconds(speed[0])} classifying",
            "speed": f"{speed[1]:,.0f} rows/s while classifying",
        }
    if stages := result.manifest.get("stages"):
        lines["stages"] = ", ".join(f"{name} {format_seconds(seconds)}" for name, _, seconds in stages)
    lines |= account_of(result.manifest)
    workers = sorted(rows_by_worker(result.receipts).items(), key=lambda item: -item[1])
    lines |= {f"rows of {name}": f"{rows:,}" for name, rows in workers[:_MAX_WORKERS]}
    if len(workers) > _MAX_WORKERS:
        lines[f"and {len(workers) - _MAX_WORKERS} more"] = ""
    return _two_columns(lines)


def next_steps(output: str, *, partial: bool = False) -> str:
    """Return commands that may follow a run, with explanations if these fit."""
    run = shlex.quote(output)
    steps = {
        f"dask-classify report {run}": f"figures, as in {REPORT}",
        f"dask-classify fetch {run} all.csv": "the rows that are there" if partial else "all rows, with a header",
        f"dask-classify verify {run}": "check every part",
    }
    width = max(map(len, steps))
    lines = [f"  {command:<{width}}  {explanation}" for command, explanation in steps.items()]
    if max(map(len, lines)) > _MAX_WIDTH:
        lines = [f"  {command}" for command in steps]
    return "\n".join(["Next:", *lines])


def in_time(finish_by: float, ended: float) -> str:
    """Return whether a run has ended in time. Both are in seconds since 1970."""
    early, clock = finish_by - ended, time.strftime("%H:%M:%S", time.localtime(finish_by))
    return f"Finished {format_seconds(abs(early))} {'before' if early >= 0 else 'after'} {clock}."


def described(figures: Figures) -> RenderableType:
    """Return a run's figures as tables, for `dask-classify report`."""
    tables = [_two_columns(totals(figures))]
    stages = [(stage.name, format_seconds(stage.seconds)) for stage in figures.stages]
    tables.append(_columns(["stage", "time"], stages))
    workers = [
        (share.name, f"{share.rows:,}", f"{share.blocks:,}", f"{share.ms_a_row:.3g}")
        for share in figures.workers[:_MAX_WORKERS]
    ]
    tables.append(_columns(["worker", "rows", "blocks", "ms/row"], workers))
    slowest = [
        (str(block.index), f"{block.rows:,}", f"{block.ms_a_row:.3g}", block.worker) for block in figures.slowest
    ]
    tables.append(_columns(["slowest block", "rows", "ms/row", "where"], slowest))
    for answers in figures.answers:
        if answers.values:
            sample = f", in a sample of {answers.rows:,} rows" if answers.rows < figures.rows_out else ""
            values = [(value, f"{count:,}") for value, count in answers.values]
            tables.append(_columns([answers.column + sample, "rows"], values))
    reasons = [(reason, f"{count:,}") for reason, count in figures.quarantine.reasons]
    tables.append(_columns(["reason of bad rows", "rows"], reasons))
    return Group(*(Padding(table, (0, 0, 1, 0), expand=False) for table in tables if table.row_count))


def _two_columns(lines: dict[str, str]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)  # whatever is beside it: a label in two lines is hard to read
    table.add_column(overflow="fold")
    for name, value in lines.items():
        table.add_row(Text(name), Text(value))
    return table


def _columns(names: list[str], rows: Iterable[tuple[str, ...]]) -> Table:
    """Return a table with numbers aligned to the right."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(Text(name), justify="right" if name in {"rows", "blocks", "ms/row", "time"} else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    return table
