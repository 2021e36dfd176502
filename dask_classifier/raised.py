"""What a classifier raises, for people: what it was, where in the user's own code, and the whole traceback."""

import linecache
import re
import signal
import site
import sysconfig
import traceback
from dataclasses import dataclass
from pathlib import Path

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

    @classmethod
    def of(cls, error: BaseException, folder: str = "") -> "Raised":
        """Describe an exception that comes from a call of the classifier, whose files are in `folder`."""
        frames = [
            frame for frame in traceback.extract_tb(error.__traceback__) if not _is_in(frame.filename, [_PACKAGE])
        ]
        what = f"{type(error).__name__}: {said(error)}"
        text = "".join(traceback.format_list(frames)) + what
        return cls(what + _place(frames), _without(folder, text)[-_MOST_TRACEBACK:])


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
    return isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


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


def is_installed(filename: str) -> bool:
    """Whether a file belongs to the environment, as opposed to the user."""
    if filename.startswith("<frozen") or {"site-packages", "dist-packages"} & set(Path(filename).parts):
        return True
    return _is_in(filename, _environment())


def _environment() -> list[str]:
    folders = [sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")]
    return [*folders, *site.getsitepackages(), site.getusersitepackages(), _PACKAGE]


def _is_in(filename: str, folders: list[str]) -> bool:
    path = Path(filename).resolve()
    return any(path.is_relative_to(Path(folder).resolve()) for folder in folders)
