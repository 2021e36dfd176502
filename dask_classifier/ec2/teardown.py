"""Finding and terminating, by tag, what clusters own in EC2: for their normal end, and after crashed runs."""

import contextlib
import datetime
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ..errors import ClusterError, InstancesLeft
from ..units import count_of
from .aws import Aws, code_of, explained
from .retries import Retries

# Tags that each instance, volume and security group has from its creation.
CLUSTER, ROLE, WORKER = "dask-classify:cluster", "dask-classify:role", "dask-classify:worker"
DEADLINE, CLIENT, NAME = "dask-classify:deadline", "dask-classify:client", "dask-classify:name"
DETACHED = "dask-classify:detached"  # the output of a run that goes on without the command that started it
TAG_LENGTH = 256  # characters of a tag's value, set by EC2
CREATED = "dask-classify:created"  # on security groups, for which EC2 reports no creation time

_BATCH = 100  # ids per request; EC2 allows 200 values per filter

_EMPTY_LISTINGS = 3  # in a row: the first listings may not contain a new instance yet
_LISTING_SECONDS = 2.0  # between these
_UNANSWERED_SECONDS = 120.0  # how long to look for an instance whose launch was not answered: EC2 may list it late
_PERHAPS = "perhaps "
_UNLISTED = ("resources that could not be listed",)


@dataclass(frozen=True)
class Instance:
    """An instance as EC2 lists it. Times are in seconds since 1970."""

    id: str
    cluster: str
    role: str
    worker: str
    name: str  # of a named cluster
    state: str
    type: str
    zone: str
    market: str
    launched: float
    deadline: float
    client: str
    private: str | None
    public: str | None
    token: str = ""  # client token of its launch
    detached: str = ""  # output of the cluster's detached run

    @property
    def up(self) -> bool:
        """Whether it is running or about to run."""
        return self.state in {"pending", "running"}

    def description(self) -> dict[str, Any]:
        """Return those fields of EC2's description that a cluster needs."""
        return {
            "InstanceId": self.id,
            "InstanceType": self.type,
            "PrivateIpAddress": self.private,
            "PublicIpAddress": self.public,
            "State": {"Name": self.state},
        }


@dataclass(frozen=True)
class Group:
    """A security group that was created for a cluster."""

    id: str
    cluster: str
    name: str  # of a named cluster
    client: str
    deadline: float
    launched: float  # when it was created; 0 if an earlier version created it
    detached: str = ""  # output of the cluster's detached run


@dataclass(frozen=True)
class Ending:
    """The outcome of a teardown."""

    started: int
    terminated: int
    left: tuple[str, ...] = ()  # ids of instances and security groups, or descriptions of those that may exist
    bill: dict[str, Any] = field(default_factory=dict)  # see `bill.bill`

    def __str__(self) -> str:
        left = f"; left: {', '.join(self.left)}" if self.left else ""
        return f"started {count_of(self.started, 'instance')}, {self.terminated:,} terminated{left}"


def instances(aws: Aws, cluster: str | None = None) -> list[Instance]:
    """Return the instances with our tag that have not terminated, of all clusters or of one. Raises ClusterError."""
    states = ["pending", "running", "shutting-down", "stopping", "stopped"]
    descriptions = _described(aws, [_filter(cluster), {"Name": "instance-state-name", "Values": states}])
    return sorted(map(_instance, descriptions), key=lambda one: (one.launched, one.cluster, one.worker))


def _described(aws: Aws, filters: list[dict]) -> list[dict[str, Any]]:
    """Return EC2's descriptions of the instances that match the filters. Raises ClusterError."""
    with explained(f"Cannot list the instances in {aws.region}"):
        pages = aws.ec2.get_paginator("describe_instances").paginate(Filters=filters)
        return [one for page in pages for reservation in page["Reservations"] for one in reservation["Instances"]]


