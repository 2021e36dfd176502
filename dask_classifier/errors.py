"""Errors that a user can cause or fix.

Each has a message, a hint and an exit code, and is one of Python's own kinds, too::

    DaskClassifyError        1                    the run failed; it can be resumed
    ├── UsageError           2  ValueError        wrong options, or a classifier that cannot be found or imported
    │   ├── OutputExists     2  FileExistsError   the output folder holds another run
    │   └── RunInUse         2  OSError           another command is at work in the output folder
    ├── StorageError         1  OSError           a file or an object cannot be read or written
    ├── SourceError          1  ValueError        the source is not what the plan says, or cannot be cut into rows
    ├── WrongAnswer          1  ValueError        the classifier's answer does not fit its chunk
    ├── ProcessDied          1  RuntimeError      a classifier process ended before its task was done
    ├── TaskFailed           1  RuntimeError      a defect of this package, with its traceback
    ├── BlocksFailed         1  RuntimeError      blocks killed their processes again and again
    ├── DamagedRun           1  RuntimeError      a run on disk is incomplete or does not match its manifest
    ├── TooManyBadRows       3  ValueError        more bad rows than --max-bad allows
    ├── LimitReached         6                    --max-time or --budget has stopped the run; it can be resumed
    ├── ClusterError         4  RuntimeError      the cluster could not be started or reached, or was lost
    │   └── Stopped          4                    a launch that did not happen, because the cluster shuts down
    ├── InstancesLeft        5  RuntimeError      instances or security groups in EC2 could not be terminated
    └── Interrupted        130                    stopped by Ctrl-C or SIGTERM

Messages and hints name the command's options. `str(error)`, which is what Python shows, names arguments instead.
"""

import re
from typing import Any, Self

_FLAGS = {"resume": "resume=True", "overwrite": "overwrite=True", "header": "header=True", "spot": "spot=True"}
_FLAGS |= {"no-header": "header=False", "no-header-row": "header_row=False", "private-ip": "private_ip=True"}
_FLAGS |= {
    "partial": "partial=True",
    "typed": "typed=True",
    "infer-types": "infer_types=True",
    "single-file": "single_file=True",
    "with-env": "with_env=True",
    "wheels": "wheels=True",
}
_OPTIONS = (
    "ami|base-image|block-rows|block-timeout|bring-up-limit|budget|chunk-rows|classifier|columns|cluster|deadline|delimiter|dtype|encoding|finish-by|"
    "finish-in|history|idle-timeout|"
    "image|index|index-url|input|limit|instance-profile|instance-type|key-name|max-bad|max-time|min-workers|na-values|output|output-format|price|"
    "processes-per-worker|region|renew-after|requirements|rows|sample|scale-up-to|scheduler-instance-type|security-group|seed|slowness|staging|subnet|tag|"
    "teardown-limit|"
    f"with-file|worker-timeout|workers|{'|'.join(_FLAGS)}"
)
_NO_VALUE = (
    "and|or|out|to|is|was|with|if|for|the|says|has|have|allows|of|in|it|on|at|while|waits|within|prints|shows|a,b"
)
_VALUE = rf"(?: (?!(?:{_NO_VALUE})\b)([\w/'\";%][^\s,)]*?)(?=[.,;:)]?(?:\s|$)))?"
_OPTION = re.compile(rf"(?<![^\s(])--({_OPTIONS})(?![\w-]){_VALUE}")
_FOR_A_SHELL = re.compile(r"(`[^`]*`|\b(?:dask-classify|aws) [a-z].*)")


def in_python(text: str) -> str:
    """Return a message with the command's options replaced by Python arguments: "--max-bad 10" by "max_bad=10".

    Commands for a shell stay as they are.
    """

    def argument(option: re.Match[str]) -> str:
        name, value = option[1], option[2]
        if name in _FLAGS:
            return _FLAGS[name] + (f" {value}" if value else "")
        if not value:
            return name.replace("-", "_") + "="
        plain = value.isdecimal() or (value.isalpha() and value.isupper()) or value[0] in "'\""
        return f"{name.replace('-', '_')}={value if plain else chr(34) + value + chr(34)}"

    pieces = _FOR_A_SHELL.split(text)  # every second one is for a shell
    return "".join(piece if number % 2 else _OPTION.sub(argument, piece) for number, piece in enumerate(pieces))


