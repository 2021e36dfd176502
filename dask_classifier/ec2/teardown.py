"""Finds and ends what clusters leave in EC2, by tag: their own end, and what dead runs left."""

import contextlib
import datetime
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from ..errors import ClusterError, InstancesLeft
from . import owners
from .aws import Aws, code_of, explained

# Each instance, volume and security group has these tags from the moment it is made.
CLUSTER, ROLE, WORKER = "dask-classify:cluster", "dask-classify:role", "dask-classify:worker"
DEADLINE, CLIENT, NAME = "dask-classify:deadline", "dask-classify:client", "dask-classify:name"
CREATED = "dask-classify:created"  # of a security group, which EC2 gives no age

_AT_ONCE = 100  # ids in a request; EC2 takes 200 values a filter

_UNSEEN = 3  # listings in a row without a trace, since a new instance may be missing from the first ones
_UNSEEN_SECONDS = 2.0  # between them
_UNANSWERED_SECONDS = 120.0  # how long to look for what a lost answer may have started; EC2 may list it that late
_PERHAPS = "perhaps "
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
    token: str = ""  # with which it was asked for

    @property
    def up(self) -> bool:
        """Whether it runs, or soon will."""
        return self.state in {"pending", "running"}

    def description(self) -> dict[str, str | None]:
        """The part of EC2's own description that a cluster needs."""
        return {
            "InstanceId": self.id,
            "InstanceType": self.type,
            "PrivateIpAddress": self.private,
            "PublicIpAddress": self.public,
        }


@dataclass(frozen=True)
class Group:
    """A security group that a cluster made."""

    id: str
    cluster: str
    name: str  # of a cluster that stays
    client: str
    deadline: float
    launched: float  # when it was made; 0 where an older version made it


@dataclass(frozen=True)
class Ending:
    """What became of a cluster's machines."""

    started: int
    terminated: int
    left: tuple[str, ...] = ()  # ids of instances and security groups; or what there may be, in words

    def __str__(self) -> str:
        left = f"; left: {', '.join(self.left)}" if self.left else ""
        return f"started {self.started} instances, {self.terminated} terminated{left}"


def machines(aws: Aws, cluster: str | None = None) -> list[Machine]:
    """All instances with our tag that are not terminated, or those of one cluster. Raises ClusterError."""
    only = _filter(cluster)
    states = ["pending", "running", "shutting-down", "stopping", "stopped"]
    found = _described(aws, [only, {"Name": "instance-state-name", "Values": states}])
    return sorted(map(_machine, found), key=lambda each: (each.launched, each.cluster, each.worker))


def _described(aws: Aws, filters: list[dict]) -> list[dict[str, Any]]:
    """EC2's descriptions of instances. Raises ClusterError."""
    with explained(f"The instances in {aws.region} cannot be listed"):
        pages = aws.ec2.get_paginator("describe_instances").paginate(Filters=filters)
        return [each for page in pages for held in page["Reservations"] for each in held["Instances"]]


