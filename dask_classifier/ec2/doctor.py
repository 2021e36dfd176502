"""Checks that a run on EC2 would succeed, without launching anything."""

import datetime
import email.utils
import re
from collections.abc import Iterator
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError

from .. import s3, storage
from ..environment.archive import Archive
from ..errors import ClusterError, DaskClassifyError
from ..units import count_of
from . import boot, prices
from .aws import Aws, code_of, explained
from .launcher import Fleet
from .packages import installation, packed_for
from .placement import Placement, find_placement
from .spec import ClusterSpec

_CLOCK_SECONDS = 240  # AWS refuses requests whose time is five minutes off
_QUOTAS = {"on-demand": "L-1216C47A", "spot": "L-34B43A08"}  # vCPUs of standard instances: families A C D H I M R T Z
_STANDARD = re.compile(r"[acdhimrtz][0-9].*")


@dataclass(frozen=True)
class Finding:
    """The outcome of one check. `good` is None if it could not be checked, so that a run may succeed."""

    what: str
    good: bool | None
    text: str
    hint: str = ""


def examine(spec: ClusterSpec, output: str | None) -> Iterator[Finding]:
    """Yield each finding as soon as it is known. Checks that depend on a failed one are skipped."""
    try:
        aws = Aws(spec.region)
        yield Finding("region", True, aws.region)
        yield _credentials(aws)
    except DaskClassifyError as error:
        yield Finding("credentials" if isinstance(error, ClusterError) else "region", False, error.message, error.hint)
        return
    yield from _guarded("clock", _clock, aws)
    placements: list[Placement] = []
    yield from _guarded("network and instances", _placement, aws, spec, placements)
    if spec.image:
        yield from _guarded("image", _image, spec)
    for placement in () if spec.image else placements:
        yield from _guarded("packages", _packages, spec, placement)
    yield from _guarded("instance profile", _profile, aws, spec)
    for placement in placements:
        yield from _guarded("quota", _quota, aws, spec, placement)
        yield from _guarded("launch", _launch, aws, spec, placement)
        yield from _guarded("price", _price, aws, spec, placement)
    yield from _guarded("output", _output, output)
    if output and _is_reached(output) and s3.is_s3(output):
        yield _uploads(output)


def _guarded(what: str, check, *arguments) -> Iterator[Finding]:
    try:
        yield check(*arguments)
    except DaskClassifyError as error:
        yield Finding(what, False, error.message, error.hint)


def _credentials(aws: Aws) -> Finding:
    with explained("AWS does not accept the credentials"):
        return Finding("credentials", True, aws.client("sts").get_caller_identity()["Arn"])


def _clock(aws: Aws) -> Finding:
    with explained("Cannot compare the clock with AWS's"):
        date = aws.client("sts").get_caller_identity()["ResponseMetadata"]["HTTPHeaders"]["date"]
    theirs = email.utils.parsedate_to_datetime(date)
    off = (datetime.datetime.now(datetime.UTC) - theirs).total_seconds()
    if abs(off) > _CLOCK_SECONDS:
        return Finding(
            "clock", False, f"it is off by {off:.0f} s, so that AWS refuses requests", "Set this computer's clock."
        )
    return Finding("clock", True, f"within {max(1, abs(off)):.0f} s of AWS's")


def _placement(aws: Aws, spec: ClusterSpec, placements: list[Placement]) -> Finding:
    """Look up where to launch instances, and append it to `placements` for the checks that follow."""
    here = find_placement(aws, spec)
    placements.append(here)
    zones = count_of(len({offer.zone for offer in here.offers["worker"]}), "zone")
    access = f"open to {here.caller}" if here.caller else f"with {', '.join(spec.security_group)}"
    types = ", ".join(f"{name} ({here.vcpus[name]} vCPUs)" for name in spec.instance_type if name in here.vcpus)
    return Finding(
        "network and instances",
        True,
        f"{types} in {zones} of {here.vpc}, {access}; AMI {here.ami} ({here.architecture}), "
        f"volumes of {here.disk_gib} GiB",
    )


def _packages(spec: ClusterSpec, placement: Placement) -> Finding:
    with packed_for(spec, placement.architecture) as (locked, _):
        return Finding("packages", True, f"{len(locked.lines)} are installed in {spec.container_image}")


def _image(spec: ClusterSpec) -> Finding:
    ecr_image = boot.ECR.fullmatch(spec.image)
    if not ecr_image:
        return Finding("image", None, f"{spec.image} is a valid name; whether it can be pulled is not checked")
    if not spec.instance_profile:
        return Finding(
            "image",
            False,
            f"{spec.image} is private, and the instances have no permission to pull it",
            "Use --instance-profile.",
        )
    _, account, region, name, tag, digest = ecr_image.groups()
    image = {"imageDigest": digest} if digest else {"imageTag": tag or "latest"}
    with explained(f"Cannot find the image {spec.image}"):
        try:
            Aws(region).client("ecr").describe_images(registryId=account, repositoryName=name, imageIds=[image])
        except ClientError as error:
            if not code_of(error).startswith("AccessDenied"):
                raise
            return Finding("image", None, f"you may not describe {spec.image}; the instances' own permissions count")
    return Finding("image", True, spec.image)


