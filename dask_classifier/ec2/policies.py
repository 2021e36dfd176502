"""The permissions that a run on EC2 needs: IAM policies for the caller and for the instances."""

import json

EC2_SERVICE = "ec2.amazonaws.com"  # in China, with .cn
_PARTITIONS = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}  # by the beginning of the region's name
_LOOKUPS = [
    "ecr:DescribeImages",
    "ec2:DescribeImages",
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstances",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSpotPriceHistory",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
    "pricing:GetProducts",
    "servicequotas:GetServiceQuota",
    "sts:GetCallerIdentity",
    "sts:GetSessionToken",
]
_OF_DRIVER = [
    "ec2:DescribeInstances",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSpotPriceHistory",
    "pricing:GetProducts",
]
_ON_TAGGED = [
    "ec2:TerminateInstances",
    "ec2:DeleteSecurityGroup",
    "ec2:AuthorizeSecurityGroupIngress",
    "ec2:GetConsoleOutput",
]
_PULL = [
    "ecr:GetAuthorizationToken",
    "ecr:BatchGetImage",
    "ecr:GetDownloadUrlForLayer",
    "ecr:BatchCheckLayerAvailability",
]
_BUCKETS = ["s3:ListBucket", "s3:GetBucketLocation", "s3:ListBucketMultipartUploads", "s3:GetLifecycleConfiguration"]
_OBJECTS = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
_AMI_PARAMETERS = "arn:aws:ssm:*::parameter/aws/service/ecs/*"  # public parameters, whose ARNs have no account
# Resources that a request creates and tags; and those that it uses, or creates without tags.
_TAGGED = {"ec2:RunInstances": ["instance", "volume"], "ec2:CreateSecurityGroup": ["security-group"]}
_USED = {
    "ec2:RunInstances": [
        "image",
        "subnet",
        "network-interface",
        "security-group",
        "key-pair",
        "spot-instances-request",
    ],
    "ec2:CreateSecurityGroup": ["vpc"],
}
_HAS_OUR_TAG = {"Null": {"aws:ResourceTag/dask-classify:cluster": "false"}}
_WITH_OUR_TAG = {"Null": {"aws:RequestTag/dask-classify:cluster": "false"}}
_AT_CREATION = {"StringEquals": {"ec2:CreateAction": ["RunInstances", "CreateSecurityGroup"]}}
_SPOT = {"StringEquals": {"iam:AWSServiceName": "spot.amazonaws.com"}}


def policies(
    output: str | None, profile: str | None, staging: str | None = None, *, detach: bool = False, region: str = ""
) -> dict[str, dict]:
    """Return the IAM policies for the caller, and for the role of an instance profile.

    `staging` is where packages are stored, if that is not in the output. With `detach`, an instance may drive a run,
    and end the cluster after it; without a profile, it has the caller's credentials.

    Inputs in other buckets need s3:GetObject and s3:ListBucket there, for both. `region` matters outside of AWS's
    commercial regions, where ARNs begin with arn:aws-us-gov or arn:aws-cn.
    """
    caller = [
        _allow(_LOOKUPS),
        _allow("ssm:GetParameter", _AMI_PARAMETERS),
        *(_allow(call, _arns(kinds), _WITH_OUR_TAG) for call, kinds in _TAGGED.items()),
        *(_allow(call, _arns(kinds)) for call, kinds in _USED.items()),
        _allow("ec2:CreateTags", "*", _AT_CREATION),
        _allow(_ON_TAGGED, "*", _HAS_OUR_TAG),
        _allow("iam:CreateServiceLinkedRole", "*", _SPOT),
        *_storage(output),
        *(_storage(staging) if staging else []),
        *_pass_role(profile),
        *(_leaving_the_group() if detach and not profile else []),
    ]
    instances = [*_storage(output), _allow(_PULL), *(_driving() if detach else [])]
    told = {
        name: {"Version": "2012-10-17", "Statement": statements}
        for name, statements in (("caller", caller), ("machines", instances))
    }
    return _in_partition(told, region)


def _in_partition(told: dict[str, dict], region: str) -> dict[str, dict]:
    partition = next((name for prefix, name in _PARTITIONS.items() if region.startswith(prefix)), "aws")
    text = json.dumps(told).replace("arn:aws:", f"arn:{partition}:")
    return json.loads(text.replace(EC2_SERVICE, f"{EC2_SERVICE}.cn") if partition == "aws-cn" else text)


def _allow(actions: str | list[str], resources: str | list[str] = "*", condition: dict | None = None) -> dict:
    statement = {"Effect": "Allow", "Action": actions, "Resource": resources}
    return statement | ({"Condition": condition} if condition else {})


def _arns(kinds: list[str]) -> list[str]:
    return [f"arn:aws:ec2:*:*:{kind}/*" for kind in kinds]  # AMIs have no account in their ARNs, and match as well


def _storage(output: str | None) -> list[dict]:
    """Allow access to the run's folder and to the key of the folder itself, which is checked with HEAD (GetObject)."""
    bucket, _, folder = (output or "s3://BUCKET/FOLDER").partition("://")[2].partition("/")
    folder = folder.strip("/")
    keys = [folder, f"{folder}/*"] if folder else ["*"]
    return [
        _allow(_OBJECTS, [f"arn:aws:s3:::{bucket}/{key}" for key in keys]),
        _allow(_BUCKETS, f"arn:aws:s3:::{bucket}"),
    ]


def _driving() -> list[dict]:
    """Allow an instance to watch and terminate the others of its cluster, and to leave the group that it deletes."""
    return [
        _allow(_OF_DRIVER),
        _allow(["ec2:TerminateInstances", "ec2:DeleteSecurityGroup"], "*", _HAS_OUR_TAG),
        *_leaving_the_group(),
    ]


def _leaving_the_group() -> list[dict]:
    """Allow an instance to leave the cluster's security group, so that it can be deleted."""
    return [
        _allow("ec2:ModifyInstanceAttribute", _arns(["instance"]), _HAS_OUR_TAG),
        _allow("ec2:ModifyInstanceAttribute", _arns(["security-group"])),
    ]


def _pass_role(profile: str | None) -> list[dict]:
    if not profile:
        return []
    role = "arn:aws:iam::ACCOUNT:role/ROLE-OF-" + profile.rpartition("/")[2]
    return [
        _allow("iam:PassRole", role, {"StringEquals": {"iam:PassedToService": EC2_SERVICE}}),
        _allow("iam:GetInstanceProfile"),
    ]
