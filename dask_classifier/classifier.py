"""The contract of a classifier, DataFrame to DataFrame; the built-in one; checking answers.

A classifier is a callable. It gets a chunk: a DataFrame of 1 to 100 rows (`--chunk-rows`) whose index is the
source's first column
and whose values all are text. It returns one of
- a DataFrame with the chunk's index, usually the chunk with more columns,
- a Series, an array or a list with one value a row, which becomes the column CLASSIFICATION. A class is made
  once in each classifier process, so that a model is loaded once, and its instance is called with each chunk.
  What it raises makes bad rows: the chunk is halved until the rows that are to blame stand alone.
"""

import hashlib
import random
from collections.abc import Callable

import numpy as np
import pandas as pd

from .errors import WrongAnswer

COLUMN = "CLASSIFICATION"
Classify = Callable[[pd.DataFrame], object]


class BlackBox:
    """The demo's stand-in for a slow classifier that nobody may look into: about 3.5 ms a row at the slowness
    of 10.

    For each row, feeds `str(row)` into one SHA-256 `slowness` times; the score is
    `random.Random(repr(row)).uniform(0, 1)`.
    """

    def __init__(self, slowness: int = 10):
        self.slowness = slowness

    def __call__(self, chunk: pd.DataFrame) -> pd.DataFrame:
        """The chunk with the column CLASSIFICATION, a float from 0 to 1."""
        return chunk.assign(**{COLUMN: chunk.apply(self._score, axis=1)})

    def _score(self, row: pd.Series) -> float:
        digest = hashlib.sha256()
        for _ in range(self.slowness):
            digest.update(str(row).encode())
        return random.Random(repr(row)).uniform(0, 1)


def classify_chunk(classify: Classify, chunk: pd.DataFrame) -> tuple[list[pd.DataFrame], list[tuple[int, str]]]:
    """The classified rows, in order, in one frame or several; and the rows on which the classifier raises:
    (place, reason).

    Raises WrongAnswer where an answer does not fit.
    """
    if not len(chunk):
        return [], []
    try:
        answer = classify(chunk.copy(deep=False))
    except WrongAnswer:
        raise
    except (Exception, SystemExit) as error:
        if len(chunk) == 1:
            return [], [(0, f"{type(error).__name__}: {error}")]
    else:
        return [check_answer(chunk, answer)], []
    half = len(chunk) // 2
    left, left_bad = classify_chunk(classify, chunk.iloc[:half])
    right, right_bad = classify_chunk(classify, chunk.iloc[half:])
    return left + right, left_bad + [(place + half, reason) for place, reason in right_bad]


def check_answer(chunk: pd.DataFrame, answer: object) -> pd.DataFrame:
    """The answer as a DataFrame with the chunk's index. Raises WrongAnswer for other rows, or another order."""
    if isinstance(answer, pd.Series) and _is_numbered(answer.index) and not _is_numbered(chunk.index):
        answer = answer.to_numpy()  # pd.Series(model.predict(chunk)): one value a row, in order
    if isinstance(answer, pd.DataFrame | pd.Series):
        _check_index(chunk.index, answer.index)
        return answer if isinstance(answer, pd.DataFrame) else chunk.assign(**{COLUMN: answer.to_numpy()})
    if not isinstance(answer, np.ndarray | pd.api.extensions.ExtensionArray | list | tuple):
        raise WrongAnswer(
            f"it returned {_a(answer)}", "Return a DataFrame, or a Series, array or list with one value a row."
        )
    if getattr(answer, "ndim", 1) != 1:
        raise WrongAnswer(f"it returned an array of shape {answer.shape}", "Return one value a row, or a DataFrame.")
    if len(answer) != len(chunk):
        raise WrongAnswer(f"it returned {len(answer)} values for {len(chunk)} rows", "Return one value a row.")
    return chunk.assign(**{COLUMN: answer})


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
