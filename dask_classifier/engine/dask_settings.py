"""Dask's settings for local clusters and clusters on EC2, with reasons."""

# Dask's defaults serve thousands of small tasks in threads of the worker. Here a task is a block of seconds, and
# its thread waits.
DASK_SETTINGS = {
    "distributed.worker.profile.enabled": False,  # samples every thread 100 times a second: 8 % of a core, of waiting
    "distributed.admin.system-monitor.gil.enabled": False,  # takes the GIL each ms, to see who has it
    "distributed.worker.daemon": False,  # a daemonic worker may have no classifier processes
    "distributed.scheduler.worker-saturation": 1.0,  # no block waits at a busy worker while another is idle
}
# Dask's own pages except distributed.http.proxy: with jupyter-server-proxy installed, it fetches any address for
# whoever reaches the dashboard.
SCHEDULER_PAGES = {
    "distributed.scheduler.http.routes": [
        f"distributed.http.{name}"
        for name in ("scheduler.prometheus", "scheduler.info", "scheduler.json", "health", "statics")
    ]
}
PROFILED = {"distributed.worker.profile.enabled": True}
