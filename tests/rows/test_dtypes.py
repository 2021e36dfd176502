"""Columns of CSV and JSON Lines with types, compared with pandas' read_csv(dtype=...) in one process."""

import io

import numpy as np
import pandas as pd
import pytest

import dask_classifier as dc
from dask_classifier.errors import UsageError
from dask_classifier.rows.types import TYPES, parse_types

DTYPE = "n=Int64,x=float64,when=datetime64,yes=boolean"


def text(rows=1234):
    random = np.random.default_rng(1)
    lines = ["id,n,x,when,yes,text"]
    for row in range(rows):
        n = "" if row % 9 == 0 else str(random.integers(2**60))
        x = ["", "NA", "none", repr(float(random.random() * 10.0 ** random.integers(-300, 300))), "1e3", "-0"][row % 6]
        when = "" if row % 7 == 0 else f"2026-01-{1 + row % 28:02d}" + (" 12:30:01" if row % 3 else "")
        lines.append(f'{row},{n},{x},{when},{["True", "false", ""][row % 3]},"NA {row}\n"')
    return "\n".join(lines) + "\n"


def uses_types(df):
    return df.assign(D=df["x"] * 2, M=df["n"].isna(), Y=df["when"].dt.year)


def alone(content, classifier):
    """One process with pandas."""
    frame = pd.read_csv(
        io.StringIO(content),
        dtype={"id": str, "n": "Int64", "x": "float64", "yes": "boolean", "text": str},
        parse_dates=["when"],
        date_format="ISO8601",
        keep_default_na=True,
        na_values={"x": ["none"]},
    ).set_index("id")
    frame["text"] = frame["text"].astype(str)
    chunks = [classifier(frame.iloc[first : first + 100]) for first in range(0, len(frame), 100)]
    return "".join(chunk.to_csv(header=False) for chunk in chunks).encode()


@pytest.mark.parametrize("block_rows", [100, 10**6])
@pytest.mark.parametrize("quoted", [True, False])
def test_values_are_those_of_read_csv(tmp_path, run_bytes, block_rows, quoted):
    content = text() if quoted else text().replace('"', "").replace("\n\n", "\n")
    (tmp_path / "in.csv").write_text(content)
    options = {"dtype": DTYPE, "na_values": "none", "block_rows": block_rows}
    dc.run(dc.plan(tmp_path / "in.csv", uses_types, tmp_path / "run", **options), "inline").verify()
    assert run_bytes(tmp_path / "run") == alone(content, uses_types)


def test_values_of_another_type_are_bad_rows_with_the_reason(cluster, tmp_path):
    (tmp_path / "in.csv").write_text("id,n,x\n" + "1,2,3.5\n" * 500 + "2,two,1\n3,,1\n4,4,x\n" + "5,6,7\n" * 100)
    plan = dc.plan(
        tmp_path / "in.csv",
        lambda c: c["n"] + c["x"],
        tmp_path / "run",
        max_bad=3,
        dtype={"n": "int64", "x": "float64"},
    )
    bad = dc.run(plan, cluster).quarantined()
    assert list(bad["row"].astype(int)) == [501, 502, 503] and list(bad["raw"]) == ["2,two,1", "3,,1", "4,4,x"]
    assert "'two'" in bad["reason"][0] and "Int64 allows that" in bad["reason"][1] and "'x'" in bad["reason"][2]


def test_types_of_json_lines_and_of_the_index(tmp_path, run_bytes):
    (tmp_path / "in.jsonl").write_text('{"id": 7, "x": 1.5}\n{"id": 8, "x": null}\n')
    plan = dc.plan(
        tmp_path / "in.jsonl", lambda c: c.assign(N=c.index * 2), tmp_path / "run", dtype="id=int64,x=float64"
    )
    dc.run(plan, "inline")
    assert run_bytes(tmp_path / "run") == b"7,1.5,14\n8,,16\n"


def test_types_are_part_of_a_runs_identity(tmp_path):
    (tmp_path / "in.csv").write_text("id,x\n1,2\n")
    options = {"input": tmp_path / "in.csv", "classifier": lambda c: c["x"], "output": tmp_path / "run"}
    dc.run(dc.plan(**options, dtype="x=int64"), "inline")
    with pytest.raises(dc.errors.OutputExists, match="its types was"):
        dc.run(dc.plan(**options, dtype="x=float64", resume=True), "inline")


@pytest.mark.parametrize("name", [name for name in TYPES if name not in {"str", "datetime64"}])
def test_pandas_knows_each_type(name):
    pd.Series([1, 0], dtype=name)


def test_what_is_not_understood(tmp_path):
    for wrong in ("x", "=int64", "x=integer", "x=category"):
        with pytest.raises(UsageError):
            parse_types(wrong)
    assert parse_types("a=b=int64") == (("a=b", "int64"),)
    (tmp_path / "in.csv").write_text("id,x\n1,2\n")
    with pytest.raises(UsageError, match="does not have the column 'y'"):
        dc.plan(tmp_path / "in.csv", lambda c: c, tmp_path / "run", dtype="y=int64")
    with pytest.raises(UsageError, match="na_values= has no effect with columns of text"):
        dc.plan(tmp_path / "in.csv", lambda c: c, tmp_path / "run", na_values="-")


def test_dates_have_the_same_type_in_every_chunk(tmp_path, run_bytes):
    """Whatever the rows: dates without and with a time, none at all; with a zone or nanoseconds, they are bad rows."""
    lines = ["2026-01-02"] * 100 + [""] * 100 + ["2026-01-02T03:04:05.000001"] * 100
    lines += ["2026-01-02T03:04+01:00", "2026-01-02T03:04Z", "2026-01-02T03:04:05.000000001"]
    (tmp_path / "in.csv").write_text("id,d\n" + "".join(f"{row},{line}\n" for row, line in enumerate(lines)))
    outputs = []
    for block_rows in (100, 10**6):
        name = f"run-{block_rows}"
        options = {"dtype": "d=datetime64", "max_bad": 3, "block_rows": block_rows}
        result = dc.run(
            dc.plan(tmp_path / "in.csv", lambda c: [str(c["d"].dtype)] * len(c), tmp_path / name, **options), "inline"
        )
        assert list(result.quarantined()["row"].astype(int)) == [301, 302, 303]
        assert set(result.to_pandas()["CLASSIFICATION"]) == {"datetime64[us]"}
        outputs.append(run_bytes(tmp_path / name))
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize(
    ("kind", "value"),
    [("Int64", "4.5"), ("Int8", "300"), ("UInt8", "-1"), ("int64", "1" * 23), ("boolean", "maybe"), ("bool", "")],
)
def test_a_value_that_pandas_refuses_in_another_way_is_a_bad_row(tmp_path, kind, value):
    (tmp_path / "in.csv").write_text("id,x\n" + f"1,{1 if kind != 'bool' else True}\n" * 150 + f"2,{value}\n")
    plan = dc.plan(tmp_path / "in.csv", lambda c: c["x"], tmp_path / "run", max_bad=1, dtype={"x": kind})
    assert list(dc.run(plan, "inline").quarantined()["row"].astype(int)) == [151]


def test_a_type_of_a_column_that_is_not_chosen(tmp_path):
    (tmp_path / "in.csv").write_text("id,x,y\n1,2,3\n")
    with pytest.raises(UsageError, match="The column 'y' is in dtype="):
        dc.plan(tmp_path / "in.csv", lambda c: c, tmp_path / "run", columns="id,x", dtype="y=int64")
