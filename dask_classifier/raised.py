"""What a classifier raises, for people: what it was, where in the user's own code, and the whole traceback."""

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

CLASSIFIER = "classifier"  # the name of a process that only classifies
_PACKAGE = str(Path(__file__).parent)
_MOST_CODE = 100  # characters of a line of code
_MOST_TRACEBACK = 8_000  # characters of a traceback, of which the end is kept
_FRAME = re.compile(r'^  File "(.+)", line (\d+), in (.+)$', re.MULTILINE)
_BY_VALUE = "<dynamic-code>"  # the file of a function that travels by value, as cloudpickle names it


@dataclass(frozen=True)
class Raised:
    """What a classifier raised for a row."""

    reason: str  # one line: type, text, place
    traceback: str = ""  # "" where nothing was raised, as for a row that cannot be parsed
    kind: str = "malformed"  # the exception's type

    @classmethod
    def of(cls, error: BaseException, folder: str = "") -> "Raised":
        """Describe an exception that comes from a call of the classifier, whose files are in `folder`."""
        ours = _PACKAGE + os.sep
        frames = [each for each in traceback.extract_tb(error.__traceback__) if not each.filename.startswith(ours)]
        name, words = type(error).__name__, said(error)
        text = "".join(traceback.format_list(frames)) + f"{name}: {words}"
        reason = f"{name}: {' '.join(words.split())}{_place(frames)}"
        return cls(reason, _without(folder, text)[-_MOST_TRACEBACK:], name)


def own_frames(error: BaseException) -> list[str]:
    """Return the frames of an error's traceback that are in the user's own code, outermost first, as lines of text."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not is_installed(frame.filename)]
    return [line for text in traceback.format_list(frames) for line in text.rstrip().splitlines()]


def own_lines(details: str) -> list[str]:
    """Return the lines of a traceback's text that are about the user's own code."""
    frames = [(file, int(line), name) for file, line, name in _FRAME.findall(details) if not is_installed(file)]
    texts = traceback.format_list([traceback.FrameSummary(file, line, name) for file, line, name in frames])
    return [line for text in texts for line in text.rstrip().splitlines()]


def is_ctrl_c(error: BaseException) -> bool:
    """Whether a person has interrupted: classifier processes ignore Ctrl-C, so there it is the classifier's own."""
    return isinstance(error, KeyboardInterrupt) and not in_classifier_process()


def in_classifier_process() -> bool:
    """Whether this is a process that only classifies, and no person sits at it."""
    return multiprocessing.current_process().name == CLASSIFIER


def said(error: BaseException) -> str:
    """Return an exception's text, also of one whose text cannot be made."""
    try:
        return str(error)
    except BaseException as another:
        return f"(its text raises {type(another).__name__})"


def _place(frames: list[traceback.FrameSummary]) -> str:
    """Where in the user's own code: the innermost frame outside of the environment's packages; else the outermost."""
    if not frames:
        return ""
    frame = next((each for each in reversed(frames) if not is_installed(each.filename)), frames[0])
    code = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
    code = code if len(code) <= _MOST_CODE else f"{code[:_MOST_CODE]}..."
    return f" ({_short(frame.filename)}:{frame.lineno}, in {frame.name}{code and f': {code}'})"


def _short(filename: str) -> str:
    return "<your function>" if filename == _BY_VALUE else Path(filename).name


def _without(folder: str, text: str) -> str:
    """The classifier's files are in a temporary folder, which means nothing to anybody."""
    text = text.replace(_BY_VALUE, "<your function>")
    return text.replace(f"{folder}/", "") if folder else text


@functools.cache
def is_installed(filename: str) -> bool:
    """Whether a file belongs to the environment, as opposed to the user."""
    if filename.startswith("<frozen") or {"site-packages", "dist-packages"} & set(Path(filename).parts):
        return True
    path = Path(filename).resolve()
    return any(path.is_relative_to(folder) for folder in _environment())


@functools.cache
def _environment() -> list[Path]:
    folders = [sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders += [*site.getsitepackages(), site.getusersitepackages(), _PACKAGE]
    return [Path(folder).resolve() for folder in folders]
