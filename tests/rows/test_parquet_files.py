"""Parquet as input: as text, with types, in any row groups and blocks; compared with pandas in one process."""

import datetime
import decimal
import io
import subprocess
import sys
from types import SimpleNamespace

import classifiers as known
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dask_classifier as dc
from dask_classifier import storage
from dask_classifier.errors import DamagedRun, SourceError, StorageError, UsageError
from dask_classifier.rows.layouts import Layout
from dask_classifier.rows.parquet_files import ParquetFile

ROWS = 2345


def table(rows=ROWS, seed=0):
    random = np.random.default_rng(seed)
    missing = random.random(rows) < 0.1
    day = datetime.date(2026, 1, 1)
    return pa.table(
        {
            "id": pa.array(range(rows), pa.int64()),
            "number": pa.array(random.integers(0, 2**60, rows), pa.int64(), mask=missing),
            "price": pa.array(random.random(rows) * 1e6, pa.float64(), mask=missing),
            "text": pa.array([f'a "{n}", b\n' if n % 7 == 0 else f"name {n}" for n in range(rows)], mask=missing),
            "yes": pa.array(random.random(rows) < 0.5, mask=missing),
            "when": pa.array([datetime.datetime(2026, 1, 1 + n % 28) for n in range(rows)], pa.timestamp("us")),
            "day": pa.array([day + datetime.timedelta(n % 99) for n in range(rows)], pa.date32()),
            "money": pa.array([decimal.Decimal(n).scaleb(-2) for n in range(rows)], pa.decimal128(10, 2)),
            "kind": pa.array([f"kind {n % 3}" for n in range(rows)]).dictionary_encode(),
        }
    )


def typed(df):
    """Uses types, and leaves them."""
    return df.assign(DOUBLE=df["price"] * 2, GONE=df["number"].isna(), YEAR=df["when"].dt.year)


def in_chunks(df, classifier):
    return pd.concat([classifier(df.iloc[first : first + 100]) for first in range(0, len(df), 100)])


@pytest.mark.parametrize("group_rows", [90, 1000, 10**6])
def test_as_text(tmp_path, run_bytes, group_rows):
    """What pandas writes to CSV, read as text: the same bytes as from that CSV file."""
    pq.write_table(table(), tmp_path / "in.parquet", row_group_size=group_rows)
    frame = pq.read_table(tmp_path / "in.parquet").to_pandas(types_mapper=pd.ArrowDtype)
    frame["price"] = frame["price"].astype(float)  # the same text, but with NaN for what is missing
    frame.to_csv(tmp_path / "in.csv", index=False)
    for name in ("in.parquet", "in.csv"):
        dc.run(dc.plan(tmp_path / name, known.lengths, tmp_path / f"{name}.run", block_rows=700), "inline")
    assert run_bytes(tmp_path / "in.parquet.run") == run_bytes(tmp_path / "in.csv.run")


@pytest.mark.parametrize("block_rows", [100, 700, 10**6])
@pytest.mark.parametrize("group_rows", [90, 10**6])
def test_with_types(tmp_path, run_bytes, group_rows, block_rows):
    """As one process with pandas' read_parquet, whatever the blocks and the row groups."""
    pq.write_table(table().drop_columns("kind"), tmp_path / "in.parquet", row_group_size=group_rows)
    plan = dc.plan(tmp_path / "in.parquet", typed, tmp_path / "run", typed=True, block_rows=block_rows)
    dc.run(plan, "inline")
    alone = pd.read_parquet(tmp_path / "in.parquet", dtype_backend="pyarrow").set_index("id")
    assert run_bytes(tmp_path / "run") == in_chunks(alone, typed).to_csv(header=False).encode()


