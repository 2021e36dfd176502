"""Dask clusters that somebody else runs, and objects in S3 (moto's server, over HTTP)."""

import gzip
import http.server
import os
import shutil
import subprocess
import sys
import threading
import time

import classifiers as known
import psutil
import pytest
from distributed import Client
from generated_csv import csv_of
from reference import reference

import dask_classifier as dc
from dask_classifier import mapping
from dask_classifier.engine.executors import DaskExecutor
from dask_classifier.errors import ClusterError, StorageError
from dask_classifier.rows import csv_files


class Dask:
    """`dask scheduler` and `dask worker` as their makers start them, with Nannies, on loopback."""

    def __init__(self, folder):
        self.folder, self.started = folder, []
        self.file = folder / "scheduler.json"
        self.start("scheduler", "--scheduler-file", self.file, "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        self.wait_for(self.file.exists)

    def start(self, *args, env=None, within=()):
        log = (self.folder / f"{args[0]}-{len(self.started)}.log").open("w")
        command = [*within, sys.executable, "-m", f"distributed.cli.dask_{args[0]}", *map(str, args[1:])]
        process = subprocess.Popen(command, stderr=log, stdout=log, cwd=self.folder, env=os.environ | (env or {}))
        self.started.append(process)
        return process

    def worker(self, name, threads=2, env=None, within=()):
        return self.start(
            "worker", "--scheduler-file", self.file, "--name", name, "--nthreads", threads,
            "--host", "127.0.0.1", "--no-dashboard", env=env, within=within,
        )  # fmt: skip

    @staticmethod
    def wait_for(condition, seconds=300):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.1)

    @property
    def address(self):
        import json

        return json.loads(self.file.read_text())["address"]

    def close(self):
        family = [
            child
            for process in self.started
            if process.poll() is None
            for child in psutil.Process(process.pid).children(recursive=True)
        ]
        try:
            for process in reversed(self.started):  # workers first: without a scheduler, one takes ten seconds to end
                process.terminate()
                process.wait(300)
        finally:
            for process in self.started:
                process.kill()
        _, alive = psutil.wait_procs(family, timeout=120)
        assert not alive


@pytest.fixture
def dask_cluster(tmp_path):
    dask = Dask(tmp_path)
    yield dask
    dask.close()


def test_an_address_of_ordinary_workers(dask_cluster, tmp_path, run_bytes, classifiers, command):
    dask_cluster.worker("alpha")
    dask_cluster.worker("beta", threads=1)
    with Client(dask_cluster.address) as client:
        client.wait_for_workers(2, timeout=300)
    args = ["--rows", 3000, "--block-rows", 100, "--classifier", classifiers("slow"), "--output", tmp_path / "run"]
    done = command(*args, "--cluster", dask_cluster.address, check=0)
    assert "3 classifier processes" in done.stderr
    assert "rows of alpha on" in done.stderr and "rows of beta on" in done.stderr
    assert run_bytes(tmp_path / "run") == reference(csv_of(3000), known.lengths)
    servers = [
        p
        for worker in dask_cluster.started
        for p in psutil.Process(worker.pid).children(recursive=True)
        if "forkserver" in str(p.cmdline())
    ]
    assert len(servers) == 2, "no classifier process is left, only what they were forked from"
    assert not [child for server in servers for child in server.children()]


@pytest.mark.long
def test_a_dask_worker_killed_and_another_joining_in_mid_run(dask_cluster, tmp_path, run_bytes, classifiers):
    """The first one goes no further than row 1000, so that the second has time to come."""
    (tmp_path / "hold").touch()
    dask_cluster.worker("first", threads=2, env={"TEST_HOLD": str(tmp_path / "hold")})
    events = []

    class Disturber(dc.Progress):
        def finished(self, receipt):
            super().finished(receipt)
            if not events:
                events.append("joined")
                dask_cluster.worker("second", threads=1, env={"TEST_HOLD": ""})
            elif receipt.worker == "second" and "killed" not in events:
                events.append("killed")
                psutil.Process(client.run(os.getpid)[by_name("first")]).kill()
                (tmp_path / "hold").unlink()  # its nanny starts it again

    def by_name(name):
        return next(address for address, info in client.scheduler_info()["workers"].items() if info["name"] == name)

    with Client(dask_cluster.address) as client:
        client.wait_for_workers(1, timeout=300)
        plan = dc.plan(rows=20_000, output=tmp_path / "run", classifier=classifiers("slow"), block_rows=200)
        result = dc.run(plan, client, progress=Disturber())
    assert events == ["joined", "killed"]
    assert {receipt.worker for receipt in result.receipts} == {"first", "second"}
    assert run_bytes(tmp_path / "run") == reference(csv_of(20_000), known.lengths)


