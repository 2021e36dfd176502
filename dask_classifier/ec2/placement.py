"""Where instances can be launched: subnets, zones, instance types, an AMI, and the address to admit."""

import contextlib
import ipaddress
import socket
import urllib.request
from dataclasses import dataclass
from typing import Any

from distributed.utils import get_ip

from ..errors import ClusterError, UsageError
from .aws import Aws, explained
from .spec import DISK_GIB, INSTANCE_TYPES, SCHEDULER_TYPES, ClusterSpec

# Amazon Linux with Docker: a public parameter that AWS keeps up to date.
_AMI = "/aws/service/ecs/optimized-ami/amazon-linux-2023/{}recommended/image_id"
_CHECKIP = "https://checkip.amazonaws.com"


@dataclass(frozen=True)
class Offer:
    """A way to launch an instance: market, type and subnet."""

    market: str  # "spot" or "on-demand"
    type: str
    subnet: str
    zone: str


@dataclass(frozen=True)
class Placement:
    """Where and how the instances of a cluster are launched."""

    vpc: str
    ami: str
    root_device: str
    architecture: str
    vcpus: dict[str, int]  # by instance type
    offers: dict[str, tuple[Offer, ...]]  # by role, "scheduler" or "worker", in the order in which they are tried
    caller: str | None  # the network to admit, such as 203.0.113.7/32; None if the user gave security groups
    disk_gib: int = DISK_GIB  # at least the size of the AMI

    def processes(self, spec: ClusterSpec, instance: dict[str, Any] | None = None) -> int:
        """Return the classifier processes per worker: on this instance (EC2's description), or on the first offer."""
        first = self.offers["worker"][0].type
        return spec.processes_per_worker or self.vcpus.get((instance or {}).get("InstanceType", first), 1)

    def words(self, spec: ClusterSpec, workers: int) -> str:
        """Describe the instances that are tried first."""
        worker, scheduler = self.offers["worker"][0], self.offers["scheduler"][0]
        processes = self.processes(spec)
        each = f"with {processes} process{'' if processes == 1 else 'es'} each"
        return f"{workers} {worker.market} {worker.type} {each}, and a {scheduler.type} for the scheduler"


def find_placement(aws: Aws, spec: ClusterSpec) -> Placement:
    """Look up in AWS where the cluster can be launched, without launching anything.

    Raises ClusterError or UsageError.
    """
    subnets = _subnets(aws, spec)
    vcpus, architecture = _types(aws, spec)
    schedulers = spec.scheduler_instance_type or SCHEDULER_TYPES[architecture]
    zones = _zones(aws, [*spec.instance_type, *schedulers])
    markets = ["spot", "on-demand"] if spec.spot else ["on-demand"]
    offers = {
        "scheduler": _offers(["on-demand"], (*schedulers, *spec.instance_type), subnets, zones),
        "worker": _offers(markets, spec.instance_type, subnets, zones),
    }
    for role, role_offers in offers.items():
        if not role_offers:
            raise ClusterError(
                f"No subnet in {aws.region} offers an instance type for a {role}: {' or '.join(spec.instance_type)}.",
                "Give another --instance-type, or subnets in other zones (--subnet a,b).",
            )
    ami = spec.ami or _newest_ami(aws, architecture)
    vpc = next(iter(subnets.values()))["VpcId"]
    device, size = _root_disk(aws, ami)
    return Placement(vpc, ami, device, architecture, vcpus, offers, caller_of(spec), max(DISK_GIB, size))


def _subnets(aws: Aws, spec: ClusterSpec) -> dict[str, dict]:
    """Return EC2's descriptions of the subnets by id: those in the spec, or those of the default VPC."""
    with explained("Cannot list the subnets"):
        if spec.subnet:
            subnets = aws.ec2.describe_subnets(SubnetIds=list(spec.subnet))["Subnets"]
        else:
            vpcs = aws.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
            if not vpcs:
                raise ClusterError(
                    f"The account has no default VPC in {aws.region}.",
                    "Give subnets of another VPC: --subnet subnet-...",
                )
            filters = [{"Name": "vpc-id", "Values": [vpcs[0]["VpcId"]]}, {"Name": "default-for-az", "Values": ["true"]}]
            subnets = aws.ec2.describe_subnets(Filters=filters)["Subnets"]
    if len({subnet["VpcId"] for subnet in subnets}) > 1:
        raise UsageError("The subnets belong to several VPCs.", "Give subnets of one VPC.")
    if not subnets:
        raise ClusterError(
            f"The default VPC in {aws.region} has no subnets.", "Give subnets of another VPC: --subnet subnet-..."
        )
    order = {name: number for number, name in enumerate(spec.subnet)}
    subnets.sort(key=lambda subnet: (order.get(subnet["SubnetId"], 0), subnet["AvailabilityZone"]))
    return {subnet["SubnetId"]: subnet for subnet in subnets}


