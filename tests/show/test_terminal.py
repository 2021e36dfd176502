"""The line of progress in a terminal: what stays if there is not room for all."""

import io
import time

import pytest
from rich.console import Console

from dask_classifier.runs.progress import Snapshot
from dask_classifier.show.terminal import _two_columns, describe


def snapshot(rows=10_000_000, left=4000.0, finish_by=None):
    return Snapshot("classifying", rows, rows // 2, 12, 1000, 500, 16, 1234.0, left, finish_by=finish_by)


@pytest.mark.parametrize("width", [70, 80])
@pytest.mark.parametrize(("finish_in", "words"), [(5000, "in time"), (3000, "16m40s late")])
def test_whether_it_ends_in_time_is_in_the_narrowest_line(width, finish_in, words):
    line = describe(snapshot(finish_by=time.time() + finish_in), width)
    ends = time.strftime("%H:%M", time.localtime(time.time() + 4000))
    assert len(line) <= width and f"ends {ends}" in line and words in line, line
    assert line.startswith("50%  5,000,000/10,000,000 rows  ")


def test_the_time_left_is_there_without_a_target():
    line = describe(snapshot(), 70)
    assert "1h06m40s left" in line and "1,234 rows/s" in line and "ends" not in line


def test_labels_stay_in_one_line_beside_long_values():
    lines = {"rows of worker-0 on ip-172-31-0-5": "1,000", "image": "registry/" + "x" * 200, "versions": "a 1, " * 40}
    console = Console(width=80, file=io.StringIO())
    console.print(_two_columns(lines))
    text = console.file.getvalue()
    assert all(any(line.startswith(label) for line in text.splitlines()) for label in lines)
    assert text.count("x") == 200 and max(map(len, text.splitlines())) <= 80
