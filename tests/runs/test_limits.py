"""Runs that end by the clock or by their budget: what is there and what is missing are all rows."""

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from generated_csv import csv_of
from reference import reference

import dask_classifier as dc
from dask_classifier.errors import DamagedRun, LimitReached
from dask_classifier.rows.blocks import Block, Span
from dask_classifier.runs import limits
from dask_classifier.runs.holes import holes_of
from dask_classifier.runs.limits import Limits, Watch

SLEEPY = """
import time

def classify(chunk):
    time.sleep(0.002 * len(chunk))
    return chunk.assign(LENGTH=chunk["SKU"].str.len())
"""


@pytest.fixture
def sleepy(tmp_path):
    (tmp_path / "sleepy.py").write_text(SLEEPY)
    return f"{tmp_path}/sleepy.py:classify"


@pytest.fixture(scope="module")
def cluster():
    with dc.LocalCluster(2, dashboard_address="127.0.0.1:0") as cluster:
        yield cluster


def rows_of(result):
    """Check a run, and return its rows, bad rows and missing rows."""
    verified = result.verify()
    missing = sum(hole["rows"] for hole in result.missing)
    assert missing == result.manifest["rows_missing"]
    return verified.rows, verified.bad_rows, missing


class Clock:
    """Stands in for the module `time` in limits.py: the hour strikes when a run has finished some blocks."""

    def __init__(self, blocks):
        self.blocks, self.late = blocks, 0.0

    def time(self):
        return time.time() + self.late

    def progress(self):
        clock = self

        class Striking(dc.Progress):
            def finished(self, receipt):
                super().finished(receipt)
                if self.snapshot().blocks_done >= clock.blocks:
                    clock.late = 3600.0

        return Striking()


@pytest.fixture
def published(sleepy, tmp_path, cluster, monkeypatch):
    """Run until some blocks are finished, and publish what is there."""

    def publish(blocks, name="run", **source):
        clock = Clock(blocks)
        monkeypatch.setattr(limits, "time", clock)
        source = source or {"rows": 400}
        plan = dc.plan(classifier=sleepy, output=tmp_path / name, chunk_rows=20, block_rows=20, **source)
        clock.late = 3600.0 * (blocks == 0)
        options = Limits(finish_by=time.time() + 1800, partial=True)
        return plan, dc.run(plan, cluster, limits=options, progress=clock.progress())

    return publish


@pytest.mark.parametrize("blocks", range(0, 21, 2))
def test_at_every_moment_rows_and_holes_are_all_rows(blocks, published, cluster, run_bytes):
    """The time is over after no block, after two, ..., after all; then the rest is classified."""
    plan, result = published(blocks)
    rows, _, missing = rows_of(result)
    assert rows + missing == 400 and result.partial == bool(missing)
    assert 20 * blocks <= rows <= 20 * (blocks + 2), "two processes"
    assert ("rows missing" in repr(result)) == ("rows missing" in result.words) == result.partial
    done = dc.run(plan, cluster, resume=True)
    assert rows_of(done) == (400, 0, 0) and not done.folder.exists("missing.json")
    assert run_bytes(plan.output) == reference(csv_of(400), lengths)


def lengths(chunk):
    return chunk.assign(LENGTH=chunk["SKU"].str.len())


def test_holes_name_files_and_rows(published, tmp_path):
    names = ("a.csv", "b.csv")
    for name in names:
        (tmp_path / name).write_bytes(csv_of(600))
    _, result = published(20, input=[tmp_path / name for name in names])
    first, last = result.missing[0], result.missing[-1]
    assert first["file"].endswith("a.csv") and first["first_row"] > 1
    assert last["file"].endswith("b.csv") and last["last_row"] == 600
    for hole in result.missing:
        assert hole["rows"] == hole["last_row"] - hole["first_row"] + 1 and hole["first_row"] % 20 == 1


