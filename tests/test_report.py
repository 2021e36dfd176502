"""What a run leaves for people: report.html, and `dask-classify report`."""

import json
import re
import time
from pathlib import Path

import pytest

import dask_classifier as dc
from dask_classifier import report, samples
from dask_classifier.manifest import Manifest

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
    run = report.figures(result)
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


def test_the_command_shows_it_and_makes_the_page_again(result, command, tmp_path):
    page = Path(result.output, "report.html")
    before = page.read_text()
    page.unlink()
    done = command("report", result.output, check=0)
    assert re.search(r"rows out +3,000 *\n", done.stdout) and "classifying" in done.stdout
    assert page.read_text() == before
    command("report", result.output, "--html", "page.html", check=0)
    assert (tmp_path / "page.html").read_text() == before
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


def test_answers_and_bad_rows(hostile):
    run = report.figures(hostile)
    score, kind = run.answers
    assert (score.column, score.rows, score.missing, sum(score.counts)) == ("SCORE", 3, 1, 2)
    assert (kind.values, kind.others) == ((("<u>a</u>", 3),), 0)
    assert run.bad_rows == run.quarantine.seen == 2
    assert [row[1] for row in run.quarantine.first] == ["3", "4"]
    assert dict(run.quarantine.reasons)["ValueError: <i>bad</i>"] == 1


@pytest.mark.parametrize("part_format", ["csv.gz", "csv.zst", "parquet"])
def test_a_sample_of_large_parts_reads_their_beginnings(cluster, tmp_path, monkeypatch, part_format):
    plan = dc.plan(
        rows=12_000, output=tmp_path / "run", slowness=1, block_rows=3000, output_format=part_format, header=True
    )
    result = dc.run(plan, cluster)
    monkeypatch.setattr(samples, "_BYTES", 100_000)
    monkeypatch.setattr(samples, "_ROWS", 8000)
    read, real = [], samples.storage.read
    monkeypatch.setattr(samples.storage, "read", lambda url, *span: read.append(span) or real(url, *span))
    (scores,) = samples.answers(result, ["SKU", "FLUX", "MANUFACTURER_NAME", "DESCRIPTION"])
    assert part_format == "parquet" or read == [(0, 100_000)] * 4, "no part is read whole"
    assert 2000 < scores.rows <= 8000 and scores.missing == 0, "2,000 rows of each part, or as many as were read"


def test_whole_numbers_have_a_bar_each_and_a_column_of_text_its_most_frequent(cluster, tmp_path):
    code = tmp_path / "mine.py"
    code.write_text(
        "def f(df):\n    return df.assign(N=[int(i) % 3 for i in df.index], W=[f'w{i}' for i in df.index])\n"
    )
    result = dc.run(dc.plan(rows=300, output=tmp_path / "run", classifier=f"{code}:f"), cluster)
    numbers, words = report.figures(result).answers
    assert numbers.counts == (100, 100, 100) and numbers.edges == (-0.5, 0.5, 1.5, 2.5)
    assert len(words.values) == 12 and words.others == 288


def test_any_text_is_sampled_as_it_is(cluster, tmp_path):
    values = ['a "b"', "c,d", "two\nlines", "a\rCR", "", "007", "é"]
    code = tmp_path / "mine.py"
    code.write_text(f"values = {values!r}\ndef f(df):\n    return [values[int(i) % 7] for i in df.index]\n")
    result = dc.run(dc.plan(rows=700, output=tmp_path / "run", classifier=f"{code}:f"), cluster)
    (answers,) = report.figures(result).answers
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
    (answers,) = report.figures(result).answers
    assert sum(answers.counts) + sum(count for _, count in answers.values) + answers.missing == 20
    assert Path(result.output, "report.html").exists()


def test_without_a_header_row_the_source_is_no_answer(cluster, tmp_path):
    (tmp_path / "in.csv").write_text("1,secret one\n2,secret two\n")
    plan = dc.plan(input=tmp_path / "in.csv", output=tmp_path / "run", slowness=1, header_row=False)
    result = dc.run(plan, cluster)
    assert [answers.column for answers in report.figures(result).answers] == ["CLASSIFICATION"]
    assert "secret" not in Path(result.output, "report.html").read_text()


