"""Runs on EC2 that go on without the computer that started them, in rehearsal."""

import importlib.resources
import json
import os
import signal

import jsonschema
import pytest
from rehearse import finish, wait_for

CLASSIFIER = """
import time

def sleepy(chunk):
    time.sleep(0.3)
    return chunk["DESCRIPTION"].str.len().to_frame("letters")
"""

PICKY = """
import time

def picky(chunk):
    time.sleep(0.3)
    if (chunk.index.astype(int) == 7777).any():
        raise ValueError("not this one")
    return chunk["DESCRIPTION"].str.len().to_frame("letters")
"""


@pytest.fixture(scope="module", autouse=True)
def classifier_of_the_user(region):
    (region.folder / "waiting.py").write_text(CLASSIFIER)


def words(name, rows="2k", *more):
    """Half a second of work for each block of 100 rows."""
    run = ["--rows", rows, "--block-rows", "100", "--classifier", "waiting.py:sleepy"]
    return [*run, "--output", f"s3://bucket/{name}", *more]


def has_begun(ec2, name):
    return (ec2.stored(f"{name}/detached.json").get("progress") or {}).get("blocks_done")


def sha256(ec2, name):
    return json.loads(ec2.command("verify", f"s3://bucket/{name}", "--json", check=0).stdout_text)["sha256"]


def test_a_run_goes_on_after_its_client_was_killed(ec2):
    """Killed while it hands over; the bytes of a local run, and each instance terminates; nothing is left."""
    client = ec2.start(*words("alone", "2k", "--workers", 2, "--detach"))
    wait_for(lambda: ec2.stored("alone/detached.json").get("progress"))
    os.killpg(client.pid, signal.SIGKILL)
    wait_for(lambda: ec2.stored("alone/detached.json").get("exit_code") is not None, 90)
    assert client.wait() == -signal.SIGKILL
    told = ec2.stored("alone/detached.json")
    assert told["exit_code"] == 0, (told["message"], told["messages"])
    schemas = importlib.resources.files("dask_classifier") / "schemas"
    jsonschema.validate(told, json.loads((schemas / "detached.schema.json").read_text()))
    assert set(told) == set(json.loads((schemas / "detached.schema.json").read_text())["properties"])
    wait_for(lambda: not ec2.remains(), 60)
    machines = ec2.stored("alone/manifest.json")["machines"]
    assert {"started": 3, "terminated": 2, "left": []}.items() <= machines.items()
    assert machines["driver"] == ec2.stored("alone/detached.json")["scheduler"]
    ec2.command("wait", "s3://bucket/alone", check=0)
    machines = ec2.stored("alone/manifest.json")["machines"]
    assert {"started": 3, "terminated": 3, "left": []}.items() <= machines.items() and "driver" not in machines
    ec2.command(*words("reference"), "--cluster", "inline", check=0)
    assert sha256(ec2, "alone") == sha256(ec2, "reference")


def test_whoever_attaches_sees_it_and_may_leave(ec2):
    done = ec2.command(*words("watched", "20k", "--detach", "--json"), check=0)
    assert "The run goes on without this computer: 2 instances" in done.stderr_text
    assert "dask-classify attach s3://bucket/watched" in done.stderr_text
    assert json.loads(done.stdout_text)["output"] == "s3://bucket/watched"
    watching = ec2.start("attach", "s3://bucket/watched")
    seen = ""
    while "/20,000 rows" not in seen:
        seen += watching.stderr.readline()
    os.killpg(watching.pid, signal.SIGINT)
    watching = finish(watching, 130)
    assert "Interrupted: the run goes on." in watching.stderr_text and "Traceback" not in watching.stderr_text
    assert "20,000 rows in 200 blocks" in seen
    listed = ec2.command("status", check=0).stdout_text
    assert "run --detach," in listed and "s3://bucket/watched" in listed
    assert "It runs by itself, for s3://bucket/watched." in ec2.command("reap", "--yes", check=0).stdout_text
    twice = ec2.command(*words("watched", "20k", "--resume"), "--cluster", "inline", check=2)
    assert "is in use by process" in twice.stderr_text
    done = ec2.command("attach", "s3://bucket/watched", check=0)
    assert "All instances have terminated." in done.stderr_text and "First rows:" in done.stderr_text
    assert not ec2.remains()
    over = ec2.command("cancel", "s3://bucket/watched", check=0)
    assert "The run is already over: complete." in over.stderr_text


