"""What goes wrong on EC2, in rehearsal. After each test the fixture counts what is left: nothing may be."""

import json
import os
import re
import signal
import subprocess
import time

import pytest
from rehearse import DASK_CLASSIFY, PRIVATE_IMAGE, finish, wait_for

SLOW = {"boot_seconds": 60}  # machines that cost, and do nothing


# Classifiers that wait instead of working: time enough for faults, while the two cores boot machines.
CLASSIFIERS = """
import time

def quick(chunk):
    return chunk["FLUX"].str.len()

def sleepy(chunk):
    time.sleep(0.3)
    return quick(chunk)
"""


def job(number, workers=1, rows="400", *more):
    """Words of a run with an output of its own: a second and a half for each 500 rows."""
    words = ["--rows", rows, "--block-rows", "500", "--classifier", "waiting.py:sleepy", "--workers", workers]
    return [*words, "--output", f"s3://bucket/fault-{number}", *more]


@pytest.fixture(scope="module", autouse=True)
def classifiers_of_the_user(region):
    (region.folder / "waiting.py").write_text(CLASSIFIERS)


def proven(ec2, output):
    return json.loads(ec2.command("verify", output, "--json", check=0).stdout_text)["sha256"]


def reference(ec2, rows):
    """The digest of the same rows, classified in one process of this machine."""
    output = f"s3://bucket/reference-{rows}-{time.time_ns()}"
    ec2.command("--rows", rows, "--classifier", "waiting.py:quick", "--cluster", "inline", "--output", output, check=0)
    return proven(ec2, output)


def told(process):
    """The error and the hint: one line each."""
    assert "Traceback" not in process.stderr_text, process.stderr_text
    lines = process.stderr_text.strip().splitlines()
    (error,) = [line for line in lines if line.startswith("Error: ")]
    return error


