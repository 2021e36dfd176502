"""Overwriting a run gives nothing up too early, and deletes nothing else."""

import gzip

import classifiers as known
import pytest
from generated_csv import csv_of
from reference import reference
from running import snapshot

import dask_classifier as dc
from dask_classifier.errors import (
    OutputExists,
    StorageError,
    UsageError,
    WrongAnswer,
)
from dask_classifier.runs import sizing


def test_an_existing_run_is_never_overwritten_unasked(cluster, tmp_path, run_bytes, classifiers):
    options = {"rows": 300, "output": tmp_path / "run", "classifier": classifiers("lengths")}
    dc.run(dc.plan(**options), cluster)
    (tmp_path / "run/notes.txt").write_text("mine")
    before = snapshot(tmp_path / "run")
    for other in ({}, {"seed": 1}, {"classifier": classifiers("series")}):
        with pytest.raises(OutputExists):
            dc.run(dc.plan(**options | other), cluster)
    with pytest.raises(WrongAnswer):  # a plan that fails its trial does not cost the old run either
        dc.run(dc.plan(**options | {"classifier": classifiers("fails_always")}, overwrite=True), cluster)
    assert snapshot(tmp_path / "run") == before
    dc.run(dc.plan(**options | {"rows": 100}, overwrite=True, block_rows=100), cluster)
    assert run_bytes(tmp_path / "run") == reference(csv_of(100), known.lengths)
    assert (tmp_path / "run/notes.txt").read_text() == "mine"
    complete = snapshot(tmp_path / "run")
    assert dc.run(dc.plan(**options | {"rows": 100}, resume=True, block_rows=100), cluster).rows == 100
    assert snapshot(tmp_path / "run") == complete, "nothing was to do"


def test_a_folder_with_parts_that_is_no_run_is_left_alone(cluster, tmp_path, classifiers):
    (tmp_path / "run/parts").mkdir(parents=True)
    (tmp_path / "run/parts/mine.txt").write_text("mine")
    (tmp_path / "run/parts/part-00000.csv.gz").write_text("of something else")
    plan = dc.plan(rows=10, output=tmp_path / "run", classifier=classifiers("lengths"))
    with pytest.raises(OutputExists, match="is not a run that can be resumed"):
        dc.run(plan, cluster)
    (tmp_path / "run/parts/part-00000.csv.gz").unlink()
    dc.run(plan, cluster).verify()  # a file of another name is the user's, and no matter
    assert (tmp_path / "run/parts/mine.txt").read_text() == "mine"


def test_overwrite_deletes_only_what_is_a_runs(cluster, tmp_path, command):
    run = tmp_path / "run"
    (run / "parts").mkdir(parents=True)
    mine = [run / "plan.json.bak", run / "parts/photo.txt", run / "parts/in.csv"]
    for path in mine:
        path.write_text("id,a\n1,x\n")
    done = command("--input", mine[2], "--classifier", "blackbox", "--output", run, "--overwrite", check=2)
    assert "is a part of the run" in done.stderr
    single = run / "result.csv.gz"
    single.write_bytes(gzip.compress(b"id,a\n1,x\n"))
    done = command("--input", single, "--classifier", "blackbox", "--output", run, "--overwrite", check=2)
    assert "is a part of the run" in done.stderr and single.exists()
    single.unlink()
    command("--rows", 10, "--slowness", 1, "--output", run, "--overwrite", check=0)
    assert all(path.read_text() == "id,a\n1,x\n" for path in mine)


def test_overwrite_with_a_damaged_packed_file_gives_nothing_up(cluster, tmp_path, classifiers):
    packed = gzip.compress(csv_of(500))
    (tmp_path / "in.csv.gz").write_bytes(packed)
    options = {"input": tmp_path / "in.csv.gz", "output": tmp_path / "run", "classifier": classifiers("lengths")}
    done = dc.run(dc.plan(**options), cluster)
    (tmp_path / "in.csv.gz").write_bytes(packed[:-100])
    with pytest.raises(StorageError, match="decompress"):
        dc.run(dc.plan(**options, overwrite=True), cluster)
    done.verify()
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(csv_of(300)))
    dc.run(dc.plan(**options, overwrite=True), cluster).verify()
    assert not list((tmp_path / "run").glob("unpacked/*"))


def test_overwrite_gives_nothing_up_before_the_new_run_is_sure(cluster, tmp_path, classifiers, monkeypatch):
    monkeypatch.setattr(sizing, "MOST_BLOCKS", 3)
    options = {"rows": 500, "output": tmp_path / "run", "classifier": classifiers("lengths")}
    done = dc.run(dc.plan(**options, block_rows=200), cluster)
    with pytest.raises(UsageError, match="more than the 3 parts"):
        dc.run(dc.plan(**options, block_rows=100, overwrite=True), cluster)
    done.verify()


def test_names_with_brackets(cluster, tmp_path, classifiers):
    file, output = tmp_path / "in[1].csv", tmp_path / "run[7]"
    file.write_bytes(csv_of(300))
    options = {"input": file, "output": output, "classifier": classifiers("lengths"), "block_rows": 100}
    dc.run(dc.plan(**options), cluster)
    (output / "manifest.json").unlink()
    assert dc.run(dc.plan(**options, resume=True), cluster).verify().rows == 300
