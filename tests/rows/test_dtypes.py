"""Columns of CSV and JSON Lines with types, compared with pandas' read_csv(dtype=...) in one process."""

import gzip
import io

import numpy as np
import pandas as pd
import pytest

import dask_classifier as dc
from dask_classifier.errors import SourceError, UsageError
from dask_classifier.rows.layouts import Layout
from dask_classifier.rows.types import TYPES, converted, parse_types

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
    assert parse_types({"price, USD": "float64"}) == (("price, USD", "float64"),)
    (tmp_path / "in.csv").write_text("id,x\n1,2\n")
    with pytest.raises(UsageError, match="does not have the column 'y'"):
        dc.plan(tmp_path / "in.csv", lambda c: c, tmp_path / "run", dtype="y=int64")
    with pytest.raises(UsageError, match="na_values= has no effect with columns of text"):
        dc.plan(tmp_path / "in.csv", lambda c: c, tmp_path / "run", na_values="-")


def test_dates_have_the_same_type_in_every_chunk(tmp_path, run_bytes):
    """Whatever the rows: dates without and with a time, or none; with a zone, nanoseconds, or "now", they are bad."""
    lines = ["2026-01-02"] * 100 + [""] * 100 + ["2026-01-02T03:04:05.000001"] * 100
    lines += ["2026-01-02T03:04+01:00", "2026-01-02T03:04Z", "2026-01-02T03:04:05.000000001", "now", "today"]
    (tmp_path / "in.csv").write_text("id,d\n" + "".join(f"{row},{line}\n" for row, line in enumerate(lines)))
    outputs = []
    for block_rows in (100, 10**6):
        name = f"run-{block_rows}"
        options = {"dtype": "d=datetime64", "max_bad": 5, "block_rows": block_rows}
        result = dc.run(
            dc.plan(tmp_path / "in.csv", lambda c: [str(c["d"].dtype)] * len(c), tmp_path / name, **options), "inline"
        )
        assert list(result.quarantined()["row"].astype(int)) == [301, 302, 303, 304, 305]
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


# --- guessed types -----------------------------------------------------------------------------------------


def test_guessed_types_are_those_that_all_values_have(tmp_path, run_bytes):
    """Also where only a row in the middle of the file tells, which the first rows do not show."""
    rows = 40_000
    lines = ["id,n,x,when,yes,code,text,late,none"]
    for row in range(rows):
        n, late = "" if row % 9 == 0 else row - 100, "1" if row < rows // 2 else "one"
        when = "2026-01-31" if row % 2 else "2026-01-31T12:00:00"
        lines.append(f"{row},{n},{row / 7},{when},{['true', 'NA', 'false'][row % 3]},{row:06},a{row},{late},")
    (tmp_path / "in.csv").write_text("\n".join(lines) + "\n")
    expected = {"n": "Int64", "x": "float64", "when": "datetime64", "yes": "boolean"}
    plan = dc.plan(tmp_path / "in.csv", uses_types, tmp_path / "run", infer_types=True)
    assert dict(plan.source.layout.types) == expected
    assert "n=Int64" in plan.words["types"]
    dc.run(plan, "inline").verify()
    given = dc.plan(tmp_path / "in.csv", uses_types, tmp_path / "given", dtype=expected)
    dc.run(given, "inline")
    assert run_bytes(tmp_path / "run") == run_bytes(tmp_path / "given")
    dc.run(dc.plan(tmp_path / "in.csv", uses_types, tmp_path / "run", infer_types=True, resume=True), "inline")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-2", "0"], "Int64"),
        (["007", "1"], None),
        (["+1", "2"], None),
        ([" 1", "2"], None),
        (["9" * 18, "1"], "Int64"),
        (["9" * 19, "1"], None),
        (["9" * 16, "0.5"], None),
        (["1", "2.5", "-3e7"], "float64"),
        (["1", "NA", ""], "Int64"),
        (["", "null"], None),
        (["2026-01-31", "2026-02-01 12:00"], "datetime64"),
        (["2026-01-31T12:00:00Z"], None),
        (["2026-01-31", "0000-00-00"], None),
        (["2026-02-30"], None),
        (["9999-12-31"], "datetime64"),
        (["20260131"], "Int64"),
        (["True", "FALSE"], "boolean"),
        (["yes", "no"], None),
        (["1", "x"], None),
        (["-", "1"], None),
    ],
)
def test_what_is_guessed(tmp_path, values, kind):
    (tmp_path / "in.csv").write_text("id,a\n" + "".join(f"{row},{value}\n" for row, value in enumerate(values)))
    plan = dc.plan(tmp_path / "in.csv", lambda c: c["a"], tmp_path / "run", infer_types=True)
    assert dict(plan.source.layout.types).get("a") == kind