@pytest.mark.long
def test_the_worker_that_has_a_compressed_file_open_is_killed(
    dask_cluster, tmp_path, run_bytes, classifiers, monkeypatch
):
    """Another one reads the file from its beginning up to where the first one was."""
    monkeypatch.setattr(csv_files, "SMALL_BYTES", dict.fromkeys(csv_files.SMALL_BYTES, 1000))
    for name in ("first", "second"):
        dask_cluster.worker(name, threads=1)
    open_at, killed = [], []
    ask = DaskExecutor.soon

    def soon(self, *args):
        outcome = ask(self, *args)
        open_at.append(outcome.value.worker)
        return outcome

    class Killer(dc.Progress):
        def finished(self, receipt):
            super().finished(receipt)
            if not killed:
                workers = client.scheduler_info()["workers"].items()
                address = next(address for address, info in workers if info["name"] == open_at[-1])
                killed.append(open_at[-1])
                psutil.Process(client.run(os.getpid)[address]).kill()

    monkeypatch.setattr(DaskExecutor, "soon", soon)
    text = csv_of(6000)
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(text))
    with Client(dask_cluster.address) as client:
        client.wait_for_workers(2, timeout=300)
        plan = dc.plan(tmp_path / "in.csv.gz", classifiers("slow"), tmp_path / "run", block_rows=100)
        dc.run(plan, client, progress=Killer())
    assert killed and len(set(open_at)) == 2 and len(open_at) > 10
    assert run_bytes(tmp_path / "run") == reference(text, known.lengths)


def test_text_that_is_not_unicode_harms_no_worker(dask_cluster, tmp_path):
    """Messages between Dask's processes cannot hold it; a bad row's reason can."""
    worker = dask_cluster.worker("only", threads=1)
    code = tmp_path / "mine.py"
    code.write_text(
        "def f(df):\n    if '7' in df.index:\n        raise ValueError('\\udcff')\n    return [0] * len(df)\n"
    )
    with Client(dask_cluster.address) as client:
        client.wait_for_workers(1, timeout=300)
        plan = dc.plan(
            rows=40, output=tmp_path / "run", classifier=f"{code}:f", max_bad=1, block_rows=10, chunk_rows=10
        )
        result = dc.run(plan, client)
        assert len(client.scheduler_info()["workers"]) == 1 and worker.poll() is None
    assert result.bad_rows == 1 and "\\udcff" in result.quarantined().reason[0]


