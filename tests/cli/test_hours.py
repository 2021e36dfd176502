"""Runs of every hour: fields in names, the ledger, and what is missing."""

import contextlib
import datetime
import fcntl
import http.server
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from dask_classifier import storage
from dask_classifier.errors import UsageError
from dask_classifier.parts.run_folder import LOCK, RunFolder
from dask_classifier.runs import hours, lock

AT = datetime.datetime(2026, 11, 26, 7, 30, tzinfo=datetime.UTC)


def command(*words, code=0, **environment):
    call = [sys.executable, "-m", "dask_classifier", *map(str, words)]
    done = subprocess.run(call, capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == code, done.stderr
    return done


def test_fields_of_names(monkeypatch):
    name = "s3://b/{date}/{hour}/{year}{month}{day}/{other}{"
    assert hours.filled(name, AT) == "s3://b/2026-11-26/07/20261126/{other}{"
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    late = AT.replace(hour=20)
    assert hours.filled("{date}T{hour} {date_local}T{hour_local}", late) == "2026-11-26T20 2026-11-27T05"
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-25T05", AT.replace(day=25, hour=5, minute=0)),
        ("2026-11-25 05:10", AT.replace(day=25, hour=5, minute=10)),
        ("2026-11-25", AT.replace(day=25, hour=0, minute=0)),
        ("2026-11-25T05:00+09:00", AT.replace(day=24, hour=20, minute=0)),
        ("2026-11-25T05:00Z", AT.replace(day=25, hour=5, minute=0)),
        ("-90m", AT.replace(hour=6, minute=0)),
    ],
)
def test_times(text, expected):
    assert hours.parse_time(text, AT) == expected


@pytest.mark.parametrize(
    "text", ["yesterday", "-soon", "25:00", "2026-13-01", "-", "-99999999h", "0001-01-01T00:00+09:00"]
)
def test_what_is_no_time(text):
    with pytest.raises(UsageError, match="is not a time"):
        hours.parse_time(text, AT)


def test_hours_and_days():
    since = AT - datetime.timedelta(hours=3)
    assert [f"{at:%d %H:%M}" for at in hours.times("{date}/{hour}", since, AT)] == [
        "26 04:00", "26 05:00", "26 06:00",
    ], "the hour that has begun is left out"  # fmt: skip
    days = hours.times("{date}", AT - datetime.timedelta(days=1), AT)
    assert [f"{at:%d %H:%M}" for at in days] == ["25 00:00"], "and so is the day"
    with pytest.raises(UsageError, match="has no date or hour in it"):
        hours.times("{year}", since, AT)
    with pytest.raises(UsageError, match="has no date or hour in it"):
        hours.times("runs/today", since, AT)
    with pytest.raises(UsageError, match="more than 10,000 runs"):
        hours.times("{date}/{hour}", AT - datetime.timedelta(days=5000), AT)


RUN = ["--slowness", "1", "--cluster", "inline", "--quiet"]


@pytest.fixture(params=["folder", "bucket"])
def prefix(request, tmp_path):
    """Six hours: complete, changed since, partial, incomplete, running, missing."""
    if request.param == "folder":
        yield from _six_hours(tmp_path, str(tmp_path / "in"), str(tmp_path / "my runs"))
    else:
        request.getfixturevalue("s3")
        base = f"s3://bucket/hours-{time.time_ns()}"
        yield from _six_hours(tmp_path, f"{base}/in", f"{base}/runs")


def _six_hours(tmp_path, inputs, runs):
    (tmp_path / "c.py").write_text("def f(chunk):\n    return chunk['x']\n")
    for hour in range(6):
        storage.write(f"{inputs}/2026-11-26T{hour:02d}.csv", b"id,x\n" + b"1,2\n" * (hour + 1))
    words = ["--input", f"{inputs}/{{date}}T{{hour}}.csv", "--output", f"{runs}/{{date}}/{{hour}}"]
    words += ["--classifier", str(tmp_path / "c.py:f"), "--cluster", "inline", "--quiet"]
    for hour in range(4):
        command(*words, "--at", f"2026-11-26T{hour:02d}")
    storage.write(f"{inputs}/2026-11-26T01.csv", b"id,x\n1,2\n1,2\n1,2\n1,2\n")
    manifest = RunFolder(f"{runs}/2026-11-26/02")
    manifest.write_json("manifest.json", manifest.read_json("manifest.json") | {"partial": True})
    storage.delete(f"{runs}/2026-11-26/03/manifest.json")
    with lock.held(RunFolder(f"{runs}/2026-11-26/04")):
        yield words, f"{runs}/{{date}}/{{hour}}"


SPAN = ["--since", "2026-11-26", "--until", "2026-11-26T06"]


