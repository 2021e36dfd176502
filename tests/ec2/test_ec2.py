"""EC2 in rehearsal: runs, notebooks, clusters that stay, and what is asked of AWS."""

import inspect
import json
import re
import subprocess
import time
from collections import Counter
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError
from rehearse import IMAGE, PRIVATE_IMAGE, REGION

from dask_classifier.cli import options
from dask_classifier.cluster import EC2Cluster
from dask_classifier.ec2 import boot, doctor, placement, reasons, teardown
from dask_classifier.ec2.announcement import _credentials_end
from dask_classifier.ec2.aws import Aws
from dask_classifier.ec2.launcher import Fleet
from dask_classifier.ec2.placement import Offer, Placement
from dask_classifier.ec2.spec import ONLY_WITHOUT_IMAGE, ClusterSpec, spec_of
from dask_classifier.engine.instances import InstanceCluster, OtherCluster
from dask_classifier.errors import ClusterError, UsageError


def spec(**options):
    return ClusterSpec.of(**{"image": IMAGE} | options)


# --- a run -------------------------------------------------------------------------------------------


def test_the_very_same_command_runs_on_ec2_and_gives_the_same_bytes(ec2, profile, command):
    """With `cluster: ec2` and `output:` in the configuration, as root of a private image, with a profile."""
    configured = {"DASK_CLASSIFIER__OUTPUT": "s3://bucket/main", "DASK_CLASSIFIER__SLOWNESS": "1"}
    options = ["--image", PRIVATE_IMAGE, "--instance-profile", profile, "--tag", "team=data & more"]
    options += ["--log-json", str(ec2.folder / "events.jsonl")]
    done = ec2.command("--rows", "20k", "--workers", "2", *options, "--json", check=0, **configured)
    assert re.search(r"rows of worker-0 on \S+ +[\d,]+", done.stderr_text)
    assert re.search(r"rows of worker-1 on \S+ +[\d,]+", done.stderr_text)
    assert "Starting 2 on-demand c7i.large with 2 processes each, and a t3.small" in done.stderr_text
    assert "Started 3 instances, 3 terminated" in done.stderr_text
    assert len(ec2.events("boot")) == 3 and not ec2.remains()
    stored = ec2.client("s3").get_object(Bucket="bucket", Key="main/manifest.json")["Body"].read()
    assert {"started": 3, "terminated": 3, "left": []}.items() <= json.loads(stored)["machines"].items()
    page = ec2.client("s3").get_object(Bucket="bucket", Key="main/report.html")["Body"].read().decode()
    assert "3 started, 3 terminated" in page and "starting machines" in page
    proven = ec2.command("verify", "s3://bucket/main", "--json", check=0)
    command("--rows", "20k", "--slowness", "1", "--output", "here", check=0)
    here = command("verify", "here", "--json", check=0)
    assert json.loads(proven.stdout_text)["sha256"] == json.loads(here.stdout)["sha256"]
    _check_machines(ec2, profile)
    events = [json.loads(line) for line in (ec2.folder / "events.jsonl").read_text().splitlines()]
    instances = [event for event in events if event["event"] == "instance"]
    states = Counter((event["id"], event["state"]) for event in instances)
    booted = {event["id"] for event in ec2.events("boot")}
    assert states == Counter({(id, state): 1 for id in booted for state in ("launched", "ended")})
    kinds = {(event["name"], event["type"], event["market"]) for event in instances}
    assert kinds == {
        ("scheduler", "t3.small", "on-demand"),
        ("worker-0", "c7i.large", "on-demand"),
        ("worker-1", "c7i.large", "on-demand"),
    }


def _check_machines(ec2, profile):
    """What the machines of a run were, and what they knew."""
    mine = {event["id"] for event in ec2.events("boot")}
    for told in (each for each in ec2.instances() if each["InstanceId"] in mine):
        tags = {each["Key"]: each["Value"] for each in told["Tags"]}
        assert tags["team"] == "data & more" and tags["dask-classify:deadline"] > "2026"
        machine = ec2.folder / told["InstanceId"]
        user_data = (machine / "boothook").read_text()
        assert len(user_data) < 5_500
        for secret in ("testing", "AWS_SECRET", "s3://bucket"):
            assert secret not in user_data
        assert (machine / "logins").read_text() == "123456789012.dkr.ecr.us-east-1.amazonaws.com\n"
        off, off_for_sure = map(int, (machine / "timers").read_text().split())
        assert 7_100 < off <= 7_200 and off_for_sure == off + 120  # the deadline is two hours after the launch
        ran = json.loads((machine / "docker.json").read_text())
        assert "AWS_SECRET_ACCESS_KEY" not in ran["environment"]
        if "distributed.cli.dask_worker" in ran["command"]:
            assert ran["command"][ran["command"].index("--nthreads") + 1] == "2"  # c7i.large
            assert re.match(r"tls://127\.\d+\.", ran["command"][3])
    assert {each["profile"] for each in ec2.events("call", call="RunInstances")} == {profile}