def test_types_in_the_parts_and_in_results(cluster, tmp_path):
    pq.write_table(table(), tmp_path / "in.parquet", row_group_size=500)
    options = {"typed": True, "output_format": "parquet", "block_rows": 500}
    result = dc.run(dc.plan(tmp_path / "in.parquet", typed, tmp_path / "run", **options), cluster)
    result.verify()
    part = pq.read_schema(result.urls()[0])
    assert part.field("number").type == pa.int64() and part.field("when").type == pa.timestamp("us")
    assert part.field("money").type == pa.decimal128(10, 2) and part.field("GONE").type == pa.bool_()


def test_only_chosen_columns_are_read_in_their_order(tmp_path, run_bytes):
    data = table().append_column("nested", pa.array([[n] for n in range(ROWS)]))
    pq.write_table(data, tmp_path / "in.parquet")
    plan = dc.plan(tmp_path / "in.parquet", known.lengths, tmp_path / "run", columns="text,id")
    assert plan.source.layout.columns == ("text", "id")
    dc.run(plan, "inline")
    frame = data.select(["text", "id"]).to_pandas().fillna({"text": ""}).astype({"id": str}).set_index("text")
    assert run_bytes(tmp_path / "run") == in_chunks(frame, known.lengths).to_csv(header=False).encode()


def test_many_files_share_blocks_and_the_index_of_pandas_comes_first(tmp_path, run_bytes):
    frames = []
    for number in range(40):
        frame = pd.DataFrame({"text": [f"{number} {row}" for row in range(number)]})
        frame.index = pd.Index([f"{number}-{row}" for row in range(number)], name="key", dtype="str")
        frame.to_parquet(tmp_path / f"{number:02d}.parquet")
        frames.append(frame)
    plan = dc.plan(tmp_path / "*.parquet", known.lengths, tmp_path / "run")
    assert plan.source.layout.columns == ("key", "text")
    assert len(dc.run(plan, "inline").manifest["parts"]) < 20
    text = pd.concat(frames).reset_index().astype(str).set_index("key")
    assert run_bytes(tmp_path / "run") == known.lengths(text).to_csv(header=False).encode()


def test_bad_rows_of_a_file_with_types(tmp_path):
    def fails(df):
        if (df["id2"] == 777).any():
            raise ValueError("seven")
        return df.assign(X=1)

    data = table().append_column("id2", pa.array(range(ROWS)))
    pq.write_table(data, tmp_path / "in.parquet")
    plan = dc.plan(tmp_path / "in.parquet", fails, tmp_path / "run", typed=True, max_bad=1, columns="id,text,id2")
    (bad,) = dc.run(plan, "inline").quarantined().to_dict("records")
    assert int(bad["row"]) == 778 and bad["reason"].startswith("ValueError: seven")
    assert bad["raw"].startswith('777,"a ""777"", b') or bad["raw"] == "777,,777"


def test_a_bad_row_of_a_file_with_types_but_no_index(tmp_path):
    def fails(df):
        if (df["number"] == 7).any():
            raise ValueError("seven")
        return df["number"]

    pq.write_table(pa.table({"number": [5, 6, 7], "text": ["a", "b", "c"]}), tmp_path / "in.parquet")
    plan = dc.plan(tmp_path / "in.parquet", fails, tmp_path / "run", typed=True, max_bad=1, index="none")
    (bad,) = dc.run(plan, "inline").quarantined().to_dict("records")
    assert bad["raw"] == "7,c" and int(bad["row"]) == 3