@pytest.mark.parametrize("every", [300, 25])
def test_malformed_rows_prevent_no_guess(tmp_path, command, every):
    """A row with a field too many is one bad row, and not the end of all guesses."""
    lines = [f"{row},{row / 2}" + ",surplus" * (row % every == every - 1) for row in range(3000)]
    (tmp_path / "in.csv").write_text("id,price\n" + "\n".join(lines) + "\n")
    (tmp_path / "mine.py").write_text("def twice(df):\n    return df['price'] * 2\n")
    words = ["--input", "in.csv", "--classifier", "mine.py:twice", "--infer-types", "--max-bad", 3000 // every]
    shown = command("plan", *words, check=0).stdout
    assert "types        price=float64\n" in shown
    command(*words, "--output", "run", check=0)
    assert dc.open_run(tmp_path / "run").to_pandas()["price"].iloc[1] == 0.5
    assert len(dc.open_run(tmp_path / "run").quarantined()) == 3000 // every


def test_rows_of_another_format_give_no_guess(tmp_path):
    (tmp_path / "in.csv").write_text("id,price\n" + "1,2,3\n" * 100 + "1,2\n")
    with pytest.raises(SourceError, match="Types cannot be guessed: there are too many malformed rows"):
        dc.plan(tmp_path / "in.csv", lambda c: c["price"], tmp_path / "run", infer_types=True)


def test_given_types_and_texts_come_before_guesses(tmp_path):
    (tmp_path / "in.csv").write_text("id,a,b,c\n1,2,-,3\n2,3,4,x\n")
    options = {"dtype": "a=float32", "na_values": "-", "columns": "id,a,b", "infer_types": True}
    plan = dc.plan(tmp_path / "in.csv", lambda c: c["a"], tmp_path / "run", **options)
    assert plan.source.layout.types == (("a", "float32"), ("b", "Int64"))


def test_guesses_of_json_lines_and_compressed_files(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"id": 1, "x": 1.5, "t": "5"}\n{"id": 2, "x": null, "t": "a"}\n')
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(b'id,x,"t"\n1,1.5,a\n2,,"b\n"\n'))
    for name in ("in.jsonl", "in.csv.gz"):
        plan = dc.plan(tmp_path / name, lambda c: c["x"], tmp_path / "run", infer_types=True)
        assert plan.source.layout.types == (("x", "float64"),)


def test_a_value_that_does_not_fit_a_guess_is_a_bad_row(tmp_path):
    lines = [f"{row},{row}" for row in range(100_000)]
    lines[1234] = "1234,many"
    (tmp_path / "in.csv").write_text("id,n\n" + "\n".join(lines))
    plan = dc.plan(tmp_path / "in.csv", lambda c: c["n"] * 2, tmp_path / "run", infer_types=True, max_bad=1)
    bad = dc.run(plan, "inline").quarantined()
    assert list(bad["row"].astype(int)) == [1235] and "'many'" in bad["reason"][0]


def test_a_value_that_a_guess_would_change_is_a_bad_row(tmp_path):
    """An identifier among numbers, far from the rows that were looked at; pandas would take each of them."""
    odd = {"n": ["00501", "5.0", "+5", " 5"], "yes": ["1", "0"], "when": ["2026"], "x": ["1234567890123456789"]}
    lines = [[str(row), "7", "True", "2026-01-31", "0.5"] for row in range(100_000)]
    places = [(name, value) for name, values in odd.items() for value in values]
    for row, (name, value) in enumerate(places, 1234):
        lines[row][["id", "n", "yes", "when", "x"].index(name)] = value
    (tmp_path / "in.csv").write_text("id,n,yes,when,x\n" + "".join(f"{','.join(line)}\n" for line in lines))
    plan = dc.plan(tmp_path / "in.csv", lambda c: c["n"], tmp_path / "run", infer_types=True, max_bad=20)
    assert [kind for _, kind in plan.source.layout.types] == ["Int64", "boolean", "datetime64", "float64"]
    bad = dc.run(plan, "inline").quarantined()
    assert bad["row"].astype(int).tolist() == list(range(1235, 1235 + len(places)))
    for reason, (_, value) in zip(bad["reason"], places, strict=True):
        assert f"{value!r} is not written like the other values of its column" in reason


