"""S3 that answers with 503, too late, with half an object, or not at all: the rows are the same."""

import os
from dataclasses import replace

import pytest
from faulty_s3 import Fault

from dask_classifier import storage

DATA = os.urandom(300_000)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("PUT /bucket/file", "slow_down"),
        Fault("PUT /bucket/file", "unanswered"),
        Fault("GET /bucket/file", "slow_down"),
        Fault("GET /bucket/file", "cut"),
        Fault("GET /bucket/file", "unanswered"),
    ],
    ids=lambda fault: f"{fault.request.split()[0]}-{fault.kind}",
)
def test_a_file_survives_faults_of_s3(faulty, fault):
    fault = replace(fault)  # it counts
    faulty.faults.append(fault)
    storage.write("s3://bucket/file", DATA)
    assert storage.read("s3://bucket/file") == DATA
    assert fault.happened == fault.times


def test_answers_that_come_too_late(faulty, monkeypatch):
    monkeypatch.setitem(storage._PATIENT_REQUESTS, "read_timeout", 0.5)
    fault = Fault("GET /bucket/file", "late", seconds=2)
    faulty.faults.append(fault)
    storage.write("s3://bucket/file", DATA)
    assert storage.read("s3://bucket/file") == DATA
    assert fault.happened == fault.times
