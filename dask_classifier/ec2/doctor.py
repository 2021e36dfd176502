"""Looks whether this machine and an AWS account can do a run on EC2; starts nothing."""

import datetime
import email.utils
import re
from collections.abc import Iterator
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError

from .. import storage
from ..errors import ClusterError, DaskClassifyError
from . import boot, placement, prices
from .aws import Aws, code_of, explained
from .launcher import Fleet
from .roles import user_data
from .spec import ClusterSpec

_CLOCK_SECONDS = 240  # AWS refuses requests that are five minutes off
_QUOTAS = {"on-demand": "L-1216C47A", "spot": "L-34B43A08"}  # vCPUs of standard instances: families A C D H I M R T Z
_STANDARD = re.compile(r"[acdhimrtz][0-9].*")


@dataclass(frozen=True)
class Finding:
    """One line of the examination. `good` is None where it could not be looked at, and a run may work."""

    what: str
    good: bool | None
    text: str
    hint: str = ""


def examine(spec: ClusterSpec, output: str | None) -> Iterator[Finding]:
    """Each finding as soon as it is there; what needs something that failed is left out."""
    try:
        aws = Aws(spec.region)
        yield Finding("region", True, aws.region)
        yield _credentials(aws)
    except DaskClassifyError as error:
        yield Finding("credentials" if isinstance(error, ClusterError) else "region", False, error.message, error.hint)
        return
    yield from _guarded("clock", _clock, aws)
    found: list[placement.Ground] = []
    yield from _guarded("network and machines", _ground, aws, spec, found)
    yield from _guarded("image", _image, aws, spec)
    yield from _guarded("instance profile", _profile, aws, spec)
    if found:
        yield from _guarded("quota", _quota, aws, spec, found[0])
        yield from _guarded("launch", _launch, aws, spec, found[0])
        yield from _guarded("price", _price, aws, spec, found[0])
    yield from _guarded("output", _output, output)
    if output and "://" in output:
        yield _uploads(output)


def _guarded(what: str, check, *arguments) -> Iterator[Finding]:
    try:
        yield check(*arguments)
    except DaskClassifyError as error:
        yield Finding(what, False, error.message, error.hint)


def _credentials(aws: Aws) -> Finding:
    with explained("AWS does not take the credentials"):
        return Finding("credentials", True, aws.client("sts").get_caller_identity()["Arn"])


def _clock(aws: Aws) -> Finding:
    with explained("The time cannot be compared with AWS's"):
        told = aws.client("sts").get_caller_identity()["ResponseMetadata"]["HTTPHeaders"]["date"]
    theirs = email.utils.parsedate_to_datetime(told)
    off = (datetime.datetime.now(datetime.UTC) - theirs).total_seconds()
    if abs(off) > _CLOCK_SECONDS:
        return Finding("clock", False, f"it is {off:.0f} s off; AWS refuses requests", "Set this machine's clock.")
    return Finding("clock", True, f"within {max(1, abs(off)):.0f} s of AWS's")


def _ground(aws: Aws, spec: ClusterSpec, found: list[placement.Ground]) -> Finding:
    here = placement.look(aws, spec)
    found.append(here)
    zones = sorted({offer.zone for offer in here.offers["worker"]})
    let_in = f"open to {here.caller}" if here.caller else f"with {', '.join(spec.security_group)}"
    types = ", ".join(f"{name} ({here.vcpus[name]} vCPUs)" for name in spec.instance_type if name in here.vcpus)
    return Finding(
        "network and machines",
        True,
        f"{types} in {len(zones)} zones of {here.vpc}, {let_in}; AMI {here.ami} ({here.architecture}), "
        f"disks of {here.disk_gib} GiB",
    )


def _image(aws: Aws, spec: ClusterSpec) -> Finding:
    private = boot.ECR.fullmatch(spec.image)
    if not private:
        return Finding("image", None, f"{spec.image} is well formed; whether it can be pulled is not looked at")
    if not spec.instance_profile:
        return Finding(
            "image",
            False,
            f"{spec.image} is private, and the machines have no rights to pull it",
            "Give --instance-profile.",
        )
    _, account, region, name, tag, digest = private.groups()
    wanted = {"imageDigest": digest} if digest else {"imageTag": tag or "latest"}
    with explained(f"The image {spec.image} cannot be found"):
        try:
            Aws(region).client("ecr").describe_images(registryId=account, repositoryName=name, imageIds=[wanted])
        except ClientError as error:
            if not code_of(error).startswith("AccessDenied"):
                raise
            return Finding("image", None, f"you may not look at {spec.image}; the machines' own rights count")
    return Finding("image", True, spec.image)


