"""What a run asks of a Dask cluster that knows its instances, and the answers for every other cluster."""

import contextlib
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from distributed import Client, Future

from ..errors import ClusterError
from ..runs.progress import Progress
from ..units import format_seconds

_QUIET_SECONDS = 5.0  # to wait silently for the first worker; then the user is informed


@runtime_checkable
class InstanceCluster(Protocol):
    """A cluster that knows more of its instances than Dask does, such as `EC2Cluster`. Others work without it."""

    @property
    def expected_processes(self) -> int:
        """Classifier processes once all workers have joined."""
        ...

    @property
    def deadline(self) -> float | None:
        """When the instances shut themselves down, in seconds since 1970."""
        ...

    @property
    def reconnect_seconds(self) -> float:
        """How long a client that has lost the scheduler tries to connect again."""
        ...

    def environment(self) -> dict[str, str]:
        """Return environment variables for the classifier processes, such as credentials."""
        ...

    def take_began(self, run_began: float) -> float | None:
        """Return when the instances were requested, in seconds since 1970, to the first run alone."""
        ...

    def wait_for_first_workers(self, client: Client) -> None:
        """Return once the run can begin. Raises ClusterError where no worker joins in time."""
        ...

    def is_gone(self) -> bool:
        """Return whether the scheduler's instance has terminated, so that no connection will ever come back."""
        ...

    def is_abandoned(self) -> bool:
        """Return whether there is no worker, and none will come, so that no block will ever be done."""
        ...

    def let_in(self) -> None:
        """Let this computer reach the scheduler if its address has changed."""
        ...

    def grow(self, workers: int) -> tuple[int, float | None]:
        """Launch instances until there are so many workers, without waiting.

        Return how many are new, and what one of them costs per hour in $; None if that is not known.
        """
        ...

    def cost(self) -> tuple[float, float] | None:
        """Return what the instances have cost so far, and cost per hour, in $; None if that is not known."""
        ...

    def when_gone(self, callback: Callable[[Any], None]) -> None:
        """Call `callback` with a dataclass of counts once the instances have terminated."""
        ...


class OtherCluster:
    """The answers for a cluster that knows only what Dask knows."""

    expected_processes = 0
    deadline = None
    reconnect_seconds = 10.0

    def __init__(self, worker_seconds: float = 0.0, progress: Progress | None = None):
        self.worker_seconds, self.progress = worker_seconds, progress or Progress()

    def environment(self) -> dict[str, str]:
        """Return no variables: the workers have their own."""
        return {}

    def take_began(self, run_began: float) -> float | None:
        """Return None: the cluster was there before the run."""
        return None

    def wait_for_first_workers(self, client: Client) -> None:
        """Wait for a task, and not only for a worker: a cluster that adapts starts its first worker for a task."""
        if client.nthreads():
            return
        probe = client.submit(int, pure=False)
        if _is_done(probe, quiet := min(self.worker_seconds, _QUIET_SECONDS)):
            return
        limit = format_seconds(self.worker_seconds)
        self.progress.note(f"the cluster has no worker yet; waiting up to {limit} for the first one")
        if not _is_done(probe, self.worker_seconds - quiet):
            raise ClusterError(
                f"No worker has joined the cluster within {limit}.",
                "Start its workers, or wait longer with --worker-timeout.",
            )

    def is_gone(self) -> bool:
        """Return False: nothing is known of its scheduler but whether it answers."""
        return False

    def is_abandoned(self) -> bool:
        """Return False: workers may join that nobody here knows of."""
        return False

    def let_in(self) -> None:
        """Do nothing: who may reach its scheduler is not known."""

    def grow(self, workers: int) -> tuple[int, float | None]:
        """Return 0: how the cluster grows is not known."""
        return 0, None

    def cost(self) -> tuple[float, float] | None:
        """Return None: the cluster was there before the run."""
        return None

    def when_gone(self, callback: Callable[[Any], None]) -> None:
        """Do nothing: the cluster outlives the run."""


def _is_done(future: Future, seconds: float) -> bool:
    with contextlib.suppress(TimeoutError):
        future.exception(timeout=seconds)
    return future.status != "pending"
