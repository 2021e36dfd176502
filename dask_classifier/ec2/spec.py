"""What machines are asked for: the options of an EC2 cluster, checked before anything is started."""

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .. import templating
from ..config import configured
from ..errors import UsageError
from ..units import format_seconds, parse_count, parse_seconds

INSTANCE_TYPES = ("c7i.large", "c6i.large", "c5.large")  # fit the 5 vCPUs that a new account may use
SCHEDULER_TYPES = {"x86_64": ("t3.small", "t3a.small"), "arm64": ("t4g.small", "m6g.medium")}
TAG_PREFIX = "dask-classify:"
DISK_GIB = 40
_TIMES = ("deadline", "bring_up_limit", "idle_timeout", "teardown_limit")
_IDLE_LEAST = 600.0  # seconds; a connected client that only waits counts as idle
_IMAGE = re.compile(r"[a-z0-9]([a-z0-9._:/-]*[a-z0-9])?(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?", re.ASCII)
_INSTANCE_TYPE = re.compile(r"[a-z0-9-]+\.[a-z0-9-]+")
_PROFILE = re.compile(r"(arn:aws[\w-]*:iam::\d{12}:instance-profile/)?[\w+=,.@/-]+")
_LONGEST = 30 * 86_400.0  # seconds, of each time
_MOST_TAGS = 40  # of the 50 that AWS allows


@dataclass(frozen=True)
class ClusterSpec:
    """The machines of one cluster, as somebody asked for them.

    Times are in seconds. `deadline` is when instances end themselves, counted from the start of the cluster;
    `bring_up_limit` how long the scheduler and the first `min_workers` workers may take; `idle_timeout` how long
    the scheduler stays without work. Empty means: what AWS or the account has by default.
    """

    workers: int = 1
    image: str = ""
    region: str | None = None
    instance_type: tuple[str, ...] = INSTANCE_TYPES
    scheduler_instance_type: tuple[str, ...] = ()
    ami: str | None = None
    instance_profile: str | None = None
    subnet: tuple[str, ...] = ()
    security_group: tuple[str, ...] = ()
    private_ip: bool = False
    spot: bool = False
    deadline: float = 7200.0
    bring_up_limit: float = 600.0
    idle_timeout: float = _IDLE_LEAST
    teardown_limit: float = 300.0
    min_workers: int = 1
    processes_per_worker: int | None = None
    key_name: str | None = None
    tag: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None  # of a cluster that stays, for `up` and `down`
    profile: bool = False

    def _repr_html_(self) -> str:
        values = {each.name.replace("_", " "): getattr(self, each.name) for each in fields(self)}
        shown = {name: _in_words(value) for name, value in values.items() if value not in (None, (), {}, "", False)}
        return templating.table("ClusterSpec", shown)

    @classmethod
    def of(cls, **options: Any) -> "ClusterSpec":
        """From words as people type them: `deadline="2h"`, `tag=["team=data"]`. Raises UsageError."""
        if unknown := set(options) - {each.name for each in fields(cls)}:
            raise UsageError(f"An EC2 cluster has no option {sorted(unknown)[0]}.", "See `help(dc.EC2Cluster)`.")
        given = {name: value for name, value in options.items() if value not in (None, "", (), [])}
        for name in _TIMES:
            if name in given:
                given[name] = parse_seconds(given[name], name if name == "deadline" else f"time for {_option(name)}")
        for name in ("instance_type", "scheduler_instance_type", "subnet", "security_group"):
            if name in given:
                given[name] = _words(given[name])
        for name in ("workers", "min_workers", "processes_per_worker"):
            if name in given:
                given[name] = parse_count(given[name], f"number for {_option(name)}")
        if "tag" in given:
            given["tag"] = _tags(given["tag"])
        given.setdefault("idle_timeout", max(_IDLE_LEAST, given.get("bring_up_limit", cls.bring_up_limit) + 300))
        spec = cls(**given)
        spec.check()
        return spec

    def check(self) -> None:
        """Raises UsageError for what AWS would refuse, or what could not be written into a shell script."""
        if not self.image:
            raise UsageError(
                "EC2 needs a Docker image to run.",
                "Build and push one with `make push IMAGE=registry/name:tag`, then give --image, "
                "or `dask-classifier: {image: ...}` in Dask's configuration.",
            )
        _must(_IMAGE, self.image.lower() if "@" not in self.image else self.image, "image", "registry/name:tag")
        for name in (*self.instance_type, *self.scheduler_instance_type):
            _must(_INSTANCE_TYPE, name, "instance type", "c7i.4xlarge, or several with commas between")
        for what, value, shape, example in (
            ("AMI", self.ami, r"ami-[0-9a-f]+", "ami-0123456789abcdef0"),
            ("instance profile", self.instance_profile, _PROFILE.pattern, "its name or its ARN"),
            *(("subnet", each, r"subnet-[0-9a-f]+", "subnet-0123456789abcdef0") for each in self.subnet),
            *(("security group", each, r"sg-[0-9a-f]+", "sg-0123456789abcdef0") for each in self.security_group),
        ):
            if value:
                _must(re.compile(shape), value, what, example)
        self._check_numbers()

    def _check_times(self) -> None:
        for name in _TIMES:
            if (value := getattr(self, name)) > _LONGEST:
                raise UsageError(
                    f"{_option(name)} {value / 3600:,.0f}h is longer than 30 days.", "Give a shorter time: 48h."
                )

    def _check_numbers(self) -> None:
        self._check_times()
        if self.workers < 1:
            raise UsageError(f"A cluster of {self.workers} workers cannot work.", "Ask for at least one: --workers 1.")
        if not 1 <= self.min_workers <= self.workers:
            raise UsageError(
                f"--min-workers {self.min_workers} does not fit --workers {self.workers}.",
                "Give a number from 1 to the number of workers.",
            )
        if self.processes_per_worker is not None and self.processes_per_worker < 1:
            raise UsageError(
                f"{self.processes_per_worker} processes per worker cannot work.", "Give at least 1, or leave it out."
            )
        if self.deadline <= self.bring_up_limit:
            raise UsageError(
                f"The deadline ({self.deadline:.0f} s) is not after the bring-up limit ({self.bring_up_limit:.0f} s).",
                "Give a later --deadline, or a shorter --bring-up-limit.",
            )