def test_rows_that_do_not_follow_each_other_are_two_holes():
    spans = [Span(100, 0), Span(100, 100), Span(100, 300), Span(50, 0, 1)]
    found = holes_of(
        SimpleNamespace(files=[SimpleNamespace(url="a"), SimpleNamespace(url="b")]), [Block(0, tuple(spans))]
    )
    told = [(hole["file"], hole["first_row"], hole["last_row"], hole["rows"]) for hole in found]
    assert told == [("a", 1, 200, 200), ("a", 301, 400, 100), ("b", 1, 50, 50)]


def test_a_list_of_holes_that_was_changed_is_found(published, tmp_path):
    _, result = published(10)
    file = tmp_path / "run/missing.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"holes": content["holes"][1:]}))
    with pytest.raises(DamagedRun, match="does not name the rows that are missing"):
        result.verify()


def test_a_part_that_came_too_late_is_no_damage(published, tmp_path):
    _, result = published(10)
    (tmp_path / "run/parts/part-00019.csv.gz").write_bytes(b"late")
    assert result.verify().rows == result.rows
    (tmp_path / "run/parts/part-00020.csv.gz").write_bytes(b"of another run")
    with pytest.raises(DamagedRun, match="does not belong to the run"):
        result.verify()


@pytest.mark.parametrize("given", [{"max_time": 1800}, {"budget": 10, "dollars_per_hour": 10}])
def test_a_limit_stops_a_run_that_can_be_resumed(given, sleepy, tmp_path, cluster, monkeypatch):
    """An hour passes after twenty blocks: the time is over, or ten dollars are spent."""
    clock = Clock(20)
    monkeypatch.setattr(limits, "time", clock)
    plan = dc.plan(rows=1000, output=tmp_path / "run", classifier=sleepy, chunk_rows=20, block_rows=20)
    with pytest.raises(LimitReached, match=r"2\d of 50 blocks are finished") as caught:
        dc.run(plan, cluster, limits=Limits(**given), progress=clock.progress())
    assert caught.value.exit_code == 6 and not (tmp_path / "run/manifest.json").exists()
    result = dc.run(plan, cluster, resume=True)
    assert 20 <= len(result.manifest["resumed"]) <= 22 and result.verify().rows == 1000


def test_a_run_with_time_enough_is_complete(sleepy, tmp_path, cluster):
    plan = dc.plan(rows=400, output=tmp_path / "run", classifier=sleepy, chunk_rows=20, block_rows=20)
    limits = Limits(finish_by=time.time() + 600, partial=True, max_time=600, budget=3600, dollars_per_hour=1)
    result = dc.run(plan, cluster, limits=limits)
    assert not result.partial and result.missing == [] and not (tmp_path / "run/missing.json").exists()


def test_it_says_early_that_it_will_be_late(sleepy, tmp_path, cluster):
    class Listener(dc.Progress):
        def __init__(self):
            super().__init__()
            self.notes, self.paces = [], set()

        def note(self, text):
            now = self.snapshot()
            self.notes.append((now.share, text))
            self.paces.add(now.pace)

    plan = dc.plan(rows=2500, output=tmp_path / "run", classifier=sleepy, chunk_rows=20, block_rows=20)
    listener = Listener()
    result = dc.run(plan, cluster, limits=Limits(finish_by=time.time() + 1), progress=listener)
    ((share, text),) = [(share, text) for share, text in listener.notes if "the run will finish about" in text]
    assert share < 0.95 and "after" in text and result.rows == 2500, "said once, early, and it went on"
    assert any(pace.endswith("late") for pace in listener.paces)


