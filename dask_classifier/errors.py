"""Failures that a user can cause or mend.

Each has a message, a hint and an exit code::

    DaskClassifyError        1   the run failed; it can be resumed
    ├── UsageError           2   wrong options, or a classifier that cannot be found or imported
    │   └── OutputExists     2   the output folder holds another run
    ├── StorageError         1   a file or an object cannot be read or written
    ├── SourceError          1   the source is not what the plan says, or cannot be cut into rows
    ├── WrongAnswer          1   the classifier's answer does not fit its chunk
    ├── ProcessDied          1   a classifier process ended before its task was done
    ├── TaskFailed           1   a defect of this package, with its traceback
    ├── BlocksFailed         1   blocks killed their processes again and again
    ├── DamagedRun           1   a run on disk is incomplete or does not match its manifest
    ├── TooManyBadRows       3   more bad rows than --max-bad allows
    ├── ClusterError         4   the cluster could not be had; nothing is left running
    │   └── Stopped          4   a launch that did not happen, because the cluster shuts down
    ├── InstancesLeft        5   instances or security groups in EC2 could not be ended
    └── Interrupted        130   stopped by Ctrl-C or SIGTERM
"""

from typing import Any, Self


class DaskClassifyError(Exception):
    """A failure with a sentence for a person (`message`) and what to do about it (`hint`).

    Both are the exception's args, so that it survives pickling between processes.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message, hint)
        self.message: str = message
        self.hint: str = hint
        self.details: str = ""  # more than most want to read: the traceback of a classifier that raises

    def with_details(self, details: str) -> Self:
        """Return this error with its details."""
        self.details = details
        return self

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the user's own frames and the sentences, and not how the package works inside."""
        from .raised import own_frames, own_lines  # only here: nobody who needs an error needs that

        lines = [*own_frames(self), *own_lines(self.details), f"{type(self).__name__}: {self.message}"]
        return [*lines, f"Hint: {self.hint}"] if self.hint else lines

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, {"details": self.details}

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(DaskClassifyError):
    """Wrong or contradictory options, or a classifier that cannot be found or imported."""

    exit_code = 2


class OutputExists(UsageError):
    """The output folder holds a run that this plan must not touch."""


class StorageError(DaskClassifyError):
    """A file or an object cannot be read or written."""


class SourceError(DaskClassifyError):
    """The source changed, or cannot be cut into rows."""


class WrongAnswer(DaskClassifyError):
    """The classifier's answer does not fit its chunk."""


class ProcessDied(DaskClassifyError):
    """A classifier process ended, or was ended, before its task was done."""


class TaskFailed(DaskClassifyError):
    """A task raised what no task should raise; the message holds the traceback."""


class BlocksFailed(DaskClassifyError):
    """Blocks that killed a classifier process in each of their tries."""


class DamagedRun(DaskClassifyError):
    """A run on disk is incomplete, or does not match its manifest."""


class TooManyBadRows(DaskClassifyError):
    """More bad rows than `max_bad` allows."""

    exit_code = 3

    @classmethod
    def of(cls, first: str, allowed: int, traceback: str) -> Self:
        """Name the first bad row; `traceback` is that of the classifier, "" where it did not raise."""
        limit = "no bad row is" if allowed == 0 else "1 bad row is" if allowed == 1 else f"{allowed:,} bad rows are"
        if traceback:
            check, fix = number_hint(traceback), "fix the classifier"
        else:
            check, fix = "Check --delimiter and --encoding.", "fix the input"
        allow = "Allow more bad rows, such as --max-bad 10, with --resume"
        error = cls(
            f"Stopped at a bad row, where {limit} allowed: {first}.",
            f"{check} {allow}, or {fix} and start again.".strip(),
        )
        return error.with_details(traceback)


class ClusterError(DaskClassifyError):
    """The cluster could not be had, or cannot do this work."""

    exit_code = 4


class Stopped(ClusterError):
    """A launch that did not happen, because the cluster shuts down."""


class InstancesLeft(DaskClassifyError):
    """Instances or security groups that could not be ended; the message names them."""

    exit_code = 5


class Interrupted(DaskClassifyError):
    """Stopped by Ctrl-C or SIGTERM."""

    exit_code = 130


def number_hint(traceback: str) -> str:
    """Return what to do where a classifier's traceback ends as that of text taken for a number or a missing value."""
    last = traceback.rpartition("\n")[2]
    if last.startswith(("ValueError: could not convert string to float", "ValueError: invalid literal for int()")):
        return 'A missing value is the empty text: convert with pd.to_numeric(column, errors="coerce").'
    if last.startswith("TypeError") and "argument" not in last:
        return 'Values are text: convert numbers with pd.to_numeric(column, errors="coerce").'
    return ""