def test_a_cancelled_run_leaves_nothing_and_can_be_resumed_at_once(ec2):
    ec2.command(*words("ended", "20k", "--detach"), check=0)
    wait_for(lambda: has_begun(ec2, "ended"))
    waiting = ec2.start("wait", "s3://bucket/ended")
    cancelled = ec2.command("cancel", "s3://bucket/ended", check=0)
    assert not ec2.remains()
    assert "Terminating 2 instances" in cancelled.stderr_text and "The run was cancelled." in cancelled.stderr_text
    waiting = finish(waiting, 130)
    assert "Error: The run was cancelled. Its finished blocks are kept." in waiting.stderr_text
    resumed = ec2.command(*words("ended", "20k", "--resume", "--max-time", "1s"), "--cluster", "inline", check=6)
    assert "blocks are already done" in resumed.stderr_text, "neither lost nor locked"


def test_the_exit_code_is_that_of_the_run(ec2):
    (ec2.folder / "wrong.py").write_text(PICKY)
    run = ["--rows", "8000", "--block-rows", "100", "--classifier", "wrong.py:picky", "--output", "s3://bucket/wrong"]
    ec2.command(*run, "--detach", check=0)
    done = ec2.command("wait", "s3://bucket/wrong", check=3)
    assert "Error: Stopped at a bad row" in done.stderr_text and "Traceback" not in done.stderr_text
    wait_for(lambda: not ec2.remains())


@pytest.mark.slow
def test_a_lost_driver_is_noticed(ec2):
    ec2.command(*words("lost", "20k", "--detach"), check=0)
    wait_for(lambda: has_begun(ec2, "lost"))
    ec2.pull("lose", ec2.stored("lost/detached.json")["scheduler"])
    done = ec2.command("wait", "s3://bucket/lost", check=4)
    assert "has terminated without saying how the run ended" in done.stderr_text
    assert "--output s3://bucket/lost --resume" in done.stderr_text
    assert not ec2.remains(), "whoever waits terminates the others, and deletes the group"
    again = ec2.command("attach", "s3://bucket/lost", check=4)
    assert "without saying how the run ended" in again.stderr_text and "Running since" not in again.stderr_text
    resumed = ec2.command(*words("lost", "20k", "--resume", "--max-time", "1s"), "--cluster", "inline", check=6)
    assert "blocks are already done" in resumed.stderr_text, "not locked"


@pytest.mark.slow
def test_a_cluster_whose_command_was_killed_before_it_handed_over_is_leaked(ec2):
    client = ec2.start(*words("never", "2k", "--detach"))
    wait_for(lambda: len(ec2.events("boot")) == 2)
    assert "Nothing to terminate" in ec2.command("reap", check=0).stdout_text, "its command is at work"
    os.killpg(client.pid, signal.SIGKILL)
    client.wait()
    assert "leaked" in ec2.command("status", check=0).stdout_text
    ec2.command("reap", "--yes", check=0)
    assert ec2.events("call", call="TerminateInstances") and not ec2.remains()


@pytest.mark.slow
def test_the_folder_is_locked_until_the_workers_have_terminated(ec2):
    ec2.settings(terminate_seconds=20)
    ec2.command(*words("locked", "2k", "--detach"), check=0)
    wait_for(lambda: ec2.events("call", call="TerminateInstances"))
    assert ec2.stored("locked/manifest.json") and ec2.stored("locked/run.lock").get("process")
    ec2.command("wait", "s3://bucket/locked", check=0)
    assert not ec2.stored("locked/run.lock").get("process")


