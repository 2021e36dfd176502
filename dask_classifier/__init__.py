"""Classify the rows of a big CSV file with a slow pandas function: on one process, all cores, or a cluster.

import dask_classifier as dc

plan = dc.plan(rows="1M", output="runs/demo")       # or input="s3://bucket/in/*.csv"
with dc.LocalCluster(workers=4) as cluster:
    result = dc.run(plan, cluster)
result.head()
"""

from importlib.metadata import version

from . import errors
from .cluster import LocalCluster
from .pipeline import run
from .planning import Plan, plan
from .progress import Progress
from .result import Result, open_run

__version__ = version("dask-classify")
__all__ = ["LocalCluster", "Plan", "Progress", "Result", "errors", "open_run", "plan", "run"]
