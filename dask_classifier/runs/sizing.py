"""The sizes of a plan's blocks, from the measurement of its trial, and the blocks of these sizes."""

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..classifier.job import Trial
from ..errors import UsageError
from ..rows.blocks import Block, Marks, cut
from ..rows.csv_files import MARK_SPACING
from ..rows.source import Source
from ..units import count_of

if TYPE_CHECKING:
    from .planning import Plan

BLOCK_SECONDS = 20.0  # work in a block; writing it to S3 takes a tenth of a second or two
LAST_BLOCK_SECONDS = 1.0  # work in the last blocks, so that no process waits long for another
BLOCKS_A_SECOND = 100  # at most, for all processes: a Dask scheduler manages some 300 tasks per second
BLOCKS_A_PROCESS = 8  # at least
BLOCK_BYTES = 16 * 2**20  # at most, of CSV text: a process has a block's text, frame and part in memory
LARGEST_BYTES = BLOCK_BYTES + 2 * MARK_SPACING  # of a block as it is read, where rows differ in length
MOST_BLOCKS = 100_000
UNMEASURED_SECONDS = 0.01  # a row, where the trial died


def too_many_blocks(plan: "Plan", rows: int) -> UsageError:
    """Return the error for more parts than five digits can number: their names would not sort in the order of rows."""
    return UsageError(
        f"{rows:,} rows in {count_of(len(plan.source.files), 'file')} make more than the {MOST_BLOCKS:,} parts "
        "that a run can have.",
        "Give a larger --block-rows, or leave it out. Or classify the files in several runs.",
    )


def rows_of_next(plan: "Plan", *, rows: int, row_bytes: float, processes: int, trial: Trial) -> Callable[[int], int]:
    """Return a function from the rows that are left to the rows of the next block, out of `rows` of `row_bytes` bytes.

    About BLOCK_SECONDS of work, but at least BLOCKS_A_PROCESS blocks for each process and no more than
    BLOCK_BYTES; toward the end half of each process's share of what is left, down to LAST_BLOCK_SECONDS, or to
    what the scheduler manages (guided self-scheduling: Polychronopoulos and Kuck, IEEE Transactions on Computers
    C-36, 1987). Always whole chunks, so that a chunk's rows do not depend on the blocks.
    """
    if plan.block_rows:
        return lambda left: plan.block_rows
    seconds_a_row = max(trial.seconds_a_row, 1e-9) if trial.rows else UNMEASURED_SECONDS
    largest = min(BLOCK_SECONDS / seconds_a_row, rows / (BLOCKS_A_PROCESS * processes), BLOCK_BYTES / max(row_bytes, 1))
    fewest = rows / MOST_BLOCKS * 2  # rows of a block: names of parts have five digits
    largest = max(largest, fewest)
    last_seconds = max(LAST_BLOCK_SECONDS, processes / BLOCKS_A_SECOND)
    smallest = max(min(last_seconds / seconds_a_row, largest), fewest)

    def next_rows(left: int) -> int:
        wanted = min(largest, max(smallest, left / (2 * processes)))
        return max(1, int(wanted) // plan.chunk_rows) * plan.chunk_rows

    return next_rows


def shrink(plan: "Plan") -> Callable[[int, int], int]:
    """Return a function that halves a block, in whole chunks, if its text is too large: rows differ in length."""

    def fewer(rows: int, size: int) -> int:
        too_large = not plan.block_rows and size > LARGEST_BYTES and rows > plan.chunk_rows
        return max(1, rows // 2 // plan.chunk_rows) * plan.chunk_rows if too_large else rows

    return fewer


def all_blocks(
    plan: "Plan", source: Source, surveyed: Sequence[Marks], trial: Trial, row_bytes: float, processes: int
) -> tuple[Block, ...]:
    """Return all blocks of a source that was surveyed. Raise UsageError where they are more than a run can have."""
    rows = sum(marks.rows[-1] for marks in surveyed)
    sizes = rows_of_next(plan, rows=rows, row_bytes=row_bytes, processes=processes, trial=trial)
    cutting = cut(surveyed, sizes, shrink(plan), source.joinable, plan.chunk_rows)
    blocks = tuple(itertools.islice(cutting, MOST_BLOCKS + 1))
    if len(blocks) > MOST_BLOCKS:
        raise too_many_blocks(plan, rows)
    return blocks