# --- not to be had ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "environment", "code", "text"),
    [
        (["--output", "here"], {}, 2, "cannot reach the output here"),
        (["--input", "in.csv", "--output", "s3://bucket/x"], {}, 2, "cannot reach the input in.csv"),
        (job(0, 1, "400", "--region", "us-est-1"), {}, 2, "'us-est-1' is not an AWS region"),
        (
            job(0, 1, "400"),
            {"AWS_PROFILE": "nosuch"},
            2,
            "The config profile (nosuch)",
        ),
        (job(0, 1, "400", "--cluster", "local", "--spot"), {}, 2, "--spot has no effect with the cluster local"),
        (job(0, 1, "400", "--instance-type", "c7i.huge"), {}, 4, "c7i.huge is not available"),
        (job(0), {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, 4, "credentials"),
        (["--rows", "400", "--output", "s3://nobodys-bucket/x"], {}, 4, "s3://nobodys-bucket/x"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(ec2, words, environment, code, text):
    if "--output" in words and "--rows" not in words and "--input" not in words:
        words = ["--rows", "400", *words]
    done = ec2.command(*words, check=code, **environment)
    assert text in told(done) and "Hint: " in done.stderr_text
    assert not ec2.events("call", call="RunInstances") and not ec2.events("call", call="CreateSecurityGroup")


@pytest.mark.parametrize(("first", "what"), [(1, "scheduler"), (2, "worker-")])
def test_no_capacity_ends_with_4_and_nothing(ec2, first, what):
    ec2.settings(faults=[{"call": "RunInstances", "code": "VcpuLimitExceeded", "from": first}], **SLOW)
    done = ec2.command(*job(first), "--bring-up-limit", "8s", check=4)
    assert f"no capacity for {what}" in done.stderr_text and ec2.events("fault", code="VcpuLimitExceeded")
    assert not ec2.remains()


def test_fewer_workers_than_asked_go_to_work(ec2):
    """The last of three launches is refused, whatever the type."""
    ec2.settings(faults=[{"call": "RunInstances", "code": "InstanceLimitExceeded", "from": 3}])
    done = ec2.command(*job("fewer", 2), check=0)
    assert "Continuing with 1 worker." in done.stderr_text and ec2.events("fault")
    assert "Started 2 instances, 2 terminated" in done.stderr_text
    ec2.settings(faults=[{"call": "RunInstances", "code": "InstanceLimitExceeded", "from": 3}], **SLOW)
    done = ec2.command(*job("min", 2), "--min-workers", "2", "--bring-up-limit", "8s", check=4)
    assert "no capacity for worker-" in told(done) and not ec2.remains()
    assert ec2.events("fault", code="InstanceLimitExceeded")


def test_an_image_that_cannot_be_pulled(ec2):
    ec2.settings(images={"registry.example/dask-classify:1": {"missing": True}})
    done = ec2.command(*job("image"), check=4)
    assert "The scheduler's instance terminated before it answered" in told(done)
    assert "pull access denied" in done.stderr_text  # the machine's own words
    assert ec2.events("power off")


def test_a_private_image_though_the_profile_comes_late(ec2, profile):
    """EC2 may take some seconds before an instance has the credentials of its profile."""
    ec2.settings(profile_seconds=2)
    done = ec2.command(*job("late", 1), "--image", PRIVATE_IMAGE, "--instance-profile", profile, check=0)
    assert ec2.events("no profile yet") and "Started 2 instances, 2 terminated" in done.stderr_text


@pytest.mark.parametrize(
    ("code", "message", "hint"),
    [
        ("Client.InvalidKMSKey.InvalidState", "The KMS key is disabled", "KMS key"),
        ("Client.VolumeLimitExceeded", "Volume limit exceeded", "a higher quota for gp3 volumes"),
        ("Server.SomethingNew", "Something new", "Troubleshoot instance launch issues"),
    ],
)
def test_an_instance_that_ec2_ends_at_once_is_explained_by_its_own_reason(ec2, code, message, hint):
    ec2.settings(state_reason={"code": code, "message": f"{code}: {message}"}, boot_seconds=60)
    done = ec2.command(*job("reason"), check=4)
    assert ec2.events("state reason", code=code)
    assert f"{message} ({code})" in told(done) and hint in done.stderr_text and not ec2.remains()


def test_an_image_without_our_versions_is_refused_before_any_work(ec2):
    other = {"environment": {"REHEARSAL_OTHER_VERSION": "pandas"}}
    ec2.settings(images={"registry.example/dask-classify:1": other})
    done = ec2.command(*job("versions"), check=4)
    assert re.search(r"versions on the workers differ from yours: pandas 0\.0\.1 \(you have \d", told(done))
    assert "Started 2 instances, 2 terminated" in done.stderr_text
    assert not ec2.client("s3").list_objects_v2(Bucket="bucket", Prefix="fault-versions").get("Contents")


def test_a_scheduler_that_never_answers(ec2):
    ec2.settings(**SLOW)
    done = ec2.command(*job("silent"), "--bring-up-limit", "5s", check=4)
    assert "does not answer after 5 seconds" in told(done)
    assert len(ec2.events("boot")) == 2 and "Started 2 instances, 2 terminated" in done.stderr_text


# --- interrupted -----------------------------------------------------------------------------------------


def group_is_there(ec2):
    return ec2.events("call", call="CreateSecurityGroup")


def machines_boot(ec2):
    return len(ec2.events("boot")) == 2


def done_blocks(ec2):
    """The number of blocks with a receipt; a part is written before."""
    listed = ec2.client("s3").list_objects_v2(Bucket="bucket", Prefix=f"fault-{ec2.job}/parts/part-")
    return sum(each["Key"].endswith(".json") for each in listed.get("Contents", ()))


def blocks_are_done(ec2):
    return done_blocks(ec2) > 0


def machines_end(ec2):
    return ec2.events("call", call="TerminateInstances")


@pytest.mark.parametrize(
    ("number", "moment", "again"),
    [
        (signal.SIGINT, group_is_there, 0),
        pytest.param(signal.SIGTERM, machines_boot, 0, marks=pytest.mark.slow),
        (signal.SIGINT, blocks_are_done, 3),
        pytest.param(signal.SIGHUP, blocks_are_done, 0, marks=pytest.mark.slow),
        (signal.SIGTERM, machines_end, 2),
    ],
)
def test_an_interrupted_run_leaves_nothing(ec2, number, moment, again):
    """A signal to the command's whole group, as a terminal sends it; and more of them while it ends."""
    ec2.settings(terminate_seconds=1)
    ec2.job = f"signal-{time.time_ns()}"
    process = ec2.start(*job(ec2.job, 1, "4k"))
    wait_for(lambda: moment(ec2), 300)
    os.killpg(process.pid, number)
    for _ in range(again):
        time.sleep(0.4)
        if process.poll() is None:
            os.killpg(process.pid, number)
    done = finish(process)
    assert done.returncode == 130, done.stderr_text
    assert "Interrupted" in told(done) and not ec2.remains(), done.stderr_text
    started = len(ec2.events("call", call="RunInstances"))
    assert started == 0 or re.search(rf"Started {started} instances?, {started} terminated", done.stderr_text)


def test_a_script_that_is_told_to_end_leaves_nothing(ec2):
    """SIGTERM kills Python without a word, unless somebody handles it: the cluster does, while it lives."""
    ec2.settings(**SLOW)
    script = ec2.folder / "told.py"
    script.write_text("import dask_classifier as dc\nwith dc.EC2Cluster(workers=1):\n    pass\n")
    process = ec2.start_python(script)
    wait_for(lambda: len(ec2.events("boot")) == 2)
    process.send_signal(signal.SIGTERM)
    finish(process, 128 + signal.SIGTERM)
    assert not ec2.remains()


def test_a_terminal_that_is_closed_leaves_nothing(ec2):
    """SIGHUP, and nobody to talk to any more: each word that the command says fails."""
    ec2.settings(**SLOW)
    master, terminal = os.openpty()
    words = [DASK_CLASSIFY, "up", "--name", "closed"]
    environment = ec2.environment()
    process = subprocess.Popen(
        words, cwd=ec2.folder, env=environment, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
    )
    os.close(terminal)
    wait_for(lambda: machines_boot(ec2))
    os.close(master)
    os.killpg(process.pid, signal.SIGHUP)
    process.wait(60)
    assert not ec2.remains() and ec2.events("call", call="TerminateInstances")


def test_a_group_that_is_slow_to_make_is_deleted_too(ec2):
    ec2.settings(group_seconds=2)
    process = ec2.start(*job("group"))
    wait_for(lambda: group_is_there(ec2))
    os.killpg(process.pid, signal.SIGINT)
    finish(process, 130)
    assert not ec2.remains() and ec2.events("call", call="DeleteSecurityGroup")


def test_up_killed_is_ended_by_down(ec2):
    ec2.settings(**SLOW)
    process = ec2.start("up", "--name", "killed")
    wait_for(lambda: machines_boot(ec2))
    os.killpg(process.pid, signal.SIGKILL)
    finish(process, -signal.SIGKILL)
    ec2.command("down", "--name", "killed", check=0)
    assert not ec2.remains()


def test_a_killed_command_is_reaped(ec2):
    """After SIGKILL nobody cleans up: `status` shows the leak, `reap` ends it, and asks before."""
    ec2.settings(**SLOW)
    process = ec2.start(*job("killed"))
    wait_for(lambda: machines_boot(ec2))
    assert "process" in ec2.command("status", check=0).stdout_text
    assert "Nothing to terminate" in ec2.command("reap", "--yes", check=0).stdout_text  # it runs
    os.killpg(process.pid, signal.SIGKILL)
    finish(process, -signal.SIGKILL)
    assert ec2.command("status", check=0).stdout_text.count("leaked") == 3
    listed = ec2.command("reap", check=0)
    assert "Would terminate cluster" in listed.stdout_text and len(ec2.running()) == 2
    ec2.command("reap", "--yes", check=0)
    assert not ec2.remains()
    assert "has no instances or security groups" in ec2.command("status", check=0).stdout_text


@pytest.mark.virtual
def test_after_kill_9_the_machines_end_themselves(ec2):
    """The scheduler by its idle time-out, the workers because they have lost it; nobody else is there to do it."""
    process = ec2.start(*job("alone", 1, "10k"), "--idle-timeout", ec2.idle_timeout)
    ec2.job = "alone"
    wait_for(lambda: blocks_are_done(ec2), 300)
    os.killpg(process.pid, signal.SIGKILL)
    finish(process, -signal.SIGKILL)
    wait_for(lambda: not ec2.running(), 300)
    assert len(ec2.events("power off")) == 2 and not ec2.events("call", call="TerminateInstances")
    ec2.command("reap", "--yes", check=0)  # the security group
    assert not ec2.remains()


# --- ending that fails ---------------------------------------------------------------------------------------


def test_terminate_is_throttled_then_refused_once(ec2):
    faults = [
        {"call": "TerminateInstances", "code": "RequestLimitExceeded", "to": 2},
        {"call": "TerminateInstances", "code": "UnauthorizedOperation", "from": 3, "to": 3},
        {"call": "DeleteSecurityGroup", "code": "DependencyViolation", "to": 2},
    ]
    ec2.settings(faults=faults)
    done = ec2.command(*job("throttled"), check=0)
    assert "Started 2 instances, 2 terminated" in done.stderr_text and not ec2.remains()
    assert {"RequestLimitExceeded", "UnauthorizedOperation"} <= {each["code"] for each in ec2.events("fault")}
    assert len(ec2.events("fault", call="DeleteSecurityGroup")) == 2


def test_terminate_is_refused_for_ever_until_the_deadline(ec2):
    """The run is complete, the exit code is 5, the text names the machines, and these end themselves."""
    faults = [{"call": "TerminateInstances", "code": "UnauthorizedOperation"}]
    ec2.settings(faults=faults, minute_seconds=1.5, halt_seconds=30)  # so that they do not end before the command
    options = ["--teardown-limit", "3s", "--bring-up-limit", "10m", "--deadline", "20m"]
    process = ec2.start(*job("refused"), *options)
    done = finish(process, 5)
    ids = {event["id"] for event in ec2.events("boot")}
    assert len(ids) == 2 and all(each in told(done) for each in ids) and "shut themselves down by" in told(done)
    assert "reap --region us-east-1" in done.stderr_text
    manifest = ec2.client("s3").get_object(Bucket="bucket", Key="fault-refused/manifest.json")["Body"].read()
    assert set(json.loads(manifest)["machines"]["left"]) >= ids
    wait_for(lambda: not ec2.running(), 300)
    assert len(ec2.events("power off")) == 2
    ec2.settings()
    ec2.command("reap", "--all", "--yes", check=0)


# --- lost machines -------------------------------------------------------------------------------------------


def test_a_run_without_workers_ends_and_can_be_resumed(ec2):
    """The only worker is lost, and EC2 has no other."""
    ec2.job = "emptied"
    process = ec2.start(*job("emptied", 1, "24k"))
    wait_for(lambda: blocks_are_done(ec2), 300)
    ec2.settings(faults=[{"call": "RunInstances", "code": "InstanceLimitExceeded"}])
    ec2.pull("lose", ec2.running(role="worker")[0])
    done = finish(process, 4)
    assert ec2.events("fault", call="RunInstances")
    assert "All workers were lost, and are not replaced." in told(done) and "--resume" in done.stderr_text
    assert "Continuing with" not in told(done) and not ec2.remains()
    done = ec2.command(*job("emptied", 1, "24k"), "--resume", "--cluster", "inline", "--max-time", "1s", check=6)
    assert "blocks are already done" in done.stderr_text


def test_a_lost_machine_is_replaced_and_the_bytes_are_the_same(ec2):
    ec2.job = "lost"
    process = ec2.start(*job("lost", 2, "24k"))
    wait_for(lambda: blocks_are_done(ec2), 300)
    victim = ec2.running(role="worker")[0]
    ec2.pull("lose", victim)
    done = finish(process, 0)
    assert ec2.events("lost", id=victim)
    assert re.search(r"worker-[01] was lost; worker-2 replaces it", done.stderr_text)
    assert "Started 4 instances, 4 terminated" in done.stderr_text
    assert re.search(r"rows of worker-2 on \S+ +[1-9]", done.stderr_text)
    assert proven(ec2, "s3://bucket/fault-lost") == reference(ec2, "24k")


def test_a_spot_machine_that_is_taken_back_leaves_in_time(ec2):
    ec2.job = "spot"
    process = ec2.start(*job("spot", 2, "24k"), "--spot")
    wait_for(lambda: blocks_are_done(ec2), 300)
    victim = ec2.running(role="worker")[0]
    ec2.pull("interrupt", victim, seconds=40)
    done = finish(process, 0)
    assert re.search(r"worker-[01] is leaving the cluster: EC2 reclaims its instance at \d{4}-", done.stderr_text), (
        done.stderr_text
    )
    assert {each["market"] for each in ec2.events("call", call="RunInstances")} == {"spot", "on-demand"}
    assert "instead," not in done.stderr_text, "each has what was announced"
    (notice,), gone = ec2.events("notice", id=victim), ec2.events("gone", id=victim)
    assert gone[0]["at"] - notice["at"] < 30  # before EC2 took it, after 40 s
    assert proven(ec2, "s3://bucket/fault-spot") == reference(ec2, "24k")


UNRELIABLE = """
import os
import signal
import socket
import sys

def cut(*_):
    cut = 0
    for each in os.listdir("/proc/self/fd"):
        try:
            one = socket.socket(fileno=os.dup(int(each)))
            if one.family == socket.AF_INET and one.getpeername()[1] == 8786:
                one.shutdown(socket.SHUT_RDWR)
                cut += 1
        except OSError:
            pass
    open("cut.log", "w").write(str(cut))

signal.signal(signal.SIGUSR1, cut)
from dask_classifier.__main__ import main
main()
"""


def test_a_client_that_loses_its_connections_goes_on(ec2):
    """All connections to the scheduler are shut down in the run; a worker that is lost afterwards is replaced."""
    ec2.job = "cut"
    (ec2.folder / "unreliable.py").write_text(UNRELIABLE)
    process = ec2.start_python("unreliable.py", *job("cut", 2, "24k"))
    wait_for(lambda: blocks_are_done(ec2), 300)
    process.send_signal(signal.SIGUSR1)
    wait_for(lambda: (ec2.folder / "cut.log").exists() or process.poll() is not None)
    assert process.poll() is None, finish(process).stderr_text
    before = done_blocks(ec2)
    wait_for(lambda: done_blocks(ec2) > before)
    victim = ec2.running(role="worker")[0]
    ec2.pull("lose", victim)
    done = finish(process, 0)
    assert int((ec2.folder / "cut.log").read_text()) >= 2 and ec2.events("lost", id=victim)
    assert "lost the connection to the scheduler; trying again" in done.stderr_text, done.stderr_text
    assert "connected to the scheduler again" in done.stderr_text
    assert re.search(r"worker-[01] was lost; worker-2 replaces it", done.stderr_text), done.stderr_text
    assert "Started 4 instances, 4 terminated" in done.stderr_text
    assert proven(ec2, "s3://bucket/fault-cut") == reference(ec2, "24k")


@pytest.mark.virtual
def test_a_lost_scheduler_then_resume_on_a_new_cluster(ec2):
    """Exit code 4 and nothing left; the finished blocks are kept, and the bytes are those of a local run."""
    ec2.job = "boss"
    process = ec2.start(*job("boss", 1, "8k"))
    wait_for(lambda: blocks_are_done(ec2), 300)
    ec2.pull("lose", ec2.running(role="scheduler")[0])
    done = finish(process, 4)
    assert "Lost the connection to the cluster" in told(done) and "--resume" in done.stderr_text
    assert not ec2.remains()
    done = ec2.command(*job("boss", 1, "8k"), "--resume", check=0)
    assert re.search(r"[1-9]\d* of 16 blocks are already done", done.stderr_text)
    assert proven(ec2, "s3://bucket/fault-boss") == reference(ec2, "8k")
