"""The instances of one cluster: started where there is capacity, watched, and ended together."""

import contextlib
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ..errors import ClusterError, Stopped
from . import owners, teardown
from .aws import Aws, code_of, explain, explained, hint_for, is_passing, is_unanswered
from .placement import Ground, Offer
from .spec import ClusterSpec

_AT_A_TIME = 8  # launches; EC2 lets an account start a few a second
_TRIES = 8  # of one launch, when AWS is busy
_CONSOLE_LINES = 3
_WRONG = re.compile(r"docker: |\w*(Error|Exception)\b|\berror:|\bERROR\b|denied|not found|No such|Killed|Out of memory")

# What an error of RunInstances rules out.
_NOT_HERE = (
    "InsufficientInstanceCapacity",
    "InsufficientHostCapacity",
    "InsufficientReservedInstanceCapacity",
    "ReservationCapacityExceeded",
    "UnfulfillableCapacity",
    "SpotMaxPriceTooLow",
    "Unsupported",
)
_NO_SUBNET = ("InsufficientFreeAddressesInSubnet", "InsufficientAddressCapacity")
_NO_MORE = ("VcpuLimitExceeded", "InstanceLimitExceeded", "MaxSpotInstanceCountExceeded", "InsufficientCapacity")

_NO_REASON = ("Client.InstanceInitiatedShutdown", "Client.UserInitiatedShutdown")  # the console knows more
_IMAGE_HINT = (
    "Can the image be pulled, and does it run? `dask-classify doctor` looks; the instance's own log: "
    "aws ec2 get-console-output --latest --output text --instance-id "
)
_REASON_HINT = "AWS's documentation, 'Troubleshoot instance launch issues', explains the code."

_ADDRESSES = {"PublicIpAddress": "public address", "PrivateIpAddress": "private address"}