def test_a_watch_asks_the_cluster_what_it_costs():
    """Eight of ten dollars are spent, then nine; a dollar a minute, of which one is kept for the end."""
    spent = [8.0]
    watch = Watch(Limits(budget=10), time.time(), lambda: (spent[0], 60.0))
    assert watch.ends()[0] - time.time() == pytest.approx(60, abs=1) and watch.ends()[1] == "--budget"
    assert watch.leaves_time_for(30) and not watch.leaves_time_for(90) and watch.stopped_by == "--budget"
    assert watch.warnings(None) == []
    spent[0] = 9.0
    assert ["of the budget of $10.00 is spent" in text for text in watch.warnings(None)] == [True]
    assert watch.warnings(None) == [] and watch.is_over(), "warned once"


def test_the_first_limit_counts():
    now = time.time()
    watch = Watch(Limits(finish_by=now + 50, partial=True, max_time=100, budget=10), now, lambda: (9.0, 3600.0))
    assert watch.ends() == (pytest.approx(now - 59, abs=1), "--budget"), "a dollar is a second, and a minute is kept"
    watch = Watch(Limits(finish_by=now + 50, partial=True, max_time=100), now)
    assert watch.ends() == (now + 48, "--finish-by"), "two seconds are kept to publish"
    assert Watch(Limits(finish_by=now + 50, max_time=100), now).ends() == (now + 100, "--max-time")
    assert Watch(Limits(finish_by=now + 50), now).ends() is None


def test_what_is_published_is_what_the_time_has_ended():
    now = time.time()
    watch = Watch(Limits(finish_by=now, partial=True, max_time=1000), now)
    assert not watch.publishes and watch.is_over() and watch.publishes
    watch = Watch(Limits(finish_by=now + 1000, partial=True, max_time=0.001), now - 1)
    assert watch.is_over() and watch.stopped_by == "--max-time" and not watch.publishes


def test_a_price_per_hour_counts_from_the_beginning():
    watch = Watch(Limits(budget=10, dollars_per_hour=2), time.time() - 3600)
    assert watch.dollars == pytest.approx(2, abs=0.01)
    assert watch.ends()[0] - time.time() == pytest.approx(4 * 3600 - 60, abs=2)


def test_a_watch_warns_before_it_stops():
    """Sixty dollars an hour, of two: nine tenths would come after the stop, which keeps a minute."""
    spent = [0.4]
    watch = Watch(Limits(budget=2), time.time(), lambda: (spent[0], 60.0))
    assert watch.warnings(None) == []
    spent[0] = 0.6
    assert watch.warnings(None) == ["about $0.60 of the budget of $2.00 is spent"] and not watch.is_over()


def test_a_budget_without_a_price_is_said_to_have_no_effect():
    watch = Watch(Limits(budget=2), time.time())
    assert watch.ends() is None
    (text,) = watch.warnings(None)
    assert text == "the budget has no effect as long as the price is unknown: dollars_per_hour gives it"
    assert watch.warnings(None) == []


def test_a_run_is_late_after_three_looks():
    watch = Watch(Limits(finish_by=time.time() + 60), time.time())
    soon, late = time.time() + 30, time.time() + 300
    seen = [len(watch.warnings(ends_at)) for ends_at in (late, late, soon, late, late, late, late)]
    assert seen == [0, 0, 0, 0, 0, 1, 0]


