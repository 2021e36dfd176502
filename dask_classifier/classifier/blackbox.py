"""The built-in classifier: the demo's stand-in for a slow one that nobody may look into."""

import hashlib
import random

import pandas as pd


class BlackBox:
    """About 3.5 ms a row at the slowness of 10.

    For each row, feeds `str(row)` into one SHA-256 `slowness` times; the score, the column CLASSIFICATION, is
    `random.Random(repr(row)).uniform(0, 1)`.
    """

    def __init__(self, slowness: int = 10):
        self.slowness = slowness

    def __call__(self, chunk: pd.DataFrame) -> pd.DataFrame:
        """The chunk with the column CLASSIFICATION, a float from 0 to 1."""
        return chunk.assign(CLASSIFICATION=chunk.apply(self._score, axis=1))

    def _score(self, row: pd.Series) -> float:
        digest = hashlib.sha256()
        for _ in range(self.slowness):
            digest.update(str(row).encode())
        return random.Random(repr(row)).uniform(0, 1)
