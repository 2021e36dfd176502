"""The simulation of a run, and what is recommended: on numbers, without a cluster."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest

from dask_classifier.classifier.job import Measured
from dask_classifier.cli.choosing import _cost_of
from dask_classifier.ec2.prices import Hourly
from dask_classifier.errors import UsageError
from dask_classifier.planner.estimate import EC2, LOCAL, Choice, Range, clock, tomorrows_note
from dask_classifier.planner.recommendation import recommend
from dask_classifier.planner.sample import Measurements
from dask_classifier.planner.simulation import simulate, work_of
from dask_classifier.planner.target import Target
from dask_classifier.rows.blocks import Block, Span


def test_blocks_go_to_the_first_free_process():
    """Durations 3, 1, 1, 1, 2 on two processes: the second one does 1, 1, 1; the last starts at 3."""
    schedule = simulate(np.array([3.0, 1, 1, 1, 2]), 2)
    assert schedule.seconds == pytest.approx(5, abs=0.05) and schedule.tail == pytest.approx(2, abs=0.05)
    assert schedule.busy == pytest.approx(0.8, abs=0.01)


def test_each_process_but_one_loads_the_classifier_first():
    assert simulate(np.ones(4), 4, first_seconds=10).seconds == pytest.approx(4, abs=0.05), "one process does them all"
    assert simulate(np.ones(4), 4, block_seconds=0.5).seconds == pytest.approx(1.5, abs=0.05)


def test_processes_that_load_take_fewer_blocks():
    """A second of loading, and eight blocks of a second on two processes: one does five of them, the other three."""
    schedule = simulate(np.ones(8), 2, first_seconds=1)
    assert schedule.seconds == pytest.approx(5, abs=0.05) and schedule.busy == pytest.approx(0.8, abs=0.01)


def test_the_time_per_row_along_a_sorted_source():
    """Rows become slower toward the end: later blocks of the same size take longer, and the mean stays."""
    blocks = [Block(index, (Span(100, 100 * index),)) for index in range(50)]
    work = work_of(blocks, [0.001, 0.002, 0.003, 0.004, 0.005])
    assert work.sum() == pytest.approx(5000 * 0.003) and work[-1] > 4 * work[0]
    assert list(work) == sorted(work)


def measured(*seconds_a_row):
    """Calls of 100 rows, from one fifth after the other."""
    calls = [(number % 5, Measured(100, 100 * each, 100 * each, None)) for number, each in enumerate(seconds_a_row)]
    return Measurements(tuple(calls))


def test_a_source_that_is_sorted_is_no_scatter():
    """A straight line through the fifths of one round, and the differences between fifths of several."""
    assert measured(1, 2, 3, 4, 5).relative_error == pytest.approx(0)
    assert measured(*2 * [1, 2, 3, 4, 5]).relative_error == pytest.approx(0)
    assert measured(*2 * [1, 2, 3, 4, 5]).seconds_a_row == 3


def test_the_error_of_the_mean_is_that_of_statistics():
    """Seconds that scatter by a tenth, in four rounds: a tenth over the root of 20 calls."""
    drawn = np.random.default_rng(0).normal(1, 0.1, (400, 20))
    errors = [measured(*calls).relative_error for calls in drawn]
    assert np.mean(errors) == pytest.approx(0.1 / np.sqrt(20), rel=0.05)


def choice(where, instances, minutes, dollars):
    seconds = Range(55 * minutes, 60 * minutes, 65 * minutes)
    now = time.time()
    return Choice(where, instances, 2, seconds, dollars, now + 60 * minutes, 0, 0, 100, 0, f"{instances} x 16")


def choices():
    return [choice(LOCAL, 0, 120, 0.0), choice(EC2, 1, 50, 0.66), choice(EC2, 2, 30, 0.71), choice(EC2, 8, 12, 1.02)]


@pytest.mark.parametrize(
    ("target", "number"),
    [
        ({}, 1),  # within an hour
        ({"finish_in": "3h"}, 0),
        ({"finish_in": "52m"}, 2),  # the first may end after 54 minutes
        ({"finish_in": "20m"}, 3),
        ({"finish_in": "5m"}, None),
        ({"finish_in": "20m", "budget": "1"}, None),
        ({"finish_in": "20m", "budget": "$1.2"}, 3),
        ({"budget": "0.5"}, 0),
    ],
)
def test_the_cheapest_that_surely_meets_the_target(target, number):
    assert recommend(choices(), Target.of(**target))[0] == number


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"finish_in": "5m"}, ["no choice is certain to finish by", "the fastest, 8 x 16, finishes by"]),
        ({"finish_in": "5m", "budget": 0.3}, ["no choice is certain to finish by"]),
        ({"finish_in": "20m", "budget": 1}, ["costs at least $1.1", "within $1.00, it finishes by"]),
    ],
)
def test_what_cannot_be_met_says_what_it_takes(target, words):
    number, why = recommend(choices(), Target.of(**target))
    assert number is None and all(text in why for text in words), why
    number, why = recommend(choices(), Target.of(budget=0.3), places={EC2})
    assert number is None and why == "no cluster on EC2 is certain to cost $0.30 or less; the cheapest may cost $0.72"
    assert recommend(choices(), Target.of(budget=0.72), places={EC2})[0] is not None
    assert recommend(choices(), Target.of(budget=0.71), places={EC2})[0] is None


def test_the_time_that_is_named_is_late_enough():
    """Not the minute within which the fastest ends: that one was refused."""
    fastest = choices()[-1]
    fastest = replace(fastest, ends_at=fastest.ends_at - fastest.late % 60 + 30)
    number, why = recommend([fastest], Target(finish_by=fastest.late - 30))
    named = why.partition("finishes by ")[2]  # with the date in front, shortly before midnight
    assert number is None and named.endswith(time.strftime("%H:%M", time.localtime(fastest.late + 30)))


def test_a_choice_without_a_price_is_never_the_cheapest():
    unpriced = choice(EC2, 1, 20, None)
    assert recommend([unpriced, choices()[2]], Target.of(finish_in="45m"))[0] == 1
    assert recommend([unpriced], Target.of(finish_in="45m", budget=3))[0] is None


def test_instances_that_would_shut_themselves_down_before_the_end_are_not_recommended():
    """The cheapest cluster takes 50 minutes, and up to 54, which is past a deadline of 52."""
    first, second = (replace(one, deadline=52 * 60) for one in choices()[1:3])
    target = Target.of(finish_in="3h")
    assert recommend([first, second], target)[0] == 1 and target.verdict(first) == "past --deadline"
    assert recommend([first], target) == (None, "no choice is certain to finish before the --deadline of its instances")


def test_without_a_target_the_fastest_that_lasts():
    """Hours here; a cluster of which the deadline comes first is faster, and is not recommended."""
    here, cluster = choice(LOCAL, 0, 600, 0.0), replace(choice(EC2, 8, 200, 9.0), deadline=2 * 3600)
    number, why = recommend([here, cluster], Target())
    assert number == 0 and why.startswith("no choice is certain to finish within an hour; the fastest is here")
    assert recommend([here, cluster], Target(), places={EC2})[0] is None


def test_without_a_target_an_hour_is_one():
    """Not the free choice that takes longer; and of those that all take longer, the fastest."""
    assert recommend([choice(LOCAL, 0, 70, 0.0), choice(EC2, 1, 50, 0.66)], Target())[0] == 1
    assert recommend([choice(LOCAL, 0, 200, 0.0), choice(EC2, 1, 150, 3.0), choice(EC2, 2, 90, 3.0)], Target())[0] == 2


def test_what_misses_the_time_says_how_surely():
    target = Target(finish_by=time.time() + 52 * 60)
    said = [target.verdict(choice(EC2, 1, minutes, 1.0)) for minutes in (40, 50, 60)]
    assert said == ["", "may be too late", "too late"]


def test_the_earliest_end_within_the_budget_is_named():
    some = choices()
    number, why = recommend(some, Target.of(finish_in="20m", budget=0.8))
    assert number is None and why.endswith(f"it finishes by {clock(math.ceil(some[2].late / 60) * 60)}"), why


def test_a_scheduler_starts_so_many_tasks_a_second():
    assert simulate(np.zeros(3000), 256).seconds == pytest.approx(10, abs=0.1)


def test_an_unknown_price_is_no_zero():
    number, why = recommend([choices()[0], choice(EC2, 8, 12, None)], Target.of(finish_in="20m", budget=3))
    assert number is None and "needs instances whose price is unknown; within $3.00, it finishes by" in why
    assert "$0.00" not in why


def test_it_says_to_run_it_here():
    assert recommend(choices(), Target.of(finish_in="3h"))[1] == "run it here: it finishes in time, at no cost"
    assert recommend(choices(), Target.of(budget=1))[1] == "run it here, which costs nothing"


def test_a_clock_time_that_has_passed_is_tomorrows():
    while (now := time.localtime()).tm_sec > 50:  # so that it is not another minute, or another day, soon
        time.sleep(1)
    passed = Target.of(finish_by=f"{now.tm_hour:02d}:{now.tm_min:02d}")
    assert passed.tomorrow and 82_000 < passed.finish_by - time.time() <= 90_000  # a day, with an hour more or less
    assert tomorrows_note(passed).endswith(" is tomorrow: that time has passed today")
    assert tomorrows_note(Target.of(finish_in="5m")) == tomorrows_note(Target()) == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"finish_by": "25:00"}, "is not a time of day"),
        ({"finish_by": "noon"}, "is not a time of day"),
        ({"finish_by": "15:50", "finish_in": "5m"}, "Two times are given"),
        ({"budget": "free"}, "is not a budget"),
        ({"budget": 0}, "is not a budget"),
        ({"finish_by": ""}, "is not a time of day"),
        ({"finish_in": ""}, "is not a time"),
        ({"finish_in": 0}, "is not a time"),
    ],
)
def test_bad_targets(options, message):
    with pytest.raises(UsageError, match=message):
        Target.of(**options)


def test_a_minute_is_paid_at_least():
    assert Hourly(60.0, "a test").cost(1) == 1.0


@pytest.mark.parametrize(
    ("dollars", "words"),
    [(0.0, "at no cost"), (None, "at an unknown price"), (0.5, "about $0.50"), (0.004, "about $0.004")],
)
def test_the_question_before_a_run_says_what_it_costs(dollars, words):
    assert words in _cost_of(choice(EC2, 1, 20, dollars))
