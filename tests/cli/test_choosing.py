"""The choice of a cluster by time and budget, and the limits of a run: on numbers, without a cluster."""

import gzip
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

import dask_classifier as dc
from dask_classifier.cli import choosing
from dask_classifier.cli.choosing import Wishes
from dask_classifier.errors import UsageError
from dask_classifier.planner.estimate import EC2, LOCAL, Choice, Estimate, Range
from dask_classifier.planner.recommendation import recommend
from dask_classifier.planner.target import Target

NOW = 1_800_000_000.0


def choice(where, instances, minutes, dollars):
    seconds = Range(55 * minutes, 60 * minutes, 65 * minutes)
    ends_at = time.time() + 60 * minutes
    return Choice(where, instances, 2, seconds, dollars, ends_at, 0, 0, 100, 0, f"{instances} x 16")


def estimate(*choices, places=(LOCAL, EC2), **target):
    wanted = Target.of(**target)
    number, why = recommend(choices, wanted, places)
    return Estimate(1000, 1.0, 500, 50, (1.0, 1.0), choices, number, why, wanted, (), NOW)


HERE, SMALL, LARGE = choice(LOCAL, 0, 120, 0.0), choice(EC2, 1, 50, 0.66), choice(EC2, 8, 12, 1.02)


def test_the_recommended_choice_is_taken():
    assert choosing._best(estimate(HERE, SMALL, LARGE, finish_in="1h"), EC2, {EC2}, Wishes()) is SMALL


def test_for_a_partial_run_the_fastest_will_do():
    """Within the budget, if one is given; and never one that its deadline ends."""
    late = estimate(HERE, SMALL, LARGE, finish_in="5m")
    assert choosing._best(late, EC2, {EC2}, Wishes(partial=True)) is LARGE
    assert choosing._best(late, LOCAL, {LOCAL}, Wishes(partial=True)) is HERE
    poor = estimate(HERE, SMALL, LARGE, finish_in="5m", budget=1)
    assert choosing._best(poor, EC2, {EC2}, Wishes(partial=True, budget="1")) is SMALL
    short = estimate(HERE, SMALL, replace(LARGE, deadline=60.0), finish_in="5m")
    assert choosing._best(short, EC2, {EC2}, Wishes(partial=True)) is SMALL


def test_where_the_time_would_be_met():
    told = estimate(HERE, LARGE, places={LOCAL}, finish_in="30m")
    with pytest.raises(UsageError, match="cannot meet its time here; 8 x 16 on EC2 would"):
        choosing._best(told, LOCAL, {LOCAL}, Wishes())


def test_a_budget_needs_a_price():
    told = estimate(HERE, replace(SMALL, dollars=None), finish_in="1h", budget=1)
    with pytest.raises(UsageError, match="The price of the instances is unknown"):
        choosing._best(told, EC2, {EC2}, Wishes(budget="1"))


@pytest.mark.parametrize(("size", "refused"), [(20 * 2**30, False), (20 * 2**30 + 1, True)])
def test_an_estimate_does_not_download_a_large_input(size, refused):
    def plan(url):
        return SimpleNamespace(source=SimpleNamespace(files=[SimpleNamespace(size=size, url=url)]))

    choosing._refuse_much_to_read(plan("/data/in.csv"))
    if not refused:
        choosing._refuse_much_to_read(plan("s3://bucket/in.csv"))
        return
    with pytest.raises(UsageError, match=r"An estimate would read .* from elsewhere") as raised:
        choosing._refuse_much_to_read(plan("s3://bucket/in.csv"))
    assert "--sample 0" in raised.value.hint and "--workers" in raised.value.hint


@pytest.mark.parametrize(
    ("name", "content", "empty"),
    [
        ("in.csv", b"id,text\n", True),
        ("in.csv", b"", True),
        ("in.csv", b"id,text\n1,2\n", False),
        ("in.csv", b"id,text\n1," + b"x" * 2**21 + b"\n", False),  # more than what is looked at
        ("in.csv.gz", gzip.compress(b"id,text\n", mtime=0), False),  # which is not known before it is read
        ("in.jsonl", b"", True),
    ],
)
def test_a_source_is_only_empty_if_that_is_certain(tmp_path, name, content, empty):
    (tmp_path / name).write_bytes(content)
    plan = dc.plan(tmp_path / name, lambda chunk: chunk, tmp_path / "run")
    assert choosing.is_empty(plan) == empty


def test_only_instances_have_a_budget():
    wishes, target = Wishes(max_time="2h", scale_up_to=4, partial=True), Target(finish_by=NOW, budget=3.0)
    limits = choosing._limits(wishes, target, EC2)
    assert (limits.budget, limits.max_time, limits.finish_by, limits.scale_up_to, limits.partial) == (
        3.0, 7200.0, NOW, 4, True,
    )  # fmt: skip
    assert choosing._limits(wishes, target, LOCAL).budget is None


@pytest.mark.parametrize(
    ("output", "file", "options", "possible"),
    [
        ("s3://b/out", "s3://b/in.csv", {"image": "a/b:1"}, True),
        ("s3://b/out", "s3://b/in.csv", {}, False),
        ("/data/out", "s3://b/in.csv", {"image": "a/b:1"}, False),
        ("s3://b/out", "/data/in.csv", {"image": "a/b:1"}, False),
        ("s3://b/out", "file:///data/in.csv", {"image": "a/b:1"}, False),
    ],
)
def test_ec2_is_considered_if_instances_can_reach_everything(output, file, options, possible, monkeypatch):
    monkeypatch.setattr(choosing, "configured", dict)
    plan = SimpleNamespace(output=output, source=SimpleNamespace(files=[SimpleNamespace(url=file, is_stored=True)]))
    assert choosing._can_be_on_ec2(plan, options) == possible
