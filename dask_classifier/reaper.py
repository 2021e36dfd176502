"""Finds and ends what clusters leave in EC2, by tag: their own end, and what dead runs left."""

import contextlib
import datetime
import os
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from botocore.exceptions import ClientError

from .aws import Aws, code_of, explained
from .errors import InstancesLeft

# Each instance, volume and security group has these tags from the moment it is made.
CLUSTER, ROLE, WORKER = "dask-classify:cluster", "dask-classify:role", "dask-classify:worker"
DEADLINE, CLIENT, NAME = "dask-classify:deadline", "dask-classify:client", "dask-classify:name"

_UNSEEN = 3  # listings in a row without a trace, since a new instance may be missing from the first ones
_UNSEEN_SECONDS = 2.0  # between them
_PAUSES = (0.2, 0.5, 1, 2, 3, 5)  # seconds between looks; the last one for as long as it takes


@dataclass(frozen=True)
class Machine:
    """An instance as EC2 lists it. Times are seconds since 1970."""

    id: str
    cluster: str
    role: str
    worker: str
    name: str  # of a cluster that stays
    state: str
    type: str
    zone: str
    market: str
    launched: float
    deadline: float
    client: str
    private: str | None
    public: str | None

    @property
    def up(self) -> bool:
        """Whether it runs, or soon will."""
        return self.state in {"pending", "running"}

    def description(self) -> dict[str, str | None]:
        """The part of EC2's own description that a cluster needs."""
        return {"InstanceId": self.id, "PrivateIpAddress": self.private, "PublicIpAddress": self.public}


@dataclass(frozen=True)
class Group:
    """A security group that a cluster made."""

    id: str
    cluster: str
    name: str  # of a cluster that stays
    client: str
    deadline: float


@dataclass(frozen=True)
class Ending:
    """What became of a cluster's machines."""

    started: int
    terminated: int
    left: tuple[str, ...] = ()  # ids of instances and security groups

    def __str__(self) -> str:
        left = f"; left: {', '.join(self.left)}" if self.left else ""
        return f"started {self.started} instances, {self.terminated} terminated{left}"


def machines(aws: Aws, cluster: str | None = None) -> list[Machine]:
    """All instances with our tag that are not terminated, or those of one cluster. Raises ClusterError."""
    only = _filter(cluster)
    states = ["pending", "running", "shutting-down", "stopping", "stopped"]
    with explained(f"The instances in {aws.region} cannot be listed"):
        pages = aws.ec2.get_paginator("describe_instances").paginate(
            Filters=[only, {"Name": "instance-state-name", "Values": states}]
        )
        found = [each for page in pages for held in page["Reservations"] for each in held["Instances"]]
    return sorted(map(_machine, found), key=lambda each: (each.launched, each.cluster, each.worker))


def groups(aws: Aws, cluster: str | None = None) -> list[Group]:
    """The security groups with our tag. Raises ClusterError."""
    with explained(f"The security groups in {aws.region} cannot be listed"):
        found = aws.ec2.describe_security_groups(Filters=[_filter(cluster)])["SecurityGroups"]
    tagged = [(each["GroupId"], _tags(each)) for each in found]
    return [
        Group(group, tags.get(CLUSTER, ""), tags.get(NAME, ""), tags.get(CLIENT, ""), _epoch(tags.get(DEADLINE)))
        for group, tags in tagged
    ]


def _filter(cluster: str | None) -> dict:
    if cluster is not None:
        return {"Name": f"tag:{CLUSTER}", "Values": [cluster]}
    return {"Name": "tag-key", "Values": [CLUSTER]}


def _machine(told: dict) -> Machine:
    tags = _tags(told)
    return Machine(
        id=told["InstanceId"],
        cluster=tags.get(CLUSTER, ""),
        role=tags.get(ROLE, ""),
        worker=tags.get(WORKER, ""),
        name=tags.get(NAME, ""),
        state=told["State"]["Name"],
        type=told["InstanceType"],
        zone=told["Placement"]["AvailabilityZone"],
        market=told.get("InstanceLifecycle", "on-demand"),
        launched=told["LaunchTime"].timestamp(),
        deadline=_epoch(tags.get(DEADLINE)),
        client=tags.get(CLIENT, ""),
        private=told.get("PrivateIpAddress"),
        public=told.get("PublicIpAddress"),
    )


def _tags(told: dict) -> dict[str, str]:
    return {each["Key"]: each["Value"] for each in told.get("Tags", [])}


def _epoch(text: str | None) -> float:
    with contextlib.suppress(ValueError, TypeError):
        return datetime.datetime.fromisoformat(text).timestamp()
    return 0.0


def moment(epoch: float) -> str:
    """A time as tags have it: 2026-11-22T18:00:00+00:00."""
    return datetime.datetime.fromtimestamp(round(epoch), datetime.UTC).isoformat()


# --- who started it --------------------------------------------------------------------------------


def this_client() -> str:
    """Names this process, as a tag: host, process id, and when the process began."""
    return f"{_host()} {os.getpid()} {psutil.Process().create_time():.0f}"


def _host() -> str:
    """This machine, since it booted, and this namespace of processes: containers have process ids of their own."""
    place = [socket.gethostname()[:80]]
    with contextlib.suppress(OSError):
        place += [
            Path("/proc/sys/kernel/random/boot_id").read_text()[:8],
            str(Path("/proc/self/ns/pid").readlink())[5:-1],
        ]
    return "/".join(place)