def test_a_field_of_hundreds_of_kilobytes(cluster, tmp_path):
    (tmp_path / "in.csv").write_text('id,a\n1,"' + "x" * 400_000 + '"\n2,y,y' + "z" * 200_000 + "\n3,y\n")
    plan = dc.plan(input=tmp_path / "in.csv", output=tmp_path / "run", slowness=1, max_bad=1)
    run = report.figures(dc.run(plan, cluster))
    assert run.answers[0].rows == 2 and run.quarantine.seen == 1


def test_names_with_brackets_are_shown_as_they_are(command, tmp_path):
    (tmp_path / "mine.py").write_text("def f(df):\n    return df.assign(**{'P[/spam]': 'x', '[bold]Q': 'y'})\n")
    command("--rows", 10, "--classifier", "mine.py:f", "--output", "run", check=0)
    done = command("report", "run", check=0)
    assert "P[/spam]" in done.stdout and "[bold]Q" in done.stdout


def test_clocks_that_differ_hide_no_work(result):
    """A worker's clock may be behind the client's."""
    behind = dict(result.manifest) | {"started": result.manifest["started"] + 3600}
    run = report.figures(dc.Result(result.output, Manifest(behind)))
    assert len(run.blocks) == 10 and run.processes == 2 and run.rows_a_second > 0
    assert "<svg" in report.html(run)


def test_a_straggler_stands_out(result):
    """What blocks took is given here: what they take on a busy machine is chance."""
    parts = [each | {"seconds": 0.8 if each["index"] == 3 else 0.02} for each in result.manifest["parts"]]
    run = report.figures(dc.Result(result.output, Manifest(dict(result.manifest) | {"parts": parts})))
    assert [block.index for block in run.blocks if block.odd] == [3] and run.slowest[0].index == 3
    assert 'class="odd"' in report.html(run)


def test_a_resumed_run_shows_its_own_work_and_says_what_was_there(cluster, tmp_path):
    options = {"rows": 1000, "output": tmp_path / "run", "slowness": 1, "block_rows": 100}
    dc.run(dc.plan(**options), cluster)
    for name in ("manifest.json", "report.html", "parts/part-00002.json", "parts/part-00005.json"):
        (tmp_path / "run" / name).unlink()
    time.sleep(0.01)
    run = report.figures(dc.run(dc.plan(**options, resume=True), cluster))
    assert [block.index for block in run.blocks] == [2, 5] and run.resumed_parts == 8
    assert "8 parts were there from an earlier attempt" in report.html(run)


def test_a_run_without_rows_has_a_page(cluster, tmp_path):
    (tmp_path / "in.csv").write_text("id,a\n")
    result = dc.run(dc.plan(input=tmp_path / "in.csv", output=tmp_path / "run"), cluster)
    assert report.figures(result).blocks == ()
    assert "Bad rows" in Path(result.output, "report.html").read_text()


def test_a_run_of_an_earlier_version_has_no_stages(result):
    old = Manifest({name: value for name, value in result.manifest.items() if name != "stages"})
    assert "kept no times" in report.html(report.figures(dc.Result(result.output, old)))


def test_a_page_that_cannot_be_written_does_not_fail_the_run(command, tmp_path):
    (tmp_path / "run" / "report.html" / "in the way").mkdir(parents=True)
    done = command("--rows", 300, "--slowness", 1, "--output", "run", check=0)
    assert "Warning: report.html was not written" in done.stderr
    command("verify", "run", check=0)


def test_values_show_in_a_notebook(result, tmp_path):
    assert "3,000" in result._repr_html_() and "CLASSIFICATION" in result._repr_html_()
    assert "rows set aside" in result.manifest._repr_html_()
    assert "3,000 generated rows" in dc.plan(rows=3000, output=tmp_path)._repr_html_()
    (tmp_path / "<b>.csv").write_text("id,a\n1,2\n")
    assert "&lt;b&gt;.csv, 9 B" in dc.plan(input=tmp_path / "<b>.csv", output=tmp_path / "run")._repr_html_()
    spec = dc.ClusterSpec.of(image="x/y:1", workers=3, tag=["team=data"], deadline="90m")
    assert all(words in spec._repr_html_() for words in ("x/y:1", "team=data", "1h30m00s"))
