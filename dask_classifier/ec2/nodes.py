"""One instance of a cluster as Dask's SpecCluster sees it: the scheduler's, or a worker's."""

import asyncio
import contextlib

from dask_cloudprovider.aws.ec2 import EC2Scheduler, EC2Worker
from distributed.core import Status
from distributed.deploy.spec import ProcessInterface

from ..errors import ClusterError

PORT, DASHBOARD_PORT = 8786, 8787
GRACE_SECONDS = 10  # for Dask to take leave, before a machine is terminated anyway


class _Node:
    """What both have in common."""

    async def close(self):
        """End the machine, unless the whole cluster ends: then all are ended together."""
        fleet = self.cluster.fleet
        if self.instance and not fleet.stopping:
            await asyncio.to_thread(fleet.terminate, self.instance["InstanceId"])
        await ProcessInterface.close(self)


class Scheduler(_Node, EC2Scheduler):
    """The scheduler's machine."""

    async def start(self):
        """Have the machine, have the workers' machines started too, and wait until the scheduler answers."""
        cluster, key = self.cluster, "PrivateIpAddress" if self.cluster.spec.private_ip else "PublicIpAddress"
        self.instance = await cluster.machine("scheduler")
        # workers join within the subnet: from there, the public address is a stranger's
        self.contact_address = f"tls://{self.instance['PrivateIpAddress']}:{PORT}"
        cluster.launch_workers(self.contact_address)
        self.instance = await asyncio.to_thread(cluster.fleet.with_address, self.instance, key)
        self.address = f"tls://{self.instance[key]}:{PORT}"
        while not await _listens(self.instance[key]):
            cluster.check_bring_up(f"The scheduler at {self.instance[key]}:{PORT} does not answer")
            await asyncio.to_thread(self._check_machine)
        await ProcessInterface.start(self)

    def _check_machine(self) -> None:
        """Raises ClusterError when the machine has ended."""
        fleet, mine = self.cluster.fleet, self.instance["InstanceId"]
        if mine not in fleet.ended():
            return
        said, hint = fleet.last_words([mine])
        raise ClusterError(f"The scheduler's machine ended before it answered{said}.", hint)


async def _listens(host: str) -> bool:
    """Whether somebody does; waits a little if not."""
    with contextlib.suppress(OSError, asyncio.TimeoutError):
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, PORT), 3)
        writer.close()
        return True
    await asyncio.sleep(0.3)
    return False


class Worker(_Node, EC2Worker):
    """A worker's machine. Its name is the key by which SpecCluster knows it."""

    def __init__(self, scheduler, *, name, **options):
        super().__init__(scheduler, **options | {"worker_class": None, "worker_module": None})
        self.name = name

    async def start(self):
        """Have the machine; where it cannot be had, the cluster goes on without."""
        try:
            self.instance = await self.cluster.machine(self.name)
        except ClusterError as error:
            self.cluster.go_on_without(self.name, error)
        await ProcessInterface.start(self)

    async def close(self):
        """Take leave of the scheduler, then end the machine."""
        cluster = self.cluster
        if self.instance and cluster.status == Status.running and not cluster.fleet.stopping:
            with contextlib.suppress(Exception):  # SpecCluster retires by address, but has names
                await asyncio.wait_for(cluster.scheduler_comm.retire_workers(names=[self.name]), GRACE_SECONDS)
        await super().close()