def _types(aws: Aws, spec: ClusterSpec) -> tuple[dict[str, int], str]:
    """Return the vCPUs by type, and the architecture that all types share."""
    names = [*spec.instance_type, *spec.scheduler_instance_type]
    filters = [{"Name": "instance-type", "Values": names}]
    with explained("Cannot list the instance types"):
        pages = aws.ec2.get_paginator("describe_instance_types").paginate(Filters=filters)
        types = {one["InstanceType"]: one for page in pages for one in page["InstanceTypes"]}
    is_default = spec.instance_type == INSTANCE_TYPES and any(name in types for name in INSTANCE_TYPES)
    needed = spec.scheduler_instance_type if is_default else names
    if missing := [name for name in needed if name not in types]:
        raise ClusterError(
            f"Instance type {' or '.join(missing)} is not available in {aws.region}.",
            "Check the spelling, or give another --instance-type.",
        )
    architectures = [set(one["ProcessorInfo"]["SupportedArchitectures"]) for one in types.values()]
    shared = set.intersection(*architectures) & set(SCHEDULER_TYPES)
    if not shared:
        raise UsageError(
            f"{', '.join(names)} have no processor architecture in common.",
            "Give types of one architecture: all instances run the same image.",
        )
    vcpus = {name: one["VCpuInfo"]["DefaultVCpus"] for name, one in types.items()}
    return vcpus, "x86_64" if "x86_64" in shared else "arm64"


def _zones(aws: Aws, types: list[str]) -> dict[str, set[str]]:
    """Return the zones that offer each type."""
    with explained(f"Cannot list the zones that offer {', '.join(types)}"):
        pages = aws.ec2.get_paginator("describe_instance_type_offerings").paginate(
            LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": types}]
        )
        zones: dict[str, set[str]] = {name: set() for name in types}
        for page in pages:
            for offering in page["InstanceTypeOfferings"]:
                zones[offering["InstanceType"]].add(offering["Location"])
    return zones


def _offers(markets: list[str], types, subnets: dict[str, dict], zones: dict[str, set[str]]) -> tuple[Offer, ...]:
    """Return all offers in order: zone by zone, then the next type, then the more expensive market."""
    return tuple(
        Offer(market, type, subnet_id, subnet["AvailabilityZone"])
        for market in markets
        for type in types
        for subnet_id, subnet in subnets.items()
        if subnet["AvailabilityZone"] in zones[type]
    )


def _newest_ami(aws: Aws, architecture: str) -> str:
    name = _AMI.format("" if architecture == "x86_64" else "arm64/")
    with explained("Cannot look up the newest Amazon AMI"):
        return aws.client("ssm").get_parameter(Name=name)["Parameter"]["Value"]


def _root_disk(aws: Aws, ami: str) -> tuple[str, int]:
    """Return the device name of the AMI's root volume, and its size in GiB.

    The volume can only be encrypted under this name, and must not be smaller.
    """
    with explained(f"Cannot look up the AMI {ami} in {aws.region}"):
        images = aws.ec2.describe_images(ImageIds=[ami])["Images"]
    if not images:
        raise ClusterError(f"The AMI {ami} does not exist in {aws.region}.", "Leave --ami out to use Amazon's.")
    device = images[0]["RootDeviceName"]
    mappings = images[0].get("BlockDeviceMappings", [])
    volumes = {mapping.get("DeviceName"): mapping.get("Ebs", {}) for mapping in mappings}
    return device, volumes.get(device, {}).get("VolumeSize") or 0


def _own_address() -> str:
    """Return this computer's address in its network, as it is now: Dask's `get_ip` keeps its first answer."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("8.8.8.8", 80))  # sends nothing
        return sender.getsockname()[0]
    return get_ip()


def caller_of(spec: ClusterSpec) -> str | None:
    """Return the network that contains only this computer, as the instances see it; None if the user gave groups.

    Raises ClusterError where that cannot be found out.
    """
    if spec.security_group:
        return None
    if spec.private_ip:
        return f"{ipaddress.ip_address(_own_address())}/32"
    try:
        with urllib.request.urlopen(_CHECKIP, timeout=10) as response:
            return f"{ipaddress.IPv4Address(response.read().decode().strip())}/32"
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"Cannot get this computer's public IP address from {_CHECKIP}: {error}.",
            "Use --security-group, or --private-ip inside the VPC.",
        ) from error
