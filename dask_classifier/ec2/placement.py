"""What the account offers for the machines that are asked for: subnets, types, an AMI, and who may come in."""

import ipaddress
import urllib.request
from dataclasses import dataclass
from typing import Any

from distributed.utils import get_ip

from ..errors import ClusterError, UsageError
from .aws import Aws, explained
from .spec import DISK_GIB, INSTANCE_TYPES, SCHEDULER_TYPES, ClusterSpec

# Amazon Linux with Docker; a public parameter that AWS keeps current.
_AMI = "/aws/service/ecs/optimized-ami/amazon-linux-2023/{}recommended/image_id"
_CHECKIP = "https://checkip.amazonaws.com"


@dataclass(frozen=True)
class Offer:
    """One way of getting an instance."""

    market: str  # "spot" or "on-demand"
    type: str
    subnet: str
    zone: str


@dataclass(frozen=True)
class Ground:
    """Where a cluster will stand."""

    vpc: str
    ami: str
    root_device: str
    architecture: str
    vcpus: dict[str, int]  # by instance type
    offers: dict[str, tuple[Offer, ...]]  # by role, "scheduler" or "worker": the best first
    caller: str | None  # the network that may come in, such as 203.0.113.7/32; None with groups of the user's own
    disk_gib: int = DISK_GIB  # at least the AMI's own

    def processes(self, spec: ClusterSpec, instance: dict[str, Any] | None = None) -> int:
        """Classifier processes of one worker: of this instance (EC2's description), or else of the first offer."""
        first = self.offers["worker"][0].type
        return spec.processes_per_worker or self.vcpus.get((instance or {}).get("InstanceType", first), 1)

    def words(self, spec: ClusterSpec, workers: int) -> str:
        """The machines that are asked for first."""
        worker, boss = self.offers["worker"][0], self.offers["scheduler"][0]
        each = f"{workers} {worker.market} {worker.type} with {self.processes(spec)} processes each"
        return f"{each}, and a {boss.type} for the scheduler"


def look(aws: Aws, spec: ClusterSpec) -> Ground:
    """Ask AWS; starts nothing. Raises ClusterError or UsageError."""
    subnets = _subnets(aws, spec)
    vcpus, architecture = _types(aws, spec)
    schedulers = spec.scheduler_instance_type or SCHEDULER_TYPES[architecture]
    zones = _zones(aws, [*spec.instance_type, *schedulers])
    markets = ["spot", "on-demand"] if spec.spot else ["on-demand"]
    offers = {
        "scheduler": _offers(["on-demand"], (*schedulers, *spec.instance_type), subnets, zones),
        "worker": _offers(markets, spec.instance_type, subnets, zones),
    }
    for role, found in offers.items():
        if not found:
            raise ClusterError(
                f"No subnet in {aws.region} has machines for a {role}: {' or '.join(spec.instance_type)}.",
                "Give another --instance-type, or subnets in other zones (--subnet a,b).",
            )
    ami = spec.ami or _newest_ami(aws, architecture)
    vpc = next(iter(subnets.values()))["VpcId"]
    device, size = _root_disk(aws, ami)
    return Ground(vpc, ami, device, architecture, vcpus, offers, _caller(spec), max(DISK_GIB, size))


def _subnets(aws: Aws, spec: ClusterSpec) -> dict[str, dict]:
    """Subnets by id: those asked for, or the default VPC's."""
    with explained("The subnets cannot be listed"):
        if spec.subnet:
            found = aws.ec2.describe_subnets(SubnetIds=list(spec.subnet))["Subnets"]
        else:
            vpcs = aws.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
            if not vpcs:
                raise ClusterError(
                    f"The account has no default VPC in {aws.region}.", "Name subnets of another: --subnet subnet-..."
                )
            only = [{"Name": "vpc-id", "Values": [vpcs[0]["VpcId"]]}, {"Name": "default-for-az", "Values": ["true"]}]
            found = aws.ec2.describe_subnets(Filters=only)["Subnets"]
    if len({each["VpcId"] for each in found}) > 1:
        raise UsageError("The subnets are of several VPCs.", "Give subnets of one.")
    if not found:
        raise ClusterError(f"The default VPC in {aws.region} has no subnet.", "Give --subnet.")
    order = {name: number for number, name in enumerate(spec.subnet)}
    found.sort(key=lambda each: (order.get(each["SubnetId"], 0), each["AvailabilityZone"]))
    return {each["SubnetId"]: each for each in found}


