"""Estimates of real sources with real classifier processes."""

import json
from dataclasses import replace

import pandas as pd
import pytest

import dask_classifier as dc
from dask_classifier.ec2.spec import ClusterSpec
from dask_classifier.errors import BlocksFailed, TooManyBadRows, UsageError, WrongAnswer
from dask_classifier.planner.places import unasked
from dask_classifier.planner.planner import Planner, sample_of

SLEEPY = """
import time

def classify(chunk):
    time.sleep(chunk["ms"].astype(float).sum() / 1000)
    return chunk["ms"]
"""


@pytest.fixture
def sleepy(tmp_path):
    (tmp_path / "sleepy.py").write_text(SLEEPY)
    return f"{tmp_path}/sleepy.py:classify"


@pytest.fixture(scope="module")
def cluster():
    with dc.LocalCluster(2, dashboard_address="127.0.0.1:0") as cluster:
        yield cluster


def test_a_sorted_file_does_not_mislead(sleepy, tmp_path, cluster):
    """The first rows take 0.1 ms and the last ones 2 ms: it is the mean that counts, and the trial does not see it."""
    rows = 4000
    frame = pd.DataFrame({"ms": [0.1 + 1.9 * row / rows for row in range(rows)]})
    frame.to_csv(tmp_path / "in.csv", index_label="id")
    estimate = dc.estimate(dc.plan(tmp_path / "in.csv", sleepy, tmp_path / "run"), cluster, history=str(tmp_path))
    assert estimate.rows == rows and estimate.places >= 50
    assert 1.05 <= estimate.ms_per_row < 2, "of a mean of 1.05, plus what a call costs"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["in.csv.gz", "in.csv"])
def test_compressed_files_and_frames_are_sampled_too(name, sleepy, tmp_path, cluster):
    frame = pd.DataFrame({"ms": [0.5] * 1000})
    frame.to_csv(tmp_path / name, index_label="id")
    for source in (tmp_path / name, frame):
        estimate = dc.estimate(dc.plan(source, sleepy, tmp_path / "run"), cluster, history=str(tmp_path))
        assert estimate.rows == 1000 and 0.5 <= estimate.ms_per_row < 1.5


def test_the_choices(cluster, tmp_path):
    """Here and on EC2, with dollars and without a request; more instances are not slower, and none is free.

    One instance meets the time on any computer: the smallest number that does is a choice, too.
    """
    plan = dc.plan(rows="1M", output=tmp_path / "run")
    estimate = dc.estimate(plan, cluster, sample=100, finish_in="800h", budget=400, history=str(tmp_path))
    here, *there = estimate.choices
    assert (here.where, here.processes, here.dollars) == ("local", 2, 0.0)
    assert [choice.instances for choice in there][:3] == [1, 2, 4] and all(choice.dollars > 0 for choice in there)
    times = [choice.seconds.mid for choice in there]
    assert times == sorted(times, reverse=True)
    assert here.seconds.low < here.seconds.mid < here.seconds.high
    content = json.loads(json.dumps(estimate.as_json()))
    assert {"rows", "ms_per_row", "options", "recommended", "why"} <= set(content)
    assert {"where", "instances", "processes", "seconds", "dollars", "ends_at"} <= set(content["options"][0])
    assert set(content["options"][0]["seconds"]) == {"low", "mid", "high"}
    html = estimate._repr_html_()
    assert "<svg" in html and "a guess" in html and "here, 2 cores" in html
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("cpu_share", "slower"), [(1.0, 8.0), (0.25, 2.0), (0.0, 1.0)])
def test_processes_that_share_a_vcpu_are_slower(cpu_share, slower, cluster, tmp_path):
    """Sixteen processes on two vCPUs, of a classifier that computes all the time, a quarter of it, or never."""
    plan = dc.plan(rows=20_000, slowness=1, output=tmp_path / "run")
    sample = sample_of(plan, cluster, 100)
    calls = tuple((fifth, one._replace(cpu_seconds=cpu_share * one.seconds)) for fifth, one in sample.measured.calls)
    planner = Planner(plan, replace(sample, cores=2, processes=2, measured=replace(sample.measured, calls=calls)))
    spec = ClusterSpec.defaults()
    usual, crowded = (planner.choice(unasked(each).place(1)) for each in (spec, replace(spec, processes_per_worker=16)))
    assert (usual.processes, crowded.processes) == (2, 16)
    assert crowded.ms_per_row / usual.ms_per_row == pytest.approx(slower)