def test_the_ledger_says_what_there_is_of_each_hour(prefix):
    _, name = prefix
    shown = command("ledger", name, *SPAN).stdout
    assert shown.splitlines()[0] == "2026-11-26  ##p~>."
    assert "1 partial, the first 2026-11-26T02:00Z" in shown
    entries = json.loads(command("ledger", name, *SPAN, "--inputs", "--json").stdout)
    states = [entry["state"] for entry in entries]
    assert states == ["complete", "input changed", "partial", "incomplete", "running", "missing"]
    assert [entry["rows"] for entry in entries[:3]] == [1, 2, 3] and entries[0]["at"] == "2026-11-26T00:00Z"


@pytest.mark.long
def test_backfill_prints_and_runs_what_is_missing(prefix):
    words, name = prefix
    printed = command("backfill", *SPAN, "--", *words).stdout.splitlines()
    assert [line.split("--at ")[1] for line in printed] == [f"2026-11-26T{hour:02d}:00Z --resume" for hour in (2, 3, 5)]
    assert shlex.split(printed[0])[:2] == ["dask-classify", "run"]
    command("backfill", *SPAN, "--yes", "--inputs", "--", *words)
    assert command("ledger", name, *SPAN, "--inputs").stdout.splitlines()[0] == "2026-11-26  ####>#"


def test_backfill_goes_on_after_a_failure_and_has_its_exit_code(prefix):
    words, _ = prefix
    place = words.index("--input") + 1
    words[place] = words[place].replace("{date}T{hour}", "none-{date}T{hour}")
    done = command("backfill", *SPAN, "--yes", "--", *words, code=1)
    assert done.stdout.count("dask-classify run") == 3, done.stdout


SLOW = """
import time

def classify(chunk):
    time.sleep(0.5)
    return chunk["SKU"].str.len()
"""