@pytest.mark.parametrize("output_format", ["csv.gz", "jsonl.gz"])
def test_dates_come_back_from_parts_of_text(tmp_path, output_format):
    zoned = pa.array([datetime.datetime(2026, 1, 1)] * ROWS, pa.timestamp("us", "UTC"))
    old = pa.array([datetime.date(999, 1, 1)] + [datetime.date(2026, 1, 1)] * (ROWS - 1))
    fine = pa.array([datetime.datetime(2026, 1, 1)] * ROWS, pa.timestamp("ns"))
    data = table().append_column("zoned", zoned).append_column("old", old).append_column("fine", fine)
    pq.write_table(data, tmp_path / "in.parquet")
    options = {"typed": True, "output_format": output_format, "block_rows": 500}
    result = dc.run(dc.plan(tmp_path / "in.parquet", lambda c: c, tmp_path / "run", **options), "inline").to_pandas()
    types = {name: str(dtype) for name, dtype in result.dtypes.items()}
    assert (types["when"], types["day"]) == ("datetime64[us]", "datetime64[us]")
    assert (types["zoned"], types["old"], types["fine"]) == ("str", "str", "str")
    days = table()["day"].to_pandas(date_as_object=False)
    assert result["day"].astype("datetime64[s]").tolist() == days.astype("datetime64[s]").tolist()


def test_a_run_is_resumed(tmp_path, run_bytes):
    pq.write_table(table(), tmp_path / "in.parquet", row_group_size=400)
    options = {"input": tmp_path / "in.parquet", "classifier": known.lengths, "block_rows": 300}
    dc.run(dc.plan(**options, output=tmp_path / "run"), "inline")
    before = run_bytes(tmp_path / "run")
    (tmp_path / "run/manifest.json").unlink()
    (tmp_path / "run/parts/part-00003.json").unlink()
    dc.run(dc.plan(**options, output=tmp_path / "run", resume=True), "inline").verify()
    assert run_bytes(tmp_path / "run") == before


# --- bad input -----------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    pq.write_table(table(50), tmp_path / "in.parquet")
    return tmp_path / "in.parquet"


def planned(file, **options):
    return dc.plan(file, known.lengths, file.parent / "run", **options)


def test_a_damaged_file(file):
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(SourceError, match=r"in.parquet cannot be read as Parquet: "):
        planned(file)


def test_an_error_of_the_storage_is_not_damage(file, monkeypatch):
    """As when credentials have expired while the file is read."""

    class Failing(io.BytesIO):
        def read(self, *size):
            raise OSError(5, "Input/output error")

    data = file.read_bytes()
    monkeypatch.setattr(
        storage, "filesystem_of", lambda url: (SimpleNamespace(open=lambda *args, **options: Failing(data)), url)
    )
    with pytest.raises(StorageError, match=r"Cannot read .*in\.parquet: Input/output error"):
        ParquetFile(str(file), len(data), "1").inspect(Layout())


