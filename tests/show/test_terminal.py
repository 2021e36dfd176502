"""The line of progress in a terminal: what stays if there is not room for all."""

import io
import time

import pytest
from rich.console import Console

import dask_classifier as dc
from dask_classifier.runs.progress import Progress, Snapshot
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


def test_files_are_counted_while_their_rows_are_looked_for(tmp_path, cluster):
    """Of many files, as their survey goes on; of a single one, its pieces; and no longer in the next stage."""

    class Watcher(Progress):
        lines = ()

        def counted(self, done, total, what):
            super().counted(done, total, what)
            self.lines += (describe(self.snapshot()),)

    for number in range(250):
        (tmp_path / f"{number:03d}.csv").write_text("id,x\n1,2\n")
    watcher = Watcher()
    dc.run(dc.plan(tmp_path / "*.csv", "blackbox", tmp_path / "run"), cluster, progress=watcher)
    assert len(watcher.lines) > 1 and watcher.lines[-1] == "finding rows ... 250 of 250 files"
    assert watcher.lines[0].startswith("finding rows ... ") and watcher.lines[0] != watcher.lines[-1]
    assert not watcher.snapshot().counted
    with (tmp_path / "large.csv").open("w") as file:
        file.write("id,x\n" + "1,2\n" * 5_000_000)
    alone = Watcher()
    dc.run(dc.plan(tmp_path / "large.csv", "blackbox", tmp_path / "one", limit=100), cluster, progress=alone)
    assert alone.lines[-1] == "finding rows ... 2 of 2 pieces"


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
