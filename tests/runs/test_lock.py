"""One command at a time on a run: an flock in a folder, a lease in S3."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import classifiers as known
import pytest
from faulty_s3 import Fault, faulty_s3

import dask_classifier as dc
from dask_classifier import s3 as in_s3
from dask_classifier import storage
from dask_classifier.errors import RunInUse, StorageError
from dask_classifier.parts.run_folder import LOCK, RunFolder
from dask_classifier.runs import lock

CONTEXT = multiprocessing.get_context("fork")


@pytest.fixture(params=["folder", "bucket"])
def folder(request, tmp_path):
    if request.param == "folder":
        return RunFolder(str(tmp_path / "run"))
    request.getfixturevalue("s3")
    return RunFolder(f"s3://bucket/{request.node.name}-{time.time_ns()}")


def test_a_second_command_is_refused_with_who_has_it_since_when(folder):
    with lock.held(folder):
        code = "from dask_classifier.runs import lock; from dask_classifier.parts.run_folder import RunFolder\n"
        code += f"with lock.held(RunFolder({folder.url!r})): pass"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert rf"is in use by process {os.getpid()} on " in done.stderr and " since 20" in done.stderr
    assert not lock.is_held(folder)
    with lock.held(folder), lock.held(folder):  # the command, and the run in it
        assert lock.is_held(folder)
    assert not lock.is_held(folder)
    assert not storage.exists(folder.path(LOCK))


def test_the_command_ends_with_exit_code_2_before_anything_is_started(folder):
    words = ["--rows", "500", "--slowness", "1", "--output", folder.url]
    call = [sys.executable, "-m", "dask_classifier", *words]
    with lock.held(folder):
        done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 2 and f"is in use by process {os.getpid()}" in done.stderr
    assert "classifier processes" not in done.stderr
    assert subprocess.run(call, capture_output=True, check=False).returncode == 0
    assert not lock.is_held(folder)


def test_the_command_is_told_so_also_if_the_other_one_has_begun(folder):
    """And not that there is an incomplete run, which it could resume or overwrite."""
    words = ["--rows", "500", "--slowness", "1", "--output", folder.url]
    dc.run(dc.plan(rows=500, slowness=1, output=folder.url), "inline")
    folder.delete("manifest.json")
    with lock.held(folder):
        done = subprocess.run([sys.executable, "-m", "dask_classifier", *words], capture_output=True, text=True)
    assert done.returncode == 2 and f"is in use by process {os.getpid()}" in done.stderr
    done = subprocess.run([sys.executable, "-m", "dask_classifier", *words], capture_output=True, text=True)
    assert done.returncode == 2 and "already contains an incomplete run" in done.stderr


def _compete(url, log, start, seconds, die):
    """Hold the lock for a while, with lines in a log; perhaps be killed within it."""
    storage.fsspec.get_filesystem_class("s3").clear_instance_cache()
    folder = RunFolder(url)
    time.sleep(max(0, start - time.time()))
    with open(log, "a", buffering=1) as file:
        try:
            with lock.held(folder):
                file.write(f"in {os.getpid()}\n")
                time.sleep(seconds)
                if die:
                    file.write(f"out {os.getpid()}\n")
                    os.kill(os.getpid(), signal.SIGKILL)
                file.write(f"out {os.getpid()}\n")
        except RunInUse:
            file.write(f"refused {os.getpid()}\n")


def _pairs(folder, tmp_path, count, each, dead_seconds=0.0):
    """Let pairs compete, and return how many had one that was refused.

    In one of `each` pairs, whoever gets the lock is killed with it, and others can have it `dead_seconds` later.
    """
    generator, refused = random.Random(7), 0
    for number in range(count):
        log = tmp_path / f"log-{number}"
        start = time.time() + 0.02
        offsets = (0, generator.random() * 0.03)
        die = number % each == 0
        of = [(folder.url, log, start + offset, generator.uniform(0.04, 0.08), die) for offset in offsets]
        pair = [CONTEXT.Process(target=_compete, args=args) for args in of]
        for process in pair:
            process.start()
        for process in pair:
            process.join(60)
        killed = [process.exitcode for process in pair if process.exitcode]
        assert (-signal.SIGKILL in killed) == die and set(killed) <= {-signal.SIGKILL}
        if die:
            time.sleep(dead_seconds)
        words = [line.split() for line in log.read_text().splitlines()]
        inside = set()
        for what, pid in words:
            if what == "in":
                assert not inside, f"two at once in pair {number}: {words}"
                inside.add(pid)
            elif what == "out":
                inside.discard(pid)
        assert any(what == "in" for what, _ in words), words
        refused += any(what == "refused" for what, _ in words)
    return refused


@pytest.mark.long
@pytest.mark.parametrize("pairs", [pytest.param(200, marks=pytest.mark.slow), 60])
def test_of_many_pairs_in_a_folder_never_two_are_inside(tmp_path, pairs):
    """A third of them are killed while they have the lock: it dies with them."""
    assert _pairs(RunFolder(str(tmp_path / "run")), tmp_path, pairs, each=3) > pairs / 10


# --- leases --------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(s3):
    return RunFolder(f"s3://bucket/lease-{time.time_ns()}")


@pytest.mark.long
@pytest.mark.parametrize("pairs", [pytest.param(200, marks=pytest.mark.slow), 20])
def test_of_many_pairs_in_a_bucket_never_two_are_inside(bucket, tmp_path, pairs, monkeypatch):
    """Those of every fifth pair are killed, and the next two compete for a lease that is stale."""
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.5)
    monkeypatch.setattr(lock, "STALE_SECONDS", 5.0)
    assert _pairs(bucket, tmp_path, pairs, each=5, dead_seconds=6.5) > pairs / 10


def test_a_lease_that_is_not_renewed_is_taken_over(bucket, monkeypatch):
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.2)
    monkeypatch.setattr(lock, "STALE_SECONDS", 2.0)
    process = CONTEXT.Process(target=_hold_for_ever, args=(bucket.url,))
    process.start()
    while not storage.exists(bucket.path(LOCK)):
        time.sleep(0.05)
    time.sleep(3)  # longer than STALE_SECONDS, but it is renewed
    with pytest.raises(RunInUse, match=f"process {process.pid}"), lock.held(bucket):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    with pytest.raises(RunInUse), lock.held(bucket):
        pass
    time.sleep(3.1)  # S3's clock has whole seconds
    with lock.held(bucket):
        pass


def _hold_for_ever(url):
    storage.fsspec.get_filesystem_class("s3").clear_instance_cache()
    with lock.held(RunFolder(url)):
        time.sleep(100)


def taken_over(bucket):
    """What another command does with a stale lease."""
    version, _ = in_s3.version_and_age(bucket.path(LOCK))
    assert in_s3.write_if(bucket.path(LOCK), b'{"token": "other"}', version)


def test_a_command_that_has_slept_too_long_stops_and_leaves_the_other_ones_lease(bucket):
    with lock.held(bucket) as mine:
        taken_over(bucket)
        with pytest.raises(StorageError, match="was taken over by another command"):
            mine.publish("manifest.json", b"{}")
        with pytest.raises(StorageError, match="was taken over by another command"):
            mine.check()
    assert storage.read(bucket.path(LOCK)) == b'{"token": "other"}'
    assert not storage.exists(bucket.path("manifest.json"))


def test_a_run_whose_lease_is_taken_over_does_not_complete(bucket):
    def thief(chunk):
        if "1000" in chunk.index:
            taken_over(bucket)
        return known.lengths(chunk)

    plan = dc.plan(rows="2k", classifier=thief, output=bucket.url, block_rows=500)
    with pytest.raises(StorageError, match="was taken over by another command"):
        dc.run(plan, "inline")
    assert not storage.exists(bucket.path("manifest.json"))


def test_two_cannot_both_write_the_manifest(bucket):
    """Even one that has lost its lease in the moment after it was checked."""
    with lock.held(bucket) as mine:
        storage.write(bucket.path("manifest.json"), b'{"other": 1}')
        with pytest.raises(StorageError, match="was completed by another command"):
            mine.publish("manifest.json", b"{}")
    assert storage.read(bucket.path("manifest.json")) == b'{"other": 1}'
    with lock.held(bucket) as mine:  # --overwrite and --resume replace what was there before
        mine.publish("manifest.json", b"{}")
    assert json.loads(storage.read(bucket.path("manifest.json"))) == {}


def test_answers_that_are_lost(bucket, monkeypatch):
    """The request is repeated, and meets what it has written itself."""
    with faulty_s3(os.environ["AWS_ENDPOINT_URL"]) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        storage.fsspec.get_filesystem_class("s3").clear_instance_cache()
        lost = [Fault(f"PUT .*/{LOCK}", "unanswered"), Fault("PUT .*/manifest.json", "unanswered")]
        server.faults += lost
        with lock.held(bucket) as mine:
            mine.publish("manifest.json", b"{}")
        assert [fault.happened for fault in lost] == [1, 1]
    storage.fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_each_renewal_has_an_etag_of_its_own(bucket):
    """Whoever has looked at the lease before it was renewed does not get it."""
    with lock.held(bucket) as mine:
        seen, _ = in_s3.version_and_age(bucket.path(LOCK))
        mine._renew()
        assert in_s3.write_if(bucket.path(LOCK), b'{"token": "other"}', seen) is None
        mine.check()


def test_a_renewal_whose_answer_is_lost_and_that_cannot_be_looked_at_is_tried_again(bucket, monkeypatch):
    """The lease is taken for lost only if another command has it."""
    with faulty_s3(os.environ["AWS_ENDPOINT_URL"]) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        storage.fsspec.get_filesystem_class("s3").clear_instance_cache()
        with lock.held(bucket) as mine:
            faults = [Fault(f"PUT .*/{LOCK}", "unanswered"), Fault(f"GET .*/{LOCK}", "forbidden")]
            server.faults += faults
            with pytest.raises(StorageError, match="Cannot read"):
                mine._renew()
            assert [fault.happened for fault in faults] == [1, 1]
            mine._renew()
            mine.check()
            taken_over(bucket)
            with pytest.raises(StorageError, match="was taken over"):
                mine.publish("manifest.json", b"{}")
    storage.fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_the_age_of_a_lease_counts_the_time_that_a_computer_sleeps():
    assert time.CLOCK_BOOTTIME == lock._CLOCK


@pytest.mark.parametrize("header", ["if-match", "if-none-match"])
def test_a_store_without_conditional_writes(faulty, classifiers, header):
    """As OpenStack Swift's, which knows only If-None-Match: a run is complete, and a second command is refused."""
    faulty.faults.append(Fault("PUT ", "unknown", times=10**6, header=header))
    output = f"s3://bucket/unconditional-{time.time_ns()}"
    options = {"rows": 300, "slowness": 1, "output": output, "block_rows": 100}
    folder = RunFolder(output)
    with lock.held(folder) as mine:
        mine._renew()
        with pytest.raises(RunInUse, match="is in use by process"):
            lock._acquired(folder)
        mine.check()
    assert dc.run(dc.plan(**options), "inline").verify().rows == 300
    assert faulty.faults[0].happened >= 2


