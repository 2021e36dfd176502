"""EC2 in rehearsal, without an image: instances install the packages that are installed here."""

import json
import re
import subprocess
import sys
import zipfile
from io import BytesIO

import pytest
from rehearse import finish, wait_for

from dask_classifier.ec2 import boot, packages
from dask_classifier.ec2.spec import BASE_IMAGE, ClusterSpec
from dask_classifier.environment.archive import Archive

MINOR = "{}.{}".format(*sys.version_info)
ROWS = ["--rows", "600", "--slowness", "1", "--block-rows", "100"]
NO_IMAGE = {"DASK_CLASSIFIER__IMAGE": ""}


def sha256(ec2, name):
    return json.loads(ec2.command("verify", f"s3://bucket/{name}", "--json", check=0).stdout_text)["sha256"]


def error_of(done):
    (line,) = [line for line in done.stderr_text.splitlines() if line.startswith("Error: ")]
    return line


@pytest.mark.slow
@pytest.mark.parametrize("way", ["index", "wheels"])
def test_instances_install_what_is_installed_here(way, ec2, package_index, tmp_path):
    """Two containers of Python alone: the bytes of a local run."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "python"], check=True)  # without a package
    ec2.settings(images={BASE_IMAGE.format(MINOR): {"python": str(tmp_path / "python/bin")}})
    (ec2.folder / "needs.txt").write_text("scikit-learn\n")
    (ec2.folder / "learned.py").write_text(LEARNED)
    words = ["--rows", "600", "--classifier", "learned.py:classify", "--requirements", "needs.txt"]
    options = {
        "index": ["--index-url", package_index],
        "wheels": ["--wheels", "--staging", "s3://bucket/bare-wheels/environment"],
    }[way]
    output = ["--output", f"s3://bucket/bare-{way}", "--bring-up-limit", "10m"]
    done = ec2.command(*words, *output, *options, check=0, PIP_INDEX_URL=package_index, **NO_IMAGE)
    assert "Started 2 instances, 2 terminated" in done.stderr_text
    there = ec2.client("s3").list_objects_v2(Bucket="bucket", Prefix=f"bare-{way}/environment/")["Contents"]
    (archive,) = [each["Key"] for each in there]
    body = ec2.client("s3").get_object(Bucket="bucket", Key=archive)["Body"].read()
    names = zipfile.ZipFile(BytesIO(body)).namelist()
    assert any(name.startswith("wheels/dask_classify-") for name in names)
    assert any(name.startswith("wheels/scikit_learn-") for name in names) == (way == "wheels")
    manifest = json.loads(ec2.client("s3").get_object(Bucket="bucket", Key=f"bare-{way}/manifest.json")["Body"].read())
    machines = manifest["machines"]
    assert machines["packages"] > 50 and len(machines["packages_sha256"]) == 64
    assert machines["image"] == BASE_IMAGE.format(MINOR) and "scikit-learn" in manifest["versions"]
    for id in {event["id"] for event in ec2.events("boot")}:
        assert "installed the packages in " in (ec2.folder / id / "console.log").read_text()
    ec2.command(*words, "--output", f"s3://bucket/here-{way}", "--cluster", "local", check=0)
    assert sha256(ec2, f"bare-{way}") == sha256(ec2, f"here-{way}")
    checked = ec2.command("doctor", "--output", "s3://bucket/x", check=0, PIP_INDEX_URL=package_index, **NO_IMAGE)
    assert re.search(r"ok +packages: \d+ are installed in ", checked.stdout_text)


@pytest.mark.parametrize(
    ("words", "code"), [(["plan", "--rows", "10k", "--cluster", "ec2", "--sample", "0"], 0), (["doctor"], 1)]
)
def test_a_plan_needs_no_bucket(words, code, ec2):
    """Nothing is launched; doctor says that packages cannot be looked up, and checks the rest."""
    done = ec2.command(*words, check=code, PIP_INDEX_URL="http://127.0.0.1:9/simple", **NO_IMAGE)
    assert "c7i.large" in done.stdout_text, done.stderr_text
    if code:
        assert "The package index cannot be reached" in done.stdout_text and "allowed; user data" in done.stdout_text


def test_an_image_that_is_typed_replaces_what_is_configured_for_its_lack(ec2):
    configured = {"DASK_CLASSIFIER__INDEX_URL": "https://host/simple", "DASK_CLASSIFIER__WHEELS": "true"}
    words = ["plan", "--rows", "10k", "--cluster", "ec2", "--sample", "0", "--image", "registry/a:1"]
    ec2.command(*words, check=0, **configured)
    done = ec2.command(*words, "--wheels", check=2)
    assert "--wheels has no effect with an image" in done.stderr_text


LEARNED = """
import sklearn.preprocessing