def test_plan_says_machines_price_time_and_cost_and_starts_nothing(ec2):
    words = ["plan", "--rows", "10M", "--workers", "16", "--output", "s3://bucket/planned"]
    done = ec2.command(*words, "--json", check=0)
    told = json.loads(done.stdout_text)
    assert (told["instances"], told["instance_type"], told["market"]) == (16, "c7i.large", "on-demand")
    assert (told["scheduler_instance_type"], told["region"], told["processes"]) == ("t3.small", "us-east-1", 32)
    assert 1.4 < told["dollars_per_hour"] < 1.7, "16 instances at 0.089 $ and one at 0.021 $, disks, addresses"
    assert "a table of" in told["price_source"]
    here, there = told["options"]
    assert (here["where"], there["where"], there["instances"], there["processes"]) == ("local", "ec2", 16, 32)
    assert there["dollars"] == pytest.approx(told["dollars_per_hour"] * there["seconds"]["mid"] / 3600)
    assert not ec2.events("call", call="RunInstances") and not ec2.events("call", call="CreateSecurityGroup")
    assert not ec2.client("s3").list_objects_v2(Bucket="bucket", Prefix="planned").get("Contents")


def test_a_complete_run_is_not_paid_for_again(ec2):
    ec2.command("--rows", "300", "--cluster", "inline", "--slowness", "1", "--output", "s3://bucket/again", check=0)
    done = ec2.command("--rows", "300", "--slowness", "1", "--output", "s3://bucket/again", "--resume", check=0)
    assert "is already complete" in done.stderr_text
    done = ec2.command("--rows", "300", "--slowness", "1", "--output", "s3://bucket/again", check=2)
    assert "already contains" in done.stderr_text
    assert not ec2.events("call", call="RunInstances")


def test_from_within_the_vpc_machines_need_no_public_address(ec2):
    words = ["--rows", "300", "--slowness", "1", "--output", "s3://bucket/private", "--private-ip", "--workers", "1"]
    done = ec2.command(*words, check=0, REHEARSAL_ADDRESS=f"127.{ec2.net}.200.1")
    assert f"dashboard: http://127.{ec2.net}." in done.stderr_text
    mine = {event["id"] for event in ec2.events("boot")}
    assert len(mine) == 2
    assert not any(each.get("PublicIpAddress") for each in ec2.instances() if each["InstanceId"] in mine)


# --- Python --------------------------------------------------------------------------------------------

NOTEBOOK = """
import copy, logging, time, urllib.request
import dask, distributed
import dask_classifier as dc

dask.config.set({"user.password": "hunter2", "distributed.comm.tls.ca-file": None})
dc.EC2Cluster  # its import adds defaults of its own
before = copy.deepcopy(dask.config.config)
plan = dc.plan(rows=400, slowness=1, output="s3://bucket/notebook")
with dc.EC2Cluster(workers=2, bring_up_limit="1m", processes_per_worker=1) as cluster:
    result = dc.run(plan, cluster)
    assert dask.config.config == before
    assert len(result.head(3)) == 3
    page = urllib.request.urlopen(cluster.dashboard_link.replace("/status", "/classify")).read()
    assert b'href="classify"' in page, "our page, and its place in the menu"
    with distributed.Client(cluster) as client:
        client.wait_for_workers(2)
        assert client.submit(lambda x: x + 1, 1).result(30) == 2
        names = {each["name"] for each in client.scheduler_info(n_workers=-1)["workers"].values()}
        assert cluster.plan == cluster.requested == cluster.observed == names, (cluster.plan, cluster.requested, names)
        cluster.scale(3)
        client.wait_for_workers(3, timeout=300)
        cluster.scale(1)
        until = time.monotonic() + 300
        while len(cluster.fleet.instances()) - len(cluster.fleet.ended()) > 2 or len(cluster.observed) > 1:
            assert time.monotonic() < until
            time.sleep(0.2)
        assert cluster.plan == cluster.requested == cluster.observed
assert dask.config.config == before
print(cluster.ending)
with dc.LocalCluster(1, dashboard_address="127.0.0.1:0") as local:
    assert not local.scheduler_address.startswith("tls")
assert dc.open_run("s3://bucket/notebook").manifest["machines"]["terminated"] == 4
"""