def test_a_run_keeps_its_prediction_and_the_next_plan_knows_it(sleepy, tmp_path, cluster):
    pd.DataFrame({"ms": [1.0] * 1500}).to_csv(tmp_path / "in.csv", index_label="id")
    plan = dc.plan(tmp_path / "in.csv", sleepy, tmp_path / "runs" / "1", block_rows=100)
    first = dc.estimate(plan, cluster)
    choice = first.choices[0]
    result = dc.run(plan, cluster, prediction=choice.prediction)
    stored = json.loads((tmp_path / "runs/1/plan.json").read_text())["prediction"]
    assert (
        stored["seconds"]["mid"]
        == choice.seconds.mid - choice.ending
        == result.manifest["prediction"]["seconds"]["mid"]
    )
    assert "predicted" in dc.report(result).account
    again = dc.estimate(dc.plan(tmp_path / "in.csv", sleepy, tmp_path / "runs" / "2", block_rows=100), cluster)
    assert any("1 earlier prediction here" in note for note in again.notes)
    assert any("corrected by 1 earlier run" in note for note in again.notes)


def test_a_resumed_run_is_no_record(sleepy, tmp_path, cluster):
    from dask_classifier.planner.records import records

    pd.DataFrame({"ms": [1.0] * 300}).to_csv(tmp_path / "in.csv", index_label="id")
    plan = dc.plan(tmp_path / "in.csv", sleepy, tmp_path / "runs" / "1", block_rows=100)
    dc.run(plan, cluster)
    stored = json.loads((tmp_path / "runs/1/plan.json").read_text())
    (tmp_path / "runs/1/plan.json").write_text(json.dumps(stored | {"prediction": {"seconds": 3}}))
    (record,) = records(str(tmp_path / "runs"))
    assert record.prediction is None, "one of another version is ignored"
    (tmp_path / "runs/1/manifest.json").unlink()
    (tmp_path / "runs/1/parts/part-00001.json").unlink()
    dc.run(plan, cluster, resume=True)
    (tmp_path / "runs" / "other").mkdir()
    (tmp_path / "runs/other/manifest.json").write_text("{}")
    assert records(str(tmp_path / "runs")) == [] and records(str(tmp_path / "none")) == []


def test_a_classifier_that_fails_on_the_sample(tmp_path, cluster):
    """The row in the middle of the file, which no trial on the first rows sees."""
    pd.DataFrame({"ms": ["1"] * 2500 + ["x"] * 500}).to_csv(tmp_path / "in.csv", index_label="id")
    (tmp_path / "mine.py").write_text("def f(chunk): return chunk['ms'].astype(int)\ndef g(chunk): 1 / 0\n")
    (tmp_path / "dies.py").write_text("import os\ndef f(chunk): os._exit(3)\n")
    plan = dc.plan(tmp_path / "in.csv", f"{tmp_path}/mine.py:f", tmp_path / "run")
    with pytest.raises(TooManyBadRows, match=r"row (2,[5-9]|3,0)\d\d of .*in.csv: .*'x'"):
        dc.estimate(plan, cluster)
    with pytest.raises(WrongAnswer, match="raises an exception on every row"):
        dc.estimate(dc.plan(tmp_path / "in.csv", f"{tmp_path}/mine.py:g", tmp_path / "run"), cluster)
    with pytest.raises(BlocksFailed, match="exited on the first rows"):
        dc.estimate(dc.plan(tmp_path / "in.csv", f"{tmp_path}/dies.py:f", tmp_path / "run"), cluster)
    (tmp_path / "empty.csv").write_text("id,ms\n")
    with pytest.raises(UsageError, match="no rows to sample"):
        dc.estimate(dc.plan(tmp_path / "empty.csv", f"{tmp_path}/mine.py:f", tmp_path / "run"), cluster)


def test_replay_names_where_the_time_went(sleepy, tmp_path, cluster):
    from dask_classifier.planner.replay import replay_of

    pd.DataFrame({"ms": [2.0] * 1000}).to_csv(tmp_path / "in.csv", index_label="id")
    result = dc.run(dc.plan(tmp_path / "in.csv", sleepy, tmp_path / "run", block_rows=100), cluster)
    replay = replay_of(result, [1, 2, 10, 1000])
    assert replay.processes == 2 and replay.seconds == result.manifest["seconds"]
    one, two, ten, many = (each.seconds for each in replay.choices)
    assert one > two > ten and many == pytest.approx(ten, rel=0.2), "there are ten blocks"
    work = sum(receipt.seconds for receipt in result.receipts)
    assert one - two == pytest.approx(work / 2, rel=0.3)
    assert "start-up" in replay.words
