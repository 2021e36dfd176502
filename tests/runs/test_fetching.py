"""An interrupted fetch goes on where it was."""

import gzip
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dask_classifier as dc
from dask_classifier.errors import DamagedRun, UsageError
from dask_classifier.runs import fetching
from dask_classifier.runs.result import Result


@pytest.fixture
def result(tmp_path, classifiers):
    plan = dc.plan(rows=3000, classifier=classifiers("lengths"), output=tmp_path / "run", block_rows=100)
    return dc.run(plan, "inline")


def counting_reads(monkeypatch):
    """The numbers of the parts that are read from the run."""
    read, stored = [], Result.stored
    monkeypatch.setattr(Result, "stored", lambda self, receipt: (read.append(receipt.index), stored(self, receipt))[1])
    return read


@pytest.mark.parametrize("damage", ["cut", "changed", "names", "longer"])
def test_it_goes_on_behind_what_is_right(result, tmp_path, monkeypatch, damage):
    """What an interrupted fetch has left is compared with the receipts, whatever it is."""
    result.fetch(tmp_path / "whole.csv.gz")
    whole = (tmp_path / "whole.csv.gz").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        stored = Result.stored
        patch.setattr(Result, "stored", lambda self, receipt: stored(self, receipt) if receipt.index < 20 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            result.fetch(tmp_path / "out.csv.gz")
    (unfinished,) = tmp_path.glob(".out.csv.gz.unfinished-*")
    there = unfinished.read_bytes()
    assert whole.startswith(there) and there
    done = sum(1 for receipt in result.receipts if receipt.index < 20)
    begin = len(there) - sum(receipt.bytes for receipt in result.receipts[:done])
    changed = bytearray(there)
    expected = 19
    if damage == "cut":
        unfinished.write_bytes(there[:-10])
    elif damage == "changed":
        changed[begin + sum(receipt.bytes for receipt in result.receipts[:7]) + 30] ^= 1
        unfinished.write_bytes(changed)
        expected = 7
    elif damage == "names":
        changed[5] ^= 1
        unfinished.write_bytes(changed)
        expected = 0
    else:
        unfinished.write_bytes(whole + b"more")
        expected = 30
    read = counting_reads(monkeypatch)
    assert result.fetch(tmp_path / "out.csv.gz") == len(whole)
    assert (tmp_path / "out.csv.gz").read_bytes() == whole
    assert sorted(read) == list(range(expected, 30)) and not unfinished.exists()


def test_another_format_and_header_start_over(result, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        stored = Result.stored
        patch.setattr(Result, "stored", lambda self, receipt: stored(self, receipt) if receipt.index < 20 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            result.fetch(tmp_path / "out.csv.gz")
    result.fetch(tmp_path / "out.csv.gz", header=False)
    text = gzip.decompress((tmp_path / "out.csv.gz").read_bytes())
    assert text.count(b"\n") == 3000
    result.fetch(tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes().endswith(text)


def test_a_run_with_names_in_its_first_part(tmp_path, classifiers):
    plan = dc.plan(rows=300, classifier=classifiers("lengths"), output=tmp_path / "run", block_rows=100, header=True)
    result = dc.run(plan, "inline")
    texts = {}
    for header in (True, False):
        result.fetch(tmp_path / f"{header}.csv.gz", header=header)
        texts[header] = gzip.decompress((tmp_path / f"{header}.csv.gz").read_bytes())
    names, _, rows = texts[True].partition(b"\n")
    assert names == b"ID,SKU,FLUX,MANUFACTURER_NAME,DESCRIPTION,LENGTH,TEXT"
    assert rows == texts[False] and rows.count(b"\n") == 300


def test_two_at_once(result, tmp_path):
    """The second is refused, and leaves the first one's work alone."""
    stored = Result.stored

    def meanwhile(self, receipt):
        if receipt.index == 25:
            with pytest.raises(UsageError, match="Another command is writing"):
                result.fetch(tmp_path / "out.csv.gz")
        return stored(self, receipt)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Result, "stored", meanwhile)
        result.fetch(tmp_path / "out.csv.gz")
    assert gzip.decompress((tmp_path / "out.csv.gz").read_bytes()).count(b"\n") == 3001


def test_one_that_begins_when_the_other_one_ends(result, tmp_path, monkeypatch):
    """It has opened the unfinished file of the first, which is the finished one when it gets the lock."""
    lock, others = fetching._Download._lock, []

    def later(self, stream):
        if not others:
            others.append(result.fetch)
            others[0](tmp_path / "out.csv.gz")
        lock(self, stream)

    monkeypatch.setattr(fetching._Download, "_lock", later)
    result.fetch(tmp_path / "out.csv.gz")
    assert gzip.decompress((tmp_path / "out.csv.gz").read_bytes()).count(b"\n") == 3001
    assert [path.name for path in tmp_path.glob(".out*")] == []


def test_a_part_that_is_damaged(result, tmp_path):
    part = tmp_path / "run/parts/part-00025.csv.gz"
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(DamagedRun, match="part-00025"):
        result.fetch(tmp_path / "out.csv.gz")
    assert not (tmp_path / "out.csv.gz").exists()


def test_a_command_that_is_killed(result, tmp_path):
    """kill -9 in the middle of a real command, then the same command again."""
    program = (
        "import sys, time; from dask_classifier.runs.result import Result; from dask_classifier.__main__ import main\n"
        "stored = Result.stored\n"
        "Result.stored = lambda self, receipt: (time.sleep(0.2), stored(self, receipt))[1]\n"
        "main()"
    )
    words = [sys.executable, "-c", program, "fetch", str(tmp_path / "run"), str(tmp_path / "out.csv.gz")]
    process = subprocess.Popen(words, stderr=subprocess.PIPE)
    end = time.monotonic() + 60
    while not any(path.stat().st_size > 5000 for path in tmp_path.glob(".out.csv.gz.unfinished-*")):
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert not (tmp_path / "out.csv.gz").exists()
    command = [str(Path(sys.executable).parent / "dask-classify"), *words[3:]]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.search(r"3,000 rows", done.stderr)
    assert gzip.decompress((tmp_path / "out.csv.gz").read_bytes()).count(b"\n") == 3001
    assert not list(tmp_path.glob(".out*"))
