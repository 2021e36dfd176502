"""The policies of `dask-classify doctor --policy`: they allow what the product does on AWS, and hardly more."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from iam import TAG, Need, Recorder, allows
from rehearse import IMAGE, wait_for

from dask_classifier.ec2.policies import policies

OUTPUT = "s3://bucket/policy"
EC2 = "arn:aws:ec2:us-east-1:123456789012"


@pytest.fixture(scope="module")
def profile(region):
    iam, name = region.client("iam"), "for-rights"
    iam.create_instance_profile(InstanceProfileName=name)
    iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    return name


@pytest.fixture
def recorder(ec2):
    recorder = Recorder(ec2)
    ec2.settings(images={IMAGE: {"environment": {"AWS_ENDPOINT_URL": recorder.url}}})
    yield recorder
    recorder.close()


def refused(recorder, output=OUTPUT, profile=None, **options):
    """What was asked for and is not allowed."""
    told = policies(output, profile, **options)
    return {
        (need.action, need.resource, tuple(need.context))
        for need in recorder.needs
        if not allows(told["machines" if need.machine else "caller"], need)
    }


def test_a_run_with_a_profile_and_spot_doctor_and_reap_take_no_other_rights(ec2, recorder, profile):
    words = ["--instance-profile", profile, "--spot", "--output", OUTPUT]
    at = {"AWS_ENDPOINT_URL": recorder.url}
    looked = ec2.command("doctor", *words, **at)
    assert looked.returncode == 0, looked.stdout_text
    ec2.command("--rows", "300", "--slowness", "1", *words, check=0, **at)
    ec2.command("reap", "--all", "--yes", check=0, **at)
    assert not refused(recorder, profile=profile)
    asked = {(need.action, need.machine) for need in recorder.needs}
    for action in ("ec2:RunInstances", "ec2:CreateTags", "ec2:TerminateInstances", "ec2:DeleteSecurityGroup"):
        assert (action, False) in asked
    for action in ("iam:PassRole", "ssm:GetParameter", "s3:PutObject", "s3:ListBucket"):
        assert (action, False) in asked, "the recorder saw it"
    assert ("s3:PutObject", True) in asked and ("ec2:RunInstances", True) not in asked


@pytest.mark.slow
def test_a_detached_run_with_the_callers_credentials_takes_no_other_rights(ec2, recorder):
    """The instance that drives it has those of the caller."""
    words = ["--output", OUTPUT, "--overwrite", "--detach"]
    ec2.command("--rows", "300", "--slowness", "1", *words, check=0, AWS_ENDPOINT_URL=recorder.url)
    wait_for(lambda: not ec2.remains())
    assert "ec2:ModifyInstanceAttribute" in {need.action for need in recorder.needs}
    assert not refused(recorder, detach=True) and refused(recorder), "a plain policy allows less"


def test_a_detached_run_takes_no_other_rights(ec2, recorder, profile):
    """The instance that drives it ends the others and deletes the group, with those of its profile."""
    words = ["--instance-profile", profile, "--output", OUTPUT, "--overwrite", "--detach"]
    ec2.command("--rows", "300", "--slowness", "1", *words, check=0, AWS_ENDPOINT_URL=recorder.url)
    ec2.command("wait", OUTPUT, check=0, AWS_ENDPOINT_URL=recorder.url)
    assert not refused(recorder, profile=profile, detach=True)
    asked = {need.action for need in recorder.needs if need.machine}
    assert {"ec2:TerminateInstances", "ec2:ModifyInstanceAttribute", "ec2:DeleteSecurityGroup"} <= asked
    assert "ec2:RunInstances" not in asked and refused(recorder, profile=profile), "a plain policy allows less"


def test_a_cluster_that_stays_takes_no_other_rights(ec2, recorder):
    at = {"AWS_ENDPOINT_URL": recorder.url}
    ec2.command("up", "--name", "rights", check=0, **at)
    ec2.command("status", check=0, **at)
    words = ["--rows", "300", "--slowness", "1", "--output", OUTPUT + "/", "--overwrite"]
    ec2.command(*words, "--cluster", "rights", check=0, **at)
    ec2.command("down", "--name", "rights", check=0, **at)
    assert not refused(recorder)
    assert {"sts:GetSessionToken", "s3:GetObject"} <= {need.action for need in recorder.needs}


def test_a_machine_that_cannot_pull_its_image_takes_no_other_rights(ec2, recorder):
    """Then its console is read."""
    ec2.settings(images={IMAGE: {"missing": True}})
    words = ["--rows", "300", "--slowness", "1", "--output", "s3://bucket/none"]
    ec2.command(*words, check=4, AWS_ENDPOINT_URL=recorder.url)
    assert "ec2:GetConsoleOutput" in {need.action for need in recorder.needs}
    assert not refused(recorder, "s3://bucket/none")


OURS, BIRTH = {f"aws:ResourceTag/{TAG}": "x"}, {f"aws:RequestTag/{TAG}": "x"}


@pytest.mark.parametrize(
    ("need", "allowed"),
    [
        (Need("ec2:TerminateInstances", f"{EC2}:instance/i-1", OURS), True),
        (Need("ec2:TerminateInstances", f"{EC2}:instance/i-1"), False),
        (Need("ec2:GetConsoleOutput", f"{EC2}:instance/i-1", OURS), True),
        (Need("ec2:GetConsoleOutput", f"{EC2}:instance/i-1"), False),
        (Need("ec2:DeleteSecurityGroup", f"{EC2}:security-group/sg-1"), False),
        (Need("ec2:AuthorizeSecurityGroupIngress", f"{EC2}:security-group/sg-1"), False),
        (Need("ec2:RunInstances", f"{EC2}:instance/*", BIRTH), True),
        (Need("ec2:RunInstances", f"{EC2}:instance/*"), False),
        (Need("ec2:RunInstances", f"{EC2}:volume/*"), False),
        (Need("ec2:CreateSecurityGroup", f"{EC2}:security-group/*"), False),
        (Need("ec2:CreateTags", f"{EC2}:instance/i-1", BIRTH), False),
        (Need("ec2:CreateTags", f"{EC2}:instance/*", {"ec2:CreateAction": "RunInstances"}), True),
        (Need("ssm:GetParameter", "arn:aws:ssm:us-east-1::parameter/aws/service/ecs/optimized-ami/x/image_id"), True),
        (Need("ssm:GetParameter", "arn:aws:ssm:us-east-1:123456789012:parameter/password"), False),
        (Need("s3:GetObject", "arn:aws:s3:::bucket/policy"), True),
        (Need("s3:PutObject", "arn:aws:s3:::bucket/policy/parts/part-00000.csv.gz"), True),
        (Need("s3:GetObject", "arn:aws:s3:::bucket/policy-of-others"), False),
        (Need("s3:GetObject", "arn:aws:s3:::other/policy/x"), False),
        (Need("iam:PassRole", "arn:aws:iam::ACCOUNT:role/admin", {"iam:PassedToService": "ec2.amazonaws.com"}), False),
        (Need("ec2:StopInstances", f"{EC2}:instance/i-1", OURS), False),
        (Need("ec2:ModifyInstanceAttribute", f"{EC2}:instance/i-1", OURS), False),
    ],
)
def test_hardly_more_is_allowed(need, allowed):
    assert allows(policies(OUTPUT, "classify")["caller"], need) == allowed


@pytest.mark.parametrize(
    ("need", "allowed"),
    [
        (Need("ec2:ModifyInstanceAttribute", f"{EC2}:instance/i-1", OURS), True),
        (Need("ec2:ModifyInstanceAttribute", f"{EC2}:instance/i-1"), False),
        (Need("ec2:TerminateInstances", f"{EC2}:instance/i-1"), False),
        (Need("ec2:DeleteSecurityGroup", f"{EC2}:security-group/sg-1"), False),
        (Need("ec2:RunInstances", f"{EC2}:instance/*", BIRTH), False),
        (Need("iam:PassRole", "arn:aws:iam::ACCOUNT:role/x", {"iam:PassedToService": "ec2.amazonaws.com"}), False),
    ],
)
def test_hardly_more_is_allowed_to_an_instance_that_drives_a_run(need, allowed):
    assert allows(policies(OUTPUT, "classify", detach=True)["machines"], need) == allowed
    assert not allows(policies(OUTPUT, "classify")["machines"], need)


def test_the_template_is_valid(command, tmp_path):
    """As cfn-lint sees it, with the shapes of AWS's own specifications of resources."""
    (tmp_path / "stack.json").write_text(command("doctor", "--template", check=0).stdout)
    lint = subprocess.run(
        [Path(sys.executable).parent / "cfn-lint", "--include-checks", "I", "--", tmp_path / "stack.json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert lint.returncode == 0, lint.stdout
    bucket = json.loads((tmp_path / "stack.json").read_text())["Resources"]["Bucket"]
    (rule,) = bucket["Properties"]["LifecycleConfiguration"]["Rules"]  # moto's stacks do not have it
    assert rule == {"Status": "Enabled", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}
    assert bucket["DeletionPolicy"] == "Retain" and all(bucket["Properties"]["PublicAccessBlockConfiguration"].values())


def test_a_stack_of_the_template_has_what_a_run_needs(ec2, command):
    """An encrypted bucket, a role for instances, and the rights that the other tests prove."""
    formation, s3, iam = (ec2.client(name) for name in ("cloudformation", "s3", "iam"))
    formation.create_stack(
        StackName="rehearsed", Capabilities=["CAPABILITY_IAM"],
        TemplateBody=command("doctor", "--template", check=0).stdout,
        Parameters=[{"ParameterKey": "RepositoryName", "ParameterValue": "classify-stack"}],
    )  # fmt: skip
    (stack,) = formation.describe_stacks(StackName="rehearsed")["Stacks"]
    outputs = {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}
    bucket = outputs["Output"].removeprefix("s3://").removesuffix("/runs")
    encryption = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert encryption["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    assert outputs["Repository"].endswith("/classify-stack")

    profile = iam.get_instance_profile(InstanceProfileName=outputs["InstanceProfile"])["InstanceProfile"]
    (role,) = profile["Roles"]
    proven = policies(f"s3://{bucket}", outputs["InstanceProfile"])
    at_role = iam.get_role_policy(RoleName=role["RoleName"], PolicyName="dask-classify")["PolicyDocument"]
    assert ast.literal_eval(str(at_role)) == proven["machines"]  # moto's stacks keep Python's text of it
    given = iam.get_policy_version(PolicyArn=outputs["CallerPolicy"], VersionId="v1")["PolicyVersion"]["Document"]
    placeholder = f"arn:aws:iam::ACCOUNT:role/ROLE-OF-{outputs['InstanceProfile']}"
    assert given == json.loads(json.dumps(proven["caller"]).replace(placeholder, role["Arn"]))

    words = ["--instance-profile", outputs["InstanceProfile"], "--output", f"{outputs['Output']}/first"]
    looked = ec2.command("doctor", *words)
    assert looked.returncode == 0, looked.stdout_text
    ec2.command("--rows", "300", "--slowness", "1", *words, check=0)
    assert "Verified: 300 rows" in ec2.command("verify", f"{outputs['Output']}/first", check=0).stdout_text


def test_a_bucket_without_a_folder():
    told = policies("s3://bucket", None)
    assert allows(told["caller"], Need("s3:PutObject", "arn:aws:s3:::bucket/plan.json"))
    assert "bucket//" not in json.dumps(told)


@pytest.mark.parametrize(
    ("region", "partition", "service"),
    [
        ("eu-west-1", "aws", "ec2.amazonaws.com"),
        ("us-gov-west-1", "aws-us-gov", "ec2.amazonaws.com"),
        ("cn-north-1", "aws-cn", "ec2.amazonaws.com.cn"),
    ],
)
def test_arns_are_those_of_the_regions_partition(region, partition, service):
    told = json.dumps(policies("s3://bucket/runs", "classify", detach=True, region=region))
    assert set(re.findall(r"arn:([\w-]+):", told)) == {partition}
    assert set(re.findall(r"ec2\.amazonaws[\w.]+", told)) == {service}
