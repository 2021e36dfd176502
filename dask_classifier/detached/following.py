"""Following a detached run from any computer, and cancelling it."""

import time
from collections.abc import Callable

from ..ec2 import teardown
from ..ec2.aws import Aws
from ..errors import ClusterError, DaskClassifyError, Interrupted, StorageError
from ..parts.run_folder import MANIFEST, RunFolder
from ..runs import lock
from ..runs.manifest import add_to_manifest
from ..show.terminal import Display
from ..units import count_of
from .state import State

_LOOK_SECONDS = 3.0
_SILENCE_SECONDS = 60.0  # without news, after which EC2 is asked about the scheduler's instance
_OUTAGE_SECONDS = 600.0  # for which the bucket may be out of reach of this computer
_AFTER_DEADLINE_SECONDS = 300.0  # after which nobody needs to be asked


class Follower(Display):
    """Shows the progress that the driver of a run has recorded."""

    def __init__(self, state: State, *, quiet: bool = False):
        super().__init__(quiet=quiet)
        self.state = state
        self._told = max(0, state.said - len(state.messages))

    def snapshot(self):
        """Return the progress that was read last."""
        return self.state.snapshot or super().snapshot()

    def follow(self) -> State:
        """Show the run until it is over, and return its last state.

        Raises ClusterError if the driver was lost, StorageError if the run's folder cannot be read.
        """
        heard = time.monotonic()
        with self.shown():
            while not self.state.is_over:
                self._tell()
                time.sleep(_LOOK_SECONDS)
                if self._has_news(heard):
                    heard = time.monotonic()
                elif time.monotonic() - heard > _SILENCE_SECONDS:
                    check_driver(self.state)
            self._tell()
        return self.state

    def _has_news(self, heard: float) -> bool:
        """Read the state again, and return whether it has changed. The bucket may be out of reach for a while."""
        before = self.state
        try:
            self.state = State.load(before.output)
        except StorageError:
            if time.monotonic() - heard > _OUTAGE_SECONDS:
                raise
        return self.state != before

    def _tell(self) -> None:
        """Print the messages that are new."""
        new = self.state.said - self._told
        for text in self.state.messages[-new:] if new else []:
            self.say(text)
        self._told = self.state.said


def check_driver(state: State) -> None:
    """Raise ClusterError if the instance that drives a run has terminated without saying how the run ended."""
    if _is_running(state) or State.load(state.output).is_over:
        return
    why = ": its deadline has passed" if time.time() > state.deadline else " without saying how the run ended"
    raise ClusterError(
        f"The instance that drove the run, {state.scheduler}, has terminated{why}.",
        f"Finished blocks are kept. Continue with the same command, --output {state.output} --resume.",
    )


def _is_running(state: State) -> bool:
    """Return whether the instance that drives a run still runs; if EC2 cannot be asked, whether it may."""
    try:
        known = teardown.states(Aws(state.region), [state.scheduler])
    except DaskClassifyError:
        return time.time() < state.deadline + _AFTER_DEADLINE_SECONDS
    return known.get(state.scheduler) in {"pending", "running"}


def see_it_gone(state: State, say: Callable[[str], None]) -> None:
    """Terminate what a run that is over still has in EC2, usually its last instance, and complete its manifest.

    If EC2 cannot be asked, that is said. Raises InstancesLeft if something could not be terminated.
    """
    try:
        aws = Aws(state.region)
        left = [*teardown.instances(aws, state.cluster), *teardown.groups(aws, state.cluster)]
    except DaskClassifyError as error:
        say(f"EC2 does not say whether all instances have terminated: {error.message}")
        return
    if left:
        ending = teardown.end(aws, state.cluster, sure=True, say=say)
        teardown.refuse_leftovers(ending, state.region, state.deadline, state.cluster)
    _complete_manifest(state)
    say("All instances have terminated.")


def _complete_manifest(state: State) -> None:
    """Count the instance that terminated after it had written the manifest."""
    folder = state.folder
    if not folder.exists(MANIFEST):
        return
    machines = folder.read_json(MANIFEST).get("machines", {})
    if machines.get("last") != state.scheduler:
        return
    counted = {name: value for name, value in machines.items() if name != "last"}
    try:
        add_to_manifest(folder, machines=counted | {"terminated": counted["terminated"] + 1})
    except StorageError:
        return  # whoever follows a run may not be allowed to write


def is_complete(folder: RunFolder) -> bool:
    """Return whether a folder has a complete run."""
    return folder.exists(MANIFEST) and not folder.read_json(MANIFEST).get("partial")


def cancel(state: State, say: Callable[[str], None]) -> State:
    """Terminate the instances of a run, and record that it was cancelled, unless it ended by itself meanwhile.

    Raises InstancesLeft if something could not be terminated, ClusterError if EC2 cannot be asked.
    """
    aws, holder = Aws(state.region), lock.holder(state.folder)
    say(f"Terminating {count_of(len(teardown.instances(aws, state.cluster)), 'instance')}")
    ending = teardown.end(aws, state.cluster, say=say)
    teardown.refuse_leftovers(ending, state.region, state.deadline, state.cluster)
    state = State.load(state.output)  # from now on, nobody else writes it
    lock.forget(state.folder, holder)
    if not state.is_over and is_complete(state.folder):  # it was about to terminate its instances
        state = state.with_end(0, at=time.time())
        state.save()
    elif not state.is_over:
        state = state.with_end(
            Interrupted.exit_code,
            "The run was cancelled. Its finished blocks are kept.",
            f"Continue with the same command and --output {state.output} --resume.",
            at=time.time(),
        )
        state.save()
    return state
