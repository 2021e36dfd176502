"""Resuming a run does what is missing, and nothing else."""

import gzip
import json
import shutil

import classifiers as known
import pytest
from generated_csv import csv_of
from reference import reference
from running import snapshot

import dask_classifier as dc
from dask_classifier.engine.growing import GrowingCut
from dask_classifier.errors import OutputExists, TooManyBadRows
from dask_classifier.rows import csv_files


def test_resume_redoes_what_is_damaged_and_only_that(cluster, tmp_path, run_bytes, classifiers):
    options = {"rows": 1000, "output": tmp_path / "run", "classifier": classifiers("lengths"), "block_rows": 100}
    dc.run(dc.plan(**options), cluster)
    parts = tmp_path / "run/parts"
    (tmp_path / "run/manifest.json").unlink()
    (parts / "part-00001.json").unlink()  # never finished
    (parts / "part-00003.csv.gz").write_bytes(b"")  # cut off after its receipt was written
    (parts / "part-00005.json").write_bytes((parts / "part-00005.json").read_bytes()[:50])
    (parts / ".part-00007.csv.gz.tmp-abc").write_bytes(b"left by a killed writer")
    before = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.csv.gz")}
    result = dc.run(dc.plan(**options, resume=True), cluster)
    redone = {name for name, was in before.items() if (parts / name).stat().st_mtime_ns != was}
    assert redone == {"part-00001.csv.gz", "part-00003.csv.gz", "part-00005.csv.gz"}
    assert run_bytes(tmp_path / "run") == reference(csv_of(1000), known.lengths)
    assert len(result.manifest["resumed"]) == 7
    result.verify()
    assert not list(parts.glob(".*")), "what a killed writer left is gone"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"chunk_rows": 50}, "chunk rows was 100 and is now 50"),
        ({"rows": 1100}, "source"),
        ({"seed": 1}, "source"),
        ({"header": True}, "header was false and is now true"),
        ({"output_format": "csv.zst"}, "output format"),
        ({"block_rows": 200}, "block rows"),
        ({"classifier": "series"}, "classifier"),
    ],
)
def test_resume_refuses_another_plan_and_says_what_differs(cluster, tmp_path, classifiers, change, named):
    options = {"rows": 1000, "output": tmp_path / "run", "classifier": classifiers("lengths"), "block_rows": 100}
    dc.run(dc.plan(**options), cluster)
    (tmp_path / "run/manifest.json").unlink()
    if "classifier" in change:
        change = {"classifier": classifiers(change["classifier"])}
    before = snapshot(tmp_path / "run")
    with pytest.raises(OutputExists, match=named):
        dc.run(dc.plan(**options | change, resume=True), cluster)
    assert snapshot(tmp_path / "run") == before


def test_resume_refuses_a_changed_input_and_a_changed_classifier(cluster, tmp_path):
    file, code = tmp_path / "in.csv", tmp_path / "mine.py"
    file.write_bytes(csv_of(300))
    code.write_text("from helper import VALUE\ndef f(df): return df.assign(X=VALUE)\n")
    (tmp_path / "helper.py").write_text("VALUE = 1\n")
    options = {"input": file, "output": tmp_path / "run", "classifier": f"{code}:f", "block_rows": 100}
    dc.run(dc.plan(**options), cluster)
    (tmp_path / "run/manifest.json").unlink()
    (tmp_path / "helper.py").write_text("VALUE = 2\n")
    with pytest.raises(OutputExists, match="classifier's code"):
        dc.run(dc.plan(**options, resume=True), cluster)
    (tmp_path / "helper.py").write_text("VALUE = 1\n")
    file.write_bytes(csv_of(301))
    with pytest.raises(OutputExists, match="source"):
        dc.run(dc.plan(**options, resume=True), cluster)


def test_more_bad_rows_than_allowed_then_resume_with_more(cluster, tmp_path, classifiers):
    file = tmp_path / "in.csv"
    file.write_bytes(b"id,a\n" + b"".join(b"%d,%s\n" % (i, b"BAD" if i % 100 == 50 else b"x") for i in range(1000)))
    options = {"input": file, "output": tmp_path / "run", "classifier": classifiers("fails_on_bad"), "block_rows": 100}
    with pytest.raises(TooManyBadRows, match="4 are allowed"):
        dc.run(dc.plan(**options, max_bad=4), cluster)
    with pytest.raises(TooManyBadRows):
        dc.run(dc.plan(**options, max_bad=4, resume=True), cluster)
    result = dc.run(dc.plan(**options, max_bad=10, resume=True), cluster)
    assert (result.rows, result.bad_rows) == (990, 10)