class Fleet:
    """Starts instances, each in a thread, until `stop`; `end` leaves nothing of them."""

    aws: Aws
    spec: ClusterSpec
    ground: Ground
    cluster: str  # its id
    say: Callable[[str], None]
    deadline: float  # seconds since 1970
    group_ids: list[str]  # security groups

    def __init__(self, aws: Aws, spec: ClusterSpec, ground: Ground, cluster: str, say: Callable[[str], None]):
        self.aws, self.spec, self.ground, self.cluster, self.say = aws, spec, ground, cluster, say
        self.deadline = time.time() + spec.deadline
        self.started: dict[str, str] = {}  # instance id to name
        self.group_ids = list(spec.security_group)
        self._exhausted: set[Offer] = set()
        self._own_groups: list[str] = []
        self._seen: set[str] = set()  # ids that EC2 has listed
        self._unsure = False  # whether there may be a group that we do not know
        self._unanswered: dict[str, str] = {}  # launches that may have happened: client token to name
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="dask-classify-launch")
        self._client = aws.client("ec2", retries={"mode": "standard", "total_max_attempts": 1})

    def adopt(self, deadline: float) -> list[teardown.Machine]:
        """Take over the instances of a cluster that runs. Raises ClusterError."""
        self.deadline = deadline
        self.group_ids = self.group_ids or [each.id for each in teardown.groups(self.aws, self.cluster)]
        found = self.machines()
        self.started = {each.id: each.worker for each in found}
        return found

    # --- starting ------------------------------------------------------------------------------

    def open_group(self) -> None:
        """A security group of the cluster's own: its machines, and the caller's address alone. Raises ClusterError.

        In a thread of the pool, so that `stop` waits for it, whatever interrupts the caller.
        """
        if not self.group_ids:
            self._pool.submit(self._make_group).result()

    def _make_group(self) -> None:
        self._unsure = True
        with explained("The security group cannot be made"):
            try:
                made = self.aws.ec2.create_security_group(
                    GroupName=f"dask-classify-{self.cluster}",
                    Description="Made by dask-classify for one cluster, and deleted with it",
                    VpcId=self.ground.vpc,
                    TagSpecifications=[{"ResourceType": "security-group", "Tags": self._tags("group", "")}],
                )["GroupId"]
            except ClientError as error:
                if code_of(error) != "InvalidGroup.Duplicate":  # a first answer that was lost
                    raise
                made = self._find_group()
        self._own_groups = self.group_ids = [made]
        self._unsure = False
        with explained("The security group cannot be opened"):
            self._open_ports(made)

    def _find_group(self) -> str:
        """The id of a group that was made, and that EC2 may list late. Raises ClusterError."""
        for attempt in range(_TRIES):
            if found := teardown.groups(self.aws, self.cluster):
                return found[0].id
            self._stopping.wait(min(0.5 * 2**attempt, 8))
        raise ClusterError(
            f"The security group dask-classify-{self.cluster} exists, but EC2 does not list it.",
            "Try again in a while.",
        )

    def _open_ports(self, group: str) -> None:
        ports = [(8786, 8787), *([(22, 22)] if self.spec.key_name else [])]
        caller = [{"CidrIp": self.ground.caller, "Description": "who started the cluster"}]
        rules = [{"IpProtocol": "tcp", "FromPort": a, "ToPort": b, "IpRanges": caller} for a, b in ports]
        itself = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
        for attempt in range(_TRIES):
            try:
                self.aws.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[*rules, itself])
                return
            except ClientError as error:
                if code_of(error) == "InvalidPermission.Duplicate":  # a first answer that was lost
                    return
                if code_of(error) != "InvalidGroup.NotFound" or attempt == _TRIES - 1:  # it may not be seen yet
                    raise
            self._stopping.wait(0.5 * 2**attempt)

    def launch(self, role: str, name: str, script: str) -> Future[dict[str, Any]]:
        """Start an instance in a thread: a Future of EC2's description. Its errors are ClusterError."""
        return self._pool.submit(self._launch, role, name, script)

    def _launch(self, role: str, name: str, script: str) -> dict[str, Any]:
        failure, token = None, uuid.uuid4().hex[:12]  # another machine of the same name has another token
        for number, offer in enumerate(self.ground.offers[role]):
            if offer in self._exhausted:
                continue
            try:
                found = self._start_one(role, name, script, offer, f"{self.cluster}-{name}-{token}-{number}"[:64])
            except ClientError as error:
                failure = error
                if not self._rule_out(offer, code_of(error)):
                    raise ClusterError(*explain(f"{name.capitalize()} cannot be started", error)) from error
                continue
            except BotoCoreError as error:
                with explained(f"{name.capitalize()} cannot be started"):
                    raise error
            self.started[found["InstanceId"]] = name
            return found
        what = f"There is no capacity for {name}"
        if failure:
            raise ClusterError(*explain(what, failure)) from failure
        raise ClusterError(
            f"{what}.", "EC2 refused each type and zone a moment ago: give more types, or another region."
        )

    def _start_one(self, role: str, name: str, script: str, offer: Offer, token: str) -> dict[str, Any]:
        """One RunInstances, repeated with the same token while AWS is busy: no instance starts twice."""
        request = self.request(role, name, script, offer, token)
        for attempt in range(_TRIES):
            if self._stopping.is_set():
                raise Stopped(f"{name.capitalize()} was not started.", "The cluster ends.")
            try:
                found = self._client.run_instances(**request)["Instances"][0]
                self._unanswered.pop(token, None)
                return found
            except (ClientError, BotoCoreError) as error:
                if is_unanswered(error):
                    self._unanswered[token] = name
                elif code_of(error) in (*_NOT_HERE, *_NO_SUBNET, *_NO_MORE):
                    self._unanswered.pop(token, None)  # no capacity for this token: it started nothing before
                if not is_passing(error) or attempt == _TRIES - 1:
                    raise
            self._stopping.wait(min(0.5 * 2**attempt, 8))
        raise AssertionError("unreachable")

    def request(self, role: str, name: str, script: str, offer: Offer, token: str) -> dict[str, Any]:
        """The arguments of RunInstances."""
        spec, ground = self.spec, self.ground
        disk = {"VolumeSize": ground.disk_gib, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}
        nic = {
            "DeviceIndex": 0,
            "SubnetId": offer.subnet,
            "Groups": self.group_ids,
            "AssociatePublicIpAddress": not spec.private_ip,
            "DeleteOnTermination": True,
        }
        tags = self._tags(role, name)
        wanted = {
            "ImageId": ground.ami,
            "InstanceType": offer.type,
            "MinCount": 1,
            "MaxCount": 1,
            "ClientToken": token,
            "UserData": script,
            "InstanceInitiatedShutdownBehavior": "terminate",  # so that `shutdown` ends the cost
            "NetworkInterfaces": [nic],
            "BlockDeviceMappings": [{"DeviceName": ground.root_device, "Ebs": disk}],
            # one hop: our container has the host's network
            "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled", "HttpPutResponseHopLimit": 1},
            "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")],
        }
        if spec.key_name:
            wanted["KeyName"] = spec.key_name
        if spec.instance_profile:
            kind = "Arn" if spec.instance_profile.startswith("arn:") else "Name"
            wanted["IamInstanceProfile"] = {kind: spec.instance_profile}
        if offer.market == "spot":
            wanted["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "one-time"}}
        return wanted

    def _tags(self, role: str, name: str) -> list[dict[str, str]]:
        tags = dict(self.spec.tag) | {
            "Name": f"dask-classify {self.spec.name or self.cluster} {name or role}",
            teardown.CLUSTER: self.cluster,
            teardown.ROLE: role,
            teardown.WORKER: name,
            teardown.DEADLINE: teardown.moment(self.deadline),
            teardown.CLIENT: owners.this_client(),
        }
        if role == "group":
            tags[teardown.CREATED] = teardown.moment(time.time())
        if self.spec.name:
            tags[teardown.NAME] = self.spec.name
        return [{"Key": key, "Value": value} for key, value in tags.items() if value]

    def _rule_out(self, offer: Offer, code: str) -> bool:
        """Remember what is not worth another try; False if the error is no question of capacity."""
        if code in _NO_SUBNET:
            alike = {each for each in self._offers() if each.subnet == offer.subnet}
        elif code in _NO_MORE:
            alike = {each for each in self._offers() if (each.market, each.type) == (offer.market, offer.type)}
        elif code in _NOT_HERE:
            alike = {offer}
        else:
            return False
        self._exhausted |= alike
        return True

    def _offers(self) -> set[Offer]:
        return {offer for found in self.ground.offers.values() for offer in found}

    def forget_exhausted(self) -> None:
        """There may be capacity again."""
        self._exhausted = set()

    # --- watching ------------------------------------------------------------------------------

    def machines(self) -> list[teardown.Machine]:
        """What EC2 lists of this cluster. Raises ClusterError."""
        found = teardown.machines(self.aws, self.cluster)
        self._seen |= {each.id for each in found}
        return found

    def ended(self) -> set[str]:
        """Ids of instances of which EC2 says that they end or have ended. Raises ClusterError."""
        told = teardown.states(self.aws, self.started)
        self._seen |= set(told)
        return {each for each, state in told.items() if state not in {"pending", "running"}}

    def with_address(self, instance: dict[str, Any], key: str) -> dict[str, Any]:
        """Wait until EC2 tells an instance's address (`key` of its description). Raises ClusterError."""
        until = time.monotonic() + self.spec.bring_up_limit
        while not instance.get(key):
            if self._stopping.wait(0.3):
                raise Stopped("The cluster ends.")
            if instance["State"]["Name"] in {"shutting-down", "terminated"}:
                raise ClusterError(
                    f"Instance {instance['InstanceId']} ended before it had a {_ADDRESSES[key]}.",
                    "Look for its state's reason in the AWS console, under EC2, Instances.",
                )
            if time.monotonic() > until:
                raise ClusterError(
                    f"Instance {instance['InstanceId']} got no {_ADDRESSES[key]}.", "Does its subnet give addresses?"
                )
            with contextlib.suppress(ClientError):  # a new instance may be unknown for some seconds
                found = self.aws.ec2.describe_instances(InstanceIds=[instance["InstanceId"]])
                instance = found["Reservations"][0]["Instances"][0]
        return instance

    def last_words(self, ids: Iterable[str] | None = None) -> tuple[str, str]:
        """Why one of the instances ended (all that did, if no ids are given), after a colon, or ""; and a hint."""
        told = [self._why_ended(each) for each in (self.ended() if ids is None else ids)]
        said, hint = next((each for each in told if each[0]), told[0] if told else ("", ""))
        return f": {said}" if said else "", hint

    def _why_ended(self, instance_id: str) -> tuple[str, str]:
        """EC2's reason, or else what the instance printed while booting, or ""; and a hint."""
        code, message = "", ""
        with contextlib.suppress(ClusterError):
            code, message = teardown.reasons(self.aws, [instance_id]).get(instance_id, ("", ""))
        if not code or code in _NO_REASON:
            return self.console(instance_id), f"{_IMAGE_HINT}{instance_id}"
        return f"{message.removeprefix(f'{code}: ').rstrip('.') or code} ({code})", hint_for(code) or _REASON_HINT

    def console(self, instance_id: str) -> str:
        """The last errors that an instance printed while booting, or ""."""
        with contextlib.suppress(ClientError, BotoCoreError, KeyError):
            text = self.aws.ec2.get_console_output(InstanceId=instance_id, Latest=True)["Output"]
            told = [line.strip() for line in text.splitlines() if _WRONG.search(line)]
            return " / ".join(told[-_CONSOLE_LINES:])[-600:]
        return ""

    # --- ending --------------------------------------------------------------------------------

    @property
    def stopping(self) -> bool:
        """Whether nothing is started any more."""
        return self._stopping.is_set()

    def terminate(self, instance_id: str) -> None:
        """End one instance; what fails here is done again at the end, or by `surely_end`."""
        with contextlib.suppress(ClientError, BotoCoreError):
            self.aws.ec2.terminate_instances(InstanceIds=[instance_id])

    def surely_end(self, ids: set[str]) -> None:
        """End some instances of a cluster that goes on. Raises InstancesLeft at the teardown limit."""
        until = time.monotonic() + self.spec.teardown_limit
        while left := ids - self.ended():
            if time.monotonic() > until:
                ending = teardown.Ending(len(ids), 0, tuple(sorted(left)))
                teardown.refuse_leftovers(ending, self.aws.region, self.deadline, self.cluster)
            for each in left:
                self.terminate(each)
            time.sleep(0.5)

    def stop(self) -> None:
        """Start nothing more, and wait for the launches that are under way."""
        self._stopping.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def end(self) -> teardown.Ending:
        """Stop, then terminate everything; see `reaper.end`."""
        self.stop()
        return teardown.end(
            self.aws,
            self.cluster,
            known=self.started,
            seen=self._seen,
            group_ids=self._own_groups,
            unanswered=self._unanswered,
            sure=not self._unsure,
            limit=self.spec.teardown_limit,
            say=self.say,
        )
