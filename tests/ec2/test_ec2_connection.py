"""EC2 in rehearsal: what is said while machines boot, clusters that two commands change at once, words."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from distributed import Client
from iam import Recorder
from rehearse import IMAGE, finish, wait_for

from dask_classifier.ec2 import boot, named_clusters, placement
from dask_classifier.ec2.aws import Aws
from dask_classifier.ec2.launcher import Fleet
from dask_classifier.ec2.spec import ClusterSpec
from dask_classifier.errors import UsageError

SLOW_START = """
import warnings
from dask.utils import parse_timedelta
import dask_cloudprovider.generic.vmcluster as vmcluster
import dask_classifier as dc
from dask_classifier.ec2 import bring_up
from dask_classifier.engine import connect

warnings.simplefilter("always")
real = vmcluster.warn_on_duration
vmcluster.warn_on_duration = lambda duration, message: real("1 ms", message)  # any start is slow
bring_up._PATIENCE_SECONDS = 0.0


class Asked(connect.OnceClient):
    def __init__(self, *args, timeout, **options):
        print("limit", timeout)
        super().__init__(*args, timeout=timeout, **options)


connect.OnceClient = Asked
with dc.EC2Cluster(workers=1, bring_up_limit="9m", say=print) as machines:
    with connect._client(machines) as client:
        print("closed within twice", client._timeout)
"""


def test_a_slow_start_says_what_it_waits_for_and_shows_no_warning_of_others(ec2):
    ec2.settings(boot_seconds=5)  # longer than the first attempt to connect
    done = ec2.python(SLOW_START)
    assert "surprisingly long" not in done.stderr_text, done.stderr_text
    assert re.search(
        r"The scheduler at 127\.\S+:8786 does not answer after \d+\.\ds of at most 9m00s", done.stdout_text
    )
    assert "limit 540" in done.stdout_text, "a busy scheduler has as long as --bring-up-limit"
    assert "closed within twice 10.0" in done.stdout_text, "and one that is lost is not waited for"


def test_json_of_a_run_says_what_became_of_the_machines(ec2):
    words = ["--rows", "300", "--slowness", "1", "--output", "s3://bucket/as-json", "--json", "--quiet"]
    done = ec2.command(*words, check=0)
    assert {"started": 2, "terminated": 2, "left": []}.items() <= json.loads(done.stdout_text)["machines"].items()


def test_two_commands_that_make_a_cluster_larger_name_no_two_machines_alike(ec2):
    ec2.command("up", "--name", "both", "--workers", "1", check=0)
    ec2.settings(launch_seconds=1)
    first, second = (ec2.start("up", "--name", "both", "--workers", count) for count in ("2", "3"))
    done = [finish(each, 0) for each in (first, second)]
    assert sum("Another command is changing the cluster both" in each.stderr_text for each in done) == 1
    names = [tag["Value"] for each in ec2.instances("pending", "running") for tag in each["Tags"]
             if tag["Key"] == "dask-classify:worker"]  # fmt: skip
    assert len(names) == len(set(names))
    assert {"scheduler", "worker-0"} < set(names)
    ec2.command("down", "--name", "both", check=0)


def test_a_killed_command_leaves_no_lock(ec2):
    ec2.settings(boot_seconds=600)
    process = ec2.start("up", "--name", "locked", "--workers", "1")
    wait_for(lambda: ec2.running(role="scheduler"))
    process.send_signal(signal.SIGKILL)
    finish(process, -9)
    again = ec2.command("up", "--name", "locked", "--workers", "1", "--bring-up-limit", "1s")
    assert "Another command" not in again.stderr_text
    ec2.command("down", "--name", "locked", check=0)


def test_a_cluster_is_locked_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    said = []
    with named_clusters.locked("one", said.append), named_clusters.locked("two", said.append):
        assert not said
    with named_clusters.locked("one", said.append):
        assert not said


# --- a computer that moves -----------------------------------------------------------------------------

MOVED = """
import dask_classifier as dc
from dask_classifier.ec2 import replacing

with dc.EC2Cluster(workers=1, say=print) as machines:
    def rules():
        (group,) = machines.aws.ec2.describe_security_groups(GroupIds=machines.fleet.group_ids)["SecurityGroups"]
        return sorted((r["CidrIp"], p["FromPort"]) for p in group["IpPermissions"] for r in p["IpRanges"])
    print("before", rules())
    machines.let_in()
    print("same", rules())
    replacing.caller_of = lambda spec: "198.51.100.77/32"
    machines.let_in()
    machines.let_in()
    print("moved", rules())
    def offline(spec):
        raise dc.errors.ClusterError("no network")
    replacing.caller_of = offline
    machines.let_in()