def test_a_cluster_without_workers_is_no_cluster(dask_cluster, tmp_path):
    with pytest.raises(ClusterError, match=r"No worker has joined the cluster within 1\.0s"):
        dc.run(dc.plan(rows=10, output=tmp_path / "run"), dask_cluster.address, worker_timeout="1s")


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("unshare"), reason="needs root and util-linux")
def test_an_output_that_a_worker_cannot_see_is_found_before_the_first_block(dask_cluster, tmp_path, classifiers):
    """The worker has another folder of that name, as on another computer."""
    (tmp_path / "shared").mkdir()
    hide = f'mount -t tmpfs none {tmp_path}/shared && exec "$@"'
    dask_cluster.worker("elsewhere", within=["unshare", "--mount", "sh", "-c", hide, "-"])
    plan = dc.plan(rows=300, output=tmp_path / "shared/runs/one", classifier=classifiers("lengths"))
    with pytest.raises(StorageError, match=r"The worker elsewhere on .* does not see files .*shared/runs/one"):
        dc.run(plan, dask_cluster.address)
    assert not list((tmp_path / "shared").iterdir()), "nothing is left of the probe"
    result = dc.run(dc.plan(rows=300, output=tmp_path / "run", classifier=classifiers("lengths")), dask_cluster.address)
    result.verify()
    for name in ("all.csv.gz", "all.parquet"):
        with pytest.raises(StorageError, match=r"The worker elsewhere on .* does not see files .*shared/all"):
            dc.publish(result, tmp_path / "shared" / name, cluster=dask_cluster.address)
        assert not list((tmp_path / "shared").iterdir())
        dc.publish(result, tmp_path / name, cluster=dask_cluster.address)
    assert not list((tmp_path / "run").glob(".dask*"))


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("unshare"), reason="needs root and util-linux")
def test_a_worker_that_joins_later_and_writes_elsewhere_is_found_by_its_first_part(dask_cluster, tmp_path, monkeypatch):
    (tmp_path / "shared").mkdir()
    (tmp_path / "slow.py").write_text(
        "import time\n\ndef f(chunk):\n    time.sleep(0.05)\n    return chunk['SKU'].str.len()\n"
    )
    monkeypatch.setattr(mapping, "_SEEN_SECONDS", 1.0)
    dask_cluster.worker("here")
    folder = tmp_path / "shared"
    hide = f'hostname other && mount -t tmpfs none {folder} && mkdir -p {folder}/run/parts && exec "$@"'

    class Joining(dc.Progress):
        joined = False

        def finished(self, receipt):
            super().finished(receipt)
            if not self.joined:
                self.joined = True
                dask_cluster.worker("elsewhere", within=["unshare", "--mount", "--uts", "sh", "-c", hide, "-"])

    plan = dc.plan(rows="200k", classifier=f"{tmp_path}/slow.py:f", output=tmp_path / "shared/run", block_rows=100)
    with pytest.raises(StorageError, match=r"The parts that elsewhere on other writes to .* are not there") as raised:
        dc.run(plan, dask_cluster.address, progress=Joining())
    assert "all workers share" in raised.value.hint and not (tmp_path / "shared/run/manifest.json").exists()


def test_workers_with_other_versions_are_refused_before_work(cluster, tmp_path, monkeypatch):
    from dask_classifier.engine import executors

    real = executors.versions()
    monkeypatch.setattr(executors, "versions", lambda: real | {"pandas": "3.0.0"})
    answers = iter([real | {"pandas": "9.9.9"}])
    monkeypatch.setattr(executors, "versions", lambda: next(answers, real))
    with pytest.raises(ClusterError, match=r"pandas .* \(you have 9\.9\.9\)"):
        dc.run(dc.plan(rows=10, output=tmp_path / "run"), cluster)
    assert not (tmp_path / "run").exists()


def keys(s3, prefix):
    return {
        entry["Key"].removeprefix(prefix)
        for entry in s3.list_objects_v2(Bucket="bucket", Prefix=prefix).get("Contents", [])
    }


@pytest.mark.long
def test_from_s3_to_s3(s3, command, tmp_path, classifiers):
    text = csv_of(5000)
    s3.put_object(Bucket="bucket", Key="in/a.csv", Body=text)
    args = [
        "--input",
        "s3://bucket/in/*.csv",
        "--classifier",
        classifiers("lengths"),
        "--output",
        "s3://bucket/runs/one",
    ]
    done = command(*args, "--block-rows", 500, check=0)
    assert "into s3://bucket/runs/one" in done.stderr
    assert {"plan.json", "manifest.json", "parts/part-00009.csv.gz", "parts/part-00009.json"} <= keys(s3, "runs/one/")
    command("verify", "s3://bucket/runs/one", check=0)
    command("fetch", "s3://bucket/runs/one", "out.csv", "--no-header", check=0)
    expected = reference(text, known.lengths)
    assert (tmp_path / "out.csv").read_bytes() == expected
    assert "already contains a complete run" in command(*args, "--block-rows", 500, check=2).stderr
    for key in ("manifest.json", "parts/part-00003.json", "parts/part-00005.csv.gz"):
        s3.delete_object(Bucket="bucket", Key=f"runs/one/{key}")
    done = command(*args, "--block-rows", 500, "--resume", check=0)
    assert "8 of 10 blocks are already done; 2 to go" in done.stderr
    command("fetch", "s3://bucket/runs/one", "again.csv", "--no-header", check=0)
    assert (tmp_path / "again.csv").read_bytes() == expected


