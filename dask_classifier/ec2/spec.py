"""The options of an EC2 cluster, checked before anything is launched."""

import platform
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from .. import templating
from ..classifier.requirements import pinned
from ..config import configured
from ..errors import UsageError
from ..units import format_seconds, parse_count, parse_dollars, parse_seconds

INSTANCE_TYPES = ("c7i.large", "c6i.large", "c5.large")  # within the 5 vCPUs that a new account may use
SCHEDULER_TYPES = {"x86_64": ("t3.small", "t3a.small"), "arm64": ("t4g.small", "m6g.medium")}
TAG_PREFIX = "dask-classify:"
DISK_GIB = 40
PYTHON = ".".join(platform.python_version_tuple()[:2])  # this minor version: functions travel as its bytecode
# Docker's official image of Python, from AWS's registry, which needs no account and limits nobody on EC2.
BASE_IMAGE = "public.ecr.aws/docker/library/python:{}-slim"  # with the client's minor version
_TIMES = ("deadline", "bring_up_limit", "idle_timeout", "teardown_limit")
_IDLE_TIMEOUT = 600.0  # seconds; a connected client without tasks counts as idle
_IMAGE = re.compile(r"[a-z0-9]([a-z0-9._:/-]*[a-z0-9])?(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?", re.ASCII)
_INSTANCE_TYPE = re.compile(r"[a-z0-9-]+\.[a-z0-9-]+")
_PROFILE = re.compile(r"(arn:aws[\w-]*:iam::\d{12}:instance-profile/)?[\w+=,.@/-]+")
_INDEX = re.compile(r"https?://[\w.:/~%-]+", re.ASCII)
ONLY_WITHOUT_IMAGE = ("base_image", "requirements", "with_env", "index_url", "wheels")
NO_STAGING = "s3://(none)"  # where nothing is launched; no bucket can have this name
_MAX_TIME = 30 * 86_400.0  # seconds, for each time
_MAX_TAGS = 40  # of the 50 that AWS allows