def test_the_notebook_spelling_and_what_dask_users_expect(ec2):
    done = ec2.python(NOTEBOOK)
    assert "started 4 instances, 4 terminated" in done.stdout_text
    for event in ec2.events("boot"):
        text = (ec2.folder / event["id"] / "boothook").read_text()
        assert "hunter2" not in text
        config = re.search(r"DASK_INTERNAL_INHERIT_CONFIG='?([\w=+/-]+)", text)[1]
        import dask.config

        assert "password" not in json.dumps(dask.config.deserialize(config))


# --- clusters that stay ----------------------------------------------------------------------------------


def test_up_run_resize_run_down(ec2):
    wrong = ec2.command("up", "--name", "mine", "--key-name", "nobodys", check=4)
    assert "InvalidKeyPair" in wrong.stderr_text and not ec2.remains()
    ec2.client("ec2").create_key_pair(KeyName="key")
    options = ["--workers", "1", "--processes-per-worker", "1", "--key-name", "key"]
    up = ec2.command("up", "--name", "mine", *options, check=0)
    _check_who_may_come_in(ec2)
    assert "Cluster mine: 1 worker at tls://" in up.stderr_text and "It costs money (" in up.stderr_text
    kept = ec2.folder / ".local/state/dask-classify/clusters/mine.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert len(ec2.running()) == 2
    first = ec2.command(
        "--rows", "300", "--slowness", "1", "--cluster", "mine", "--output", "s3://bucket/stay1", check=0
    )
    assert "rows in" in first.stderr_text and len(ec2.running()) == 2
    second = ec2.command("up", "--name", "mine", "--workers", "2", check=0, DASK_CLASSIFIER__IMAGE="")
    assert "Starting 1 instance more; the cluster then costs about $" in second.stderr_text
    assert "2 workers" in second.stderr_text and len(ec2.running(role="worker")) == 2
    told = json.loads(ec2.command("status", "--json", check=0).stdout_text)
    assert sorted(each["worker"] for each in told["instances"]) == ["scheduler", "worker-0", "worker-1"]
    assert {each["name"] for each in told["instances"]} == {"mine"}
    other = ec2.command("up", "--name", "mine", "--instance-type", "c5.large", check=2)
    assert "is already running, with another --instance-type" in other.stderr_text
    assert "Nothing to terminate" in ec2.command("reap", "--yes", check=0).stdout_text  # it is no leak
    ec2.command("up", "--name", "mine", "--workers", "1", check=0)
    assert len(ec2.running(role="worker")) == 1
    ec2.command(
        "up", "--name", "mine", "--workers", "2", check=0, AWS_DEFAULT_REGION="eu-west-1"
    )  # it keeps its region
    assert len(ec2.running(role="worker")) == 2  # another machine of the same name, not the old one again
    ec2.command("down", "--name", "mine", check=0)
    assert not ec2.remains() and not kept.exists()
    gone = ec2.command("--rows", "300", "--cluster", "mine", "--output", "s3://bucket/stay2", check=2)
    assert "'mine' is not a cluster" in gone.stderr_text


def _check_who_may_come_in(ec2):
    """The caller's address alone, and the group itself, as the rules of EC2 say and as connects go."""
    groups = ec2.client("ec2").describe_security_groups()["SecurityGroups"]
    (group,) = [each for each in groups if each["GroupName"] != "default"]
    rules = group["IpPermissions"]
    open_to = {
        (rule.get("FromPort"), rule.get("ToPort"), each["CidrIp"]) for rule in rules for each in rule["IpRanges"]
    }
    assert open_to == {(8786, 8787, "127.0.0.1/32"), (22, 22, "127.0.0.1/32")}
    assert [each["GroupId"] for rule in rules for each in rule["UserIdGroupPairs"]] == [group["GroupId"]]
    (boss,) = ec2.instances("running", role="scheduler")
    connect = f"import socket; socket.create_connection(({boss['PublicIpAddress']!r}, 8787), 3); print('in')"
    assert "in" in ec2.python(connect).stdout_text
    stranger = ec2.python(connect, check=1, REHEARSAL_CLIENT="127.0.0.9")
    assert "a security group drops" in stranger.stderr_text


# --- what is asked of AWS ----------------------------------------------------------------------------------


