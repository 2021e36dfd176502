"""Encryption, requester pays, other endpoints and anonymous reads: what S3 is asked, by the command and by workers."""

import os
import subprocess
import sys
import time

import boto3
import dask
import pytest
from faulty_s3 import faulty_s3

import dask_classifier as dc
from dask_classifier import s3 as in_s3
from dask_classifier import storage
from dask_classifier.errors import UsageError


def configured(**buckets):
    return dask.config.set({"dask-classifier.s3": buckets})


def test_every_object_of_a_run_is_encrypted_with_the_key(faulty, s3, cluster):
    """Also those that workers write."""
    url = f"s3://bucket/encrypted-{time.time_ns()}"
    with configured(**{"*": {"encryption": "aws:kms", "kms-key": "alias/mine"}}):
        plan = dc.plan(rows="1k", slowness=1, block_rows=100, output=url, single_file=True)
        dc.run(plan, cluster).verify()
    keys = [each["Key"] for each in s3.list_objects_v2(Bucket="bucket", Prefix=url[12:])["Contents"]]
    assert len(keys) > 20
    for key in keys:
        head = s3.head_object(Bucket="bucket", Key=key)
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"][-10:]) == ("aws:kms", "alias/mine"), key


def test_requester_pays(faulty):
    with configured(bucket={"requester-pays": True}):
        storage.write("s3://bucket/pays.csv", b"id,x\n1,2\n")
        assert storage.read("s3://bucket/pays.csv") == b"id,x\n1,2\n"
    assert faulty.headers_of("GET /bucket/pays.csv")["x-amz-request-payer"] == "requester"


def test_a_public_bucket_is_read_without_credentials_beside_ones_own(faulty, s3, cluster):
    s3.create_bucket(Bucket="public")
    s3.put_object(Bucket="public", Key="in.csv", Body=b"id,x\n" + b"1,2\n" * 500, ACL="public-read")
    with configured(public={"anonymous": True}):
        plan = dc.plan("s3://public/in.csv", lambda chunk: chunk["x"], f"s3://bucket/public-{time.time_ns()}")
        assert dc.run(plan, cluster).rows == 500
    asked = [headers for request, headers in faulty.headers if request.startswith("GET /public/in.csv")]
    assert asked and not any("authorization" in headers for headers in asked)
    assert "authorization" in faulty.headers_of("PUT /bucket/public-")


def test_another_endpoint_for_one_bucket(s3, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with faulty_s3(boto3.client("s3", endpoint_url=s3.meta.endpoint_url).meta.endpoint_url) as front:
        with configured(bucket={"endpoint-url": front.url}):
            storage.write("s3://bucket/elsewhere", b"x")
            assert storage.read("s3://bucket/elsewhere") == b"x"
        assert front.requests


def test_settings_from_a_file_and_from_the_environment(s3, tmp_path):
    words = ["--rows", "500", "--slowness", "1", "--output", f"s3://bucket/yaml-{time.time_ns()}"]
    (tmp_path / "mine.yaml").write_text("dask-classifier:\n  s3:\n    bucket: {encryption: AES256}\n")
    environment = os.environ | {"DASK_CONFIG": str(tmp_path)}
    call = [sys.executable, "-m", "dask_classifier", *words, "--quiet"]
    subprocess.run(call, env=environment, check=True)
    key = f"{words[-1][12:]}/parts/part-00000.json"
    assert s3.head_object(Bucket="bucket", Key=key)["ServerSideEncryption"] == "AES256"
    (tmp_path / "mine.yaml").write_text("dask-classifier:\n  s3:\n    bucket: {encrypt: AES256}\n")
    done = subprocess.run(call, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "encrypt: 'AES256' for the bucket bucket" in done.stderr


@pytest.mark.parametrize(
    "wrong", [{"b": {"anon": True}}, {"b": {"anonymous": "yes"}}, {"b": "anonymous"}, {"b": {1: 2}}]
)
def test_settings_that_are_not_understood(wrong):
    with configured(**wrong), pytest.raises(UsageError, match="for the bucket b"):
        storage.exists("s3://bucket/x")


@pytest.mark.parametrize(("prefix", "days"), [("", 3), ("runs/", 3), ("other/", None)])
def test_whether_the_bucket_deletes_unfinished_uploads(s3, prefix, days):
    assert in_s3.days_of_unfinished_uploads("s3://bucket/runs/today") is None
    rule = {"ID": "x", "Status": "Enabled", "Filter": {"Prefix": prefix}}
    rule["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": 3}
    s3.put_bucket_lifecycle_configuration(Bucket="bucket", LifecycleConfiguration={"Rules": [rule]})
    assert in_s3.days_of_unfinished_uploads("s3://bucket/runs/today") == days
    s3.delete_bucket_lifecycle(Bucket="bucket")


KEYS = ["with space/ü é/part.csv", "a+b%20c.csv", "q?x=1&y#z.csv", "[a]{b}.csv", "tilde~'quote\".csv", "日本/表.csv"]


@pytest.mark.parametrize("key", KEYS)
def test_odd_keys(s3, key):
    s3.put_object(Bucket="bucket", Key=f"odd/{key}", Body=b"id,x\n1,2\n3,4\n")
    output = f"s3://bucket/out/{key} {time.time_ns()}"
    result = dc.run(dc.plan(f"s3://bucket/odd/{key}", lambda chunk: chunk["x"], output, single_file=True), "inline")
    assert result.verify().rows == 2
    assert storage.exists(f"{output}/result.csv.gz")
