"""Reading a finished run in Python."""

import threading
import time

import pandas as pd
import pytest

import dask_classifier as dc
from dask_classifier.errors import DamagedRun, UsageError
from dask_classifier.runs.manifest import add_to_manifest
from dask_classifier.show.figures import figures


@pytest.fixture(scope="module")
def result(cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("result")
    return dc.run(dc.plan(rows=950, output=folder / "run", slowness=1, block_rows=300), cluster)


def test_head_to_pandas_and_to_dask_agree(result):
    frame = result.to_pandas()
    assert list(frame.columns) == ["SKU", "FLUX", "MANUFACTURER_NAME", "DESCRIPTION", "CLASSIFICATION"]
    assert frame.index.name == "ID" and frame.index.tolist() == [str(n) for n in range(950)]
    assert frame.CLASSIFICATION.between(0, 1).all() and pd.api.types.is_string_dtype(frame.SKU)
    pd.testing.assert_frame_equal(result.head(301), frame.head(301))
    dask_frame = result.to_dask()
    assert dask_frame.npartitions == 4
    assert dask_frame.CLASSIFICATION.mean().compute() == pytest.approx(frame.CLASSIFICATION.mean())
    assert (dask_frame.compute().CLASSIFICATION == frame.CLASSIFICATION).all()
    assert "950 rows" in repr(result)


def test_open_run_another_day(result, tmp_path):
    assert dc.open_run(result.output).manifest == result.manifest
    assert len(result.quarantined()) == 0
    with pytest.raises(DamagedRun, match="There is no run"):
        dc.open_run(tmp_path)


def test_an_hour_without_rows_has_the_columns_of_its_input(cluster, tmp_path):
    (tmp_path / "in.csv").write_text("id,a\n")
    empty = dc.run(dc.plan(input=tmp_path / "in.csv", output=tmp_path / "run", classifier="blackbox"), cluster)
    assert empty.columns == ["id", "a"] and list(empty.to_pandas().columns) == ["a"]
    empty.fetch(tmp_path / "x.parquet")
    frame = pd.read_parquet(tmp_path / "x.parquet")
    assert list(frame.columns) == ["id", "a"] and len(frame) == 0
    empty.fetch(tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == "id,a\n"


def test_bad_rows_of_a_parquet_run(cluster, tmp_path, classifiers):
    (tmp_path / "in.csv").write_text("id,a\n1,BAD\n2,x\n3,x,x\n")
    options = {
        "classifier": classifiers("fails_on_bad"),
        "output_format": "parquet",
        "max_bad": 2,
        "block_rows": 1,
        "chunk_rows": 1,
    }
    done = dc.run(dc.plan(input=tmp_path / "in.csv", output=tmp_path / "run", **options), cluster)
    assert done.to_pandas().index.tolist() == ["2"] and done.quarantined().row.tolist() == [1, 3]
    done.verify()


def test_types_are_those_of_the_answers(cluster, tmp_path):
    code = tmp_path / "mine.py"
    code.write_text(
        "def f(df):\n"
        "    first = '0' in df.index\n"
        "    return df.assign(TEXT='007', MIXED=1 if first else 'x', WIDER=1 if first else 0.5, YES=first)\n"
    )
    result = dc.run(dc.plan(rows=300, output=tmp_path / "run", classifier=f"{code}:f", block_rows=100), cluster)
    frame = result.to_pandas()
    assert frame.TEXT.unique().tolist() == ["007"]
    assert frame.MIXED.unique().tolist() == ["1", "x"]
    assert frame.WIDER.unique().tolist() == [1.0, 0.5]
    assert frame.YES.sum() == 100 and frame.YES.dtype == bool
    result.fetch(str(tmp_path / "all.parquet"))
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "all.parquet").set_index("ID"), frame, check_index_type=False
    )


