"""What a Dask scheduler has of us: a plugin that follows its runs, for the page /classify of its dashboard.

It knows of a run whether or not somebody looks, so a page that is opened late shows the whole run.
"""

import contextlib
import sys
from typing import Any

from distributed import Scheduler, SchedulerPlugin

from .followed import PLUGIN, TOPICS, FollowedRun, run_of

_MOST_RUNS = 8  # that are kept


class RunsPlugin(SchedulerPlugin):
    """Follows the runs of a scheduler. Registered by each run; the first one stays."""

    name = PLUGIN
    idempotent = True

    def __init__(self):
        self.runs: dict[str, FollowedRun] = {}  # the newest last

    async def start(self, scheduler: Scheduler) -> None:
        """Add our page to a dashboard that is there already; one that is made later has it from the start."""
        if "distributed.dashboard.scheduler" in sys.modules:
            from . import page  # imports Bokeh

            with contextlib.suppress(page.NoDashboard):
                page.add(scheduler)

    def log_event(self, topic: str, msg: Any) -> None:
        """Hear what concerns a run."""
        if not topic.startswith(TOPICS) or not isinstance(msg, dict):
            return
        run = run_of(topic)
        if run not in self.runs:
            self.runs[run] = FollowedRun(run)
            while len(self.runs) > _MOST_RUNS:
                del self.runs[next(iter(self.runs))]
        self.runs[run].hear(msg)

    @property
    def newest(self) -> FollowedRun | None:
        """The run that began last."""
        return next(reversed(self.runs.values()), None)


async def dask_setup(scheduler: Scheduler) -> None:
    """For `dask scheduler --preload dask_classifier.schedulers`: the page is there before the first run."""
    await scheduler.register_scheduler_plugin(RunsPlugin(), idempotent=True)