def test_a_default_type_that_the_region_lacks_is_passed_over():
    """Of the types that nobody typed; one that was typed must be there."""

    class Region:
        """EC2's answers, of a region without c7i."""

        region, ec2 = REGION, property(lambda self: self)

        def get_paginator(self, call):
            return self

        def paginate(self, Filters):
            x86 = {"SupportedArchitectures": ["x86_64"]}
            names = [name for name in Filters[0]["Values"] if not name.startswith("c7i")]
            return [{"InstanceTypes": [
                {"InstanceType": name, "ProcessorInfo": x86, "VCpuInfo": {"DefaultVCpus": 2}} for name in names
            ]}]  # fmt: skip

    vcpus, architecture = placement._types(Region(), spec())
    assert sorted(vcpus) == ["c5.large", "c6i.large"] and architecture == "x86_64"
    with pytest.raises(ClusterError, match=r"c7i\.4xlarge is not available"):
        placement._types(Region(), spec(instance_type="c7i.4xlarge,c6i.4xlarge"))


class NoAws:
    region = REGION

    def client(self, *args, **config):
        return None


def request(offer=None, **options):
    here = Placement("vpc-1", "ami-1", "/dev/xvda", "x86_64", {}, {}, "192.0.2.1/32")
    fleet = Fleet(NoAws(), spec(**options), here, "an-id", print)
    fleet.group_ids = ["sg-1"]
    return fleet.request(
        "worker", "worker-0", "#!/bin/sh", offer or Offer("on-demand", "c7i.large", "subnet-1", "a"), "t"
    )


def test_each_machine_is_encrypted_has_imdsv2_and_ends_when_it_shuts_down():
    asked = request(tag=["team=data"], key_name="mine", instance_profile="classify")
    assert asked["MetadataOptions"]["HttpTokens"] == "required"
    (disk,) = asked["BlockDeviceMappings"]
    assert disk["DeviceName"] == "/dev/xvda" and disk["Ebs"]["Encrypted"] and disk["Ebs"]["DeleteOnTermination"]
    assert asked["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert asked["NetworkInterfaces"][0]["AssociatePublicIpAddress"] is True
    assert asked["KeyName"] == "mine" and asked["IamInstanceProfile"] == {"Name": "classify"} and asked["ClientToken"]
    tags = {each["Key"]: each["Value"] for each in asked["TagSpecifications"][0]["Tags"]}
    assert tags["team"] == "data" and tags[teardown.CLUSTER] == "an-id" and teardown.CLIENT in tags


def test_private_addresses_spot_and_profiles_by_arn():
    asked = request(
        Offer("spot", "c7i.large", "subnet-1", "a"),
        private_ip=True,
        instance_profile="arn:aws:iam::123456789012:instance-profile/x",
    )
    assert asked["NetworkInterfaces"][0]["AssociatePublicIpAddress"] is False
    assert asked["InstanceMarketOptions"]["MarketType"] == "spot"
    assert asked["IamInstanceProfile"] == {"Arn": "arn:aws:iam::123456789012:instance-profile/x"}


def test_user_data_quotes_words_and_stays_far_under_the_limit():
    own = boot.tls(days=1)
    config = boot.config(own, "worker", {})
    assert "scheduler" not in config["distributed"]["comm"]["tls"]  # the worker's role alone
    text = boot.boot_script(
        title="t", launched=1e9, deadline=2e9, image="a/b:1", command=["x", "a b; rm", "$(nproc)"], config=config,
        environment={"E": "it's"}, region=REGION,
    )  # fmt: skip
    assert "launched=1000000000 deadline=2000000000" in text and "'a b; rm' \"$(nproc)\"" in text and "E=it" in text
    assert len(text.encode()) < boot.USER_DATA_LIMIT / 3
    with pytest.raises(UsageError, match="EC2 allows 16,384"):
        boot.boot_script(
            title="t" * 17_000, launched=1e9, deadline=2e9, image="a/b:1", command=[], config=config, environment={},
            region=REGION,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"image": ""}, "Without an image, instances get their packages through a bucket, and none is given"),
        ({"image": "", "staging": "here"}, "Instances cannot read here"),
        ({"image": "", "staging": "gs://b/c"}, "Instances cannot read gs://b/c"),
        (
            {"image": "", "staging": "s3://b/c", "index_url": "https://me:secret@host/simple"},
            "is not the URL of an index",
        ),
        ({"image": "", "staging": "s3://b/c", "base_image": "a b"}, "is not a valid base image"),
        ({"image": "a b; rm -rf /"}, "is not a valid image"),
        ({"workers": 2, "min_workers": 3}, "min_workers=3"),
        ({"deadline": "5m"}, "not after the bring-up limit"),
        ({"deadline": "soon"}, "'soon' is not a deadline"),
        ({"tag": ["team"]}, "'team' is not a tag"),
        ({"tag": {"aws:x": "y"}}, "cannot be the name of a tag"),
        ({"subnet": "vpc-1"}, "is not a valid subnet"),
        ({"instance_type": "large"}, "is not a valid instance type"),
        ({"instance_type": "c7i.large;x"}, "is not a valid instance type"),
        ({"processes_per_worker": 0}, "too few"),
        ({"worker": 3}, "no option worker"),
    ],
)
def test_wrong_options_start_nothing(options, text):
    with pytest.raises(UsageError, match=re.escape(text)):
        spec(**options)


