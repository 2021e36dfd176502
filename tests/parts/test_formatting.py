"""The short cuts of reading and writing give the bytes and the frames that pandas gives."""

import io
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dask_classifier.classifier.contract import check_answer
from dask_classifier.errors import WrongAnswer
from dask_classifier.parts import csv_text
from dask_classifier.rows import chunks
from dask_classifier.rows.borders import Rows
from dask_classifier.rows.layouts import READ_TEXT, Layout, read_header

LAYOUT = Layout(columns=("ID", "NAME", "TEXT"))
TEXTS = st.text(st.characters(blacklist_categories=["Cs"]), max_size=6) | st.sampled_from(
    [
        "",
        " ",
        "a,b",
        'say "x"',
        '"',
        '"a"',
        '"a""b"',
        '"a,b"',
        "\n",
        "\r",
        "x\r\ny",
        "\0",
        "\u2028",
        "ä",
        "nan",
        "007",
        "#",
        "\ufeff",
    ]
)
VALUES = {
    "float64": st.floats() | st.sampled_from([1e16, 1e-5, 1e22, 0.1 + 0.2, -0.0, 5e-324, 123456789.125]),
    "float32": st.floats(width=32),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "uint64": st.integers(0, 2**64 - 1),
    "int8": st.integers(-128, 127),
    "bool": st.booleans(),
    "str": TEXTS | st.none(),
    "object": TEXTS | st.none() | st.integers() | st.floats(),
    "datetime64[us]": st.datetimes(pd.Timestamp("1900-01-01"), pd.Timestamp("2100-01-01")),
    "Int64": st.integers(-(2**63), 2**63 - 1) | st.none(),
    "UInt64": st.integers(0, 2**64 - 1) | st.none(),
    "Float64": st.floats(allow_nan=False) | st.none(),
    "boolean": st.booleans() | st.none(),
    "int64[pyarrow]": st.integers(-(2**63), 2**63 - 1) | st.none(),
    "bool[pyarrow]": st.booleans() | st.none(),
    "category": TEXTS | st.none() | st.integers(),
}


def parsed(rows, layout=LAYOUT, end="\n"):
    text = end.join(layout.delimiter.join(row) for row in rows) + end
    return chunks.parse(Rows.of(text.encode(layout.encoding), layout.delimiter), layout)


def plain_rows(count):
    return [(str(row), f"name {row}", "ä" * (row % 3)) for row in range(count)]


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_answers_are_written_as_to_csv_writes_them_chunk_by_chunk(data):
    block = parsed(plain_rows(data.draw(st.integers(1, 9))))
    assert block.plain
    kinds = data.draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=3))
    how = data.draw(st.sampled_from(["frame", "series", "array", "list"]))
    header = data.draw(st.booleans())
    answers, expected = [], ""
    for number, chunk in enumerate(chunks.cut(block, 4)):
        size = {"min_size": len(chunk.frame), "max_size": len(chunk.frame)}
        columns = [
            pd.Series(data.draw(st.lists(VALUES[kind], **size)), index=chunk.frame.index, dtype=kind) for kind in kinds
        ]
        values = {"series": columns[0], "array": columns[0].to_numpy(), "list": columns[0].tolist()}
        if how == "frame":
            answer = frame = chunk.frame.assign(**{f"C{n}": column for n, column in enumerate(columns)})
        else:
            answer = values[how]
            frame = chunk.frame.assign(CLASSIFICATION=answer)
        answers.append(check_answer(chunk.frame, answer))
        expected += frame.to_csv(header=header and number == 0, lineterminator="\n")
    frames = csv_text.as_frames(answers, block)
    assert csv_text.to_csv(frames, block, header=header) == expected.encode()


BUFFER, FRAME = np.empty(4), pd.DataFrame({"C": np.empty(4)})


def reuses_its_array(chunk):
    return np.multiply(chunk["NAME"].str.len(), float(chunk.index[0]), out=BUFFER[: len(chunk)])


def reuses_its_frame(chunk):
    FRAME["C"] = float(chunk.index[0])
    FRAME.index = chunk.index
    return FRAME


def masks(chunk):
    return np.ma.array(np.arange(len(chunk)) * 1.5, mask=np.arange(len(chunk)) % 2)


