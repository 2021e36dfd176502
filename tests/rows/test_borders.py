"""Rows are found exactly: pandas itself is the judge."""

import io
import itertools

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dask_classifier as dc
from dask_classifier.rows.borders import marks_of, scan, survey
from dask_classifier.rows.layouts import READ_TEXT

# CR alone ends a row too, but pandas loses empty fields after it (a row "\\r," gives no row): it has a known text below
SOUP = st.lists(st.sampled_from(["a", ",", '"', '""', "\n", "\r\n", " ", "\t", ";", "é"]), max_size=30).map("".join)


def fields(text, delimiter=","):
    """The rows of `text` as pandas sees them, or None where it refuses."""
    if not text:
        return []
    wide = delimiter.join("x" * 60) + "\n"  # a first row that is wider than any other, so that none is too long
    try:
        frame = pd.read_csv(
            io.StringIO(wide + text),
            header=None,
            dtype=str,
            keep_default_na=False,
            na_filter=False,
            sep=delimiter,
            skip_blank_lines=True,
        )
    except pd.errors.ParserError:
        return None
    return frame.iloc[1:].values.tolist()


def rows_by_scan(text, delimiter=","):
    data = text.encode()
    starts = [*scan(data, delimiter).starts.tolist(), len(data)]
    return [data[a:b].decode() for a, b in itertools.pairwise(starts)]


@settings(max_examples=300, deadline=None)
@given(SOUP, st.sampled_from([",", ";", "\t"]))
def test_the_rows_of_any_text_are_those_of_pandas(text, delimiter):
    expected = fields(text, delimiter)
    if expected is None:  # a quote that is never closed: the whole text is refused, so there is nothing to compare
        return
    alone = [fields(row, delimiter) for row in rows_by_scan(text, delimiter)]
    assert [row for rows in alone for row in rows] == expected
    assert all(len(row) == 1 for row in alone)


@settings(max_examples=300, deadline=None)
@given(SOUP, st.integers(1, 12), st.integers(1, 30))
def test_pieces_scanned_apart_give_the_rows_of_the_whole(text, size, spacing):
    data = text.encode()
    whole = scan(data).starts.tolist()
    cuts, at = [0], 0
    while (at := data.find(b"\n", max(at, cuts[-1] + size - 1)) + 1) > 0:
        cuts.append(at)
    cuts = [*[cut for cut in cuts if cut < len(data)], len(data)]
    pieces = [survey(data[a:b], a, ",", spacing) for a, b in itertools.pairwise(cuts)]
    *marks, (end, rows) = marks_of(pieces)
    assert (end, rows) == (-1, len(whole))
    assert marks == [(whole[before], before) for _, before in marks]
    assert not whole or marks[0] == (whole[0], 0)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("", 0), ("\n\n", 0), ("a", 1), ("a\n", 1), ("a\r\nb\r\n", 2), ("a\rb", 2), ('"a\nb"\nc', 2), ('"a""\n"\nc', 2),
        ('5" pipe\nb"\n', 2), ('"a"b"\nc\n', 2), ("  \n\t\nx", 1), ('"a,\n', 1), ('""\n""', 2), ('x,"\n"\ny', 2),
        ('"a,"\nb', 2),
    ],
)  # fmt: skip
def test_known_texts(text, rows):
    assert len(rows_by_scan(text)) == rows


def test_a_delimiter_after_a_blank_line_that_ends_in_a_lone_cr_begins_a_field(tmp_path):
    """The second exception to the promise about bytes, as docs/decisions.md has it."""
    text = b"id,t\r\r,a\r2,b\r"
    (tmp_path / "in.csv").write_bytes(text)
    made = dc.plan(input=tmp_path / "in.csv", output=tmp_path / "run", classifier=lambda chunk: chunk)
    assert dc.run(made, "inline").to_pandas().reset_index().to_numpy().tolist() == [["", "a"], ["2", "b"]]
    assert pd.read_csv(io.BytesIO(text), **READ_TEXT).to_numpy().tolist() == [["a", ""], ["2", "b"]]
