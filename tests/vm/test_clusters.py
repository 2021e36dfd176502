"""Whole runs on virtual machines: from the command to the last instance."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from rehearse import HERE, finish, wait_for
from rehearse_virtual import INDEX_PORT, REGISTRY

pytestmark = pytest.mark.virtual

RUN = ["--slowness", "1", "--block-rows", "100"]


def words(name, rows=500, workers=1, *more):
    return ["--rows", rows, *RUN, "--workers", workers, "--output", f"s3://bucket/{name}", *more]


def sha256(ec2, name):
    return json.loads(ec2.command("verify", f"s3://bucket/{name}", "--json", check=0).stdout_text)["sha256"]


def reference(ec2, rows):
    """The digest of the same rows from one process of this computer."""
    name = f"reference-{rows}-{time.time_ns()}"
    ec2.command(*words(name, rows), "--cluster", "inline", check=0)
    return sha256(ec2, name)


def error_of(process):
    assert "Traceback" not in process.stderr_text, process.stderr_text
    (line,) = [line for line in process.stderr_text.splitlines() if line.startswith("Error: ")]
    return line


def test_end_to_end(ec2, profile):
    """Two workers of two vCPUs: a local run's bytes; credentials of the profile; dashboard for the caller only."""
    ec2.settings(vcpus={"c7i.large": 2})
    slowness = 30 if ec2.slow == 1 else 1  # time enough to look at the dashboard
    both = ["--min-workers", 2]  # so that each of them classifies something
    process = ec2.start(*words("whole", 500, 2, "--instance-profile", profile), *both, "--slowness", slowness)
    scheduler = wait_for(lambda: ec2.instances("running", role="scheduler"))[0]
    page = f"http://{scheduler['PublicIpAddress']}:8787/health"
    wait_for(lambda: answers(page))
    assert not answers(page, "203.0.113.99"), "the dashboard answers a stranger"
    done = finish(process, 0)
    assert "Started 3 instances, 3 terminated" in done.stderr_text
    assert "Traceback" not in done.stderr_text and "Warning" not in done.stderr_text
    readers = {event["id"] for event in ec2.events("credentials") if "botocore" in event["agent"]}
    assert len(readers) == 2, "not both workers have read the credentials of the profile"
    console = ec2.console(scheduler["InstanceId"])
    assert "Removing" not in console and "TLS handshake failed" not in console
    assert sha256(ec2, "whole") == reference(ec2, 500)


@pytest.mark.slow
def test_a_detached_run(ec2):
    """The client is killed once the run has begun: it completes, its instances terminate, and nothing is left."""
    client = ec2.start(*words("detached", 2000, 2, "--detach"))
    wait_for(lambda: ec2.stored("detached/detached.json").get("progress"))
    os.killpg(client.pid, signal.SIGKILL)
    wait_for(lambda: ec2.stored("detached/detached.json").get("exit_code") is not None)
    assert client.wait() == -signal.SIGKILL
    told = ec2.stored("detached/detached.json")
    assert told["exit_code"] == 0, (told["message"], told["messages"])
    wait_for(lambda: not ec2.remains())
    machines = ec2.stored("detached/manifest.json")["machines"]
    assert {"started": 3, "terminated": 2, "left": []}.items() <= machines.items()
    ec2.command("wait", "s3://bucket/detached", check=0)
    machines = ec2.stored("detached/manifest.json")["machines"]
    assert {"started": 3, "terminated": 3, "left": []}.items() <= machines.items()
    assert sha256(ec2, "detached") == reference(ec2, 2000)


PYTHON_IMAGE = f"{REGISTRY}/dask-classify:python"
INDEX = {
    "PIP_INDEX_URL": f"http://172.31.0.2:{INDEX_PORT}/simple",
    "PIP_TRUSTED_HOST": "172.31.0.2",
    "PIP_CONFIG_FILE": os.devnull,
}