@dataclass(frozen=True)
class ClusterSpec:
    """The options of an EC2 cluster.

    For empty values, the defaults of AWS or of the account apply.

    Parameters
    ----------
    workers : int
        Number of workers, one instance each.
    image : str, optional
        Docker image that all instances run. Default: an image of Python, in which they install what is installed here.
    base_image : str, optional
        Image of Python that instances without an `image` run. Default: the official one of this minor version.
    requirements : tuple of str
        What the classifier needs, such as "scikit-learn"; instances without an `image` install it.
    with_env : bool
        Whether all packages that are installed here are installed there, too.
    index_url : str, optional
        Package index, here and for these instances. Default: that of pip's configuration here, and PyPI there.
    wheels : bool
        Whether all wheels are sent through the bucket, so that these instances need no package index.
    staging : str, optional
        s3:// URL below which the environment of these instances is stored.
    region : str, optional
        AWS region.
    instance_type, scheduler_instance_type : tuple of str
        Instance types of the workers and of the scheduler; the next one is used if EC2 has no capacity.
    ami : str, optional
        AMI with Docker. Default: the newest Amazon Linux with Docker.
    instance_profile : str, optional
        Instance profile with access to S3. Default: workers get temporary credentials of the caller.
    subnet, security_group : tuple of str
        Subnets, and security groups instead of a new one that admits only the caller's IP address.
    private_ip : bool
        Whether instances have no public IP addresses.
    spot : bool
        Whether workers are spot instances, or on-demand instances if there are none.
    deadline : float
        Seconds from the start of the cluster after which instances shut themselves down.
    bring_up_limit : float
        Seconds that the scheduler and the first `min_workers` workers have to get ready.
    idle_timeout : float
        Seconds without work after which the scheduler exits.
    teardown_limit : float
        Seconds for terminating all instances.
    min_workers : int
        Number of workers that must have joined before a run starts.
    processes_per_worker : int, optional
        Classifier processes per worker. Default: one per vCPU.
    price : float, optional
        $ per hour of one worker, instead of AWS's or of the package's table.
    key_name : str, optional
        EC2 key pair for ssh.
    tag : mapping of str to str
        Tags of all instances.
    name : str, optional
        Name of a cluster of `dask-classify up`.
    detached : str, optional
        Output of the run that the cluster does by itself, for `dask-classify run --detach`.
    profile : bool
        Whether Dask's statistical profiler runs.
    """

    workers: int = 1
    image: str = ""
    base_image: str = ""
    requirements: tuple[str, ...] = ()
    with_env: bool = False
    index_url: str | None = None
    wheels: bool = False
    staging: str | None = None
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
    idle_timeout: float = _IDLE_TIMEOUT
    teardown_limit: float = 300.0
    min_workers: int = 1
    processes_per_worker: int | None = None
    price: float | None = None
    key_name: str | None = None
    tag: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None  # of a cluster of `up`
    detached: str | None = None  # output of the run that the cluster does by itself
    profile: bool = False

    def _repr_html_(self) -> str:
        values = {field.name.replace("_", " "): getattr(self, field.name) for field in fields(self)}
        shown = {name: _format(value) for name, value in values.items() if value not in (None, (), {}, "", False)}
        return templating.table("ClusterSpec", shown)

    @classmethod
    def of(cls, **options: Any) -> "ClusterSpec":
        """Parse options as people type them: `deadline="2h"`, `tag=["team=data"]`.

        Parameters
        ----------
        **options
            The options of `dask-classify up`, with underscores. Those that are empty keep their defaults.

        Raises
        ------
        UsageError
            If an option is unknown or has an invalid value.
        """
        if unknown := set(options) - {field.name for field in fields(cls)}:
            raise UsageError(f"An EC2 cluster has no option {sorted(unknown)[0]}.", "See `help(dc.EC2Cluster)`.")
        given = {name: value for name, value in options.items() if value not in (None, "", (), [])}
        for name in _TIMES:
            if name in given:
                given[name] = parse_seconds(given[name], name if name == "deadline" else f"time for {_option(name)}")
        for name in ("instance_type", "scheduler_instance_type", "subnet", "security_group"):
            if name in given:
                given[name] = _split(given[name])
        given |= {"requirements": _requirements(given["requirements"])} if "requirements" in given else {}
        for name in ("workers", "min_workers", "processes_per_worker"):
            if name in given:
                given[name] = parse_count(given[name], f"number for {_option(name)}")
        if "price" in given:
            given["price"] = parse_dollars(given["price"], "price", "--price 0.35, per hour of one worker")
        if "tag" in given:
            given["tag"] = _tags(given["tag"])
        given.setdefault("idle_timeout", max(_IDLE_TIMEOUT, given.get("bring_up_limit", cls.bring_up_limit) + 300))
        spec = cls(**given)
        spec.check()
        return spec

    @classmethod
    def defaults(cls) -> "ClusterSpec":
        """Return the options of Dask's configuration; a bucket is not needed as long as nothing is launched."""
        settings = configured()
        return spec_of(settings.get("min_workers"), {} if settings.get("image") else {"staging": NO_STAGING})

    def check(self) -> None:
        """Raise UsageError if AWS would refuse a value, or if a value could break the shell script of the user data."""
        self._check_environment()
        for image, what in ((self.image, "image"), (self.base_image, "base image")):
            if image:
                check_image(image, what)
        for name in (*self.instance_type, *self.scheduler_instance_type):
            _check_form(_INSTANCE_TYPE, name, "instance type", "c7i.4xlarge, or several types separated by commas")
        for what, value, shape, example in (
            ("AMI", self.ami, r"ami-[0-9a-f]+", "ami-0123456789abcdef0"),
            ("instance profile", self.instance_profile, _PROFILE.pattern, "its name or its ARN"),
            *(("subnet", id, r"subnet-[0-9a-f]+", "subnet-0123456789abcdef0") for id in self.subnet),
            *(("security group", id, r"sg-[0-9a-f]+", "sg-0123456789abcdef0") for id in self.security_group),
        ):
            if value:
                _check_form(re.compile(shape), value, what, example)
        self._check_numbers()

    @property
    def container_image(self) -> str:
        """The image that instances run."""
        return self.image or self.base_image or BASE_IMAGE.format(PYTHON)

    def _check_environment(self) -> None:
        """Raise UsageError if instances could not get their packages."""
        if not self.image and not self.staging:
            raise needs_a_bucket()
        if self.staging and not self.staging.startswith(("s3://", "s3a://")):
            raise UsageError(f"Instances cannot read {self.staging}.", "Use --staging s3://bucket/folder, or --image.")
        if self.index_url and not _INDEX.fullmatch(self.index_url):
            raise UsageError(
                f"{re.sub('//[^/]*@', '//...@', self.index_url)!r} is not the URL of an index that instances can use.",
                "Write https://host/simple, without a password: send the packages with --wheels instead.",
            )

    def _check_times(self) -> None:
        for name in _TIMES:
            if (value := getattr(self, name)) > _MAX_TIME:
                raise UsageError(
                    f"{_option(name)} {value / 3600:,.0f}h is longer than 30 days.", "Give a shorter time: 48h."
                )

    def _check_numbers(self) -> None:
        self._check_times()
        if self.workers < 1:
            raise UsageError(f"A cluster of {self.workers} workers is too small.", "Give at least one: --workers 1.")
        if not 1 <= self.min_workers <= self.workers:
            raise UsageError(
                f"--min-workers {self.min_workers} does not fit --workers {self.workers}.",
                "Give a number from 1 to the number of workers.",
            )
        if self.processes_per_worker is not None and self.processes_per_worker < 1:
            raise UsageError(
                f"{self.processes_per_worker} processes per worker is too few.",
                "Give at least 1, or leave --processes-per-worker out.",
            )
        if self.deadline <= self.bring_up_limit:
            raise UsageError(
                f"The deadline ({self.deadline:.0f} s) is not after the bring-up limit ({self.bring_up_limit:.0f} s).",
                "Give a later --deadline, or a shorter --bring-up-limit.",
            )


