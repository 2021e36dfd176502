"""A run's connection to the scheduler: what the run has registered there, and how both come back after a loss.

A scheduler takes a client that disconnects for dead: it gives up the client's tasks and subscriptions, and with
RunsPlugin the run's processes. Dask's client connects again under the same name, which the scheduler may remove later,
when it notices the loss itself. So a new client takes over.
"""

import contextlib
import threading
import time
from collections.abc import Callable

from distributed import Client

from ..errors import ClusterError
from ..runs.progress import Progress
from ..units import format_seconds
from .instances import InstanceCluster

LOST = "scheduler-connection-lost"  # Dask's reason for cancelled futures
ATTEMPT_SECONDS = 10.0  # of one attempt to connect: Dask waits longer and longer within one
_PAUSE_SECONDS = 1.0


class OnceClient(Client):
    """A client that closes when it loses its connection."""

    async def _reconnect(self) -> None:
        for state in self.futures.values():
            state.cancel(reason=LOST, msg="The connection to the scheduler was lost.")
        self.futures.clear()
        await self._close()


class Connection:
    """A client on which `join` registers what a run needs, and after a loss another one.

    `join` may raise OSError if the connection is lost meanwhile.
    """

    def __init__(self, client: Client, instances: InstanceCluster, progress: Progress):
        self.client, self.instances, self.progress = client, instances, progress
        self._address, self._joined = client.scheduler.address, client.scheduler_comm
        self._own: list[Client] = []
        self._lock = threading.Lock()
        self.join: Callable[[], None] = lambda: None

    def is_joined(self) -> bool:
        """Whether the connection is still the one on which the run has registered."""
        return self.client.status == "running" and self.client.scheduler_comm is self._joined

    def ensure(self) -> None:
        """Return at once if nothing was lost; else connect again, and join. Raises ClusterError."""
        with self._lock:
            if self.is_joined():
                return
            limit = format_seconds(self.instances.reconnect_seconds)
            self.progress.note(f"lost the connection to the scheduler; trying again for up to {limit}")
            until = time.monotonic() + self.instances.reconnect_seconds
            while not self._is_connected_again():
                if self.instances.is_gone():
                    raise lost("its scheduler's instance has terminated")
                if time.monotonic() > until:
                    raise lost(f"no new one within {limit}")
                time.sleep(_PAUSE_SECONDS)
            self.progress.note("connected to the scheduler again; blocks that were under way start again")

    def _is_connected_again(self) -> bool:
        """Try once."""
        before = self.client
        try:
            self.client = OnceClient(
                self._address,
                security=before.security,
                loop=before.loop,
                timeout=ATTEMPT_SECONDS,
                set_as_default=False,
            )
            self._own.append(self.client)
            self._joined = self.client.scheduler_comm
            self.join()
        except OSError:
            self.client = before
            return False
        return True

    def close(self) -> None:
        """Close the clients that were made here."""
        for client in self._own:
            with contextlib.suppress(Exception):
                client.close()


def lost(why: str) -> ClusterError:
    """Return the error for a connection that does not come back."""
    return ClusterError(
        f"Lost the connection to the cluster: {why}.",
        "Finished blocks are kept. Continue on another cluster with --resume.",
    )