def test_a_file_on_disk_is_read_without_threads_and_in_pieces(tmp_path):
    """Threads may abort the interpreter at its end; a row group may be larger than memory."""
    numbers = np.random.default_rng(0).integers(0, 2**62, 2_000_000)
    pq.write_table(pa.table({"a": numbers, "b": numbers / 7}), tmp_path / "in.parquet", row_group_size=len(numbers))
    script = """
import tracemalloc
import pandas, psutil, pyarrow.parquet
from dask_classifier import storage
from dask_classifier.rows.layouts import Layout
from dask_classifier.rows.parquet_files import ParquetFile

file, columns = ParquetFile.found("in.parquet", storage.identity("in.parquet"), Layout(), "").inspect(Layout())
threads = psutil.Process().num_threads()
tracemalloc.start()
assert len(file.first_rows(10, Layout(columns=columns))) == 10
print(psutil.Process().num_threads() - threads, tracemalloc.get_traced_memory()[1])
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    threads, most_bytes = map(int, done.stdout.split())
    assert threads == 0 and most_bytes < (tmp_path / "in.parquet").stat().st_size / 2, done.stdout


def test_a_file_that_changes_during_the_run(file):
    plan = planned(file)
    pq.write_table(table(51), file)
    with pytest.raises(SourceError, match="has changed since the run began"):
        dc.run(plan, "inline")


def test_a_column_that_is_not_there(file):
    with pytest.raises(UsageError, match="does not have the column 'prize'") as raised:
        planned(file, columns="id,prize")
    assert "It has id, number, price" in raised.value.hint


def test_nested_values_as_text(file):
    pq.write_table(table(50).append_column("nested", pa.array([[n] for n in range(50)])), file)
    with pytest.raises(UsageError, match=r"The column 'nested' of .* contains lists"):
        dc.run(planned(file), "inline")
    dc.run(planned(file, columns="id,text"), "inline")


def test_values_of_extension_types_as_text(file):
    tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((50, 2000)))
    pq.write_table(table(50).append_column("tensor", tensor), file)
    with pytest.raises(UsageError, match=r"The column 'tensor' of .* contains lists"):
        dc.run(planned(file), "inline")


@pytest.mark.parametrize(
    "values",
    [
        pa.array([4_000_000] * 50, pa.date32()),  # in the year 12921
        pa.array([0] * 50, pa.timestamp("s", tz="Mars/Olympus")),
        pa.StringArray.from_buffers(50, pa.py_buffer(bytes(np.arange(51, dtype="int32"))), pa.py_buffer(b"\xff" * 50)),
    ],
    ids=["year", "zone", "not UTF-8"],
)
def test_values_without_a_text(file, values):
    pq.write_table(table(50).append_column("odd", values), file)
    with pytest.raises(SourceError, match=r"has values that cannot be written as text: .+\."):
        dc.run(planned(file), "inline")
    dc.run(planned(file, columns="id,text"), "inline")


def test_other_types_in_another_file(file):
    changed = table(50).set_column(1, "number", pa.array(["x"] * 50))
    pq.write_table(changed, file.parent / "other.parquet")
    both = [file, file.parent / "other.parquet"]
    with pytest.raises(SourceError, match=r"have different columns: .*number int64.* and .*number string"):
        dc.plan(both, typed, file.parent / "run", typed=True)
    dc.run(dc.plan(both, known.lengths, file.parent / "run"), "inline")


@pytest.mark.parametrize("others", [0, 20])
def test_other_types_behind_files_of_another_kind(file, others):
    """Types are compared with those of the first Parquet file, also by the survey, which inspects most files."""
    frame = table(5).to_pandas()
    for number in range(others + 1):
        frame.to_csv(file.parent / f"{number}.csv", index=False)
    csv = [file.parent / f"{number}.csv" for number in range(others + 1)]
    pq.write_table(table(50).set_column(1, "number", pa.array(["x"] * 50)), file.parent / "other.parquet")
    with pytest.raises(SourceError, match=r"in\.parquet and .*other\.parquet have different columns: .*number int64"):
        plan = dc.plan([*csv, file, file.parent / "other.parquet"], known.lengths, file.parent / "run", typed=True)
        dc.run(plan, "inline")


def test_bytes_of_a_fixed_size_have_no_text(file):
    pq.write_table(table(50).append_column("uuid", pa.array([bytes(16)] * 50, pa.binary(16))), file)
    with pytest.raises(UsageError, match=r"The column 'uuid' of .* contains lists, bytes"):
        dc.run(planned(file), "inline")


def test_columns_with_dots_in_their_names_have_a_size(file):
    pq.write_table(pa.table({"id": list(range(50_000)), "a.b": ["x" * 99 + str(n) for n in range(50_000)]}), file)
    marks = planned(file, columns="id,a.b").source.files[0].survey(0, Layout(wanted=("id", "a.b"))).piece
    assert marks.offsets[-1] > 5_000_000 and len(marks.rows) > 10


def test_one_parquet_file_of_parts_whose_types_differ(file):
    """Pandas finds other types in other parts: no value in the first one, or decimals with fewer digits."""
    rows, money = 400, decimal.Decimal("12345.67")
    columns = {
        "id": pa.array(range(rows)),
        "money": pa.array([decimal.Decimal("1.00")] * 200 + [money] * 200, pa.decimal128(10, 2)),
        "late": pa.array([None] * 200 + list(range(200)), pa.int64()),
        "small": pa.array([1, None] * 200, pa.int32()),
        "kind": pa.array([f"{n // 100}" for n in range(rows)]).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), file)
    options = {"typed": True, "output_format": "parquet", "chunk_rows": 100, "block_rows": 100, "single_file": True}
    plan = dc.plan(file, lambda df: df.assign(found=df["money"].astype(object)), file.parent / "run", **options)
    result = dc.run(plan, "inline")
    parts = [pq.read_schema(url) for url in map(str, sorted((file.parent / "run/parts").glob("*.parquet")))]
    assert len(parts) == 4 and parts[0] != parts[-1], "else there is nothing to unify"
    joined = pq.read_table(file.parent / "run/result.parquet")
    for name, column in columns.items():
        assert joined[name].to_pylist() == column.to_pylist(), name
    assert joined["found"].to_pylist() == columns["money"].to_pylist()
    assert joined.schema.field("late").type == pa.int64() and joined.schema.field("small").type == pa.int32()
    assert result.verify().rows == rows


def test_a_damaged_part_is_named_by_what_joins_the_parts(file):
    options = {"typed": True, "output_format": "parquet", "chunk_rows": 10, "block_rows": 10}
    result = dc.run(dc.plan(file, lambda df: df, file.parent / "run", **options), "inline")
    part = file.parent / "run/parts/part-00002.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(DamagedRun, match=r"part-00002\.parquet"):
        result.fetch(file.parent / "all.parquet")
    part.unlink()
    with pytest.raises(DamagedRun, match=r"part-00002\.parquet"):
        result.fetch(file.parent / "all.parquet")


def test_options_of_csv(file):
    for options in ({"delimiter": ";"}, {"encoding": "cp1252"}, {"header_row": False}):
        with pytest.raises(UsageError, match="has no effect with Parquet"):
            planned(file, **options)
    (file.parent / "in.csv").write_text("id\n1\n")
    with pytest.raises(UsageError, match="typed=True has no effect with files that are not Parquet"):
        dc.plan(file.parent / "in.csv", known.lengths, file.parent / "run", typed=True)


def test_a_file_without_rows(file):
    pq.write_table(table(0), file)
    assert dc.run(planned(file), "inline").rows == 0


def test_names_of_an_index_without_one(tmp_path, run_bytes):
    several = pd.MultiIndex.from_tuples([("a", "x"), ("b", "y")])
    pd.DataFrame({"v": [1, 2]}, index=several).to_parquet(tmp_path / "levels.parquet")
    pd.DataFrame({"index": [1, 2]}, index=["a", "b"]).to_parquet(tmp_path / "index.parquet")
    pd.DataFrame({"v": [1, 2]}, index=["a", "b"]).to_parquet(tmp_path / "plain.parquet")
    expected = {"levels": b"a,x,1\nb,y,2\n", "index": b"a,1\nb,2\n", "plain": b"a,1\nb,2\n"}
    for name, rows in expected.items():
        plan = dc.plan(tmp_path / f"{name}.parquet", lambda c: c, tmp_path / name)
        dc.run(plan, "inline")
        assert run_bytes(tmp_path / name) == rows
    assert plan.source.layout.columns == ("index", "v")


def test_floats_as_text(tmp_path, run_bytes):
    """As pandas writes them: short, and a missing value or NaN is empty."""
    columns = {"id": ["a", "b", "c"], "x": pa.array([0.1, None, float("nan")], pa.float32()), "y": [0.1, 1e300, None]}
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    dc.run(dc.plan(tmp_path / "in.parquet", lambda c: c, tmp_path / "run"), "inline")
    assert run_bytes(tmp_path / "run") == b"a,0.1,0.1\nb,,1e+300\nc,,\n"


def test_two_columns_of_one_name(file):
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), file)
    with pytest.raises(SourceError, match="has two columns of the same name"):
        planned(file)
