"""A scikit-learn model as a classifier: loaded once in each process, then called with chunks of 100 rows.

python train.py
dask-classify --input reviews.csv --classifier sentiment.py:Sentiment --with-file sentiment.joblib --output runs/reviews
"""

from pathlib import Path

import joblib
import pandas as pd


class Sentiment:
    """Adds SENTIMENT (good or bad) and CERTAINTY (0.5 to 1) to reviews with a column `text`."""

    def __init__(self):
        # a file sent with --with-file stands beside this one, on whatever machine this runs
        self.model = joblib.load(Path(__file__).with_name("sentiment.joblib"))

    def __call__(self, chunk: pd.DataFrame) -> pd.DataFrame:
        """Classify a chunk: all values are text."""
        probabilities = self.model.predict_proba(chunk["text"].tolist())
        best = probabilities.argmax(axis=1)
        return chunk.assign(SENTIMENT=self.model.classes_[best], CERTAINTY=probabilities.max(axis=1))
