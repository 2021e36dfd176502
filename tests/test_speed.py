"""A guard against slowing down: what a row costs beside the classifier, measured against the plainest way to do it."""

import gzip
import io
import statistics
import time

import pandas as pd

from dask_classifier import generate, sources, tasks
from dask_classifier.layouts import READ_TEXT, Layout
from dask_classifier.planning import plan
from dask_classifier.serving import Site
from dask_classifier.sources import Block

ROWS = 2_000
PAIRS = 15
MOST = (
    0.43  # of the floor's CPU time: a fifth more than the 0.36 measured (2 vCPUs, Python 3.11, pandas 3.1, 2026-11-22)
)


def near_free(chunk):
    return chunk["SKU"].str.len() * 0.5


def floor():
    """What each of two forks does with its share: generate, parse, cut, classify, format, compress."""
    text = generate.csv_rows(0, 0, ROWS)
    table = pd.read_csv(io.BytesIO(text), names=Layout(columns=generate.COLUMNS).columns, **READ_TEXT).set_index("ID")
    frames = [table.iloc[first : first + 100] for first in range(0, ROWS, 100)]
    lines = "".join(frame.assign(CLASSIFICATION=near_free(frame)).to_csv(header=False) for frame in frames)
    return lines, gzip.compress(lines.encode(), 6)


def cpu_seconds(function):
    started = time.process_time()
    function()
    return time.process_time() - started


def test_a_row_costs_less_than_half_of_what_it_costs_the_plain_way(tmp_path):
    """Pairs of a few dozen milliseconds, so that a slow moment of the machine hits both; their median is steady."""
    made = plan(rows=ROWS, output=tmp_path, classifier=near_free)
    made.package.unpack(tmp_path)
    settings, block = made.settings(0), Block(0, ROWS, 0)

    def ours():
        tasks.classify_block(Site("here", str(tmp_path)), lambda rows, bad: None, settings, made.source.files[0], block)

    ours(), floor()  # all is warm
    assert gzip.decompress((tmp_path / "parts" / "part-00000.csv.gz").read_bytes()).decode() == floor()[0]
    ratio = statistics.median(cpu_seconds(ours) / cpu_seconds(floor) for _ in range(PAIRS))
    assert ratio < MOST


def test_a_costly_first_call_is_not_what_blocks_are_sized_by(tmp_path):
    """A model that loads when it is first asked."""
    code = tmp_path / "mine.py"
    code.write_text(
        "import time\n"
        "calls = []\n"
        "def f(chunk):\n"
        "    calls or time.sleep(0.5)\n"
        "    calls.append(len(chunk))\n"
        "    return [0] * len(chunk)\n"
    )
    made = plan(rows=1_000, output=tmp_path / "run", classifier=f"{code}:f")
    name, text = sources.first_rows(made.source, 1_000)
    trial = tasks.try_out(Site("here", str(tmp_path)), lambda rows, bad: None, made.settings(0), name, text)
    assert trial.rows == 1_000
    assert trial.seconds_a_row < 0.01, "not 0.5 s for the ten rows of the first call"
