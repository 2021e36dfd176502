"""A CloudFormation template with what runs on EC2 need in an account: a bucket, an instance profile and permissions."""

from typing import Any

from .policies import EC2_SERVICE, policies

_UPLOAD_DAYS = 7  # longer than any run
_BUCKET, _PROFILE = "BUCKET", "PROFILE"  # placeholders in the policies
_SERVICE = {"Fn::Sub": "ec2.${AWS::URLSuffix}"}


def template(*, detach: bool = False) -> dict[str, Any]:
    """Return the template. Its stack costs nothing but what is stored in the bucket and in the repository.

    With `detach`, the role's instances may drive a run, too.
    """
    told = policies(f"s3://{_BUCKET}", _PROFILE, detach=detach)
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "What dask-classify needs for runs on EC2",
        "Parameters": {
            "BucketName": _text("Name of the bucket; if it is empty, CloudFormation chooses one"),
            "RepositoryName": _text("Name of an ECR repository for container images; if it is empty, there is none"),
        },
        "Conditions": {
            "HasBucketName": _is_given("BucketName"),
            "HasRepository": _is_given("RepositoryName"),
        },
        "Resources": {
            "Bucket": _bucket(),
            "Role": _role(_substituted(told["machines"])),
            "InstanceProfile": {"Type": "AWS::IAM::InstanceProfile", "Properties": {"Roles": [{"Ref": "Role"}]}},
            "CallerPolicy": {
                "Type": "AWS::IAM::ManagedPolicy",
                "Properties": {
                    "Description": "For users and roles that start dask-classify",
                    "PolicyDocument": _substituted(told["caller"]),
                },
            },
            "Repository": {
                "Type": "AWS::ECR::Repository",
                "Condition": "HasRepository",
                "DeletionPolicy": "Retain",
                "UpdateReplacePolicy": "Retain",
                "Properties": {"RepositoryName": {"Ref": "RepositoryName"}},
            },
        },
        "Outputs": {
            "Output": _output("For --output, with the name of a run", {"Fn::Sub": "s3://${Bucket}/runs"}),
            "InstanceProfile": _output("For --instance-profile", {"Ref": "InstanceProfile"}),
            "CallerPolicy": _output("To attach to users and roles that start runs", {"Ref": "CallerPolicy"}),
            "Repository": _output("For --image, with a tag", {"Fn::GetAtt": ["Repository", "RepositoryUri"]})
            | {"Condition": "HasRepository"},
        },
    }


def _text(description: str) -> dict[str, str]:
    return {"Type": "String", "Default": "", "Description": description}


def _is_given(parameter: str) -> dict[str, Any]:
    return {"Fn::Not": [{"Fn::Equals": [{"Ref": parameter}, ""]}]}


def _output(description: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"Description": description, "Value": value}


def _bucket() -> dict[str, Any]:
    """Encrypted and private; uploads that were killed are deleted; it stays when the stack is deleted."""
    encryption = {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    rule = {"Status": "Enabled", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": _UPLOAD_DAYS}}
    blocks = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
    return {
        "Type": "AWS::S3::Bucket",
        "DeletionPolicy": "Retain",
        "UpdateReplacePolicy": "Retain",
        "Properties": {
            "BucketName": {"Fn::If": ["HasBucketName", {"Ref": "BucketName"}, {"Ref": "AWS::NoValue"}]},
            "BucketEncryption": {"ServerSideEncryptionConfiguration": [encryption]},
            "LifecycleConfiguration": {"Rules": [rule]},
            "PublicAccessBlockConfiguration": dict.fromkeys(blocks, True),
        },
    }


def _role(policy: dict[str, Any]) -> dict[str, Any]:
    """A role for instances, which read and write in the bucket and pull images from ECR."""
    trust = {"Effect": "Allow", "Principal": {"Service": _SERVICE}, "Action": "sts:AssumeRole"}
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]},
            "Policies": [{"PolicyName": "dask-classify", "PolicyDocument": policy}],
        },
    }


def _substituted(policy: Any) -> Any:
    """Return a policy with the stack's bucket, role and partition in its ARNs."""
    if isinstance(policy, dict):
        return {key: _substituted(value) for key, value in policy.items()}
    if isinstance(policy, list):
        return [_substituted(value) for value in policy]
    if policy == EC2_SERVICE:
        return _SERVICE
    if not policy.startswith("arn:aws:"):
        return policy
    if policy.endswith(f"role/ROLE-OF-{_PROFILE}"):
        return {"Fn::GetAtt": ["Role", "Arn"]}
    rest = policy.removeprefix("arn:aws:").replace(f":::{_BUCKET}", ":::${Bucket}")
    return {"Fn::Sub": "arn:${AWS::Partition}:" + rest}