@pytest.mark.slow
def test_the_first_screen_of_the_documentation(ec2, tmp_path):
    """The first commands of docs/ec2.md, word for word, with the installed package and AWS's command line alone."""
    install(tmp_path / "product", "dask-classify")
    install(tmp_path / "aws", "awscli")
    commands = re.search(r"(?m)(^    .+\n)+", (HERE.parent / "docs" / "ec2.md").read_text())[0]
    ec2.settings(disks={"t3.small": "base", "c7i.large": "base"}, vcpus={"c7i.large": 2})
    done = subprocess.run(
        ["bash", "-eux", "-c", commands],
        input="testing\ntesting\nus-east-1\n\n",  # what `aws configure` asks for
        env={
            "HOME": str(tmp_path),
            "PATH": f"{tmp_path}/product/bin:{tmp_path}/aws/bin:{os.environ['PATH']}",
            "PYTHONPATH": str(ec2.network),
            "AWS_ENDPOINT_URL": ec2.api,
            "DASK_CLASSIFIER__BASE_IMAGE": PYTHON_IMAGE,
            **INDEX,
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=3000,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "Started 2 instances, 2 terminated" in done.stderr
    ec2.command("--rows", "10k", "--cluster", "inline", "--output", "s3://bucket/first", check=0)
    stored = json.loads(ec2.command("verify", "s3://my-bucket/runs/1", "--json", check=0).stdout_text)
    assert stored["rows"] == 10_000 and stored["sha256"] == sha256(ec2, "first")


def install(environment, package):
    """A new virtual environment with one package from the region's index, and what that needs."""
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    subprocess.run([environment / "bin" / "pip", "install", "--quiet", package], env=os.environ | INDEX, check=True)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["index", "wheels"])
def test_without_an_image(way, ec2):
    """Instances of Python alone install the packages, from an index or from the run's folder; a local run's bytes."""
    python = ["--base-image", PYTHON_IMAGE, *(["--wheels"] if way == "wheels" else [])]
    ec2.settings(disks={"t3.small": "base", "c7i.large": "base"})
    process = ec2.start(*words(f"bare-{way}"), *python, DASK_CLASSIFIER__IMAGE="", **INDEX)
    scheduler = wait_for(lambda: ec2.running(role="scheduler"))[0]
    done = finish(process, 0)
    assert "Started 2 instances, 2 terminated" in done.stderr_text
    assert re.search(r"dask-classify\[\d+\]: installed the packages in \d+ s", ec2.console(scheduler))
    assert sha256(ec2, f"bare-{way}") == reference(ec2, 500)


def answers(url, source="203.0.113.7"):
    """Whether a page answers a computer with this address."""
    import http.client

    host, port = re.fullmatch(r"http://(.*):(\d+)/health", url).groups()
    connection = http.client.HTTPConnection(host, int(port), timeout=3, source_address=(source, 0))
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False


def test_as_on_amazon_linux(ec2):
    """Docker comes from dnf and waits for cloud-init, ecs.service does not get to run, and the scheduler pulls."""
    ec2.settings(machine=AMAZON, all_stages=True, disks={"t3.small": "base"})  # so the scheduler pulls the image
    # Without KVM, all this may take longer than ten minutes beside other machines.
    process = ec2.start(*words("amazon", 500, 1, "--bring-up-limit", "20m"))
    scheduler = wait_for(lambda: ec2.running(role="scheduler"))[0]
    done = finish(process, 0)
    assert "Started 2 instances, 2 terminated" in done.stderr_text
    console = ec2.console(scheduler)
    assert "dnf is played: install -y docker" in console
    assert re.search(r"(?s)Finished \S*cloud-final.*Started \S*docker\.service", console)
    assert not re.search(r"Started \S*ecs\.service", console)
    assert sha256(ec2, "amazon") == reference(ec2, 500)


AMAZON = """
sed -i /^After=multi-user.target/d /lib/systemd/system/cloud-final.service
mkdir -p /etc/systemd/system/docker.service.d
printf '[Unit]\\nAfter=cloud-final.service\\n' > /etc/systemd/system/docker.service.d/order.conf
printf '[Unit]\\nDescription=ECS\\nAfter=cloud-final.service\\nRequires=docker.service\\n[Service]\\n\
ExecStart=sleep 1000\\n' > /etc/systemd/system/ecs.service
[ -e /usr/bin/docker.away ] || mv /usr/bin/docker /usr/bin/docker.away
printf '#!/bin/sh\\necho "dnf is played: $*"\\nmv /usr/bin/docker.away /usr/bin/docker\\n' > /usr/bin/dnf
chmod +x /usr/bin/dnf
systemctl daemon-reload
systemctl start --no-block ecs
"""


# --- what goes wrong -----------------------------------------------------------------------------------------


def test_an_image_with_other_versions(ec2):
    """Exit code 4, with the reason; nothing is left."""
    done = ec2.command(*words("other"), "--image", f"{REGISTRY}/dask-classify:other", check=4)
    assert re.search(r"pandas 0\.0\.1 \(you have", error_of(done)), done.stderr_text
    assert "Started 2 instances, 2 terminated" in done.stderr_text


SLEEPY = """
import time

def classify(chunk):
    time.sleep(0.6)
    return chunk["FLUX"].str.len()
"""


def test_workers_that_are_lost_frozen_and_reclaimed(ec2):
    """Of three spot instances, one dies, one stands still, one gets an interruption notice: the same bytes."""
    (ec2.folder / "sleepy.py").write_text(SLEEPY)
    rows = ["--rows", "24k", "--block-rows", "500", "--classifier", "sleepy.py:classify"]
    options = ["--workers", 3, "--min-workers", 3, "--spot", "--processes-per-worker", 1]
    process = ec2.start(*rows, *options, "--output", "s3://bucket/fewer")
    wait_for(lambda: "Contents" in ec2.client("s3").list_objects_v2(Bucket="bucket", Prefix="fewer/parts/part-"), 1200)
    lost, frozen, reclaimed = ec2.running(role="worker")
    ec2.pull("freeze", frozen)
    ec2.pull("lose", lost)
    ec2.pull("interrupt", reclaimed, seconds=120)
    done = finish(process, 0)
    for what, id in (("freeze", frozen), ("lost", lost), ("notice", reclaimed)):
        assert ec2.events(what, id=id)
    assert re.search(r"worker-\d was lost; worker-\d replaces it", done.stderr_text), done.stderr_text
    assert re.search(r"worker-\d is leaving the cluster: EC2 reclaims its instance", done.stderr_text)
    assert ec2.events("gone", id=frozen)
    here = ["--classifier", "sleepy.py:classify", "--cluster", "local", "--workers", 8, "--output", "s3://bucket/here"]
    ec2.command("--rows", "24k", *here, check=0)
    assert sha256(ec2, "fewer") == sha256(ec2, "here")


def test_a_client_that_is_killed_while_machines_boot(ec2):
    """All instances end themselves: the scheduler by its idle time-out, the worker because it has lost it."""
    process = ec2.start(*words("orphaned"), "--idle-timeout", "1m")
    wait_for(lambda: len(ec2.events("boot")) == 2)
    os.killpg(process.pid, signal.SIGKILL)
    finish(process, -signal.SIGKILL)
    wait_for(lambda: not ec2.running(), 1200)
    assert len(ec2.events("power off")) == 2 and not ec2.events("call", call="TerminateInstances")
    ec2.command("reap", "--yes", check=0)  # the security group
    assert not ec2.remains()