@pytest.mark.parametrize("output_format", ["csv.gz", "csv.zst", "parquet"])
@pytest.mark.parametrize("header", [False, True])
def test_first_lines_are_the_names_and_the_first_rows(cluster, tmp_path, output_format, header):
    """Also where the first block has bad rows only, and so neither rows nor names."""
    code, output = tmp_path / "mine.py", tmp_path / "run"
    code.write_text("def f(df):\n    assert int(df.index[0]) >= 100\n    return df.assign(C=0.5)\n")
    made = dc.plan(
        rows=400, output=output, classifier=f"{code}:f", block_rows=100, max_bad=100, header=header,
        output_format=output_format,
    )  # fmt: skip
    result = dc.run(made, cluster)
    assert result.bad_rows == 100 and not result.receipts[0].rows
    assert result.first_lines(150) == result.head(150).to_csv(lineterminator="\n")
    assert result.first_lines(9999) == result.to_pandas().to_csv(lineterminator="\n")


LARGE = 2**53 + 1  # the first integer that a float cannot hold
NULLABLE = {
    "Int64": [LARGE, None, 1],
    "UInt64": [2**64 - 1, None, 1],
    "int64[pyarrow]": [LARGE, None, 1],
    "uint64[pyarrow]": [2**64 - 1, None, 1],
    "boolean": [True, None, False],
    "bool[pyarrow]": [True, None, False],
    "category": [1, None, 2],
}


@pytest.mark.parametrize("part_format", ["csv.gz", "parquet"])
@pytest.mark.parametrize("wrapping", ["series", "numbered series", "frame"])
@pytest.mark.parametrize("dtype", NULLABLE)
def test_a_missing_integer_or_boolean_stays_missing_and_the_others_exact(
    cluster, tmp_path, dtype, wrapping, part_format
):
    values = NULLABLE[dtype]

    def classify(chunk):
        answer = pd.Series((values * len(chunk))[: len(chunk)], index=chunk.index, dtype=dtype)
        if wrapping == "frame":
            return chunk.assign(CLASSIFICATION=answer)
        return answer if wrapping == "series" else answer.reset_index(drop=True)

    made = dc.plan(
        rows=300, output=tmp_path / "run", classifier=classify, chunk_rows=30, block_rows=90, output_format=part_format
    )
    result = dc.run(made, cluster)
    result.fetch(tmp_path / "all.csv", header=False)
    texts = [line.rpartition(",")[2] for line in (tmp_path / "all.csv").read_text().splitlines()]
    assert texts == [("" if value is None else str(value)) for value in values] * 100
    if dtype == "category":
        return  # text, as all that is neither a number nor a boolean
    for frame in (result.to_pandas(), result.to_dask().compute(), result.head(300)):
        assert [None if pd.isna(value) else value for value in frame.CLASSIFICATION] == values * 100
    result.fetch(tmp_path / "all.parquet")
    read = pd.read_parquet(tmp_path / "all.parquet", dtype_backend="numpy_nullable")
    assert [None if pd.isna(value) else value for value in read.CLASSIFICATION] == values * 100
    result.verify()


def test_the_rows_of_a_run_before_kinds_were_nullable_are_read_exactly(cluster, tmp_path):
    def classify(chunk):
        return pd.Series([LARGE, None], index=chunk.index, dtype="Int64")

    result = dc.run(dc.plan(rows=2, output=tmp_path / "run", classifier=classify), cluster)
    assert result.manifest["kinds"][-1] == "I"
    result.manifest["kinds"] = result.manifest["kinds"].replace("I", "i")
    assert result.to_pandas().CLASSIFICATION.tolist() == [LARGE, pd.NA]


def test_rows_of_blanks_are_rows(cluster, tmp_path):
    (tmp_path / "in.csv").write_text('name\na\n" "\n"\t"\n""\nb\n')
    made = dc.plan(input=tmp_path / "in.csv", output=tmp_path / "run", classifier=lambda chunk: chunk)
    result = dc.run(made, cluster)
    names = ["a", " ", "\t", "", "b"]
    assert result.to_pandas().index.tolist() == result.head(9).index.tolist() == names
    assert result.verify().rows == 5
    assert result.first_lines(5) == 'name\na\n \n\t\n""\nb\n'
    result.fetch(tmp_path / "x.parquet")
    assert pd.read_parquet(tmp_path / "x.parquet").name.tolist() == names


