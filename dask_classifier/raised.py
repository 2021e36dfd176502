"""Describe a classifier's exception: its type and text, the place in the user's own code, and the traceback."""

import functools
import linecache
import multiprocessing
import os
import re
import site
import sysconfig
import traceback
from dataclasses import dataclass
from pathlib import Path

CLASSIFIER = "classifier"  # the name of classifier processes
_PACKAGE = str(Path(__file__).parent)
_MOST_CODE = 100  # characters of a line of code
_MOST_TRACEBACK = 8_000  # last characters of a traceback that are kept
_FRAME = re.compile(r'^  File "(.+)", line (\d+), in (.+)$', re.MULTILINE)
_ADDRESS = re.compile(r" at 0x[0-9a-f]+>")  # of an object, which is another one in each process
_BY_VALUE = "<dynamic-code>"  # cloudpickle's file name for a function that is pickled by value


@dataclass(frozen=True)
class Raised:
    """The exception of a classifier on a row, or the reason why the row is malformed."""

    reason: str  # one line: type, text, place
    traceback: str = ""  # "" for a malformed row
    kind: str = "malformed"  # or the exception's type

    @classmethod
    def of(cls, error: BaseException, folder: str = "") -> "Raised":
        """Describe an exception from a call of the classifier, whose files are in `folder`."""
        package = _PACKAGE + os.sep
        frames = [
            frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(package)
        ]
        name, text = type(error).__name__, _ADDRESS.sub(" at 0x…>", text_of(error))
        details = "".join(traceback.format_list(frames)) + f"{name}: {text}"
        reason = f"{name}: {' '.join(text.split())}{_place(frames)}"
        return cls(reason, _without_folder(folder, details)[-_MOST_TRACEBACK:], name)


def own_frames(error: BaseException) -> list[str]:
    """Return the frames of an error's traceback that are in the user's own code, outermost first, as lines of text."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not is_installed(frame.filename)]
    return [line for text in traceback.format_list(frames) for line in text.rstrip().splitlines()]


def own_lines(details: str) -> list[str]:
    """Return the lines of a traceback's text that refer to the user's own code."""
    frames = [(file, int(line), name) for file, line, name in _FRAME.findall(details) if not is_installed(file)]
    texts = traceback.format_list([traceback.FrameSummary(file, line, name) for file, line, name in frames])
    return [line for text in texts for line in text.rstrip().splitlines()]


def is_ctrl_c(error: BaseException) -> bool:
    """Return whether the user pressed Ctrl-C.

    Classifier processes ignore Ctrl-C, so a KeyboardInterrupt in one was raised by the classifier itself.
    """
    return isinstance(error, KeyboardInterrupt) and not in_classifier_process()


def in_classifier_process() -> bool:
    """Return whether this is a classifier process, which does not interact with the user."""
    return multiprocessing.current_process().name == CLASSIFIER


def text_of(error: BaseException) -> str:
    """Return an exception's text, even if its `__str__` raises another one."""
    try:
        return str(error)
    except BaseException as other:
        return f"(its text raises {type(other).__name__})"


def _place(frames: list[traceback.FrameSummary]) -> str:
    """Return the innermost place in the user's own code, or the outermost one if all code is installed."""
    if not frames:
        return ""
    frame = next((own for own in reversed(frames) if not is_installed(own.filename)), frames[0])
    code = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
    code = code if len(code) <= _MOST_CODE else f"{code[:_MOST_CODE]}..."
    return f" ({_short(frame.filename)}:{frame.lineno}, in {frame.name}{code and f': {code}'})"


def _short(filename: str) -> str:
    return "<your function>" if filename == _BY_VALUE else Path(filename).name


def _without_folder(folder: str, text: str) -> str:
    """Remove the temporary folder of the classifier's files, which means nothing to the user."""
    text = text.replace(_BY_VALUE, "<your function>")
    return text.replace(f"{folder}/", "") if folder else text


@functools.cache
def is_installed(filename: str) -> bool:
    """Return whether a file belongs to the environment, as opposed to the user's own code."""
    if filename.startswith("<frozen") or {"site-packages", "dist-packages"} & set(Path(filename).parts):
        return True
    path = Path(filename).resolve()
    return any(path.is_relative_to(folder) for folder in _environment())


@functools.cache
def _environment() -> list[Path]:
    folders = [sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders += [*site.getsitepackages(), site.getusersitepackages(), _PACKAGE]
    return [Path(folder).resolve() for folder in folders]
