"""Simulate a run: its very blocks on some number of processes, each process taking the next block when it is free.

That is the order of the run: the client submits blocks in order, and Dask starts them in order.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..rows.blocks import Block
from ..runs.planning import Plan
from ..runs.sizing import all_blocks
from .sample import Sample

LOCAL_BLOCK_SECONDS = 0.01  # of a process from one block to the next on this computer, including its files
S3_BLOCK_SECONDS = 0.2  # the same with part and receipt in S3: two requests
_TASKS_A_SECOND = 300  # of a Dask scheduler


@dataclass(frozen=True)
class Schedule:
    """What a simulation has shown: seconds until the last block is done, and how the processes spent them."""

    seconds: float
    blocks: int
    busy: float  # share of the processes' time spent on blocks
    tail: float  # seconds from when the first process has nothing to do any more until the end


def blocks_of(plan: Plan, sample: Sample, processes: int) -> list[Block]:
    """Return the blocks into which a run on this number of processes would cut the source.

    Raises UsageError where they are more than a run can have.
    """
    return list(all_blocks(plan, plan.source, sample.marks, sample.trial, sample.row_bytes, processes))


def work_of(blocks: Sequence[Block], profile: Sequence[float]) -> np.ndarray:
    """Return the seconds of work in each block, from the time per row along the source.

    Parameters
    ----------
    blocks : sequence of Block
        In the order of the source.
    profile : sequence of float
        Mean seconds per row in equal pieces of the source. Between their middles, it is interpolated, and scaled so
        that the mean stays what it is.
    """
    rows = np.array([block.rows for block in blocks], float)
    ends = np.cumsum(rows)
    middles = (ends - rows / 2) / ends[-1]
    pieces = (np.arange(len(profile)) + 0.5) / len(profile)
    work = rows * np.interp(middles, pieces, profile)
    return work * (np.mean(profile) * ends[-1] / work.sum())


def simulate(work: np.ndarray, processes: int, *, first_seconds: float = 0.0, block_seconds: float = 0.0) -> Schedule:
    """Return how long blocks take on equal processes.

    Parameters
    ----------
    work : numpy.ndarray
        Seconds of each block, in order.
    processes : int
        Classifier processes.
    first_seconds : float
        What each process but one needs before its first block: the trial has prepared that one.
    block_seconds : float
        What a process needs for each block on top of its work.
    """
    if not len(work):
        return Schedule(0.0, 0, 0.0, 0.0)
    free = [0.0] + [first_seconds] * (processes - 1)  # when each process is free; sorted, and so a heap
    started = end = 0.0  # when the scheduler has started the last task, and when the last one ends
    for seconds in work + block_seconds:
        started += 1 / _TASKS_A_SECOND
        done = max(free[0], started) + seconds
        heapq.heapreplace(free, done)
        end = max(end, done)
    return Schedule(end, len(work), float(work.sum() / (end * processes)), max(0.0, end - free[0]))
