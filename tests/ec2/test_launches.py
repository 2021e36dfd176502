"""When an instance is asked for, and with which user data: without EC2, with a client that answers as told."""

from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError, ParamValidationError
from botocore.handlers import validate_bucket_name
from rehearse import IMAGE

from dask_classifier.ec2 import launcher
from dask_classifier.ec2.packages import archive_of
from dask_classifier.ec2.placement import Offer, Placement
from dask_classifier.ec2.spec import NO_STAGING, ClusterSpec
from dask_classifier.errors import ClusterError, UsageError

BUSY = ClientError({"Error": {"Code": "RequestLimitExceeded", "Message": "busy"}}, "RunInstances")


class Ec2:
    """Answers each RunInstances with the next of `answers`: an error, or an instance's id. `listed` is what exists."""

    def __init__(self, answers, listed=()):
        self.answers, self.requests, self.listed = list(answers), [], list(listed)

    def client(self, service, **options):
        return self

    @property
    def ec2(self):
        return self

    def run_instances(self, **request):
        self.requests.append(request)
        answer = self.answers.pop(0)
        if callable(answer):
            answer = answer()
        if isinstance(answer, Exception):
            raise answer
        return {"Instances": [{"InstanceId": answer}]}


@pytest.fixture
def clock(monkeypatch):
    """What the launcher sees of the time."""
    now = SimpleNamespace(at=1_000_000.0)
    monkeypatch.setattr(launcher, "time", SimpleNamespace(time=lambda: now.at))
    return now


def fleet(aws, **options):
    offers = {role: (Offer("on-demand", "c7i.large", "subnet-1", "us-east-1a"),) for role in ("worker", "scheduler")}
    placement = Placement("vpc-1", "ami-1", "/dev/xvda", "x86_64", {"c7i.large": 2}, offers, "192.0.2.1/32", 40)
    return launcher.Fleet(aws, ClusterSpec.of(image=IMAGE, **options), placement, "a-cluster", print)


def test_user_data_are_made_when_the_instance_is_asked_for(clock):
    """They contain the time of the launch, and may have waited in a queue."""
    aws = Ec2(["i-1"])
    one = fleet(aws)
    clock.at += 100
    assert one.launch("worker", "worker-0", lambda: f"launched at {clock.at}").result()["InstanceId"] == "i-1"
    assert aws.requests[0]["UserData"] == "launched at 1000100.0"


def test_nothing_is_launched_after_the_deadline(clock):
    aws = Ec2(["i-1"])
    one = fleet(aws, deadline="20m")
    clock.at += 1200
    with pytest.raises(ClusterError, match=r"Worker-0 was not started: the deadline has passed\."):
        one.launch("worker", "worker-0", lambda: "user data").result()
    assert not aws.requests


def test_a_request_is_not_repeated_after_a_sleep(clock):
    def sleep():
        clock.at += 3600
        return BUSY

    aws = Ec2([BUSY, sleep, "i-1"])
    with pytest.raises(ClusterError, match="Cannot start worker-0"):
        fleet(aws).launch("worker", "worker-0", lambda: "user data").result()
    assert len(aws.requests) == 2


def test_tags_of_the_user_may_be_empty(clock):
    aws = Ec2(["i-1"])
    fleet(aws, tag=["team="]).launch("worker", "worker-0", lambda: "user data").result()
    tags = {tag["Key"]: tag["Value"] for tag in aws.requests[0]["TagSpecifications"][0]["Tags"]}
    assert tags["team"] == "" and all(value for key, value in tags.items() if key != "team")


def described(id, name, token, state="running"):
    return SimpleNamespace(
        id=id, worker=name, token=token, up=state in {"pending", "running"}, type="c7i.large", market="on-demand",
        launched=1_000_000.0,
    )  # fmt: skip


def test_an_instance_whose_launch_was_never_answered_is_counted(clock, monkeypatch):
    """It works and costs, although the cluster goes on without it."""
    answer = {"Error": {"Code": "InternalError", "Message": "lost"}, "ResponseMetadata": {"HTTPStatusCode": 500}}
    lost = ClientError(answer, "RunInstances")
    monkeypatch.setattr(launcher, "_BUSY_SECONDS", 0.1)
    aws = Ec2([lost] * 9)
    one = fleet(aws)
    with pytest.raises(ClusterError):
        one.launch("worker", "worker-3", lambda: "user data").result()
    token = aws.requests[0]["ClientToken"]
    listed = [described("i-3", "worker-3", token)]
    monkeypatch.setattr(launcher.teardown, "instances", lambda aws, cluster: listed)
    monkeypatch.setattr(launcher.teardown, "states", lambda aws, ids: dict.fromkeys(ids, "running"))
    assert one.ended() == set()
    assert one.started == {"i-3": "worker-3"} and one.launched["i-3"].at == 1_000_000.0


def test_an_instance_that_ec2_has_forgotten_has_ended(clock, monkeypatch):
    """After an hour, in which this computer slept. One answer without it proves nothing."""
    one = fleet(Ec2(["i-1"]))
    one.launch("worker", "worker-0", lambda: "user data").result()
    states = {"i-1": "running"}
    monkeypatch.setattr(launcher.teardown, "states", lambda aws, ids: states)
    assert one.ended() == set()
    for seconds in (0, 5, 20):
        states = {}
        clock.at += seconds
        assert one.ended() == set()
    states = {"i-1": "running"}
    assert one.ended() == set()
    states, clock.at = {}, clock.at + 7200
    assert one.ended() == set()
    clock.at += 30
    assert one.ended() == {"i-1"} and one.launched["i-1"].ended == one.deadline, "and is not billed any longer"


def test_no_staging_is_no_bucket():
    """Packages are never sent to whoever may have a bucket of this name."""
    with pytest.raises(UsageError, match="get their packages through a bucket, and none is given"):
        archive_of(ClusterSpec.of(staging=NO_STAGING), "x86_64")
    with pytest.raises(ParamValidationError):  # which botocore raises before a request
        validate_bucket_name({"Bucket": NO_STAGING.removeprefix("s3://")})


@pytest.mark.parametrize(
    ("left", "ended"), [((), {"i-1", "i-2"}), (("sg-1",), {"i-1", "i-2"}), (("i-2",), {"i-1"}), (("some",), set())]
)
def test_which_instances_have_ended(clock, monkeypatch, left, ended):
    one = fleet(Ec2(["i-1", "i-2"]))
    for name in ("worker-0", "worker-1"):
        one.launch("worker", name, lambda: "user data").result()
    monkeypatch.setattr(launcher.teardown, "end", lambda *args, **options: launcher.teardown.Ending(2, 2, left))
    one.end()
    assert {id for id, launched in one.launched.items() if launched.ended} == ended