@pytest.mark.long
def test_the_command(command, tmp_path):
    """Exit codes 6 and 7, and --resume after each."""
    (tmp_path / "sleepy.py").write_text(SLEEPY)
    words = ["--rows", 8000, "--classifier", "sleepy.py:classify", "--chunk-rows", 20, "--block-rows", 20]
    words += ["--workers", 2, "--output", "run with a space"]
    done = command(*words, "--max-time", "2s", check=6)
    assert "Stopped by --max-time" in done.stderr and "--resume" in done.stderr
    done = command(*words, "--resume", "--finish-in", "4s", "--partial", check=7)
    assert "were not classified in time" in done.stderr and "rows missing" in done.stderr
    assert command("verify", "run with a space", check=0).stdout.startswith("Verified: ")
    command(*words, "--resume", check=0)
    assert "8,000 rows" in command("verify", "run with a space", check=0).stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--partial"], "--partial has no effect without a time"),
        (["--scale-up-to", 4, "--finish-in", "1m"], "--scale-up-to has no effect"),
        (["--finish-in", "1h"], "needs a confirmation"),
        (["--finish-in", "1ms", "--yes"], "cannot meet its time or its budget"),
        (["--finish-by", "7 o'clock", "--yes"], "is not a time of day"),
        (["--budget", "1", "--cluster", "inline"], "--budget has no effect"),
        (["--max-time", "soon"], "is not a time"),
        (["--max-time", ""], "is not a time"),
        (["--finish-by", "", "--workers", 2], "is not a time of day"),
    ],
)
def test_bad_limits(options, message, command, tmp_path):
    done = command("--rows", 500, "--slowness", 1, "--output", "run", *options, check=2)
    assert message in done.stderr and "Hint: " in done.stderr and not (tmp_path / "run").exists()


@pytest.mark.long
def test_the_rest_of_a_run_is_estimated_not_the_whole(command, tmp_path):
    """Resumed with a time that is enough for what is missing."""
    words = ["--rows", 3000, "--slowness", 10, "--block-rows", 100, "--output", "run", "--workers", 2]
    command(*words, check=0)
    for file in ("manifest.json", "parts/part-00007.json"):
        (tmp_path / "run" / file).unlink()
    words = [*words[:-2], "--resume", "--finish-in", "1h", "--yes"]
    done = command(*words, check=0)
    assert "2,900 of 3,000 rows are done already" in done.stderr
    assert command(*words, check=0).stderr.count("ms per row") == 0, "complete"


def test_a_target_needs_a_sample(command):
    done = command("plan", "--rows", 10, "--sample", 0, "--finish-in", "1s", check=2)
    assert "cannot be checked without a sample" in done.stderr


def test_a_plan_that_nothing_meets(command):
    done = command("plan", "--rows", "1M", "--slowness", 1, "--sample", 100, "--finish-in", "1s", "--json", check=2)
    assert json.loads(done.stdout)["recommended"] is None
    assert "cannot meet its time or its budget: no choice is certain to finish by" in done.stderr


def test_tomorrow_is_said_without_an_estimate(command):
    passed = time.strftime("%H:%M")  # of this minute, whose beginning has passed
    done = command("--rows", 10, "--workers", 1, "--output", "run", "--finish-by", passed, check=0)
    assert "is tomorrow: that time has passed today" in done.stderr


def test_confirmations_and_limits_cannot_be_configured(command):
    for name, value in (("YES", "true"), ("PARTIAL", "true"), ("BUDGET", "5")):
        done = command("--rows", 10, check=2, env={f"DASK_CLASSIFIER__{name}": value})
        assert "which only the command line takes" in done.stderr


def test_mixed_encodings_are_sampled(sleepy, tmp_path, cluster):
    """Plain and compressed files, of which only copies are UTF-8."""
    import gzip

    (tmp_path / "a.csv").write_bytes(csv_of(100))
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(csv_of(3000)))
    plan = dc.plan([tmp_path / "a.csv", tmp_path / "b.csv.gz"], sleepy, tmp_path / "run", encoding="latin-1")
    assert dc.estimate(plan, cluster).rows == 3100


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 130)])
def test_it_asks_in_a_terminal(answer, code, tmp_path):
    """A person answers."""
    program = Path(sys.executable).parent / "dask-classify"
    words = [program, "--rows", "200", "--slowness", "1", "--output", "run", "--finish-in", "1h"]
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    done = subprocess.run(
        list(map(str, words)), stdin=theirs, capture_output=True, text=True, cwd=tmp_path, timeout=300
    )
    os.close(ours)
    os.close(theirs)
    assert done.returncode == code, done.stderr
    assert "> " in done.stderr and "Start this run (here, " in done.stderr
    assert (tmp_path / "run/manifest.json").exists() == (answer == "y")
