"""The progress of a run as HTML: a bar and a table, for the dashboard's page and for notebooks."""

from collections.abc import Mapping

from .. import templating
from ..runs.progress import Snapshot
from ..units import format_share, roughly


def progress_bar(
    now: Snapshot, title: str, times: Mapping[str, str], *, link: bool = False, notes: Mapping[str, str] | None = None
) -> str:
    """Return a progress bar and a table of numbers.

    Parameters
    ----------
    now : Snapshot
        The progress to show.
    title : str
        The name of the run, or the address of its page.
    times : Mapping of str to str
        More rows of the table.
    link : bool, optional
        Whether the title is an address, to be shown as a link. [default: False]
    notes : Mapping of str to str, optional
        Lines below the table.

    Returns
    -------
    str
        HTML.
    """
    left, blocks = max(0, now.rows - now.done), now.blocks
    cells = {
        "rows done": f"{now.done:,}",
        "rows left": f"about {roughly(left):,}" if now.is_estimate else f"{left:,}",
        "rows/s while classifying": f"{now.rows_a_second:,.0f}",
        "bad rows": f"{now.bad_rows:,}",
        "blocks done": f"{now.blocks_done:,} of {f'about {roughly(blocks):,}' if now.is_estimate else f'{blocks:,}'}",
        "blocks in flight": f"{now.blocks_in_flight:,}",
    }
    return templating.render(
        "progress.html",
        stage=", ".join(filter(None, (now.stage, now.counted))),
        title=title,
        link=link,
        share=now.share,
        percentage=format_share(int(1000 * now.share) / 1000) if now.blocks else "",
        cells=(cells if now.blocks else {}) | dict(times),  # nothing is counted before the blocks are known
        notes=notes or {},
    )
