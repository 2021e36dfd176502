"""The truth that every run is compared with: one process, pandas alone, no code of the package."""

import hashlib
import io
import random

import pandas as pd


def reference(text, classify, **options):
    """The bytes that a run over this CSV must leave."""
    options = {"dtype": str, "keep_default_na": False, "na_filter": False} | options
    df = pd.read_csv(io.BytesIO(text), **options)
    df = df.set_index(df.columns[0])
    return classify(df).to_csv(header=False).encode()


def black_box(df):
    """What `blackbox` promises, written again."""

    def score(row):
        digest = hashlib.sha256()
        for _ in range(10):
            digest.update(str(row).encode())
        return random.Random(repr(row)).uniform(0, 1)

    return df.assign(CLASSIFICATION=df.apply(score, axis=1))
