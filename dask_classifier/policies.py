"""The rights that a run on EC2 needs: IAM policies for the caller, and for the machines."""

_READ = [
    "ecr:DescribeImages",
    "ec2:DescribeImages",
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstances",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSpotPriceHistory",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
    "ec2:GetConsoleOutput",
    "pricing:GetProducts",
    "servicequotas:GetServiceQuota",
    "ssm:GetParameter",
    "sts:GetCallerIdentity",
]
_OURS = {"Null": {"aws:ResourceTag/dask-classify:cluster": "false"}}
_AT_BIRTH = {"StringEquals": {"ec2:CreateAction": ["RunInstances", "CreateSecurityGroup"]}}


def policies(output: str | None, profile: str | None) -> dict[str, dict]:
    """What must be allowed: to the caller, and to the role of an instance profile.

    Inputs in other buckets need s3:GetObject and s3:ListBucket there, for both. Outside AWS's commercial regions the
    ARNs begin with arn:aws-us-gov or arn:aws-cn.
    """
    bucket, _, folder = (output or "s3://BUCKET/FOLDER").removeprefix("s3://").partition("/")
    objects = {
        "Effect": "Allow",
        "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
        "Resource": f"arn:aws:s3:::{bucket}/{folder.rstrip('/')}/*".replace("//", "/"),
    }
    listing = {
        "Effect": "Allow",
        "Action": ["s3:ListBucket", "s3:GetBucketLocation", "s3:ListBucketMultipartUploads"],
        "Resource": f"arn:aws:s3:::{bucket}",
    }
    start = {
        "Effect": "Allow",
        "Action": ["ec2:RunInstances", "ec2:CreateSecurityGroup"],
        "Resource": "*",
    }
    end = {
        "Effect": "Allow",
        "Action": ["ec2:TerminateInstances", "ec2:DeleteSecurityGroup", "ec2:AuthorizeSecurityGroupIngress"],
        "Resource": "*",
        "Condition": _OURS,
    }
    look = {"Effect": "Allow", "Action": [*_READ, "sts:GetSessionToken"], "Resource": "*"}
    tag = {"Effect": "Allow", "Action": "ec2:CreateTags", "Resource": "*", "Condition": _AT_BIRTH}
    spot = {
        "Effect": "Allow",
        "Action": "iam:CreateServiceLinkedRole",
        "Resource": "*",
        "Condition": {"StringEquals": {"iam:AWSServiceName": "spot.amazonaws.com"}},
    }
    caller = [look, start, tag, end, spot, objects, listing]
    if profile:
        role = "arn:aws:iam::ACCOUNT:role/ROLE-OF-" + profile.rpartition("/")[2]
        passing = {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}
        caller.append({"Effect": "Allow", "Action": "iam:PassRole", "Resource": role, "Condition": passing})
        caller.append({"Effect": "Allow", "Action": "iam:GetInstanceProfile", "Resource": "*"})
    pull = [
        "ecr:GetAuthorizationToken",
        "ecr:BatchGetImage",
        "ecr:GetDownloadUrlForLayer",
        "ecr:BatchCheckLayerAvailability",
    ]
    machines = [objects, listing, {"Effect": "Allow", "Action": pull, "Resource": "*"}]
    return {
        name: {"Version": "2012-10-17", "Statement": parts}
        for name, parts in (("caller", caller), ("machines", machines))
    }
