"""Classifiers whose answers do not fit, or that cannot be used."""

import pytest

import dask_classifier as dc
from dask_classifier.errors import (
    UsageError,
    WrongAnswer,
)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("too_few", "answer to rows 1 to 10 .*: it returned 9 rows for a chunk of 10"),
        ("other_order", "rows 1 to 10 .*: row 1 of its answer has the index '9' instead of '0'"),
        ("too_many_values", "rows 1 to 10 .*: it returned 11 values for 10 rows"),
        ("nothing", "rows 1 to 10 .*: it returned nothing"),
        ("fails_always", "every row of the first chunk: KeyError: 'NO_SUCH_COLUMN'"),
        ("exits", "every row of the first chunk: SystemExit: 3"),
    ],
)
def test_wrong_answers_stop_the_run_before_anything_is_written(cluster, tmp_path, classifiers, name, reason):
    with pytest.raises(WrongAnswer, match=reason):
        dc.run(dc.plan(rows=200, output=tmp_path / "run", classifier=classifiers(name)), cluster)
    assert not (tmp_path / "run").exists()


def test_a_wrong_answer_in_the_middle_names_its_chunk(cluster, tmp_path):
    code = tmp_path / "mine.py"
    code.write_text("def f(df): return df if '2550' not in df.index else df.iloc[1:]\n")
    with pytest.raises(
        WrongAnswer, match=r"chunk 26 \(first row's index '2500'\) is wrong: it returned 99 rows for a chunk of 100"
    ):
        dc.run(dc.plan(rows=4000, output=tmp_path / "run", classifier=f"{code}:f", block_rows=1000), cluster)


def test_columns_that_change_from_chunk_to_chunk(cluster, tmp_path, classifiers):
    with pytest.raises(
        WrongAnswer, match=r"answer to chunk 2 \(.*\) is wrong: its columns changed from ID, .*, C0 to ID, .*, C100\."
    ):
        dc.run(
            dc.plan(rows=400, output=tmp_path / "a", classifier=classifiers("other_columns"), block_rows=400), cluster
        )
    with pytest.raises(WrongAnswer, match=r"answer to block \d has the columns ID, .*, C\d+, and others have"):
        dc.run(
            dc.plan(rows=400, output=tmp_path / "b", classifier=classifiers("other_columns"), block_rows=100), cluster
        )
    assert not (tmp_path / "b/manifest.json").exists()


def test_unusable_classifiers_are_wrong_usage_and_nothing_is_written(cluster, tmp_path):
    code = tmp_path / "mine.py"
    code.write_text("import not_installed\ndef f(df): return df\n")
    (tmp_path / "broken.py").write_text("def f(df:\n")
    (tmp_path / "fine.py").write_text("def f(df): return df\nx = 3\n")
    for classifier, match in [
        ("mine", "is not a classifier"),
        ("no_such_module:f", "Cannot find the module"),
        (f"{tmp_path}/none.py:f", "Cannot find the classifier's file"),
        (f"{tmp_path}/broken.py:f", "is not valid Python"),
        (f"{code}:f", "ModuleNotFoundError"),
        (f"{tmp_path}/fine.py:g", "module fine has no attribute 'g'"),
        (f"{tmp_path}/fine.py:x", "is not callable"),
    ]:
        with pytest.raises(UsageError, match=match):
            dc.run(dc.plan(rows=10, output=tmp_path / "run", classifier=classifier), cluster)
    assert not (tmp_path / "run").exists()


def test_allowed_bad_rows_are_no_wrong_answer(cluster, tmp_path, classifiers):
    file = tmp_path / "in.csv"
    file.write_bytes(b"id,a\n" + b"".join(b"%d,x\n" % i for i in range(100)) + b"100,BAD\n")
    result = dc.run(
        dc.plan(input=file, output=tmp_path / "run", classifier=classifiers("fails_on_bad"), max_bad=10), cluster
    )
    assert result.bad_rows == 1
    assert result.quarantined().row.tolist() == [101]
