"""Promise 2: the parts are, byte for byte, what a single process with pandas makes."""

import bz2
import gzip
import io
import lzma

import classifiers as known
import pandas as pd
import pytest
import zstandard
from generated_csv import csv_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import black_box, reference

import dask_classifier as dc
from dask_classifier import generate
from dask_classifier.show.figures import figures


@pytest.fixture(scope="module")
def black_box_of_3000():
    return reference(csv_of(3000), black_box)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_generated_rows_on_1_2_and_3_processes(tmp_path, run_bytes, black_box_of_3000, workers):
    with dc.LocalCluster(workers, dashboard_address="127.0.0.1:0") as cluster:
        result = dc.run(dc.plan(rows=3000, output=tmp_path / "run"), cluster)
    assert run_bytes(tmp_path / "run") == black_box_of_3000
    assert len(result.receipts) >= min(8 * workers, 30)
    assert len({receipt.pid for receipt in result.receipts}) == workers


WAITS = """
import os
import pathlib
import time

def classify(chunk):
    here = pathlib.Path({folder!r})
    if here.exists():  # else it is the trial, which has a single process
        (here / str(os.getpid())).touch()
        until = time.monotonic() + 60
        while len(list(here.iterdir())) < 4:
            if time.monotonic() > until:
                os._exit(1)
            time.sleep(0.01)
    return chunk["SKU"].str.len()
"""


def test_all_processes_work_at_the_same_time(tmp_path):
    """Each one waits until four of them are at work."""
    (tmp_path / "waits.py").write_text(WAITS.format(folder=str(tmp_path / "at work")))
    plan = dc.plan(rows=800, output=tmp_path / "run", classifier=f"{tmp_path}/waits.py:classify", block_rows=100)

    class Beginning(dc.Progress):
        def begin(self, *args):
            super().begin(*args)
            (tmp_path / "at work").mkdir()

    with dc.LocalCluster(4, dashboard_address="127.0.0.1:0") as cluster:
        result = dc.run(plan, cluster, progress=Beginning())
    pids = {int(file.name) for file in (tmp_path / "at work").iterdir()}
    assert len(pids) == 4 and pids == {receipt.pid for receipt in result.receipts}


