"""The scheduler plugin that follows runs for the page /classify, and cleans up after clients that were killed.

It follows each run from its start, so a page that is opened late shows the whole run. It also knows the client of each
run; if the client is killed, it removes the run's processes and files from the workers.
"""

import contextlib
import sys
from typing import Any

from distributed import Scheduler, SchedulerPlugin

from .events import PAGE_TOPIC, PLUGIN, TOPICS, FollowedRun, run_of, topic
from .lazy import is_lazy

_MAX_ENDED_RUNS = 8  # older ones are forgotten


class RunsPlugin(SchedulerPlugin):
    """Follow the runs of a scheduler. Every run registers the plugin; Dask keeps the first one."""

    name = PLUGIN
    idempotent = True

    def __init__(self):
        self.runs: dict[str, FollowedRun] = {}  # by run ID, the newest last
        self.owners: dict[str, str] = {}  # run ID to client ID, for runs that have not ended
        self.scheduler: Scheduler | None = None
        self.path: str | None = None  # of the page; None without a dashboard

    async def start(self, scheduler: Scheduler) -> None:
        """Add the page to an existing dashboard. One that is created later includes it from the start."""
        self.scheduler = scheduler
        if is_lazy(scheduler):
            self.path = "/classify"
        elif "distributed.dashboard.scheduler" in sys.modules:
            from . import page  # imports Bokeh

            self.path = page.add(scheduler)

    def log_event(self, topic: str, msg: Any) -> None:
        """Handle an event of a run. A run starts with the event that contains its title."""
        if not isinstance(msg, dict) or not (topic == PAGE_TOPIC or topic.startswith(TOPICS)):
            return
        run = msg["run"] if topic == PAGE_TOPIC else run_of(topic)
        if "client" in msg:
            self.owners[run] = msg["client"]
        if "end" in msg:
            self.owners.pop(run, None)
        if "title" in msg and run not in self.runs:
            self.runs[run] = FollowedRun(run)
            self._forget_old_runs()
        if run in self.runs:
            self.runs[run].handle(msg)

    def _forget_old_runs(self) -> None:
        ended = [name for name, run in self.runs.items() if run.ended]
        for name in ended[: max(0, len(ended) - _MAX_ENDED_RUNS)]:
            del self.runs[name]

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Mark the runs of a client as ended, and clean up. A client that disconnects in mid-run was killed."""
        for run in [run for run, owner in self.owners.items() if owner == client]:
            del self.owners[run]
            if run in self.runs:
                self.runs[run].handle({"end": "client disconnected"})
            scheduler.loop.add_callback(self._clear_workers, scheduler, run)

    async def _clear_workers(self, scheduler: Scheduler, run: str) -> None:
        """Unregister a run's worker plugin, which stops its processes and deletes its folder on all workers."""
        if run in self.owners:
            return  # a new client has taken over
        with contextlib.suppress(ValueError, OSError):  # the plugin was never registered, or a worker has just left
            await scheduler.unregister_worker_plugin(None, topic(run))

    @property
    def newest(self) -> FollowedRun | None:
        """The run that started last among the running ones or, if none is running, among all."""
        running = [run for run in self.runs.values() if not run.ended]
        return next(reversed(running or list(self.runs.values())), None)


def page_path(dask_scheduler: Scheduler) -> str | None:
    """Return the path of a scheduler's page, or None without a dashboard."""
    plugin = dask_scheduler.plugins.get(PLUGIN)
    return plugin.path if isinstance(plugin, RunsPlugin) else None


async def dask_setup(scheduler: Scheduler) -> None:
    """Add the page before the first run; called by `dask scheduler --preload`."""
    await scheduler.register_scheduler_plugin(RunsPlugin(), idempotent=True)