def test_names_that_occur_twice_are_numbered_as_pandas_numbers_them(cluster, tmp_path):
    def classify(chunk):
        return pd.concat([chunk, chunk.assign(SKU=1.5)], axis=1)

    result = dc.run(dc.plan(rows=150, output=tmp_path / "run", classifier=classify), cluster)
    frame = result.to_pandas()
    assert list(frame.columns[:5]) == ["SKU", "FLUX", "MANUFACTURER_NAME", "DESCRIPTION", "SKU.1"]
    assert set(frame["SKU.1"]) == {1.5} and (frame["FLUX.1"] == frame.FLUX).all()
    assert len(result.head(3).columns) == 8 and len(result.to_dask().compute()) == 150
    result.fetch(tmp_path / "x.parquet")
    assert len(pd.read_parquet(tmp_path / "x.parquet").columns) == 9
    result.verify()


def test_the_header_of_columns_in_levels_is_one_line(cluster, tmp_path):
    def classify(chunk):
        return pd.DataFrame(0.5, index=chunk.index, columns=pd.MultiIndex.from_product([["a", "b"], [1, 2]]))

    made = dc.plan(rows=150, output=tmp_path / "run", classifier=classify, header=True)
    result = dc.run(made, cluster)
    assert result.verify().rows == 150
    assert result.to_pandas().shape == (150, 4)
    assert result.first_lines(1).splitlines()[0] == "ID,\"('a', 1)\",\"('a', 2)\",\"('b', 1)\",\"('b', 2)\""


def test_more_blocks_than_parts_can_be_numbered(cluster, tmp_path, monkeypatch):
    from dask_classifier.runs import sizing

    monkeypatch.setattr(sizing, "MOST_BLOCKS", 9)
    (tmp_path / "in.csv").write_text("id,a\n" + "1,x\n" * 1000)
    made = dc.plan(input=tmp_path / "in.csv", output=tmp_path / "run", classifier="blackbox", block_rows=100)
    with pytest.raises(UsageError, match="1,000 rows in 1 file make more than the 9 parts"):
        dc.run(made, cluster)
    assert not (tmp_path / "run").exists()


def test_many_files_are_joined_in_linear_time():
    """Counted, not timed: each piece is taken once."""
    from dask_classifier.rows.borders import survey
    from dask_classifier.rows.csv_files import CsvFile
    from dask_classifier.rows.layouts import Layout
    from dask_classifier.rows.source import Source, Surveyed

    class Counted(list):
        taken = 0

        def __iter__(self):
            for item in super().__iter__():
                type(self).taken += 1
                yield item

    files = tuple(CsvFile(f"{n}.csv", 4, "1", f"{n}.csv", 0, 4) for n in range(50))
    surveyed = Counted((n, Surveyed(survey(b"1,x\n", 0, ",", 10))) for n in range(50))
    assert len(Source(Layout(columns=("id", "a")), files).surveyed(surveyed)[1]) == 50
    assert Counted.taken == 50


def test_types_on_demand(cluster, tmp_path):
    text = "id,price,code,when,note\n1,2.5,007,2026-01-02,x\n2,,010,,\n3,1e3,999,2026-01-03,5\n"
    (tmp_path / "in.csv").write_text(text)
    made = dc.plan(input=tmp_path / "in.csv", output=tmp_path / "run", classifier=lambda chunk: chunk)
    result = dc.run(made, cluster)
    assert all(pd.api.types.is_string_dtype(dtype) for dtype in result.to_pandas().dtypes)
    frame = result.to_pandas(convert=True)
    assert frame.price.dtype == float and frame.price.mean() == 501.25 and frame.price.isna().tolist() == [0, 1, 0]
    assert frame.code.tolist() == ["007", "010", "999"], "a number has no leading zeros"
    assert frame.note.tolist() == ["x", "", "5"]
    frame = result.to_pandas(dtype={"when": "datetime64[us]", "code": "Int64"})
    assert frame.when.isna().tolist() == [False, True, False] and frame.code.tolist() == [7, 10, 999]
    flags = pd.DataFrame({"id": ["1", "2"], "yes": ["True", "False"]})
    for kind in ("bool", "boolean"):
        of_flags = dc.classify(flags.set_index("id"), lambda chunk: [0, 0], tmp_path / kind, cluster="inline")
        assert of_flags.to_pandas(dtype={"yes": kind})["yes"].tolist() == [True, False]
    with pytest.raises(UsageError, match="no column 'prize'"):
        result.to_pandas(dtype={"prize": float})
    with pytest.raises(UsageError, match="'note' does not fit the type int64"):
        result.to_pandas(dtype={"note": "int64"})


