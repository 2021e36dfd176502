"""One file with all rows: --single-file and publish, in folders and in S3."""

import errno
import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pandas as pd
import polars
import pytest
from faulty_s3 import Fault, faulty_s3
from generated_csv import csv_of
from reference import reference

import dask_classifier as dc
from dask_classifier import s3 as in_s3
from dask_classifier import storage
from dask_classifier.errors import DamagedRun, OutputExists, StorageError
from dask_classifier.parts import assembly
from dask_classifier.parts.receipts import Receipt
from dask_classifier.parts.run_folder import RunFolder


@pytest.fixture(params=["folder", "bucket"])
def output(request, tmp_path):
    if request.param == "folder":
        return str(tmp_path / "run")
    request.getfixturevalue("s3")
    return f"s3://bucket/single-{time.time_ns()}"


def parts_of(result):
    return b"".join(storage.read(url) for url in result.urls())


@pytest.mark.parametrize("output_format", ["csv.gz", "csv.zst", "jsonl.gz"])
def test_a_run_leaves_one_file_with_the_bytes_of_its_parts(cluster, output, output_format):
    options = {"rows": "5k", "slowness": 1, "block_rows": 300, "output_format": output_format}
    result = dc.run(dc.plan(**options, output=output, single_file=True), cluster)
    url = storage.join(output, f"result.{output_format}")
    assert storage.read(url) == parts_of(result) and len(result.urls()) == 17
    assert dc.open_run(output).manifest["single_file"] == {
        "name": f"result.{output_format}",
        "bytes": len(storage.read(url)),
    }
    result.verify()
    assert not in_s3.unfinished_uploads(output) and not [name for name in storage.sizes(output) if ".tmp-" in name]


def with_lengths(chunk):
    """The number of characters of each row."""
    return chunk.assign(LENGTH=sum(chunk[name].str.len() for name in chunk.columns))


def readers(file, names):
    """What others make of a file, as frames of text, by their names."""
    if file.name.endswith("csv.gz"):
        text = {"dtype": str, "keep_default_na": False}
        yield "pandas", pd.read_csv(file, header=None, names=names, **text)
        yield "polars", polars.read_csv(file, has_header=False, new_columns=names, infer_schema=False).to_pandas()
        options = f"header=false, all_varchar=true, names={names}"
        yield "DuckDB", duckdb.sql(f"SELECT * FROM read_csv('{file}', {options})").df()
    elif file.name.endswith("jsonl.gz"):
        yield "pandas", pd.read_json(file, lines=True, dtype=str)
        yield "polars", polars.read_ndjson(gzip.decompress(file.read_bytes())).to_pandas()
        yield "DuckDB", duckdb.sql(f"SELECT * FROM '{file}'").df()
    else:
        yield "pandas", pd.read_parquet(file)
        yield "polars", polars.read_parquet(file).to_pandas()
        yield "DuckDB", duckdb.sql(f"SELECT * FROM '{file}'").df()


@pytest.mark.parametrize("output_format", ["csv.gz", "jsonl.gz", "parquet"])
def test_what_reads_the_file(cluster, output, tmp_path, output_format):
    """gzip -t, pandas, polars and DuckDB find the rows of one process; of CSV, they have its digest, too."""
    (tmp_path / "in.csv").write_bytes(csv_of(5000))
    options = {"block_rows": 300, "output_format": output_format, "single_file": True}
    result = dc.run(dc.plan(tmp_path / "in.csv", with_lengths, output, **options), cluster)
    verified, file = result.verify(), tmp_path / f"result.{output_format}"
    file.write_bytes(storage.read(storage.join(output, file.name)))
    alone = reference(csv_of(5000), with_lengths)
    if output_format == "csv.gz":
        assert verified.sha256 == hashlib.sha256(alone).hexdigest()
    if file.suffix == ".gz":
        subprocess.run(["gzip", "-t", file], check=True)
        assert hashlib.sha256(gzip.decompress(file.read_bytes())).hexdigest() == verified.sha256
    expected = pd.read_csv(io.BytesIO(alone), names=result.columns, dtype=str, keep_default_na=False)
    found = dict(readers(file, result.columns))
    assert len(found) == 3 and len(expected) == 5000
    for name, frame in found.items():
        pd.testing.assert_frame_equal(frame.fillna("").astype(str).astype("str"), expected.astype("str"), obj=name)


