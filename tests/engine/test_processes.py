"""Classifier processes: what they print, when they are renewed, and what happens when something around them breaks."""

import contextlib
import dataclasses
import multiprocessing.forkserver
import multiprocessing.process
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import classifiers as known
import psutil
import pytest
from distributed import Client, LocalCluster
from generated_csv import csv_of
from reference import reference

import dask_classifier as dc
from dask_classifier.classifier.job import Site
from dask_classifier.engine import processes
from dask_classifier.engine.printed import Printed
from dask_classifier.errors import ClusterError, DamagedRun, ProcessDied, StorageError, UsageError
from dask_classifier.units import Renewal

COMMAND = Path(sys.executable).parent / "dask-classify"


def until(true, seconds=60):
    """Wait for something to happen; a generous bound, since machines may be busy."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.02)


# --- what they print ---------------------------------------------------------------------------------


def test_prints_are_lines_and_a_bar_that_is_printed_over_is_its_last_state(tmp_path, command):
    (tmp_path / "mine.py").write_text(
        "import os, sys, warnings\n"
        "def f(chunk):\n"
        "    print('one', 'line')\n"
        "    warnings.warn('mind the gap')\n"
        "    for n in range(101):\n"
        "        sys.stderr.write(f'\\r{n}%')\n"
        "    os.write(1, b' of the bar\\n')\n"
        "    return [1] * len(chunk)\n"
    )
    done = command("--rows", 20, "--classifier", "mine.py:f", "--output", "run", "--workers", 1, "--json", check=0)
    lines = done.stderr.splitlines()
    assert "0: one line" in lines and "0: 100% of the bar" in lines
    assert any("mind the gap" in line for line in lines)
    assert not any("\r" in line or line.startswith("0: 50%") for line in lines)
    assert done.stdout.startswith("{") and "one line" not in done.stdout


def test_a_flood_of_prints_is_counted_and_not_shown(tmp_path, command):
    (tmp_path / "mine.py").write_text("def f(chunk):\n    print('x\\n' * 100_000)\n    return [1] * len(chunk)\n")
    done = command("--rows", 20, "--classifier", "mine.py:f", "--output", "run", check=0)
    assert "more lines" in done.stderr and len(done.stderr.splitlines()) < 2_000


def test_the_last_words_of_a_process_are_shown(tmp_path, command):
    (tmp_path / "mine.py").write_text("import os\ndef f(chunk):\n    os.write(2, b'out of luck')\n    os._exit(9)\n")
    done = command("--rows", 20, "--classifier", "mine.py:f", "--output", "run", check=1)
    assert "0: out of luck" in done.stderr.splitlines()
    assert "exited with code 9" in done.stderr


def test_lines_are_whole_whatever_the_reads_are():
    """A character cut in two, a line end cut in two, a bar whose read ends in a CR, a line without an end."""
    printed = Printed()
    for text in (b"d\xc3", b"\xa9j\xc3\xa0 vu\r", b"\n50%\r60%\r", b"", b"last words"):
        printed.add(1, text)
    assert printed.take() == ["d\u00e9j\u00e0 vu", "60%"]
    printed.add(1, b"")
    assert printed.take() == ["last words"]


# --- renewal -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("renew_after", ["1 block", 1, "1MiB"])
def test_a_process_is_renewed_after_blocks_or_memory(cluster, tmp_path, renew_after):
    def f(chunk):
        return [os.getpid()] * len(chunk)

    options = {"rows": 600, "classifier": f, "block_rows": 100}
    result = dc.run(dc.plan(**options, output=tmp_path / "renewed", renew_after=renew_after), cluster)
    assert len(set(result.to_pandas().CLASSIFICATION)) == 6, "each block has a process of its own"
    result = dc.run(dc.plan(**options, output=tmp_path / "kept", renew_after="64GiB"), cluster)
    assert len(set(result.to_pandas().CLASSIFICATION)) <= 2


REPORTING = """
import time

from dask_classifier.classifier.job import Site
from dask_classifier.engine import processes

def report_and_return(site, report, value):  # a task
    for rows in range(5):
        time.sleep(0.3)  # reports are not sent more often
        report(rows, 0)
    return value

def fail(rows, bad):
    raise KeyError("progress")

if __name__ == "__main__":
    pool = processes.ClassifierProcesses(1, Site("here", "."))
    try:
        pool.call("reporting:report_and_return", 1, on_report=fail)
    except KeyError as error:
        print("raised", error)
    print(pool.call("reporting:report_and_return", 2))
    pool.close()
