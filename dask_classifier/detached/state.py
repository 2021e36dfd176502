"""`State`: where a detached run is, how far it is, and how it ended, as detached.json in its folder says.

The command that starts the run writes it first, then the driver alone, and at the end whoever cancels the run.
"""

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

from ..errors import PARTIAL_EXIT_CODE, DamagedRun, DaskClassifyError, UsageError
from ..parts.run_folder import DETACHED, MANIFEST, RunFolder
from ..runs.progress import Snapshot


@dataclass(frozen=True)
class State:
    """The state of a detached run. Times are in seconds since 1970."""

    output: str
    cluster: str  #: its id
    region: str
    scheduler: str  #: id of the instance that drives it
    instances: int  #: at the beginning
    dashboard: str
    started: float  #: when the launch of the instances began
    deadline: float  #: when the instances shut themselves down
    version: str  #: of this package
    single_file: bool = False  #: whether the run also writes all rows to one file
    finish_by: float | None = None  #: when it should have ended
    holder: str = ""  #: what the driver has written into the run's lock
    progress: dict[str, Any] | None = None  #: as a `Snapshot`; None until the driver has the run's lock
    said: int = 0  #: number of messages so far
    messages: list[str] = field(default_factory=list)  #: the last ones
    ended: float | None = None
    exit_code: int | None = None  #: of the run; None until it is over
    message: str = ""  #: the error's
    hint: str = ""
    details: str = ""  #: the traceback of a classifier that raises

    @property
    def is_over(self) -> bool:
        """Whether the driver has ended the run, or somebody has cancelled it."""
        return self.exit_code is not None

    @property
    def is_begun(self) -> bool:
        """Whether the classifier has been tried, and the blocks are known."""
        return bool(self.snapshot and self.snapshot.blocks)

    @property
    def error(self) -> DaskClassifyError | None:
        """The error with which the run ended; None if it did not fail."""
        if self.exit_code in {None, 0, PARTIAL_EXIT_CODE}:
            return None
        error = DaskClassifyError(self.message, self.hint).with_details(self.details)
        error.exit_code = self.exit_code or DaskClassifyError.exit_code
        return error

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""
        return RunFolder(self.output)

    @property
    def snapshot(self) -> Snapshot | None:
        """The progress; None until the driver has the run's lock."""
        return Snapshot(**_known(Snapshot, self.progress)) if self.progress else None

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
            return cls(**_known(cls, content))
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

    def is_current(self) -> bool:
        """Return whether the file is about this run, and not about a later one in the same folder."""
        return self.folder.exists(DETACHED) and State.load(self.output).cluster == self.cluster

    def with_end(self, exit_code: int, message: str = "", hint: str = "", details: str = "", *, at: float) -> Self:
        """Return the state of a run that is over."""
        return replace(self, exit_code=exit_code, message=message, hint=hint, details=details, ended=at)

    def result_code(self) -> int | None:
        """Return the exit code of a run that has left its result, whatever became of its driver; else None."""
        if not self.folder.exists(MANIFEST):
            return None
        manifest = self.folder.read_json(MANIFEST)
        if manifest["started"] < self.started or (self.single_file and "single_file" not in manifest):
            return None
        return PARTIAL_EXIT_CODE if manifest.get("partial") else 0


def _known(kind: type, content: dict[str, Any]) -> dict[str, Any]:
    """Return the entries that this version knows: a later one may add some."""
    return {each.name: content[each.name] for each in fields(kind) if each.name in content}