def spec_of(workers: int | None, options: dict) -> ClusterSpec:
    """Combine options with those of Dask's configuration, over which they take precedence.

    `n_workers` is Dask's name for `workers`.
    """
    names = {field.name for field in fields(ClusterSpec)} - {"name", "detached"}
    defaults = {name: value for name, value in configured().items() if name in names}
    given = {"workers": workers} | {"workers" if name == "n_workers" else name: options[name] for name in options}
    if given.get("image") and (useless := [name for name in ONLY_WITHOUT_IMAGE if given.get(name)]):
        raise UsageError(
            f"{_option(useless[0])} has no effect with an image: nothing is installed in it.",
            f"Leave {_option(useless[0])} or --image out.",
        )
    return ClusterSpec.of(**defaults | {name: value for name, value in given.items() if value is not None})


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _format(value: object) -> str:
    if isinstance(value, float):
        return format_seconds(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={text}" for key, text in value.items())
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def needs_a_bucket() -> UsageError:
    """Return the error where instances without an image have no way to get their packages."""
    return UsageError(
        "Without an image, instances get their packages through a bucket, and none is given.",
        "Use --staging s3://bucket/folder, or --image.",
    )


def check_image(name: str, what: str = "image") -> None:
    """Raise UsageError if no container image can have this name."""
    _check_form(_IMAGE, name, what, "registry/name:tag, in lower case before the colon")


def _check_form(pattern: re.Pattern, value: str, what: str, example: str) -> None:
    if not pattern.fullmatch(value) or shlex.quote(value) != value:
        raise UsageError(f"{value!r} is not a valid {what}.", f"Write {example}.")


def _requirements(value: str | Path | Iterable[str]) -> tuple[str, ...]:
    """Return the requirements of a file, or themselves."""
    return pinned(value) if isinstance(value, str | Path) else tuple(value)


def _split(value: str | Iterable[str]) -> tuple[str, ...]:
    """Return ("a", "b") from "a,b" or ["a", "b"]."""
    texts = [value] if isinstance(value, str) else list(value)
    return tuple(item.strip() for text in texts for item in str(text).split(",") if item.strip())


def _tags(value: Mapping[str, str] | Iterable[str] | str) -> dict[str, str]:
    """Return {"team": "data"} from itself or from ["team=data"]. Raises UsageError."""
    if isinstance(value, Mapping):
        tags = {str(key): str(text) for key, text in value.items()}
    else:
        pairs = [str(text).partition("=") for text in ([value] if isinstance(value, str) else value)]
        for key, equals, _ in pairs:
            if not equals:
                raise UsageError(f"{key!r} is not a tag.", "Write --tag name=value.")
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
                f"{key!r} cannot be the name of a tag, or its value is too long.",
                f"Use names of 1 to 128 characters, values of up to 256; not Name, aws:... or {TAG_PREFIX}...",
            )
    if len(tags) > _MAX_TAGS:
        raise UsageError(f"{len(tags)} tags are too many.", f"Give at most {_MAX_TAGS}.")
    return tags
