"""The packages of instances without an image: stored in a bucket, and how an instance gets them."""

import importlib.resources
import time

from .. import environment
from ..environment import archive
from ..environment.archive import Archive
from .aws import Aws, explained
from .spec import NO_STAGING, PYTHON, ClusterSpec, needs_a_bucket

_WEEK = 7 * 86_400  # seconds; AWS accepts no link that is valid for longer
_LONG_LINK = f"https://{'-' * 1500}"  # with temporary credentials
_MARGIN = 900.0  # seconds that a link is valid after the deadline, for clocks that differ


def archive_of(spec: ClusterSpec, architecture: str) -> Archive:
    """Find the packages of a cluster's instances, and store them in its bucket. Raises ClusterError or UsageError."""
    if spec.staging == NO_STAGING:
        raise needs_a_bucket()
    with packed_for(spec, architecture) as (locked, folder):
        return archive.upload(locked, folder, spec.staging)


def packed_for(spec: ClusterSpec, architecture: str):
    """Return the context manager of `archive.packed` for the packages of a cluster's instances."""
    return archive.packed(
        spec.requirements,
        everything=spec.with_env,
        python=PYTHON,
        architecture=architecture,
        index_url=spec.index_url,
        wheels=spec.wheels,
    )


def installation(stored: Archive, aws: Aws, deadline: float) -> list[str]:
    """Return the words before a command that install its environment.

    They contain a link, because an instance may have no permissions of its own. It is valid until the deadline, in
    seconds since 1970, but for a week at most, and not longer than the caller's credentials.
    """
    text = importlib.resources.files(environment).joinpath("install.py").read_text()
    seconds = min(max(deadline - time.time(), 0) + _MARGIN, _WEEK)
    is_none = stored.url.startswith(f"{NO_STAGING}/")  # `doctor` only wants to know how long the words are
    return ["python", "-c", text, _LONG_LINK if is_none else _link(stored.url, aws, seconds), stored.sha256]


def _link(url: str, aws: Aws, seconds: float) -> str:
    """Return an address at which everybody may read an object for some seconds. Raises ClusterError."""
    bucket, _, key = url.partition("://")[2].partition("/")
    with explained("Cannot make a link to the packages"):
        return aws.s3(bucket).generate_presigned_url("get_object", {"Bucket": bucket, "Key": key}, int(seconds))
