"""Formats of parts: JSON Lines beside CSV and Parquet, and what each of them must do."""

import gzip
import inspect
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import dask_classifier as dc
from dask_classifier.errors import UsageError, WrongAnswer
from dask_classifier.parts.formats import FORMATS, format_of_file
from dask_classifier.parts.part_format import PartFormat
from dask_classifier.show import samples

LARGE = 9007199254740993  # not a float


def every_type(chunk):
    """Columns of the types that are written in ways of their own, with missing values among them."""
    odd = np.arange(len(chunk)) % 2 == 1
    return chunk.assign(
        large=LARGE + np.arange(len(chunk)),
        third=np.linspace(0, 1, len(chunk)) / 3,
        single=np.float32(0.1),
        endless=np.where(odd, np.inf, np.nan),
        odd=odd,
        maybe=pd.array(np.where(odd, None, 1), dtype="Int64"),
        when=pd.date_range("2026-01-01", periods=len(chunk), freq="h"),
        word=np.where(odd, None, "t"),
    )


@pytest.fixture
def in_formats(tmp_path):
    """The same run in two formats."""
    rows = "".join(f'{number},"x\ny{number}",\n' for number in range(229))
    (tmp_path / "in.csv").write_text(f'id,a,b\n{rows}7,"é ""q""\r",z\n', newline="")
    options = {"input": tmp_path / "in.csv", "classifier": every_type, "block_rows": 100}
    runs = {
        name: dc.run(dc.plan(**options, output_format=name, output=tmp_path / name), "inline")
        for name in ("csv.gz", "jsonl.gz")
    }
    return runs["csv.gz"], runs["jsonl.gz"]


def test_each_format_implements_all_of_the_interface():
    for part_format in FORMATS.values():
        assert isinstance(part_format, PartFormat) and not inspect.isabstract(type(part_format))


def test_json_lines_hold_an_object_for_each_row(in_formats, tmp_path):
    _, run = in_formats
    assert run.verify().rows == 230
    lines = gzip.decompress((tmp_path / "jsonl.gz/parts/part-00000.jsonl.gz").read_bytes()).decode().splitlines()
    assert len(lines) == 100
    assert json.loads(lines[0]) == {
        "id": "0", "a": "x\ny0", "b": "", "large": LARGE, "third": 0.0, "single": 0.1, "endless": None, "odd": False,
        "maybe": 1, "when": "2026-01-01 00:00:00", "word": "t",
    }  # fmt: skip
    assert json.loads(lines[1])["endless"] == "inf" and json.loads(lines[1])["word"] is None
    assert f'"large": {LARGE}' in lines[0], "not as a float"


def test_json_lines_are_fetched_and_read_as_csv_is(in_formats, tmp_path):
    csv, jsonl = in_formats
    for name in ("all.csv", "all.csv.gz", "all.csv.zst"):
        csv.fetch(tmp_path / f"1.{name}"), jsonl.fetch(tmp_path / f"2.{name}")
        assert (tmp_path / f"1.{name}").read_bytes() == (tmp_path / f"2.{name}").read_bytes()
    assert csv.first_lines(2) == jsonl.first_lines(2)
    frame, expected = jsonl.to_pandas(), csv.to_pandas()
    assert frame.dtypes.equals(expected.dtypes)
    assert frame["word"].isna().sum() == 115, "null is a missing value, where CSV has only the empty text"
    pd.testing.assert_frame_equal(frame.fillna({"word": ""}), expected)
    jsonl.fetch(tmp_path / "all.parquet")
    assert pd.read_parquet(tmp_path / "all.parquet").large.tolist()[:2] == [LARGE, LARGE + 1]


def test_a_run_in_csv_is_fetched_as_json_lines(in_formats, tmp_path):
    csv, jsonl = in_formats
    csv.fetch(tmp_path / "1.jsonl.gz"), jsonl.fetch(tmp_path / "2.jsonl.gz")
    one, two = (
        [json.loads(line) for line in gzip.decompress((tmp_path / name).read_bytes()).decode().splitlines()]
        for name in ("1.jsonl.gz", "2.jsonl.gz")
    )
    assert one == [row | {"word": row["word"] or ""} for row in two]


def test_the_report_samples_json_lines(in_formats):
    csv, jsonl = in_formats
    assert samples.answers(csv, ["id", "a", "b"]) == samples.answers(jsonl, ["id", "a", "b"])


