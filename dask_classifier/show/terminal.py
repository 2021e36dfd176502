"""What a person sees of a run, on standard error: a live bar in a terminal, else a plain line every few
seconds.
"""

import shlex
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..parts.receipts import Receipt
from ..parts.run_folder import REPORT
from ..runs.progress import Progress, Snapshot, classifying_speed, rows_by_worker
from ..runs.result import Result
from ..units import format_seconds
from .report import Figures, totals

PLAIN_SECONDS = 5.0  # between plain lines, at first; a tenth of the time so far later
_MOST_PLAIN_SECONDS = 60.0
_PLAIN_WIDTH = 70  # of a plain line, behind the time
_MOST_OF_A_LINE = 80
_ENDING = 30  # characters of a long line that are shown of its end
_BETWEEN = "  "  # words of a line
_MOST_WORKERS = 16  # in a table that must fit a screen


class Display(Progress):
    """Shows a run. With `quiet`, shows nothing."""

    def __init__(self, *, quiet: bool = False):
        super().__init__()
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self._over = threading.Event()

    def say(self, text: str, style: str = "") -> None:
        """One line of talk."""
        self.console.print(text, style=style, soft_wrap=True, markup=False)

    def lines(self, text: str) -> None:
        """Lines of data: in a terminal, what is too long for one loses its middle, since the answer is at its end."""
        width = self.console.width if self.console.is_terminal else None
        for line in text.splitlines():
            short = line if not width or len(line) <= width else f"{line[: width - _ENDING - 1]}…{line[-_ENDING:]}"
            self.console.print(Text(short), no_wrap=True, crop=False, overflow="ignore")

    def warn(self, text: str) -> None:
        """One line of talk that a person should not miss."""
        self.say(f"Warning: {text}", "yellow")

    def connected(self, dashboard: str | None, processes: int) -> None:
        """Say what will work, and where it can be watched."""
        watch = f"; dashboard: {dashboard}" if dashboard else ""
        self.say(f"{processes} classifier process{'' if processes == 1 else 'es'}{watch}")

    def begin(self, rows: int, blocks: int, receipts: tuple[Receipt, ...]) -> None:
        """Say how much there is to do."""
        super().begin(rows, blocks, receipts)
        if receipts:
            self.say(f"{len(receipts):,} of {blocks:,} blocks are done already; {blocks - len(receipts):,} to go")
        else:
            self.say(f"{rows:,} rows in {blocks:,} block{'' if blocks == 1 else 's'}")

    def note(self, text: str) -> None:
        """Say it."""
        self.warn(text)

    def died(self, index: int, manner: str, again: bool) -> None:
        """Say what happened to a process, and to its block."""
        self.warn(
            f"a classifier process {manner} on block {index}; {'it is tried again' if again else 'it is given up'}"
        )

    def printed(self, worker: str, lines: list[str]) -> None:
        """Print above the bar what classifiers print."""
        for line in lines:
            self.say(f"{worker}: {line}", "dim")

    def leaving(self, worker: str, why: str) -> None:
        """Say that a worker leaves."""
        self.warn(f"{worker} leaves: {why}; its blocks go to others")

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the run for as long as the block lasts."""
        if self.console.quiet:
            yield
        elif self.console.is_terminal:
            with Live(get_renderable=self._picture, console=self.console, refresh_per_second=4, transient=True):
                yield
        else:
            talker = threading.Thread(target=self._talk, daemon=True)
            talker.start()
            try:
                yield
            finally:
                self._over.set()
                talker.join()

    def _talk(self) -> None:
        began = time.monotonic()
        while not self._over.wait(min(max(PLAIN_SECONDS, (time.monotonic() - began) / 10), _MOST_PLAIN_SECONDS)):
            self.say(f"{time.strftime('%H:%M:%S')}  {describe(self.snapshot(), _PLAIN_WIDTH)}")

    def _picture(self) -> RenderableType:
        now = self.snapshot()
        if not now.rows:
            return f"{now.stage} ..."
        grid = Table.grid()
        grid.add_row(ProgressBar(total=now.rows, completed=min(now.done, now.rows), width=self.console.width))
        grid.add_row(Text(describe(now, self.console.width), no_wrap=True))
        grid.add_row(_workers(now.by_worker))
        return grid


def describe(now: Snapshot, width: int | None = None) -> str:
    """How far the run is, in one line: of the most important things as many as fit."""
    if not now.rows:
        return f"{now.stage} ..."
    words = [f"{100 * now.done // now.rows}%", f"{now.done:,}/{now.rows:,} rows", f"{now.rows_a_second:,.0f} rows/s"]
    if now.seconds_left and now.done < now.rows:
        words.append(f"{format_seconds(now.seconds_left)} left")
    if now.bad_rows:
        words.append(f"{now.bad_rows:,} bad")
    words.append(f"{now.blocks_done:,}/{now.blocks:,} blocks")
    words.append(now.stage)
    while width and len(_BETWEEN.join(words)) > width:
        words.pop()
    return _BETWEEN.join(words)


def _workers(by_worker: dict[str, int]) -> RenderableType:
    """Rows per worker, the busiest first: of finished blocks, and so fewer than the line above says."""
    if not by_worker:
        return ""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, rows in sorted(by_worker.items(), key=lambda item: -item[1])[:_MOST_WORKERS]:
        table.add_row(name, f"{rows:,} rows")
    if len(by_worker) > _MOST_WORKERS:
        table.add_row(f"and {len(by_worker) - _MOST_WORKERS} more", "")
    return Group(Text("in finished blocks:", style="dim"), table)


def summary(result: Result, seconds: float | None) -> RenderableType:
    """Rows in, out and quarantined; the time of the whole command, where it has worked, and the speed of the run; rows
    of each worker.
    """
    lines = result.words
    speed = classifying_speed(result.manifest)
    if seconds and speed:
        lines |= {
            "time": f"{format_seconds(seconds)}, of which {format_seconds(speed[0])} classifying",
            "speed": f"{speed[1]:,.0f} rows/s while classifying",
        }
    workers = sorted(rows_by_worker(result.receipts).items(), key=lambda item: -item[1])
    lines |= {f"rows of {name}": f"{rows:,}" for name, rows in workers[:_MOST_WORKERS]}
    if len(workers) > _MOST_WORKERS:
        lines[f"and {len(workers) - _MOST_WORKERS} more"] = ""
    return _names_and_words(lines)


def next_steps(output: str) -> str:
    """What to type after a run."""
    run = shlex.quote(output)
    steps = {
        f"dask-classify report {run}": f"figures; {REPORT} is in the run",
        f"dask-classify fetch {run} all.csv": "all rows, with a header",
        f"dask-classify verify {run}": "check every part",
    }
    width = max(map(len, steps))
    lines = [f"  {call:<{width}}  {what}" for call, what in steps.items()]
    if max(map(len, lines)) > _MOST_OF_A_LINE:
        lines = [f"  {call}" for call in steps]
    return "\n".join(["Next:", *lines])


def described(figures: Figures) -> RenderableType:
    """A run's figures, for `dask-classify report`."""
    tables = [_names_and_words(totals(figures))]
    tables.append(_columns(["stage", "time"], [(each.name, format_seconds(each.seconds)) for each in figures.stages]))
    workers = [(each.name, f"{each.rows:,}", f"{each.blocks:,}", f"{each.ms_a_row:.3g}") for each in figures.workers]
    tables.append(_columns(["worker", "rows", "blocks", "ms a row"], workers[:_MOST_WORKERS]))
    slow = [(str(each.index), f"{each.rows:,}", f"{each.ms_a_row:.3g}", each.worker) for each in figures.slowest]
    tables.append(_columns(["slowest block", "rows", "ms a row", "where"], slow))
    for each in figures.answers:
        if each.values:
            sample = f", in a sample of {each.rows:,} rows" if each.rows < figures.rows_out else ""
            values = [(value, f"{count:,}") for value, count in each.values]
            tables.append(_columns([each.column + sample, "rows"], values))
    reasons = [(reason, f"{count:,}") for reason, count in figures.quarantine.reasons]
    tables.append(_columns(["bad rows", "rows"], reasons))
    return Group(*(Padding(each, (0, 0, 1, 0), expand=False) for each in tables if each.row_count))


def _names_and_words(lines: dict[str, str]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in lines.items():
        table.add_row(Text(name), Text(value))
    return table


def _columns(names: list[str], rows: Iterable[tuple[str, ...]]) -> Table:
    """The first column to the left, numbers to the right."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(Text(name), justify="right" if name in {"rows", "blocks", "ms a row", "time"} else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    return table