def test_dasks_name_for_the_number_of_workers():
    assert spec_of(None, {"image": IMAGE, "n_workers": 3}).workers == 3


@pytest.mark.parametrize("option", [{"wheels": True}, {"base_image": "a/python:3"}, {"requirements": ["click"]}])
def test_an_option_that_an_image_makes_useless(option):
    with pytest.raises(UsageError, match="has no effect with an image"):
        spec_of(None, {"image": IMAGE} | option)


def test_an_ec2_cluster_has_what_a_run_asks_of_its_instances():
    """The members of the Protocol, with the same parameters."""
    members = {name: member for name, member in vars(InstanceCluster).items() if name[0] != "_"}
    assert len(members) == 12
    for kind in (EC2Cluster, OtherCluster):
        for name, member in members.items():
            if inspect.isfunction(member):
                asked, given = (list(inspect.signature(each).parameters) for each in (member, getattr(kind, name)))
                assert asked == given, name
            else:
                assert hasattr(kind, name), name


@pytest.mark.parametrize(("idle", "began"), [(5, 1000.0), (90, None)])
def test_the_first_run_has_the_start_of_the_instances_however_long_its_workers_take(idle, began, monkeypatch):
    """A run that begins a few seconds after the scheduler is up, and then waits some minutes for its workers."""
    clock = [2000.0]
    monkeypatch.setattr("dask_classifier.cluster.time", SimpleNamespace(time=lambda: clock[0], sleep=lambda _: None))
    cluster = object.__new__(EC2Cluster)
    cluster.spec, cluster.stays, cluster.worker_spec = spec(), False, {"worker-0": None}
    cluster._up, cluster._launch_began = clock[0], 1000.0
    cluster.check_bring_up = lambda what: clock.__setitem__(0, clock[0] + 200)
    run_began = clock[0] = clock[0] + idle
    workers = iter([{}, {"worker-0": None}])
    cluster.wait_for_first_workers(SimpleNamespace(scheduler_info=lambda n_workers: {"workers": next(workers)}))
    assert cluster.take_began(run_began) == began and cluster.take_began(run_began) is None


def test_the_options_that_an_image_makes_useless_are_the_same_in_both_places():
    """The command knows them without importing anything of AWS."""
    assert sorted(options.ONLY_WITHOUT_IMAGE) == sorted(ONLY_WITHOUT_IMAGE)


def test_options_are_words_as_people_type_them():
    made = spec(instance_type="c7i.4xlarge, c6i.4xlarge", deadline="90m", tag=["a=b=c"], subnet=["subnet-1,subnet-2"])
    assert made.instance_type == ("c7i.4xlarge", "c6i.4xlarge") and made.deadline == 5400
    assert made.tag == {"a": "b=c"} and made.subnet == ("subnet-1", "subnet-2")
    assert made.idle_timeout >= max(600, made.bring_up_limit)


# --- network and capacity, without Dask -----------------------------------------------------------------

FLEET = """
import json
import dask_classifier.ec2.launcher
from dask_classifier.ec2.placement import find_placement
from dask_classifier.ec2.aws import Aws
from dask_classifier.errors import ClusterError
from dask_classifier.ec2.announcement import _credentials_end
from dask_classifier.ec2.aws import Aws
from dask_classifier.ec2.launcher import Fleet
from dask_classifier.ec2.spec import ClusterSpec

options = json.load(open("fleet.json"))
name, fleets = options.pop("name"), options.pop("fleets", 1)
dask_classifier.ec2.launcher._BUSY_SECONDS = options.pop("busy_seconds", 30)
spec = ClusterSpec.of(image="a/b:1", teardown_limit=30, **options)
aws = Aws()
here = find_placement(aws, spec)
for number in range(fleets):
    fleet = Fleet(aws, spec, here, f"{name}-{number}", print)
    fleet.open_group()
    told = []
    for role, node in [("scheduler", "scheduler"), ("worker", "worker-0"), ("worker", "worker-1")]:
        try:
            fleet.launch(role, node, lambda: "#cloud-boothook\\n#!/bin/sh\\nsleep 60").result()
            told.append("had")
        except ClusterError as error:
            told.append(error.message)
    print(json.dumps([told, str(fleet.end())]))
"""