def test_ec2_that_cannot_be_asked_is_no_success(ec2):
    """Of `cancel`; `wait` has the run's exit code, and says it."""
    ec2.command(*words("unknown", "300"), "--cluster", "inline", check=0)
    told = {
        "format": 1,
        "output": "s3://bucket/unknown",
        "cluster": "c",
        "region": "us-east-1",
        "scheduler": "i-1",
        "instances": 2,
    }
    told |= {"dashboard": "", "started": 0.0, "deadline": 0.0, "version": "", "ended": 1.0, "exit_code": 0}
    ec2.client("s3").put_object(Bucket="bucket", Key="unknown/detached.json", Body=json.dumps(told).encode())
    ec2.settings(faults=[{"call": "DescribeInstances", "code": "UnauthorizedOperation"}])
    for command, code in (("cancel", 4), ("wait", 0)):
        done = ec2.command(command, "s3://bucket/unknown", check=code)
        assert "Cannot check that all instances of the run have terminated" in done.stderr_text
    assert ec2.events("fault", call="DescribeInstances")
    ec2.settings()


@pytest.mark.slow
def test_a_group_that_cannot_be_given_up_is_deleted_by_whoever_waits(ec2):
    ec2.settings(faults=[{"call": "ModifyInstanceAttribute", "code": "UnauthorizedOperation"}])
    ec2.command(*words("group", "400", "--detach"), check=0)
    wait_for(lambda: not ec2.running())
    assert ec2.events("fault", call="ModifyInstanceAttribute") and ec2.remains(), "the group is left"
    ec2.command("wait", "s3://bucket/group", check=0)
    assert not ec2.remains()


def test_instances_without_the_permissions_do_not_begin(ec2):
    """The hint names their policy, and the command terminates what it has started."""
    ec2.settings(faults=[{"call": "DescribeSecurityGroups", "code": "UnauthorizedOperation", "to": 1}])
    done = ec2.command(*words("unable", "400", "--detach"), check=4)
    assert "Error: Cannot list the security groups in us-east-1" in done.stderr_text
    assert "`dask-classify doctor --policy --detach` prints its policy." in done.stderr_text
    assert ec2.events("fault", call="DescribeSecurityGroups") and not ec2.remains()
    assert ec2.command("wait", "s3://bucket/unable", check=4).stderr_text.count("Error: ") == 1
    ec2.command(*words("unable", "400"), "--cluster", "inline", check=0)
    ec2.command("wait", "s3://bucket/unable", check=0)


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (["--rows", "300", "--detach", "--cluster", "local"], 2, "--detach has no effect with the cluster local."),
        (["--rows", "300", "--detach", "--output", "s3://bucket/x", "--log-json", "x"], 2, "--log-json has no effect"),
        (["attach", "s3://bucket/nowhere"], 2, "s3://bucket/nowhere does not have a detached run."),
        (["wait", "s3://bucket/nowhere"], 2, "does not have a detached run"),
        (["cancel", "s3://bucket/nowhere"], 2, "does not have a detached run"),
        (["doctor", "--detach"], 2, "--detach has no effect without --policy or --template."),
    ],
)
def test_wrong_usage_is_one_sentence(command, code, message, ec2):
    done = ec2.command(*command, check=code)
    assert message in done.stderr_text and "Traceback" not in done.stderr_text
    assert not ec2.events("call", call="RunInstances")


def test_what_may_be_left_is_forgotten_only_once_ec2_says_so(ec2):
    """A complete run that has recorded exit code 5."""
    ec2.command(*words("left", "300"), "--cluster", "inline", check=0)
    told = {"format": 1, "output": "s3://bucket/left", "cluster": "c", "region": "us-east-1", "scheduler": "i-1"}
    told |= {"instances": 2, "dashboard": "", "started": 0.0, "deadline": 0.0, "version": "", "ended": 1.0}
    told |= {"exit_code": 5, "message": "Not terminated: i-1.", "of a later version": 1}
    ec2.client("s3").put_object(Bucket="bucket", Key="left/detached.json", Body=json.dumps(told).encode())
    ec2.settings(faults=[{"call": "DescribeInstances", "code": "UnauthorizedOperation"}])
    assert "Error: Not terminated: i-1." in ec2.command("wait", "s3://bucket/left", check=5).stderr_text
    assert ec2.events("fault", call="DescribeInstances")
    ec2.settings()
    ec2.command("wait", "s3://bucket/left", check=0)