def test_without_the_right_to_delete_the_lease_is_free_all_the_same(bucket, monkeypatch):
    def refuse(url, version):
        raise StorageError(f"Cannot delete {url}: Access Denied.")

    monkeypatch.setattr(in_s3, "delete_if", refuse)
    for _ in range(2):
        with lock.held(bucket):
            pass
    assert storage.read(bucket.path(LOCK)) == b"{}"


def test_what_the_next_command_has_acquired_is_not_deleted(bucket, s3):
    """The request names the version that is to be deleted: S3 compares, moto does not."""
    with faulty_s3(os.environ["AWS_ENDPOINT_URL"]) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server.url)
        storage.fsspec.get_filesystem_class("s3").clear_instance_cache()
        with lock.held(bucket):
            tag = s3.head_object(Bucket="bucket", Key=bucket.path(LOCK)[12:])["ETag"]
        assert server.headers_of(f"DELETE /bucket/{bucket.path(LOCK)[12:]}")["if-match"] == tag
    storage.fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be another user")
def test_another_user_is_refused_too():
    """Who may not write to the lock, but may to the folder."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # pytest's own may be in one that is closed to others
        Path(folder).chmod(0o777)
        with lock.held(RunFolder(folder)):
            process = CONTEXT.Process(target=_as_nobody, args=(folder,))
            process.start()
            process.join(60)
    assert process.exitcode == 17


def _as_nobody(url):
    os.setuid(65534)
    try:
        with lock.held(RunFolder(url)):
            os._exit(1)
    except RunInUse:
        os._exit(17)
