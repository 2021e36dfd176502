"""What a run leaves fits the schemas in the package; a run of an early version is still read, verified and resumed."""

import gzip
import hashlib
import importlib.resources
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from referencing import Registry, Resource

import dask_classifier as dc
from dask_classifier.ec2.bill import Launched, Launches
from dask_classifier.runs.limits import Limits
from dask_classifier.runs.planning import versions
from dask_classifier.show.event_log import LoggingDisplay, event_log

DATA = Path(__file__).parents[1] / "data" / "run-27c68f7"


def schema(name):
    text = importlib.resources.files("dask_classifier").joinpath("schemas", f"{name}.schema.json").read_text()
    return json.loads(text)


def check(name, content):
    """It fits the schema, and has nothing at the top that the schema does not describe."""
    known = Registry().with_resources([(f"{n}.schema.json", Resource.from_contents(schema(n))) for n in ("receipt",)])
    validator = jsonschema.Draft202012Validator(schema(name), registry=known)
    assert [error.message for error in validator.iter_errors(content)] == []
    assert set(content) <= set(schema(name)["properties"]), "not described"


def read(folder, name):
    return json.loads(Path(folder, name).read_text())


@pytest.mark.parametrize("name", ["plan", "receipt", "manifest", "missing", "report", "event", "detached"])
def test_each_schema_is_one(name):
    jsonschema.Draft202012Validator.check_schema(schema(name))


def test_what_a_run_leaves_fits_the_schemas(cluster, tmp_path):
    (tmp_path / "in.csv").write_text("id,x\n" + "1,2\n" * 500 + "1,2,3\n")
    prediction = {"where": "local", "instances": 0, "processes": 2, "dollars": 0.0}
    prediction["seconds"] = {"low": 1.0, "mid": 2.0, "high": 3.0}
    plan = dc.plan(tmp_path / "in.csv", lambda c: c["x"], tmp_path / "run", block_rows=200, max_bad=1, single_file=True)
    dc.run(plan, cluster, prediction=prediction)
    check("plan", read(tmp_path / "run", "plan.json"))
    check("manifest", read(tmp_path / "run", "manifest.json"))
    for receipt in (tmp_path / "run/parts").glob("*.json"):
        check("receipt", json.loads(receipt.read_text()))
    command = [sys.executable, "-m", "dask_classifier", "report", tmp_path / "run", "--json"]
    report = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    jsonschema.validate(report, schema("report"))


def test_what_a_partial_run_leaves_fits_the_schemas(tmp_path):
    plan = dc.plan(rows="2k", slowness=1, block_rows=100, output=tmp_path / "run")
    result = dc.run(plan, "inline", limits=Limits(finish_by=1.0, partial=True))
    assert result.partial
    check("missing", read(tmp_path / "run", "missing.json"))
    check("manifest", read(tmp_path / "run", "manifest.json"))


def test_a_wrong_manifest_does_not_fit(tmp_path):
    content = read(DATA / "run", "manifest.json")
    check("manifest", content)
    content["parts"][0]["rows"] = "many"
    with pytest.raises(AssertionError):
        check("manifest", content)


# --- a run of 2026-11-24, made by 0.1.0 at commit 27c68f7 --------------------------------------------------------


def test_it_is_read_and_verified(tmp_path):
    shutil.copytree(DATA / "run", tmp_path / "run")
    result = dc.open_run(tmp_path / "run")
    verified = result.verify()
    assert (verified.rows, verified.bad_rows, verified.parts) == (450, 1, 3)
    assert list(result.quarantined()["row"].astype(int)) == [451]
    frame = result.to_pandas()
    assert frame["CLASSIFICATION"].sum() == frame["text"].str.len().sum()
    dc.report(tmp_path / "run")
    check("plan", read(tmp_path / "run", "plan.json"))


