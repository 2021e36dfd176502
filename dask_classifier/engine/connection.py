"""A run's connection to the scheduler: what the run has registered there, and how both come back after a loss.

A scheduler takes a client that disconnects for dead: it gives up the client's tasks and subscriptions, and with
RunsPlugin the run's processes. Dask's client connects again under the same name, which the scheduler may remove later,
when it notices the loss itself. So a new client takes over.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from distributed import Client
from distributed.client import FutureCancelledError
from distributed.core import Status

from ..errors import ClusterError, DaskClassifyError
from ..runs.progress import Progress
from ..units import format_seconds
from .instances import InstanceCluster

LOST = "scheduler-connection-lost"  # Dask's reason for cancelled futures
KEPT = "Finished blocks are kept. Continue on another cluster with --resume."
ATTEMPT_SECONDS = 10.0  # of one attempt to connect: Dask waits longer and longer within one
_PAUSE_SECONDS = 1.0
_ASK_AGAIN_SECONDS = 30.0  # for this computer's address
_NOTICE_SECONDS = 2.0  # in which a client hears that its connection is lost

Over = Callable[[], bool]  # whether the time is over
Answer = TypeVar("Answer")


class OnceClient(Client):
    """A client that closes when it loses its connection."""

    _has_thread = False  # whether it has closed, and its thread runs on

    async def _reconnect(self) -> None:
        self._has_thread = True
        for state in self.futures.values():
            state.cancel(reason=LOST, msg="The connection to the scheduler was lost.")
        self.futures.clear()
        await self._close()

    async def _gather(self, futures: Any, *args: Any, **options: Any) -> Any:
        """Fetch results; one that was on its way when the connection broke is lost like the others."""
        try:
            return await super()._gather(futures, *args, **options)
        except Exception as error:
            if self.status == "running" and not isinstance(error, OSError):
                raise
            raise FutureCancelledError("a result", LOST) from error

    def close(self, *args: Any, **options: Any) -> Any:
        """Close, and end the client's thread, which Dask does not do after a loss."""
        super().close(*args, **options)
        if self._has_thread:
            self._has_thread = False
            self._loop_runner.stop()


class Connection:
    """A client on which `join` registers what a run needs, and after a loss another one."""

    def __init__(self, client: Client, instances: InstanceCluster, progress: Progress):
        if client.status != "running":
            raise lost(_CLOSED)
        self.first = self.client = client
        self.instances, self.progress = instances, progress
        self._address, self._joined = client.scheduler.address, client.scheduler_comm
        self._lock = threading.Lock()
        self.join: Callable[[], None] = lambda: None  # on a new connection

    def is_joined(self) -> bool:
        """Whether the connection is still the one on which the run has registered."""
        return self.client.status == "running" and self.client.scheduler_comm is self._joined

    def is_lost_soon(self) -> bool:
        """Return whether the connection is lost; the client may hear of that some time after a call has failed."""
        until = time.monotonic() + _NOTICE_SECONDS
        while self.is_joined() and time.monotonic() < until:
            time.sleep(0.1)
        return not self.is_joined()

    def ensure(self, is_over: Over | None = None) -> bool:
        """Connect again if the connection was lost; return whether there is one before the time is over.

        Raises ClusterError if it does not come back.
        """
        with self._lock:
            if self.is_joined():
                return True
            self._refuse_if_closed()
            limit = format_seconds(self.instances.reconnect_seconds)
            self.progress.note(f"lost the connection to the scheduler; trying again for up to {limit}")
            until, ask_again, asking = time.monotonic() + self.instances.reconnect_seconds, 0.0, None
            while not self._is_connected_again():
                if time.monotonic() > ask_again and not (asking and asking.is_alive()):
                    # a laptop may be in another network; in a thread, since AWS may not be reached there either
                    asking = threading.Thread(target=self.instances.let_in, daemon=True)
                    asking.start()
                    ask_again = time.monotonic() + _ASK_AGAIN_SECONDS
                if is_over and is_over():
                    return False
                if self.instances.is_gone():
                    raise lost("its scheduler's instance has terminated")
                if time.monotonic() > until:
                    raise lost(f"no new one within {limit}")
                time.sleep(_PAUSE_SECONDS)
            self.progress.note("connected to the scheduler again; blocks that were under way start again")
            return True

    def ask(self, question: Callable[[Client], Answer]) -> Answer:
        """Call a function with the client, and again with the next one if the connection is lost meanwhile."""
        while True:
            self.ensure()
            try:
                return question(self.client)
            except DaskClassifyError:
                raise
            except Exception:
                if self.is_joined():
                    raise

    def _refuse_if_closed(self) -> None:
        """A connection that was closed on purpose is not lost."""
        cluster = self.first.cluster
        if cluster and cluster.status in (Status.closed, Status.closing):
            raise lost("the cluster was closed")
        if self.client.status in ("closed", "closing") and not isinstance(self.client, OnceClient):
            raise lost(_CLOSED)

    def _is_connected_again(self) -> bool:
        """Try once. A failure on a connection that lasts is one of the cluster, and raised."""
        before, joined = self.client, self._joined
        try:
            client = OnceClient(
                self._address,
                security=self.first.security,
                loop=self.first.loop,
                timeout=ATTEMPT_SECONDS,
                set_as_default=False,
            )
        except Exception:
            return False
        self.client, self._joined = client, client.scheduler_comm
        try:
            self.join()
        except Exception as error:
            if self.is_joined() and not isinstance(error, OSError):
                raise
            self.client, self._joined = before, joined
            _close(client)
            return False
        if before is not self.first:
            _close(before)
        return True

    def close(self) -> None:
        """Close the client that was made here, if there is one."""
        if self.client is not self.first:
            _close(self.client)


_CLOSED = "its client was closed"


def _close(client: Client) -> None:
    with contextlib.suppress(Exception):  # the scheduler may be gone
        client.close()


def lost(why: str) -> ClusterError:
    """Return the error for a connection that does not come back."""
    return ClusterError(f"Lost the connection to the cluster: {why}.", KEPT)