def _profile(aws: Aws, spec: ClusterSpec) -> Finding:
    if not spec.instance_profile:
        none = "none: the workers get temporary credentials of yours, over TLS"
        if aws.credentials().token:
            return Finding("instance profile", None, f"{none}; those of your session may expire during a long run")
        return Finding("instance profile", True, none)
    name = spec.instance_profile.rpartition("/")[2]
    with explained(f"Cannot look up the instance profile {name}"):
        roles = aws.client("iam").get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]
    if not roles:
        hint = "Add a role with the policy that `dask-classify doctor --policy` prints."
        return Finding("instance profile", False, f"{name} has no role", hint)
    return Finding("instance profile", True, f"{name}, with the role {roles[0]['RoleName']}")


def _quota(aws: Aws, spec: ClusterSpec, placement: Placement) -> Finding:
    """Compare the vCPUs that the run needs with the account's quota."""
    market = "spot" if spec.spot else "on-demand"
    worker_type, scheduler_type = placement.offers["worker"][0].type, placement.offers["scheduler"][0].type
    if not _STANDARD.match(worker_type):
        return Finding("quota", None, f"the quota of {worker_type} is not checked")
    vcpus = spec.workers * placement.vcpus[worker_type] + (0 if spec.spot else placement.vcpus.get(scheduler_type, 2))
    try:
        quota = aws.client("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode=_QUOTAS[market])
    except (ClientError, BotoCoreError) as error:
        return Finding("quota", None, f"{vcpus} vCPUs needed; the quota is unknown ({code_of(error) or error})")
    limit = quota["Quota"]["Value"]
    if vcpus > limit:
        return Finding(
            "quota",
            False,
            f"{vcpus} vCPUs needed, {limit:.0f} allowed",
            "Ask AWS for a higher quota, or use fewer --workers.",
        )
    return Finding("quota", True, f"{vcpus} of {limit:.0f} vCPUs, if nothing else is running")


def _launch(aws: Aws, spec: ClusterSpec, placement: Placement) -> Finding:
    """Make EC2's own dry runs, which check permissions, PassRole, the key pair and the user data."""
    fleet = Fleet(aws, spec, placement, "doctor", lambda text: None)
    fleet.group_ids = list(spec.security_group)
    script = max((_user_data(aws, spec, role) for role in ("scheduler", "worker")), key=len)
    request = fleet.request("worker", "doctor", script, placement.offers["worker"][0], "doctor")
    # With the tags of a launch: the policy does not allow creating a group that it does not allow deleting.
    tags = [{"ResourceType": "security-group", "Tags": request["TagSpecifications"][0]["Tags"]}]
    group = {"GroupName": "dask-classify-doctor", "Description": "dry run", "VpcId": placement.vpc}
    if not spec.security_group:
        with explained("A security group could not be created"):
            _dry_run(aws.ec2.create_security_group, **group, TagSpecifications=tags)
    with explained("An instance could not be launched"):
        _dry_run(aws.ec2.run_instances, **request)
    return Finding("launch", True, f"allowed; user data of {len(script):,} bytes of {boot.USER_DATA_LIMIT:,}")


def _user_data(aws: Aws, spec: ClusterSpec, role: str) -> str:
    stored = Archive(f"{spec.staging}/environment-{'0' * 16}.zip", "0" * 64, "", 0)
    return boot.user_data(
        spec, boot.tls(days=1), role=role, cluster="doctor", name=role, region=aws.region,
        scheduler="tls://255.255.255.255:8786", launched=1e9, deadline=1e9,
        installation=[] if spec.image else installation(stored, aws, 2e9),
    )  # fmt: skip


def _dry_run(call, **arguments) -> None:
    try:
        call(**arguments, DryRun=True)
    except ClientError as error:
        if code_of(error) != "DryRunOperation":
            raise


def _price(aws: Aws, spec: ClusterSpec, placement: Placement) -> Finding:
    price = prices.hourly(aws, spec, placement, spec.workers)
    return Finding("price", True if price.dollars else None, f"{price}")


def _output(output: str | None) -> Finding:
    if not output:
        return Finding("output", None, "not checked: give --output s3://bucket/folder")
    if not _is_reached(output):
        return Finding("output", False, f"{output} is on this computer", "Use --output s3://bucket/folder.")
    probe = storage.join(output, ".dask-classify-doctor")
    storage.write(probe, b"written by dask-classify doctor")
    storage.delete(probe)
    return Finding("output", True, f"{output} can be written to from this computer")


def _is_reached(output: str) -> bool:
    """Return whether an instance may reach a URL."""
    return "://" in output and not storage.is_local(output) and not output.startswith("memory:")


def _uploads(output: str) -> Finding:
    """Look for unfinished uploads left by killed runs, which are invisible and billed, but do not affect a run."""
    try:
        uploads = s3.unfinished_uploads(output)
    except DaskClassifyError as error:
        return Finding("uploads", None, error.message, "Check that you are allowed s3:ListBucketMultipartUploads.")
    if not uploads:
        return Finding("uploads", True, f"no unfinished uploads below {output}; {_cleaned(output)}")
    since = datetime.datetime.fromtimestamp(min(upload.began for upload in uploads), datetime.UTC)
    return Finding(
        "uploads",
        None,
        f"{count_of(len(uploads), 'unfinished upload')} below {output}, billed since {since:%Y-%m-%d %H:%M} UTC; "
        f"{_cleaned(output)}",
        f"If no run is writing there, run `dask-classify reap --output {output}`.",
    )


def _cleaned(output: str) -> str:
    """Say whether the bucket deletes unfinished uploads by itself."""
    try:
        days = s3.days_of_unfinished_uploads(output)
    except DaskClassifyError:
        return "whether the bucket deletes them by itself is not known (s3:GetLifecycleConfiguration)"
    return (
        f"the bucket deletes them after {count_of(days, 'day')}" if days else "the bucket has no rule that deletes them"
    )
