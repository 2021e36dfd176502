"""`ReplacingCluster`: launches an instance for each one that is lost, and lets a computer in whose address changes."""

import asyncio
import contextlib
import math
from collections.abc import Callable

import dask
import dask_cloudprovider.aws
from dask.utils import parse_timedelta
from distributed.core import Status
from distributed.deploy.cluster import Cluster
from distributed.objects import SchedulerInfo

from ..errors import ClusterError
from ..units import count_of
from .launcher import Fleet
from .placement import caller_of
from .spec import ClusterSpec

_WATCH_SECONDS, _LISTEN_SECONDS, _NEWS_SECONDS = 5.0, 1.0, 10.0


class ReplacingCluster(dask_cloudprovider.aws.EC2Cluster):
    """A cluster that hears of workers that leave, from the scheduler and from EC2, and replaces them."""

    fleet: Fleet
    spec: ClusterSpec
    say: Callable[[str], None]
    own_instance: str  # id of the scheduler's instance if this process runs there
    _replacements: int  # that may still be launched
    _why_no_replacement: str
    _refused: ClusterError | None  # why the first worker that could not be launched was not
    _is_handed_over = False  # whether another process looks after the workers
    _is_gone = False  # whether the scheduler's instance has terminated

    def _update_worker_status(self, op, msg):
        """Replace a worker that leaves and does not come back. SpecCluster would only remove it."""
        if op == "remove" and msg in self.scheduler_info["workers"]:
            self._replace_soon(self.scheduler_info["workers"][msg]["name"])
        Cluster._update_worker_status(self, op, msg)

    def _replace_soon(self, name: str) -> None:
        """Replace a worker unless it comes back in time."""
        seconds = parse_timedelta(dask.config.get("distributed.deploy.lost-worker-timeout"))
        asyncio.get_running_loop().call_later(seconds, self._replace_absent, name)

    def _replace_absent(self, name: str) -> None:
        if name not in self._names():
            self._replace(name)

    def _names(self) -> set[str]:
        """Return the names of the workers that have joined."""
        return {worker["name"] for worker in list(self.scheduler_info["workers"].values())}  # as of this moment

    async def _watch(self) -> None:
        """Replace workers whose instances have terminated, even before the worker joined."""
        while self.status == Status.running and not self.fleet.stopping:
            await asyncio.sleep(_WATCH_SECONDS)
            with contextlib.suppress(ClusterError):  # such as while AWS is busy
                ended = await asyncio.to_thread(self.fleet.ended)
                if self.scheduler.instance["InstanceId"] in ended:
                    self._is_gone = True
                    self.say("The scheduler's instance has terminated.")
                    return
                for name, worker in list(self.workers.items()):
                    if worker.instance and worker.instance["InstanceId"] in ended:
                        self._replace(name)

    def _replace(self, name: str) -> None:
        if self._is_handed_over or name not in self.worker_spec or self.status != Status.running or self.fleet.stopping:
            return
        if self._replacements:
            self._replacements -= 1
            self.fleet.forget_exhausted()
            self.worker_spec.update(self.new_worker_spec())  # first, so that the cluster never looks abandoned
            self.say(f"{name} was lost; {next(reversed(self.worker_spec))} replaces it.")
        else:
            self.say(f"{name} was lost, and is not replaced: {self._why_no_replacement}.")
        del self.worker_spec[name]
        self._correct_state()

    def _allow_replacements(self, *, stays: bool, on_instance: bool) -> None:
        """Set how many workers may be replaced, and why no more may be."""
        self._replacements = max(2, math.ceil(self.spec.workers / 2))
        self._why_no_replacement = "too many workers were lost before"
        if stays:
            self._replacements, self._why_no_replacement = 0, "another command may be making this cluster smaller"
        elif on_instance and self.spec.instance_profile:
            self._replacements, self._why_no_replacement = 0, "the role of the instances may not launch any"

    def continue_without(self, name: str, error: ClusterError) -> None:
        """Remove a worker whose instance could not be launched."""
        self.worker_spec.pop(name, None)
        if not self.fleet.stopping:
            self._refused = self._refused or error
            rest = count_of(len(self.worker_spec), "worker")
            self.say(error.message + (f" Continuing with {rest}." if self.worker_spec else ""))

    def _refuse_if_gone(self) -> None:
        """Raise ClusterError if the scheduler's instance has terminated, as far as is known here."""
        if self._is_gone:
            reason, hint = self.fleet.why_ended([self.scheduler.instance["InstanceId"]])
            raise ClusterError(f"The scheduler's instance has terminated{reason}.", hint)

    def is_gone(self) -> bool:
        """Return whether the scheduler's instance has terminated, as far as is known here."""
        return self._is_gone

    def let_in(self) -> None:
        """Open the cluster's own security group to this computer if its address has changed."""
        with contextlib.suppress(ClusterError):
            if not self.own_instance:
                self.fleet.let_in(caller_of(self.spec))

    def is_abandoned(self) -> bool:
        """Return whether there is no worker, and none will come."""
        return not self.worker_spec and not self._names()

    def hand_over(self) -> None:
        """Leave the workers alone from now on: another process replaces them."""
        self._is_handed_over = True

    # --- news of workers ------------------------------------------------------------------------------

    async def _watch_worker_status(self, comm):
        """Listen to the scheduler, and again when that connection was lost. Dask's would not hear of workers again."""
        while comm:
            await super()._watch_worker_status(comm)
            self._watch_worker_status_comm = comm = await self._listen_again()

    async def _listen_again(self):
        """Return a new connection for news of workers, once there is one; None if the cluster closes."""
        while self.status == Status.running and not self.fleet.stopping:
            await asyncio.sleep(_LISTEN_SECONDS)
            with contextlib.suppress(OSError):
                comm = await self.scheduler_comm.live_comm()
                try:
                    await comm.write({"op": "subscribe_worker_status"})
                    info = await asyncio.wait_for(comm.read(), _NEWS_SECONDS)
                except OSError:
                    comm.abort()
                    raise
                if self.status != Status.running or self.fleet.stopping:
                    comm.abort()
                    return None
                before, self.scheduler_info = self._names(), SchedulerInfo(info)
                for name in before - self._names():
                    self._replace_soon(name)
                return comm
        return None