def _types(aws: Aws, spec: ClusterSpec) -> tuple[dict[str, int], str]:
    """vCPUs by type, and the architecture that all types share."""
    names = [*spec.instance_type, *spec.scheduler_instance_type]
    only = [{"Name": "instance-type", "Values": names}]
    with explained("The instance types cannot be listed"):
        pages = aws.ec2.get_paginator("describe_instance_types").paginate(Filters=only)
        found = [each for page in pages for each in page["InstanceTypes"]]
    unknown = [name for name in names if name not in {each["InstanceType"] for each in found}]
    if unknown and (spec.instance_type != INSTANCE_TYPES or not found):
        raise ClusterError(
            f"Instance type {' or '.join(unknown)} cannot be had in {aws.region}.",
            "Is the type spelled right, and offered in this region? Give another --instance-type.",
        )
    kinds = {each["InstanceType"]: set(each["ProcessorInfo"]["SupportedArchitectures"]) for each in found}
    shared = set.intersection(*kinds.values()) & set(SCHEDULER_TYPES)
    if not shared:
        raise UsageError(
            f"{', '.join(names)} have no processor architecture in common.",
            "One image runs on all machines: give types of one architecture.",
        )
    vcpus = {each["InstanceType"]: each["VCpuInfo"]["DefaultVCpus"] for each in found}
    return vcpus, "x86_64" if "x86_64" in shared else "arm64"


def _zones(aws: Aws, types: list[str]) -> dict[str, set[str]]:
    """By type, the zones that offer it."""
    with explained(f"The zones that offer {', '.join(types)} cannot be listed"):
        pages = aws.ec2.get_paginator("describe_instance_type_offerings").paginate(
            LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": types}]
        )
        zones: dict[str, set[str]] = {name: set() for name in types}
        for page in pages:
            for each in page["InstanceTypeOfferings"]:
                zones[each["InstanceType"]].add(each["Location"])
    return zones


def _offers(markets: list[str], types, subnets: dict[str, dict], zones: dict[str, set[str]]) -> tuple[Offer, ...]:
    """Zone by zone, then the next type, then the dearer market."""
    return tuple(
        Offer(market, kind, name, subnet["AvailabilityZone"])
        for market in markets
        for kind in types
        for name, subnet in subnets.items()
        if subnet["AvailabilityZone"] in zones[kind]
    )


def _newest_ami(aws: Aws, architecture: str) -> str:
    name = _AMI.format("" if architecture == "x86_64" else "arm64/")
    with explained("Amazon's AMI cannot be looked up"):
        return aws.client("ssm").get_parameter(Name=name)["Parameter"]["Value"]


def _root_disk(aws: Aws, ami: str) -> tuple[str, int]:
    """The AMI's own name for its disk, which has to be encrypted under this name; its GiB, below which EC2 refuses."""
    with explained(f"The AMI {ami} cannot be looked up in {aws.region}"):
        images = aws.ec2.describe_images(ImageIds=[ami])["Images"]
    if not images:
        raise ClusterError(f"There is no AMI {ami} in {aws.region}.", "Leave --ami out to have Amazon's.")
    device = images[0]["RootDeviceName"]
    disks = {each.get("DeviceName"): each.get("Ebs", {}) for each in images[0].get("BlockDeviceMappings", [])}
    return device, disks.get(device, {}).get("VolumeSize") or 0


def _caller(spec: ClusterSpec) -> str | None:
    """The network of this machine alone, as the instances will see it."""
    if spec.security_group:
        return None
    if spec.private_ip:
        return f"{ipaddress.ip_address(get_ip())}/32"
    try:
        with urllib.request.urlopen(_CHECKIP, timeout=10) as answer:
            return f"{ipaddress.IPv4Address(answer.read().decode().strip())}/32"
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"The address under which AWS sees this machine cannot be learned from {_CHECKIP}: {error}.",
            "Without it nobody can be let in: give --security-group, or --private-ip within the VPC.",
        ) from error