def has_attributes(chunk):
    frame = chunk.assign(C=0.5)
    frame.attrs["array"] = np.arange(3)
    return frame.set_flags(allows_duplicate_labels=False)


def is_categorical(chunk):
    return pd.Series(["a", "b"] * 2, index=chunk.index, dtype="category")


def has_the_column(chunk):
    return chunk.rename(columns={"TEXT": "CLASSIFICATION"}).assign(CLASSIFICATION=[1.5] * len(chunk))


@pytest.mark.parametrize(
    "classify", [reuses_its_array, reuses_its_frame, masks, has_attributes, is_categorical, has_the_column]
)
def test_whatever_a_classifier_does_with_its_answer_afterwards(classify):
    """Its answer to each chunk is written as it was when it was given."""
    block = parsed([(str(row % 6), f"name {row}", "x") for row in range(1, 13)])
    answers, expected = [], ""
    for chunk in chunks.cut(block, 4):
        answer = classify(chunk.frame)
        answers.append(check_answer(chunk.frame, answer))
        frame = answer if isinstance(answer, pd.DataFrame) else chunk.frame.assign(CLASSIFICATION=answer)
        expected += frame.to_csv(header=False, lineterminator="\n")
    written = csv_text.to_csv(csv_text.as_frames(answers, block), block, header=False)
    assert written.decode() == expected


def test_text_that_is_not_unicode_is_a_wrong_answer():
    block = parsed(plain_rows(2))
    surrogates = pd.array(["\ud800"] * 2, dtype=pd.StringDtype("python", na_value=np.nan))
    for answer in (surrogates, block.frame.assign(C=pd.Series(surrogates, index=block.frame.index))):
        with pytest.raises(WrongAnswer, match="not Unicode"):
            csv_text.to_csv(csv_text.as_frames([check_answer(block.frame, answer)], block), block, header=False)


@pytest.mark.parametrize("change", ["other text", "a column less", "another order", "no new column", "index renamed"])
def test_a_frame_that_is_not_the_rows_with_more_columns_is_not_taken_for_them(change):
    block = parsed(plain_rows(6))
    frame = block.frame.assign(C=1.5)
    changed = {
        "other text": lambda: frame.assign(NAME=["x", *frame["NAME"][1:]]),
        "a column less": lambda: frame[["TEXT", "C"]],
        "another order": lambda: frame[["TEXT", "NAME", "C"]],
        "no new column": lambda: frame[["NAME", "TEXT"]],
        "index renamed": lambda: frame.rename_axis("KEY"),
    }[change]()
    assert csv_text.to_csv([changed], block, header=True).decode() == changed.to_csv(lineterminator="\n")


def test_the_short_cut_is_taken_where_it_can_be(monkeypatch):
    """And only there: a row with quotes goes through `to_csv`."""
    called = []
    monkeypatch.setattr(csv_text, "_csv", lambda frame, **options: called.append(len(frame)) or b"")
    for rows, by_pandas in ((plain_rows(6), []), ([("1", '"a,b"', "x")], [1])):
        block = parsed(rows)
        answers = [check_answer(chunk.frame, [0.5] * len(chunk.frame)) for chunk in chunks.cut(block, 4)]
        called.clear()
        csv_text.to_csv(csv_text.as_frames(answers, block), block, header=False)
        assert called == by_pandas


@pytest.mark.parametrize(
    "text", ['1,"a",b\n', "1,a,b\r\n", '1,"a\nb",c\n', "1,a,b\r2,c,d\n", "1,a,b\n\n2,c,d\n", "1,a,b"]
)
def test_rows_whose_text_is_not_what_to_csv_writes_are_not_copied(text):
    block = chunks.parse(Rows.of(text.encode(), ","), LAYOUT)
    answers = [check_answer(block.frame, [0.5] * len(block.frame))]
    written = csv_text.to_csv(csv_text.as_frames(answers, block), block, header=False)
    assert written.decode() == block.frame.assign(CLASSIFICATION=0.5).to_csv(header=False, lineterminator="\n")


