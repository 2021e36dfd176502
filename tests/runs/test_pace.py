"""When a run starts blocks: as long as there is time for one more, and a late run's cluster grows once."""

import time
from types import SimpleNamespace

import pytest

import dask_classifier as dc
from dask_classifier.pace import Pace
from dask_classifier.rows.blocks import Block, Span
from dask_classifier.runs.limits import Limits, Watch

BLOCKS = [Block(index, (Span(100, 100 * index),)) for index in range(10)]


class Noting(dc.Progress):
    def __init__(self):
        super().__init__()
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def pace(limits, *, processes=2, began=None, grow=lambda workers: (0, None), rows=1000):
    executor = SimpleNamespace(processes=processes, instances=SimpleNamespace(grow=grow))
    progress = Noting()
    progress.resize(rows, 10, False)
    progress.begin(rows, 10, ())
    return Pace(SimpleNamespace(seconds_a_row=0.1), executor, progress, Watch(limits, began or time.time()))


def receipt(index=0, rows=100, seconds=10.0, bad_rows=0):
    return SimpleNamespace(
        index=index, rows=rows, bad_rows=bad_rows, seconds=seconds, worker="w", host="h", pid=1, first_kind=None
    )


def test_without_a_limit_all_blocks_start():
    assert list(pace(Limits(finish_by=0)).in_time(BLOCKS)) == BLOCKS


def test_before_the_first_block_is_done_the_speed_is_no_reason_to_stop():
    """Ten blocks of ten seconds on two processes take 50 seconds, by the trial."""
    assert list(pace(Limits(max_time=30)).in_time(BLOCKS)) == BLOCKS


@pytest.mark.parametrize(("max_time", "more"), [(33, 6), (43, 8), (1000, 9)])
def test_a_block_starts_if_there_is_time_for_it_behind_those_in_flight(max_time, more):
    """The first one took ten seconds, so six more take 30 on two processes."""
    one = pace(Limits(max_time=max_time))
    blocks = one.in_time(BLOCKS)
    next(blocks)
    one.finished(receipt())
    assert one.rows_in_flight == 0 and len(list(blocks)) == more
    assert one.watch.stopped_by == ("" if more == 9 else "--max-time")


def test_bad_rows_are_done_too():
    one = pace(Limits(max_time=1000))
    next(one.in_time(BLOCKS))
    one.finished(receipt(rows=70, bad_rows=30))
    assert one.rows_in_flight == 0 and list(one.recent) == [(100, 10.0)]


def test_a_late_run_lets_its_cluster_grow_once_and_says_what_that_costs():
    """Late is what it is after two blocks of each process, and three looks."""
    asked = []

    def grow(workers):
        asked.append(workers)
        return 3, 0.5

    one = pace(Limits(finish_by=time.time() - 1, scale_up_to=4), grow=grow)
    one.progress.connected(None, 2)
    seen = []
    for index in range(8):
        next(one.in_time(BLOCKS[index:]))
        one.progress.finished(receipt(index))
        one.finished(receipt(index))
        seen.append(len(asked))
    assert asked == [4] and seen[3] == 0, seen
    assert one.progress.notes[-1] == "the cluster grows by 3 workers, for about $1.50 more per hour"
    assert sum("the run will finish about" in note for note in one.progress.notes) == 1