@pytest.mark.parametrize("kind", ["Int64", "int64", "uint64"])
def test_a_whole_number_does_not_depend_on_the_other_rows(tmp_path, run_bytes, kind):
    """One that is written like a float would make floats of all, which have no odd numbers beyond 2**53."""
    values = [2**53 + 1 + 2 * row for row in range(200)]
    text = [str(value) for value in values]
    text[150] = "5.0"
    (tmp_path / "in.csv").write_text("id,n\n" + "".join(f"{row},{value}\n" for row, value in enumerate(text)))
    outputs = []
    for block_rows in (100, 200):
        name = f"run-{block_rows}"
        made = dc.plan(tmp_path / "in.csv", lambda c: c, tmp_path / name, dtype={"n": kind}, block_rows=block_rows)
        result = dc.run(made, "inline")
        assert result.to_pandas()["n"].tolist() == [*values[:150], 5, *values[151:]]
        outputs.append(run_bytes(tmp_path / name))
    assert outputs[0] == outputs[1]


def test_where_guessing_has_no_effect(tmp_path):
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "in.parquet")
    (tmp_path / "in.csv").write_text("1,2\n")
    for source, more in ((tmp_path / "in.parquet", {}), (tmp_path / "in.csv", {"header_row": False})):
        with pytest.raises(UsageError, match="has no effect"):
            dc.plan(source, lambda c: c, tmp_path / "run", infer_types=True, **more)
    with pytest.raises(UsageError, match="has no effect with generated rows"):
        dc.plan(rows=10, infer_types=True)


# --- the index ---------------------------------------------------------------------------------------------


def shows_its_index(df):
    return df.assign(I=[f"{df.index.name}={value}" for value in df.index], C="+".join(df.columns))


@pytest.mark.parametrize("block_rows", [100, 300, 10**6])
def test_an_index_of_row_numbers(tmp_path, run_bytes, block_rows):
    """Each file's rows are numbered from 1, also behind bad rows; the first column is one of the classifier's."""
    for name, rows in (("a", 250), ("b", 30)):
        lines = [f"{name}{row},{row}" for row in range(rows)]
        lines[7] = "bad,row,here"
        (tmp_path / f"{name}.csv").write_text("id,n\n" + "\n".join(lines) + "\n")
    options = {"index": "none", "max_bad": 2, "block_rows": block_rows}
    result = dc.run(dc.plan(tmp_path / "?.csv", shows_its_index, tmp_path / "run", **options), "inline")
    expected = "".join(
        f"{row + 1},{name}{row},{row},row={row + 1},id+n\n"
        for name, rows in (("a", 250), ("b", 30))
        for row in range(rows)
        if row != 7
    )
    assert run_bytes(tmp_path / "run").decode() == expected
    assert result.to_pandas().index.name == "row" and list(result.quarantined()["row"].astype(int)) == [8, 8]


def test_values_beside_row_numbers(tmp_path, run_bytes):
    (tmp_path / "in.csv").write_text("n,t\n1,a\n2,b\n")
    dc.run(dc.plan(tmp_path / "in.csv", lambda c: c["n"], tmp_path / "run", index="none", dtype="n=int64"), "inline")
    assert run_bytes(tmp_path / "run") == b"1,1,a,1\n2,2,b,2\n"


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("typed", [False, True])
def test_another_column_as_the_index(tmp_path, run_bytes, suffix, typed):
    frame = pd.DataFrame({"n": [1, 2], "id": ["a", "b"]})
    write = {"csv": frame.to_csv, "parquet": frame.to_parquet}
    if suffix == "jsonl":
        frame.to_json(tmp_path / "in.jsonl", orient="records", lines=True)
    else:
        write[suffix](tmp_path / f"in.{suffix}", index=False)
    options = {"typed": True} if typed and suffix == "parquet" else {"infer_types": True} if typed else {}
    if suffix == "parquet" and typed is False:
        options = {}
    for index, expected in (("id", "a,1,id=a,n\nb,2,id=b,n\n"), ("none", "1,1,a,row=1,n+id\n2,2,b,row=2,n+id\n")):
        output = tmp_path / f"run-{index}"
        dc.run(dc.plan(tmp_path / f"in.{suffix}", shows_its_index, output, index=index, **options), "inline")
        assert run_bytes(output).decode() == expected


