"""Which executor runs the tasks: the choice that `cluster=` makes."""

import contextlib
from collections.abc import Iterator

import dask
import distributed
from distributed import Client
from distributed.deploy.cluster import Cluster

from ..classifier.bundle import Bundle
from ..config import configured
from ..errors import ClusterError, UsageError
from ..runs.progress import Progress
from ..units import Renewal, parse_seconds
from .connection import ATTEMPT_SECONDS, Connection, OnceClient
from .executors import DaskExecutor, Executor, InlineExecutor
from .instances import InstanceCluster, OtherCluster
from .local import LocalCluster

INLINE = "inline"  # this process, without Dask
WORKER_TIMEOUT = "5m"  # to wait for a first worker


@contextlib.contextmanager
def connect(
    cluster: Cluster | Client | str | None,
    run_id: str,
    package: Bundle,
    progress: Progress,
    renewal: Renewal | None = None,
    worker_timeout: str | float | None = None,
) -> Iterator[Executor]:
    """Yield an executor on a cluster: a Dask cluster, a Client, the address of a scheduler, or "inline".

    None stands for Dask's default Client, or, where there is none, for all cores of this computer. Raises ClusterError.
    """
    patience = parse_seconds(worker_timeout or configured().get("worker_timeout", WORKER_TIMEOUT), "worker timeout")
    with contextlib.ExitStack() as stack:
        if cluster == INLINE:
            if renewal:
                raise UsageError(
                    "A process that runs inline cannot be renewed.", "Leave --renew-after out, or --cluster inline."
                )
            executor = InlineExecutor(package, progress)
        else:
            client = _connected(cluster, stack)
            instances = client.cluster
            if not isinstance(instances, InstanceCluster):
                instances = OtherCluster(patience, progress)
            connection = Connection(client, instances, progress)
            stack.callback(connection.close)
            connection.ask(instances.wait_for_first_workers)
            executor = DaskExecutor(connection, run_id, package, progress, renewal)
        stack.callback(executor.close)
        yield executor


def _connected(cluster: Cluster | Client | str | None, stack: contextlib.ExitStack) -> Client:
    """A client of the cluster; one that is made here is closed with the stack, as is a cluster."""
    if cluster is None:
        cluster = _default_client() or stack.enter_context(LocalCluster(dashboard_address="127.0.0.1:0"))
    if isinstance(cluster, Cluster) and cluster.asynchronous:
        raise _asynchronous("cluster")
    client = cluster if isinstance(cluster, Client) else stack.enter_context(_client(cluster))
    if client.asynchronous:
        raise _asynchronous("Client")
    return client


def _asynchronous(kind: str) -> UsageError:
    return UsageError(
        f"An asynchronous {kind} cannot be used: a run blocks until it is done.",
        f"Make the {kind} without asynchronous=True, and call dc.run in a thread if you are in an event loop.",
    )


def _default_client() -> Client | None:
    try:
        return distributed.default_client()
    except ValueError:
        return None


def _client(cluster: str | Cluster) -> Client:
    limit = getattr(cluster, "connect_seconds", None) or dask.config.get("distributed.comm.timeouts.connect")
    try:
        client = OnceClient(cluster, set_as_default=False, timeout=limit)
        client._timeout = ATTEMPT_SECONDS  # also of its close, and a scheduler may be gone
    except (OSError, ValueError, TypeError, TimeoutError) as error:  # TypeError: TLS without its settings
        raise ClusterError(
            f"Cannot connect to a Dask cluster at {cluster}: {error}.",
            "Check that its scheduler is running and reachable from this computer.",
        ) from error
    return client