@pytest.mark.parametrize(
    ("block_rows", "chunk_rows"), [(100, 100), (1000, 7), (250, 100), (10_000, 100), (1, 1), (700, 333)]
)
def test_blocks_and_chunks_do_not_matter(cluster, tmp_path, run_bytes, classifiers, block_rows, chunk_rows):
    rows = 1234 if block_rows > 1 else 40
    plan = dc.plan(
        rows=rows,
        seed=5,
        output=tmp_path,
        classifier=classifiers("lengths"),
        block_rows=block_rows,
        chunk_rows=chunk_rows,
    )
    result = dc.run(plan, cluster)
    assert run_bytes(tmp_path) == reference(csv_of(rows, 5), known.lengths)
    whole_chunks = -(-block_rows // chunk_rows) * chunk_rows
    assert {receipt.rows for receipt in result.receipts[:-1]} <= {whole_chunks}


def test_inline_gives_the_same(tmp_path, run_bytes, classifiers):
    dc.run(dc.plan(rows=500, output=tmp_path, classifier=classifiers("lengths")), "inline")
    assert run_bytes(tmp_path) == reference(csv_of(500), known.lengths)


def test_a_black_box_that_seeds_the_global_generator_gives_the_reference_scores(
    cluster, tmp_path, run_bytes, classifiers
):
    plan = dc.plan(rows=20_500, output=tmp_path, classifier=classifiers("seeds_global_random"))
    dc.run(plan, cluster)
    assert run_bytes(tmp_path) == reference(csv_of(20_500), known.seeds_global_random)


def test_generate_writes_what_rows_classifies_and_any_cut_gives_the_same():
    whole = csv_of(1000, seed=3)
    for first, rows in [(0, 1), (999, 1), (123, 456), (0, 1000)]:
        lines = whole.splitlines(keepends=True)[1:][first : first + rows]
        assert generate.csv_rows(3, first, rows) == b"".join(lines)
    frame = pd.read_csv(io.BytesIO(whole))
    assert frame.ID.tolist() == list(range(1000))
    assert frame.SKU.between(1, 100_000).all() and frame.FLUX.between(0, 1, inclusive="left").all()
    assert frame.SKU.nunique() > 950 and abs(frame.FLUX.mean() - 0.5) < 0.05
    assert frame.MANUFACTURER_NAME[7] == "8f14e45fceea167a5a36dedd4bea2543"  # md5 of "7"
    assert (frame.DESCRIPTION.str[:32] == frame.DESCRIPTION.str[32:]).all()
    assert csv_of(1000, seed=4) != whole


HOSTILE = {
    "quotes, commas, line breaks": b'id,a,b\n1,"x, ""y""\nz",2\n2,"\n\n",""\n3,5" pipe,x"y\n4,"a"b,c\n',
    "CRLF": b'id,a\r\n1,x\r\n2,"y\r\nz"\r\n',
    "CR alone": b"id,a\r1,x\r2,y",
    "byte order mark": b"\xef\xbb\xbfid,a\n1,x\n",
    "byte order mark and quotes": b'\xef\xbb\xbf"id","a"\n"1","x"\n',
    "no final newline": b"id,a\n1,x\n2,y",
    "blank lines": b"\n\nid,a\n\n1,x\n  \n\t\n2,y\n\n",
    "one column": b"id\n1\n2\n\n3\n",
    "one column of quotes": b'id\n""\n"a\nb"\n',
    "header only": b"id,a\n",
    "header only, no newline": b"id,a",
    "header over two lines": b'"i\nd",a\n1,x\n',
    "99 rows": b"id,a\n" + b"".join(b"%d,x%d\n" % (i, i) for i in range(99)),
    "100 rows": b"id,a\n" + b"".join(b"%d,x%d\n" % (i, i) for i in range(100)),
    "101 rows": b"id,a\n" + b"".join(b"%d,x%d\n" % (i, i) for i in range(101)),
    "non-ASCII": "id,ä,b\n1,é,日本\n2,\u2028,🎉\n".encode(),
    "values that pandas would change": b"id,a,b\n007,1.50,NA\n1e5,,null\nTrue,-0,  x \n",
    "short rows": b"id,a,b\n1\n2,x\n",
    "columns of the same name, or none": b"id,a,a,\n1,2,3,4\n",
    "the same index twice": b"id,a\n1,x\n1,y\n",
    "CR in values": b'id,a,b\n"1\r","x\ry",z\n2,"a\r\nb","\r"\n',
    "NUL": b"id,a\n1,x\x00y\n2,z\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(cluster, tmp_path, run_bytes, classifiers, name):
    file, text = tmp_path / "in.csv", HOSTILE[name]
    file.write_bytes(text)
    plan = dc.plan(input=file, output=tmp_path / "run", classifier=classifiers("lengths"), block_rows=2, chunk_rows=1)
    result = dc.run(plan, cluster)
    assert run_bytes(tmp_path / "run") == reference(text, known.lengths)
    assert result.bad_rows == 0
    assert result.verify().rows == result.rows == len(result.to_pandas())


def test_an_empty_file_is_a_run_without_rows(cluster, tmp_path, run_bytes):
    (tmp_path / "in.csv").write_bytes(b"")
    result = dc.run(dc.plan(input=tmp_path / "in.csv", output=tmp_path / "run", classifier="blackbox"), cluster)
    assert (result.rows, result.bad_rows, run_bytes(tmp_path / "run")) == (0, 0, b"")
    assert len(result.to_pandas()) == len(result.head()) == 0


@pytest.mark.parametrize(
    ("options", "pandas_options", "text"),
    [
        ({"delimiter": ";"}, {"sep": ";"}, b'id;a\n1;"x;y"\n2;1,5\n'),
        ({"delimiter": "\\t"}, {"sep": "\t"}, b"id\ta\n1\tx y\n \t\n"),
        ({"encoding": "cp1252"}, {"encoding": "cp1252"}, "id,ä\n1,€\n2,ß\n".encode("cp1252")),
        ({"encoding": "utf-16"}, {"encoding": "utf-16"}, 'id,ä\n1,"∞\n"\n2,Ċ\n'.encode("utf-16")),
        ({"encoding": "gb18030"}, {"encoding": "gb18030"}, "id,漢\n1,字\n2,丂\n".encode("gb18030")),
        (
            {"encoding": "shift_jis", "delimiter": "|"},
            {"encoding": "shift_jis", "sep": "|"},
            "id|ソ\n1|ポ\n".encode("shift_jis"),
        ),
        ({"encoding": "iso2022_jp"}, {"encoding": "iso2022_jp"}, "id,漢\n1,が◆x\n2,字\n".encode("iso2022_jp")),
        ({"header_row": False}, {"header": None}, b"1,x,y\n2,z,\n"),
    ],
)
def test_other_layouts(cluster, tmp_path, run_bytes, classifiers, options, pandas_options, text):
    (tmp_path / "in.csv").write_bytes(text)
    plan = dc.plan(
        input=tmp_path / "in.csv", output=tmp_path / "run", classifier=classifiers("lengths"), block_rows=1, **options
    )
    dc.run(plan, cluster)
    assert run_bytes(tmp_path / "run") == reference(text, known.lengths, **pandas_options)


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("zst", zstandard.compress)],
)
def test_packed_inputs(cluster, tmp_path, run_bytes, classifiers, suffix, pack):
    text, file = csv_of(5000), tmp_path / f"in.csv.{suffix}"
    middle = text.index(b"\n", len(text) // 2) + 1
    members = (text[:middle], text[middle:]) if suffix != "zst" else (text,)
    file.write_bytes(b"".join(map(pack, members)))  # several members are one file
    plan = dc.plan(input=file, output=tmp_path / "run", classifier=classifiers("lengths"), block_rows=700)
    result = dc.run(plan, cluster)
    assert run_bytes(tmp_path / "run") == reference(text, known.lengths)
    assert len(result.receipts) == 8
    assert not list((tmp_path / "run").glob("unpacked/*")), "the unpacked copy goes when the run is complete"


def test_plain_and_compressed_files_of_an_encoding_other_than_utf_8(cluster, tmp_path, run_bytes, classifiers):
    """The compressed one is read from a copy, which is UTF-8; the plain one is not."""
    text = "id,name\n1,Zoë\n2,Ñandú\n".encode("latin-1")
    (tmp_path / "a.csv").write_bytes(text)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(text))
    options = {"input": [tmp_path / "a.csv", tmp_path / "b.csv.gz"], "encoding": "latin-1"}
    dc.run(dc.plan(**options, output=tmp_path / "run", classifier=classifiers("lengths")), cluster)
    rows = run_bytes(tmp_path / "run").decode().splitlines()
    assert rows == ["1,Zoë,5,1|Zoë", "2,Ñandú,7,2|Ñandú"] * 2