def is_leaked(thing: Machine | Group) -> bool | None:
    """Whether the command that started it is dead. None where that cannot be seen from this machine.

    A cluster that stays (`up`) has a name, and lives until its deadline.
    """
    if thing.deadline and time.time() > thing.deadline:
        return True
    if thing.name:
        return False
    host, pid, began = [*thing.client.split(), "", "", ""][:3]
    if host != _host() or not pid.isdigit():
        return None
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(began)) > 2
    except psutil.NoSuchProcess:
        return True


# --- ending ----------------------------------------------------------------------------------------


def end(
    aws: Aws,
    cluster: str,
    *,
    known: Iterable[str] = (),
    seen: Iterable[str] = (),
    group_ids: Iterable[str] = (),
    sure: bool = False,
    limit: float = 300.0,
    say: Callable[[str], None] = lambda text: None,
) -> Ending:
    """Terminate a cluster's instances, look until they are gone, then delete its security groups.

    `known` are ids of instances that were started, whether or not they are listed already; `seen` are those that
    once were listed, and so are gone if they no longer are; `sure` says that there can be no others. Errors of AWS
    are waited out for `limit` seconds; after that, what is left is in the answer.
    """
    waiting, tally = _Waiting(limit), _Tally(set(known), set(seen))
    unseen, left, trouble = 0, (), ""
    while True:
        try:
            alive = _end_once(aws, cluster, tally)
            unseen = 0 if alive else unseen + 1
            left = tuple(sorted(alive)) or ("machines that EC2 does not list yet",)
            if unseen >= (1 if sure else _UNSEEN):
                left = _delete_groups(aws, cluster, group_ids)  # one that is in use shows that there is a machine
                if not left:
                    return Ending(len(tally.started), len(tally.gone))
        except Exception as error:  # whatever it is, the next attempt may work; at the end it is told
            unseen, trouble = 0, f" ({error})"
            left = left or tuple(sorted(tally.started - tally.gone)) or ("what could not be listed",)
        if not waiting.pause(least=0 if sure or not unseen else _UNSEEN_SECONDS):
            say(f"Not everything could be ended{trouble}")
            return Ending(len(tally.started), len(tally.gone), left)


class _Waiting:
    """Pauses that grow, until a limit in seconds is reached."""

    def __init__(self, limit: float):
        self._until, self._pauses = time.monotonic() + limit, iter(_PAUSES)

    def pause(self, *, least: float = 0) -> bool:
        """Wait a little, at least `least` seconds; False when there is no time left."""
        seconds = max(least, next(self._pauses, _PAUSES[-1]))
        if time.monotonic() + seconds > self._until:
            return False
        time.sleep(seconds)
        return True


@dataclass
class _Tally:
    """Ids of a cluster's instances, and what is known of them."""

    started: set[str]
    seen: set[str]
    gone: set[str] = field(default_factory=set)
    absent: dict[str, int] = field(default_factory=dict)  # times that one which was seen was not listed


def _end_once(aws: Aws, cluster: str, tally: _Tally) -> set[str]:
    """Terminate whatever is not surely gone; the ids that are not gone yet."""
    listed = {each.id: each.state for each in machines(aws, cluster)}
    tally.started |= set(listed)
    told = listed | states(aws, tally.started - set(listed))
    tally.gone = {each for each in tally.started if told.get(each) == "terminated"}
    for each in tally.seen - set(told):  # EC2 forgets what was terminated an hour ago; one listing may miss anything
        tally.absent[each] = tally.absent.get(each, 0) + 1
    tally.gone |= {each for each, times in tally.absent.items() if times >= _UNSEEN and each not in told}
    tally.seen |= set(told)
    alive = tally.started - tally.gone
    terminate(aws, sorted(each for each in alive if told.get(each) != "shutting-down"))
    return alive


def states(aws: Aws, ids: Iterable[str]) -> dict[str, str]:
    """States of instances, also of those terminated within the hour; none for those that EC2 does not show."""
    if not (ids := sorted(ids)):
        return {}
    with explained(f"The instances in {aws.region} cannot be listed"):
        only = [{"Name": "instance-id", "Values": ids}]
        pages = aws.ec2.get_paginator("describe_instances").paginate(Filters=only)
        found = [each for page in pages for held in page["Reservations"] for each in held["Instances"]]
    return {each["InstanceId"]: each["State"]["Name"] for each in found}


def terminate(aws: Aws, ids: list[str]) -> None:
    """End instances; one that EC2 refuses to end, or does not know yet, does not keep the others."""
    if not ids:
        return
    try:
        aws.ec2.terminate_instances(InstanceIds=ids)
    except ClientError as error:
        if len(ids) == 1:
            if code_of(error) == "InvalidInstanceID.NotFound":
                return
            raise
        failure = None
        for each in ids:
            try:
                terminate(aws, [each])
            except ClientError as error:
                failure = error
        if failure:
            raise failure from None


def _delete_groups(aws: Aws, cluster: str, known: Iterable[str]) -> tuple[str, ...]:
    """Delete a cluster's security groups, listed or known; ids of those that are still in use."""
    left = []
    for group in sorted({each.id for each in groups(aws, cluster)} | set(known)):
        try:
            aws.ec2.delete_security_group(GroupId=group)
        except ClientError as error:
            if code_of(error) != "InvalidGroup.NotFound":
                left.append(group)
    return tuple(left)


def refuse_leftovers(ending: Ending, region: str, deadline: float) -> None:
    """Raises InstancesLeft when something remains."""
    if not ending.left:
        return
    until = f" Instances end themselves by {moment(deadline)}." if deadline else ""
    raise InstancesLeft(
        f"Still there in {region}: {', '.join(ending.left)}.{until}",
        f"Try `dask-classify reap --region {region}` in a while, or end them in the AWS console.",
    )