@pytest.fixture
def interrupted(tmp_path):
    """The same, before its second block was finished, as if it had been made here, with the versions of today."""
    shutil.copytree(DATA, tmp_path, dirs_exist_ok=True)
    folder, source = tmp_path / "run", tmp_path / "in.csv"
    plan = read(folder, "plan.json")
    identity = plan["identity"]
    here = {"url": str(source), "size": source.stat().st_size, "version": str(source.stat().st_mtime_ns)}
    identity["source"] = [here]
    identity |= {f"version of {name}": version for name, version in versions().items()}
    plan["files"][0] |= here | {"data_url": str(source)}
    plan["fingerprint"] = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    (folder / "plan.json").write_text(json.dumps(plan))
    of_blocks = hashlib.sha256(f"{plan['fingerprint']} {json.dumps(plan['blocks'])}".encode()).hexdigest()
    for file in (folder / "parts").glob("*.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"fingerprint": of_blocks}))
    (folder / "manifest.json").unlink()
    (folder / "parts/part-00001.json").unlink()
    return tmp_path


def test_it_is_resumed(interrupted, monkeypatch):
    before = [(interrupted / f"run/parts/part-{number:05d}.csv.gz").read_bytes() for number in range(3)]
    (interrupted / "run/parts/part-00001.csv.gz").unlink()
    monkeypatch.chdir(interrupted)
    result = dc.run(dc.plan("in.csv", "c.py:f", "run", block_rows=200, max_bad=1, resume=True), "inline")
    assert result.manifest["resumed"] == [0, 2]
    result.verify()
    after = [(interrupted / f"run/parts/part-{number:05d}.csv.gz").read_bytes() for number in range(3)]
    assert [gzip.decompress(part) for part in after] == [gzip.decompress(part) for part in before]


# --- the events of a run -------------------------------------------------------------------------------------


def events_of(file):
    events = [json.loads(line) for line in file.read_text().splitlines()]
    for event in events:
        check("event", event)
    return events


def test_the_events_of_a_run_fit_the_schema(command, tmp_path, classifiers):
    """Those of a whole run, of one that fails, and of one that finds nothing to do, one after the other in a file."""
    args = ["--rows", 2000, "--classifier", classifiers("lengths"), "--block-rows", 500, "--workers", 2, "--quiet"]
    args += ["--output", "run", "--log-json", "events.jsonl"]
    command(*args, check=0)
    command(*args, check=2)
    command(*args, "--resume", check=0)
    events = events_of(tmp_path / "events.jsonl")
    assert {event["run"] for event in events} == {str(tmp_path / "run")}
    ends = [event for event in events if event["event"] == "end"]
    assert [(end["outcome"], end["exit_code"]) for end in ends] == [("complete", 0), ("failed", 2), ("complete", 0)]
    assert ends[0]["rows_out"] == 2000 and ends[0]["parts"] == 4 and ends[1]["error"] == "OutputExists"
    blocks = [event for event in events if event["event"] == "block"]
    assert sorted(block["block"] for block in blocks) == [0, 1, 2, 3]
    assert [block["blocks_done"] for block in blocks] == [1, 2, 3, 4] and blocks[-1]["rows_done"] == 2000
    stages = [event["stage"] for event in events if event["event"] == "stage"]
    assert stages.index("classifying") < stages.index("publishing") and stages[-1] == "complete already"
    assert {"start", "connected", "begin", "size", "message"} <= {event["event"] for event in events}


def test_bad_rows_and_instances_are_events(tmp_path):
    (tmp_path / "in.csv").write_text("id,x\n" + "1,2\n" * 200 + "1,2,3\n" * 7)
    with event_log(str(tmp_path / "events.jsonl"), None) as log:
        plan = dc.plan(tmp_path / "in.csv", lambda c: c, tmp_path / "run", block_rows=100, max_bad=7)
        log.started(plan)
        dc.run(plan, "inline", progress=LoggingDisplay(log, quiet=True))
        launches = Launches()
        launches["i-1"] = Launched("worker-0", "c7i.large", "spot", 1.0)
        launches.have_ended({"i-1", "i-2"}, 2.0)
        launches.have_ended({"i-1"}, 3.0)
    launches["i-3"] = Launched("worker-1", "c7i.large", "spot", 1.0)  # behind the log
    events = events_of(tmp_path / "events.jsonl")
    (bad,) = [event for event in events if event["event"] == "bad_rows"]
    quarantine = "quarantine/part-00002.csv.gz"
    assert (bad["block"], bad["bad_rows"], bad["kind"], bad["file"]) == (2, 7, "malformed", quarantine)
    assert (tmp_path / "run" / quarantine).is_file()
    told = [(event["id"], event["name"], event["state"]) for event in events if event["event"] == "instance"]
    assert told == [("i-1", "worker-0", "launched"), ("i-1", "worker-0", "ended")]


KILLER = """
import os

def classify(chunk):
    if "150" in chunk.index:
        os.kill(os.getpid(), 9)
    return chunk
"""


@pytest.mark.long
def test_the_events_of_runs_that_go_wrong(command, tmp_path, classifiers):
    """Before there is a plan, with a process that dies, with bad rows, partial; and a file that cannot be written."""
    log = ["--log-json", "events.jsonl", "--output", "run", "--overwrite", "--workers", 1]
    command("--input", "missing.csv", "--classifier", "blackbox", *log, check=1)
    (tmp_path / "killer.py").write_text(KILLER)
    command("--rows", 300, "--classifier", "killer.py:classify", "--block-rows", 100, *log, check=1)
    (tmp_path / "in.csv").write_text("id,x\n" + "1,2\n" * 200 + "1,2,3\n")
    command("--input", "in.csv", "--classifier", classifiers("lengths"), *log, check=3)
    command("--rows", "100k", "--slowness", 3, "--finish-in", "1s", "--partial", "--yes", *log, check=7)
    events = events_of(tmp_path / "events.jsonl")
    ends = [(event["outcome"], event["exit_code"], event.get("error")) for event in events if event["event"] == "end"]
    assert ends == [
        ("failed", 1, "StorageError"),
        ("failed", 1, "BlocksFailed"),
        ("failed", 3, "TooManyBadRows"),
        ("partial", 7, None),
    ]
    bad = [event for event in events if event["event"] == "bad_rows"]
    assert not bad, "a block with too many bad rows leaves no files"
    died = [event for event in events if event["event"] == "process_died"]
    assert [event["again"] for event in died] == [True, True, False] and {event["block"] for event in died} == {1}
    done = command("--rows", 10, "--output", "other", "--log-json", "no/such/folder", check=1)
    assert "Check the path given with --log-json" in done.stderr and not (tmp_path / "other").exists()
