"""The contract of a classifier, and how its code reaches the processes."""

import os
import sys
from pathlib import Path

import classifiers as known
import pandas as pd
import pytest
from generated_csv import csv_of
from reference import reference

import dask_classifier as dc
from dask_classifier.classifier import bundle
from dask_classifier.errors import BlocksFailed, UsageError, WrongAnswer

EXAMPLES = Path(__file__).parents[2] / "examples"


def classified(cluster, folder, classifier, rows=250, **options):
    return dc.run(dc.plan(rows=rows, output=folder / "run", classifier=classifier, block_rows=100, **options), cluster)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("series", [len(line.split(b",")[1]) for line in csv_of(250).splitlines()[1:]]),
        ("numbered_series", [n % 100 for n in range(250)]),
        ("array", [n % 100 / 3 for n in range(250)]),
    ],
)
def test_a_value_for_each_row_becomes_the_column_classification(cluster, tmp_path, classifiers, name, values):
    result = classified(cluster, tmp_path, classifiers(name))
    assert result.columns[-1] == "CLASSIFICATION"
    assert result.to_pandas().CLASSIFICATION.tolist() == values


def test_a_class_is_made_once_in_each_process(cluster, tmp_path, classifiers, monkeypatch):
    monkeypatch.setenv(
        "TEST_MEMORY", str(tmp_path / "memory")
    )  # and processes have their worker's environment of the day
    result = classified(cluster, tmp_path, classifiers("Loaded"), rows=1000)
    made = (tmp_path / "memory").read_text().split()
    assert len(made) == len(set(made)) <= 2
    assert set(result.to_pandas().PID.astype(str)) <= set(made)
    assert len(result.receipts) == 10


def test_a_classifier_may_change_its_chunk_even_when_it_fails_then(cluster, tmp_path, classifiers):
    result = classified(cluster, tmp_path, classifiers("changes_its_chunk"), max_bad=1)
    frame = result.to_pandas()
    assert frame.SKU.unique().tolist() == ["overwritten"] and len(frame) == 249
    assert result.quarantined().row.tolist() == [14]


def test_what_a_classifier_prints_is_talk_and_not_data(tmp_path, classifiers, command):
    done = command("--rows", 200, "--classifier", classifiers("prints"), "--output", "run", "--json", check=0)
    assert "a black box that talks" in done.stderr
    assert done.stdout.startswith("{") and "talks" not in done.stdout


def test_local_modules_packages_and_files_travel(tmp_path, cluster):
    """The code is looked for where the file was, not where the workers are; its folder is gone when they run."""
    home = tmp_path / "home"
    (home / "pkg/deep").mkdir(parents=True)
    (home / "pkg/__init__.py").write_text("")
    (home / "pkg/deep/__init__.py").write_text("from . import inner\n")
    (home / "pkg/deep/inner.py").write_text("from pkg.sibling import ADD\n")
    (home / "pkg/sibling.py").write_text("ADD = 10\n")
    (home / "helper.py").write_text("import pkg.deep\n")
    (home / "table.txt").write_text("32")
    (home / "not-needed.py").write_text("raise SystemExit\n")
    (home / "my-classifier.py").write_text(
        "import pathlib, helper\n"
        "N = int(pathlib.Path(__file__).with_name('table.txt').read_text()) + helper.pkg.deep.inner.ADD\n"
        "def f(df): return [N] * len(df)\n"
    )
    plan = dc.plan(
        rows=150, output=tmp_path / "run", classifier=f"{home}/my-classifier.py:f", with_file=[home / "table.txt"]
    )
    files = set(plan.package.files)
    assert files == {
        "my-classifier.py",
        "helper.py",
        "table.txt",
        *(f"pkg/{n}" for n in ("__init__.py", "sibling.py", "deep/__init__.py", "deep/inner.py")),
    }
    home.rename(tmp_path / "elsewhere")
    assert dc.run(plan, cluster).to_pandas().CLASSIFICATION.unique().tolist() == [42]


def test_a_module_in_the_current_folder_is_found_as_python_would(tmp_path, command):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/__init__.py").write_text("")
    (tmp_path / "mine/deep.py").write_text("from .value import V\ndef f(df): return [V] * len(df)\n")
    (tmp_path / "mine/value.py").write_text("V = 5\n")
    command("--rows", 50, "--classifier", "mine.deep:f", "--output", "run", check=0)
    assert dc.open_run(tmp_path / "run").to_pandas().CLASSIFICATION.unique().tolist() == [5]


@pytest.mark.parametrize("inline", [False, True])
def test_a_new_version_of_a_file_is_used_by_the_next_run(tmp_path, cluster, inline):
    code = tmp_path / "mine.py"
    for value in (1, 22):
        code.write_text(f"def f(df): return [{value}] * len(df)\n")
        plan = dc.plan(rows=50, output=tmp_path / f"{value}", classifier=f"{code}:f")
        result = dc.run(plan, None if inline else cluster)
        assert result.to_pandas().CLASSIFICATION.unique().tolist() == [value]


