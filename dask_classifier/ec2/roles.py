"""What a machine of a cluster runs, by its role: the scheduler's, or a worker's."""

from ..engine.local import DASK_SETTINGS, PROFILED, SCHEDULER_PAGES
from ..engine.spot import ENVIRONMENT as HEED_INTERRUPTIONS
from . import boot
from .nodes import DASHBOARD_PORT, PORT
from .spec import ClusterSpec

_LOST_SETTINGS = {"distributed.scheduler.worker-ttl": "2 minutes"}  # a machine that vanishes without a word


def user_data(
    spec: ClusterSpec, tls: boot.Tls, role: str, title: str, region: str, scheduler: str, minutes: int
) -> str:
    """The script with which a machine boots; a worker's name is the last word of `title`."""
    if role == "scheduler":
        idle = spec.deadline if spec.name else spec.idle_timeout  # one that stays waits for its next run
        command = boot.scheduler_command(PORT, DASHBOARD_PORT, idle)
    else:
        command = boot.worker_command(scheduler, title.split()[-1], spec)
    settings = DASK_SETTINGS | _LOST_SETTINGS | (PROFILED if spec.profile else {})
    if role == "scheduler":
        settings = settings | SCHEDULER_PAGES
        del settings["distributed.worker.daemon"]  # user data is short: only what the role reads
    return boot.user_data(
        title=f"dask-classify {title}",
        minutes=minutes,
        image=spec.image,
        command=command,
        config=boot.config(tls, role, settings),
        environment={HEED_INTERRUPTIONS: "1"} if spec.spot else {},
        region=region,
    )