def test_a_file_in_a_bucket_is_read_from_there(cluster, s3):
    """By pandas and by polars, which has its own access to S3."""
    output = f"s3://bucket/read {time.time_ns()}"
    plan = dc.plan(rows="2k", slowness=1, output=output, output_format="parquet", single_file=True)
    result = dc.run(plan, cluster)
    url = storage.join(output, "result.parquet")
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    frame = pd.read_parquet(url, storage_options={"client_kwargs": {"endpoint_url": endpoint}})
    options = {"aws_endpoint_url": endpoint, "aws_allow_http": "true", "aws_region": "us-east-1"}
    assert polars.read_parquet(url, storage_options=options).shape == frame.shape == (2000, len(result.columns))


def test_parquet_is_joined_by_a_worker(cluster, output):
    options = {"rows": "1k", "slowness": 1, "block_rows": 100, "output_format": "parquet"}
    result = dc.run(dc.plan(**options, output=output, single_file=True), cluster)
    frame = pd.read_parquet(io.BytesIO(storage.read(storage.join(output, "result.parquet"))))
    assert len(frame) == 1000 and frame.iloc[0, 0] == result.to_pandas().index[0]


@pytest.mark.parametrize("lines", [0, 150], ids=["no rows", "bad rows only"])
@pytest.mark.parametrize("output_format", ["csv.gz", "csv.zst", "jsonl.gz", "parquet"])
def test_an_hour_without_good_rows(output, tmp_path, output_format, lines):
    """There is a valid file for those who wait for it, with the columns of the input."""
    (tmp_path / "in.csv").write_text("id,text,price\n" + "1,a,2,too many\n" * lines)
    options = {"output_format": output_format, "header": True, "max_bad": lines, "columns": "price,id"}
    plan = dc.plan(tmp_path / "in.csv", "blackbox", output, single_file=True, block_rows=100, **options)
    result = dc.run(plan, "inline")
    assert (result.rows, result.bad_rows, len(result.receipts)) == (0, lines, -(-lines // 100))
    assert result.verify().rows == 0
    file = tmp_path / f"result.{output_format}"
    file.write_bytes(storage.read(storage.join(output, file.name)))
    if file.suffix == ".gz":
        subprocess.run(["gzip", "-t", file], check=True)
    if "csv" in output_format:
        assert list(pd.read_csv(file).columns) == ["price", "id"]
        assert duckdb.sql(f"SELECT * FROM '{file}'").columns == ["price", "id"]
    if output_format == "parquet":
        assert duckdb.sql(f"SELECT * FROM '{file}'").columns == ["price", "id"]
        assert polars.read_parquet(file).shape == (0, 2) and list(pd.read_parquet(file).columns) == ["price", "id"]
    for name in ("other.parquet", "other.jsonl.gz", "other.csv.gz"):
        dc.publish(result, tmp_path / name, cluster="inline")
    assert pd.read_csv(tmp_path / "other.csv.gz").columns.tolist() == ["price", "id"]
    subprocess.run(["gzip", "-t", tmp_path / "other.jsonl.gz", tmp_path / "other.csv.gz"], check=True)
    assert polars.read_parquet(tmp_path / "other.parquet").columns == ["price", "id"]


def test_an_input_without_a_column(tmp_path):
    """No column is invented. An earlier version has left a file without a byte, which is still right."""
    (tmp_path / "in.csv").write_bytes(b"")
    result = dc.run(dc.plan(tmp_path / "in.csv", "blackbox", tmp_path / "run", single_file=True), "inline")
    assert result.columns == [] and result.verify().rows == 0
    subprocess.run(["gzip", "-t", tmp_path / "run/result.csv.gz"], check=True)
    result.fetch(tmp_path / "all.parquet")
    assert pd.read_parquet(tmp_path / "all.parquet").shape == (0, 0)
    (tmp_path / "run/result.csv.gz").write_bytes(b"")
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    manifest["single_file"]["bytes"] = 0
    (tmp_path / "run/manifest.json").write_text(json.dumps(manifest))
    assert dc.open_run(tmp_path / "run").verify().rows == 0


def test_an_earlier_run_gets_its_file_when_it_is_resumed(output):
    options = {"rows": "1k", "slowness": 1, "block_rows": 100, "output": output}
    before = dict(dc.run(dc.plan(**options), "inline").manifest)
    result = dc.run(dc.plan(**options, resume=True, single_file=True), "inline")
    assert storage.read(storage.join(output, "result.csv.gz")) == parts_of(result)
    after = dc.open_run(output).manifest
    assert {name: value for name, value in after.items() if name != "single_file"} == before


# --- publish -------------------------------------------------------------------------------------------------


@pytest.fixture
def run(output):
    return dc.run(dc.plan(rows="2k", slowness=1, block_rows=300, output=output), "inline")


def test_publish_elsewhere(run, cluster, output, tmp_path):
    url = storage.join(output.rpartition("/")[0], f"all-{time.time_ns()}.csv.gz")
    size = dc.publish(run, url, cluster=cluster)
    assert storage.read(url) == parts_of(run) and size == len(parts_of(run))
    with pytest.raises(OutputExists):
        dc.publish(run, url, cluster=cluster)
    dc.publish(run, url, cluster=cluster, header=True, overwrite=True)
    names, rows = gzip.decompress(storage.read(url)).split(b"\n", 1)
    assert names.startswith(b"ID,") and rows == gzip.decompress(parts_of(run))
    dc.publish(run, tmp_path / "all.parquet", cluster=cluster)
    assert len(pd.read_parquet(tmp_path / "all.parquet")) == 2000


def test_the_command(run, output, tmp_path):
    call = [sys.executable, "-m", "dask_classifier", "publish", output, str(tmp_path / "a b.csv.gz")]
    done = subprocess.run([*call, "--workers", "2"], capture_output=True, text=True, check=True)
    assert re.search(r"a b.csv.gz: 2,000 rows, \d", done.stderr)
    assert (tmp_path / "a b.csv.gz").read_bytes() == parts_of(run)
    assert subprocess.run(call, capture_output=True, check=False).returncode == 2


def test_a_part_that_was_changed(run, output, tmp_path):
    url = run.urls()[3]
    storage.write(url, storage.read(url)[:-1] + b"x")
    target = storage.join(output, "other.csv.gz")
    with pytest.raises(DamagedRun, match=r"part-00003.csv.gz does not match its receipt"):
        dc.publish(run, target, cluster="inline")
    assert not storage.exists(target) and not in_s3.unfinished_uploads(output)
    assert not [name for name in storage.sizes(output) if ".tmp-" in name]


def test_verify_notices_a_single_file_that_is_not_the_parts(tmp_path):
    plan = dc.plan(rows="1k", slowness=1, block_rows=100, output=tmp_path / "run", single_file=True)
    result = dc.run(plan, "inline")
    file = tmp_path / "run/result.csv.gz"
    data = bytearray(file.read_bytes())
    data[500] ^= 1
    file.write_bytes(data)
    with pytest.raises(DamagedRun, match="does not have the rows of the parts"):
        dc.open_run(result.output).verify()
    file.unlink()
    with pytest.raises(DamagedRun, match=r"result.csv.gz of .* is missing"):
        dc.open_run(result.output).verify()


# --- large parts in S3 ---------------------------------------------------------------------------------------


def stored_parts(folder, sizes):
    """Parts of random bytes with these sizes, and their receipts."""
    receipts = []
    for index, size in enumerate(sizes):
        data = os.urandom(size)
        folder.write(f"parts/part-{index:05d}.csv.gz", data)
        digest = hashlib.sha256(data).hexdigest()
        receipts.append(Receipt("", index, 1, 0, size, digest, 0, "", ("a",), "O", "", 0.0, 0.0, "", "", 0))
    return receipts


MIB = 2**20


@pytest.mark.parametrize("name", ["large", "with space/ü é", "a+b%20c", "q?x=1&y#z", "tilde~'quote\"", "日本"])
def test_large_parts_are_copied_within_s3_and_small_ones_joined(s3, name):
    folder = RunFolder(f"s3://bucket/{name}-{time.time_ns()}")
    sizes = [6 * MIB, 2 * MIB, 2 * MIB, 2 * MIB, 7 * MIB, 100, 5 * MIB, 9, 1]
    receipts = stored_parts(folder, sizes)
    with faulty_s3(os.environ["AWS_ENDPOINT_URL"]) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server.url)
        storage.fsspec.get_filesystem_class("s3").clear_instance_cache()
        server.faults += [Fault("PUT .*partNumber=2", "slow_down"), Fault("POST .*uploadId", "unanswered")]
        url = folder.path("result.csv.gz")
        file = assembly.begin(url, sum(sizes))
        pieces = list(assembly.pieces_of(folder, "csv.gz", receipts, file.least_bytes, b""))
        assert [len(piece.parts) for piece in pieces] == [1, 3, 1, 2, 2]
        file.finish([file.write(piece) for piece in pieces])
        reads = [each for each in server.requests if each.startswith("GET") and "part-00000" in each]
        assert not reads, "a large part was read, and not copied by S3"
        assert [fault.happened for fault in server.faults] == [1, 1]
    storage.fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert storage.read(url) == b"".join(storage.read(folder.path(f"parts/part-{n:05d}.csv.gz")) for n in range(9))
    assert not in_s3.unfinished_uploads(folder.url)


def test_an_upload_that_fails_is_aborted(s3, monkeypatch):
    url = f"s3://bucket/fails-{time.time_ns()}"
    result = dc.run(dc.plan(rows="1k", slowness=1, block_rows=100, output=url), "inline")

    def fail(*words):
        raise StorageError("Cannot write: for a test.")

    monkeypatch.setattr(in_s3, "complete", fail)
    with pytest.raises(StorageError, match="for a test"):
        dc.publish(result, f"{url}/all.csv.gz", cluster="inline")
    assert not in_s3.unfinished_uploads(url) and not storage.exists(f"{url}/all.csv.gz")


def test_a_disk_that_is_full_is_noticed_before_a_piece_is_written(tmp_path, monkeypatch):
    def full(*of):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageError, match="No space left on device"):
        assembly.begin(str(tmp_path / "x.csv.gz"), 1000)
    assert not list(Path(tmp_path).iterdir())


