"""Generated rows as one CSV text, header first."""

from dask_classifier import generate


def csv_of(rows, seed=0):
    """The text of `rows` rows."""
    return b"".join(generate.csv_stream(seed, rows))
