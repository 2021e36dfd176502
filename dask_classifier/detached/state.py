"""`State`: where a detached run is, how far it is, and how it ended, as detached.json in its folder says.

The command that starts the run writes it first, then the driver alone, and at the end whoever cancels the run.
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from ..errors import DamagedRun, DaskClassifyError, StorageError, UsageError
from ..parts.run_folder import DETACHED, RunFolder
from ..runs.progress import Snapshot


@dataclass(frozen=True)
class State:
    """The state of a detached run. Times are in seconds since 1970."""

    output: str
    cluster: str  #: its id
    region: str
    scheduler: str  #: id of the instance that drives it
    instances: int
    dashboard: str
    started: float
    deadline: float  #: when the instances shut themselves down
    version: str  #: of this package
    finish_by: float | None = None  #: when it should have ended
    progress: dict[str, Any] | None = None  #: as a `Snapshot`; None until the driver has begun the run
    said: int = 0  #: number of messages so far
    messages: list[str] = field(default_factory=list)  #: the last ones
    ended: float | None = None
    exit_code: int | None = None  #: of the run; None until it is over
    message: str = ""  #: the error's
    hint: str = ""

    @property
    def is_over(self) -> bool:
        """Whether the driver has ended the run, or somebody has cancelled it."""
        return self.exit_code is not None

    @property
    def error(self) -> DaskClassifyError:
        """The error with which the run ended."""
        error = DaskClassifyError(self.message, self.hint)
        error.exit_code = self.exit_code
        return error

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""
        return RunFolder(self.output)

    @property
    def snapshot(self) -> Snapshot | None:
        """The progress; None until the driver has begun the run."""
        return Snapshot(**self.progress) if self.progress else None

    @classmethod
    def load(cls, output: str) -> Self:
        """Read the state of the run in a folder. Raise UsageError if there is none, or DamagedRun."""
        folder = RunFolder(output)
        if not folder.exists(DETACHED):
            raise UsageError(
                f"{output} does not have a detached run.", "Check the folder, or start one: --cluster ec2 --detach."
            )
        return cls.of(folder.read_json(DETACHED))

    @classmethod
    def of(cls, content: dict[str, Any]) -> Self:
        """Make it from the content of the file. Raise DamagedRun if that is not such a state."""
        try:
            return cls(**{name: value for name, value in content.items() if name != "format"})
        except TypeError as error:
            raise DamagedRun(
                f"{DETACHED} is damaged: {error}.", "Use the version of dask-classify that wrote it."
            ) from error

    def as_json(self) -> dict[str, Any]:
        """Return the content of the file, without its format."""
        return asdict(self)

    def save(self) -> None:
        """Write it to the run's folder. Raises StorageError."""
        self.folder.write_json(DETACHED, self.as_json())

    def with_end(self, exit_code: int, message: str = "", hint: str = "", *, at: float) -> Self:
        """Return the state of a run that is over."""
        return replace(self, exit_code=exit_code, message=message, hint=hint, ended=at)


def saved_if_possible(state: State) -> bool:
    """Write a state, and return whether that worked: a run does not end because nobody can see how far it is."""
    try:
        state.save()
    except StorageError:
        return False
    return True
