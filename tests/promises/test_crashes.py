"""Processes that crash, hang or are killed, and commands that are interrupted."""

import contextlib
import gzip
import json
import os
import signal
import time

import classifiers as known
import psutil
import pytest
from generated_csv import csv_of
from reference import reference
from running import start

import dask_classifier as dc
from dask_classifier.errors import (
    BlocksFailed,
)


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


def test_a_resumed_run_whose_classifier_always_kills_its_process_is_given_up_soon_too(cluster, tmp_path):
    """A block that an earlier attempt finished says nothing about this one's classifier."""

    def deadly(chunk):
        if not (tmp_path / "harmless").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return [0] * len(chunk)

    (tmp_path / "harmless").touch()
    plan = dc.plan(rows=20_000, output=tmp_path / "run", classifier=deadly, block_rows=100)
    dc.run(plan, cluster)
    for path in (tmp_path / "run/parts").glob("part-001*.json"):
        path.unlink()
    (tmp_path / "harmless").unlink()
    deaths = Deaths()
    with pytest.raises(BlocksFailed, match="of 200 blocks could not be classified"):
        dc.run(plan, cluster, resume=True, progress=deaths)
    assert len(deaths.told) < 60, "not three for each of the hundred missing blocks"


@pytest.mark.long
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
    killed = []

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
    assert len(killer.told) >= 3, "most were in the middle of a block"
    assert all(again for *_, again in killer.told), "and each of these blocks was tried again"
    assert run_bytes(tmp_path / "run") == reference(csv_of(6000), known.lengths)


SLOW_WITH_BAD_ROWS = """
import time

def classify(chunk):
    time.sleep(0.03)
    if chunk["a"].eq("BAD").any():
        raise ValueError("there is a BAD one")
    return chunk["a"].str.len()
"""


@pytest.mark.long
def test_bad_rows_are_the_same_whatever_is_killed_and_resumed(tmp_path, run_bytes):
    """Inline; and on three processes of which two are killed, in a run that is interrupted twice."""
    rows = b"".join(b"%d,%s\n" % (i, b"BAD" if i % 97 == 50 else b"x" * (i % 7)) for i in range(3000))
    bad = rows.count(b"BAD")
    (tmp_path / "in.csv").write_bytes(b"id,a\n" + rows)
    (tmp_path / "slow.py").write_text(SLOW_WITH_BAD_ROWS)
    options = {"input": tmp_path / "in.csv", "classifier": f"{tmp_path}/slow.py:classify", "block_rows": 100}
    options |= {"chunk_rows": 50, "max_bad": 100}
    dc.run(dc.plan(**options, output=tmp_path / "inline"), "inline")
    killed = []

    class Disturber(Deaths):
        def finished(self, receipt):
            super().finished(receipt)
            victims = [pid for pid in pids() if pid not in {receipt.pid, *killed}]
            if len(killed) < 2 and victims:
                os.kill(victims[0], signal.SIGKILL)
                killed.append(victims[0])
            if self.snapshot().blocks_done in {10, 20}:
                raise KeyboardInterrupt

    def pids():
        plugins = [plugin for worker in cluster.workers.values() for plugin in worker.plugins.values()]
        return {pid for plugin in plugins if hasattr(plugin, "pool") for pid in plugin.pool.pids()}

    for attempt in range(3):
        with dc.LocalCluster(3, dashboard_address="127.0.0.1:0") as cluster:
            plan = dc.plan(**options, output=tmp_path / "run", resume=attempt > 0)
            with contextlib.suppress(KeyboardInterrupt):
                result = dc.run(plan, cluster, progress=Disturber())
    assert len(killed) == 2 and 20 <= len(result.manifest["resumed"]) < 30, "it was not disturbed enough"
    assert run_bytes(tmp_path / "run") == run_bytes(tmp_path / "inline")
    quarantined = [
        b"".join(gzip.decompress(file.read_bytes()) for file in sorted((tmp_path / name / "quarantine").iterdir()))
        for name in ("inline", "run")
    ]
    assert quarantined[0] == quarantined[1] and quarantined[0].count(b"BAD") >= bad > 30
    assert result.bad_rows == bad and result.verify().rows == 3000 - bad


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
    assert "finished blocks are kept" in log and "--resume" in log and "Traceback" not in log
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
