"""The instances of one cluster: launched where EC2 has capacity, monitored, and terminated together."""

import contextlib
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ..errors import ClusterError, Stopped
from . import ingress, owners, reasons, teardown
from .aws import Aws, code_of, explain, explained, has_unknown_outcome, is_transient
from .bill import Launched, Launches, Prices, bill, cost, highest_price
from .placement import Offer, Placement
from .request import request_of
from .retries import Retries
from .spec import ClusterSpec

_PARALLEL_LAUNCHES = 8  # EC2 allows an account a few launches per second
_BUSY_SECONDS = 30.0  # how long a request is repeated while AWS is busy, or does not know a new group yet
_OLD_SECONDS = 300.0  # of user data; an instance takes its clock for wrong after 900 (boot.sh)
_ADDRESS_SECONDS = 1.0  # between looks for the address of a new instance, at most

# Error codes of RunInstances by what they rule out: the offer, the subnet, or the type in this market.
_NO_CAPACITY = (
    "InsufficientInstanceCapacity",
    "InsufficientHostCapacity",
    "InsufficientReservedInstanceCapacity",
    "ReservationCapacityExceeded",
    "UnfulfillableCapacity",
    "SpotMaxPriceTooLow",
    "Unsupported",
)
_SUBNET_FULL = ("InsufficientFreeAddressesInSubnet", "InsufficientAddressCapacity")
_LIMIT_REACHED = ("VcpuLimitExceeded", "InstanceLimitExceeded", "MaxSpotInstanceCountExceeded", "InsufficientCapacity")

_ABSENT_SECONDS = 30.0  # after which an instance that EC2 no longer lists has ended: one answer may err
Script = Callable[[], str]  # makes the user data of an instance
_ADDRESSES = {"PublicIpAddress": "public address", "PrivateIpAddress": "private address"}


