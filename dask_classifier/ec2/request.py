"""What is asked of EC2 for an instance: the arguments of RunInstances."""

from typing import Any

from .placement import Offer, Placement
from .spec import ClusterSpec


def request_of(
    spec: ClusterSpec,
    placement: Placement,
    offer: Offer,
    group_ids: list[str],
    tags: list[dict[str, str]],
    script: str,
    token: str,
) -> dict[str, Any]:
    """Return the arguments of RunInstances for one instance of an offer, with some user data and a client token."""
    volume = {"VolumeSize": placement.disk_gib, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}
    network_interface = {
        "DeviceIndex": 0,
        "SubnetId": offer.subnet,
        "Groups": group_ids,
        "AssociatePublicIpAddress": not spec.private_ip,
        "DeleteOnTermination": True,
    }
    request = {
        "ImageId": placement.ami,
        "InstanceType": offer.type,
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": token,
        "UserData": script,
        "InstanceInitiatedShutdownBehavior": "terminate",  # so that `shutdown` stops the billing
        "NetworkInterfaces": [network_interface],
        "BlockDeviceMappings": [{"DeviceName": placement.root_device, "Ebs": volume}],
        # One hop is enough, because the container uses the host's network.
        "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled", "HttpPutResponseHopLimit": 1},
        "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")],
    }
    if spec.key_name:
        request["KeyName"] = spec.key_name
    if spec.instance_profile:
        kind = "Arn" if spec.instance_profile.startswith("arn:") else "Name"
        request["IamInstanceProfile"] = {kind: spec.instance_profile}
    if offer.market == "spot":
        request["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "one-time"}}
    return request
