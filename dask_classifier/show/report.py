"""report.html, the page about a complete run."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .. import storage, templating
from ..parts.run_folder import REPORT
from ..runs.result import Result, open_run
from ..units import format_seconds, format_share
from . import charts, samples
from .figures import BlockSpeed, Figures, figures, totals

_MAX_DOTS = 1500
_MAX_WORKERS = 64  # listed on the page


def report(run: Result | str | Path) -> Figures:
    """Return the figures of a finished run, as report.html shows them.

    Parameters
    ----------
    run : Result, str or Path
        A result, or the folder or s3:// URL of a run.

    Returns
    -------
    Figures
        The figures, which a notebook displays as a table.

    Raises
    ------
    DamagedRun
        There is no complete run, or a part of it cannot be read.

    Examples
    --------
    >>> dc.report("runs/today").rows_out  # doctest: +SKIP
    """
    return figures(run if isinstance(run, Result) else open_run(run))


def save(result: Result) -> str:
    """Write report.html into the run's folder and return its path or URL. Raise StorageError if that fails."""
    result.folder.write(REPORT, encoded(html(figures(result))))
    return result.report


def html(run: Figures, place: str | None = None) -> str:
    """Return the report as one self-contained page, without scripts and external files.

    Parameters
    ----------
    run : Figures
        The figures to show.
    place : str, optional
        The page's own path, for its links to the run's files. [default: in the run's folder]

    Returns
    -------
    str
        HTML.
    """
    return templating.render(
        "report.html",
        run=run,
        name=run.output.rstrip("/").rpartition("/")[2],
        when=when(run.started),
        totals=totals(run),
        links=_links(run, place or storage.join(run.output, REPORT)),
        stages=_stages(run),
        speed=charts.area(run.speed, x_label="seconds since the run started", description="Rows per second over time"),
        dots=charts.dots(_dots(run.blocks), x_label="block", description="Milliseconds per row of each block"),
        slowest=run.slowest,
        workers=run.workers[:_MAX_WORKERS],
        more_workers=run.workers[_MAX_WORKERS:],
        all_rows=sum(share.rows for share in run.workers) or 1,
        most_rows=max((share.rows for share in run.workers), default=1),
        answers=[(column, _histogram(column)) for column in run.answers],
        settings=_settings(run.settings),
        share=format_share,
    )


def encoded(page: str) -> bytes:
    """Return a page as UTF-8; names of files may have bytes that are none."""
    return page.encode("utf-8", "backslashreplace")


def when(seconds: float) -> str:
    """Format a time in the local time zone, and in UTC if that differs."""
    local, utc = datetime.fromtimestamp(seconds).astimezone(), datetime.fromtimestamp(seconds, UTC)
    text = f"{local:%Y-%m-%d %H:%M:%S %Z}"
    if not local.utcoffset():
        return text
    return f"{text} ({utc:%H:%M:%S} UTC)" if local.date() == utc.date() else f"{text} ({utc:%Y-%m-%d %H:%M:%S} UTC)"


def _links(run: Figures, place: str) -> dict[str, str]:
    """Return the run's files with their addresses relative to the page; none if a browser could not open them."""
    if "://" in run.output or "://" in place:
        return {}
    names = ["parts/", *(["quarantine/"] if run.bad_rows else []), "manifest.json"]
    folder = quote(os.path.relpath(run.output, Path(place).parent))
    return {name: name if folder == "." else f"{folder}/{name}" for name in names}


_WORDS = {None: "not used", True: "yes", False: "no", "auto": "sized by measurement"}


def _settings(settings: dict[str, Any]) -> dict[str, str]:
    """Return the settings of the plan as text."""

    def text(value: object) -> str:
        if isinstance(value, list | tuple):
            return ", ".join(map(str, value))
        return _WORDS.get(value, str(value)) if not isinstance(value, int) or isinstance(value, bool) else f"{value:,}"

    names = {"header": "header line in the output", "header row": "header line in the source"}
    return {names.get(name, name): text(value) for name, value in settings.items()}


def _stages(run: Figures) -> list[dict[str, Any]]:
    """Return the bars of the timeline, with their shares of the total time."""
    total = sum(stage.seconds for stage in run.stages) or 1
    return [
        {"name": stage.name, "seconds": format_seconds(stage.seconds), "share": stage.seconds / total}
        for stage in run.stages
    ]


def _dots(blocks: tuple[BlockSpeed, ...]) -> list[tuple[float, float, str, bool]]:
    """Return a dot for each highlighted block, and for as many of the others as the page can show."""
    odd = [block for block in blocks if block.odd][:_MAX_DOTS]
    plain = [block for block in blocks if not block.odd]
    shown = odd + plain[:: max(1, -(-len(plain) // _MAX_DOTS))]
    return [
        (
            block.index,
            block.ms_a_row,
            f"block {block.index}: {block.rows:,} rows, {block.ms_a_row:.3g} ms/row, {block.worker}",
            block.odd,
        )
        for block in shown
    ]


def _histogram(column: samples.Answers) -> str:
    if not column.edges:
        return ""
    return charts.histogram(column.edges, column.counts, x_label="value", description=f"Values of {column.column}")
