"""What a command prints when its run is over."""

import os

from ..parts.run_folder import MISSING
from ..runs.result import Result
from ..show.terminal import Display, in_time, next_steps, summary
from ..units import count_of

_FIRST_ROWS = 3


def conclude(
    result: Result, display: Display, began: float, ended: float | None = None, finish_by: float | None = None
) -> None:
    """Print the summary of a run, its first rows, what is missing, and what to do next.

    Parameters
    ----------
    result : Result
        The run.
    display : Display
        Where to print.
    began, ended : float
        Its time in seconds since 1970; `ended` is None if it was complete already.
    finish_by : float, optional
        When it should have ended.
    """
    display.console.print(summary(result, ended and ended - began))
    display.say(f"Results are in {short(result.output)}. First rows:" if result.rows else "The results have no rows.")
    if result.rows:
        display.lines(result.first_lines(_FIRST_ROWS))
    if result.bad_rows:
        display.warn(f"{count_of(result.bad_rows, 'bad row')} in {short(result.output)}/quarantine, with reasons.")
    if finish_by and ended and not result.partial:
        display.say(in_time(finish_by, ended))
    display.say(next_steps(short(result.output), partial=result.partial))
    if result.partial:
        missing = count_of(result.manifest["rows_missing"], "row")
        display.warn(f"{missing} of {short(result.output)} were not classified in time: {MISSING} lists them.")
        display.say(f"Classify them with the same command, --output {short(result.output)} --resume.")


def short(output: str) -> str:
    """Return a local path relative to the current folder, if that is shorter."""
    if "://" in output:
        return output
    relative = os.path.relpath(output)
    return relative if len(relative) < len(output) else output
