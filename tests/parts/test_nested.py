"""Lists, structs and other nested values of Parquet, in parts of each format."""

import datetime
import decimal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dask_classifier as dc
from dask_classifier.parts.formats import FORMATS
from dask_classifier.show import samples

LONG = list(range(1500))  # pandas writes the first and the last three of more than 1,000


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file with columns of types whose names pandas writes to Parquet, but cannot read."""
    rows = range(250)
    table = pa.table(
        {
            "id": list(rows),
            "tags": pa.array([["a", f"b{row}"] if row % 2 else None for row in rows], pa.list_(pa.string())),
            "place": pa.array([{"x": row} for row in rows], pa.struct([("x", pa.int64())])),
            "pairs": pa.array([[("k", row)] for row in rows], pa.map_(pa.string(), pa.int64())),
            "long": pa.array([LONG for _ in rows], pa.list_(pa.int64())),
            "price": pa.array([decimal.Decimal("1.50")] * 250, pa.decimal128(10, 2)),
            "code": pa.array([b"ab"] * 250, pa.binary(2)),
        }
    )
    path = tmp_path_factory.mktemp("nested") / "in.parquet"
    pq.write_table(table, path)
    return path


def tagged(chunk):
    """The chunk, and whether a row has tags."""
    return chunk.assign(tagged=chunk["tags"].notna())


@pytest.fixture(scope="module", params=FORMATS)
def run(request, file, tmp_path_factory):
    """The run with parts in each format, and a single file."""
    options = {"typed": True, "block_rows": 100, "output_format": request.param}
    folder = tmp_path_factory.mktemp("run") / "of one format"
    return dc.run(dc.plan(file, tagged, folder, single_file=True, **options), "inline")


def expected(run, name, value):
    """The value of a column as the format has it: Python's own, or its text."""
    return value if run.part_format.name == "parquet" else str(value)


def test_a_run_gives_nested_values_back_in_full(run):
    assert run.verify().rows == 250
    for frame in (run.head(2), run.to_pandas().head(2), run.to_dask().head(2)):
        row = frame.iloc[1]
        assert row["tags"] == expected(run, "tags", ["a", "b1"])
        assert row["place"] == expected(run, "place", {"x": 1})
        assert row["pairs"] == expected(run, "pairs", [("k", 1)])
        assert row["long"] == expected(run, "long", LONG)
        assert str(row["price"]) == "1.50"
        assert row["tagged"]
        assert pd.isna(frame.iloc[0]["tags"]) or frame.iloc[0]["tags"] == ""


def test_a_run_with_nested_values_is_fetched_as_csv(run, tmp_path):
    run.fetch(tmp_path / "all.csv")
    frame = pd.read_csv(tmp_path / "all.csv")
    assert frame["long"].unique().tolist() == [str(LONG)]
    assert frame["tags"].isna()[0] and frame["tags"][1] == "['a', 'b1']"
    assert frame["place"][7] == "{'x': 7}"
    assert "['a', 'b1']" in run.first_lines(2)


def test_the_report_samples_nested_values(run):
    tags = samples.answers(run, ["id", "place"])
    assert "['a', 'b1']" in str(tags)


def test_a_bad_row_has_all_of_its_values(file, tmp_path):
    def fails_on_seven(chunk):
        if (chunk["place"].struct.field("x") == 7).any():
            raise ValueError("seven")
        return chunk

    plan = dc.plan(file, fails_on_seven, tmp_path / "run", typed=True, max_bad=1, columns="id,place,long")
    (bad,) = dc.run(plan, "inline").quarantined().to_dict("records")
    assert bad["row"] == 8 and bad["raw"] == f"7,{{'x': 7}},\"{LONG}\""


def test_the_report_samples_dates_that_python_does_not_have(tmp_path):
    like = datetime.date(1970, 1, 1) + datetime.timedelta(4_000_000 - 27 * 146_097)  # 27 times 400 years before
    days = pa.array([4_000_000] * 50, pa.date32())
    pq.write_table(pa.table({"id": list(range(50)), "day": days}), tmp_path / "in.parquet")
    options = {"typed": True, "output_format": "parquet"}
    result = dc.run(dc.plan(tmp_path / "in.parquet", lambda c: c, tmp_path / "run", **options), "inline")
    (answers,) = samples.answers(result, ["id"])
    assert answers.values == ((f"{like.year + 27 * 400}-{like:%m-%d}", 50),)


def test_pandas_reads_nested_values_from_parquet(run, tmp_path):
    run.fetch(tmp_path / "all.parquet")
    files = {tmp_path / "all.parquet": 250}
    if run.part_format.name == "parquet":
        files |= {run.urls()[0]: 100, f"{run.output}/result.parquet": 250}
    for file, rows in files.items():
        frame = pd.read_parquet(file)
        long = frame["long"][3]
        assert len(frame) == rows
        assert (long if isinstance(long, str) else list(long)) == expected(run, "long", LONG)


def test_nested_dates_that_python_does_not_have(tmp_path):
    days = pa.array([[4_000_000]] * 50, pa.list_(pa.date32()))
    pq.write_table(pa.table({"id": list(range(50)), "days": days}), tmp_path / "in.parquet")
    options = {"typed": True, "output_format": "parquet"}
    result = dc.run(dc.plan(tmp_path / "in.parquet", lambda c: c, tmp_path / "run", **options), "inline")
    assert len(result.to_pandas()) == len(result.head(50)) == 50
    (answers,) = samples.answers(result, ["id"])
    assert answers.rows == 50


def test_types_that_pandas_knows_stay_in_the_metadata(file, tmp_path):
    columns = ["id", "place"]
    plan = dc.plan(file, "blackbox", tmp_path / "run", typed=True, output_format="parquet", columns=columns)
    result = dc.run(plan, "inline")
    metadata = pq.read_schema(result.urls()[0]).pandas_metadata
    types = {column["name"]: column["numpy_type"] for column in metadata["columns"]}
    assert (types["id"], types["place"]) == ("int64[pyarrow]", "object")
