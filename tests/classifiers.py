"""Classifiers that behave well and badly, for the tests; runs get them as files."""

import os
import pathlib
import random
import signal
import time

import numpy as np
import pandas as pd


def lengths(df):
    """Cheap, and different for each text of each column."""
    texts = ["|".join(map(str, (name, *row))) for name, row in zip(df.index, df.to_numpy(), strict=True)]
    return df.assign(LENGTH=[len(text) for text in texts], TEXT=texts)


def series(df):
    return df.iloc[:, 0].str.len()


def numbered_series(df):
    return pd.Series(range(len(df)))


def array(df):
    return np.arange(len(df)) / 3


def seeds_global_random(df):
    def score(row):
        random.seed(str(row))
        return random.random() + random.random() + random.random()

    return df.assign(CLASSIFICATION=df.apply(score, axis=1))


def slow(df):
    """Takes its time; where TEST_HOLD names a file, row 1000 and those behind it wait until that is gone."""
    time.sleep(0.05)
    while (hold := os.environ.get("TEST_HOLD")) and os.path.exists(hold) and int(df.index[0]) >= 1000:
        time.sleep(0.01)
    return lengths(df)


def changes_its_chunk(df):
    df["NEW"] = "x"
    df["SKU"] = "overwritten"
    if (df.index == "13").any():
        raise ValueError("thirteen")
    return df


def fails_on_bad(df):
    if df.apply(lambda row: "BAD" in "".join(row), axis=1).any():
        raise ValueError("there is a BAD one")
    return lengths(df)


def fails_always(df):
    return df["NO_SUCH_COLUMN"]


def too_few(df):
    return df.iloc[:-1]


def other_order(df):
    return df.iloc[::-1]


def too_many_values(df):
    return [1] * (len(df) + 1)


def nothing(df):
    return None


def other_columns(df):
    return df.assign(**{f"C{df.index[0]}": 1})


def exits(df):
    raise SystemExit(3)


def prints(df):
    print("a black box that talks")
    return lengths(df)


def killed_by_seven(df):
    if (df.index == "7").any():
        os.kill(os.getpid(), signal.SIGKILL)
    return lengths(df)


def kills(df):
    os.kill(os.getpid(), signal.SIGKILL)


def dies_once(df):
    """Dies of SIGSEGV the first time that it sees row 250; a file beside it remembers."""
    seen = pathlib.Path(os.environ["TEST_MEMORY"])
    if (df.index == "250").any() and not seen.exists():
        seen.write_text("died")
        os.kill(os.getpid(), signal.SIGSEGV)
    return lengths(df)


def hangs_on_seven(df):
    if (df.index == "7").any():
        time.sleep(600)
    return lengths(df)


class Loaded:
    """Counts in a file how often it is made, and in which process."""

    def __init__(self):
        with open(os.environ["TEST_MEMORY"], "a") as file:
            file.write(f"{os.getpid()}\n")

    def __call__(self, df):
        return df.assign(PID=os.getpid())


def prints_and_waits(site, report):
    """A task, and no classifier."""
    print("something")
    time.sleep(600)
