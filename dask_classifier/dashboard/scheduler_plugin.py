"""What a Dask scheduler has of us: a plugin that follows its runs, for the page /classify of its dashboard.

It knows of a run whether or not somebody looks, so a page that is opened late shows the whole run. And it knows whose
run it is, so it takes away from the workers what a killed client left there.
"""

import contextlib
import sys
from typing import Any

from distributed import Scheduler, SchedulerPlugin

from .events import PAGE_TOPIC, PLUGIN, TOPICS, FollowedRun, run_of, topic
from .lazy import is_lazy

_MOST_RUNS = 8  # that are kept, beside those at work


class RunsPlugin(SchedulerPlugin):
    """Follows the runs of a scheduler. Registered by each run; the first one stays."""

    name = PLUGIN
    idempotent = True

    def __init__(self):
        self.runs: dict[str, FollowedRun] = {}  # the newest last
        self.owners: dict[str, str] = {}  # of each run that has not ended: Dask's name of its client
        self.scheduler: Scheduler | None = None
        self.path: str | None = None  # of the page, where there is a dashboard

    async def start(self, scheduler: Scheduler) -> None:
        """Add our page to a dashboard that is there already; one that is made later has it from the start."""
        self.scheduler = scheduler
        if is_lazy(scheduler):
            self.path = "/classify"
        elif "distributed.dashboard.scheduler" in sys.modules:
            from . import page  # imports Bokeh

            self.path = page.add(scheduler)

    def log_event(self, topic: str, msg: Any) -> None:
        """Hear what concerns a run. One begins when its client says what it is called."""
        if not isinstance(msg, dict) or not (topic == PAGE_TOPIC or topic.startswith(TOPICS)):
            return
        run = msg["run"] if topic == PAGE_TOPIC else run_of(topic)
        if "client" in msg:
            self.owners[run] = msg["client"]
        if "end" in msg:
            self.owners.pop(run, None)
        if "title" in msg and run not in self.runs:
            self.runs[run] = FollowedRun(run)
            self._forget_old_ones()
        if run in self.runs:
            self.runs[run].hear(msg)

    def _forget_old_ones(self) -> None:
        over = [name for name, run in self.runs.items() if run.ended]
        for name in over[: max(0, len(over) - _MOST_RUNS)]:
            del self.runs[name]

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """End the runs of a client that leaves without a word, which means that it was killed."""
        for run in [run for run, owner in self.owners.items() if owner == client]:
            del self.owners[run]
            if run in self.runs:
                self.runs[run].hear({"end": "its client is gone"})
            scheduler.loop.add_callback(_clear_workers, scheduler, topic(run))

    @property
    def newest(self) -> FollowedRun | None:
        """The run that began last; of those at work, if there are any."""
        at_work = [run for run in self.runs.values() if not run.ended]
        return next(reversed(at_work or list(self.runs.values())), None)


async def _clear_workers(scheduler: Scheduler, plugin: str) -> None:
    """Take a run's processes, folder and timer from the workers, also from those that join later."""
    with contextlib.suppress(ValueError, OSError):  # it was never registered, or a worker has just left
        await scheduler.unregister_worker_plugin(None, plugin)


def page_path(dask_scheduler: Scheduler) -> str | None:
    """Where a scheduler's page is; None where it has no dashboard."""
    plugin = dask_scheduler.plugins.get(PLUGIN)
    return plugin.path if isinstance(plugin, RunsPlugin) else None


async def dask_setup(scheduler: Scheduler) -> None:
    """For `dask scheduler --preload`: the page is there before the first run."""
    await scheduler.register_scheduler_plugin(RunsPlugin(), idempotent=True)
