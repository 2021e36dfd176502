"""Machines on EC2 up, and surely down: `EC2Cluster`."""

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
from typing import Any, Self

import dask
import dask_cloudprovider.aws
import distributed
from dask.utils import parse_timedelta
from distributed.core import Status
from distributed.deploy.cluster import Cluster
from distributed.deploy.spec import SpecCluster

from .ec2 import boot, named_clusters, placement, prices, teardown
from .ec2.aws import Aws
from .ec2.launcher import Fleet
from .ec2.named_clusters import Saved
from .ec2.nodes import GRACE_SECONDS, Scheduler, Worker
from .ec2.placement import Ground
from .ec2.roles import user_data
from .ec2.signals import endings_as_exceptions, never_failing, uninterrupted
from .ec2.spec import ClusterSpec, spec_of
from .errors import ClusterError, DaskClassifyError
from .units import format_seconds

_WATCH_SECONDS = 5.0
_SOON_SECONDS = 10.0  # after the start: then a run is what machines were started for
_PATIENCE_SECONDS, _TALK_SECONDS = 10.0, 30.0  # before the first word about what is waited for, and between two
_log = logging.getLogger(__name__)


class EC2Cluster(dask_cloudprovider.aws.EC2Cluster):
    """A scheduler and `workers` machines on EC2, which exist only for this cluster and end with it.

    Each worker has one classifier process for each vCPU. Options are those of `dask-classify run --help`, with
    underscores: image (needed), region, instance_type, scheduler_instance_type, ami, instance_profile, subnet,
    security_group, private_ip, spot, deadline, bring_up_limit, idle_timeout, teardown_limit, min_workers,
    processes_per_worker, key_name, tag, profile; what is not given comes from Dask's configuration
    (`dask-classifier.*`). Otherwise it is a cluster of Dask's: `Client(cluster)`, `cluster.scale(4)`,
    `cluster.dashboard_link`, `with`.

    Use it in a `with` block, in the main thread: then an exception, Ctrl-C, SIGTERM and SIGHUP end the machines. If
    this process is killed, the scheduler ends after `idle_timeout`, and each machine at its deadline at the latest.
    `say` is told what happens. Raises UsageError before anything is started; ClusterError, when nothing is left
    running; InstancesLeft, which names what could not be ended.
    """

    aws: Aws
    spec: ClusterSpec
    say: Callable[[str], None]
    stays: bool  # when it is closed
    ground: Ground
    id: str
    tls: boot.Tls
    fleet: Fleet
    ending: teardown.Ending | None  # what became of the machines

    def __init__(self, workers: int | None = None, *, say: Callable[[str], None] = _log.info, **options: Any):
        self._begin(spec_of(workers, options), say)
        self._announce()
        try:
            if self.spec.name:
                named_clusters.save(self.saved(), new=True)  # first of all, so that `down` finds it from now on
            self.fleet.open_group()
            self._start_dask(self.spec.workers)
            self._up = time.time()
        except BaseException as error:
            self._end()
            raise _own(error) from error

    def __enter__(self) -> Self:
        return super().__enter__()  # Dask's own has no type

    @classmethod
    def attach(cls, kept: Saved, *, say: Callable[[str], None] = _log.info) -> "EC2Cluster":
        """A cluster that `up` left running. `close` then leaves it as it is. Raises ClusterError."""
        self = cls.__new__(cls)
        self._begin(kept.spec, say, kept)
        try:
            self._adopt(kept)
        except BaseException as error:
            self._end()
            raise _own(error) from error
        return self

    def _begin(self, spec: ClusterSpec, say: Callable[[str], None], kept: Saved | None = None) -> None:
        """Look around; nothing is started yet."""
        self.aws = Aws(spec.region)
        self.spec = dataclasses.replace(spec, region=self.aws.region)
        self.say, self.stays = never_failing(say), bool(kept)
        self.ending = None
        self._when_gone: list[Callable[[teardown.Ending], None]] = []
        self._machines: dict[str, Future] = {}  # by name: launches that no node has asked for yet
        self._refused: ClusterError | None = None
        # one that stays has an owner who may be making it smaller
        self._replacements = 0 if kept else max(2, math.ceil(spec.workers / 2))
        self._numbers = itertools.count()
        self._contact_address = ""
        self._began, self._up = time.monotonic(), time.time()
        self._talk_at = self._began + _PATIENCE_SECONDS
        self._asked = None if kept else self._up
        self.ground = placement.look(self.aws, spec)
        self.id = kept.id if kept else uuid.uuid4().hex[:12]
        self.tls = kept.tls if kept else boot.tls(days=2 + math.ceil(spec.deadline / 86_400))
        self.fleet = Fleet(self.aws, self.spec, self.ground, self.id, self.say)
        self._undo_signals = endings_as_exceptions()

    def saved(self) -> Saved:
        """What `attach` needs."""
        return Saved(self.id, self.spec, self.tls, self.fleet.deadline)

    def _announce(self) -> None:
        """Say what will be started, before it is."""
        spec, count = self.spec, self.spec.workers
        price = prices.hourly(self.aws, spec, self.ground, count)
        self.say(f"Starting {self.ground.words(spec, count)}, in {self.aws.region}: {price}")
        end, latest = "`down`" if spec.name else "this run", _clock(self.fleet.deadline)
        self.say(f"Cluster {self.id} ends with {end}, and by {latest} at the latest.")
        self.say(f"Its dashboard answers {self._who_may_look()}.")
        if not spec.instance_profile and self.aws.credentials().token:
            self.say(
                "The machines get your session's credentials, which may end before a long run: --instance-profile."
            )

    def _who_may_look(self) -> str:
        if self.spec.security_group:
            return "whom your security group lets in, at port 8787"
        return "within the VPC" if self.spec.private_ip else "your address alone"

    def _start_dask(self, workers: int) -> None:
        """Dask's own start, which has the machines started; its global configuration stays as it is."""
        # with encryption "not required", VMCluster leaves the global configuration alone; see `_start`
        security = boot.security(self.tls, require_encryption=False)
        super().__init__(
            n_workers=workers,
            region=self.aws.region,
            instance_type=self.spec.instance_type[0],
            docker_image=self.spec.image,
            security=security,
            protocol="tls",
            name=f"dask-classify-{self.spec.name or self.id}",
        )
        if len(self.worker_spec) < min(self.spec.min_workers, workers):
            raise self._refused

    async def _start(self):
        """As VMCluster's, but for its warning after ten seconds that this takes "surprisingly long"."""
        self.security.require_encryption = True
        self.scheduler_spec: dict[str, Any] = {"cls": Scheduler, "options": self.scheduler_options}
        self.new_spec: dict[str, Any] = {"cls": Worker, "options": self.worker_options}
        self.worker_spec: dict[str, Any] = {
            self._new_worker_name(number): self.new_spec for number in range(self._n_workers)
        }
        await SpecCluster._start(self)
        self._watching = asyncio.ensure_future(self._watch())

    def _adopt(self, kept: Saved) -> None:
        """Take over the machines of a cluster that runs."""
        found = {each.worker: each for each in self.fleet.adopt(kept.deadline) if each.up}
        if "scheduler" not in found:
            raise ClusterError(
                f"The cluster {self.spec.name} has no scheduler any more.",
                f"End what is left with `dask-classify down --name {self.spec.name}`.",
            )
        for name, machine in found.items():
            self._machines[name] = Future()
            self._machines[name].set_result(machine.description())
        names = sorted((name for name in found if name != "scheduler"), key=_number)
        self._numbers = itertools.chain(map(_number, names), itertools.count(max(map(_number, names), default=-1) + 1))
        self._start_dask(len(names))

    # --- machines, for nodes.py ------------------------------------------------------------------

    async def machine(self, name: str) -> dict[str, Any]:
        """EC2's description of a node's machine, which is started if it was not yet. Raises ClusterError."""
        return await asyncio.wrap_future(self._machines.pop(name, None) or self._launch(name))

    def launch_workers(self, contact_address: str) -> None:
        """Start the workers' machines while the scheduler still boots."""
        self._contact_address = contact_address
        for name in self.worker_spec:
            if name not in self._machines:
                self._machines[name] = self._launch(name)

    def _launch(self, name: str) -> Future:
        role = "scheduler" if name == "scheduler" else "worker"
        minutes = max(1, math.ceil((self.fleet.deadline - time.time()) / 60))
        script = user_data(
            self.spec, self.tls, role, f"{self.id} {name}", self.aws.region, self._contact_address, minutes
        )
        return self.fleet.launch(role, name, script)

    def go_on_without(self, name: str, error: ClusterError) -> None:
        """A worker's machine cannot be had."""
        self.worker_spec.pop(name, None)
        if not self.fleet.stopping:
            self._refused = self._refused or error
            self.say(f"{error.message} Going on with {len(self.worker_spec)} workers.")

    def check_bring_up(self, what: str) -> None:
        """Raises ClusterError when the bring-up limit is over, or the cluster ends."""
        if self.fleet.stopping:
            raise ClusterError("The cluster ends.")
        refusals = [each.exception() for each in self._machines.values() if each.done() and each.exception()]
        if len(self.worker_spec) - len(refusals) < min(self.spec.min_workers, len(self.worker_spec)):
            raise refusals[0]
        now, limit = time.monotonic(), self.spec.bring_up_limit
        if now - self._began > limit:
            raise ClusterError(
                f"{what} after {limit:.0f} seconds.",
                "Does the image run, and does the security group let you in? --bring-up-limit waits longer.",
            )
        if now >= self._talk_at:
            self._talk_at = now + _TALK_SECONDS
            spent = f"{format_seconds(now - self._began)} of at most {format_seconds(limit)}"
            self.say(f"{what} yet, after {spent}: instances boot, then pull the image.")

    def _new_worker_name(self, worker_number):
        return f"worker-{next(self._numbers)}"  # never the name of a lost one, which receipts have

    # --- lost machines ---------------------------------------------------------------------------

    def _update_worker_status(self, op, msg):
        """A worker that leaves, and does not come back, is replaced. SpecCluster would only forget it."""
        if op == "remove" and msg in self.scheduler_info["workers"]:
            name = self.scheduler_info["workers"][msg]["name"]
            seconds = parse_timedelta(dask.config.get("distributed.deploy.lost-worker-timeout"))
            asyncio.get_running_loop().call_later(seconds, self._replace_absent, name)
        Cluster._update_worker_status(self, op, msg)

    def _replace_absent(self, name: str) -> None:
        if all(each["name"] != name for each in self.scheduler_info["workers"].values()):
            self._replace(name)

    async def _watch(self) -> None:
        """Look for machines that ended, also before their worker ever joined."""
        while self.status == Status.running and not self.fleet.stopping:
            await asyncio.sleep(_WATCH_SECONDS)
            with contextlib.suppress(ClusterError):  # AWS may be busy
                ended = await asyncio.to_thread(self.fleet.ended)
                if self.scheduler.instance["InstanceId"] in ended:
                    self.say("The scheduler's machine was lost")
                    return
                for name, worker in list(self.workers.items()):
                    if worker.instance and worker.instance["InstanceId"] in ended:
                        self._replace(name)

    def _replace(self, name: str) -> None:
        if name not in self.worker_spec or self.status != Status.running or self.fleet.stopping:
            return
        del self.worker_spec[name]
        if self._replacements:
            self._replacements -= 1
            self.fleet.forget_exhausted()
            self.worker_spec.update(self.new_worker_spec())
            self.say(f"{name} was lost; {next(reversed(self.worker_spec))} takes its place")
        else:
            self.say(f"{name} was lost, as others before: it is not replaced")
        self._correct_state()

    # --- what the pipeline may ask -----------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """When the machines end themselves, in seconds since 1970."""
        return self.fleet.deadline

    @property
    def expected_processes(self) -> int:
        """Classifier processes, when all machines have come."""
        nodes = [self.workers.get(name) for name in self.worker_spec]
        return sum(self.ground.processes(self.spec, node.instance if node else None) for node in nodes)

    def take_began(self) -> float | None:
        """When the machines were asked for, for the run for which they were: the first one, soon after."""
        soon = time.time() - self._up < _SOON_SECONDS
        began, self._asked = self._asked, None
        return began if soon else None

    @property
    def connect_seconds(self) -> float:
        """How long a client waits for the scheduler's answer: it may be busy while all machines join."""
        return self.spec.bring_up_limit

    def wait_until_ready(self) -> None:
        """Until `min_workers` have joined. Raises ClusterError."""
        with distributed.Client(self, set_as_default=False, timeout=self.connect_seconds) as client:
            self.wait_for_first_workers(client)

    def resize(self, workers: int) -> None:
        """Scale, and wait until it is so: machines are asked for, or gone. Raises ClusterError."""
        self._refused = None
        before = {name: node.instance["InstanceId"] for name, node in self.workers.items() if node.instance}
        self.scale(workers)
        self.sync(self._settle)
        self.fleet.surely_end({id for name, id in before.items() if name not in self.worker_spec})
        if self._refused and len(self.worker_spec) < workers:
            self.say(f"{self._refused.message} The cluster has {len(self.worker_spec)} workers.")

    async def _settle(self) -> None:
        await self._correct_state()

    def wait_for_first_workers(self, client: distributed.Client) -> None:
        """Until `min_workers` are there. Raises ClusterError at the bring-up limit, or when no machine is left."""
        wanted = 1 if self.stays else self.spec.min_workers  # it may be smaller by now
        while len(client.scheduler_info(n_workers=-1)["workers"]) < wanted:
            self.check_bring_up("No worker has joined" if wanted == 1 else f"Fewer than {wanted} workers have joined")
            if len(self.worker_spec) < wanted:
                said, hint = self.fleet.last_words()
                raise ClusterError(f"The machines of the workers ended before they joined{said}.", hint)
            time.sleep(0.1)

    def environment(self) -> dict[str, str]:
        """For classifier processes: temporary credentials of the caller's, unless machines have their own."""
        return {} if self.spec.instance_profile else self.aws.temporary_credentials(self.fleet.deadline - time.time())

    def when_gone(self, tell: Callable[[teardown.Ending], None]) -> None:
        """Have `tell` called once the machines are gone."""
        self._when_gone.append(tell)

    # --- the end -----------------------------------------------------------------------------------

    def leave(self) -> None:
        """Let the machines run on, until `down` or their deadline."""
        self.stays = True
        self.close()

    async def _close(self):
        await (Cluster._close(self) if self.stays else super()._close())

    def close(self, timeout: float | None = None) -> None:
        """End the machines and look until they are gone. Raises InstancesLeft for what could not be ended."""
        if not self.ending:
            self._end()

    def _end(self) -> None:
        try:
            uninterrupted(self._end_now, self.say)
        finally:
            self._undo_signals()
            if self.ending and not self.stays:
                words = str(self.ending)
                self.say(words[0].upper() + words[1:])
                teardown.refuse_leftovers(self.ending, self.aws.region, self.fleet.deadline, self.id)

    def _end_now(self) -> None:
        if self.fleet.started and not self.stays:
            self.say(f"Ending {len(self.fleet.started)} instances")
        self.fleet.stop()
        with contextlib.suppress(Exception):  # the machines are terminated whatever Dask says
            super().close(GRACE_SECONDS)
        with contextlib.suppress(Exception):
            self._loop_runner.stop()
        if self.stays:
            self.ending = teardown.Ending(0, 0)
            return
        self.ending = self.fleet.end()
        if self.spec.name and not self.ending.left:
            named_clusters.forget(self.spec.name, self.id)
        for tell in self._when_gone:
            with contextlib.suppress(DaskClassifyError):  # what is told matters less than the end
                tell(self.ending)


def _clock(epoch: float) -> str:
    """A time as this machine's clock shows it."""
    return time.strftime("%H:%M" if epoch - time.time() < 43_200 else "%Y-%m-%d %H:%M", time.localtime(epoch))


def _number(name: str) -> int:
    return int(name.rpartition("-")[2])


def _own(error: BaseException) -> BaseException:
    """Dask wraps what goes wrong in its start; the user's failure is inside."""
    inner = error
    while inner and not isinstance(inner, DaskClassifyError | KeyboardInterrupt | SystemExit):
        inner = inner.__cause__
    if inner or not isinstance(error, Exception):
        return inner or error
    return ClusterError(
        f"The cluster could not be started: {type(error).__name__}: {error}.", "Nothing is left running."
    )