def test_several_files_and_globs_keep_their_order(cluster, tmp_path, run_bytes, classifiers):
    texts = {
        name: b"id,a\n" + b"".join(b"%s%d,x\n" % (name.encode(), i) for i in range(150)) for name in ("b", "a2", "a1")
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.csv").write_bytes(text)
    (tmp_path / "a0.csv").write_bytes(b"")  # an empty file has no rows and no header to differ
    inputs = [tmp_path / "b.csv", tmp_path / "a*.csv"]
    result = dc.run(
        dc.plan(input=inputs, output=tmp_path / "run", classifier=classifiers("lengths"), block_rows=100), cluster
    )
    expected = b"".join(reference(texts[name], known.lengths) for name in ("b", "a1", "a2"))
    assert run_bytes(tmp_path / "run") == expected
    assert [receipt.rows for receipt in result.receipts] == [100, 50] * 3


@pytest.mark.parametrize("output_format", ["csv.zst", "parquet"])
def test_other_output_formats(cluster, tmp_path, classifiers, output_format):
    plan = dc.plan(
        rows=1000,
        output=tmp_path / "run",
        classifier=classifiers("lengths"),
        output_format=output_format,
        block_rows=300,
    )
    result = dc.run(plan, cluster)
    result.verify()
    result.fetch(str(tmp_path / "all.csv"), header=False)
    assert (tmp_path / "all.csv").read_bytes() == reference(csv_of(1000), known.lengths)


def test_the_header_is_the_first_line_of_the_first_part(cluster, tmp_path, run_bytes, classifiers):
    plan = dc.plan(rows=300, output=tmp_path, classifier=classifiers("lengths"), header=True, block_rows=100)
    result = dc.run(plan, cluster)
    header, rest = run_bytes(tmp_path).split(b"\n", 1)
    assert header == b"ID,SKU,FLUX,MANUFACTURER_NAME,DESCRIPTION,LENGTH,TEXT"
    assert rest == reference(csv_of(300), known.lengths)
    assert len(result.to_pandas()) == 300 == result.verify().rows


VALUES = st.text(alphabet='ab,"\n\r é;0', max_size=6)
QUOTED = VALUES.map(lambda value: '"' + value.replace('"', '""') + '"')
PLAIN = st.text(alphabet='abé0 "', max_size=5).map(lambda value: "a" + value)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(QUOTED, PLAIN, QUOTED), max_size=30),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(1, 12),
    st.integers(1, 5),
    st.integers(20, 300),
    st.booleans(),
)
def test_any_csv_in_any_blocks_and_pieces(
    tmp_path_factory, rows, line_break, block_rows, chunk_rows, piece_bytes, final
):
    """The survey's pieces and marks are made tiny, so that their borders fall everywhere."""
    from dask_classifier.rows import csv_files

    text = line_break.join(["id,b,c", *map(",".join, rows)]) + (line_break if final else "")
    folder = tmp_path_factory.mktemp("any")
    (folder / "in.csv").write_bytes(text.encode())
    before = csv_files.SURVEY_BYTES, csv_files.MARK_SPACING
    csv_files.SURVEY_BYTES, csv_files.MARK_SPACING = piece_bytes, max(1, piece_bytes // 3)
    try:
        plan = dc.plan(
            input=folder / "in.csv",
            output=folder / "run",
            classifier=known.lengths,
            block_rows=block_rows,
            chunk_rows=chunk_rows,
        )
        result = dc.run(plan, "inline")
    finally:
        csv_files.SURVEY_BYTES, csv_files.MARK_SPACING = before
    parts = b"".join(gzip.decompress(part.read_bytes()) for part in sorted((folder / "run/parts").glob("*.gz")))
    assert parts == reference(text.encode(), known.lengths)
    assert result.rows == len(rows)
    assert sum(answers.rows for answers in figures(result).answers) == 2 * len(rows)
