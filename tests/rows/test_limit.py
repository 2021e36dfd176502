"""Only the first rows, to try something out: the same bytes, and not more is read than needed."""

import gzip

import classifiers as known
import pandas as pd
import pytest
from generated_csv import csv_of
from reference import reference

import dask_classifier as dc
from dask_classifier.errors import OutputExists, UsageError
from dask_classifier.rows import csv_files, source
from dask_classifier.runs.outline import Outline


def beginning(text, rows):
    return b"".join(text.splitlines(keepends=True)[: rows + 1])


@pytest.mark.parametrize("limit", [1, 99, 100, 101, 1234, 4999, 5000, 9000])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_bytes_of_the_first_rows(tmp_path, run_bytes, classifiers, limit, suffix):
    text = csv_of(5000)
    (tmp_path / f"in.csv{suffix}").write_bytes(gzip.compress(text) if suffix else text)
    plan = dc.plan(tmp_path / f"in.csv{suffix}", classifiers("lengths"), tmp_path / "run", limit=limit, block_rows=700)
    result = dc.run(plan, "inline")
    assert result.rows == min(limit, 5000) and result.verify().rows == result.rows
    assert run_bytes(tmp_path / "run") == reference(beginning(text, limit), known.lengths)


@pytest.mark.parametrize("limit", [50, 250, 260, 700, 2000, 3300])
def test_of_several_files(cluster, tmp_path, run_bytes, classifiers, limit, monkeypatch):
    """Plain files before and behind one that flows."""
    monkeypatch.setattr(csv_files, "SMALL_BYTES", dict.fromkeys(csv_files.SMALL_BYTES, 1000))
    texts = [csv_of(250), csv_of(50), csv_of(2000), csv_of(1000)]
    for number, text in enumerate(texts):
        suffix = ".gz" if number == 2 else ""
        (tmp_path / f"{number}.csv{suffix}").write_bytes(gzip.compress(text) if suffix else text)
    plan = dc.plan(tmp_path / "?.csv*", classifiers("lengths"), tmp_path / "run", limit=limit, block_rows=200)
    assert len(plan.source.flowing) == 1
    result = dc.run(plan, cluster)
    assert result.verify().rows == limit
    expected, left = [], limit
    for text in texts:
        expected.append(reference(beginning(text, left), known.lengths))
        left -= min(left, text.count(b"\n") - 1)
        if not left:
            break
    assert run_bytes(tmp_path / "run") == b"".join(expected)


@pytest.mark.parametrize("quoted", [False, True])
def test_not_the_whole_file_is_surveyed(tmp_path, run_bytes, monkeypatch, quoted):
    """Of pieces of 64 KiB, only those with the first rows are read, wherever the limit lies among them."""
    monkeypatch.setattr(source, "SURVEY_BYTES", 2**16)
    monkeypatch.setattr(csv_files, "SURVEY_BYTES", 2**16)
    monkeypatch.setattr(csv_files, "MARK_SPACING", 2**12)
    value = '"a\n\nb"' if quoted else "abcdef"
    text = "id,t\n" + "".join(f"{row},{value}\n" for row in range(200_000))
    (tmp_path / "in.csv").write_text(text)
    surveyed = []
    survey = csv_files.CsvFile.survey
    monkeypatch.setattr(
        csv_files.CsvFile,
        "survey",
        lambda self, start, layout: (surveyed.append(start), survey(self, start, layout))[1],
    )
    for limit in (10, 4_000, 9_999, 10_000, 12_345, 30_001):
        surveyed.clear()
        plan = dc.plan(tmp_path / "in.csv", lambda c: c["t"], tmp_path / f"run-{limit}", limit=limit)
        assert dc.run(plan, "inline").verify().rows == limit
        rows = run_bytes(tmp_path / f"run-{limit}").decode()
        assert rows.startswith(f"0,{value},") and f"\n{limit - 1},{value}," in rows and f"\n{limit}," not in rows
        assert max(surveyed) <= limit * len(f"12345,{value}\n") + 4 * 2**16 < len(text) / 2


def test_parquet_and_generated_rows(tmp_path, run_bytes):
    for name in ("a", "b"):
        pd.DataFrame({"id": range(3000), "t": name}).to_parquet(tmp_path / f"{name}.parquet", row_group_size=500)
    plan = dc.plan(tmp_path / "*.parquet", lambda c: c["t"].str.len(), tmp_path / "run", limit=3700, block_rows=300)
    assert dc.run(plan, "inline").verify().rows == 3700
    assert run_bytes(tmp_path / "run").count(b",b,") == 700
    assert dc.run(dc.plan(rows=1000, slowness=1, output=tmp_path / "rows", limit=300), "inline").rows == 300


def test_it_is_another_run(tmp_path, classifiers):
    (tmp_path / "in.csv").write_bytes(csv_of(500))
    options = {"input": tmp_path / "in.csv", "classifier": classifiers("lengths"), "output": tmp_path / "run"}
    dc.run(dc.plan(**options, limit=200), "inline")
    with pytest.raises(OutputExists, match="rows at most was 200 and is now null"):
        dc.run(dc.plan(**options, resume=True), "inline")
    assert dc.run(dc.plan(**options, limit=200, resume=True), "inline").rows == 200
    for wrong in (0, "many"):
        with pytest.raises(UsageError):
            dc.plan(**options, limit=wrong)


def test_an_outline_knows_it(tmp_path, classifiers):
    (tmp_path / "in.csv").write_bytes(csv_of(5000))
    for limit, expected in ((300, "300"), (4000, "about 4,000"), (10**6, "about 5,")):
        plan = dc.plan(tmp_path / "in.csv", classifiers("lengths"), tmp_path / "run", limit=limit)
        assert Outline.of(plan, 2).words["rows"].startswith(expected)
    assert dc.estimate(dc.plan(tmp_path / "in.csv", classifiers("lengths"), tmp_path / "run", limit=300)).rows == 300


def test_of_a_large_dataframe_and_of_a_file_that_is_not_looked_at(tmp_path, monkeypatch):
    """Both are surveyed in part, and end for that where the survey ended."""
    for module in (source, csv_files):
        monkeypatch.setattr(module, "SURVEY_BYTES", 2000)
    monkeypatch.setattr(csv_files, "MAX_ROW_BYTES", 4000)
    frame = pd.DataFrame({"id": range(5000), "t": "x"})
    assert dc.classify(frame, lambda c: c["t"], tmp_path / "frame", cluster="inline", limit=10).rows == 10
    for number in range(16):
        (tmp_path / f"{number:02d}.csv").write_text("id,t\n1,x\n")
    frame.to_csv(tmp_path / "16.csv", index=False)
    plan = dc.plan(tmp_path / "??.csv", lambda c: c["t"], tmp_path / "run", limit=100)
    assert dc.run(plan, "inline").verify().rows == 100


def test_rows_behind_the_limit_do_no_harm(tmp_path):
    (tmp_path / "in.csv").write_text("id,t\n" + "1,x\n" * 50 + "bad,row,here\n" + "1,x\n" * 5000)
    plan = dc.plan(tmp_path / "in.csv", lambda c: c["t"], tmp_path / "run", limit=10)
    assert dc.run(plan, "inline").rows == 10
    assert dc.estimate(plan, "inline").rows == 10
