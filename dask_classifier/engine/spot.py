"""A worker on a spot instance leaves its cluster before EC2 takes the machine."""

import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable

ENVIRONMENT = "DASK_CLASSIFY_SPOT"  # set where the machine is, or may be, a spot instance
_METADATA = "http://169.254.169.254/latest/"
_POLL_SECONDS = 5.0  # as AWS advises; the notice comes two minutes before the end


def watch(worker, tell: Callable[[str], None]) -> threading.Event:
    """Retire the Dask worker when EC2 gives notice; `tell` is told why. Nothing where it is no spot instance.

    Setting the event that is returned ends the watch.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
    """
    over = threading.Event()
    if os.environ.get(ENVIRONMENT):
        threading.Thread(target=_wait, args=(worker, tell, over), daemon=True, name="dask-classify-spot").start()
    return over


def _wait(worker, tell: Callable[[str], None], over: threading.Event) -> None:
    while not over.wait(_POLL_SECONDS) and worker.status.name == "running":
        if when := notice():
            tell(f"EC2 takes its machine back at {when}")
            worker.loop.add_callback(worker.close_gracefully, restart=False, reason="spot interruption")
            return


def notice() -> str | None:
    """When EC2 will take this machine back, if it said so."""
    try:
        ask = urllib.request.Request(
            _METADATA + "api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"}
        )
        token = urllib.request.urlopen(ask, timeout=2).read().decode()
        ask = urllib.request.Request(
            _METADATA + "meta-data/spot/instance-action", headers={"X-aws-ec2-metadata-token": token}
        )
        return json.load(urllib.request.urlopen(ask, timeout=2))["time"]
    except (OSError, ValueError, KeyError):  # 404: no notice
        return None