@given(
    rows=st.lists(st.lists(TEXTS, min_size=2, max_size=4), min_size=1, max_size=6),
    delimiter=st.sampled_from([",", ";", "\t", " "]),
    end=st.sampled_from(["\n", "\r\n"]),
)
@example(rows=[["1", "a", "b"], ["2", "c", "d"]], delimiter=",", end="\n")
@example(rows=[["\ufeff1", "a", "b"]], delimiter=",", end="\n")
@example(rows=[["1", "a", " "], ["", " ", ""]], delimiter=",", end="\n")
@settings(max_examples=300, deadline=None)
def test_plain_text_is_parsed_as_pandas_parses_it(rows, delimiter, end):
    block = parsed(rows, Layout(delimiter=delimiter, columns=LAYOUT.columns), end)
    if block.plain:
        by_pandas = chunks._parse(block.rows, 0, len(block.rows), block.layout)
        pd.testing.assert_frame_equal(block.frame, by_pandas)
        assert repr(block.frame.iloc[0]) == repr(by_pandas.iloc[0])  # what a black box may look at


def test_text_that_is_no_utf8_is_left_to_pandas():
    rows = Rows.of(b"1,\xff,b\n", ",")
    assert chunks.parse(rows, LAYOUT).frame is None
    latin = chunks.parse(rows, Layout(columns=LAYOUT.columns, encoding="latin-1"))
    assert latin.frame["NAME"].tolist() == ["ÿ"] and not latin.plain


@given(st.lists(st.text("aB 0_.:()%+-/äß#", max_size=4), min_size=1, max_size=4), st.booleans())
@example(["a", "b c", "(d)"], True)
@example(["a", "a"], True)
@example(["a", "", "b"], True)
@settings(max_examples=200, deadline=None)
def test_names_of_columns_are_those_that_pandas_gives(names, header_row):
    first = ",".join(names).encode() + b"\n"
    if first.strip():
        by_pandas = pd.read_csv(io.BytesIO(first), header=0 if header_row else None, **READ_TEXT).columns
        assert read_header(first, Layout(header_row=header_row), "a file")[1] == tuple(by_pandas)


# --- what a command's own process does without -----------------------------------------------------------


def test_a_run_imports_neither_pandas_nor_bokeh_in_the_commands_process(tmp_path):
    """Each is half a second of every run's start; classifier processes have pandas from their forkserver.

    pyarrow comes in at the end, in a tenth of a second, to read the samples of the report.
    """
    code = (
        "import sys\n"
        "from dask_classifier.cli.app import app\n"
        f"app(['--rows', '300', '--workers', '1', '--output', {str(tmp_path / 'run')!r}], standalone_mode=False)\n"
        "print([name for name in ('pandas', 'pyarrow', 'bokeh', 'distributed') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout.splitlines()[-1] == "['pyarrow', 'distributed']"
    assert (tmp_path / "run" / "manifest.json").exists()


def test_the_dashboard_is_made_when_it_is_first_looked_at():
    code = (
        "import logging, sys, urllib.request\n"
        "from dask_classifier import LocalCluster\n"
        # on a busy machine, Dask logs at level INFO that a worker has closed its connection first
        "logging.getLogger('distributed.batched').setLevel(logging.ERROR)\n"
        "with LocalCluster(1, dashboard_address='127.0.0.1:0') as cluster:\n"
        "    base = cluster.dashboard_link.removesuffix('/status')\n"
        "    assert urllib.request.urlopen(base + '/health').read() == b'ok'\n"
        "    assert 'bokeh' not in sys.modules\n"
        "    class Stay(urllib.request.HTTPRedirectHandler):\n"
        "        def redirect_request(self, *args): return None\n"
        "    try:\n"
        "        urllib.request.build_opener(Stay).open(base + '//elsewhere.example/x')\n"
        "    except urllib.error.HTTPError as error:\n"
        "        print(error.headers['Location'])\n"
        "    for page in ('/workers', '/status', '/'):\n"
        "        print(urllib.request.urlopen(base + page).url.removeprefix(base))\n"
        "    cluster.scale(2)\n"
        "    cluster.wait_for_workers(2, timeout=300)\n"
        "    for worker in cluster.workers.values():\n"
        "        print(urllib.request.urlopen(f'http://127.0.0.1:{worker.http_server.port}/status').status)\n"
        "    try:\n"
        "        urllib.request.urlopen(base + '/nothing')\n"
        "    except urllib.error.HTTPError as error:\n"
        "        print(error.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout.split() == ["/elsewhere.example/x", "/workers", "/status", "/status", "200", "200", "404"]
    assert not done.stderr
