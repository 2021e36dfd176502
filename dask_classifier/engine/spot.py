"""Retire the Dask worker on a spot instance before EC2 reclaims the instance."""

import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable

ENVIRONMENT = "DASK_CLASSIFY_SPOT"  # set if this is, or may be, a spot instance
_METADATA = "http://169.254.169.254/latest/"
_POLL_SECONDS = 5.0  # recommended by AWS, which gives notice two minutes in advance


def watch(worker, report: Callable[[str], None]) -> threading.Event:
    """Watch for EC2's interruption notice in a thread; then retire the Dask worker. Do nothing on other computers.

    Parameters
    ----------
    worker : distributed.Worker
        The worker to retire.
    report : callable
        Called with the reason, before the worker leaves.

    Returns
    -------
    threading.Event
        Set it to stop the watch.

    Notes
    -----
    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
    """
    stop = threading.Event()
    if os.environ.get(ENVIRONMENT):
        threading.Thread(target=_wait, args=(worker, report, stop), daemon=True, name="dask-classify-spot").start()
    return stop


def _wait(worker, report: Callable[[str], None], stop: threading.Event) -> None:
    while not stop.wait(_POLL_SECONDS) and worker.status.name == "running":
        if when := notice():
            report(f"EC2 reclaims its instance at {when}")
            worker.loop.add_callback(worker.close_gracefully, restart=False, reason="spot interruption")
            return


def _answer(request: urllib.request.Request) -> bytes:
    with urllib.request.urlopen(request, timeout=2) as answer:
        return answer.read()


def notice() -> str | None:
    """Return the time at which EC2 will reclaim this instance, or None if there is no notice."""
    try:
        request = urllib.request.Request(
            _METADATA + "api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"}
        )
        token = _answer(request).decode()
        request = urllib.request.Request(
            _METADATA + "meta-data/spot/instance-action", headers={"X-aws-ec2-metadata-token": token}
        )
        return json.loads(_answer(request))["time"]
    except (OSError, ValueError, KeyError):  # 404 without a notice
        return None
