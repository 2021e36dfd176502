"""Following a detached run from any computer, and cancelling it."""

import time
from collections.abc import Callable

from ..ec2 import teardown
from ..ec2.aws import Aws
from ..errors import ClusterError, DaskClassifyError, Interrupted, StorageError, UsageError
from ..parts.run_folder import MANIFEST
from ..runs import lock
from ..runs.manifest import add_to_manifest
from ..runs.result import open_run
from ..show import report
from ..show.terminal import Display
from ..units import count_of
from .state import State

_LOOK_SECONDS = 3.0
_SILENCE_SECONDS = 60.0  # without news, after which EC2 is asked about the scheduler's instance, and then so often
_OUTAGE_SECONDS = 600.0  # for which the bucket may be out of reach of this computer
_AFTER_DEADLINE_SECONDS = 300.0  # after which nobody needs to be asked


class Follower(Display):
    """Shows the progress that the driver of a run has recorded."""

    def __init__(self, state: State, *, quiet: bool = False):
        super().__init__(quiet=quiet)
        self.state = state
        self._told = max(0, state.said - len(state.messages))
        self._heard = self._asked = self._reached = time.monotonic()

    def snapshot(self):
        """Return the progress that was read last."""
        return self.state.snapshot or super().snapshot()

    def follow(self, until: Callable[[State], bool] = lambda state: False) -> State:
        """Show the run until it is over, or until its state is as wanted, and return its last state.

        Raises ClusterError if the driver was lost, StorageError if the run's folder cannot be read.
        """
        with self.shown():
            while not (self.state.is_over or until(self.state)):
                self._tell()
                time.sleep(_LOOK_SECONDS)
                self._look()
            self._tell()
        return self.state

    def _look(self) -> None:
        """Read the state again; if there is no news for a while, ask EC2 whether there still is a driver."""
        before, now = self.state, time.monotonic()
        try:
            self.state = State.load(before.output)
            self._reached = now
            if self.state != before:
                self._heard = now
            elif now - max(self._heard, self._asked) > _SILENCE_SECONDS:
                self._asked = now
                self.state = checked(before)
        except StorageError:  # this computer may have lost its network
            if now - self._reached > _OUTAGE_SECONDS:
                raise

    def _tell(self) -> None:
        """Print the messages that are new."""
        new = self.state.said - self._told
        for text in self.state.messages[-new:] if new > 0 else []:
            self.say(text)
        self._told = self.state.said


def checked(state: State) -> State:
    """Return the state of a run, or how it ended if the instance that drives it has terminated without saying so.

    Raises ClusterError if nobody knows how it ended.
    """
    if _is_running(state):
        return state
    if (last := State.load(state.output)).is_over:
        return last
    if (code := last.result_code()) is not None:
        return last.with_end(code, at=time.time())
    why = ": its deadline has passed" if time.time() > state.deadline else " without saying how the run ended"
    raise ClusterError(
        f"The instance that drove the run, {state.scheduler}, has terminated{why}.",
        f"Finished blocks are kept. Continue with the same command, --output {state.output} --resume.",
    )


def is_at_work(output: str, cluster: str) -> bool | None:
    """Return whether a cluster drives the run of a folder; None if the folder cannot be read."""
    try:
        state = State.load(output)
    except UsageError:
        return False
    except DaskClassifyError:
        return None
    return state.cluster == cluster and not state.is_over and _is_running(state)


def _is_running(state: State) -> bool:
    """Return whether the instance that drives a run still runs; if EC2 cannot be asked, whether it may."""
    try:
        known = teardown.states(Aws(state.region), [state.scheduler])
    except DaskClassifyError:
        return time.time() < state.deadline + _AFTER_DEADLINE_SECONDS
    return known.get(state.scheduler) in {"pending", "running"}


def see_it_terminated(state: State, say: Callable[[str], None]) -> None:
    """Terminate what a run that is over still has in EC2, usually its last instance, and complete its manifest.

    Raises InstancesLeft if something could not be terminated, ClusterError if EC2 cannot be asked, so that nothing is
    known.
    """
    try:
        aws = Aws(state.region)
        left = [*teardown.instances(aws, state.cluster), *teardown.groups(aws, state.cluster)]
    except DaskClassifyError as error:
        raise ClusterError(
            f"Cannot check that all instances of the run have terminated: {error.message}", error.hint
        ) from error
    if left:
        ending = teardown.end(aws, state.cluster, sure=True, say=say)
        teardown.refuse_leftovers(ending, state.region, state.deadline, state.cluster)
    _complete_manifest(state)
    say("All instances have terminated.")


def clear_up(state: State, lost: ClusterError, say: Callable[[str], None]) -> None:
    """Terminate what a run has left whose driver was lost, record that, and free its lock.

    Raises as `see_it_terminated`, and StorageError if the folder cannot be written to.
    """
    see_it_terminated(state, say)
    if state.is_current():
        state.with_end(lost.exit_code, lost.message, lost.hint, at=time.time()).save()
    if state.holder:
        lock.forget(state.folder, state.holder.encode())


def _complete_manifest(state: State) -> None:
    """Count the instance that terminated after it had written the manifest, if that is possible."""
    folder = state.folder
    if not folder.exists(MANIFEST):
        return
    try:
        with lock.held(folder):
            manifest = folder.read_json(MANIFEST)
            machines = manifest.get("machines", {})
            if machines.pop("driver", None) == state.scheduler:
                add_to_manifest(folder, manifest, machines=machines | {"terminated": machines["terminated"] + 1})
                report.save(open_run(folder.url))
    except DaskClassifyError:
        return  # somebody is at work there, or this computer may not write


def cancel(state: State, say: Callable[[str], None]) -> State:
    """Terminate the instances of a run, and record that it was cancelled, unless it ended by itself meanwhile.

    Raises InstancesLeft if something could not be terminated, ClusterError if EC2 cannot be asked.
    """
    aws = Aws(state.region)
    say(f"Terminating {count_of(len(teardown.instances(aws, state.cluster)), 'instance')}")
    ending = teardown.end(aws, state.cluster, say=say)
    teardown.refuse_leftovers(ending, state.region, state.deadline, state.cluster)
    if not state.is_current():
        return _cancelled(state)  # and the file is about another run
    state = State.load(state.output)  # from now on, nobody else writes it
    if not state.is_over:
        code = state.result_code()
        state = _cancelled(state) if code is None else state.with_end(code, at=time.time())
        state.save()
    if state.holder:
        lock.forget(state.folder, state.holder.encode())
    return state


def _cancelled(state: State) -> State:
    return state.with_end(
        Interrupted.exit_code,
        "The run was cancelled. Its finished blocks are kept.",
        f"Continue with the same command and --output {state.output} --resume.",
        at=time.time(),
    )
