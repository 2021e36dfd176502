"""Promise 1 under real faults: processes are really killed, files really cut off, disks really full."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import classifiers as known
import psutil
import pytest
from reference import reference

import dask_classifier as dc
from dask_classifier import generate
from dask_classifier.engine import prepare
from dask_classifier.errors import (
    BlocksFailed,
    DamagedRun,
    OutputExists,
    SourceError,
    StorageError,
    TooManyBadRows,
    UsageError,
    WrongAnswer,
)
from dask_classifier.runs import sizing

COMMAND = Path(sys.executable).parent / "dask-classify"


def csv_of(rows):
    return b"".join(generate.csv_stream(0, rows))


class Deaths(dc.Progress):
    """Remembers what a run tells of its processes."""

    def __init__(self):
        super().__init__()
        self.told = []

    def died(self, index, manner, again):
        self.told.append((index, manner, again))


def test_a_crash_costs_its_block_a_second_try(cluster, tmp_path, run_bytes, classifiers, monkeypatch):
    monkeypatch.setenv("TEST_MEMORY", str(tmp_path / "memory"))
    deaths = Deaths()
    plan = dc.plan(rows=1000, output=tmp_path / "run", classifier=classifiers("dies_once"), block_rows=100)
    dc.run(plan, cluster, progress=deaths)
    assert deaths.told == [(2, "was killed by SIGSEGV", True)]
    assert run_bytes(tmp_path / "run") == reference(csv_of(1000), known.lengths)


def test_a_block_that_kills_three_processes_is_named_and_the_others_finish(cluster, tmp_path, run_bytes, classifiers):
    file = tmp_path / "in.csv"
    file.write_bytes(
        b"id,a\n"
        + b"".join(b"%d,x\n" % i for i in range(100, 500))
        + b"7,x\n"
        + b"".join(b"%d,y\n" % i for i in range(500, 899))
    )
    deaths = Deaths()
    plan = dc.plan(input=file, output=tmp_path / "run", classifier=classifiers("killed_by_seven"), block_rows=100)
    with pytest.raises(
        BlocksFailed, match=r"block 4 \(rows 401 to 500 of .*in.csv\), whose process was killed by SIGKILL, 3 times"
    ) as error:
        dc.run(plan, cluster, progress=deaths)
    assert error.value.exit_code == 1
    assert [again for _, _, again in deaths.told] == [True, True, False]
    receipts = sorted(path.name for path in (tmp_path / "run/parts").glob("*.json"))
    assert receipts == [f"part-0000{n}.json" for n in (0, 1, 2, 3, 5, 6, 7)]


def test_a_lethal_row_at_the_beginning_costs_its_block_too(cluster, tmp_path, classifiers):
    """The trial dies of it, and the run goes on without a measurement."""
    plan = dc.plan(rows=3000, output=tmp_path / "run", classifier=classifiers("killed_by_seven"))
    with pytest.raises(
        BlocksFailed, match=r"block 0 \(rows 1 to .* of 3,000 generated rows\), whose process was killed by SIGKILL"
    ):
        dc.run(plan, cluster)
    receipts = {path.name for path in (tmp_path / "run/parts").glob("*.json")}
    assert "part-00000.json" not in receipts and len(receipts) >= 15


def test_a_classifier_that_always_kills_its_process_is_given_up_soon(cluster, tmp_path, classifiers):
    deaths = Deaths()
    plan = dc.plan(rows=100_000, output=tmp_path / "run", classifier=classifiers("kills"), block_rows=100)
    with pytest.raises(BlocksFailed, match="of 1000 blocks could not be classified"):
        dc.run(plan, cluster, progress=deaths)
    assert 12 <= len(deaths.told) <= 40


def test_a_hanging_block_is_ended_and_named(cluster, tmp_path, classifiers):
    file = tmp_path / "in.csv"
    file.write_bytes(b"id,a\n" + b"".join(b"%d,x\n" % i for i in [*range(100, 300), 7]))
    plan = dc.plan(
        input=file,
        output=tmp_path / "run",
        classifier=classifiers("hangs_on_seven"),
        block_rows=100,
        block_timeout="5s",
    )
    with pytest.raises(BlocksFailed, match=r"block 2 .* took longer than 5 s and was killed, 3 times"):
        dc.run(plan, cluster)
    assert len(list((tmp_path / "run/parts").glob("*.json"))) == 2


def test_killed_classifier_processes_change_nothing(tmp_path, run_bytes, classifiers):
    """Whoever is at work is killed, five times, by SIGKILL; with so many blocks between that none is hit
    three times.
    """
    deaths, killed = Deaths(), []

    class Killer(Deaths):
        def finished(self, receipt):
            super().finished(receipt)
            if receipt.index % 12 == 0:
                victims = [child for child in children() if child.pid != receipt.pid]
                if victims:
                    victims[0].kill()
                    killed.append(victims[0].pid)

    def children():
        return [child for child in psutil.Process().children(recursive=True) if child.pid in pids()]

    def pids():
        return {
            pid
            for worker in cluster.workers.values()
            for plugin in worker.plugins.values()
            if hasattr(plugin, "pool")
            for pid in plugin.pool.pids()
        }

    killer = Killer()
    with dc.LocalCluster(3, dashboard_address="127.0.0.1:0") as cluster:
        plan = dc.plan(rows=6000, output=tmp_path / "run", classifier=classifiers("slow"), block_rows=100)
        dc.run(plan, cluster, progress=killer)
    assert len(killed) == 5
    assert not deaths.told and len(killer.told) >= 3, "most were in the middle of a block"
    assert run_bytes(tmp_path / "run") == reference(csv_of(6000), known.lengths)


def start(tmp_path, classifier, *args, rows=6000):
    """The command in the background, which goes no further than row 1000; returns when three blocks are done."""
    (tmp_path / "hold").touch()
    process = subprocess.Popen(
        [
            COMMAND,
            "--rows",
            str(rows),
            "--workers",
            "2",
            "--output",
            tmp_path / "run",
            "--block-rows",
            "200",
            "--classifier",
            classifier,
            "--dashboard-address",
            "127.0.0.1:0",
            *args,
        ],
        stderr=(tmp_path / "log").open("w"),
        start_new_session=True,
        env=os.environ | {"TEST_HOLD": str(tmp_path / "hold")},
    )
    while process.poll() is None:
        if len(list((tmp_path / "run/parts").glob("*.json"))) >= 3:
            return process
        time.sleep(0.05)
    raise AssertionError((tmp_path / "log").read_text())


def family(process):
    return psutil.Process(process.pid).children(recursive=True)


def wait_until_gone(processes):
    _, alive = psutil.wait_procs(processes, timeout=120)
    assert not alive, f"these outlive the command: {alive}"


@pytest.mark.parametrize("again", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_kill_9_of_the_command_then_resume(tmp_path, run_bytes, classifiers, command, again):
    process = start(tmp_path, classifiers("slow"))
    children = family(process)
    assert len(children) >= 3, "a forkserver and two classifier processes"
    process.kill()
    assert process.wait() == -signal.SIGKILL
    wait_until_gone(children)
    done = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run/parts").glob("*.json")}
    assert 3 <= len(done) < 30
    assert not (tmp_path / "run/manifest.json").exists()
    args = ["--rows", "6000", "--block-rows", "200", "--classifier", classifiers("slow"), "--output", tmp_path / "run"]
    assert "--resume" in command(*args, check=2).stderr
    finished = command(*args, "--workers", again, "--resume", check=0)
    assert f"{len(done)} of 30 blocks are already done; {30 - len(done)} to go" in finished.stderr
    assert {name: (tmp_path / "run/parts" / name).stat().st_mtime_ns for name in done} == done, (
        "finished blocks were not redone"
    )
    assert run_bytes(tmp_path / "run") == reference(csv_of(6000), known.lengths)
    assert json.loads((tmp_path / "run/manifest.json").read_text())["resumed"] == sorted(
        int(name[5:10]) for name in done
    )
    assert "Verified: " in command("verify", tmp_path / "run", check=0).stdout


@pytest.mark.parametrize(
    ("number", "times"),
    [
        (signal.SIGINT, 1),
        pytest.param(signal.SIGTERM, 1, marks=pytest.mark.slow),
        (signal.SIGHUP, 1),
        pytest.param(signal.SIGINT, 3, marks=pytest.mark.slow),
        (signal.SIGTERM, 3),
    ],
)
def test_an_interrupted_command_ends_with_130_and_leaves_no_process(
    tmp_path, run_bytes, classifiers, command, number, times
):
    process = start(tmp_path, classifiers("slow"))
    children = family(process)
    for _ in range(times):
        os.killpg(process.pid, number)  # as a terminal does: to the whole group
        time.sleep(0.1)
    assert process.wait(timeout=300) == 130
    wait_until_gone(children)
    log = (tmp_path / "log").read_text()
    assert "blocks are done and kept" in log and "--resume" in log and "Traceback" not in log
    args = [
        "--rows",
        "6000",
        "--block-rows",
        "200",
        "--classifier",
        classifiers("slow"),
        "--output",
        tmp_path / "run",
        "--resume",
    ]
    command(*args, check=0)
    assert run_bytes(tmp_path / "run") == reference(csv_of(6000), known.lengths)


def test_resume_redoes_what_is_damaged_and_only_that(cluster, tmp_path, run_bytes, classifiers):
    options = {"rows": 1000, "output": tmp_path / "run", "classifier": classifiers("lengths"), "block_rows": 100}
    dc.run(dc.plan(**options), cluster)
    parts = tmp_path / "run/parts"
    (tmp_path / "run/manifest.json").unlink()
    (parts / "part-00001.json").unlink()  # never finished
    (parts / "part-00003.csv.gz").write_bytes(b"")  # cut off after its receipt was written
    (parts / "part-00005.json").write_bytes((parts / "part-00005.json").read_bytes()[:50])
    (parts / ".part-00007.csv.gz.tmp-abc").write_bytes(b"left by a killed writer")
    before = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.csv.gz")}
    result = dc.run(dc.plan(**options, resume=True), cluster)
    redone = {name for name, was in before.items() if (parts / name).stat().st_mtime_ns != was}
    assert redone == {"part-00001.csv.gz", "part-00003.csv.gz", "part-00005.csv.gz"}
    assert run_bytes(tmp_path / "run") == reference(csv_of(1000), known.lengths)
    assert len(result.manifest["resumed"]) == 7
    result.verify()
    assert not list(parts.glob(".*")), "what a killed writer left is gone"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"chunk_rows": 50}, "chunk rows was 100 and is now 50"),
        ({"rows": 1100}, "source"),
        ({"seed": 1}, "source"),
        ({"header": True}, "header was false and is now true"),
        ({"output_format": "csv.zst"}, "output format"),
        ({"block_rows": 200}, "block rows"),
        ({"classifier": "series"}, "classifier"),
    ],
)
def test_resume_refuses_another_plan_and_says_what_differs(cluster, tmp_path, classifiers, change, named):
    options = {"rows": 1000, "output": tmp_path / "run", "classifier": classifiers("lengths"), "block_rows": 100}
    dc.run(dc.plan(**options), cluster)
    (tmp_path / "run/manifest.json").unlink()
    if "classifier" in change:
        change = {"classifier": classifiers(change["classifier"])}
    before = snapshot(tmp_path / "run")
    with pytest.raises(OutputExists, match=named):
        dc.run(dc.plan(**options | change, resume=True), cluster)
    assert snapshot(tmp_path / "run") == before


def snapshot(folder):
    return {path.name: path.stat().st_mtime_ns for path in Path(folder).rglob("*") if path.is_file()}


def test_resume_refuses_a_changed_input_and_a_changed_classifier(cluster, tmp_path):
    file, code = tmp_path / "in.csv", tmp_path / "mine.py"
    file.write_bytes(csv_of(300))
    code.write_text("from helper import VALUE\ndef f(df): return df.assign(X=VALUE)\n")
    (tmp_path / "helper.py").write_text("VALUE = 1\n")
    options = {"input": file, "output": tmp_path / "run", "classifier": f"{code}:f", "block_rows": 100}
    dc.run(dc.plan(**options), cluster)
    (tmp_path / "run/manifest.json").unlink()
    (tmp_path / "helper.py").write_text("VALUE = 2\n")
    with pytest.raises(OutputExists, match="classifier's code"):
        dc.run(dc.plan(**options, resume=True), cluster)
    (tmp_path / "helper.py").write_text("VALUE = 1\n")
    file.write_bytes(csv_of(301))
    with pytest.raises(OutputExists, match="source"):
        dc.run(dc.plan(**options, resume=True), cluster)


def test_an_existing_run_is_never_overwritten_unasked(cluster, tmp_path, run_bytes, classifiers):
    options = {"rows": 300, "output": tmp_path / "run", "classifier": classifiers("lengths")}
    dc.run(dc.plan(**options), cluster)
    (tmp_path / "run/notes.txt").write_text("mine")
    before = snapshot(tmp_path / "run")
    for other in ({}, {"seed": 1}, {"classifier": classifiers("series")}):
        with pytest.raises(OutputExists):
            dc.run(dc.plan(**options | other), cluster)
    with pytest.raises(WrongAnswer):  # a plan that fails its trial does not cost the old run either
        dc.run(dc.plan(**options | {"classifier": classifiers("fails_always")}, overwrite=True), cluster)
    assert snapshot(tmp_path / "run") == before
    dc.run(dc.plan(**options | {"rows": 100}, overwrite=True, block_rows=100), cluster)
    assert run_bytes(tmp_path / "run") == reference(csv_of(100), known.lengths)
    assert (tmp_path / "run/notes.txt").read_text() == "mine"
    assert dc.run(dc.plan(**options | {"rows": 100}, resume=True, block_rows=100), cluster).rows == 100, (
        "complete: nothing to do"
    )


def test_a_folder_with_parts_that_is_no_run_is_left_alone(cluster, tmp_path, classifiers):
    (tmp_path / "run/parts").mkdir(parents=True)
    (tmp_path / "run/parts/mine.txt").write_text("mine")
    (tmp_path / "run/parts/part-00000.csv.gz").write_text("of something else")
    plan = dc.plan(rows=10, output=tmp_path / "run", classifier=classifiers("lengths"))
    with pytest.raises(OutputExists, match="is not a run that can be resumed"):
        dc.run(plan, cluster)
    (tmp_path / "run/parts/part-00000.csv.gz").unlink()
    dc.run(plan, cluster).verify()  # a file of another name is the user's, and no matter
    assert (tmp_path / "run/parts/mine.txt").read_text() == "mine"


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
    import gzip
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


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("too_few", "answer to rows 1 to 10 .*: it returned 9 rows for a chunk of 10"),
        ("other_order", "rows 1 to 10 .*: row 1 of its answer has the index '9' instead of '0'"),
        ("too_many_values", "rows 1 to 10 .*: it returned 11 values for 10 rows"),
        ("nothing", "rows 1 to 10 .*: it returned nothing"),
        ("fails_always", "every row of the first chunk: KeyError: 'NO_SUCH_COLUMN'"),
        ("exits", "every row of the first chunk: SystemExit: 3"),
    ],
)
def test_wrong_answers_stop_the_run_before_anything_is_written(cluster, tmp_path, classifiers, name, reason):
    with pytest.raises(WrongAnswer, match=reason):
        dc.run(dc.plan(rows=200, output=tmp_path / "run", classifier=classifiers(name)), cluster)
    assert not (tmp_path / "run").exists()


def test_a_wrong_answer_in_the_middle_names_its_chunk(cluster, tmp_path):
    code = tmp_path / "mine.py"
    code.write_text("def f(df): return df if '2550' not in df.index else df.iloc[1:]\n")
    with pytest.raises(
        WrongAnswer, match=r"chunk 26 \(first row's index '2500'\) is wrong: it returned 99 rows for a chunk of 100"
    ):
        dc.run(dc.plan(rows=4000, output=tmp_path / "run", classifier=f"{code}:f", block_rows=1000), cluster)


def test_columns_that_change_from_chunk_to_chunk(cluster, tmp_path, classifiers):
    with pytest.raises(
        WrongAnswer, match=r"answer to chunk 2 \(.*\) is wrong: its columns changed from ID, .*, C0 to ID, .*, C100\."
    ):
        dc.run(
            dc.plan(rows=400, output=tmp_path / "a", classifier=classifiers("other_columns"), block_rows=400), cluster
        )
    with pytest.raises(DamagedRun, match="columns changed"):
        dc.run(
            dc.plan(rows=400, output=tmp_path / "b", classifier=classifiers("other_columns"), block_rows=100), cluster
        )
    assert not (tmp_path / "b/manifest.json").exists()


# --- bad rows


MALFORMED = b'id,a,b\n1,x,y\n2,x,y,z\n3,x,y\n4,\xff,y\n5,x,y,z,z\n6,x,"y\nBAD"\n7,x,y\n8,x,"not closed\n9,x,y\n'


def test_bad_rows_are_set_aside_with_reasons(cluster, tmp_path, run_bytes, classifiers):
    file = tmp_path / "in.csv"
    file.write_bytes(MALFORMED)
    plan = dc.plan(
        input=file,
        output=tmp_path / "run",
        classifier=classifiers("fails_on_bad"),
        max_bad=5,
        block_rows=2,
        chunk_rows=2,
    )
    result = dc.run(plan, cluster)
    good = b"id,a,b\n1,x,y\n3,x,y\n7,x,y\n"
    assert run_bytes(tmp_path / "run") == reference(good, known.lengths)
    assert (result.rows, result.bad_rows, result.manifest["rows_in"]) == (3, 5, 8)
    bad = result.quarantined()
    assert bad.source.unique().tolist() == [str(file)]
    bad["reason"] = bad.reason.str.replace(r" \(classifiers.py:\d+, in fails_on_bad: raise .*\)$", "", regex=True)
    assert bad[["row", "reason", "raw"]].values.tolist() == [
        [2, "4 fields, but the header has 3", "2,x,y,z"],
        [4, "not valid utf-8: invalid start byte", "4,\\xff,y"],
        [5, "5 fields, but the header has 3", "5,x,y,z,z"],
        [6, "ValueError: there is a BAD one", '6,x,"y\nBAD"'],
        [8, "a quote is not closed", '8,x,"not closed\n9,x,y'],
    ]
    result.verify()


@pytest.mark.parametrize("blocks", [1000, 10_000])
def test_a_bad_row_costs_only_itself(cluster, tmp_path, run_bytes, classifiers, blocks):
    rows = [b"%d,%s\n" % (i, b"BAD" if i in {3, 5555, 9999} else b"x") for i in range(10_000)]
    file = tmp_path / "in.csv"
    file.write_bytes(b"id,a\n" + b"".join(rows))
    plan = dc.plan(
        input=file, output=tmp_path / "run", classifier=classifiers("fails_on_bad"), max_bad="0.03%", block_rows=blocks
    )
    result = dc.run(plan, cluster)
    good = b"id,a\n" + b"".join(row for row in rows if b"BAD" not in row)
    assert run_bytes(tmp_path / "run") == reference(good, known.lengths)
    assert result.quarantined().row.tolist() == [4, 5556, 10_000]


def test_without_leave_the_run_stops_at_the_first_bad_row_and_names_it(cluster, tmp_path, classifiers):
    for text, where in ((b"id,a\n1,x\n2,BAD\n", "row 2"), (b"id,a\n" + b"1,x\n" * 5000 + b"2,BAD\n", "row 5,001")):
        file = tmp_path / "in.csv"
        file.write_bytes(text)
        plan = dc.plan(input=file, output=tmp_path / "run", classifier=classifiers("fails_on_bad"), block_rows=1000)
        place = r"\(classifiers.py:\d+, in fails_on_bad: raise ValueError\(.*\)\)"
        with pytest.raises(
            TooManyBadRows, match=rf"{where} of .*in.csv: ValueError: there is a BAD one {place}: '2,BAD'"
        ) as error:
            dc.run(plan, cluster)
        assert error.value.exit_code == 3
        shutil.rmtree(tmp_path / "run", ignore_errors=True)


def test_more_bad_rows_than_allowed_then_resume_with_more(cluster, tmp_path, classifiers):
    file = tmp_path / "in.csv"
    file.write_bytes(b"id,a\n" + b"".join(b"%d,%s\n" % (i, b"BAD" if i % 100 == 50 else b"x") for i in range(1000)))
    options = {"input": file, "output": tmp_path / "run", "classifier": classifiers("fails_on_bad"), "block_rows": 100}
    with pytest.raises(TooManyBadRows, match="where 4 bad rows are allowed"):
        dc.run(dc.plan(**options, max_bad=4), cluster)
    with pytest.raises(TooManyBadRows):
        dc.run(dc.plan(**options, max_bad=4, resume=True), cluster)
    result = dc.run(dc.plan(**options, max_bad=10, resume=True), cluster)
    assert (result.rows, result.bad_rows) == (990, 10)


def test_damage_is_found_by_verify(cluster, tmp_path, classifiers):
    options = {"rows": 300, "output": tmp_path / "run", "classifier": classifiers("lengths"), "block_rows": 100}
    result = dc.run(dc.plan(**options), cluster)
    part = tmp_path / "run/parts/part-00001.csv.gz"
    whole = part.read_bytes()
    for damage, match in [
        (lambda: part.write_bytes(whole[:-1]), "does not match its receipt"),
        (lambda: part.write_bytes(whole[:-9] + bytes(9)), "does not match its receipt"),
        (part.unlink, "is missing"),
        (lambda: (tmp_path / "run/parts/part-00009.csv.gz").write_bytes(whole), "does not belong"),
    ]:
        damage()
        with pytest.raises(DamagedRun, match=match):
            result.verify()
        part.write_bytes(whole)
    (tmp_path / "run/parts/part-00009.csv.gz").unlink()
    result.verify()


def test_unusable_classifiers_are_wrong_usage_and_nothing_is_written(cluster, tmp_path):
    code = tmp_path / "mine.py"
    code.write_text("import not_installed\ndef f(df): return df\n")
    (tmp_path / "broken.py").write_text("def f(df:\n")
    (tmp_path / "fine.py").write_text("def f(df): return df\nx = 3\n")
    for classifier, match in [
        ("mine", "is not a classifier"),
        ("no_such_module:f", "Cannot find the module"),
        (f"{tmp_path}/none.py:f", "Cannot find the classifier's file"),
        (f"{tmp_path}/broken.py:f", "is not valid Python"),
        (f"{code}:f", "ModuleNotFoundError"),
        (f"{tmp_path}/fine.py:g", "module fine has no attribute 'g'"),
        (f"{tmp_path}/fine.py:x", "is not callable"),
    ]:
        with pytest.raises(UsageError, match=match):
            dc.run(dc.plan(rows=10, output=tmp_path / "run", classifier=classifier), cluster)
    assert not (tmp_path / "run").exists()


def test_different_headers_are_named(tmp_path):
    (tmp_path / "a.csv").write_text("id,x\n1,2\n")
    (tmp_path / "b.csv").write_text("id,y\n1,2\n")
    with pytest.raises(SourceError, match=r"a\.csv and .*b\.csv have different headers: id,x and id,y"):
        dc.plan(input=tmp_path / "*.csv", output=tmp_path / "run", classifier="blackbox")


def test_overwrite_deletes_only_what_is_a_runs(cluster, tmp_path, command):
    run = tmp_path / "run"
    (run / "parts").mkdir(parents=True)
    mine = [run / "plan.json.bak", run / "parts/photo.txt", run / "parts/in.csv"]
    for path in mine:
        path.write_text("id,a\n1,x\n")
    done = command("--input", mine[2], "--classifier", "blackbox", "--output", run, "--overwrite", check=2)
    assert "is a part of the run" in done.stderr
    command("--rows", 10, "--slowness", 1, "--output", run, "--overwrite", check=0)
    assert all(path.read_text() == "id,a\n1,x\n" for path in mine)


def test_a_dead_process_whose_child_lives_on_does_not_hold_up_the_run(cluster, tmp_path):
    code = tmp_path / "mine.py"
    memory = tmp_path / "pid"
    code.write_text(
        "import os, signal, time\n"
        "def f(df):\n"
        "    if '150' in df.index:\n"
        "        if (pid := os.fork()) == 0:\n"
        "            time.sleep(600)\n"
        "            os._exit(0)\n"
        f"        open({str(memory)!r}, 'a').write(f'{{pid}}\\n')\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return df\n"
    )
    with pytest.raises(BlocksFailed, match=r"block 1 .* SIGKILL"):
        dc.run(dc.plan(rows=300, output=tmp_path / "run", classifier=f"{code}:f", block_rows=100), cluster)
    pids = [int(pid) for pid in memory.read_text().split()]
    assert len(pids) == 3
    until = time.monotonic() + 300
    while alive := [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]:
        assert time.monotonic() < until, alive
        time.sleep(0.1)


def test_resume_of_a_complete_run_that_lost_a_part(cluster, tmp_path, run_bytes, classifiers):
    options = {"rows": 500, "output": tmp_path / "run", "classifier": classifiers("lengths"), "block_rows": 100}
    dc.run(dc.plan(**options), cluster)
    (tmp_path / "run/parts/part-00002.csv.gz").unlink()
    dc.run(dc.plan(**options, resume=True), cluster).verify()
    assert run_bytes(tmp_path / "run") == reference(csv_of(500), known.lengths)


def test_resume_of_a_complete_run_of_a_packed_file_that_lost_a_part(cluster, tmp_path, run_bytes, classifiers):
    """The unpacked copy went when the run was complete."""
    text = csv_of(500)
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(text))
    options = {"input": tmp_path / "in.csv.gz", "classifier": classifiers("lengths"), "block_rows": 100}
    dc.run(dc.plan(**options, output=tmp_path / "run"), cluster)
    assert not list((tmp_path / "run").glob("unpacked/*"))
    (tmp_path / "run/parts/part-00002.csv.gz").unlink()
    dc.run(dc.plan(**options, output=tmp_path / "run", resume=True), cluster).verify()
    assert run_bytes(tmp_path / "run") == reference(text, known.lengths)
    assert not list((tmp_path / "run").glob("unpacked/*"))


def test_resume_unpacks_only_what_missing_blocks_read(cluster, tmp_path, run_bytes, classifiers, monkeypatch):
    for name in "abc":
        (tmp_path / f"{name}.csv.gz").write_bytes(gzip.compress(csv_of(200)))
    options = {"input": tmp_path / "*.csv.gz", "classifier": classifiers("lengths"), "block_rows": 100}
    dc.run(dc.plan(**options, output=tmp_path / "run"), cluster)
    whole = run_bytes(tmp_path / "run")
    (tmp_path / "run/parts/part-00003.csv.gz").unlink()  # of b
    copied, real = [], prepare._write_copies

    def noting(files, *args):
        copied.extend(file.url.rpartition("/")[2] for _, file in files)
        return real(files, *args)

    monkeypatch.setattr(prepare, "_write_copies", noting)
    dc.run(dc.plan(**options, output=tmp_path / "run", resume=True), cluster).verify()
    assert copied == ["b.csv.gz"] and run_bytes(tmp_path / "run") == whole


def test_overwrite_with_a_damaged_packed_file_gives_nothing_up(cluster, tmp_path, classifiers):
    packed = gzip.compress(csv_of(500))
    (tmp_path / "in.csv.gz").write_bytes(packed)
    options = {"input": tmp_path / "in.csv.gz", "output": tmp_path / "run", "classifier": classifiers("lengths")}
    done = dc.run(dc.plan(**options), cluster)
    (tmp_path / "in.csv.gz").write_bytes(packed[:-100])
    with pytest.raises(StorageError, match="decompress"):
        dc.run(dc.plan(**options, overwrite=True), cluster)
    done.verify()
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(csv_of(300)))
    dc.run(dc.plan(**options, overwrite=True), cluster).verify()
    assert not list((tmp_path / "run").glob("unpacked/*"))


def test_overwrite_gives_nothing_up_before_the_new_run_is_sure(cluster, tmp_path, classifiers, monkeypatch):
    for module in (prepare, sizing):
        monkeypatch.setattr(module, "MOST_BLOCKS", 3)
    options = {"rows": 500, "output": tmp_path / "run", "classifier": classifiers("lengths")}
    done = dc.run(dc.plan(**options, block_rows=200), cluster)
    with pytest.raises(UsageError, match="more than the 3 parts"):
        dc.run(dc.plan(**options, block_rows=100, overwrite=True), cluster)
    done.verify()


def test_receipts_of_another_cut_are_not_taken(cluster, tmp_path, run_bytes, classifiers):
    """Two commands on one output measure, and so cut, differently: the fingerprint of a receipt is of its cut."""
    options = {"rows": 2000, "classifier": classifiers("lengths")}
    dc.run(dc.plan(**options, output=tmp_path / "run"), cluster)
    with dc.LocalCluster(1, dashboard_address="127.0.0.1:0") as other:
        dc.run(dc.plan(**options, output=tmp_path / "other"), other)
    cuts = [json.loads((tmp_path / name / "plan.json").read_text())["blocks"] for name in ("run", "other")]
    assert cuts[0] != cuts[1]
    for file in (tmp_path / "other/parts").glob("part-00000*"):
        shutil.copy(file, tmp_path / "run/parts")
    (tmp_path / "run/manifest.json").unlink()
    dc.run(dc.plan(**options, output=tmp_path / "run", resume=True), cluster).verify()
    assert run_bytes(tmp_path / "run") == reference(csv_of(2000), known.lengths)


def test_allowed_bad_rows_are_no_wrong_answer(cluster, tmp_path, classifiers):
    file = tmp_path / "in.csv"
    file.write_bytes(b"id,a\n" + b"".join(b"%d,x\n" % i for i in range(100)) + b"100,BAD\n")
    result = dc.run(
        dc.plan(input=file, output=tmp_path / "run", classifier=classifiers("fails_on_bad"), max_bad=10), cluster
    )
    assert result.bad_rows == 1
    assert result.quarantined().row.tolist() == [101]


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


def test_names_with_brackets(cluster, tmp_path, classifiers):
    file, output = tmp_path / "in[1].csv", tmp_path / "run[7]"
    file.write_bytes(csv_of(300))
    options = {"input": file, "output": output, "classifier": classifiers("lengths"), "block_rows": 100}
    dc.run(dc.plan(**options), cluster)
    (output / "manifest.json").unlink()
    assert dc.run(dc.plan(**options, resume=True), cluster).verify().rows == 300
