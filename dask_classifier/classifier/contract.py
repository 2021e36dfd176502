"""The contract of a classifier, DataFrame to DataFrame, and the check of its answers.

A classifier is a callable. It gets a chunk: a DataFrame of 1 to 100 rows (`--chunk-rows`) whose index is the first
column of the source, and whose values are all text, unless `--index`, `--dtype`, `--infer-types` or `--typed` say
otherwise. It returns one of these:

- a DataFrame with the chunk's index, usually the chunk with more columns;
- a Series, an array or a list with one value per row, which becomes the column CLASSIFICATION.

A class is instantiated once in each classifier process, so that a model is loaded once, and the instance is called with
each chunk. An exception makes bad rows: the chunk is halved until each row that causes one is on its own.
"""

import bdb
import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from ..errors import WrongAnswer
from ..raised import Raised, in_classifier_process, is_ctrl_c
from ..rows.chunks import Chunk
from ..units import count_of

COLUMN = "CLASSIFICATION"
Values = np.ndarray | pd.api.extensions.ExtensionArray  # one value per row
Classify = Callable[[pd.DataFrame], object]


class Answer:
    """The answer of a classifier to a chunk: a frame, or one value per row of the chunk."""

    def __init__(self, chunk: pd.DataFrame, frame: pd.DataFrame | None = None, values: Values | None = None):
        self.chunk, self.values = chunk, values
        self._frame = frame

    def __len__(self) -> int:
        return len(self.chunk)

    @property
    def frame(self) -> pd.DataFrame:
        """The classified rows. Values become a column only here: making a frame is slow, and often not needed."""
        return self.chunk.assign(**{COLUMN: self.values}) if self._frame is None else self._frame

    def has_columns_of(self, other: "Answer") -> bool:
        """Return whether two answers to chunks of one block have the same columns and the same index name."""
        if self.values is not None and other.values is not None:
            return True
        mine, others = self.frame, other.frame
        return list(map(str, mine.columns)) == list(map(str, others.columns)) and mine.index.name == others.index.name


def classify_chunk(
    classify: Classify, chunk: pd.DataFrame, folder: str = "", *, deep: bool = False
) -> tuple[list[Answer], list[tuple[int, Raised]]]:
    """Classify a chunk, halving it where the classifier raises.

    Anything that the classifier raises makes a bad row, even if it is not an Exception, such as a panic in Rust or a
    cancellation in asyncio.

    Parameters
    ----------
    classify : callable
        The classifier.
    chunk : pandas.DataFrame
        The rows.
    folder : str
        Where the classifier's files are.
    deep : bool
        Whether the classifier gets a copy of the values. It must where they are not text: what it writes to an array
        would change the chunk, since copy-on-write covers only some types. Text is in Arrow's arrays, which cannot be
        written to.

    Returns
    -------
    list of Answer
        One or more answers, in order.
    list of tuple of int and Raised
        The rows on which the classifier raises: place in the chunk, exception.

    Raises
    ------
    WrongAnswer
        An answer does not fit the chunk.
    KeyboardInterrupt
        The user pressed Ctrl-C.
    """
    if not len(chunk):
        return [], []
    try:
        answer = classify(chunk.copy(deep=deep))
    except WrongAnswer:
        raise
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        if isinstance(error, bdb.BdbQuit) and not in_classifier_process():  # the user quit the debugger
            raise KeyboardInterrupt from error
        if len(chunk) == 1:
            return [], [(0, Raised.of(error, folder))]
    else:
        return [check_answer(chunk, answer)], []
    half = len(chunk) // 2
    left, left_bad = classify_chunk(classify, chunk.iloc[:half], folder, deep=deep)
    right, right_bad = classify_chunk(classify, chunk.iloc[half:], folder, deep=deep)
    return left + right, left_bad + [(place + half, raised) for place, raised in right_bad]


@contextlib.contextmanager
def answering(what: str, chunk: Chunk | None = None) -> Iterator[None]:
    """Add to a WrongAnswer what it was the answer to."""
    try:
        yield
    except WrongAnswer as error:
        first = f" (first row's index {chunk.frame.index[0]!r})" if chunk else ""
        raise WrongAnswer(f"The classifier's answer to {what}{first} is wrong: {error.message}.", error.hint) from error