def _profile(aws: Aws, spec: ClusterSpec) -> Finding:
    if not spec.instance_profile:
        lent = "none: the machines get temporary credentials of yours, over TLS"
        if aws.credentials().token:
            return Finding("instance profile", None, f"{lent}; those of your session may end before a long run does")
        return Finding("instance profile", True, lent)
    name = spec.instance_profile.rpartition("/")[2]
    with explained(f"The instance profile {name} cannot be looked up"):
        roles = aws.client("iam").get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]
    if not roles:
        return Finding("instance profile", False, f"{name} has no role", "`dask-classify doctor --policy` shows one.")
    return Finding("instance profile", True, f"{name}, with the role {roles[0]['RoleName']}")


def _quota(aws: Aws, spec: ClusterSpec, here: placement.Ground) -> Finding:
    """vCPUs that the run needs against the account's quota."""
    market = "spot" if spec.spot else "on-demand"
    kind, boss = here.offers["worker"][0].type, here.offers["scheduler"][0].type
    if not _STANDARD.match(kind):
        return Finding("quota", None, f"that of {kind} is not looked at")
    vcpus = spec.workers * here.vcpus[kind] + (0 if spec.spot else here.vcpus.get(boss, 2))
    try:
        told = aws.client("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode=_QUOTAS[market])
    except (ClientError, BotoCoreError) as error:
        return Finding("quota", None, f"{vcpus} vCPUs are needed; the quota is not told ({code_of(error) or error})")
    limit = told["Quota"]["Value"]
    if vcpus > limit:
        return Finding(
            "quota",
            False,
            f"{vcpus} vCPUs are needed, {limit:.0f} allowed",
            "Ask AWS for more, or for fewer --workers.",
        )
    return Finding("quota", True, f"{vcpus} of {limit:.0f} vCPUs, if nothing else runs")


def _launch(aws: Aws, spec: ClusterSpec, here: placement.Ground) -> Finding:
    """EC2's own dry run: the rights, PassRole, the key pair, the user data."""
    fleet = Fleet(aws, spec, here, "doctor", lambda text: None)
    fleet.group_ids = list(spec.security_group)
    own = boot.tls(days=1)
    script = max(
        (
            user_data(spec, own, role, "doctor", aws.region, "tls://255.255.255.255:8786", 1440)
            for role in ("scheduler", "worker")
        ),
        key=len,
    )
    request = fleet.request("worker", "doctor", script, here.offers["worker"][0], "doctor")
    # tagged as the launch is: the policy lets nobody make a group that it would not let them delete
    tags = [{"ResourceType": "security-group", "Tags": request["TagSpecifications"][0]["Tags"]}]
    group = {"GroupName": "dask-classify-doctor", "Description": "dry run", "VpcId": here.vpc}
    with explained("The security group could not be made"):
        _dry(aws.ec2.create_security_group, **group, TagSpecifications=tags)
    with explained("A machine could not be started"):
        _dry(aws.ec2.run_instances, **request)
    return Finding("launch", True, f"allowed; user data of {len(script):,} bytes of {boot.USER_DATA_LIMIT:,}")


def _dry(call, **arguments) -> None:
    try:
        call(**arguments, DryRun=True)
    except ClientError as error:
        if code_of(error) != "DryRunOperation":
            raise


def _price(aws: Aws, spec: ClusterSpec, here: placement.Ground) -> Finding:
    found = prices.hourly(aws, spec, here, spec.workers)
    return Finding("price", True if found.dollars else None, f"{found}")


def _output(output: str | None) -> Finding:
    if not output:
        return Finding("output", None, "not looked at: give --output s3://bucket/folder")
    if "://" not in output:
        return Finding("output", False, f"{output} is on this machine", "Give --output s3://bucket/folder.")
    probe = storage.join(output, ".dask-classify-doctor")
    storage.write(probe, b"written by dask-classify doctor")
    storage.delete(probe)
    return Finding("output", True, f"{output} can be written from here")


def _uploads(output: str) -> Finding:
    """What killed runs left of large objects: invisible, and paid for. No reason for a run to fail."""
    try:
        found = storage.unfinished_uploads(output)
    except DaskClassifyError as error:
        return Finding("uploads", None, error.message, "The caller may need s3:ListBucketMultipartUploads.")
    if not found:
        return Finding("uploads", True, f"no unfinished uploads below {output}")
    since = datetime.datetime.fromtimestamp(min(each.began for each in found), datetime.UTC)
    return Finding(
        "uploads",
        None,
        f"{len(found)} unfinished below {output}, since {since:%Y-%m-%d %H:%M} UTC; their parts are billed",
        f"If no run is writing there: dask-classify reap --output {output}",
    )