PARTIAL_EXIT_CODE = 7  # which is no error: the run is complete, without some of its rows


class DaskClassifyError(Exception):
    """A failure with a sentence for a person (`message`) and what to do about it (`hint`).

    Both are the exception's args, so that it survives pickling between processes.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = ""):
        Exception.__init__(self, message, hint)  # not OSError's, which would take them for an errno and its text
        self.message: str = message
        self.hint: str = hint
        self.details: str = ""  # more than most want to read: the traceback of a classifier that raises

    def with_details(self, details: str) -> Self:
        """Return this error with its details."""
        self.details = details
        return self

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows: the user's own frames and the sentences, but no frames of this package."""
        from .raised import own_frames, own_lines  # here, so that code that only needs an error does not import it

        lines = [*own_frames(self), *own_lines(self.details), f"{type(self).__name__}: {in_python(self.message)}"]
        return [*lines, f"Hint: {in_python(self.hint)}"] if self.hint else lines

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, {"details": self.details}

    def __str__(self) -> str:
        return "\n".join(map(in_python, filter(None, (self.message, self.hint))))


class UsageError(DaskClassifyError, ValueError):
    """Wrong or contradictory options, or a classifier that cannot be found or imported."""

    exit_code = 2


class OutputExists(UsageError, FileExistsError):
    """The output folder contains a run that this plan must not touch."""


class RunInUse(UsageError, OSError):
    """Another command is at work in the output folder."""


class StorageError(DaskClassifyError, OSError):
    """A file or an object cannot be read or written."""


class SourceError(DaskClassifyError, ValueError):
    """The source changed, or cannot be cut into rows."""


class WrongAnswer(DaskClassifyError, ValueError):
    """The classifier's answer does not fit its chunk."""

    @classmethod
    def not_unicode(cls, error: UnicodeEncodeError) -> Self:
        """Return the error of an answer with text that cannot be written."""
        return cls(f"it contains text that is not Unicode: {error}", "Return text that can be written as UTF-8.")


class ProcessDied(DaskClassifyError, RuntimeError):
    """A classifier process ended, or was ended, before its task was done."""


class TaskFailed(DaskClassifyError, RuntimeError):
    """A task raised what no task should raise; the message holds the traceback."""


class BlocksFailed(DaskClassifyError, RuntimeError):
    """Some blocks killed their classifier process on every attempt."""


class DamagedRun(DaskClassifyError, RuntimeError):
    """A run on disk is incomplete, or does not match its manifest."""


class LimitReached(DaskClassifyError):
    """The run was stopped by its time or its budget. Finished blocks are kept."""

    exit_code = 6


class TooManyBadRows(DaskClassifyError, ValueError):
    """More bad rows than `max_bad` allows."""

    exit_code = 3

    @classmethod
    def of(cls, first: str, allowed: int, traceback: str) -> Self:
        """Name the first bad row; `traceback` is that of the classifier, "" where it did not raise."""
        limit = "none are" if allowed == 0 else "1 is" if allowed == 1 else f"{allowed:,} are"
        if traceback:
            check, fix = number_hint(traceback), "fix the classifier"
        else:
            check, fix = "Check --delimiter and --encoding.", "fix the input"
        allow = "Allow more bad rows, such as --max-bad 10, with --resume"
        error = cls(
            f"Stopped at a bad row ({limit} allowed): {first}.",
            f"{check} {allow}, or {fix} and start again.".strip(),
        )
        return error.with_details(traceback)


class ClusterError(DaskClassifyError, RuntimeError):
    """The cluster could not be started or reached, or cannot do this work."""

    exit_code = 4


class Stopped(ClusterError):
    """A launch that did not happen, because the cluster shuts down."""


class InstancesLeft(DaskClassifyError, RuntimeError):
    """Instances or security groups that could not be terminated; the message names them."""

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
