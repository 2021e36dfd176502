"""The cores of this computer as a cluster: `LocalCluster`."""

import logging
import warnings
from typing import Self

import dask
import distributed
from dask.system import CPU_COUNT

from ..dashboard.lazy import LazyDashboard
from ..errors import UsageError
from .dask_settings import DASK_SETTINGS, PROFILED, SCHEDULER_PAGES
from .processes import start_forkserver


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
            try:
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
            except RuntimeError as error:  # Dask's, for whatever happened
                raise UsageError(
                    f"Cannot start a cluster with its dashboard at {dashboard_address}: {error.__cause__ or error}.",
                    "Check --dashboard-address: HOST:PORT, such as 127.0.0.1:8787.",
                ) from error
        LazyDashboard(self.scheduler, "dask_classifier.dashboard.page")

    def __enter__(self) -> Self:
        return super().__enter__()  # Dask's own has no type

    @property
    def dashboard_link(self) -> str:
        """URL of the dashboard, which is on loopback, whatever the scheduler's address is."""
        host = self._dashboard_host
        return f"http://{host}:{self.scheduler.services['dashboard'].port}/status"