class Fleet:
    """Launches instances, each in a thread, until `stop` is called. `end` terminates all of them."""

    aws: Aws
    spec: ClusterSpec
    placement: Placement
    cluster: str  # id
    say: Callable[[str], None]
    deadline: float  # seconds since 1970
    group_ids: list[str]  # security groups
    prices: Prices

    def __init__(self, aws: Aws, spec: ClusterSpec, placement: Placement, cluster: str, say: Callable[[str], None]):
        self.aws, self.spec, self.placement, self.cluster, self.say = aws, spec, placement, cluster, say
        self.deadline = time.time() + spec.deadline
        self.started: dict[str, str] = {}  # instance id to name
        self.launched: Launches = Launches()
        self.packages: dict[str, object] = {}  # that the instances install, for the record
        self.prices = Prices(aws, spec, placement.disk_gib)
        self.group_ids = list(spec.security_group)
        self._exhausted: set[Offer] = set()  # for which EC2 has no capacity
        self._others: set[str] = set()  # markets and types that were not announced, and are used
        self._own_groups: list[str] = []
        self._callers: set[str] = set()  # networks to which the group is open
        self._seen: set[str] = set()  # ids that EC2 has listed
        self._states: Counter[str] = Counter()  # when EC2 was last asked
        self._absent: dict[str, float] = {}  # instances that EC2 no longer lists, and since when
        self._unsure = False  # whether a security group with an unknown id may exist
        self._unanswered: dict[str, str] = {}  # launches with an unknown outcome: client token to name
        self._spared = ""  # id of the instance that this process runs on
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(_PARALLEL_LAUNCHES, thread_name_prefix="dask-classify-launch")
        self._client = aws.client("ec2", retries={"mode": "standard", "total_max_attempts": 1})

    def adopt(self, deadline: float, spared: str = "") -> list[teardown.Instance]:
        """Take over the instances of a running cluster, of which `end` spares one, if given. Raises ClusterError."""
        self.deadline, self._spared = deadline, spared
        self.group_ids = self.group_ids or [group.id for group in teardown.groups(self.aws, self.cluster)]
        instances = self.instances()
        self.started = {instance.id: instance.worker for instance in instances}
        for one in instances:
            ended = None if one.up else time.time()
            self.launched[one.id] = Launched(one.worker, one.type, one.market, one.launched, ended)
        if not spared:
            with contextlib.suppress(ClusterError):  # then the scheduler answers, or does not
                self.let_in(self.placement.caller)
        return instances

    # --- launching -----------------------------------------------------------------------------

    def open_group(self) -> None:
        """Create the cluster's security group, unless the user gave groups. Raises ClusterError.

        It admits the cluster's instances and the caller's address. It is created in a thread of the pool, so that
        `stop` waits for it even if the caller is interrupted.
        """
        if not self.group_ids:
            self._pool.submit(self._create_group).result()

    def _create_group(self) -> None:
        self._unsure = True
        with explained("Cannot create the security group"):
            try:
                group_id = self.aws.ec2.create_security_group(
                    GroupName=f"dask-classify-{self.cluster}",
                    Description="Created by dask-classify for one cluster, and deleted with it",
                    VpcId=self.placement.vpc,
                    TagSpecifications=[{"ResourceType": "security-group", "Tags": self._tags("group", "")}],
                )["GroupId"]
            except ClientError as error:
                if code_of(error) != "InvalidGroup.Duplicate":  # a duplicate if the first response was lost
                    raise
                group_id = self._find_group()
        self._own_groups = self.group_ids = [group_id]
        self._unsure = False
        with explained("Cannot open the security group"):
            self._open_ports(group_id)

    def _find_group(self) -> str:
        """Return the id of a group that was created, once EC2 lists it. Raises ClusterError."""
        retries = self._retries()
        while not (groups := teardown.groups(self.aws, self.cluster)):
            if not retries.pause():
                raise ClusterError(
                    f"The security group dask-classify-{self.cluster} exists, but EC2 does not list it.",
                    "Try again in a few minutes.",
                )
        return groups[0].id

    def _retries(self) -> Retries:
        return Retries(_BUSY_SECONDS, self._stopping)

    def _open_ports(self, group_id: str) -> None:
        self._callers.add(self.placement.caller)
        rules = [*ingress.of_caller(self.placement.caller, ssh=bool(self.spec.key_name)), ingress.of_itself(group_id)]
        ingress.authorize(self.aws, group_id, rules, self._retries())

    def let_in(self, caller: str | None) -> None:
        """Open the cluster's own group to a computer that may have another address than before.

        Raises ClusterError. A group that the user gave is left alone.
        """
        if caller is None or caller in self._callers or not self.group_ids:
            return
        with explained("Cannot open the security group"):
            rules = ingress.of_caller(caller, ssh=bool(self.spec.key_name))
            ingress.authorize(self.aws, self.group_ids[0], rules, self._retries())
        self._callers.add(caller)

    def launch(self, role: str, name: str, script: Script) -> Future[dict[str, Any]]:
        """Launch an instance in a thread. The Future returns EC2's description, or raises ClusterError.

        `script` makes the user data, when the instance is asked for: they contain the time of the launch.
        """
        return self._pool.submit(self._launch, role, name, script)

    def _launch(self, role: str, name: str, script: Script) -> dict[str, Any]:
        failure, token = None, uuid.uuid4().hex[:12]  # never repeated, even for an instance with the same name
        for number, offer in enumerate(self.placement.offers[role]):
            if offer in self._exhausted:
                continue
            try:
                instance = self._run_instance(role, name, script, offer, f"{self.cluster}-{name}-{token}-{number}"[:64])
            except ClientError as error:
                failure = error
                if not self._rule_out(offer, code_of(error)):
                    raise ClusterError(*explain(f"Cannot start {name}", error)) from error
                continue
            except BotoCoreError as error:
                with explained(f"Cannot start {name}"):
                    raise error
            self.started[instance["InstanceId"]] = name  # first of all, so that it is terminated whatever happens
            launched = Launched(name, offer.type, offer.market, time.time())
            self.launched[instance["InstanceId"]] = launched
            self._say_if_other(launched, self.placement.offers[role][0])
            return instance
        what = f"EC2 has no capacity for {name}"
        if failure:
            raise ClusterError(*explain(what, failure)) from failure
        raise ClusterError(
            f"{what}.",
            "Each type was refused in each zone: give more types (--instance-type a,b,c), or another --region.",
        )

    def _say_if_other(self, launched: Launched, first: Offer) -> None:
        """Say once that EC2 gave another market or type than was announced, which has another price."""
        kind, announced = (f"{one.market} {one.type}" for one in (launched, first))
        if kind not in {announced, *self._others}:
            self._others.add(kind)
            self.say(f"EC2 has no {announced} now: {kind} instead, {self.prices.of(launched)} each.")

    def _run_instance(self, role: str, name: str, script: Script, offer: Offer, token: str) -> dict[str, Any]:
        """Call RunInstances, and repeat it while AWS is busy: the token prevents a second instance.

        It is not repeated with old user data, such as after this computer has slept: an instance would take its clock
        for wrong, and its deadline would be later.
        """
        made = time.time()
        request = self.request(role, name, script(), offer, token)
        retries = self._retries()
        while True:
            if self._stopping.is_set():
                raise Stopped(f"{name.capitalize()} was not started.", "The cluster is shutting down.")
            if time.time() >= self.deadline:
                raise ClusterError(
                    f"{name.capitalize()} was not started: the deadline has passed.",
                    "Start it again, with a later --deadline if it needs more time.",
                )
            try:
                instance = self._client.run_instances(**request)["Instances"][0]
                self._unanswered.pop(token, None)
                return instance
            except (ClientError, BotoCoreError) as error:
                if has_unknown_outcome(error):
                    self._unanswered[token] = name
                elif code_of(error) in (*_NO_CAPACITY, *_SUBNET_FULL, *_LIMIT_REACHED):
                    self._unanswered.pop(token, None)  # so earlier requests with this token started nothing
                if not (is_transient(error) or self._is_new_profile(error)) or not retries.pause():
                    raise
                if time.time() - made > _OLD_SECONDS:
                    raise

    def _is_new_profile(self, error: Exception) -> bool:
        """Return whether EC2 refused the instance profile, as it may for some seconds after the profile is created."""
        return code_of(error) == "InvalidParameterValue" and "instance profile" in str(error).lower()

    def request(self, role: str, name: str, script: str, offer: Offer, token: str) -> dict[str, Any]:
        """Return the arguments of RunInstances."""
        return request_of(self.spec, self.placement, offer, self.group_ids, self._tags(role, name), script, token)

    def _tags(self, role: str, name: str) -> list[dict[str, str]]:
        tags = {
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
        if self.spec.detached:
            tags[teardown.DETACHED] = self.spec.detached[: teardown.TAG_LENGTH]
        own = {key: value for key, value in tags.items() if value}
        return [{"Key": key, "Value": value} for key, value in (dict(self.spec.tag) | own).items()]

    def _rule_out(self, offer: Offer, code: str) -> bool:
        """Remember the offers that an error rules out. Return False if the error is not about capacity."""
        if code in _SUBNET_FULL:
            ruled_out = {other for other in self._offers() if other.subnet == offer.subnet}
        elif code in _LIMIT_REACHED:
            ruled_out = {other for other in self._offers() if (other.market, other.type) == (offer.market, offer.type)}
        elif code in _NO_CAPACITY:
            ruled_out = {offer}
        else:
            return False
        self._exhausted |= ruled_out
        return True

    def _offers(self) -> set[Offer]:
        return {offer for offers in self.placement.offers.values() for offer in offers}

    def forget_exhausted(self) -> None:
        """Try all offers again: EC2 may have capacity again."""
        self._exhausted = set()

    # --- monitoring ----------------------------------------------------------------------------

    def instances(self) -> list[teardown.Instance]:
        """Return the cluster's instances as EC2 lists them. Raises ClusterError."""
        instances = teardown.instances(self.aws, self.cluster)
        self._seen |= {instance.id for instance in instances}
        return instances

    def ended(self) -> set[str]:
        """Return the ids of instances that have terminated or are about to. Raises ClusterError.

        EC2 forgets instances an hour after they terminate, in which this computer may have slept.
        """
        self._count_unanswered()
        states, now = teardown.states(self.aws, self.started), time.time()
        self._seen |= set(states)
        self._states = Counter(states.values())
        self._absent = {id: self._absent.get(id, now) for id in self._seen & set(self.started) - set(states)}
        ended = {id for id, state in states.items() if state not in {"pending", "running"}}
        ended |= {id for id, since in self._absent.items() if now - since >= _ABSENT_SECONDS}
        self.launched.have_ended(ended, min(now, self.deadline))
        return ended

    def _count_unanswered(self) -> None:
        """Count instances that EC2 has launched without an answer: they join, work, and cost."""
        with contextlib.suppress(ClusterError):  # the next look may succeed
            for one in self.instances() if self._unanswered else ():
                if one.token in self._unanswered and one.id not in self.started:
                    self.started[one.id] = one.worker
                    self.launched[one.id] = Launched(one.worker, one.type, one.market, one.launched)
                    self._unanswered.pop(one.token, None)

    def states(self) -> str:
        """Return the number of instances by state, when EC2 was last asked: " (1 pending, 16 running)"; or ""."""
        states = ", ".join(f"{count:,} {state}" for state, count in sorted(self._states.items()))
        return f" ({states})" if states else ""

    def with_address(self, instance: dict[str, Any], key: str) -> dict[str, Any]:
        """Wait until an instance has an address: `key` of EC2's description, which is returned. Raises ClusterError."""
        retries = Retries(self.spec.bring_up_limit, self._stopping, longest=_ADDRESS_SECONDS)
        while not instance.get(key):
            if instance["State"]["Name"] in {"shutting-down", "terminated"}:
                reason, hint = self.why_ended([instance["InstanceId"]])
                raise ClusterError(
                    f"Instance {instance['InstanceId']} terminated before it had a {_ADDRESSES[key]}{reason}.", hint
                )
            if not retries.pause():
                raise ClusterError(
                    f"Instance {instance['InstanceId']} did not get a {_ADDRESSES[key]}.",
                    "Check that its subnet assigns public addresses, or use --private-ip inside the VPC.",
                )
            if self.stopping:
                raise Stopped("The cluster is shutting down.")
            with contextlib.suppress(ClientError):  # EC2 may not know a new instance for some seconds
                described = self.aws.ec2.describe_instances(InstanceIds=[instance["InstanceId"]])
                instance = described["Reservations"][0]["Instances"][0]
        return instance

    def why_ended(self, ids: Iterable[str] | None = None) -> tuple[str, str]:
        """Return why instances have ended, by default all that have: see `reasons.why_ended`. Raises ClusterError."""
        return reasons.why_ended(self.aws, self.ended() if ids is None else ids)

    # --- terminating ---------------------------------------------------------------------------

    @property
    def stopping(self) -> bool:
        """Whether no more instances are launched."""
        return self._stopping.is_set()

    def terminate(self, instance_id: str) -> None:
        """Terminate one instance. If that fails, `end` or `terminate_and_wait` tries again."""
        with contextlib.suppress(ClientError, BotoCoreError):
            self.aws.ec2.terminate_instances(InstanceIds=[instance_id])

    def terminate_and_wait(self, ids: set[str]) -> None:
        """Terminate some instances of a cluster that keeps running. Raises InstancesLeft at the teardown limit."""
        retries = Retries(self.spec.teardown_limit)
        while left := ids - self.ended():
            for id in left:
                self.terminate(id)
            if not retries.pause():
                ending = teardown.Ending(len(ids), 0, tuple(sorted(left)))
                teardown.refuse_leftovers(ending, self.aws.region, self.deadline, self.cluster)

    def stop(self) -> None:
        """Launch no more instances, and wait for the launches in progress."""
        self._stopping.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def end(self) -> teardown.Ending:
        """Stop, then terminate everything; see `teardown.end`. The outcome says what it has cost, if that is known."""
        self.stop()
        ending = teardown.end(
            self.aws,
            self.cluster,
            known=self.started,
            seen=self._seen,
            group_ids=self._own_groups,
            unanswered=self._unanswered,
            sure=not self._unsure,
            spared=self._spared,
            limit=self.spec.teardown_limit,
            say=self.say,
        )
        left = {what for what in ending.left if not what.startswith("sg-")}
        if left <= set(self.launched):  # else it is not known which instances are left
            self.launched.have_ended(set(self.launched) - left - {self._spared}, time.time())
        with contextlib.suppress(Exception):  # no reason to fail now
            where = {
                "image": self.spec.container_image,
                "ami": self.placement.ami,
                "region": self.aws.region,
            } | self.packages
            where |= {"driver": self._spared} if self._spared else {}
            ending = replace(ending, bill=where | bill(self.prices, dict(self.launched)))
        return ending

    def cost(self) -> tuple[float, float] | None:
        """Return what the instances have cost until now, and cost per hour, in $; None without a price."""
        return cost(self.prices, dict(self.launched))

    def worker_price(self) -> float | None:
        """Return what a worker costs per hour, in $; None without a price."""
        price = highest_price(self.prices, dict(self.launched))
        return price and price.dollars