def fleets(ec2, faults, settings=None, **options):
    """Clusters of three launches, one after the other, and their ends: what became of each; the offers tried."""
    ec2.settings(faults=faults, boot_seconds=60, **settings or {})
    (ec2.folder / "fleet.json").write_text(json.dumps({"name": f"f{time.time_ns()}", **options}))
    said = [json.loads(line) for line in ec2.python(FLEET).stdout_text.splitlines() if line.startswith("[")]
    tried = [*ec2.events("call", call="RunInstances"), *ec2.events("fault", call="RunInstances")]
    tried.sort(key=lambda event: event["at"])
    return said, [(each["market"], each["type"], each["zone"]) for each in tried]


CAPACITY = [
    "InsufficientInstanceCapacity",
    "VcpuLimitExceeded",
    "RequestLimitExceeded",
    "UnfulfillableCapacity",
    "InsufficientFreeAddressesInSubnet",
    "InstanceLimitExceeded",
    "Unsupported",
]
HAD = [["had", "had", "had"], "started 3 instances, 3 terminated"]


@pytest.mark.parametrize(
    "code", [*CAPACITY[:4], *(pytest.param(code, marks=pytest.mark.slow) for code in CAPACITY[4:])]
)
def test_each_launch_in_turn_fails_and_the_next_offer_is_had(ec2, code):
    """The first launch of the first cluster, the second of the second, the third of the third."""
    failing = [1, 6, 11]
    faults = [{"call": "RunInstances", "code": code, "from": number, "to": number} for number in failing]
    said, tried = fleets(ec2, faults, fleets=3)
    assert said == [HAD, HAD, HAD] and len(tried) == 12
    assert len(ec2.events("fault", code=code)) == 3 and not ec2.remains()
    for number in failing:
        same_again = tried[number] == tried[number - 1]
        assert same_again == (code == "RequestLimitExceeded"), tried  # busy, not full


def test_zones_then_types_then_the_dearer_market(ec2):
    faults = [
        {"call": "RunInstances", "code": "InsufficientInstanceCapacity", "market": "spot"},
        {"call": "RunInstances", "code": "InsufficientInstanceCapacity", "type": "c7i.large"},
    ]
    said, tried = fleets(ec2, faults, spot=True, instance_type="c7i.large,c6i.large")
    assert said == [HAD]
    printed = ec2.python(FLEET).stdout_text
    note = r"EC2 has no spot c7i\.large now: on-demand c6i\.large instead, about \$0\.\d+ per hour \(.*\) each\."
    assert len(re.findall(note, printed)) == 1 and json.loads(printed.splitlines()[-1]) == HAD
    first = [offer for offer in tried if offer[1].startswith("c")][:-1]  # worker-1 does not try again what was refused
    assert [(market, kind) for market, kind, _ in first[::5]] == [
        ("spot", "c7i.large"), ("spot", "c6i.large"), ("on-demand", "c7i.large"), ("on-demand", "c6i.large"),
    ]  # fmt: skip
    assert len({zone for _, _, zone in first[:5]}) == 5  # us-east-1e has none of them
    assert len(first) == 16


def test_no_capacity_at_all_is_said_with_amazons_words(ec2):
    [[told, ending]], _ = fleets(ec2, [{"call": "RunInstances", "code": "InsufficientInstanceCapacity", "from": 2}])
    assert told[0] == "had" and "no capacity for worker-0" in told[1] and "InsufficientInstanceCapacity" in told[1]
    assert "started 1 instance, 1 terminated" in ending


def test_instances_that_appear_late_and_end_slowly(ec2):
    said, _ = fleets(ec2, [], {"appear_seconds": 2, "terminate_seconds": 1})
    assert said == [HAD] and not ec2.remains()
    ends = ec2.events("call", call="TerminateInstances")
    gone = ec2.events("gone", why="shutting-down")
    assert len(gone) == 3 and ec2.events("hidden") and ends