def _described_in_batches(aws: Aws, name: str, values: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield EC2's descriptions of the instances for which the filter `name` has one of the values."""
    for batch in _batches(values):
        yield from _described(aws, [{"Name": name, "Values": batch}])


def _batches(ids: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(sorted(ids))
    while batch := list(itertools.islice(rest, _BATCH)):
        yield batch


def groups(aws: Aws, cluster: str | None = None) -> list[Group]:
    """Return the security groups with our tag, of all clusters or of one. Raises ClusterError."""
    with explained(f"Cannot list the security groups in {aws.region}"):
        descriptions = aws.ec2.describe_security_groups(Filters=[_filter(cluster)])["SecurityGroups"]
    tagged = [(description["GroupId"], _tags(description)) for description in descriptions]
    return [
        Group(
            group,
            tags.get(CLUSTER, ""),
            tags.get(NAME, ""),
            tags.get(CLIENT, ""),
            _epoch(tags.get(DEADLINE)),
            _epoch(tags.get(CREATED)),
            tags.get(DETACHED, ""),
        )
        for group, tags in tagged
    ]


def _filter(cluster: str | None) -> dict:
    if cluster is not None:
        return {"Name": f"tag:{CLUSTER}", "Values": [cluster]}
    return {"Name": "tag-key", "Values": [CLUSTER]}


def _instance(description: dict) -> Instance:
    tags = _tags(description)
    return Instance(
        id=description["InstanceId"],
        cluster=tags.get(CLUSTER, ""),
        role=tags.get(ROLE, ""),
        worker=tags.get(WORKER, ""),
        name=tags.get(NAME, ""),
        state=description["State"]["Name"],
        type=description["InstanceType"],
        zone=description["Placement"]["AvailabilityZone"],
        market=description.get("InstanceLifecycle", "on-demand"),
        launched=description["LaunchTime"].timestamp(),
        deadline=_epoch(tags.get(DEADLINE)),
        client=tags.get(CLIENT, ""),
        private=description.get("PrivateIpAddress"),
        public=description.get("PublicIpAddress"),
        token=description.get("ClientToken", ""),
        detached=tags.get(DETACHED, ""),
    )


def _tags(description: dict) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in description.get("Tags", [])}


def _epoch(text: str | None) -> float:
    with contextlib.suppress(ValueError, TypeError):
        return datetime.datetime.fromisoformat(text).timestamp()
    return 0.0


def moment(epoch: float) -> str:
    """Format a time as in the tags: 2026-11-22T18:00:00+00:00."""
    return datetime.datetime.fromtimestamp(round(epoch), datetime.UTC).isoformat()


# --- terminating ------------------------------------------------------------------------------------


def end(
    aws: Aws,
    cluster: str,
    *,
    known: Iterable[str] = (),
    seen: Iterable[str] = (),
    group_ids: Iterable[str] = (),
    unanswered: Mapping[str, str] | None = None,
    sure: bool = False,
    spared: str = "",
    limit: float = 300.0,
    say: Callable[[str], None] = lambda text: None,
) -> Ending:
    """Terminate a cluster's instances, wait until they have terminated, then delete its security groups.

    Errors of AWS are retried for `limit` seconds, followed by one last attempt.

    Parameters
    ----------
    known
        Ids of instances that were launched, whether or not EC2 lists them yet.
    seen
        Ids of instances that EC2 has listed before: once it no longer does, they have terminated.
    group_ids
        Ids of the cluster's own security groups.
    unanswered
        Launches for which EC2 never confirmed whether they happened: client token to name.
    sure
        Whether there can be no instances and groups besides these.
    spared
        Id of the instance that runs this, which terminates by itself afterwards, and still uses the groups.
    say
        Called with a message if something is left.

    Returns
    -------
    Ending
        Numbers of instances, and what is left.
    """
    tally = _Tally(set(known) - {spared}, set(seen) - {spared}, dict(unanswered or {}), spared)
    retries, empty_listings, left, reason = Retries(limit), 0, (), ""
    while True:
        alive = None
        try:
            alive = _terminate_alive(aws, cluster, tally)
            empty_listings = 0 if alive else empty_listings + 1
            is_certain = sure and not tally.unanswered
            left = tuple(sorted(alive)) or (() if is_certain else ("instances that EC2 does not list yet",))
            if empty_listings >= (1 if is_certain else _EMPTY_LISTINGS):
                # a group in use shows that an instance still exists
                left = () if spared else _delete_groups(aws, cluster, group_ids)
                if not left and (group_ids or not tally.unanswered):
                    return tally.ending()
                left = left or tally.possible()
                if left == tally.possible() and retries.spent() > min(_UNANSWERED_SECONDS, limit / 2):
                    return tally.ending(left)
        except Exception as error:  # any error: the next attempt may succeed; the last error is reported below
            empty_listings, reason = 0, f" ({getattr(error, 'message', error)})"
            left = left or tuple(sorted(tally.started - tally.terminated)) or (_UNLISTED if alive is None else ())
        if not retries.pause(least=0 if sure or not empty_listings else _LISTING_SECONDS):
            say(f"Not everything could be terminated{reason}")
            return tally.ending(_with_groups(aws, cluster, left, group_ids) or _UNLISTED)


@dataclass
class _Tally:
    """The ids of a cluster's instances, and what is known about them."""

    started: set[str]
    seen: set[str]
    unanswered: dict[str, str]  # launches with an unknown outcome: client token to name
    spared: str = ""  # not one of them
    terminated: set[str] = field(default_factory=set)
    absent: dict[str, int] = field(default_factory=dict)  # listings in which an instance seen earlier was missing

    def possible(self) -> tuple[str, ...]:
        """Describe the instances that may exist."""
        return tuple(sorted({f"{_PERHAPS}{name}" for name in self.unanswered.values()}))

    def ending(self, left: tuple[str, ...] = ()) -> Ending:
        """Return the outcome; the spared instance was started, and has not terminated."""
        return Ending(len(self.started) + bool(self.spared), len(self.terminated), left)


def _terminate_alive(aws: Aws, cluster: str, tally: _Tally) -> set[str]:
    """Terminate the instances that may still be running. Return the ids of those that have not terminated yet."""
    listed = [instance for instance in instances(aws, cluster) if instance.id != tally.spared]
    with contextlib.suppress(ClusterError):  # an additional lookup, which must not prevent terminating the others
        listed += map(_instance, _described_in_batches(aws, "client-token", tally.unanswered))
    for instance in listed:
        tally.unanswered.pop(instance.token, None)
    current = {instance.id: instance.state for instance in listed}
    tally.started |= set(current)
    current |= states(aws, tally.started - set(current))
    tally.terminated = {id for id in tally.started if current.get(id) == "terminated"}
    for id in tally.seen - set(current):  # EC2 forgets instances an hour after they terminate; a listing may also err
        tally.absent[id] = tally.absent.get(id, 0) + 1
    tally.terminated |= {id for id, times in tally.absent.items() if times >= _EMPTY_LISTINGS and id not in current}
    tally.seen |= set(current)
    alive = tally.started - tally.terminated
    terminate(aws, sorted(id for id in alive if current.get(id) != "shutting-down"))
    return alive


def states(aws: Aws, ids: Iterable[str]) -> dict[str, str]:
    """Return the states of those instances that EC2 lists, which it does for an hour after they terminate."""
    return {one["InstanceId"]: one["State"]["Name"] for one in _described_in_batches(aws, "instance-id", ids)}


def reasons(aws: Aws, ids: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return EC2's reasons for the instances' last change of state: code and message. Raises ClusterError."""
    described = _described_in_batches(aws, "instance-id", ids)
    reported = {description["InstanceId"]: description.get("StateReason", {}) for description in described}
    return {id: (reason.get("Code", ""), reason.get("Message", "")) for id, reason in reported.items()}


def console(aws: Aws, id: str) -> str:
    """Return what an instance has printed on its console, or "" if EC2 does not say."""
    with contextlib.suppress(ClientError, BotoCoreError):
        return aws.ec2.get_console_output(InstanceId=id, Latest=True).get("Output", "")
    return ""


def terminate(aws: Aws, ids: list[str]) -> None:
    """Terminate instances. If EC2 refuses one, or does not know it yet, the others are still terminated."""
    failure = None
    for batch in _batches(ids):
        try:
            aws.ec2.terminate_instances(InstanceIds=batch)
        except ClientError as error:
            failure = _terminate_one_by_one(aws, batch, error) or failure
    if failure:
        raise failure


def _terminate_one_by_one(aws: Aws, ids: list[str], error: ClientError) -> ClientError | None:
    """Retry a batch that failed with `error`, one instance at a time. Return the last error that matters."""
    if len(ids) == 1:
        return None if code_of(error) == "InvalidInstanceID.NotFound" else error
    failure = None
    for id in ids:
        try:
            terminate(aws, [id])
        except ClientError as error:
            failure = error
    return failure


def give_up_group(aws: Aws, cluster: str, id: str) -> None:
    """Delete the cluster's own security group from its last instance, which gets the default one of its VPC instead.

    If that is not possible, the group is left: it costs nothing.
    """
    with contextlib.suppress(ClusterError, ClientError, BotoCoreError):
        if not groups(aws, cluster):
            return
        (described,) = _described(aws, [{"Name": "instance-id", "Values": [id]}])
        filters = [{"Name": "vpc-id", "Values": [described["VpcId"]]}, {"Name": "group-name", "Values": ["default"]}]
        (default,) = aws.ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
        aws.ec2.modify_instance_attribute(InstanceId=id, Groups=[default["GroupId"]])
        _delete_groups(aws, cluster, ())


def _delete_groups(aws: Aws, cluster: str, known: Iterable[str]) -> tuple[str, ...]:
    """Delete a cluster's security groups, listed or known. Return the ids of those that are still in use."""
    left = []
    for group_id in sorted({group.id for group in groups(aws, cluster)} | set(known)):
        try:
            aws.ec2.delete_security_group(GroupId=group_id)
        except ClientError as error:
            if code_of(error) != "InvalidGroup.NotFound":
                left.append(group_id)
    return tuple(left)


def _with_groups(aws: Aws, cluster: str, left: tuple[str, ...], known: Iterable[str]) -> tuple[str, ...]:
    """Add the security groups that cannot be deleted yet to what is left."""
    group_ids = set(known)
    with contextlib.suppress(Exception):
        group_ids = {group.id for group in groups(aws, cluster)}
    return (*left, *sorted(group_ids - set(left)))


def refuse_leftovers(ending: Ending, region: str, deadline: float, cluster: str = "") -> None:
    """Raise InstancesLeft if anything is left."""
    if not ending.left:
        return
    until = f" Instances shut themselves down by {moment(deadline)}." if deadline else ""
    reap = f"dask-classify reap --region {region}" + (f" --cluster {cluster}" if cluster else "")
    if all(what.startswith(_PERHAPS) for what in ending.left):
        names = ", ".join(what.removeprefix(_PERHAPS) for what in ending.left)
        raise InstancesLeft(
            f"EC2 did not confirm whether it started {names} in {region}, and does not list any of them.{until}",
            f"Run `{reap}` in a few minutes: if they were started, they have the tag {CLUSTER}={cluster}.",
        )
    raise InstancesLeft(
        f"Not terminated or deleted in {region}: {', '.join(ending.left)}.{until}",
        f"Run `{reap}` in a few minutes, or terminate them in the AWS console.",
    )
