"""Compare the CPU time per row, without the classifier, with the simplest way to do the same work.

Each pair takes a few dozen milliseconds, so that a slow moment of the machine affects both members. The median is
printed. Run it on an idle machine, before and after a change to the hot path:

    python benchmarks/guard.py [--pairs 31] [--most 0.50]

The exit code is 1 if the median is above `--most`. Figures differ by 20% and more between machines, so choose the
limit yourself. The test suite counts calls instead (tests/house/test_speed.py).
"""

import argparse
import gzip
import io
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from dask_classifier import generate, tasks
from dask_classifier.classifier.job import Site
from dask_classifier.rows.blocks import Block, Span
from dask_classifier.rows.layouts import READ_TEXT, Layout
from dask_classifier.runs.planning import plan

ROWS = 2_000


def near_free(chunk):
    return chunk["SKU"].str.len() * 0.5


def floor():
    """Do the work in the simplest way: generate, parse, cut, classify, format, compress."""
    text = generate.csv_rows(0, 0, ROWS)
    table = pd.read_csv(io.BytesIO(text), names=Layout(columns=generate.COLUMNS).columns, **READ_TEXT).set_index("ID")
    frames = [table.iloc[first : first + 100] for first in range(0, ROWS, 100)]
    lines = "".join(frame.assign(CLASSIFICATION=near_free(frame)).to_csv(header=False) for frame in frames)
    return lines, gzip.compress(lines.encode(), 6)


def ours(folder):
    """Return a function that does the work as the task of a block."""
    made = plan(rows=ROWS, output=folder, classifier=near_free)
    made.package.install(folder)
    job, files, block = made.job(0), made.source.files, Block(0, (Span(ROWS),))
    return lambda: tasks.classify_block(Site("here", str(folder)), lambda rows, bad: None, job, files, block)


def cpu_seconds(function):
    started = time.process_time()
    function()
    return time.process_time() - started


def measured(pairs):
    """Return pairs of CPU seconds, (ours, floor), measured after a first call of both."""
    with tempfile.TemporaryDirectory() as folder:
        block = ours(Path(folder))
        block(), floor()
        return [(cpu_seconds(block), cpu_seconds(floor)) for _ in range(pairs)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--pairs", type=int, default=31)
    parser.add_argument("--most", type=float, default=0.50, help="highest median of ours / floor [default: 0.50]")
    arguments = parser.parse_args()
    pairs = measured(arguments.pairs)
    ratios = sorted(one / other for one, other in pairs)
    median = statistics.median(ratios)
    print(
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} CPUs, "
        f"Python {platform.python_version()}, pandas {pd.__version__}, load {os.getloadavg()[0]:.1f}"
    )
    for name, place in (("dask-classify", 0), ("simplest way", 1)):
        print(f"{name:14} {statistics.median(pair[place] for pair in pairs) / ROWS * 1e6:6.2f} us/row")
    print(f"{'ratio':14} {median:6.3f} (median of {len(ratios)} pairs, {ratios[0]:.3f} to {ratios[-1]:.3f})")
    if median > arguments.most:
        sys.exit(f"above the limit of {arguments.most}")


if __name__ == "__main__":
    main()
