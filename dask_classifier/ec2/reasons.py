"""Why instances terminated: EC2's own reason, or else what they printed on their consoles."""

import contextlib
import re
from collections.abc import Iterable

from ..errors import ClusterError, DaskClassifyError
from . import boot, teardown
from .aws import Aws, hint_for

_LINES = 3
_ERROR = re.compile(
    r"docker: |\w*(Error|Exception)\b|\berror:|\bERROR\b|denied|not found|No such|Killed|Out of memory|no space left|"
    r"[Ee]xec format|Cannot connect|Unable to|^\S+==\S+ from "  # of pip, the package that was altered
)
_NO_REASON = ("Client.InstanceInitiatedShutdown", "Client.UserInitiatedShutdown")  # for these, see the console output
_IMAGE_HINT = (
    "Check --image or --base-image: whether it can be pulled and runs, with `dask-classify doctor` and the "
    "instance's log: "
    "aws ec2 get-console-output --latest --output text --instance-id "
)
_PACKAGES = re.compile(r"ERROR: the packages (?:could not be installed|cannot be fetched)")
_ALTERED = "ERROR: the packages in the bucket were altered"
_PACKAGES_HINT = "Check --requirements and --index-url, send all packages with --wheels, or give an --image."
_ALTERED_HINT = "Delete environment-*.zip there: in --staging or, by default, in the folder environment of the output."
_REASON_HINT = "See the code in AWS's documentation, 'Troubleshoot instance launch issues'."
_DEADLINE_HINT = "Give the run more time with --deadline."


def why_ended(aws: Aws, ids: Iterable[str]) -> tuple[str, str]:
    """Return the first reason known for one of the instances, after a colon, or "" if there is none; and a hint."""
    explanations = [_why_one_ended(aws, id) for id in ids]
    with_reason = (explanation for explanation in explanations if explanation[0])
    reason, hint = next(with_reason, explanations[0] if explanations else ("", ""))
    return f": {reason}" if reason else "", hint


def _why_one_ended(aws: Aws, id: str) -> tuple[str, str]:
    code, message = "", ""
    with contextlib.suppress(ClusterError):
        code, message = teardown.reasons(aws, [id]).get(id, ("", ""))
    if code and code not in _NO_REASON:
        return f"{message.removeprefix(f'{code}: ').rstrip('.') or code} ({code})", hint_for(code) or _REASON_HINT
    reason = last_errors(teardown.console(aws, id))
    if reason == boot.DEADLINE_PASSED:
        return reason, _DEADLINE_HINT
    if _ALTERED in reason:
        return reason, _ALTERED_HINT
    return reason, _PACKAGES_HINT if _PACKAGES.search(reason) else f"{_IMAGE_HINT}{id}"


def last_errors(text: str) -> str:
    """Return the last errors that boot.sh or its container printed on a console with this text, or ""."""
    lines = [match[1].strip() for line in text.splitlines() if (match := boot.CONSOLE_LINE.search(line))]
    if boot.DEADLINE_PASSED in lines:
        return boot.DEADLINE_PASSED
    errors = [line for line in lines if _ERROR.search(line)]
    errors = errors or [line for line in lines if line.startswith(boot.CONTAINER_EXITED)]
    return " / ".join(errors[-_LINES:])[-600:]


def own_error(error: BaseException) -> BaseException:
    """Return the original error, which Dask wraps in others when a cluster fails to start."""
    inner = error
    while inner and not isinstance(inner, DaskClassifyError | KeyboardInterrupt | SystemExit):
        inner = inner.__cause__
    if inner or not isinstance(error, Exception):
        return inner or error
    return ClusterError(
        f"The cluster could not be started: {type(error).__name__}: {error}.", "Nothing is left running."
    )