def test_a_header_that_the_first_part_does_not_have(tmp_path):
    """Its rows are all bad, so that no part begins with the names."""
    (tmp_path / "in.csv").write_text("id,a\n" + "1,2,3\n" * 100 + "4,5\n")
    plan = dc.plan(
        tmp_path / "in.csv",
        lambda c: c["a"],
        tmp_path / "run",
        header=True,
        block_rows=100,
        max_bad=100,
        single_file=True,
    )
    result = dc.run(plan, "inline")
    assert result.receipts[0].rows == 0
    assert gzip.decompress((tmp_path / "run/result.csv.gz").read_bytes()) == b"id,a,CLASSIFICATION\n4,5,5\n"
    result.verify()


def test_a_single_file_that_is_gone_is_written_again(tmp_path):
    plan = dc.plan(rows=300, slowness=1, output=tmp_path / "run", single_file=True)
    dc.run(plan, "inline")
    file = tmp_path / "run/result.csv.gz"
    before = file.read_bytes()
    for damage in (file.unlink, lambda: file.write_bytes(before[:-1])):
        damage()
        dc.run(plan, "inline", resume=True).verify()
        assert file.read_bytes() == before


def test_without_the_right_to_delete_a_run_is_complete(s3, faulty):
    url = f"s3://bucket/keep-{time.time_ns()}"
    faulty.faults.append(Fault("DELETE ", "forbidden", times=1000))
    dc.run(dc.plan(rows=300, slowness=1, output=url, single_file=True), "inline").verify()
    assert faulty.faults[0].happened and storage.exists(f"{url}/report.html")