@pytest.mark.parametrize("rows", [3000, 80_000])
def test_a_packed_object(s3, command, tmp_path, classifiers, rows):
    """A small one is read where it is; a large one flows into pieces beside the run, which are removed."""
    text = csv_of(rows)
    assert (len(gzip.compress(text)) > 2**22) == (rows > 3000)
    s3.put_object(Bucket="bucket", Key="packed.csv.gz", Body=gzip.compress(text))
    args = [
        "--input",
        "s3://bucket/packed.csv.gz",
        "--classifier",
        classifiers("lengths"),
        "--output",
        f"s3://bucket/runs/{rows}",
    ]
    command(*args, check=0)
    command("fetch", f"s3://bucket/runs/{rows}", "out.csv", "--no-header", check=0)
    assert (tmp_path / "out.csv").read_bytes() == reference(text, known.lengths)
    assert not [key for key in keys(s3, f"runs/{rows}/") if key.startswith("unpacked/")]


def test_a_key_with_two_colons_is_a_key(s3, command):
    s3.put_object(Bucket="bucket", Key="in/a::b.csv", Body=b"id,a\n1,x\n")
    options = ["--classifier", "blackbox", "--output", "s3://bucket/colons"]
    command("--input", "s3://bucket/in/a::b.csv", *options, check=0)
    assert command("fetch", "s3://bucket/colons", "-", "--no-header", check=0).stdout.startswith("1,x,")


@pytest.mark.long
def test_faults_of_s3_are_one_sentence(s3, command, classifiers):
    args = ["--rows", 100, "--classifier", classifiers("lengths")]
    done = command(*args, "--output", "s3://no-such-bucket/run", check=1)
    assert "the bucket does not exist" in done.stderr and "Create the bucket before the run" in done.stderr
    done = command("--input", "s3://bucket/none.csv", "--classifier", "blackbox", check=1)
    assert "it does not exist" in done.stderr
    without = {name: "" for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")} | {"HOME": "/nonexistent"}
    done = command(*args, "--output", "s3://bucket/run", env=without, check=1)
    assert "aws configure" in done.stderr
    done = command(*args, "--output", "s3://bucket/run", env={"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, check=1)
    assert "Could not connect" in done.stderr


@pytest.fixture
def refusing():
    """A store on loopback that refuses each request with S3's error of a code."""
    servers = []

    def start(code, status=400):
        class Refuse(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                error = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>No.</Message></Error>".encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/xml")
                self.send_header("Content-Length", str(len(error)))
                self.end_headers()
                self.wfile.write(b"" if self.command == "HEAD" else error)
                servers[-1].asked.append(self.path)

            do_PUT = do_POST = do_HEAD = do_DELETE = do_GET

            def log_message(self, *args):
                pass

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuse))
        servers[-1].asked = []
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "code, status, hint",
    [
        ("ExpiredToken", 400, "Run `aws sso login`"),
        ("RequestTimeTooSkewed", 403, "Set this computer's clock"),
        ("SignatureDoesNotMatch", 403, "Check the secret key and this computer's clock"),
    ],
)
def test_credentials_that_s3_refuses(refusing, command, code, status, hint):
    store = refusing(code, status)
    env = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{store.server_port}", "AWS_ACCESS_KEY_ID": "testing"}
    env |= {"AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
    done = command("--rows", 10, "--output", "s3://bucket/run", check=1, env=env)
    assert store.asked and hint in done.stderr


def test_a_whole_object_or_none(s3, tmp_path):
    from dask_classifier import storage

    for url in ("s3://bucket/whole", str(tmp_path / "whole")):
        with pytest.raises(RuntimeError), storage.open_whole(url) as out:
            out.write(b"half")
            raise RuntimeError
        assert not storage.exists(url)
        storage.write(url, b"all")
        with pytest.raises(StorageError), storage.open_whole(url) as out:
            out.write(b"half")
            raise OSError(28, "No space left on device")
        assert storage.read(url) == b"all"
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_a_folder_that_is_deleted_while_a_file_is_written(tmp_path):
    from dask_classifier import storage

    with pytest.raises(StorageError, match="its folder was deleted in the meantime"):
        with storage.open_whole(str(tmp_path / "run" / "part")) as out:
            out.write(b"half")
            shutil.rmtree(tmp_path / "run")
