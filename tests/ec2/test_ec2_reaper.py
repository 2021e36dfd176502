"""Whose a cluster is, and whether that command still runs; what `reap` ends, and what it leaves alone."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from dask_classifier.ec2 import owners, retries, teardown
from dask_classifier.ec2.aws import Aws
from dask_classifier.errors import ClusterError, InstancesLeft

CLIENT = """
import time
from dask_classifier.ec2.owners import this_client
print(this_client(), flush=True)
time.sleep(600)
"""
ALIVE = "import sys\nfrom dask_classifier.ec2.owners import alive\nprint(alive(sys.argv[1]))\n"
IS_ROOT = pytest.mark.skipif(
    os.getuid() != 0 or not all(map(shutil.which, ("unshare", "setpriv", "mount"))), reason="needs root and util-linux"
)


@pytest.fixture
def client():
    """A command under way, and its tag."""
    process = subprocess.Popen([sys.executable, "-c", CLIENT], stdout=subprocess.PIPE, text=True)
    yield process, process.stdout.readline().strip()
    process.kill()
    process.wait()
    process.stdout.close()


def asked(*prefix, tag):
    """What another process says of a tag."""
    done = subprocess.run([*prefix, sys.executable, "-c", ALIVE, tag], capture_output=True, text=True, timeout=120)
    return done.stdout.strip() or done.stderr


def test_a_command_is_alive_until_it_is_dead(client):
    process, tag = client
    assert asked(tag=tag) == "True"
    process.kill()
    process.wait()
    assert asked(tag=tag) == "False"


def test_a_process_id_used_again_is_another_process(client):
    _, tag = client
    host, pid, place, began = tag.split()
    assert owners.alive(f"{host} {pid} {place} {int(began) - 1}") is False


def test_neither_the_clock_nor_the_name_of_the_host_makes_a_command_look_dead(client):
    """psutil adds the boot time of now to the ticks, and so moves with the clock. The tag has the ticks alone."""
    process, tag = client
    _, *rest = tag.split()
    with open(f"/proc/{process.pid}/stat") as stat:
        assert rest[-1] == stat.read().rpartition(")")[2].split()[19]
    assert owners.alive(" ".join(["another-name", *rest])) is True


@IS_ROOT
def test_a_process_that_cannot_be_seen_is_not_taken_for_dead(client):
    """/proc with hidepid=2, as on login nodes: another user's process is not listed."""
    _, tag = client
    nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups"
    hidden = ["unshare", "--mount", "sh", "-c", f'mount -t proc -o hidepid=2 proc /proc && exec {nobody} "$@"', "-"]
    seen = subprocess.run([*hidden, "test", "-e", f"/proc/{tag.split()[1]}"], timeout=60).returncode
    assert seen == 1, "it is hidden"
    assert asked(*hidden, tag=tag) == "None"


@IS_ROOT
def test_process_ids_of_another_container_are_not_ours(client):
    _, tag = client
    assert asked("unshare", "--pid", "--fork", "--mount-proc", tag=tag) == "None"


@pytest.fixture
def a_machine(tmp_path, monkeypatch):
    """Ids of a machine and of its boots, and its disk."""
    monkeypatch.setattr(owners, "_MACHINE_ID", tmp_path / "machine-id")
    monkeypatch.setattr(owners, "_BOOT_ID", tmp_path / "boot-id")
    monkeypatch.setattr(owners, "_BOOTS", tmp_path)
    (tmp_path / "machine-id").write_text("one\n")
    (tmp_path / "boot-id").write_text("first\n")
    return tmp_path


def test_after_a_reboot_the_commands_of_before_are_dead(a_machine):
    tag = owners.this_client()
    assert owners.alive(tag) is True
    (a_machine / "boot-id").write_text("second\n")
    assert owners.alive(tag) is False
    assert "one" not in tag and "first" not in tag, "tags are no secret"


@pytest.mark.parametrize("change", ["another machine", "a copy of the machine", "a copy of its disk", "no id"])
def test_of_another_machine_nothing_is_known(a_machine, monkeypatch, change):
    tag = owners.this_client()
    (a_machine / "boot-id").write_text("second\n")
    if change == "another machine":
        (a_machine / "machine-id").write_text("two\n")
    elif change == "a copy of its disk":
        monkeypatch.setattr(owners, "_host", lambda: "the-copy")
    elif change == "no id":
        (a_machine / "machine-id").unlink()
    else:
        shutil.rmtree(owners._marks())
    assert owners.alive(tag) is None


