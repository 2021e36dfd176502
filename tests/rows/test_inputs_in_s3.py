"""Inputs in S3: of each kind, of many keys, read in spite of faults, and with what the bucket asks of each request."""

import gzip
import io
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor

import dask
import pandas as pd
import pytest
from faulty_s3 import Fault

import dask_classifier as dc
from dask_classifier import storage

ROWS = 3000
FRAME = pd.DataFrame(
    {
        "id": range(ROWS),
        "price": [n / 7 if n % 5 else None for n in range(ROWS)],
        "name": [f"name {n % 13}" for n in range(ROWS)],
    }
)


def spread(chunk):
    """Depends on the types, on what is missing, and on the order."""
    return pd.DataFrame(
        {
            "kind": [str(chunk.dtypes.iloc[0])] * len(chunk),
            "missing": chunk["price"].isna(),
            "text": chunk["name"].str.upper(),
        }
    )


def bytes_of(result):
    return b"".join(storage.read(url) for url in result.urls())


def as_parquet(frame):
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False, row_group_size=700)
    return buffer.getvalue()


def as_lines(frame):
    return frame.to_json(orient="records", lines=True).encode()


KINDS = {
    "parquet": as_parquet,
    "jsonl": as_lines,
    "jsonl.gz": lambda frame: gzip.compress(as_lines(frame)),
    "csv": lambda frame: frame.to_csv(index=False).encode(),
}


@pytest.mark.parametrize("typed", [False, True], ids=["text", "typed"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_input_in_a_bucket_gives_the_bytes_of_a_folder(s3, cluster, tmp_path, kind, typed):
    """On two processes and in one; two files, of which the second is smaller than a block."""
    types = {"typed": True} if kind == "parquet" else {"dtype": {"price": "float64"}}
    options = {"columns": ["name", "price"], "index": "none", "block_rows": 400} | (types if typed else {})
    prefix = f"kinds-{time.time_ns()}"
    for name, frame in (("a", FRAME), ("b", FRAME[:100])):
        data = KINDS[kind](frame)
        (tmp_path / f"{name}.{kind}").write_bytes(data)
        s3.put_object(Bucket="bucket", Key=f"{prefix}/in/{name}.{kind}", Body=data)
    here = dc.run(dc.plan(f"{tmp_path}/*.{kind}", spread, tmp_path / "run", **options), "inline")
    there = dc.run(
        dc.plan(f"s3://bucket/{prefix}/in/*.{kind}", spread, f"s3://bucket/{prefix}/out", **options), cluster
    )
    assert there.verify().rows == here.rows == ROWS + 100
    assert gzip.decompress(bytes_of(there)) == gzip.decompress(bytes_of(here))
    answers = there.to_pandas()
    assert answers["text"].tolist() == [*FRAME["name"].str.upper(), *FRAME["name"][:100].str.upper()]
    assert (answers["missing"].astype(str) == "True").sum() == (ROWS // 5 + 20 if typed else 0)


@pytest.mark.long
def test_a_prefix_with_more_keys_than_a_page_has(s3):
    """S3 lists a thousand keys at a time."""
    folder = f"many-{time.time_ns()}/"
    keys = [f"{folder}{number:04d}.csv" for number in range(1203)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda key: s3.put_object(Bucket="bucket", Key=key, Body=b"id,x\n1,2\n"), keys))
    plan = dc.plan(f"s3://bucket/{folder}", lambda chunk: chunk["x"], "s3://bucket/out-of-many")
    assert [file.url for file in plan.source.files] == [f"s3://bucket/{key}" for key in keys]


@pytest.mark.parametrize("kind", ["slow_down", "cut", "unanswered"])
def test_a_file_that_is_read_as_a_stream_survives_faults(s3, faulty, tmp_path, kind):
    """A large compressed object is read in pieces; each of its first requests fails once, also in the middle."""
    rows = (f"{n},{random.Random(n).randbytes(200).hex()}\n" for n in range(20_000))
    data = gzip.compress(("id,x\n" + "".join(rows)).encode(), 1)
    key = f"flows-{time.time_ns()}"
    (tmp_path / "in.csv.gz").write_bytes(data)
    s3.put_object(Bucket="bucket", Key=f"{key}.csv.gz", Body=data)
    faults = [Fault(f"GET /bucket/{key}.csv.gz", kind, header="range", times=3)]
    faulty.faults += faults
    there = dc.run(
        dc.plan(f"s3://bucket/{key}.csv.gz", lambda chunk: chunk["x"].str[:3], f"s3://bucket/{key}"), "inline"
    )
    here = dc.run(dc.plan(tmp_path / "in.csv.gz", lambda chunk: chunk["x"].str[:3], tmp_path / "run"), "inline")
    assert [fault.happened for fault in faults] == [3]
    assert there.verify().rows == here.rows == 20_000
    assert bytes_of(there) == bytes_of(here)


def test_every_request_says_who_pays(s3, faulty, cluster):
    """Of a whole run, from a prefix to a single file: reading, writing, listing, and looking; by workers, too."""
    prefix = f"pays-{time.time_ns()}"
    for name in "ab":
        s3.put_object(Bucket="bucket", Key=f"{prefix}/in/{name}.csv", Body=b"id,x\n" + b"1,2\n" * 500)
    with dask.config.set({"dask-classifier.s3": {"bucket": {"requester-pays": True}}}):
        words = f"s3://bucket/{prefix}/in/", lambda chunk: chunk["x"], f"s3://bucket/{prefix}/out"
        result = dc.run(dc.plan(*words, block_rows=100, single_file=True), cluster)
        assert result.verify().rows == 1000
    asked = [(request, headers) for request, headers in faulty.headers if request.split()[1].startswith("/bucket")]
    assert {request.split()[0] for request, _ in asked} >= {"GET", "PUT", "HEAD", "POST"}
    assert [request for request in asked if "list-type=2" in request[0]]
    assert not [request for request, headers in asked if headers.get("x-amz-request-payer") != "requester"]


def test_what_is_no_json_in_a_bucket_is_a_bad_row(s3):
    prefix = f"bad-{time.time_ns()}"
    lines = [json.dumps({"id": n, "x": "y"}) for n in range(50)]
    lines[20] = '{"id": 20, "x":'
    s3.put_object(Bucket="bucket", Key=f"{prefix}/in.jsonl", Body="\n".join(lines).encode())
    plan = dc.plan(f"s3://bucket/{prefix}/in.jsonl", lambda chunk: chunk["x"], f"s3://bucket/{prefix}/out", max_bad=5)
    result = dc.run(plan, "inline")
    assert (result.rows, result.manifest["bad_rows"]) == (49, 1)