"""


def test_a_computer_in_another_network_is_let_in(ec2):
    done = ec2.python(MOVED)
    told = dict(line.split(" ", 1) for line in done.stdout_text.splitlines() if line.split(" ")[0] in MOVED_STATES)
    assert told["before"] == told["same"] == "[('127.0.0.1/32', 8786)]", done.stdout_text
    assert told["moved"] == "[('127.0.0.1/32', 8786), ('198.51.100.77/32', 8786)]", done.stdout_text


MOVED_STATES = ("before", "same", "moved")


def test_a_named_cluster_lets_in_whoever_attaches_to_it(ec2):
    ec2.command("up", "--name", "far", "--workers", "1", check=0)
    group = ec2.client("ec2").describe_security_groups(
        Filters=[{"Name": "tag-key", "Values": ["dask-classify:cluster"]}]
    )["SecurityGroups"][0]
    caller = [rule for rule in group["IpPermissions"] if rule["IpRanges"]]
    ec2.client("ec2").revoke_security_group_ingress(GroupId=group["GroupId"], IpPermissions=caller)
    ec2.command("--rows", "300", "--slowness", "1", "--cluster", "far", "--output", "s3://bucket/far", check=0)
    ec2.command("down", "--name", "far", check=0)


# --- disks -------------------------------------------------------------------------------------------


class LargeImages(Recorder):
    """A region whose AMIs have roots of 64 GiB; moto's all have 15."""

    def forward(self, method, path, headers, body):
        status, answered, data = super().forward(method, path, headers, body)
        if b"Action=DescribeImages" in body:
            assert b"<volumeSize>15<" in data
            data = data.replace(b"<volumeSize>15<", b"<volumeSize>64<")
        return status, answered, data


def test_a_disk_is_at_least_as_large_as_the_image(ec2, monkeypatch):
    large = LargeImages(ec2)
    for name, value in (ec2.environment() | {"AWS_ENDPOINT_URL": large.url}).items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    aws, wanted = Aws(), ClusterSpec.of(image=IMAGE, security_group="sg-1")
    fleet = Fleet(aws, wanted, placement.find_placement(aws, wanted), "an-id", print)
    offer = fleet.placement.offers["worker"][0]
    (disk,) = fleet.request("worker", "worker-0", "#!/bin/sh", offer, "t")["BlockDeviceMappings"]
    assert disk["Ebs"]["VolumeSize"] == 64
    assert "volumes of 64 GiB" in ec2.command("doctor", check=0, AWS_ENDPOINT_URL=large.url).stdout_text
    assert "volumes of 40 GiB" in ec2.command("doctor", check=0).stdout_text
    large.close()


# --- words -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["deadline", "bring-up-limit", "idle-timeout", "teardown-limit"])
@pytest.mark.parametrize("command", [["doctor"], ["up", "--name", "long"]])
def test_times_that_no_clock_can_show_are_a_sentence(ec2, command, name):
    done = ec2.command(*command, f"--{name}", "99999999h", check=2)
    assert f"--{name} 99,999,999h is longer than 30 days." in done.stderr_text
    assert "Traceback" not in done.stderr_text


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"idle_timeout": "xx"}, "'xx' is not a time for idle_timeout=."),
        ({"workers": "xx"}, "'xx' is not a number for workers=."),
    ],
)
def test_what_is_no_number_is_named_by_its_option(given, text):
    with pytest.raises(UsageError, match=re.escape(text)):
        ClusterSpec.of(image=IMAGE, **given)


def test_an_age_that_is_none(ec2):
    done = ec2.command("reap", "--older-than", "xx", check=2)
    assert "'xx' is not a time for --older-than." in done.stderr_text


def test_a_machine_that_ends_before_it_has_an_address_is_not_waited_for(ec2):
    """As one does whose disk cannot be encrypted."""
    ec2.settings(launch_seconds=2)
    process = ec2.start("--rows", "300", "--slowness", "1", "--output", "s3://bucket/stillborn")
    (scheduler,) = wait_for(lambda: ec2.running(role="scheduler"))
    ec2.pull("lose", scheduler)  # before RunInstances has answered
    done = finish(process, 4)
    assert f"Instance {scheduler} terminated before it had a public address." in done.stderr_text


def test_lines_of_a_log_that_are_no_errors_are_no_reason(ec2):
    """A scheduler whose machine is taken away has logged nothing wrong."""
    ec2.settings(boot_seconds=600)
    process = ec2.start("--rows", "300", "--slowness", "1", "--output", "s3://bucket/no-reason")
    (scheduler,) = wait_for(lambda: ec2.running(role="scheduler"))
    console = ec2.folder / scheduler / "console.log"
    wait_for(console.exists)
    wait_for(
        lambda: len(ec2.events("boot")) == 2
    )  # that the worker boots too shows that the scheduler's start is known
    with console.open("a") as log:
        log.write("2026-11-24 10:00:00,000 - distributed.preloading - INFO - Creating preload\n")
    ec2.pull("lose", scheduler)
    done = finish(process, 4)
    assert "terminated before it answered." in done.stderr_text and "INFO" not in done.stderr_text
    assert f"aws ec2 get-console-output --latest --output text --instance-id {scheduler}" in done.stderr_text


def test_a_worker_that_boots_before_its_scheduler_waits_for_it(tmp_path):
    """Longer than Dask's own nanny, which gives up after distributed.comm.timeouts.connect, and ends the instance."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    command = boot._worker_command(address, "worker-0", ClusterSpec(image=IMAGE, processes_per_worker=1))
    command = [sys.executable, *command[1:]]
    command[command.index("--protocol") + 1] = "tcp"
    impatient = os.environ | {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "2s"}
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, env=impatient, stderr=log) as worker:
        try:
            time.sleep(10)
            with Client(n_workers=0, host="127.0.0.1", scheduler_port=port, dashboard_address=":0") as late:
                late.wait_for_workers(1, timeout=60)
                assert worker.poll() is None
                log_until_then = (tmp_path / "log").read_text()  # when the scheduler closes, the nanny starts anew
        finally:
            worker.terminate()
    assert "failed to start" not in log_until_then
