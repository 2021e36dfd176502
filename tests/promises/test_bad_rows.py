"""Rows that cannot be parsed or classified."""

import shutil

import classifiers as known
import pytest
from reference import reference

import dask_classifier as dc
from dask_classifier.errors import (
    TooManyBadRows,
)

MALFORMED = b'id,a,b\n1,x,y\n2,x,y,z\n3,x,y\n4,\xff,y\n5,x,y,z,z\n6,x,"y\nBAD"\n7,x,y\n8,x,"not closed\n9,x,y\n'


def test_bad_rows_are_set_aside_with_reasons(cluster, tmp_path, run_bytes, classifiers):
    file = tmp_path / "in.csv"
    file.write_bytes(MALFORMED)
    plan = dc.plan(
        input=file,
        output=tmp_path / "run",
        classifier=classifiers("fails_on_bad"),
        max_bad=5,
        block_rows=2,
        chunk_rows=2,
    )
    result = dc.run(plan, cluster)
    good = b"id,a,b\n1,x,y\n3,x,y\n7,x,y\n"
    assert run_bytes(tmp_path / "run") == reference(good, known.lengths)
    assert (result.rows, result.bad_rows, result.manifest["rows_in"]) == (3, 5, 8)
    bad = result.quarantined()
    assert bad.source.unique().tolist() == [str(file)]
    bad["reason"] = bad.reason.str.replace(r" \(classifiers.py:\d+, in fails_on_bad: raise .*\)$", "", regex=True)
    assert bad[["row", "reason", "raw"]].values.tolist() == [
        [2, "4 fields, but the header has 3", "2,x,y,z"],
        [4, "not valid utf-8: invalid start byte", "4,\\xff,y"],
        [5, "5 fields, but the header has 3", "5,x,y,z,z"],
        [6, "ValueError: there is a BAD one", '6,x,"y\nBAD"'],
        [8, "a quote is not closed", '8,x,"not closed\n9,x,y'],
    ]
    result.verify()


@pytest.mark.parametrize("blocks", [1000, 10_000])
def test_a_bad_row_costs_only_itself(cluster, tmp_path, run_bytes, classifiers, blocks):
    rows = [b"%d,%s\n" % (i, b"BAD" if i in {3, 5555, 9999} else b"x") for i in range(10_000)]
    file = tmp_path / "in.csv"
    file.write_bytes(b"id,a\n" + b"".join(rows))
    plan = dc.plan(
        input=file, output=tmp_path / "run", classifier=classifiers("fails_on_bad"), max_bad="0.03%", block_rows=blocks
    )
    result = dc.run(plan, cluster)
    good = b"id,a\n" + b"".join(row for row in rows if b"BAD" not in row)
    assert run_bytes(tmp_path / "run") == reference(good, known.lengths)
    assert result.quarantined().row.tolist() == [4, 5556, 10_000]


def test_without_leave_the_run_stops_at_the_first_bad_row_and_names_it(cluster, tmp_path, classifiers):
    for text, where in ((b"id,a\n1,x\n2,BAD\n", "row 2"), (b"id,a\n" + b"1,x\n" * 5000 + b"2,BAD\n", "row 5,001")):
        file = tmp_path / "in.csv"
        file.write_bytes(text)
        plan = dc.plan(input=file, output=tmp_path / "run", classifier=classifiers("fails_on_bad"), block_rows=1000)
        place = r"\(classifiers.py:\d+, in fails_on_bad: raise ValueError\(.*\)\)"
        with pytest.raises(
            TooManyBadRows, match=rf"{where} of .*in.csv: ValueError: there is a BAD one {place}: '2,BAD'"
        ) as error:
            dc.run(plan, cluster)
        assert error.value.exit_code == 3
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