def classify(chunk):
    return chunk["SKU"].str.len() + int(sklearn.preprocessing.normalize([[1.0]])[0][0])
"""


# --- what goes wrong -----------------------------------------------------------------------------------------


def no_machine(ec2, requirement, **environment):
    """What a run says whose packages cannot be had."""
    (ec2.folder / "needs.txt").write_text(requirement)
    words = [*ROWS, "--requirements", "needs.txt", "--output", "s3://bucket/nothing"]
    done = ec2.command(*words, check=4, **NO_IMAGE, **environment)
    assert "Hint: " in done.stderr_text and "Started 0 instances" in done.stderr_text
    assert not ec2.events("call", call="RunInstances") and not ec2.remains()
    return error_of(done)


def test_an_index_that_cannot_be_reached_launches_nothing(ec2):
    assert "The package index cannot be reached" in no_machine(ec2, "click", PIP_INDEX_URL="http://127.0.0.1:9/simple")


def stored(ec2, body=b"?"):
    """An archive in the bucket, and a cluster's options that use it."""
    ec2.client("s3").put_object(Bucket="bucket", Key="a b/environment-1.zip", Body=body)
    return Archive("s3://bucket/a b/environment-1.zip", "0" * 64, "1" * 64, 60)


START = """
import dask_classifier as dc, dask_classifier.cluster
from dask_classifier.environment.archive import Archive

stored = Archive("s3://bucket/a b/environment-1.zip", "0" * 64, "1" * 64, 60)
dask_classifier.cluster.archive_of = lambda spec, architecture: stored
if __name__ == "__main__":
    try:
        dc.EC2Cluster(1, staging="s3://bucket/a b", image=None)
    except dc.errors.ClusterError as error:
        print(error.message, "|", error.hint)
"""


def test_packages_that_were_altered_in_the_bucket(ec2):
    """The instances refuse them, and say so."""
    stored(ec2)
    (ec2.folder / "start.py").write_text(START)
    process = ec2.start_python("start.py", **NO_IMAGE)
    done = finish(process, 0)
    assert "the packages in the bucket were altered: their SHA-256 is" in done.stdout_text, done.stdout_text
    assert "Delete environment-*.zip there" in done.stdout_text
    wait_for(lambda: not ec2.remains())


def test_a_python_without_an_image(ec2):
    ec2.settings(images={BASE_IMAGE.format(MINOR): {"missing": True}})
    stored(ec2)
    (ec2.folder / "start.py").write_text(START)
    done = finish(ec2.start_python("start.py", **NO_IMAGE), 0)
    assert f"pull access denied for {BASE_IMAGE.format(MINOR)}" in done.stdout_text, done.stdout_text
    assert "--base-image" in done.stdout_text
    wait_for(lambda: not ec2.remains())


def test_the_user_data_fits_with_a_long_link(ec2, monkeypatch):
    spec = ClusterSpec.of(staging="s3://bucket/a", workers=2)
    monkeypatch.setattr(packages, "_link", lambda *words: "https://" + "x" * 3000)
    installing = packages.installation(stored(ec2), None, 2e9)
    times = {"launched": 1e9, "deadline": 2e9}
    for role in ("scheduler", "worker"):
        text = boot.user_data(
            spec, boot.tls(days=1), role=role, cluster="c" * 12, name=f"{role}-1", region="us-east-1",
            scheduler="tls://10.0.0.1:8786", installation=installing, **times,
        )  # fmt: skip
        assert "--user 1000:1000" in text and BASE_IMAGE.format(MINOR) in text
        assert len(text.encode()) < boot.USER_DATA_LIMIT - 2000