def spec_of(workers: int | None, options: dict) -> ClusterSpec:
    """Keywords over Dask's configuration."""
    names = {each.name for each in fields(ClusterSpec)} - {"name"}
    found = {name: value for name, value in configured().items() if name in names}
    given = {"workers": workers} | options
    return ClusterSpec.of(**found | {name: value for name, value in given.items() if value is not None})


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _in_words(value: object) -> str:
    if isinstance(value, float):
        return format_seconds(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={text}" for key, text in value.items())
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _must(pattern: re.Pattern, value: str, what: str, example: str) -> None:
    if not pattern.fullmatch(value) or shlex.quote(value) != value:
        raise UsageError(f"{value!r} is no {what}.", f"Write {example}.")


def _words(value: str | Iterable[str]) -> tuple[str, ...]:
    """From "a,b" or ["a", "b"]."""
    texts = [value] if isinstance(value, str) else list(value)
    return tuple(word.strip() for text in texts for word in str(text).split(",") if word.strip())


def _tags(value: Mapping[str, str] | Iterable[str] | str) -> dict[str, str]:
    """From {"team": "data"} or ["team=data"]. Raises UsageError."""
    if isinstance(value, Mapping):
        tags = {str(key): str(text) for key, text in value.items()}
    else:
        pairs = [str(text).partition("=") for text in ([value] if isinstance(value, str) else value)]
        for key, equals, _ in pairs:
            if not equals:
                raise UsageError(f"{key!r} is no tag.", "Write --tag name=value.")
        tags = {key: text for key, _, text in pairs}
    for key, text in tags.items():
        if (
            not key
            or len(key) > 128
            or len(text) > 256
            or key.lower().startswith(("aws:", TAG_PREFIX))
            or key == "Name"
        ):
            raise UsageError(
                f"{key!r} cannot be a tag's name, or its value is too long.",
                f"Names have 1 to 128 letters, values up to 256; Name, aws: and {TAG_PREFIX} are taken.",
            )
    if len(tags) > _MOST_TAGS:
        raise UsageError(f"{len(tags)} tags are too many.", f"Give at most {_MOST_TAGS}.")
    return tags
