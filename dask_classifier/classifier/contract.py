"""The contract of a classifier, DataFrame to DataFrame; checking answers.

A classifier is a callable. It gets a chunk: a DataFrame of 1 to 100 rows (`--chunk-rows`) whose index is the
source's first column
and whose values all are text. It returns one of
- a DataFrame with the chunk's index, usually the chunk with more columns,
- a Series, an array or a list with one value a row, which becomes the column CLASSIFICATION. A class is made
  once in each classifier process, so that a model is loaded once, and its instance is called with each chunk.
  What it raises makes bad rows: the chunk is halved until the rows that are to blame stand alone.
"""

import bdb
import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from ..errors import WrongAnswer
from ..raised import Raised, in_classifier_process, is_ctrl_c
from ..rows.chunks import Chunk

COLUMN = "CLASSIFICATION"
Values = np.ndarray | pd.api.extensions.ExtensionArray  # one for each row
Classify = Callable[[pd.DataFrame], object]


class Answer:
    """What a classifier says of a chunk: a frame of its own, or a value for each row of the chunk."""

    def __init__(self, chunk: pd.DataFrame, frame: pd.DataFrame | None = None, values: Values | None = None):
        self.chunk, self.values = chunk, values
        self._frame = frame

    def __len__(self) -> int:
        return len(self.chunk)

    @property
    def frame(self) -> pd.DataFrame:
        """The classified rows. Values become a column only here: a frame costs more than most ways to use it."""
        return self.chunk.assign(**{COLUMN: self.values}) if self._frame is None else self._frame

    def has_columns_of(self, other: "Answer") -> bool:
        """Whether two answers to chunks of one block have the same columns, and the same name of the index."""
        if self.values is not None and other.values is not None:
            return True
        mine, others = self.frame, other.frame
        return list(map(str, mine.columns)) == list(map(str, others.columns)) and mine.index.name == others.index.name


def classify_chunk(
    classify: Classify, chunk: pd.DataFrame, folder: str = ""
) -> tuple[list[Answer], list[tuple[int, Raised]]]:
    """The answers, in order, one or several; and the rows on which the classifier raises: (place, what).

    Whatever it raises makes a bad row, also what is not an Exception: a panic of Rust, a cancellation of asyncio.
    `folder` is where its files are. Raises WrongAnswer where an answer does not fit, and KeyboardInterrupt where
    somebody pressed Ctrl-C.
    """
    if not len(chunk):
        return [], []
    try:
        answer = classify(chunk.copy(deep=False))
    except WrongAnswer:
        raise
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        if isinstance(error, bdb.BdbQuit) and not in_classifier_process():  # somebody left the debugger
            raise KeyboardInterrupt from error
        if len(chunk) == 1:
            return [], [(0, Raised.of(error, folder))]
    else:
        return [check_answer(chunk, answer)], []
    half = len(chunk) // 2
    left, left_bad = classify_chunk(classify, chunk.iloc[:half], folder)
    right, right_bad = classify_chunk(classify, chunk.iloc[half:], folder)
    return left + right, left_bad + [(place + half, raised) for place, raised in right_bad]


@contextlib.contextmanager
def answering(what: str, chunk: Chunk | None = None) -> Iterator[None]:
    """Name what a wrong answer was the answer to."""
    try:
        yield
    except WrongAnswer as error:
        first = f" (first row's index {chunk.frame.index[0]!r})" if chunk else ""
        raise WrongAnswer(f"The classifier's answer to {what}{first} is wrong: {error.message}.", error.hint) from error


def check_answer(chunk: pd.DataFrame, answer: object) -> Answer:
    """The answer with the chunk's index. Raises WrongAnswer for other rows, or another order."""
    if isinstance(answer, pd.Series) and _is_numbered(answer.index) and not _is_numbered(chunk.index):
        answer = _values(answer)  # pd.Series(model.predict(chunk)): one value a row, in order
    if isinstance(answer, pd.DataFrame | pd.Series):
        _check_index(chunk.index, answer.index)
        if isinstance(answer, pd.DataFrame):
            return Answer(chunk, frame=_own(answer))
        return Answer(chunk, values=_as_column(_values(answer)))
    if not isinstance(answer, np.ndarray | pd.api.extensions.ExtensionArray | list | tuple):
        raise WrongAnswer(
            f"it returned {_a(answer)}", "Return a DataFrame, or a Series, array or list with one value a row."
        )
    if getattr(answer, "ndim", 1) != 1:
        raise WrongAnswer(f"it returned an array of shape {answer.shape}", "Return one value a row, or a DataFrame.")
    if len(answer) != len(chunk):
        raise WrongAnswer(f"it returned {len(answer)} values for {len(chunk)} rows", "Return one value a row.")
    return Answer(chunk, values=_as_column(answer))


def _values(answer: pd.Series) -> Values:
    """Return a Series' values in its own type: NumPy has none for a missing integer, and would make floats of all."""
    return answer.to_numpy() if isinstance(answer.dtype, np.dtype) else answer.array


def _own(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame that stays as it is, whatever the classifier does with its own afterwards, and that can be joined to
    others: pandas compares attributes, and may forbid labels that occur twice.
    """
    frame = frame.copy(deep=False)
    frame.attrs = {}
    return frame if frame.flags.allows_duplicate_labels else frame.set_flags(allows_duplicate_labels=True)


def _as_column(values: Values | list | tuple) -> Values:
    """Values with the type that a column of them has (text in an array of objects is text), in memory of their own: a
    classifier may use its array again for the next chunk.
    """
    if isinstance(values, pd.api.extensions.ExtensionArray):
        return values.copy()
    if type(values) is np.ndarray and values.dtype.kind in "iufb":  # not a masked array, which has missing values
        return values.copy()
    try:
        column = pd.Series(values)
    except UnicodeEncodeError as error:
        raise WrongAnswer(
            f"it holds text that is not Unicode: {error}", "Return text that can be written as UTF-8."
        ) from error
    return column.to_numpy() if isinstance(column.dtype, np.dtype) else column.array


def _is_numbered(index: pd.Index) -> bool:
    return isinstance(index, pd.RangeIndex)


def _a(value: object) -> str:
    return "nothing" if value is None else f"a value of type {type(value).__name__}"


def _check_index(given: pd.Index, returned: pd.Index) -> None:
    if len(given) != len(returned):
        raise WrongAnswer(f"it returned {len(returned)} rows for {len(given)}", "Return every row of the chunk, once.")
    if not given.equals(returned):
        row = next((n for n, (a, b) in enumerate(zip(given, returned, strict=True)) if a != b), 0)
        raise WrongAnswer(
            f"row {row + 1} of its answer is {returned[row]!r} where the chunk has {given[row]!r}",
            "Return the rows in the chunk's order, with the chunk's index.",
        )