@pytest.mark.parametrize(
    ("now", "up", "left"),
    [(1_100, 20, 2_900), (1_100 - 3_600, 20, 2_980), (1_100 + 3_600, 20, 2_980), (1_030, 3_100, 1)],
    ids=["right clock", "an hour slow", "an hour fast", "deadline over"],
)
def test_the_deadline_on_an_instance_whatever_its_clock_says(tmp_path, now, up, left):
    """Launched at 1,000, with a deadline at 4,000: on the clock, or if that cannot be right, since the boot."""
    for name, text in {
        "date": f"echo {now}",
        "cut": f"echo {up}",
        "systemd-run": f'echo "$*" >> {tmp_path}/log',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o700)
    script = tmp_path / "script"
    script.write_text(f"launched=1000 deadline=4000\n{boot._body()}")
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["/bin/sh", script, "set_deadline"], env=environment, check=True)
    timers = re.findall(r"--on-active=(\d+)", (tmp_path / "log").read_text())
    assert timers == [str(left), str(left + 120)]
    assert boot.DEADLINE_PASSED in script.read_text() and boot.CONTAINER_EXITED in script.read_text()


def test_an_instance_profile_that_was_just_created_is_waited_for(ec2):
    refusal = {
        "code": "InvalidParameterValue",
        "message": "Value (x) for parameter iamInstanceProfile.name is invalid. ",
    }
    refusal["message"] += "Invalid IAM Instance Profile name"
    said, _ = fleets(ec2, [{"call": "RunInstances", "to": 2} | refusal])
    assert said == [HAD] and len(ec2.events("fault")) == 2


def test_the_reason_on_a_console_is_that_of_our_own_lines():
    """A boot has errors of its own, and after the deadline the container complains."""
    lines = ["[    5.1] cloud-init[401]: locale: Cannot set LC_ALL: No such file or directory", "perl: error: nothing"]
    ours = "[   47.869516] dask-classify[456]: "
    console = "\n".join([*lines, f"{ours}docker: no space left on device.", *lines])
    assert reasons.last_errors(console) == "docker: no space left on device."
    console = "\n".join([*lines, f"{ours}INFO - all is well", f"{ours}the container exited with code 3", *lines])
    assert reasons.last_errors(console) == "the container exited with code 3"
    aws = FakeAws("\n".join([f"{ours}the deadline has passed", f"{ours}docker: unexpected EOF."]))
    assert reasons.why_ended(aws, ["i-1"]) == (": the deadline has passed", "Give the run more time with --deadline.")


@pytest.mark.parametrize(
    ("ends", "hours", "words"),
    [(36, 48, "expire at"), (36, 30, None), (1, 2, "expire at"), (3, 2, None), (None, 2, "may expire in a long run")],
)
def test_credentials_that_expire_before_the_deadline_are_announced(ends, hours, words):
    """Of a user, for 36 hours; of a role, or SSO; of a session whose end nobody knows."""
    now = time.time()
    aws = SimpleNamespace(credentials_end=lambda: ends and now + 3600 * ends)
    told = list(_credentials_end(SimpleNamespace(aws=aws, deadline=now + 3600 * hours)))
    assert len(told) == bool(words) and all(words in line and "--instance-profile" in line for line in told)


def test_when_credentials_end(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    assert Aws("us-east-1").credentials_end() - time.time() == pytest.approx(36 * 3600, abs=60)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "c")
    assert Aws("us-east-1").credentials_end() is None
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", "2099-01-01T00:00:00Z")
    assert Aws("us-east-1").credentials_end() == pytest.approx(4070908800)


def test_the_package_that_was_altered_is_named():
    ours = "[   47.869516] dask-classify[456]: "
    lines = ["ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated them, ...",
             "    six==1.16.0 from http://host/six.whl (from -r requirements.txt (line 5)):",
             "        Expected sha256 aa", "             Got        bb",
             "ERROR: the packages could not be installed, with exit code 1"]  # fmt: skip
    reason, hint = reasons.why_ended(FakeAws("\n".join(f"{ours}{line}" for line in lines)), ["i-1"])
    assert "six==1.16.0 from http://host/six.whl" in reason and "could not be installed" in reason
    assert hint.startswith("Check --requirements")
    altered = FakeAws(f"{ours}ERROR: the packages in the bucket were altered: their SHA-256 is x")
    reason, hint = reasons.why_ended(altered, ["i-1"])
    assert "were altered" in reason and hint.startswith("Delete environment-*.zip there")


class FakeAws:
    """The console of an instance that has shut itself down."""

    def __init__(self, text):
        self.text, self.ec2, self.region = text, self, "us-east-1"

    def get_console_output(self, **options):
        return {"Output": self.text}

    def get_paginator(self, call):
        state = {"InstanceId": "i-1", "StateReason": {"Code": "Client.InstanceInitiatedShutdown", "Message": "m"}}
        return SimpleNamespace(paginate=lambda **options: [{"Reservations": [{"Instances": [state]}]}])