def check_answer(chunk: pd.DataFrame, answer: object) -> Answer:
    """Return the checked answer. Raise WrongAnswer if it has other rows than the chunk, or another order."""
    if isinstance(answer, pd.Series) and _is_numbered(answer.index) and not _is_numbered(chunk.index):
        answer = _values(answer)  # pd.Series(model.predict(chunk)): one value per row, in order
    if isinstance(answer, pd.DataFrame | pd.Series):
        _check_index(chunk.index, answer.index)
        if isinstance(answer, pd.DataFrame):
            return Answer(chunk, frame=_detached(answer, chunk.index))
        return _with_values(chunk, _values(answer))
    if not isinstance(answer, np.ndarray | pd.api.extensions.ExtensionArray | list | tuple):
        raise WrongAnswer(
            f"it returned {_type_of(answer)}", "Return a DataFrame, or a Series, array or list with one value per row."
        )
    if getattr(answer, "ndim", 1) != 1:
        raise WrongAnswer(f"it returned an array of shape {answer.shape}", "Return one value per row, or a DataFrame.")
    if len(answer) != len(chunk):
        lengths = f"{count_of(len(answer), 'value')} for {count_of(len(chunk), 'row')}"
        raise WrongAnswer(f"it returned {lengths}", "Return one value per row.")
    return _with_values(chunk, answer)


def _with_values(chunk: pd.DataFrame, values: Values | list | tuple) -> Answer:
    if COLUMN in chunk.columns or chunk.index.name == COLUMN:
        raise WrongAnswer(
            f"it returned one value per row, for a column {COLUMN}, and the source already has one",
            "Return a DataFrame, choose another --index, or leave the source's column out with --columns.",
        )
    return Answer(chunk, values=_as_column(values))


def _values(answer: pd.Series) -> Values:
    """Return a Series' values in its own type: NumPy would turn integers with missing values into floats."""
    return answer.to_numpy() if isinstance(answer.dtype, np.dtype) else answer.array


def _detached(frame: pd.DataFrame, index: pd.Index) -> pd.DataFrame:
    """Return a copy that the classifier cannot change later, and that can be concatenated with others.

    pandas compares the frames' attributes when it concatenates them, and may forbid duplicate labels. An index of
    another type, such as 1.0 instead of 1 after a merge, would be written as another text.
    """
    frame = frame.copy(deep=False)
    frame.attrs = {}
    if frame.index.dtype != index.dtype:
        frame.index = index.rename(frame.index.name)
    return frame if frame.flags.allows_duplicate_labels else frame.set_flags(allows_duplicate_labels=True)


def _as_column(values: Values | list | tuple) -> Values:
    """Return a copy of values with the type of a column of them: text in an array of objects becomes text.

    It is a copy because a classifier may reuse its array for the next chunk.
    """
    if isinstance(values, pd.api.extensions.ExtensionArray):
        return values.copy()
    if type(values) is np.ndarray and values.dtype.kind in "iufb":  # not a masked array, which has missing values
        return values.copy()
    try:
        column = pd.Series(values)
    except UnicodeEncodeError as error:
        raise WrongAnswer.not_unicode(error) from error
    return column.to_numpy() if isinstance(column.dtype, np.dtype) else column.array


def _is_numbered(index: pd.Index) -> bool:
    return isinstance(index, pd.RangeIndex)


def _type_of(value: object) -> str:
    return "nothing" if value is None else f"a value of type {type(value).__name__}"


def _check_index(given: pd.Index, returned: pd.Index) -> None:
    if len(given) != len(returned):
        counts = f"{count_of(len(returned), 'row')} for a chunk of {len(given):,}"
        raise WrongAnswer(f"it returned {counts}", "Return every row of the chunk once.")
    if not given.equals(returned):
        row = next((n for n, (a, b) in enumerate(zip(given, returned, strict=True)) if a != b), 0)
        raise WrongAnswer(
            f"row {row + 1} of its answer has the index {returned[row]!r} instead of {given[row]!r}",
            "Return the rows in the chunk's order, with the chunk's index.",
        )
