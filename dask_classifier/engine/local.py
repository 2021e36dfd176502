"""The cores of this machine as a cluster; Dask's settings for all clusters, with reasons."""

import logging
import warnings
from typing import Self

import dask
import distributed
from dask.system import CPU_COUNT

from ..dashboard.lazy import LazyDashboard
from ..errors import UsageError
from .processes import start_forkserver

# Dask's defaults serve thousands of small tasks in threads of the worker. Here a task is a block of seconds, and
# its thread waits.
DASK_SETTINGS = {
    "distributed.worker.profile.enabled": False,  # samples every thread 100 times a second: 8 % of a core, of waiting
    "distributed.admin.system-monitor.gil.enabled": False,  # takes the GIL each ms, to see who has it
    "distributed.worker.daemon": False,  # a daemonic worker may have no classifier processes
    "distributed.scheduler.worker-saturation": 1.0,  # no block waits at a busy worker while another is idle
}
# Dask's own pages but distributed.http.proxy: with jupyter-server-proxy installed, it asks any address on behalf of
# whoever reaches the dashboard.
SCHEDULER_PAGES = {
    "distributed.scheduler.http.routes": [
        f"distributed.http.{name}"
        for name in ("scheduler.prometheus", "scheduler.info", "scheduler.json", "health", "statics")
    ]
}
PROFILED = {"distributed.worker.profile.enabled": True}


class _Worker(distributed.Worker):
    """A worker whose dashboard is made when it is looked at."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options | {"dashboard": False})

    async def start_unsafe(self):
        started = await super().start_unsafe()
        LazyDashboard(self, "distributed.dashboard.worker")
        return started


class LocalCluster(distributed.LocalCluster):
    """A scheduler and one worker in this process, with classifier processes as its children.

    Everything else is Dask's LocalCluster: `Client(cluster)`, `cluster.dashboard_link`, `cluster.close()`, `with`.

    Parameters
    ----------
    workers, n_workers : int, optional
        Number of classifier processes; `n_workers` is Dask's name for it. Default: one per core.
    dashboard_address : str
        Where the dashboard listens: by default on loopback only, on another port if this one is taken.
    profile : bool
        Whether Dask's statistical profiler runs.
    silence_logs : int
        Dask prints log messages of this level and above only.

    Raises
    ------
    UsageError
        The number of processes is less than one.

    Examples
    --------
    >>> with dc.LocalCluster(4) as cluster:  # doctest: +SKIP
    ...     result = dc.run(plan, cluster)
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        n_workers: int | None = None,
        dashboard_address: str = "127.0.0.1:8787",
        profile: bool = False,
        silence_logs: int = logging.ERROR,
    ):
        workers = workers if n_workers is None else n_workers
        if workers is not None and workers < 1:
            raise UsageError(f"A cluster of {workers} workers is too small.", "Give at least one: --workers 1.")
        self._dashboard_host = dashboard_address.rpartition(":")[0] or "127.0.0.1"
        start_forkserver()  # it loads pandas while the scheduler starts
        settings = DASK_SETTINGS | SCHEDULER_PAGES | (PROFILED if profile else {})
        with dask.config.set(settings), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Port .* is already in use")
            # of a computer that is offline: nothing here needs an address
            warnings.filterwarnings("ignore", message="Couldn't detect a suitable IP address")
            super().__init__(
                n_workers=1,
                threads_per_worker=workers or CPU_COUNT,
                processes=False,
                worker_class=_Worker,
                memory_limit=0,  # Dask holds no rows; it has nothing to spill
                dashboard_address=dashboard_address,
                scheduler_kwargs={"dashboard": False},
                worker_dashboard_address="127.0.0.1:0",
                silence_logs=silence_logs,
            )
        LazyDashboard(self.scheduler, "dask_classifier.dashboard.page")

    def __enter__(self) -> Self:
        return super().__enter__()  # Dask's own has no type

    @property
    def dashboard_link(self) -> str:
        """URL of the dashboard, which is on loopback, whatever the scheduler's address is."""
        host = self._dashboard_host
        return f"http://{host}:{self.scheduler.services['dashboard'].port}/status"