def test_columns_without_names_have_numbers(tmp_path, run_bytes):
    (tmp_path / "in.csv").write_text("a,1,2.5\nb,2,\n")

    def classify(df):
        return df.assign(
            I=[f"{df.index.name}={value}" for value in df.index], T="+".join(f"{c}:{df[c].dtype}" for c in df)
        )

    def run(name, **options):
        plan = dc.plan(tmp_path / "in.csv", classify, tmp_path / name, header_row=False, **options)
        dc.run(plan, "inline")
        return run_bytes(tmp_path / name).decode()

    assert run("types", dtype="1=int64,2=float64").startswith("a,1,2.5,0=a,1:int64+2:float64")
    assert run("chosen", columns="2,1", index="1", dtype="2=float64") == "1,2.5,1=1,2:float64\n2,,1=2,2:float64\n"
    assert run("first", index="0", columns="1,0").startswith("a,1,0=a,1:str")
    with pytest.raises(UsageError, match="does not have the column 7"):
        run("none", columns="0,7")


def test_an_index_that_is_not_there(tmp_path):
    (tmp_path / "in.csv").write_text("id,n\n1,2\n")
    with pytest.raises(UsageError, match="does not have the column 'other'"):
        dc.plan(tmp_path / "in.csv", lambda c: c, tmp_path / "run", index="other")
    with pytest.raises(UsageError, match="in index=, but not in columns="):
        dc.plan(tmp_path / "in.csv", lambda c: c, tmp_path / "run", index="id", columns="n")
    with pytest.raises(UsageError, match="has no effect"):
        dc.plan(rows=10, index="SKU")
    (tmp_path / "rows.csv").write_text("id,row\n1,2\n")
    with pytest.raises(UsageError, match="has a column 'row'"):
        dc.plan(tmp_path / "rows.csv", lambda c: c, tmp_path / "run", index="none")


@pytest.mark.parametrize("output_format", ["csv.gz", "jsonl.gz", "parquet"])
def test_results_have_the_types_of_the_input(tmp_path, output_format):
    """Also the index, dates that the classifier has made, and dates that have no time in some of the parts."""
    dates = ["2026-01-02"] * 100 + [""] * 100 + ["2026-01-02T03:04:05.000001"] * 100
    lines = [
        f"{row},{row * 3},{row / 3!r},{row % 2 == 0},{'' if row % 7 else row},{date}" for row, date in enumerate(dates)
    ]
    (tmp_path / "in.csv").write_text("\n".join(["id,i,f,b,n,d", *lines, ""]))
    types = {"id": "int64", "i": "int64", "f": "float64", "b": "boolean", "n": "Int64"}
    plan = dc.plan(
        tmp_path / "in.csv", later, tmp_path / "run", dtype=types | {"d": "datetime64"}, block_rows=100,
        output_format=output_format,
    )  # fmt: skip
    result = dc.run(plan, "inline")
    expected = pd.read_csv(tmp_path / "in.csv", dtype=types, index_col="id")
    expected["d"] = pd.to_datetime(expected["d"], format="ISO8601").dt.as_unit("us")
    pd.testing.assert_frame_equal(result.to_pandas(), later(expected))
    pd.testing.assert_frame_equal(result.head(150), later(expected).head(150))


def later(chunk):
    stamp = pd.Timestamp("2026-01-01T00:00:00.000001")
    return chunk.assign(LATER=chunk["d"] + pd.Timedelta("1D"), STAMP=stamp)


@pytest.mark.parametrize(
    "date",
    [
        np.datetime64("12026-01-02", "s"),
        pd.Timestamp("2026-01-01T00:00:00.000000001"),
        pd.Timestamp("2026-01-02T00:00+01:00"),
        np.datetime64("0099-01-02", "s"),
    ],
)
def test_dates_that_cannot_be_read_again_are_text(tmp_path, date):
    """Also if other parts have others: a column has one type."""
    (tmp_path / "in.csv").write_text("id,x\n" + "1,2\n" * 100 + "1,3\n" * 100)

    def dated(chunk):
        when = pd.Timestamp("2026-01-02") if chunk["x"].iloc[0] == "2" else date
        return chunk.assign(WHEN=[when] * len(chunk))

    result = dc.run(dc.plan(tmp_path / "in.csv", dated, tmp_path / "run", block_rows=100), "inline")
    when = result.to_pandas()["WHEN"]
    assert when.dtype == "str" and when.iloc[0] == "2026-01-02" and len(set(when)) == 2
    result.fetch(tmp_path / "all.parquet")


def test_the_first_column_that_does_not_fit_is_named():
    """In the order of the types, whatever the hashes: the reason is in the quarantine, which is the same everywhere."""
    names = [f"c{number}" for number in range(20)]
    layout = Layout(types=tuple((name, "Int64") for name in names), guessed=tuple(reversed(names)))
    with pytest.raises(ValueError, match="'x0' is not written like"):
        converted(pd.DataFrame({name: [f"x{name[1:]}"] for name in names}, dtype="str"), layout)
