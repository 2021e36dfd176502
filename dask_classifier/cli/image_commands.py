"""What `dask-classify image` does: build and push a container image, with the tool that is installed."""

import shutil
import subprocess
from pathlib import Path

import click

from ..classifier.requirements import pinned
from ..ec2.spec import BASE_IMAGE, PYTHON, check_image
from ..environment.archive import packed
from ..environment.image import write_dockerfile
from ..errors import DaskClassifyError, UsageError

_TOOLS = ("docker", "podman", "buildah")


def build(
    name: str,
    tool: str | None,
    requirements: str | None,
    *,
    with_env: bool,
    base_image: str | None,
    index_url: str | None,
    architecture: str,
) -> None:
    """Build an image from the packages that are installed here."""
    check_image(name)
    found = _tool(tool)
    click.echo(f"Finding the packages for Python {PYTHON} on {architecture}", err=True)
    with packed(
        pinned(requirements),
        everything=with_env,
        python=PYTHON,
        architecture=architecture,
        index_url=index_url,
        wheels=True,  # so that the index, which may be private, is not part of the image
    ) as (locked, folder):
        write_dockerfile(folder, base_image or BASE_IMAGE.format(PYTHON))
        click.echo(f"Building {name} with {len(locked.lines)} packages", err=True)
        machine = {"x86_64": "amd64"}.get(architecture, architecture)
        _run([found, "build", "--platform", f"linux/{machine}", "--tag", name, str(folder)], f"Cannot build {name}")
    click.echo(f"Built {name}. Push it with `dask-classify image push {name}`.", err=True)


def push(name: str, tool: str | None) -> None:
    """Push an image to the registry in its name."""
    check_image(name)
    _run([_tool(tool), "push", name], f"Cannot push {name}")
    click.echo(f"Pushed {name}. Use it with --image {name}.", err=True)


def _tool(wanted: str | None) -> str:
    for name in [wanted] if wanted else _TOOLS:
        if found := shutil.which(name):
            return found
    raise UsageError(
        f"{wanted or 'docker, podman or buildah'} is not installed.",
        "Install docker, podman or buildah, or do without an image: instances then install the packages themselves.",
    )


def _run(words: list[str], what: str) -> None:
    """Run a command, which prints for itself."""
    code = subprocess.run(words).returncode
    if code:
        raise DaskClassifyError(
            f"{what}: {Path(words[0]).name} ended with exit code {code}.", "Its own messages above have the reason."
        )