def test_resume_of_a_complete_run_that_lost_a_part(cluster, tmp_path, run_bytes, classifiers):
    options = {"rows": 500, "output": tmp_path / "run", "classifier": classifiers("lengths"), "block_rows": 100}
    dc.run(dc.plan(**options), cluster)
    (tmp_path / "run/parts/part-00002.csv.gz").unlink()
    dc.run(dc.plan(**options, resume=True), cluster).verify()
    assert run_bytes(tmp_path / "run") == reference(csv_of(500), known.lengths)


def test_resume_of_a_complete_run_of_a_packed_file_that_lost_a_part(cluster, tmp_path, run_bytes, classifiers):
    """The unpacked copy went when the run was complete."""
    text = csv_of(500)
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(text))
    options = {"input": tmp_path / "in.csv.gz", "classifier": classifiers("lengths"), "block_rows": 100}
    dc.run(dc.plan(**options, output=tmp_path / "run"), cluster)
    assert not list((tmp_path / "run").glob("unpacked/*"))
    (tmp_path / "run/parts/part-00002.csv.gz").unlink()
    dc.run(dc.plan(**options, output=tmp_path / "run", resume=True), cluster).verify()
    assert run_bytes(tmp_path / "run") == reference(text, known.lengths)
    assert not list((tmp_path / "run").glob("unpacked/*"))


def test_resume_unpacks_only_what_missing_blocks_read(cluster, tmp_path, run_bytes, classifiers, monkeypatch):
    monkeypatch.setattr(csv_files, "SMALL_BYTES", dict.fromkeys(csv_files.SMALL_BYTES, 1000))
    for name in "abc":
        (tmp_path / f"{name}.csv.gz").write_bytes(gzip.compress(csv_of(200)))
    options = {"input": tmp_path / "*.csv.gz", "classifier": classifiers("lengths"), "block_rows": 100}
    dc.run(dc.plan(**options, output=tmp_path / "run"), cluster)
    whole = run_bytes(tmp_path / "run")
    (tmp_path / "run/parts/part-00003.csv.gz").unlink()  # the second one of b
    read, real = [], GrowingCut._unpack

    def noting(self, number, order, is_over):
        read.append((self.cut.source.files[number].url.rpartition("/")[2], order.first, order.sizes))
        return real(self, number, order, is_over)

    monkeypatch.setattr(GrowingCut, "_unpack", noting)
    dc.run(dc.plan(**options, output=tmp_path / "run", resume=True), cluster).verify()
    assert read == [("b.csv.gz", 100, (100,))] and run_bytes(tmp_path / "run") == whole


def test_receipts_of_another_cut_are_not_taken(cluster, tmp_path, run_bytes, classifiers):
    """Two commands on one output measure, and so cut, differently: the fingerprint of a receipt is of its cut."""
    options = {"rows": 2000, "classifier": classifiers("lengths")}
    dc.run(dc.plan(**options, output=tmp_path / "run"), cluster)
    with dc.LocalCluster(1, dashboard_address="127.0.0.1:0") as other:
        dc.run(dc.plan(**options, output=tmp_path / "other"), other)
    cuts = [json.loads((tmp_path / name / "plan.json").read_text())["blocks"] for name in ("run", "other")]
    assert cuts[0] != cuts[1]
    for file in (tmp_path / "other/parts").glob("part-00000*"):
        shutil.copy(file, tmp_path / "run/parts")
    (tmp_path / "run/manifest.json").unlink()
    dc.run(dc.plan(**options, output=tmp_path / "run", resume=True), cluster).verify()
    assert run_bytes(tmp_path / "run") == reference(csv_of(2000), known.lengths)


def test_a_moved_run_of_a_compressed_file_is_resumed_where_it_is(cluster, tmp_path, run_bytes, classifiers):
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(csv_of(500)))
    options = {"input": tmp_path / "in.csv.gz", "classifier": classifiers("lengths"), "block_rows": 100}
    dc.run(dc.plan(**options, output=tmp_path / "one"), cluster)
    whole = run_bytes(tmp_path / "one")
    (tmp_path / "one/parts/part-00003.json").unlink()
    (tmp_path / "one").rename(tmp_path / "two")
    dc.run(dc.plan(**options, output=tmp_path / "two", resume=True), cluster).verify()
    assert run_bytes(tmp_path / "two") == whole and not (tmp_path / "one").exists()
