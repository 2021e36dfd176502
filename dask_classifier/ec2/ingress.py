"""Who may reach the instances of a cluster: the rules of its security group."""

from collections.abc import Sequence
from typing import Any

from botocore.exceptions import ClientError

from .aws import Aws, code_of
from .retries import Retries

Rule = dict[str, Any]


def of_caller(network: str, *, ssh: bool) -> list[Rule]:
    """Return the rules by which a network reaches the scheduler and the dashboard and, with a key, SSH."""
    networks = [{"CidrIp": network, "Description": "where the cluster is used"}]
    ports = [(8786, 8787), *([(22, 22)] if ssh else [])]
    return [{"IpProtocol": "tcp", "FromPort": first, "ToPort": last, "IpRanges": networks} for first, last in ports]


def of_itself(group_id: str) -> Rule:
    """Return the rule by which the cluster's instances reach each other."""
    return {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group_id}]}


def authorize(aws: Aws, group_id: str, rules: Sequence[Rule], retries: Retries) -> None:
    """Add rules to a group. Raises ClientError."""
    while True:
        try:
            aws.ec2.authorize_security_group_ingress(GroupId=group_id, IpPermissions=list(rules))
            return
        except ClientError as error:
            if code_of(error) == "InvalidPermission.Duplicate":  # the first response was lost, or it had this address
                return
            if code_of(error) != "InvalidGroup.NotFound" or not retries.pause():  # EC2 may not know it yet
                raise