def _described_in_turn(aws: Aws, name: str, values: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Those of which the filter `name` has one of the values, with as many requests as EC2's limit needs."""
    for some in _batches(values):
        yield from _described(aws, [{"Name": name, "Values": some}])


def _batches(ids: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(sorted(ids))
    while some := list(itertools.islice(rest, _AT_ONCE)):
        yield some


def groups(aws: Aws, cluster: str | None = None) -> list[Group]:
    """The security groups with our tag. Raises ClusterError."""
    with explained(f"The security groups in {aws.region} cannot be listed"):
        found = aws.ec2.describe_security_groups(Filters=[_filter(cluster)])["SecurityGroups"]
    tagged = [(each["GroupId"], _tags(each)) for each in found]
    return [
        Group(
            group,
            tags.get(CLUSTER, ""),
            tags.get(NAME, ""),
            tags.get(CLIENT, ""),
            _epoch(tags.get(DEADLINE)),
            _epoch(tags.get(CREATED)),
        )
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
        token=told.get("ClientToken", ""),
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


def is_leaked(thing: Machine | Group) -> bool | None:
    """Whether the command that started it is dead. None where that cannot be seen from this machine.

    A cluster that stays (`up`) has a name, and lives until its deadline.
    """
    if thing.deadline and time.time() > thing.deadline:
        return True
    if thing.name:
        return False
    runs = owners.alive(thing.client)
    return None if runs is None else not runs


# --- ending ----------------------------------------------------------------------------------------


def end(
    aws: Aws,
    cluster: str,
    *,
    known: Iterable[str] = (),
    seen: Iterable[str] = (),
    group_ids: Iterable[str] = (),
    unanswered: Mapping[str, str] | None = None,
    sure: bool = False,
    limit: float = 300.0,
    say: Callable[[str], None] = lambda text: None,
) -> Ending:
    """Terminate a cluster's instances, look until they are gone, then delete its security groups.

    `known` are ids of instances that were started, whether or not they are listed already; `seen` are those that
    once were listed, and so are gone if they no longer are; `unanswered` are launches (client token to name) of which
    EC2 never said whether they happened; `sure` says that there can be no others. Errors of AWS are waited out for
    `limit` seconds; after that, and a last look, what is left is in the answer.
    """
    tally = _Tally(set(known), set(seen), dict(unanswered or {}))
    waiting, unseen, left, trouble = _Waiting(limit), 0, (), ""
    while True:
        try:
            alive = _end_once(aws, cluster, tally)
            unseen = 0 if alive else unseen + 1
            left = tuple(sorted(alive)) or ("machines that EC2 does not list yet",)
            if unseen >= (1 if sure and not tally.unanswered else _UNSEEN):
                left = _delete_groups(aws, cluster, group_ids)  # one that is in use shows that there is a machine
                if not left and (group_ids or not tally.unanswered):
                    return Ending(len(tally.started), len(tally.gone))
                left = left or tally.doubts()
                if left == tally.doubts() and waiting.spent() > min(_UNANSWERED_SECONDS, limit / 2):
                    return Ending(len(tally.started), len(tally.gone), left)
        except Exception as error:  # whatever it is, the next attempt may work; at the end it is told
            unseen, trouble = 0, f" ({error})"
            left = left or tuple(sorted(tally.started - tally.gone)) or ("what could not be listed",)
        if not waiting.pause(least=0 if sure or not unseen else _UNSEEN_SECONDS):
            say(f"Not everything could be ended{trouble}")
            return Ending(len(tally.started), len(tally.gone), _with_groups(aws, cluster, left, group_ids))


class _Waiting:
    """Pauses that grow, until a limit in seconds is reached; then there is time for one more look."""

    def __init__(self, limit: float):
        self._began, self._limit, self._pauses = time.monotonic(), limit, iter(_PAUSES)
        self._over = False

    def spent(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def pause(self, *, least: float = 0) -> bool:
        """Wait a little, at least `least` seconds; False when there is no time left, and a last look was had.

        This process may have been stopped, or the computer asleep, since the look before.
        """
        if self._over:
            return False
        seconds, remaining = max(least, next(self._pauses, _PAUSES[-1])), self._limit - self.spent()
        self._over = seconds > remaining
        time.sleep(max(0, min(seconds, remaining)))
        return True


@dataclass
class _Tally:
    """Ids of a cluster's instances, and what is known of them."""

    started: set[str]
    seen: set[str]
    unanswered: dict[str, str]  # launches of which nothing is known: client token to name
    gone: set[str] = field(default_factory=set)
    absent: dict[str, int] = field(default_factory=dict)  # times that one which was seen was not listed

    def doubts(self) -> tuple[str, ...]:
        """What there may be, in words."""
        return tuple(sorted({f"{_PERHAPS}{name}" for name in self.unanswered.values()}))


def _end_once(aws: Aws, cluster: str, tally: _Tally) -> set[str]:
    """Terminate whatever is not surely gone; the ids that are not gone yet."""
    found = machines(aws, cluster)
    with contextlib.suppress(ClusterError):  # one more way to find them, which must not keep others from ending
        found += map(_machine, _described_in_turn(aws, "client-token", tally.unanswered))
    for each in found:
        tally.unanswered.pop(each.token, None)
    listed = {each.id: each.state for each in found}
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
    return {each["InstanceId"]: each["State"]["Name"] for each in _described_in_turn(aws, "instance-id", ids)}


def reasons(aws: Aws, ids: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Why instances changed their state, in EC2's words: its code and its sentence. Raises ClusterError."""
    told = {each["InstanceId"]: each.get("StateReason", {}) for each in _described_in_turn(aws, "instance-id", ids)}
    return {each: (why.get("Code", ""), why.get("Message", "")) for each, why in told.items()}


def terminate(aws: Aws, ids: list[str]) -> None:
    """End instances; one that EC2 refuses to end, or does not know yet, does not keep the others."""
    failure = None
    for some in _batches(ids):
        try:
            aws.ec2.terminate_instances(InstanceIds=some)
        except ClientError as error:
            failure = _terminate_each(aws, some, error) or failure
    if failure:
        raise failure


def _terminate_each(aws: Aws, ids: list[str], error: ClientError) -> ClientError | None:
    """One by one, after all together had an error; the last error that matters."""
    if len(ids) == 1:
        return None if code_of(error) == "InvalidInstanceID.NotFound" else error
    failure = None
    for each in ids:
        try:
            terminate(aws, [each])
        except ClientError as error:
            failure = error
    return failure


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


def _with_groups(aws: Aws, cluster: str, left: tuple[str, ...], known: Iterable[str]) -> tuple[str, ...]:
    """What is left, and the security groups that wait for it."""
    found = set(known)
    with contextlib.suppress(Exception):
        found = {each.id for each in groups(aws, cluster)}
    return (*left, *sorted(found - set(left)))


def refuse_leftovers(ending: Ending, region: str, deadline: float, cluster: str = "") -> None:
    """Raises InstancesLeft when something remains."""
    if not ending.left:
        return
    until = f" Instances end themselves by {moment(deadline)}." if deadline else ""
    again = f"dask-classify reap --region {region}" + (f" --cluster {cluster}" if cluster else "")
    if all(each.startswith(_PERHAPS) for each in ending.left):
        names = ", ".join(each.removeprefix(_PERHAPS) for each in ending.left)
        raise InstancesLeft(
            f"EC2 did not answer whether it started {names} in {region}, and lists nothing so far.{until}",
            f"They may have been started, with the tag {CLUSTER}={cluster}: `{again}` looks again; try it in a while.",
        )
    raise InstancesLeft(
        f"Still there in {region}: {', '.join(ending.left)}.{until}",
        f"Try `{again}` in a while, or end them in the AWS console.",
    )