@pytest.mark.parametrize("tag", ["", "host/boot 1 1700000000.0", "host 1", "a b c d", "host 1 -/-/- 5"])
def test_of_a_tag_of_an_earlier_version_nothing_is_known(tag):
    assert owners.alive(tag) is None


# --- in the rehearsal ---------------------------------------------------------------------------------


@pytest.fixture
def aws(ec2, monkeypatch):
    for name, value in ec2.environment().items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    return Aws("us-east-1")


def test_more_ids_than_a_filter_takes(ec2, aws):
    """EC2 takes 200 values; 205 processes are too many for a test, so that these instances never were."""
    ids = [f"i-{number:017x}" for number in range(205)]
    with pytest.raises(ClusterError, match="maximum number of filter values is 200"):
        teardown._described(aws, [{"Name": "instance-id", "Values": ids}])
    assert teardown.states(aws, ids) == {}
    teardown.terminate(aws, ids)
    told = [event["ids"] for event in ec2.events("call", call="TerminateInstances")]
    assert max(map(len, told)) <= 200 and {each for some in told for each in some} == set(ids)


def a_group(ec2, name, **tags):
    given = {"dask-classify:cluster": name} | {f"dask-classify:{key}": value for key, value in tags.items()}
    words = [{"Key": key, "Value": value} for key, value in given.items()]
    made = ec2.client("ec2").create_security_group(
        GroupName=f"dask-classify-{name}", Description="of a test",
        TagSpecifications=[{"ResourceType": "security-group", "Tags": words}],
    )  # fmt: skip
    return made["GroupId"]


def test_a_cluster_that_is_starting_is_not_old(ec2):
    """Its group is there before its first instance, and EC2 tells no age of groups."""
    now = time.time()
    young = a_group(ec2, "young", created=teardown.moment(now - 1))
    unknown = a_group(ec2, "unknown")
    old = a_group(ec2, "old", created=teardown.moment(now - 4 * 3600))
    done = ec2.command("reap", "--older-than", "3h", "--yes", check=0)
    said = done.stdout_text + done.stderr_text
    assert old in said and young not in said and unknown not in said
    assert set(ec2.remains()) == {young, unknown}
    ec2.wipe()


def test_reap_leaves_alone_and_names_what_it_cannot_judge(ec2):
    group = a_group(ec2, "somebodys", client="elsewhere 17 0123456789abcdef/0123456789abcdef/1.2 99")
    done = ec2.command("reap", "--yes", check=0)
    assert f"Skipped cluster somebodys: {group}" in done.stdout_text
    assert "process 17 on elsewhere" in done.stdout_text and "--cluster somebodys --yes" in done.stdout_text
    assert ec2.remains() == [group]
    ec2.wipe()


LOST = ["--rows", "100", "--slowness", "1", "--workers", "1", "--teardown-limit", "30s"]


def test_lost_answers_with_a_group_of_the_users_leave_nothing(ec2):
    """No group of its own shows that there is an instance: it is looked for until EC2 lists it."""
    group = ec2.client("ec2").create_security_group(GroupName="mine", Description="the user's")["GroupId"]
    ec2.settings(lose_answers=99, appear_seconds=9, boot_seconds=600)
    done = ec2.command(*LOST, "--output", "s3://bucket/lost-1", "--security-group", group)
    assert ec2.events("call", call="RunInstances") and ec2.events("hidden"), "it was started, and not listed"
    assert done.returncode == 4, done.stderr_text
    assert ec2.remains() == [group]
    ec2.client("ec2").delete_security_group(GroupId=group)


def test_what_may_have_been_started_is_said(ec2):
    group = ec2.client("ec2").create_security_group(GroupName="mine", Description="the user's")["GroupId"]
    ec2.settings(lose_answers=99, appear_seconds=600, boot_seconds=600)
    done = ec2.command(*LOST, "--output", "s3://bucket/lost-2", "--security-group", group, check=5)
    assert "EC2 did not confirm whether it started" in done.stderr_text
    assert "dask-classify:cluster=" in done.stderr_text and "reap --region us-east-1 --cluster" in done.stderr_text
    ec2.settings()
    cluster = done.stderr_text.split("--cluster ")[1].split("`")[0].split()[0]
    ec2.command("reap", "--cluster", cluster, "--yes", check=0)
    assert ec2.remains() == [group], "the command of the hint ends it"
    ec2.client("ec2").delete_security_group(GroupId=group)


