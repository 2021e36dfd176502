"""Whole runs on virtual machines: from the command to the last instance."""

import json
import re
import time

import pytest
from rehearse import finish, wait_for
from rehearse_virtual import REGISTRY

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
    """Two workers, 500 rows: the bytes of a local run; credentials of the profile; dashboard for the caller only."""
    slowness = 30 if ec2.slow == 1 else 1  # time enough to look at the dashboard
    process = ec2.start(*words("whole", 500, 2, "--instance-profile", profile), "--slowness", slowness)
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


def test_a_real_pull(ec2):
    """The image is pulled from a registry by each machine."""
    ec2.settings(disk="base")
    done = ec2.command(*words("pull"), check=0)
    assert "Started 2 instances, 2 terminated" in done.stderr_text
    assert sha256(ec2, "pull") == reference(ec2, 500)


def test_as_on_amazon_linux(ec2):
    """ecs.service runs, Docker's unit waits for cloud-init, and Docker comes from dnf."""
    ec2.settings(machine=AMAZON, all_stages=True)
    process = ec2.start(*words("amazon"))
    scheduler = wait_for(lambda: ec2.running(role="scheduler"))[0]
    done = finish(process, 0)
    assert "Started 2 instances, 2 terminated" in done.stderr_text
    console = ec2.console(scheduler)
    assert "dnf is played: install -y docker" in console and re.search("Started .*ECS", console)


AMAZON = """
mkdir -p /etc/systemd/system/docker.service.d
printf '[Unit]\\nAfter=cloud-final.service\\n' > /etc/systemd/system/docker.service.d/order.conf
printf '[Unit]\\nDescription=ECS\\nAfter=cloud-final.service\\nRequires=docker.service\\n[Service]\\n\
ExecStart=sleep 1000\\n[Install]\\nWantedBy=multi-user.target\\n' > /etc/systemd/system/ecs.service
ln -sf /etc/systemd/system/ecs.service /etc/systemd/system/multi-user.target.wants/ecs.service
[ -e /usr/bin/docker.away ] || mv /usr/bin/docker /usr/bin/docker.away
printf '#!/bin/sh\\necho "dnf is played: $*"\\nmv /usr/bin/docker.away /usr/bin/docker\\n' > /usr/bin/dnf
chmod +x /usr/bin/dnf
systemctl daemon-reload
"""


# --- images that do not work ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        ("missing", "manifest unknown"),
        ("other", r"pandas 0\.0\.1 \(you have"),
    ],
)
def test_an_image_that_does_not_work(ec2, tag, text):
    """Exit code 4, with the reason; nothing is left."""
    done = ec2.command(*words(f"image-{tag}"), "--image", f"{REGISTRY}/dask-classify:{tag}", check=4)
    assert re.search(text, error_of(done)), done.stderr_text
    assert "Started 2 instances, 2 terminated" in done.stderr_text


# --- frozen ------------------------------------------------------------------------------------------------------


def test_a_frozen_worker(ec2):
    """One of two workers stands still in mid-run: its blocks go to others, and the plug is pulled at the end."""
    process = ec2.start(*words("frozen", 4000, 2), "--slowness", 60 if ec2.slow == 1 else 6)
    wait_for(lambda: "Contents" in ec2.client("s3").list_objects_v2(Bucket="bucket", Prefix="frozen/parts/part-"))
    victim = ec2.running(role="worker")[0]
    ec2.pull("freeze", victim)
    done = finish(process, 0)
    assert ec2.events("freeze", id=victim) and ec2.events("gone", id=victim)
    assert "worker-2 replaces it" in done.stderr_text
    assert sha256(ec2, "frozen") == reference(ec2, 4000)