"""


def test_an_error_in_the_worker_costs_the_process_and_not_the_next_answer(tmp_path):
    """The process is still at work: what it sends at the end is not taken for the answer to another task."""
    (tmp_path / "reporting.py").write_text(REPORTING)
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run([sys.executable, "reporting.py"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout == "raised 'progress'\n2\n", done.stderr


def test_renewal_that_cannot_be_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="'soon' is not a size or a number of blocks"):
        dc.plan(rows=10, renew_after="soon")
    with pytest.raises(UsageError, match="cannot be renewed"):
        dc.run(dc.plan(rows=10, output=tmp_path / "run", renew_after=1), "inline")


def test_native_libraries_are_held_to_one_thread(cluster, tmp_path):
    names = ["OMP_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"]

    def f(chunk):
        return chunk.assign(**{name: os.environ.get(name, "none") for name in names})

    frame = dc.run(dc.plan(rows=10, output=tmp_path / "run", classifier=f), cluster).to_pandas()
    assert frame[names].iloc[0].tolist() == [os.environ.get(name, "1") for name in names]


# --- what breaks around them -------------------------------------------------------------------------


def test_a_forkserver_killed_while_it_starts_a_process_costs_a_try(tmp_path):
    """Stopped first, so that the kill surely hits the moment in which the parent waits for the new process."""
    processes.start_forkserver()
    server = multiprocessing.forkserver._forkserver._forkserver_pid
    os.kill(server, signal.SIGSTOP)
    outcome = []

    def start():
        with contextlib.suppress(ProcessDied):
            outcome.append(processes.Child(Site("here", str(tmp_path)), {}))
            return
        outcome.append("died")

    thread = threading.Thread(target=start)
    thread.start()
    until(lambda: "read_signed" in waits_in(thread))
    os.kill(server, signal.SIGKILL)
    thread.join(60)
    assert outcome == ["died"]
    child = processes.Child(Site("here", str(tmp_path)), {})
    assert psutil.pid_exists(child.process.pid) and child.process.pid != server
    child.kill()


@pytest.mark.timeout(120)
def test_a_process_that_prints_without_end_is_ended_by_its_time_out(tmp_path, monkeypatch):
    """Its output is always ready to be read: here because nobody reads it."""
    child = processes.Child(Site("here", str(tmp_path)), {})
    unread = []
    monkeypatch.setattr(processes.Child, "_read_output", lambda self, on_output: unread.append(self) or True)
    with pytest.raises(ProcessDied, match="took longer than 1 s"):
        child.call(
            "classifiers:prints_and_waits", (), on_report=lambda *counts: None, on_output=lambda *text: None, timeout=1
        )
    assert len(unread) > 10, "the output was ready again and again"
    assert not child.process.is_alive()


def test_a_lost_socket_is_made_again_while_other_processes_live(tmp_path):
    """The old forkserver lives as long as they do, so nobody may wait for its end."""
    site = Site("here", str(tmp_path))
    first = processes.Child(site, {})
    shutil.rmtree(multiprocessing.process.current_process()._config["tempdir"])
    second = processes.Child(site, {})
    assert first.process.is_alive() and second.process.is_alive()
    for child in (first, second):
        child.kill()


def test_a_forkserver_that_no_longer_listens_is_replaced(tmp_path):
    """As in the moment between the kill of a forkserver and its end."""
    processes.start_forkserver()
    address = multiprocessing.forkserver._forkserver._forkserver_address
    os.unlink(address)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(address)
    child = processes.Child(Site("here", str(tmp_path)), {})
    assert child.process.is_alive()
    assert address != multiprocessing.forkserver._forkserver._forkserver_address
    child.kill()


def test_a_forkserver_that_starts_again_keeps_the_limits_on_threads(tmp_path):
    processes.start_forkserver()
    server = multiprocessing.forkserver._forkserver._forkserver_pid
    os.kill(server, signal.SIGKILL)
    os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)
    pool = processes.ClassifierProcesses(1, Site("here", str(tmp_path)))
    limit = pool.call("test_processes:limit_of_threads")
    pool.close()
    assert limit == os.environ.get("POLARS_MAX_THREADS", "1")


def limit_of_threads(site, report):
    return os.environ.get("POLARS_MAX_THREADS")


def test_a_renewal_that_fails_loses_no_place_in_the_pool(tmp_path, monkeypatch):
    def fails(self):
        raise OSError("no more files")

    monkeypatch.setattr(processes.Child, "memory", fails)
    pool = processes.ClassifierProcesses(1, Site("here", str(tmp_path)), renewal=Renewal.parse("1GiB"))
    for _ in range(2):
        with pytest.raises(OSError, match="no more files"):
            pool.call("test_processes:limit_of_threads")
    pool.close()


def waits_in(thread):
    frame, names = sys._current_frames().get(thread.ident), []
    while frame:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names


def test_temporary_folders_cleaned_in_mid_run_and_then_killed_processes(tmp_path, run_bytes, classifiers):
    """The processes that start afterwards need a new socket of the forkserver, and the classifier's files again."""
    temporary = Path(tempfile.mkdtemp())
    options = ["--rows", 2000, "--block-rows", 100, "--classifier", classifiers("slow"), "--output", "run"]
    run = subprocess.Popen(
        [COMMAND, *map(str, options)],
        cwd=tmp_path, env=os.environ | {"TMPDIR": str(temporary)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until(lambda: list((tmp_path / "run/parts").glob("*.json")))
    assert list(temporary.iterdir())
    for path in temporary.iterdir():
        shutil.rmtree(path, ignore_errors=True)
    servers = [p for p in psutil.Process(run.pid).children(recursive=True) if "forkserver" in str(p.cmdline())]
    killed = [child for server in servers for child in server.children()]
    for child in killed:
        child.kill()
    _, said = run.communicate(timeout=120)
    assert run.returncode == 0, said
    assert killed and "the block will be tried again" in said
    assert "Traceback" not in said
    shutil.rmtree(temporary)
    assert run_bytes(tmp_path / "run") == reference(csv_of(2000), known.slow)


def test_an_output_deleted_in_mid_run_can_be_resumed(cluster, tmp_path, run_bytes, classifiers):
    """Found at the end of the run, or by a worker that was writing a file at that moment."""

    class Cleaner(dc.Progress):
        deleted = False

        def finished(self, receipt):
            super().finished(receipt)
            if not self.deleted:
                (tmp_path / "run").rename(tmp_path / "deleted")  # at once: rmtree fails beside a writer
                self.deleted = True

    options = {"rows": 2000, "output": tmp_path / "run", "classifier": classifiers("slow"), "block_rows": 100}
    cleaner = Cleaner()
    expected = r"does not contain .* files? written by the workers|its folder was deleted in the meantime"
    with pytest.raises((DamagedRun, StorageError), match=expected):
        dc.run(dc.plan(**options), cluster, progress=cleaner)
    assert cleaner.deleted
    result = dc.run(dc.plan(**options, resume=True), cluster)
    assert 0 < len(result.manifest["resumed"]) < 20
    assert run_bytes(tmp_path / "run") == reference(csv_of(2000), known.slow)


def test_a_start_that_fails_leaves_nothing_on_somebody_elses_cluster(tmp_path, classifiers):
    """A plugin that stays would be loaded, and fail, in each worker that joins later."""
    with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as theirs, Client(theirs) as client:
        made = dc.plan(rows=100, output=tmp_path / "run", classifier=classifiers("lengths"))
        broken = dataclasses.replace(made.package, files={"not\0a name": b""})
        with pytest.raises(ClusterError, match="Cannot prepare the cluster"):
            dc.run(dataclasses.replace(made, package=broken), client)

        def plugins(dask_scheduler):
            return [name for name in dask_scheduler.worker_plugins if name.startswith("dask-classify")]

        assert client.run_on_scheduler(plugins) == []
        theirs.scale(2)
        client.wait_for_workers(2, timeout=60)
        assert dc.run(made, client).rows == 100


def test_packages_of_the_users_site_and_of_a_target_folder_do_not_travel(tmp_path):
    """As `pip install --user` and `pip install --target` leave them: a distribution beside its package."""
    target = tmp_path / "target"
    (target / "farpkg").mkdir(parents=True)
    (target / "farpkg/__init__.py").write_text("MARK = 'the text of an installed package'\ndef f(chunk): return MARK\n")
    (target / "farpkg-1.0.dist-info").mkdir()
    (target / "farpkg-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: farpkg\nVersion: 1.0\n")
    (target / "farpkg-1.0.dist-info/RECORD").write_text("farpkg/__init__.py,,\nfarpkg-1.0.dist-info/METADATA,,\n")
    site = tmp_path / "base/lib/python{}.{}/site-packages".format(*sys.version_info[:2])
    site.parent.mkdir(parents=True)
    site.symlink_to(Path(psutil.__file__).parent.parent)  # the packages, as another folder's
    (tmp_path / "mine.py").write_text("VALUE = 'of my own module'\n")
    (tmp_path / "script.py").write_text(
        "import sys; sys.modules['an_alias'] = __import__('mine')\n"
        "import farpkg, mine, pandas\n"
        "import dask_classifier as dc\n"
        "def f(chunk): return [farpkg.MARK + mine.VALUE + pandas.__name__] * len(chunk)\n"
        "made = dc.plan(rows=10, output='run', classifier=f)\n"
        "(content,) = made.package.files.values()\n"
        "print(b'an installed package' in content, b'of my own module' in content, pandas.__file__)\n"
        "print(dc.run(made, 'inline').to_pandas().CLASSIFICATION.iloc[0])\n"
    )
    python = Path(sys.base_prefix) / "bin/python3"
    environment = {
        "PYTHONUSERBASE": str(tmp_path / "base"),
        "PYTHONPATH": f"{target}:{Path(dc.__file__).parent.parent}",
    }
    done = subprocess.run(
        [python, "script.py"], cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("False True ") and str(tmp_path) in first, "pandas is that of the user's site"
    assert second.startswith("the text of an installed package")
