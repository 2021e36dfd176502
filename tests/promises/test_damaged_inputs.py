"""Inputs that are cut off or malformed, and disks that are full."""

import gzip
import json
import os
import shutil
import subprocess

import classifiers as known
import pytest
from generated_csv import csv_of
from reference import reference

import dask_classifier as dc
from dask_classifier.errors import (
    SourceError,
    StorageError,
)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one MiB, for as long as the test lasts."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        shutil.which("mount") is None
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]).returncode
    ):
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_then_resume(small_disk, run_bytes, classifiers, command, tmp_path):
    args = [
        "--rows",
        "20000",
        "--block-rows",
        "1000",
        "--workers",
        "2",
        "--classifier",
        classifiers("lengths"),
        "--output",
        small_disk / "run",
    ]
    (small_disk / "ballast").write_bytes(bytes(500_000))
    done = command(*args, check=1)
    assert "No space left on device" in done.stderr and "--resume" in done.stderr
    names = {path.name for path in (small_disk / "run/parts").iterdir()}
    receipts = {name for name in names if name.endswith(".json")}
    assert 0 < len(receipts) < 20
    assert not any(".tmp-" in name for name in names), "no half-written part"
    for name in receipts:
        receipt = json.loads((small_disk / "run/parts" / name).read_text())
        assert (small_disk / "run/parts" / name.replace(".json", ".csv.gz")).stat().st_size == receipt["bytes"]
    (small_disk / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    command(*args, "--resume", check=0)
    assert run_bytes(small_disk / "run") == reference(csv_of(20_000), known.lengths)


def test_a_file_cut_off_during_the_run(tmp_path, classifiers):
    file = tmp_path / "in.csv"
    file.write_bytes(csv_of(3000))

    class Cutter(dc.Progress):
        def finished(self, receipt):
            super().finished(receipt)
            os.truncate(file, 100_000)

    plan = dc.plan(input=file, output=tmp_path / "run", classifier=classifiers("slow"), block_rows=100)
    with (
        dc.LocalCluster(1, dashboard_address="127.0.0.1:0") as cluster,
        pytest.raises(SourceError, match=r"in\.csv has changed"),
    ):
        dc.run(plan, cluster, progress=Cutter())
    assert file.stat().st_size == 100_000
    assert not (tmp_path / "run/manifest.json").exists()


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zst"])
def test_a_packed_file_cut_off(cluster, tmp_path, classifiers, suffix):
    import bz2
    import lzma

    import zstandard

    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstandard.compress}[suffix]
    file = tmp_path / f"in.csv.{suffix}"
    whole = pack(csv_of(30_000))
    file.write_bytes(whole[: len(whole) * 3 // 4])
    with pytest.raises(StorageError, match="Cannot decompress"):
        dc.run(dc.plan(input=file, output=tmp_path / "run", classifier=classifiers("lengths")), cluster)
    assert not (tmp_path / "run/manifest.json").exists()
    assert not list((tmp_path / "run").rglob("*.csv")), "no half-unpacked copy"


def test_a_quote_that_is_never_closed_in_a_big_file_is_said_to_be_one(cluster, tmp_path, classifiers):
    file = tmp_path / "in.csv"
    line = b"1,x\n"
    with file.open("wb") as out:
        out.write(b'id,a\n1,x\n2,"oops\n')
        for _ in range(90):
            out.write(line * (2**20 // len(line)))
    with pytest.raises(SourceError, match=r"a row after byte 5 \(row 1\) is longer than 64 MiB"):
        dc.run(dc.plan(input=file, output=tmp_path / "run", classifier=classifiers("lengths")), cluster)


def test_different_headers_are_named(tmp_path):
    (tmp_path / "a.csv").write_text("id,x\n1,2\n")
    (tmp_path / "b.csv").write_text("id,y\n1,2\n")
    with pytest.raises(SourceError, match=r"a\.csv and .*b\.csv have different columns: id,x and id,y"):
        dc.plan(input=tmp_path / "*.csv", output=tmp_path / "run", classifier="blackbox")


def test_rows_that_grow_do_not_make_huge_blocks(cluster, tmp_path, run_bytes, classifiers):
    file = tmp_path / "in.csv"
    text = (
        b"id,a\n"
        + b"".join(b"%d,x\n" % i for i in range(3000))
        + b"".join(b"%d,%s\n" % (i, b"y" * 20_000) for i in range(2000))
    )
    file.write_bytes(text)
    result = dc.run(dc.plan(input=file, output=tmp_path / "run", classifier=classifiers("lengths")), cluster)
    blocks = json.loads((tmp_path / "run/plan.json").read_text())["blocks"]
    assert max(stop - start for _, _, _, _, start, stop, _ in blocks) < 17 * 2**20
    assert result.rows == 5000 and run_bytes(tmp_path / "run") == reference(text, known.lengths)
