"""Surroundings in which a local run must work all the same."""

import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import dask
import pytest
from distributed import Client, LocalCluster, as_completed

import dask_classifier as dc
from dask_classifier.engine import connect
from dask_classifier.engine.flight import Flight, Outcome
from dask_classifier.errors import ClusterError


def test_a_long_tmpdir(command, tmp_path):
    """A socket's path has 107 bytes at most."""
    folder = tmp_path / ("t" * (150 - len(str(tmp_path))))
    folder.mkdir()
    assert len(str(folder)) > 107
    command("--rows", "1k", "--slowness", "1", "--output", "run", check=0, env={"TMPDIR": str(folder)})
    assert len(list((tmp_path / "run" / "parts").glob("*.csv.gz"))) >= 1


@pytest.mark.skipif(os.getuid() != 0 or not all(map(shutil.which, ("unshare", "ip"))), reason="needs root and iproute2")
def test_a_computer_that_is_offline(tmp_path):
    """Dask looks for an address of its own, and warns where there is none."""
    command = f"{sys.executable} -m dask_classifier --rows 100 --slowness 1 --output run --quiet"
    offline = f"ip link set lo up && ! ip route get 8.8.8.8 >/dev/null 2>&1 && {command}"
    done = subprocess.run(["unshare", "--net", "sh", "-c", offline], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_dashboard_is_no_way_to_other_machines(cluster):
    """With jupyter-server-proxy installed, Dask's /proxy would ask any address for whoever reaches the dashboard."""
    base = cluster.dashboard_link.removesuffix("/status")
    assert urllib.request.urlopen(f"{base}/status", timeout=30).status == 200
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{base}/proxy/80/127.0.0.1/", timeout=30)
    assert refused.value.code == 404


# --- a Dask cluster and its client ---------------------------------------------------------------------


def test_an_adaptive_cluster_starts_from_no_worker(tmp_path, run_bytes, classifiers):
    """Dask starts a worker for a task, and for nothing else."""
    with LocalCluster(n_workers=0, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        cluster.adapt(minimum=0, maximum=1, interval="100ms")
        with Client(cluster) as client:
            assert not client.nthreads()
            dc.run(dc.plan(rows=200, output=tmp_path / "run", classifier=classifiers("slow")), client)
    assert run_bytes(tmp_path / "run").count(b"\n") == 200


def test_how_long_to_wait_for_a_worker_can_be_configured(tmp_path):
    class Notes(dc.Progress):
        said = []

        def note(self, text):
            self.said.append(text)

    with LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster:
        plan = dc.plan(rows=10, output=tmp_path / "run")
        with (
            dask.config.set({"dask-classifier.worker-timeout": "5100ms"}),
            pytest.raises(ClusterError, match=r"within 5\.1s"),
        ):
            dc.run(plan, cluster, progress=Notes())
    assert Notes.said == ["the cluster has no worker yet; waiting up to 5.1s for the first one"]


def test_worker_timeout_of_a_cluster_that_is_started_here(command):
    done = command("--rows", "10", "--worker-timeout", "1m", check=2)
    assert "--worker-timeout has no effect with the cluster local." in done.stderr


def test_how_long_to_wait_for_a_scheduler_is_dasks_setting():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "321ms"}),
        pytest.raises(ClusterError, match=r"after 0\.321"),
    ):
        connect._client(f"tcp://127.0.0.1:{port}")


def test_a_result_that_came_is_taken_though_its_task_was_given_up(cluster, tmp_path, classifiers):
    """Dask cancels what a client holds when a connection breaks, also what has arrived."""
    with Client(cluster, set_as_default=False) as client:
        executor = type("Executor", (), {"client": client, "processes": 1})()
        flight = Flight(executor, "unused:unused", None)
        future = client.submit(lambda: {"rows": 7}, pure=False)
        flight.under_way[future] = (3, (), 1)
        flight.completed = as_completed([future], loop=client.loop, with_results=True, raise_errors=False)
        while not flight.completed.has_ready():
            pass
        client.cancel(future, force=True)
        (outcome,) = flight.landed()
        assert future.status == "cancelled"
    assert outcome == Outcome(3, {"rows": 7})