def test_an_answer_that_was_lost_starts_nothing_twice(ec2):
    before = {each["InstanceId"] for each in ec2.instances()}
    said, tried = fleets(ec2, [], {"lose_answers": 1})
    assert said == [HAD] and tried[0] == tried[1] and len(tried) == 4
    # EC2's own list, which has ended ones, too: a machine may end before it boots
    assert len({each["InstanceId"] for each in ec2.instances()} - before) == 3


def test_instances_whose_launch_was_never_answered_are_found_by_their_tag(ec2):
    said, _ = fleets(ec2, [], {"lose_answers": 9, "appear_seconds": 1}, busy_seconds=0)
    [[told, ending]] = said
    assert "InternalError" in told[0] and ending == "started 3 instances, 3 terminated"
    assert not ec2.remains()


@pytest.mark.parametrize(("limit", "ok"), [(34.0, True), (33.0, False)])
def test_the_quota_is_compared_with_what_a_run_needs(limit, ok):
    """Sixteen workers of two vCPUs, and a scheduler of two."""
    client = SimpleNamespace(get_service_quota=lambda **asked: {"Quota": {"Value": limit}})
    kinds = {"worker": "c7i.large", "scheduler": "t3.small"}
    offers = {role: [Offer("on-demand", kind, "subnet-1", "us-east-1a")] for role, kind in kinds.items()}
    here = Placement("vpc-1", "ami-1", "/dev/xvda", "x86_64", {"c7i.large": 2, "t3.small": 2}, offers, "192.0.2.1/32")
    found = doctor._quota(SimpleNamespace(client=lambda name: client), spec(workers=16), here)
    assert found.good == ok and "34" in found.text and f"{limit:.0f}" in found.text


# --- doctor ----------------------------------------------------------------------------------------------


def test_doctor_finds_everything_right(ec2, profile):
    done = ec2.command("doctor", "--output", "s3://bucket/run", "--workers", "2", check=0)
    lines = done.stdout_text.splitlines()
    for what in ("region", "credentials", "clock", "network and instances", "instance profile", "launch", "output"):
        assert any(re.match(rf"ok +{what}: ", line) for line in lines), (what, done.stdout_text)
    assert re.search(r"user data of [45],\d{3} bytes", done.stdout_text) and not ec2.events(
        "call", call="CreateSecurityGroup"
    )
    assert not ec2.client("s3").list_objects_v2(Bucket="bucket", Prefix="run/").get("Contents")


@pytest.mark.parametrize(
    ("options", "environment", "text"),
    [
        (["--output", "s3://nowhere/x"], {}, "wrong output: "),
        (["--output", "file:///tmp/runs"], {}, "wrong output: file:///tmp/runs is on this computer"),
        (["--output", "memory://runs"], {}, "wrong output: memory://runs is on this computer"),
        (["--scheduler-instance-type", "t3.smal"], {}, "wrong network and instances: Instance type t3.smal is not"),
        (["--instance-profile", "nobody"], {}, "wrong instance profile: "),
        (["--ami", "ami-0000000000000000f"], {}, "wrong network and instances: "),
        ([], {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "wrong credentials: "),
        ([], {"DASK_CLASSIFIER__IMAGE": PRIVATE_IMAGE}, "wrong image: "),
    ],
)
def test_doctor_says_what_is_wrong_and_what_to_do(ec2, options, environment, text):
    done = ec2.command("doctor", *options, check=1, **environment)
    assert text in re.sub(" +", " ", done.stdout_text), done.stdout_text
    assert "A run would fail" in done.stderr_text


def test_doctor_prints_policies(ec2):
    done = ec2.command("doctor", "--policy", "--output", "s3://b/c", "--instance-profile", "p", check=0)
    policies = json.loads(done.stdout_text)
    actions = [
        action for part in policies["caller"]["Statement"] for action in [part["Action"]] if isinstance(action, str)
    ]
    assert "iam:PassRole" in actions and set(policies) == {"caller", "machines"}
    assert "arn:aws:s3:::b/c/*" in done.stdout_text


def test_the_rehearsal_refuses_what_ec2_refuses(ec2):
    """The limit of the user data, a group in use, a key pair that is not there."""
    client = ec2.client("ec2")
    with pytest.raises(ClientError, match="limited to 16384 bytes"):
        client.run_instances(
            ImageId="ami-1", MinCount=1, MaxCount=1, InstanceType="c7i.large", UserData="#!" + "x" * 16_383
        )
