"""An image with what is installed here: what the tool that builds it is given."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

DASK_CLASSIFY = Path(sys.executable).parent / "dask-classify"
TOOL = """#!/bin/sh
echo "$@" >> said
[ "$1" = push ] && exit "${PUSHED:-0}"
for last; do :; done
cp -r "$last" context
"""


@pytest.fixture
def image(tmp_path):
    """Call `dask-classify image` with a tool that keeps what it is given."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/docker").write_text(TOOL)  # the first that is looked for
    (tmp_path / "bin/docker").chmod(0o755)

    def call(*words, **environment):
        path = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}
        return subprocess.run(
            [DASK_CLASSIFY, "image", *words], cwd=tmp_path, env=os.environ | path | environment,
            capture_output=True, text=True,
        )  # fmt: skip

    return call


@pytest.mark.slow
def test_an_image_is_built_from_what_is_installed_here(image, tmp_path, package_index):
    words = ["--base-image", "registry/python:3", "--architecture", "x86_64"]
    done = image("build", "registry/mine:1", *words, PIP_INDEX_URL=package_index)
    assert done.returncode == 0, done.stderr
    assert "Push it with `dask-classify image push registry/mine:1`" in done.stderr
    said = (tmp_path / "said").read_text().split()
    assert said[:5] == ["build", "--platform", "linux/amd64", "--tag", "registry/mine:1"]
    dockerfile = (tmp_path / "context/Dockerfile").read_text()
    assert dockerfile.count("FROM registry/python:3") == 2 and "USER 1000:1000" in dockerfile
    requirements = (tmp_path / "context/requirements.txt").read_text()
    assert "pandas==" in requirements and "--require-hashes" in requirements
    assert list((tmp_path / "context/wheels").glob("dask_classify-*.whl"))


def test_an_image_is_pushed(image, tmp_path):
    done = image("push", "registry/mine:1")
    assert done.returncode == 0 and "Use it with --image registry/mine:1" in done.stderr
    assert (tmp_path / "said").read_text() == "push registry/mine:1\n"
    done = image("push", "registry/mine:1", PUSHED="7")
    assert done.returncode == 1 and "Error: Cannot push registry/mine:1: docker ended with exit code 7." in done.stderr


def test_without_a_tool(image):
    done = image("push", "registry/mine:1", "--tool", "nosuch")
    assert done.returncode == 2 and "nosuch is not installed" in done.stderr
    assert "Install docker, podman or buildah, or do without an image" in done.stderr
    done = image("push", "registry/mine:1", PATH="/nowhere")
    assert done.returncode == 2 and "docker, podman or buildah is not installed" in done.stderr


@pytest.mark.parametrize("action", ["build", "push"])
def test_a_name_that_no_image_can_have(image, action):
    done = image(action, "a b")
    assert done.returncode == 2 and "'a b' is not a valid image" in done.stderr
