"""What a run leaves for people: report.html, and `dask-classify report`."""

import csv
import io
import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

import dask_classifier as dc
from dask_classifier import storage
from dask_classifier.dashboard.events import PLUGIN
from dask_classifier.dashboard.progress_bar import progress_bar
from dask_classifier.parts import csv_parts
from dask_classifier.runs.manifest import Manifest
from dask_classifier.runs.stages import classifying_speed
from dask_classifier.show import report, samples
from dask_classifier.show.figures import figures, totals
from dask_classifier.units import format_share


def wait_until(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.05)


HOSTILE = 'id,text\n1,<script>alert(1)</script>\n2,"two\nlines, & ""quotes"""\n3,BAD <b>row</b>\n4,x,too many\n5,fine\n'


@pytest.fixture(scope="module")
def result(cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return dc.run(dc.plan(rows=3000, output=folder / "run", slowness=1, block_rows=300), cluster)


@pytest.fixture(scope="module")
def hostile(cluster, tmp_path_factory):
    """Text that is HTML, bad rows of two kinds, answers that are numbers with a gap, and words."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "in.csv").write_text(HOSTILE)
    (folder / "mine.py").write_text(
        "def f(df):\n"
        "    if df['text'].str.contains('BAD').any():\n"
        "        raise ValueError('<i>bad</i>')\n"
        "    score = [float('nan') if t == 'fine' else float(len(t)) for t in df['text']]\n"
        "    return df.assign(SCORE=score, KIND='<u>a</u>')\n"
    )
    options = {"classifier": f"{folder}/mine.py:f", "max_bad": 2, "chunk_rows": 1, "block_rows": 2}
    return dc.run(dc.plan(input=folder / "in.csv", output=folder / "run", **options), cluster)


def test_figures_account_for_each_row(result):
    run = figures(result)
    assert sum(share.rows for share in run.workers) == sum(block.rows for block in run.blocks) == 3000
    assert [block.index for block in run.blocks] == list(range(10))
    lasted = max(block.began + block.seconds for block in run.blocks) - min(block.began for block in run.blocks)
    assert sum(speed for _, speed in run.speed) * lasted / len(run.speed) == pytest.approx(3000, rel=0.01)
    assert [stage.name for stage in run.stages] == [
        "connecting", "trying the classifier", "finding rows", "classifying", "publishing",
    ]  # fmt: skip
    assert sum(stage.seconds for stage in run.stages) == pytest.approx(run.seconds)
    assert 0.3 < run.at_work <= 1 and run.processes == 2
    (scores,) = run.answers
    assert scores.rows == sum(scores.counts) == 3000 and 0 <= scores.edges[0] < scores.edges[-1] <= 1
    json.dumps(run.as_json())


def test_a_run_has_one_speed_wherever_it_is_shown(cluster, tmp_path):
    """Report, cell and page divide the rows of this attempt by the seconds of the stage `classifying`."""
    options = {"rows": 2000, "output": tmp_path / "run", "slowness": 1, "block_rows": 100}
    dc.run(dc.plan(**options), cluster)
    for name in ("manifest.json", "parts/part-00002.json", "parts/part-00005.json"):
        (tmp_path / "run" / name).unlink()
    progress = dc.Progress()
    result = dc.run(dc.plan(**options, resume=True), cluster, progress=progress)
    (stage,) = [each for each in figures(result).stages if each.name == "classifying"]
    seconds, speed = classifying_speed(result.manifest)
    assert (seconds, speed) == (stage.seconds, 200 / stage.seconds)
    assert progress.snapshot().rows_a_second == speed == figures(result).rows_a_second
    page = cluster.scheduler.plugins[PLUGIN].newest
    assert page.title == result.output
    wait_until(lambda: page.snapshot().done == 2000)  # the worker's last word
    assert page.snapshot().rows_a_second == speed
    words = f"{speed:,.0f} rows/s while classifying"
    assert words in report.html(figures(result)) and totals(figures(result))["speed"] == words
    shown = progress_bar(progress.snapshot(), "", {})
    assert f">{speed:,.0f}</div>" in shown and ">rows/s while classifying</div>" in shown


def test_a_run_that_classified_nothing_or_kept_no_times_has_no_speed(result):
    for changed in ({"stages": []}, {"resumed": list(range(10))}):
        run = figures(dc.Result(result.output, Manifest(result.manifest | changed)))
        assert run.rows_a_second is None and "speed" not in totals(run)
        assert "<svg" in report.html(run) or not run.blocks


@pytest.mark.long
def test_the_command_shows_it_and_makes_the_page_again(result, command, tmp_path):
    page = Path(result.output, "report.html")
    before = page.read_text()
    page.unlink()
    done = command("report", result.output, check=0)
    assert re.search(r"rows out +3,000 *\n", done.stdout) and "classifying" in done.stdout
    assert page.read_text() == before
    command("report", result.output, "--html", "page.html", check=0)
    there = (tmp_path / "page.html").read_text()
    links = re.findall('href="([^"]+)"', there)
    assert len(links) == 2 and all((tmp_path / link).exists() for link in links), (
        "elsewhere, links lead to the run, too"
    )
    assert re.sub('href="[^"]+"', "", there) == re.sub('href="[^"]+"', "", before)
    assert "exists" in command("report", result.output, "--html", "page.html", check=2).stderr
    told = json.loads(command("report", result.output, "--json", check=0).stdout)
    assert told["rows_out"] == 3000 and told["stages"][0]["name"] == "connecting"
    done = command("report", tmp_path, check=1)
    assert "There is no run in" in done.stderr


def test_text_of_the_source_is_text_on_the_page(hostile):
    page = Path(hostile.output, "report.html").read_text()
    for tag in ("<script", "<b>", "<i>", "<u>", "http:", "https:", "url(", "@import"):
        assert tag not in page, tag
    assert "&lt;i&gt;bad&lt;/i&gt;" in page and "BAD &lt;b&gt;row&lt;/b&gt;" in page


def test_the_page_is_in_words_with_shares_and_heads(hostile):
    page = Path(hostile.output, "report.html").read_text()
    for words in (
        '<h2 class="long">Values of SCORE</h2>',
        "<dd>3 (60.0%)</dd>",
        "<dd>2 (40.0%)</dd>",
        "2 rows are in <code>quarantine/</code>, 40.0% of the source.",
        '<th scope="row">header line in the output</th><td class="long">no</td>',
        '<th scope="row">slowness</th><td class="long">not used</td>',
        "1 (33.3%) without a value",
    ):
        assert words in page, words
    shown = re.sub("<style>.*</style>", "", page, flags=re.DOTALL)
    assert ">None<" not in shown and ">False<" not in shown and not re.search(r"<th(?! scope|ead)", shown)
    assert not re.search(r"\d %", shown)


def test_the_time_is_local_and_in_utc(result, command, tmp_path):
    utc = datetime.fromtimestamp(result.manifest["started"], UTC)
    there = utc.astimezone(ZoneInfo("Asia/Kolkata"))
    time, date = "%H:%M:%S", "%Y-%m-%d %H:%M:%S"
    expected = {
        "UTC": f"{utc:{date}} UTC",
        "Asia/Kolkata": f"{there:{date}} IST ({utc:{time if there.date() == utc.date() else date}} UTC)",
    }
    for zone, words in expected.items():
        command("report", result.output, "--html", f"{zone[:3]}.html", check=0, env={"TZ": zone})
        assert f"started {words}</p>" in (tmp_path / f"{zone[:3]}.html").read_text()


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0%"), (1, "100%"), (0.967, "96.7%"), (0.5, "50.0%"), (0.99983, "99.98%"), (29_997 / 30_000, "99.99%"),
     (17 / 100_000, "0.02%"),
     (1e-7, "0.00001%"), (1 - 1e-6, "99.9999%")],
)  # fmt: skip
def test_shares_tell_almost_all_from_all(share, text):
    assert format_share(share) == text


def test_answers_and_bad_rows(hostile):
    run = figures(hostile)
    score, kind = run.answers
    assert (score.column, score.rows, score.missing, sum(score.counts)) == ("SCORE", 3, 1, 2)
    assert (kind.values, kind.others) == ((("<u>a</u>", 3),), 0)
    assert run.bad_rows == run.quarantine.seen == 2
    assert [row[1] for row in run.quarantine.first] == ["3", "4"]
    (raised,) = [reason for reason, _ in run.quarantine.reasons if reason.startswith("ValueError: <i>bad</i>")]
    assert dict(run.quarantine.reasons)[raised] == 1 and "mine.py" in raised, "and where"


def count_bytes(monkeypatch):
    """How many bytes of each local file are read through a stream."""
    taken, real = {}, storage.LocalFileSystem._open

    class Counting(io.FileIO):
        def readinto(self, buffer):
            taken[self.name] = taken.get(self.name, 0) + (count := super().readinto(buffer))
            return count

        def read(self, size=-1):
            data = super().read(size)
            taken[self.name] = taken.get(self.name, 0) + len(data)
            return data

    def opened(self, path, mode="rb", **options):
        return Counting(path) if mode == "rb" else real(self, path, mode, **options)

    monkeypatch.setattr(storage.LocalFileSystem, "_open", opened)
    return taken


def test_a_sample_leaves_the_limit_of_the_csv_module_as_it_is(hostile):
    """It is one for the whole process: the user's own code would fail at a longer field."""
    before = csv.field_size_limit(654_321)
    try:
        assert samples.answers(hostile, ["id", "text"]) and samples.bad_rows(hostile).seen == 2
        assert csv.field_size_limit() == 654_321
    finally:
        csv.field_size_limit(before)


def test_a_sample_of_parquet_in_s3(cluster, s3):
    plan = dc.plan(rows=600, output="s3://bucket/sampled", slowness=1, block_rows=300, output_format="parquet")
    (scores,) = figures(dc.run(plan, cluster)).answers
    assert scores.rows == sum(scores.counts) == 600


@pytest.mark.parametrize("part_format", ["csv.gz", "csv.zst", "parquet"])
def test_a_sample_of_large_parts_reads_their_beginnings(cluster, tmp_path, monkeypatch, part_format):
    plan = dc.plan(
        rows=12_000, output=tmp_path / "run", slowness=1, block_rows=3000, output_format=part_format, header=True
    )
    result = dc.run(plan, cluster)
    monkeypatch.setattr(csv_parts, "_BEGINNING_BYTES", 100_000)
    monkeypatch.setattr(samples, "_ROWS", 8000)
    read, real = [], storage.read
    monkeypatch.setattr(storage, "read", lambda url, *span: read.append((url, span)) or real(url, *span))
    taken = count_bytes(monkeypatch)
    (scores,) = samples.answers(result, ["SKU", "FLUX", "MANUFACTURER_NAME", "DESCRIPTION"])
    if part_format == "parquet":
        assert not read and len(taken) == 4
        for url, count in taken.items():
            assert 0 < count < Path(url).stat().st_size / 2, "no part is read whole: one of its columns, and its footer"
    else:
        assert sorted(read) == [(url, (0, 100_000)) for url in result.urls()], "no part is read whole"
    assert 2000 < scores.rows <= 8000 and scores.missing == 0, "2,000 rows of each part, or as many as were read"


def test_whole_numbers_have_a_bar_each_and_a_column_of_text_its_most_frequent(cluster, tmp_path):
    code = tmp_path / "mine.py"
    code.write_text(
        "def f(df):\n    return df.assign(N=[int(i) % 3 for i in df.index], W=[f'w{i}' for i in df.index])\n"
    )
    result = dc.run(dc.plan(rows=300, output=tmp_path / "run", classifier=f"{code}:f"), cluster)
    numbers, words = figures(result).answers
    assert numbers.counts == (100, 100, 100) and numbers.edges == (-0.5, 0.5, 1.5, 2.5)
    assert len(words.values) == 12 and words.others == 288


def test_any_text_is_sampled_as_it_is(cluster, tmp_path):
    values = ['a "b"', "c,d", "two\nlines", "a\rCR", "", "007", "é"]
    code = tmp_path / "mine.py"
    code.write_text(f"values = {values!r}\ndef f(df):\n    return [values[int(i) % 7] for i in df.index]\n")
    result = dc.run(dc.plan(rows=700, output=tmp_path / "run", classifier=f"{code}:f"), cluster)
    (answers,) = figures(result).answers
    expected = {value.replace("\r", "\N{SYMBOL FOR CARRIAGE RETURN}") for value in values if value}
    assert dict(answers.values) == dict.fromkeys(expected, 100) and answers.missing == 100


def test_a_defect_of_the_page_does_not_fail_the_run(cluster, tmp_path, monkeypatch):
    said = []

    class Listening(dc.Progress):
        def note(self, text):
            said.append(text)

    monkeypatch.setattr(report, "figures", lambda result: 1 / 0)
    dc.run(dc.plan(rows=10, output=tmp_path / "run", slowness=1), cluster, progress=Listening()).verify()
    assert said == ["report.html was not written: ZeroDivisionError: division by zero. Please report this defect."]


@pytest.mark.parametrize(
    "values",
    [
        [1.0, 1.0000000000000002],
        [1e17],
        [0.0, 5e-324],
        [-1e308, 1e308],
        [float("nan")],
        [float("inf"), 1.0],
        [2**60, 2**60 + 1],
    ],
    ids=str,
)
def test_numbers_without_room_for_bars_are_counted(cluster, tmp_path, values):
    code = tmp_path / "mine.py"
    text = f"from math import inf, nan\nvalues = {values!r}\ndef f(df):\n"
    code.write_text(text + "    return [values[int(i) % len(values)] for i in df.index]\n")
    result = dc.run(dc.plan(rows=20, output=tmp_path / "run", classifier=f"{code}:f"), cluster)
    (answers,) = figures(result).answers
    assert sum(answers.counts) + sum(count for _, count in answers.values) + answers.missing == 20
    assert Path(result.output, "report.html").exists()


def test_without_a_header_row_the_source_is_no_answer(cluster, tmp_path):
    (tmp_path / "in.csv").write_text("1,secret one\n2,secret two\n")
    plan = dc.plan(
        input=tmp_path / "in.csv", output=tmp_path / "run", classifier="blackbox", slowness=1, header_row=False
    )
    result = dc.run(plan, cluster)
    assert [answers.column for answers in figures(result).answers] == ["CLASSIFICATION"]
    assert "secret" not in Path(result.output, "report.html").read_text()


def test_a_field_of_hundreds_of_kilobytes(cluster, tmp_path):
    (tmp_path / "in.csv").write_text('id,a\n1,"' + "x" * 400_000 + '"\n2,y,y' + "z" * 200_000 + "\n3,y\n")
    plan = dc.plan(input=tmp_path / "in.csv", output=tmp_path / "run", classifier="blackbox", slowness=1, max_bad=1)
    run = figures(dc.run(plan, cluster))
    assert run.answers[0].rows == 2 and run.quarantine.seen == 1


def test_names_with_brackets_are_shown_as_they_are(command, tmp_path):
    (tmp_path / "mine.py").write_text("def f(df):\n    return df.assign(**{'P[/spam]': 'x', '[bold]Q': 'y'})\n")
    command("--rows", 10, "--classifier", "mine.py:f", "--output", "run", check=0)
    done = command("report", "run", check=0)
    assert "P[/spam]" in done.stdout and "[bold]Q" in done.stdout


def test_clocks_that_differ_hide_no_work(result):
    """A worker's clock may be behind the client's."""
    behind = dict(result.manifest) | {"started": result.manifest["started"] + 3600}
    run = figures(dc.Result(result.output, Manifest(behind)))
    assert len(run.blocks) == 10 and run.processes == 2 and run.rows_a_second > 0
    assert "<svg" in report.html(run)


def test_a_straggler_stands_out(result):
    """What blocks took is given here: what they take on a busy machine is chance."""
    parts = [each | {"seconds": 0.8 if each["index"] == 3 else 0.02} for each in result.manifest["parts"]]
    run = figures(dc.Result(result.output, Manifest(dict(result.manifest) | {"parts": parts})))
    assert [block.index for block in run.blocks if block.odd] == [3] and run.slowest[0].index == 3
    assert 'class="odd"' in report.html(run)


def test_a_resumed_run_shows_its_own_work_and_says_what_was_there(cluster, tmp_path):
    options = {"rows": 1000, "output": tmp_path / "run", "slowness": 1, "block_rows": 100}
    dc.run(dc.plan(**options), cluster)
    for name in ("manifest.json", "report.html", "parts/part-00002.json", "parts/part-00005.json"):
        (tmp_path / "run" / name).unlink()
    time.sleep(0.01)
    run = figures(dc.run(dc.plan(**options, resume=True), cluster))
    assert [block.index for block in run.blocks] == [2, 5] and run.resumed_parts == 8
    assert "8 parts kept from an earlier attempt" in report.html(run)


def test_a_run_without_rows_has_a_page(cluster, tmp_path):
    (tmp_path / "in.csv").write_text("id,a\n")
    result = dc.run(dc.plan(input=tmp_path / "in.csv", output=tmp_path / "run", classifier="blackbox"), cluster)
    assert figures(result).blocks == ()
    assert "Bad rows" in Path(result.output, "report.html").read_text()


def test_a_run_of_an_earlier_version_has_no_stages(result):
    old = Manifest({name: value for name, value in result.manifest.items() if name != "stages"})
    assert "did not record times" in report.html(figures(dc.Result(result.output, old)))


def test_a_page_that_cannot_be_written_does_not_fail_the_run(command, tmp_path):
    (tmp_path / "run" / "report.html" / "in the way").mkdir(parents=True)
    done = command("--rows", 300, "--slowness", 1, "--output", "run", check=0)
    assert "Warning: report.html was not written" in done.stderr
    command("verify", "run", check=0)


def test_values_show_in_a_notebook(result, tmp_path):
    assert "3,000" in result._repr_html_() and "CLASSIFICATION" in result._repr_html_()
    assert "rows quarantined" in result.manifest._repr_html_()
    assert "3,000 generated rows" in dc.plan(rows=3000, output=tmp_path)._repr_html_()
    (tmp_path / "<b>.csv").write_text("id,a\n1,2\n")
    assert (
        "&lt;b&gt;.csv, 9 B"
        in dc.plan(input=tmp_path / "<b>.csv", output=tmp_path / "run", classifier="blackbox")._repr_html_()
    )
    spec = dc.ClusterSpec.of(image="x/y:1", workers=3, tag=["team=data"], deadline="90m")
    assert all(words in spec._repr_html_() for words in ("x/y:1", "team=data", "1h30m00s"))


def test_values_are_short_in_words_and_say_what_counts(result, tmp_path):
    plan = dc.plan(rows=3000, output=tmp_path / "run")
    assert repr(plan) == f"<Plan: 3,000 generated rows, classifier blackbox, into {tmp_path}/run>"
    assert repr(result.manifest).startswith("<Manifest: 3,000 rows, 0 bad rows, 10 parts, ")
    assert len(repr(result.manifest)) < 80
    verified = result.verify()
    assert f">{verified.sha256}<" in verified._repr_html_() and ">3,000<" in verified._repr_html_()
    assert Path(result.report).read_text().startswith("<!DOCTYPE html>") and result.report in result._repr_html_()


def test_a_report_in_python_is_a_table_in_a_notebook(cluster, tmp_path):
    run = dc.run(dc.plan(rows=500, output=tmp_path / "run", slowness=1), cluster)
    run_figures = dc.report(tmp_path / "run")
    assert run_figures.rows_out == 500 and run_figures == dc.report(run)
    assert "rows out" in run_figures._repr_html_() and "<table" in run_figures._repr_html_()
