"""The built-in classifier of the demo, which takes the place of a slow one whose code is not available."""

import hashlib
import random

import pandas as pd


class BlackBox:
    """Give each row a pseudorandom score, in about 3.5 ms per row at a slowness of 10.

    For each row, `str(row)` is fed into one SHA-256 `slowness` times. The score is
    `random.Random(repr(row)).uniform(0, 1)`.

    Parameters
    ----------
    slowness : int
        Cost per row. [default: 10]
    """

    def __init__(self, slowness: int = 10):
        self.slowness = slowness

    def __call__(self, chunk: pd.DataFrame) -> pd.DataFrame:
        """Return the chunk with the additional column CLASSIFICATION, a float from 0 to 1."""
        return chunk.assign(CLASSIFICATION=chunk.apply(self._score, axis=1))

    def _score(self, row: pd.Series) -> float:
        digest = hashlib.sha256()
        for _ in range(self.slowness):
            digest.update(str(row).encode())
        return random.Random(repr(row)).uniform(0, 1)