def test_a_backfill_that_is_stopped_stops_its_run(tmp_path):
    """The run ends as after Ctrl-C, with its finished blocks and without its lock; the next hour does not begin."""
    (tmp_path / "slow.py").write_text(SLOW)
    words = ["--rows", "10k", "--classifier", "slow.py:classify", "--block-rows", "100", "--workers", "1"]
    words += ["--output", "runs/{hour}"]
    call = [sys.executable, "-m", "dask_classifier", "backfill", *SPAN, "--yes", "--", *words]
    process = subprocess.Popen(call, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while len(list(tmp_path.glob("runs/00/parts/*.json"))) < 3 and time.monotonic() < until:
        time.sleep(0.1)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "finished blocks are kept" in err, err
    assert out.count("dask-classify run") == 1 and not (tmp_path / "runs/01").exists()
    assert not (tmp_path / "runs/00/run.lock").exists() and len(list(tmp_path.glob("runs/00/parts/*.json"))) >= 3


def test_looking_does_not_disturb_a_lock(tmp_path):
    folder = RunFolder(str(tmp_path))
    assert not lock.is_held(folder)
    with lock.held(folder):
        assert lock.is_held(folder)
    (tmp_path / LOCK).touch()
    assert not lock.is_held(folder)
    with (tmp_path / LOCK).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert lock.is_held(folder)


def test_wrong_words(tmp_path):
    assert (
        "--at has no effect" in command("--rows", 10, "--at", "2026-11-26", "--output", tmp_path / "x", code=2).stderr
    )
    assert "has no date or hour in it" in command("ledger", tmp_path, code=2).stderr
    assert "have no --output" in command("backfill", "--", "--rows", "10", code=2).stderr
    useless = command("--rows", 10, "--at", "2026-11-26", "--output", f"{tmp_path}/{{hours}}", code=2)
    assert "--at has no effect" in useless.stderr
    wrong = command("--rows", 10, "--at", "noon", "--output", f"{tmp_path}/{{hour}}", code=2)
    assert "'noon' is not a time" in wrong.stderr


def test_a_name_from_the_configuration(tmp_path):
    output = f"{tmp_path}/{{date}}-{{hour}}"
    command("--rows", 100, *RUN, "--at", "2026-01-02T03", DASK_CLASSIFIER__OUTPUT=output)
    assert (tmp_path / "2026-01-02-03/manifest.json").exists()


# --- schedulers --------------------------------------------------------------------------------------------


def block(title):
    """A block of docs/schedulers.md."""
    page = (Path(__file__).parents[2] / "docs/schedulers.md").read_text()
    return re.search(rf'```\w+ title="{title}"\n(.*?)```', page, re.DOTALL)[1]


@pytest.fixture
def hour(tmp_path, monkeypatch):
    """An input of one hour, in the current folder."""
    (tmp_path / "mine.py").write_text(block("mine.py"))
    (tmp_path / "2026-11-26T07.csv").write_text(block("2026-11-26T07.csv"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


class Anything(types.ModuleType):
    """A module of a scheduler that is not installed here: what a page calls is remembered."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "AirflowFailException":
            return FailsForGood
        return lambda *args, **options: self.called(name, args, options)


class FailsForGood(Exception):
    """Stands in for Airflow's."""


def test_the_dag_of_airflow(hour, monkeypatch):
    """Without Airflow: what its operator would call runs the command, and fails for good with exit code 2."""
    called = []

    def remember(name, args, options):
        called.append((name, args, options))
        return contextlib.nullcontext()

    names = ("exceptions", "operators", "operators.python", "timetables", "timetables.interval")
    for name in ("airflow", *(f"airflow.{name}" for name in names)):
        module = Anything(name)
        module.called = remember
        monkeypatch.setitem(sys.modules, name, module)
    exec(compile(block("dag.py"), "dag.py", "exec"), {})
    (timetable, (cron,), _), (_, _, dag), (_, _, operator) = called
    assert (timetable, cron) == ("CronDataIntervalTimetable", "0 * * * *") and dag["schedule"]
    assert "data_interval_start" in operator["op_args"][0]
    operator["python_callable"]("2026-11-26T07")
    assert (hour / "runs/2026-11-26/07/manifest.json").exists()
    (hour / "2026-11-26T07.csv").write_text("id,text\n1,other\n")
    with pytest.raises(FailsForGood, match="exit code 2"):
        operator["python_callable"]("2026-11-26T07")
    with pytest.raises(RuntimeError, match="exit code 1"):
        operator["python_callable"]("2026-11-26T08")  # no input: to be tried again


def test_the_flow_of_prefect(hour, monkeypatch):
    """Without Prefect: its decorators are replaced by nothing."""
    module = types.ModuleType("prefect")
    module.flow, module.task = (lambda function: function), (lambda **options: lambda function: function)
    monkeypatch.setitem(sys.modules, "prefect", module)
    names = {}
    exec(compile(block("flow.py"), "flow.py", "exec"), names)
    names["hourly"]("2026-11-26T07")
    assert (hour / "runs/2026-11-26/07/manifest.json").exists()
    (hour / "2026-11-26T07.csv").write_text("id,text\n1,other\n")
    assert names["classify"]("2026-11-26T07") == 2  # it is not raised by the task, which would try again
    for task, begun, code in ((names["hourly"], "07", 2), (names["classify"], "08", 1)):
        with pytest.raises(RuntimeError, match=f"exit code {code}"):
            task(f"2026-11-26T{begun}")


@pytest.mark.skipif(not shutil.which("curl"), reason="the script calls curl")
def test_the_monitor_hears_of_start_and_exit_code(hour):
    heard = []

    class Monitor(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            heard.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Monitor)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (hour / "watched.sh").write_text(block("watched.sh"))
    env = os.environ | {"MONITOR": f"http://127.0.0.1:{server.server_port}/uuid"}
    codes = [subprocess.run(["bash", "watched.sh", f"2026-11-26T0{n}"], env=env).returncode for n in (7, 8)]
    server.shutdown()
    assert codes == [0, 1]
    assert heard == ["/uuid/start", "/uuid/0", "/uuid/start", "/uuid/1"]
    ends = [json.loads(line) for line in (hour / "events.jsonl").read_text().splitlines() if '"end"' in line]
    assert [end["exit_code"] for end in ends] == [0, 1]


def test_an_hour_whose_input_changed_before_it_was_complete_starts_over(tmp_path):
    """--resume would refuse it every time."""
    (tmp_path / "c.py").write_text("def f(chunk):\n    return chunk['x']\n")
    file = tmp_path / "in-2026-11-26T00.csv"
    file.write_text("id,x\n1,2\n")
    name = f"{tmp_path}/runs/{{date}}/{{hour}}"
    words = ["--input", f"{tmp_path}/in-{{date}}T{{hour}}.csv", "--output", name, "--classifier", f"{tmp_path}/c.py:f"]
    words += ["--cluster", "inline", "--quiet"]
    command(*words, "--at", "2026-11-26T00")
    (tmp_path / "runs/2026-11-26/00/manifest.json").unlink()
    file.write_text("id,x\n1,2\n3,4\n")
    span = ["--since", "2026-11-26", "--until", "2026-11-26T01", "--inputs"]
    assert command("backfill", *span, "--", *words).stdout.rstrip().endswith("--overwrite")
    command("backfill", *span, "--yes", "--", *words)
    assert [each["state"] for each in json.loads(command("ledger", name, *span, "--json").stdout)] == ["complete"]