def test_json_lines_of_nothing_and_of_columns_with_one_name(tmp_path):
    (tmp_path / "in.csv").write_text("id,a\n")
    options = {"input": tmp_path / "in.csv", "output_format": "jsonl.gz"}
    empty = dc.run(dc.plan(**options, output=tmp_path / "empty", classifier=lambda chunk: chunk), "inline")
    assert empty.verify().rows == 0 and len(empty.to_pandas()) == 0
    (tmp_path / "in.csv").write_text("id,a\n1,x\n")

    def twice(chunk):
        return pd.concat([chunk, chunk], axis=1)

    run = dc.run(dc.plan(**options, output=tmp_path / "twice", classifier=twice), "inline")
    assert list(run.to_pandas().columns) == ["a", "a.1"]


def test_a_file_gets_the_format_of_its_suffix():
    names = {"a.csv": "csv", "a": "csv", "a.gz": "csv.gz", "A.CSV.ZST": "csv.zst", "a.parquet": "parquet"}
    names |= {"b/a.jsonl.gz": "jsonl.gz", "a.2026.csv": "csv"}
    assert {name: format_of_file(name).name for name in names} == names
    for name in ("a.jsonl", "a.parquet.gz", "a.xlsx", "a.json.gz"):
        with pytest.raises(UsageError, match="is not a supported format"):
            format_of_file(name)


def test_text_of_any_type_and_length_is_json(tmp_path):
    """In columns of Arrow's text, of categories and of objects."""
    texts = ["a\rb", 'c,"d"\r\n', "x" * 200_000, ""]
    (tmp_path / "in.csv").write_text("id\n1\n2\n3\n4\n")
    kinds = {"arrow": "string[pyarrow]", "category": "category", "object": object}

    def answer(chunk):
        return chunk.assign(**{name: pd.Series(texts, chunk.index, dtype=kind) for name, kind in kinds.items()})

    run = dc.run(dc.plan(tmp_path / "in.csv", answer, tmp_path / "run", output_format="jsonl.gz"), "inline")
    (part,) = (tmp_path / "run/parts").glob("*.jsonl.gz")
    objects = [json.loads(line) for line in gzip.decompress(part.read_bytes()).decode().split("\n") if line]
    assert all([each[name] for each in objects] == texts for name in kinds)
    assert run.verify().rows == 4 and run.to_pandas()["object"].tolist() == texts


@pytest.mark.parametrize("kind", [object, pd.StringDtype("python", na_value=np.nan)])
def test_text_that_is_not_unicode_is_no_json(tmp_path, kind):
    (tmp_path / "in.csv").write_text("id\n1\n")
    options = {"output": tmp_path / "run", "output_format": "jsonl.gz"}
    plan = dc.plan(tmp_path / "in.csv", lambda c: c.assign(x=pd.Series(["\ud800"], c.index, dtype=kind)), **options)
    with pytest.raises(WrongAnswer, match="text that is not Unicode"):
        dc.run(plan, "inline")


def test_a_column_named_like_the_index_is_json(tmp_path):
    (tmp_path / "in.csv").write_text("id,x\n1,2\n")
    options = {"output": tmp_path / "run", "output_format": "jsonl.gz"}
    dc.run(dc.plan(tmp_path / "in.csv", lambda chunk: chunk.assign(id=chunk.index), **options), "inline")
    (part,) = (tmp_path / "run/parts").glob("*.jsonl.gz")
    assert json.loads(gzip.decompress(part.read_bytes())) == {"id": "1", "x": "2", "id.1": "1"}


@pytest.mark.parametrize("name", list(FORMATS))
def test_reading_a_part_starts_no_threads(name):
    """One that still holds the part when the interpreter ends aborts the process."""
    script = f"""
import pandas as pd, psutil, pyarrow, pyarrow.parquet
from dask_classifier.parts.formats import FORMATS

part_format = FORMATS[{name!r}]
part = part_format.encode([pd.DataFrame({{"a": ["x", "y"], "b": [1, 2], "c": [0.5, 0.25]}})], None, header=False)
before = psutil.Process().num_threads()
for _ in range(3):
    part_format.text(part, header=False)
print(psutil.Process().num_threads() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    assert done.stdout == "0\n", done.stderr