def test_what_is_left_names_the_security_group_too(ec2, aws):
    group = a_group(ec2, "kept")
    ec2.settings(faults=[{"call": "DeleteSecurityGroup", "code": "DependencyViolation"}])
    ending = teardown.end(aws, "kept", group_ids=[group], sure=True, limit=1)
    assert ec2.events("fault", call="DeleteSecurityGroup") and ending.left == (group,)
    with pytest.raises(InstancesLeft, match=group):
        teardown.refuse_leftovers(ending, "us-east-1", 0, "kept")
    ec2.settings()
    ec2.wipe()


def test_a_command_that_was_stopped_in_teardown_looks_once_more(ec2, aws, monkeypatch):
    """As a laptop that sleeps: the time is over when it wakes, and all may have ended in the meantime."""
    group, moments = a_group(ec2, "asleep"), iter([0.0, 0.0, 999.0])
    ec2.settings(faults=[{"call": "DeleteSecurityGroup", "code": "DependencyViolation", "to": 1}])
    monkeypatch.setattr(retries.time, "monotonic", lambda: next(moments, 999.0))
    ending = teardown.end(aws, "asleep", group_ids=[group], sure=True, limit=30)
    assert len(ec2.events("fault", call="DeleteSecurityGroup")) == 1
    assert ending.left == () and ec2.remains() == []


# --- uploads ------------------------------------------------------------------------------------------

UPLOAD = """
import sys, time
from dask_classifier import storage
with storage.open_whole(sys.argv[1]) as stream:
    for _ in range(3):
        stream.write(bytes(6 * 2**20 * 10))
    print("written", flush=True)
    time.sleep(600)
"""


def a_killed_upload(ec2, url):
    environment = os.environ | ec2.environment()
    process = subprocess.Popen([sys.executable, "-c", UPLOAD, url], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def uploads(ec2):
    return [each["Key"] for each in ec2.client("s3").list_multipart_uploads(Bucket="bucket").get("Uploads", [])]


def test_killed_uploads_are_found_and_aborted(ec2):
    """By `reap --output` after a question, and by the end of a run; never what is not a run's."""
    run = "s3://bucket/uploads/run"
    a_killed_upload(ec2, f"{run}/parts/part-00000.csv.gz")
    a_killed_upload(ec2, f"{run}/of-the-user.bin")
    left = uploads(ec2)
    assert sorted(left) == ["uploads/run/of-the-user.bin", "uploads/run/parts/part-00000.csv.gz"], "they are killed"
    done = ec2.command("reap", "--output", run, check=0)
    assert "Would abort the upload to s3://bucket/uploads/run/parts/part-00000.csv.gz" in done.stdout_text
    assert uploads(ec2) == left
    ec2.command("reap", "--output", run, "--yes", check=0)
    assert uploads(ec2) == ["uploads/run/of-the-user.bin"]
    a_killed_upload(ec2, f"{run}/parts/part-00001.csv.gz")
    options = {"DASK_CLASSIFIER__CLUSTER": "local"}
    ec2.command("--rows", "100", "--slowness", "1", "--output", run, check=0, **options)
    assert uploads(ec2) == ["uploads/run/of-the-user.bin"]
    ec2.client("s3").abort_multipart_upload(
        Bucket="bucket", Key="uploads/run/of-the-user.bin",
        UploadId=ec2.client("s3").list_multipart_uploads(Bucket="bucket")["Uploads"][0]["UploadId"],
    )  # fmt: skip


def test_doctor_has_a_line_about_uploads(ec2):
    a_killed_upload(ec2, "s3://bucket/doctor/parts/part-00000.csv.gz")
    done = ec2.command("doctor", "--output", "s3://bucket/doctor")
    assert "uploads" in done.stdout_text and "1 unfinished upload below" in done.stdout_text
    ec2.command("reap", "--output", "s3://bucket/doctor", "--yes", check=0)
    done = ec2.command("doctor", "--output", "s3://bucket/doctor")
    assert "no unfinished uploads" in done.stdout_text