def test_the_heads_of_many_files_are_read_at_the_same_time(tmp_path, monkeypatch):
    """Each waits for another one: one after the other, none would come back."""
    from dask_classifier.rows.csv_files import CsvFile

    for number in range(8):
        (tmp_path / f"{number}.csv").write_text(f"id,a\n{number},x\n")
    real, meeting = CsvFile._head, threading.Barrier(2)

    def head(file):
        meeting.wait(60)
        return real(file)

    monkeypatch.setattr(CsvFile, "_head", head)
    made = dc.plan(input=tmp_path / "*.csv", output=tmp_path / "run", classifier="blackbox")
    assert [file.url.rpartition("/")[2] for file in made.source.files] == [f"{n}.csv" for n in range(8)]


def test_numbers_on_demand_are_the_numbers_of_the_text(cluster, tmp_path):
    (tmp_path / "in.csv").write_text(f"id,long,huge,plain\n1,{LARGE},{2**70},{LARGE}\n2,,1,1\n")
    made = dc.plan(input=tmp_path / "in.csv", output=tmp_path / "run", classifier=lambda chunk: chunk)
    frame = dc.run(made, cluster).to_pandas(convert=True)
    assert frame.long.tolist() == [str(LARGE), ""] and frame.huge.tolist() == [str(2**70), "1"]
    assert frame.plain.tolist() == [LARGE, 1]


@pytest.mark.parametrize("part_format", ["csv.gz", "csv.zst", "parquet"])
@pytest.mark.parametrize("damage", ["cut", "longer", "garbage", "missing"])
def test_a_damaged_part_is_neither_fetched_nor_read(cluster, tmp_path, part_format, damage):
    made = dc.plan(rows=400, output=tmp_path / "run", slowness=1, block_rows=100, output_format=part_format)
    result = dc.run(made, cluster)
    part = tmp_path / f"run/parts/part-00001.{part_format}"
    data = part.read_bytes()
    part.unlink()
    if damage != "missing":
        part.write_bytes({"cut": data[:-20], "longer": data + b"x", "garbage": b"g" * len(data)}[damage])
    says = "is missing" if damage == "missing" else "does not match its receipt"
    for name in ("all.csv", "all.csv.gz", "all.csv.zst", "all.parquet"):
        with pytest.raises(DamagedRun, match=says):
            result.fetch(tmp_path / name)
        assert not (tmp_path / name).exists()
    with pytest.raises(DamagedRun, match=says):
        result.to_pandas()
    with pytest.raises(DamagedRun, match=says):
        result.verify()
    if damage == "garbage":
        with pytest.raises(DamagedRun, match=r"part-00001.* is damaged: "):
            figures(result)


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_what_is_known_later_is_added_to_the_manifest_of_its_own_run_alone(request, tmp_path, where):
    """While the instances of one run terminate, another one may have the folder."""
    request.getfixturevalue("s3") if where == "bucket" else None
    output = f"s3://bucket/later-{time.time_ns()}" if where == "bucket" else str(tmp_path / "run")
    options = {"rows": 300, "slowness": 1, "output": output, "block_rows": 100}
    first = dc.run(dc.plan(**options), "inline")
    add_to_manifest(first.folder, first.manifest, machines={"started": 1})
    assert dc.open_run(output).manifest["machines"] == {"started": 1}
    second = dc.run(dc.plan(**options, overwrite=True), "inline")
    add_to_manifest(first.folder, first.manifest, machines={"started": 2})
    assert dc.open_run(output).manifest == second.manifest
