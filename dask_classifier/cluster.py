"""`EC2Cluster`: a Dask cluster whose instances are launched for it and terminated with it."""

import asyncio
import contextlib
import dataclasses
import itertools
import logging
import math
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Self

import distributed
from distributed.deploy.cluster import Cluster
from distributed.deploy.spec import SpecCluster

from .ec2 import boot, named_clusters, teardown
from .ec2.announcement import announcement
from .ec2.aws import Aws
from .ec2.bring_up import BringUp
from .ec2.handover import Handover
from .ec2.launcher import Fleet
from .ec2.named_clusters import NamedCluster
from .ec2.nodes import GRACE_SECONDS, Scheduler, Worker
from .ec2.packages import archive_of, installation
from .ec2.placement import Placement, find_placement
from .ec2.reasons import own_error
from .ec2.replacing import ReplacingCluster
from .ec2.signals import never_failing, raise_on_signals, uninterrupted
from .ec2.spec import ClusterSpec, spec_of
from .environment.archive import Archive
from .errors import ClusterError, DaskClassifyError
from .units import count_of

_SOON_SECONDS = 60.0  # a run that begins so soon after the start is the one for which the instances were launched
_log = logging.getLogger(__name__)


class EC2Cluster(ReplacingCluster):
    """A scheduler and workers on EC2 instances, which are launched for this cluster and terminated when it closes.

    Each worker has one classifier process per vCPU. Apart from its instances, it is a Dask cluster like any other:
    `Client(cluster)`, `cluster.scale(4)`, `cluster.dashboard_link`, `with`.

    Use it in a `with` block, in the main thread: then exceptions, Ctrl-C, SIGTERM and SIGHUP terminate the instances.
    If this process is killed, the scheduler exits after `idle_timeout`, the workers once they have lost it, and each
    instance shuts itself down at its deadline at the latest.

    Parameters
    ----------
    workers : int, optional
        Number of workers, one instance each; also as `n_workers`, Dask's name. Default: 1.
    say : callable
        Called with messages about progress. By default, they are logged.
    **options
        The EC2 options of `dask-classify run --help`, with underscores: image or staging (one is required),
        base_image, requirements, with_env, index_url, wheels, region, instance_type,
        scheduler_instance_type, ami, instance_profile, subnet, security_group, private_ip, spot, deadline,
        bring_up_limit, idle_timeout, teardown_limit, min_workers, processes_per_worker, price, key_name, tag, profile.
        Options that are left out come from Dask's configuration (`dask-classifier.*`).

    Raises
    ------
    UsageError
        If an option is wrong. Nothing was launched.
    ClusterError
        If the cluster could not be started. All instances have been terminated.
    InstancesLeft
        If instances could not be terminated. The message lists them.
    """

    aws: Aws
    spec: ClusterSpec
    say: Callable[[str], None]
    stays: bool  # whether the instances keep running when this object is closed
    placement: Placement
    id: str
    tls: boot.Tls
    fleet: Fleet
    ending: teardown.Ending | None  # once the instances have terminated
    packages: Archive | None  # that instances without an image install
    own_instance: str  # id of the scheduler's instance if this process runs there, which `close` then spares

    def __init__(self, workers: int | None = None, *, say: Callable[[str], None] = _log.info, **options: Any):
        self._begin(spec_of(workers, options), say)
        for line in announcement(self.fleet):
            self.say(line)
        try:
            self._store_packages()
            if self.spec.name:
                named_clusters.save(self.named_cluster(), new=True)  # first, so that `down` works from now on
            self.fleet.open_group()
            self._start_dask(self.spec.workers)
            self._up = time.time()
        except BaseException as error:
            self._teardown()
            raise own_error(error) from error

    def __enter__(self) -> Self:
        return super().__enter__()  # Dask's method has no type

    @classmethod
    def attach(cls, kept: NamedCluster, *, say: Callable[[str], None] = _log.info) -> "EC2Cluster":
        """Connect to a running cluster of `up`, which `close` then leaves running. Raises ClusterError."""
        return cls.__new__(cls)._joined(kept, say)

    @classmethod
    def take_over(cls, handover: Handover, *, say: Callable[[str], None] = _log.info) -> "EC2Cluster":
        """Take over a running cluster, on its scheduler's instance.

        `close` terminates all other instances; this one must terminate by itself afterwards. Raises ClusterError.
        """
        return cls.__new__(cls)._joined(handover.cluster, say, handover)

    def _joined(self, kept: NamedCluster, say: Callable[[str], None], handover: Handover | None = None) -> Self:
        """Connect to the running instances. Raises ClusterError."""
        self._begin(kept.spec, say, kept, handover)
        try:
            self._adopt(kept)
        except BaseException as error:
            if not handover:  # then whoever has handed it over does so
                self._teardown()
            raise own_error(error) from error
        self._up = time.time()
        return self

    def _begin(
        self,
        spec: ClusterSpec,
        say: Callable[[str], None],
        kept: NamedCluster | None = None,
        handover: Handover | None = None,
    ) -> None:
        """Prepare all that can be prepared before anything is launched."""
        self.aws = Aws(spec.region)
        base = "" if spec.image else spec.container_image  # for later workers, too, whatever Python starts them
        self.spec = dataclasses.replace(spec, region=self.aws.region, base_image=base)
        self.say, self.own_instance = never_failing(say), handover.scheduler if handover else ""
        self.stays = bool(kept and not handover)
        self.ending, self.packages = None, kept.packages if kept else None
        self._when_gone: list[Callable[[teardown.Ending], None]] = []
        self._launches: dict[str, Future] = {}  # by name, until the node asks for its instance
        self._refused = None
        self._allow_replacements(stays=self.stays, on_instance=bool(handover))
        self._numbers, self._contact_address = itertools.count(), ""
        self._up = time.time()
        self._launch_began = handover.began if handover else None if kept else self._up
        self.placement = handover.placement if handover else find_placement(self.aws, spec)
        self.id = kept.id if kept else uuid.uuid4().hex[:12]
        self.tls = kept.tls if kept else boot.tls(days=2 + math.ceil(spec.deadline / 86_400))
        self.fleet = Fleet(self.aws, self.spec, self.placement, self.id, self.say)
        self.fleet.packages = self.packages.as_json() if self.packages else {}
        self.fleet.prices.known.update(handover.prices if handover else {})
        self._bring_up = BringUp(self.spec, self.say, self.fleet.states)
        self._undo_signals = raise_on_signals()

    def _store_packages(self) -> None:
        """Store the packages that instances without an image install. Raises ClusterError."""
        if not self.spec.image:
            self.say(f"Finding the packages for instances, which run {self.spec.container_image}")
            self.packages = archive_of(self.spec, self.placement.architecture)
            self.fleet.packages = self.packages.as_json()
            self.say(f"Each instance installs {count_of(self.packages.packages, 'package')}.")
            self._bring_up.restart()

    def named_cluster(self) -> NamedCluster:
        """Return what `attach` needs to connect to this cluster."""
        return NamedCluster(self.id, self.spec, self.tls, self.fleet.deadline, self.packages)

    def handover(self) -> Handover:
        """Return what `take_over` needs."""
        self.cost()  # so that the prices are known
        return Handover(
            self.named_cluster(),
            self.placement,
            self.scheduler.instance["InstanceId"],
            began=self._launch_began or self._up,
            prices=dict(self.fleet.prices.known),
        )

    def _start_dask(self, workers: int) -> None:
        """Run Dask's own start, which launches the instances. Dask's global configuration is not changed."""
        # If encryption is not required, VMCluster leaves the global configuration alone. `_start` requires it again.
        security = boot.security(self.tls, require_encryption=False)
        super().__init__(
            n_workers=workers,
            region=self.aws.region,
            instance_type=self.spec.instance_type[0],
            docker_image=self.spec.container_image,
            security=security,
            protocol="tls",
            name=f"dask-classify-{self.spec.name or self.id}",
        )
        if len(self.worker_spec) < min(self.spec.min_workers, workers):
            raise self._refused

    async def _start(self):
        """Start like VMCluster, without its warning after ten seconds that this takes "surprisingly long"."""
        self.security.require_encryption = True
        self.scheduler_spec: dict[str, Any] = {"cls": Scheduler, "options": self.scheduler_options}
        self.new_spec: dict[str, Any] = {"cls": Worker, "options": self.worker_options}
        self.worker_spec: dict[str, Any] = {
            self._new_worker_name(number): self.new_spec for number in range(self._n_workers)
        }
        await SpecCluster._start(self)
        self._watching = asyncio.ensure_future(self._watch())

    def _adopt(self, kept: NamedCluster) -> None:
        """Take over the instances of a running cluster."""
        adopted = self.fleet.adopt(kept.deadline, self.own_instance)
        instances = {instance.worker: instance for instance in adopted if instance.up}
        if "scheduler" not in instances:
            command = f"down --name {self.spec.name}" if self.spec.name else f"reap --cluster {self.id}"
            raise ClusterError(
                f"The scheduler of the cluster {self.spec.name or self.id} is not running.",
                f"Terminate what is left with `dask-classify {command}`.",
            )
        for name, instance in instances.items():
            self._launches[name] = Future()
            self._launches[name].set_result(instance.description())
        names = sorted((name for name in instances if name != "scheduler"), key=_number)
        self._numbers = itertools.chain(map(_number, names), itertools.count(max(map(_number, names), default=-1) + 1))
        self._start_dask(len(names))

    # --- instances, for nodes.py -----------------------------------------------------------------

    async def instance_of(self, name: str) -> dict[str, Any]:
        """Return EC2's description of a node's instance, launching it if necessary. Raises ClusterError."""
        return await asyncio.wrap_future(self._launches.pop(name, None) or self._launch(name))

    def launch_workers(self, contact_address: str) -> None:
        """Launch the workers' instances while the scheduler is still booting."""
        self._contact_address = contact_address
        for name in self.worker_spec:
            if name not in self._launches:
                self._launches[name] = self._launch(name)

    def _launch(self, name: str) -> Future:
        role = "scheduler" if name == "scheduler" else "worker"
        return self.fleet.launch(role, name, partial(self._user_data, role, name))

    def _user_data(self, role: str, name: str) -> str:
        """Return what an instance that is launched at this moment does when it boots. Raises ClusterError."""
        times = {"launched": time.time(), "deadline": self.fleet.deadline}
        instance = {"role": role, "cluster": self.id, "name": name, "region": self.aws.region}
        installing = installation(self.packages, self.aws, self.fleet.deadline) if self.packages else []
        instance |= {"scheduler": self._contact_address, "installation": installing}
        return boot.user_data(self.spec, self.tls, **instance, **times)

    def check_bring_up(self, what: str) -> None:
        """Raise ClusterError if too few workers are left, the bring-up limit is over, or the cluster shuts down.

        `what` is the beginning of the message: what the caller is waiting for.
        """
        if self.fleet.stopping:
            raise ClusterError("The cluster is shutting down.")
        self._refuse_if_gone()
        refusals = [launch.exception() for launch in self._launches.values() if launch.done() and launch.exception()]
        if len(self.worker_spec) - len(refusals) < min(self.spec.min_workers, len(self.worker_spec)):
            raise refusals[0]
        self._bring_up.check(what)

    def _new_worker_name(self, worker_number):
        return f"worker-{next(self._numbers)}"  # never the name of a lost worker, which is in receipts

    # --- for the pipeline --------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """When the instances shut themselves down, in seconds since 1970."""
        return self.fleet.deadline

    @property
    def expected_processes(self) -> int:
        """Number of classifier processes once all workers have joined."""
        nodes = [self.workers.get(name) for name in self.worker_spec]
        return sum(self.placement.processes(self.spec, node.instance if node else None) for node in nodes)

    def take_began(self, run_began: float) -> float | None:
        """Return when the launch began, but only to the first run, and only if that began soon after the start."""
        began, self._launch_began = self._launch_began, None
        return began if run_began - self._up < _SOON_SECONDS else None

    @property
    def connect_seconds(self) -> float:
        """How long a client waits for the scheduler, which may be busy while all workers join."""
        return self.spec.bring_up_limit

    @property
    def reconnect_seconds(self) -> float:
        """How long a client that has lost the scheduler tries again: a scheduler without work exits after this time."""
        return self.spec.idle_timeout

    def grow(self, workers: int) -> tuple[int, float | None]:
        """Launch instances until there are so many workers; return how many are new, and $ per hour of one."""
        more = max(0, workers - len(self.worker_spec))
        self.scale(len(self.worker_spec) + more)
        return more, self.fleet.worker_price()

    def cost(self) -> tuple[float, float] | None:
        """Return what the instances have cost so far, and cost per hour, in $; None without a price."""
        return self.fleet.cost()

    def wait_until_ready(self) -> None:
        """Wait until `min_workers` have joined. Raises ClusterError."""
        with distributed.Client(self, set_as_default=False, timeout=self.connect_seconds) as client:
            self.wait_for_first_workers(client)

    def resize(self, workers: int) -> None:
        """Change the number of workers, and wait until instances have been launched or terminated.

        Raises InstancesLeft if some could not be terminated within the teardown limit.
        """
        self._refused = None
        before = {name: node.instance["InstanceId"] for name, node in self.workers.items() if node.instance}
        self.scale(workers)
        self.sync(self._settle)
        self.fleet.terminate_and_wait({id for name, id in before.items() if name not in self.worker_spec})
        if self._refused and len(self.worker_spec) < workers:
            self.say(f"{self._refused.message} The cluster has {count_of(len(self.worker_spec), 'worker')}.")

    async def _settle(self) -> None:
        await self._correct_state()

    def wait_for_first_workers(self, client: distributed.Client) -> None:
        """Wait until `min_workers` have joined.

        Raises ClusterError at the bring-up limit, or if too few instances are left.
        """
        wanted = 1 if self.stays else self.spec.min_workers  # a named cluster may have become smaller
        while len(client.scheduler_info(n_workers=-1)["workers"]) < wanted:
            self.check_bring_up("No worker has joined" if wanted == 1 else f"Fewer than {wanted} workers have joined")
            if len(self.worker_spec) < wanted:
                reason, hint = self.fleet.why_ended()
                raise ClusterError(f"The workers' instances terminated before they joined{reason}.", hint)
            time.sleep(0.1)

    def environment(self) -> dict[str, str]:
        """Return the caller's temporary credentials for classifier processes, unless the instances have a profile."""
        return {} if self.spec.instance_profile else self.aws.temporary_credentials(self.fleet.deadline - time.time())

    def when_gone(self, callback: Callable[[teardown.Ending], None]) -> None:
        """Register a function to call with the outcome of the teardown."""
        self._when_gone.append(callback)

    # --- teardown ----------------------------------------------------------------------------------

    def leave(self) -> None:
        """Close this object and leave the instances running, until `down` or their deadline."""
        self.stays = True
        self.close()

    async def _close(self):
        spares_scheduler = self.stays or self.own_instance
        await (Cluster._close(self) if spares_scheduler else super()._close())

    def close(self, timeout: float | None = None) -> None:
        """Terminate the instances and wait until they have terminated.

        Raises InstancesLeft if some could not be terminated. A cluster from `attach` is left running.
        """
        if not self.ending:
            self._teardown()

    def _teardown(self) -> None:
        try:
            uninterrupted(self._terminate_all, str if self.stays else self.say)  # str: nothing is said
        finally:
            self._undo_signals()
            if self.ending and not self.stays:
                outcome = str(self.ending)
                self.say(outcome[0].upper() + outcome[1:])
                teardown.refuse_leftovers(self.ending, self.aws.region, self.fleet.deadline, self.id)

    def _terminate_all(self) -> None:
        if self.fleet.started and not self.stays:
            self.say(f"Terminating {count_of(len(self.fleet.started) - bool(self.own_instance), 'instance')}")
        self.fleet.stop()
        with contextlib.suppress(Exception):  # the instances are terminated below, whether or not Dask closes in order
            super().close(GRACE_SECONDS)
        with contextlib.suppress(Exception):
            self._loop_runner.stop()
        if self.stays:
            self.ending = teardown.Ending(0, 0)
            return
        self.ending = self.fleet.end()
        if self.spec.name and not self.ending.left:
            named_clusters.forget(self.spec.name, self.id)
        for callback in self._when_gone:
            with contextlib.suppress(DaskClassifyError):  # a failed callback must not hide the outcome
                callback(self.ending)


def _number(name: str) -> int:
    return int(name.rpartition("-")[2])
