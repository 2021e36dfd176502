"""Classify the rows of a big CSV file with a slow pandas function: on one process, all cores, or a cluster.

import dask_classifier as dc

plan = dc.plan(rows="1M", output="runs/demo")       # or input="s3://bucket/in/*.csv"
with dc.LocalCluster(workers=4) as cluster:
    result = dc.run(plan, cluster)
result.head()
"""

import importlib
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import errors
    from .cluster import EC2Cluster
    from .ec2.spec import ClusterSpec
    from .engine.local import LocalCluster
    from .pipeline import classify, run
    from .planner.estimate import Estimate
    from .planner.planner import estimate
    from .runs.manifest import Manifest
    from .runs.planning import Plan, plan
    from .runs.progress import Progress
    from .runs.result import Result, open_run
    from .show.report import report

__version__ = version("dask-classify")
__all__ = [
    "ClusterSpec",
    "EC2Cluster",
    "Estimate",
    "LocalCluster",
    "Manifest",
    "Plan",
    "Progress",
    "Result",
    "classify",
    "errors",
    "estimate",
    "open_run",
    "plan",
    "publish",
    "report",
    "run",
]

_HOME = {
    "ClusterSpec": "ec2.spec",
    "Manifest": "runs.manifest",
    "EC2Cluster": "cluster",
    "LocalCluster": "engine.local",
    "Plan": "runs.planning",
    "Progress": "runs.progress",
    "Result": "runs.result",
    "open_run": "runs.result",
    "plan": "runs.planning",
    "report": "show.report",
    "Estimate": "planner.estimate",
    "classify": "pipeline",
    "estimate": "planner.planner",
    "run": "pipeline",
    "publish": "publishing",
}


def check_platform() -> None:
    """Raise UsageError on Windows, rather than an AttributeError for the first thing that it does not have."""
    if sys.platform == "win32":
        from .errors import UsageError

        raise UsageError(
            "dask-classify does not run on Windows: it needs fork and POSIX signals.",
            "Use WSL: run `wsl --install`, then install and run it there as on Linux.",
        )


def __getattr__(name: str):
    """Import a public name when it is first used: a classifier process needs pandas, but neither Dask nor a
    scheduler.
    """
    if name == "errors":
        return importlib.import_module(".errors", __name__)
    if name in _HOME:
        check_platform()
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__():
    return sorted({*globals(), *__all__})
