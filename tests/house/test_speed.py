"""Guards against slowing down that give the same answer on a busy machine: calls are counted, not seconds.

Seconds are measured by `make bench-guard`.
"""

import collections
import gzip
import io
import subprocess
import sys
import types
from pathlib import Path

import pandas as pd
import pyarrow.csv
import pytest

import dask_classifier
from dask_classifier import generate, tasks
from dask_classifier.classifier import trial
from dask_classifier.classifier.job import Site
from dask_classifier.rows.blocks import Block, Span
from dask_classifier.rows.layouts import READ_TEXT, Layout
from dask_classifier.runs.planning import plan

ROWS = 10_000
CHUNKS = ROWS // 100
PACKAGE = Path(dask_classifier.__file__).parent
ONCE_A_BLOCK = {
    "GeneratedRows.read", "parse", "_parse_plain", "as_frames", "to_csv", "_appended_to_rows", "gzip_member",
    "PartWriter.commit",
}  # fmt: skip


def near_free(chunk):
    return chunk["SKU"].str.len() * 0.5


def plain_way():
    """What somebody would write by hand: parse, cut, classify, format, compress."""
    text = generate.csv_rows(0, 0, ROWS)
    table = pd.read_csv(io.BytesIO(text), names=Layout(columns=generate.COLUMNS).columns, **READ_TEXT).set_index("ID")
    frames = [table.iloc[first : first + 100] for first in range(0, ROWS, 100)]
    lines = "".join(frame.assign(CLASSIFICATION=near_free(frame)).to_csv(header=False) for frame in frames)
    return gzip.compress(lines.encode(), 6)


@pytest.fixture
def block(tmp_path):
    """The task of one block of 10,000 generated rows, ready to be called."""
    made = plan(rows=ROWS, output=tmp_path, classifier=near_free)
    made.package.install(tmp_path)
    job, file = made.job(0), made.source.files[0]
    return lambda: tasks.classify_block(
        Site("here", str(tmp_path)), lambda rows, bad: None, job, (file,), Block(0, (Span(ROWS),))
    )


def calls_of(function):
    """How often each Python function ran, by (file, name); a generator counts each time it goes on."""
    counted = collections.Counter()

    def count(frame, event, argument):
        if event == "call":
            counted[frame.f_code.co_filename, frame.f_code.co_qualname] += 1

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return counted


def test_nothing_of_the_hot_path_is_called_for_each_row(block):
    block()  # what is done once in a process is done
    ours = {
        (Path(file).name, name): times
        for (file, name), times in calls_of(block).items()
        if Path(file).is_relative_to(PACKAGE) and Path(file).name != "generate.py"  # which makes rows one by one
    }
    assert ours["tasks.py", "classify_block"] == 1
    assert ours["contract.py", "classify_chunk"] == CHUNKS
    assert {key: times for key, times in ours.items() if times > 5 * CHUNKS} == {}
    once = {name: times for (_, name), times in ours.items() if name in ONCE_A_BLOCK}
    assert once == dict.fromkeys(ONCE_A_BLOCK, 1)


def test_plain_rows_are_read_once_and_not_written_by_pandas(block, tmp_path, monkeypatch):
    used = collections.Counter()

    def counting(place, name):
        original = getattr(place, name)

        def counted(*args, **options):
            used[name if place is not pyarrow.csv else "pyarrow.csv.read_csv"] += 1
            return original(*args, **options)

        monkeypatch.setattr(place, name, counted)

    counting(pd, "read_csv")
    counting(pd.DataFrame, "to_csv")
    counting(pyarrow.csv, "read_csv")
    block()
    assert used == {"pyarrow.csv.read_csv": 1}
    used.clear()
    theirs = plain_way()
    assert used == {"read_csv": 1, "to_csv": CHUNKS}, "or the test counts nothing"
    part = (tmp_path / "parts" / "part-00000.csv.gz").read_bytes()
    assert gzip.decompress(part) == gzip.decompress(theirs)


def test_a_block_needs_less_than_half_the_calls_of_the_plain_way(block):
    """pandas' own calls count, too, so that a detour through it shows, whichever it is."""
    block(), plain_way()
    assert calls_of(block).total() < calls_of(plain_way).total() / 2


def test_a_costly_first_call_is_not_what_blocks_are_sized_by(tmp_path, monkeypatch):
    """A model that loads when it is first asked. The only clock is one that the classifier moves."""
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setitem(sys.modules, "clock_of_the_test", clock)
    monkeypatch.setattr(trial, "time", types.SimpleNamespace(perf_counter=lambda: clock.now))
    code = tmp_path / "mine.py"
    code.write_text(
        "import sys\n"
        "clock = sys.modules['clock_of_the_test']\n"
        "calls = []\n"
        "def f(chunk):\n"
        "    clock.now += 0.0001 * len(chunk) + (0 if calls else 0.5)\n"
        "    calls.append(len(chunk))\n"
        "    return [0] * len(chunk)\n"
    )
    made = plan(rows=1_000, output=tmp_path / "run", classifier=f"{code}:f")
    name, layout, text = made.source.first_rows(1_000)
    measured = tasks.try_out(Site("here", str(tmp_path)), lambda rows, bad: None, made.job(0), name, layout, text)
    assert measured.rows == 1_000
    assert clock.now > 0.5, "the first call was costly"
    assert measured.seconds_a_row == pytest.approx(0.0001), "not 0.5 s for the ten rows of the first call"


def test_help_and_completion_import_no_library_of_arrays_or_clusters():
    code = (
        "import sys\n"
        "sys.argv = ['dask-classify', '--help']\n"
        "from dask_classifier.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stderr.split())
    assert {"dask", "click", "dask_classifier"} <= imported
    assert not imported & {"numpy", "pandas", "pyarrow", "isal", "distributed", "botocore", "fsspec", "bokeh"}