def test_callables_travel_by_value(cluster, tmp_path, monkeypatch):
    add = 7
    result = dc.run(dc.plan(rows=50, output=tmp_path / "a", classifier=lambda df: [add] * len(df)), cluster)
    assert result.to_pandas().CLASSIFICATION.unique().tolist() == [7]
    dc.run(dc.plan(rows=50, output=tmp_path / "b", classifier=known.lengths), cluster)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "far_helper.py").write_text("def seven(): return 7\n")
    (tmp_path / "near.py").write_text("import far_helper\ndef f(df): return [far_helper.seven()] * len(df)\n")
    import near

    plan = dc.plan(rows=50, output=tmp_path / "d", classifier=near.f)
    (tmp_path / "far_helper.py").unlink()
    (tmp_path / "near.py").unlink()
    assert dc.run(plan, cluster).to_pandas().CLASSIFICATION.unique().tolist() == [7]
    result = dc.run(dc.plan(rows=50, output=tmp_path / "c", classifier=known.lengths), "inline")
    assert len(result.to_pandas()) == 50


def test_a_script_without_a_main_guard_and_a_function_of_its_own(tmp_path):
    """Dask and multiprocessing would run such a script again in each child."""
    import subprocess

    (tmp_path / "script.py").write_text(
        "import dask_classifier as dc\n"
        "print('once')\n"
        "def f(df): return [1] * len(df)\n"
        "with dc.LocalCluster(2, dashboard_address='127.0.0.1:0') as cluster:\n"
        "    print(dc.run(dc.plan(rows=200, output='run', classifier=f, block_rows=100), cluster))\n"
    )
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("once") == 1 and "200 rows" in done.stdout


def test_the_digest_follows_the_code():
    first = bundle.create(f"{known.__file__}:lengths")
    assert first.digest == bundle.create(f"{known.__file__}:series").digest
    assert first.digest != bundle.create("blackbox").digest
    assert first.digest != bundle.create(f"{known.__file__}:lengths", (__file__,)).digest


def test_the_example_with_scikit_learn(tmp_path, command):
    import subprocess

    import joblib
    import pandas as pd

    subprocess.run([sys.executable, EXAMPLES / "train.py", tmp_path], check=True, timeout=600)
    command(
        "--input", tmp_path / "reviews.csv", "--classifier", EXAMPLES / "sentiment.py:Sentiment",
        "--with-file", tmp_path / "sentiment.joblib", "--output", "run", check=0,
    )  # fmt: skip
    text = (tmp_path / "reviews.csv").read_bytes()
    assert text.count(b"\n") == 2001, "a header, and 1,000 rows of two lines each"

    def classify(df):
        model = joblib.load(tmp_path / "sentiment.joblib")
        probabilities = model.predict_proba(df["text"].tolist())
        return df.assign(SENTIMENT=model.classes_[probabilities.argmax(axis=1)], CERTAINTY=probabilities.max(axis=1))

    command("fetch", "run", "all.csv", "--no-header", check=0)
    mine = pd.read_csv(tmp_path / "all.csv", header=None)
    import io

    theirs = pd.read_csv(io.BytesIO(reference(text, classify)), header=None)
    pd.testing.assert_frame_equal(mine, theirs)
    assert mine[3].nunique() == 2 and os.path.getsize(tmp_path / "sentiment.joblib") > 0


@pytest.mark.parametrize("inline", [True, False])
def test_text_that_is_not_unicode_is_a_wrong_answer(cluster, tmp_path, inline):
    code = tmp_path / "mine.py"
    code.write_text("def f(df):\n    return ['\\udcff'] * len(df)\n")
    with pytest.raises(WrongAnswer, match=r"answer to .* is wrong: it contains text that is not Unicode"):
        dc.run(dc.plan(rows=10, output=tmp_path / "run", classifier=f"{code}:f"), None if inline else cluster)


@pytest.mark.parametrize("kind", ["Int64", "Float64", "int64"])
def test_what_a_classifier_changes_in_place_does_not_reach_other_calls(tmp_path, kind, run_bytes):
    """Neither the smaller chunks in which a bad row is looked for, nor the source's own columns."""
    (tmp_path / "in.csv").write_text("id,n\na,1\nb,2\nbad,3\nc,4\n")

    def classify(chunk):
        column = chunk["n"].array if kind == "int64" else chunk["n"].values
        column[:] = column * 100
        if (chunk.index == "bad").any():
            raise ValueError("a bad row")
        return [int(value) for value in column]

    plan = dc.plan(tmp_path / "in.csv", classify, tmp_path / "run", dtype={"n": kind}, max_bad=1)
    assert dc.run(plan, "inline").bad_rows == 1
    shown = "{}.0" if kind == "Float64" else "{}"
    lines = [f"{name},{shown.format(n)},{100 * n}\n" for name, n in (("a", 1), ("b", 2), ("c", 4))]
    assert run_bytes(tmp_path / "run").decode() == "".join(lines)


