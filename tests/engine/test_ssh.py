"""Dask's SSHCluster with a real sshd on loopback."""

import contextlib
import getpass
import shutil
import socket
import subprocess
import sys
import time

import pytest
from distributed import SSHCluster

import dask_classifier as dc

pytest.importorskip("asyncssh")
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")


@pytest.fixture
def sshd(tmp_path):
    """The options with which this user logs in to an sshd of its own."""
    if not SSHD:
        pytest.skip("needs OpenSSH's server")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/user.pub\n"
        f"StrictModes no\nUsePAM no\nPidFile {tmp_path}/pid\nPermitRootLogin yes\n"
    )
    if sys.platform == "linux":
        subprocess.run(["mkdir", "-p", "/run/sshd"], check=False)  # its folder for privilege separation, if it is root
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", tmp_path / "sshd_config"])
    while server.poll() is None:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            break
        time.sleep(0.05)
    yield {"port": port, "username": getpass.getuser(), "client_keys": [str(tmp_path / "user")], "known_hosts": None}
    server.terminate()
    server.wait(60)


def test_a_cluster_over_ssh(sshd, tmp_path, run_bytes):
    with SSHCluster(
        ["127.0.0.1"] * 3,
        connect_options=sshd,
        remote_python=sys.executable,
        scheduler_options={"port": 0, "dashboard": False},
        worker_options={"nthreads": 1},
    ) as cluster:
        plan = dc.plan(rows=2000, output=tmp_path / "run", slowness=1, block_rows=100)
        result = dc.run(plan, cluster)
        assert len({receipt.worker for receipt in result.receipts}) == 2
        assert result.verify().rows == 2000
    dc.run(dc.plan(rows=2000, output=tmp_path / "here", slowness=1), "inline")
    assert run_bytes(tmp_path / "run") == run_bytes(tmp_path / "here")
