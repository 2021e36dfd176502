"""The instances of a cluster as the nodes that Dask's SpecCluster manages: a scheduler and workers."""

import asyncio
import contextlib

from dask_cloudprovider.aws.ec2 import EC2Scheduler, EC2Worker
from distributed.core import Status
from distributed.deploy.spec import ProcessInterface

from ..errors import ClusterError
from .boot import PORT
from .joining import scheduler_answers

_LOOK_SECONDS = 3  # between looks at the scheduler's instance, while the scheduler does not answer
GRACE_SECONDS = 10  # for Dask to close in order, before the instance is terminated anyway


class _Node:
    """The part that both kinds of nodes share."""

    async def close(self):
        """Terminate the instance, unless the whole cluster is shutting down: then all are terminated together."""
        fleet = self.cluster.fleet
        if self.instance and not fleet.stopping:
            await asyncio.to_thread(fleet.terminate, self.instance["InstanceId"])
        await ProcessInterface.close(self)


class Scheduler(_Node, EC2Scheduler):
    """The scheduler's instance."""

    async def start(self):
        """Launch the scheduler, start the worker launches, and wait until the scheduler accepts connections."""
        cluster = self.cluster
        is_inside = cluster.spec.private_ip or cluster.own_instance
        key = "PrivateIpAddress" if is_inside else "PublicIpAddress"
        self.instance = await cluster.instance_of("scheduler")
        # Workers connect inside the subnet, where the security group does not admit the public address.
        self.contact_address = f"tls://{self.instance['PrivateIpAddress']}:{PORT}"
        cluster.launch_workers(self.contact_address)
        self.instance = await asyncio.to_thread(cluster.fleet.with_address, self.instance, key)
        self.address = f"tls://{self.instance[key]}:{PORT}"
        await self._answer(self.instance[key])
        await ProcessInterface.start(self)

    async def _answer(self, host: str) -> None:
        """Wait until the scheduler answers; meanwhile look at its instance, and mention what is waited for."""
        options = self.cluster.security.get_connection_args("client")
        answer = asyncio.ensure_future(scheduler_answers(self.address, **options))
        try:
            while not (await asyncio.wait({answer}, timeout=_LOOK_SECONDS))[0]:
                self.cluster.check_bring_up(f"The scheduler at {host}:{PORT} does not answer")
                await asyncio.to_thread(self._check_instance)
            await answer
        finally:
            answer.cancel()

    def _check_instance(self) -> None:
        """Raise ClusterError if the instance has terminated."""
        fleet, instance_id = self.cluster.fleet, self.instance["InstanceId"]
        if instance_id not in fleet.ended():
            return
        reason, hint = fleet.why_ended([instance_id])
        raise ClusterError(f"The scheduler's instance terminated before it answered{reason}.", hint)


class Worker(_Node, EC2Worker):
    """A worker's instance. Its name is its key in the spec of SpecCluster."""

    def __init__(self, scheduler, *, name, **options):
        super().__init__(scheduler, **options | {"worker_class": None, "worker_module": None})
        self.name = name

    async def start(self):
        """Wait for the instance; if it cannot be launched, the cluster continues without this worker."""
        try:
            self.instance = await self.cluster.instance_of(self.name)
        except ClusterError as error:
            self.cluster.continue_without(self.name, error)
        await ProcessInterface.start(self)

    async def close(self):
        """Retire the worker from the scheduler, then terminate the instance."""
        cluster = self.cluster
        if self.instance and cluster.status == Status.running and not cluster.fleet.stopping:
            with contextlib.suppress(Exception):  # SpecCluster itself would pass the names as addresses
                await asyncio.wait_for(cluster.scheduler_comm.retire_workers(names=[self.name]), GRACE_SECONDS)
        await super().close()