def test_files_of_one_name_are_not_mixed_up(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "table.csv").write_text(folder)
        (tmp_path / folder / "mine.py").write_text(f"def f(chunk):\n    return ['{folder}'] * len(chunk)\n")
    options = {"rows": 10, "output": tmp_path / "run"}
    code = f"{tmp_path}/one/mine.py:f"
    for extra in (["one/table.csv", "two/table.csv"], ["two/mine.py"]):
        with pytest.raises(UsageError, match="Two files that are sent with the classifier are named"):
            dc.plan(**options, classifier=code, with_file=[str(tmp_path / name) for name in extra])
    same = [str(tmp_path / "two" / "table.csv")] * 2
    dc.plan(**options, classifier=code, with_file=same)


def test_a_file_named_like_a_module_of_python_is_refused(tmp_path):
    """Classifier processes have that module, and would call something else."""
    (tmp_path / "random.py").write_text("def choice(chunk):\n    return [0] * len(chunk)\n")
    (tmp_path / "mine.py").write_text("import calendar\n\ndef f(chunk):\n    return [0] * len(chunk)\n")
    (tmp_path / "calendar.py").write_text("x = 1\n")
    (tmp_path / "email").mkdir()
    (tmp_path / "email/__init__.py").write_text("x = 1\n")
    (tmp_path / "other.py").write_text("import email\n\ndef f(chunk):\n    return [0] * len(chunk)\n")
    for name in ("random.py:choice", "mine.py:f", "other.py:f"):
        with pytest.raises(UsageError, match=r"has the name of a module of Python itself"):
            dc.plan(rows=10, output=tmp_path / "run", classifier=f"{tmp_path}/{name}")


ONCE = """
import os

class Once:
    def __init__(self):
        os.mkdir(os.environ["ONCE"])  # fails in all processes but the first

    def __call__(self, chunk):
        return [os.getpid()] * len(chunk)
"""


def test_a_classifier_that_cannot_be_loaded_again_is_no_wrong_usage(tmp_path, monkeypatch):
    """A process that replaces another one fails: what is done is kept, and the exit code is that of a failed run."""
    monkeypatch.setenv("ONCE", str(tmp_path / "loaded"))
    (tmp_path / "once.py").write_text(ONCE)
    options = {"rows": 1000, "output": tmp_path / "run", "block_rows": 100, "renew_after": 3}
    plan = dc.plan(**options, classifier=f"{tmp_path}/once.py:Once")
    with dc.LocalCluster(1, dashboard_address="127.0.0.1:0") as cluster, pytest.raises(BlocksFailed) as caught:
        dc.run(plan, cluster)
    assert caught.value.exit_code == 1 and "could not load the classifier" in caught.value.message
    assert len(list((tmp_path / "run/parts").glob("*.json"))) >= 2


def test_columns_that_differ_between_blocks_end_the_run_at_once(tmp_path):
    """And not only when all others are done."""
    (tmp_path / "in.csv").write_text("id,x\n" + "".join(f"{row},{row // 100}\n" for row in range(1000)))
    calls = []

    def dummies(chunk):
        calls.append(len(chunk))
        return pd.get_dummies(chunk["x"])

    plan = dc.plan(tmp_path / "in.csv", dummies, tmp_path / "run", block_rows=100)
    with pytest.raises(WrongAnswer, match="answer to block 1 has the columns id, 1, and others have id, 0"):
        dc.run(plan, "inline")
    assert sum(calls) < 400


@pytest.mark.parametrize("index", ["id", "CLASSIFICATION"])
def test_a_column_of_the_source_is_not_replaced_by_the_classification(tmp_path, index):
    """Such as in the result of an earlier run."""
    (tmp_path / "in.csv").write_text("id,CLASSIFICATION\n1,old\n")
    options = {"input": tmp_path / "in.csv", "output": tmp_path / "run", "index": index}
    with pytest.raises(WrongAnswer, match="a column CLASSIFICATION, and the source already has one"):
        dc.run(dc.plan(classifier=lambda chunk: [1] * len(chunk), **options), "inline")
    other = dc.plan(classifier=lambda chunk: chunk.assign(KIND="new"), **options, overwrite=True)
    assert set(dc.run(other, "inline").columns) == {"id", "CLASSIFICATION", "KIND"}


def test_ids_are_written_as_they_were_read_whatever_type_an_answer_has_them_in(tmp_path, run_bytes):
    (tmp_path / "in.csv").write_text("id,x\n1,2\n3,4\n")

    def merged(chunk):
        return chunk.assign(y=1).set_axis(chunk.index.astype(float))

    dc.run(dc.plan(tmp_path / "in.csv", merged, tmp_path / "run", dtype="id=int64"), "inline")
    assert run_bytes(tmp_path / "run") == b"1,2,1\n3,4,1\n"


def test_reasons_have_no_addresses_of_objects(tmp_path):
    """They differ from process to process, and so would the quarantine file of a block that is classified twice."""

    def refuse(chunk):
        raise ValueError(object())

    (tmp_path / "in.csv").write_text("id,x\n1,2\n")
    result = dc.run(dc.plan(tmp_path / "in.csv", refuse, tmp_path / "run", max_bad="100%"), "inline")
    assert "<object object at 0x…>" in result.quarantined()["reason"].iloc[0]
