"""Many small files: they share blocks, and each is still cut into its own chunks."""

import gzip
import json
import os
from pathlib import Path

import classifiers as known
import pandas as pd
import pytest
from reference import reference

import dask_classifier as dc
from dask_classifier import storage
from dask_classifier.errors import SourceError
from dask_classifier.rows.blocks import Marks, cut


def write_files(folder, count, columns="id,text"):
    """Files of 0 to 250 rows; every third one without a line feed at its end, every seventh without rows."""
    folder.mkdir()
    for number in range(count):
        rows = 0 if number % 7 == 0 else number * 37 % 251
        lines = [columns, *(f"{number}-{row},{'x' * (row % 5)}" for row in range(rows))]
        (folder / f"{number:04d}.csv").write_text("\n".join(lines) + ("\n" if number % 3 else ""))
    return sorted(folder.glob("*.csv"))


def each_alone(files, classifier):
    """Each file alone, in chunks of 100 rows."""

    def in_chunks(df):
        chunks = [df.iloc[first : first + 100] for first in range(0, len(df), 100)]
        return pd.concat(map(classifier, chunks)) if chunks else df

    return b"".join(reference(file.read_bytes(), in_chunks) for file in files)


def size_of_chunk(df):
    return df.assign(SIZE=len(df))


def fails_on_fail(df):
    if (df["text"] == "fail").any():
        raise ValueError("fail")
    return df.assign(LENGTH=1)


@pytest.mark.parametrize("block_rows", [100, 300, 1000, 10**6])
def test_bytes_of_joined_files(tmp_path, run_bytes, block_rows):
    """Chunks end where files end, whatever the blocks: the classifier sees the same chunks as alone."""
    files = write_files(tmp_path / "in", 60)
    plan = dc.plan(tmp_path / "in", size_of_chunk, tmp_path / "run", block_rows=block_rows)
    result = dc.run(plan, "inline")
    assert run_bytes(tmp_path / "run") == each_alone(files, size_of_chunk)
    blocks = len(result.manifest["parts"])
    assert blocks <= result.rows // block_rows * 2 + 1, "the number of blocks depends on the number of files"
    if block_rows > result.rows:
        assert blocks == 1


def test_a_folder_without_the_notes_of_other_tools(tmp_path):
    files = write_files(tmp_path / "in", 5)
    (tmp_path / "in/_SUCCESS").touch()
    (tmp_path / "in/.hidden.csv").write_text("other,columns\n1,2\n")
    (tmp_path / "in/_temporary").mkdir()
    (tmp_path / "in/_temporary/0.csv").write_text("other,columns\n1,2\n")
    (tmp_path / "in/below").mkdir()
    (tmp_path / "in/below/a.csv").write_text("id,text\n1,2\n")
    plan = dc.plan(tmp_path / "in", known.lengths, tmp_path / "run")
    assert [file.url for file in plan.source.files] == [*map(str, files), str(tmp_path / "in/below/a.csv")]


def test_objects_that_stand_for_folders(s3, tmp_path):
    """As S3's console makes them; their names end with a slash, and they sort first."""
    s3.put_object(Bucket="bucket", Key="many/", Body=b"")
    s3.put_object(Bucket="bucket", Key="many/below/", Body=b"")
    for name in ("a.csv", "below/b.csv"):
        s3.put_object(Bucket="bucket", Key=f"many/{name}", Body=b"id,text\n1,2\n")
    for named in ("s3://bucket/many/", "s3://bucket/many"):
        plan = dc.plan(named, known.lengths, tmp_path / "run")
        assert [file.url for file in plan.source.files] == ["s3://bucket/many/a.csv", "s3://bucket/many/below/b.csv"]


def test_an_empty_folder(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(dc.errors.StorageError, match="has no files"):
        dc.plan(tmp_path / "in", known.lengths, tmp_path / "run")


def test_another_header_in_a_file_that_only_the_survey_reads(cluster, tmp_path):
    write_files(tmp_path / "in", 40)
    (tmp_path / "in/0033.csv").write_text("id,other\n1,2\n")
    plan = dc.plan(tmp_path / "in", known.lengths, tmp_path / "run")
    with pytest.raises(SourceError, match=r"0000.csv and \S*0033.csv have different columns: id,text and id,other"):
        dc.run(plan, cluster)
    assert not list(tmp_path.glob("run/parts/*"))


def test_a_parquet_file_among_csv_files_that_only_the_survey_reads(tmp_path):
    write_files(tmp_path / "in", 40)
    (tmp_path / "in/0033.csv").write_bytes(b"PAR1\0\0")
    with pytest.raises(SourceError, match=r"0033\.csv is a Parquet file"):
        dc.run(dc.plan(tmp_path / "in", known.lengths, tmp_path / "run"), "inline")


def test_bad_rows_have_their_own_file_and_row(tmp_path):
    """Among them a quote that is never closed: it does not reach into the next file."""
    write_files(tmp_path / "in", 20)
    (tmp_path / "in/0005.csv").write_text('id,text\na,b\nc,"d')
    (tmp_path / "in/0011.csv").write_text("id,text\na,b\nc,d,e,f\n" + "x,y\n" * 150 + "z,fail\n")
    plan = dc.plan(tmp_path / "in", fails_on_fail, tmp_path / "run", max_bad=3)
    frame = dc.run(plan, "inline").quarantined()
    found = [(source.rpartition("/")[2], int(row)) for source, row in zip(frame["source"], frame["row"], strict=True)]
    assert found == [("0005.csv", 2), ("0011.csv", 2), ("0011.csv", 153)]


def test_a_killed_run_over_many_files_is_resumed(tmp_path, run_bytes):
    files = write_files(tmp_path / "in", 60)
    options = {"input": tmp_path / "in", "classifier": known.lengths, "block_rows": 500}
    dc.run(dc.plan(**options, output=tmp_path / "run"), "inline")
    lost = sorted((tmp_path / "run/parts").glob("*.json"))[2]
    lost.unlink()
    (tmp_path / "run/manifest.json").unlink()
    result = dc.run(dc.plan(**options, output=tmp_path / "run", resume=True), "inline")
    assert len(result.manifest["resumed"]) == len(result.manifest["parts"]) - 1
    assert run_bytes(tmp_path / "run") == each_alone(files, known.lengths)


def test_the_receipts_rows_can_be_traced_to_files(tmp_path):
    """plan.json has a line for each file of a block."""
    write_files(tmp_path / "in", 30)
    dc.run(dc.plan(tmp_path / "in", known.lengths, tmp_path / "run", block_rows=500), "inline")
    plan = json.loads((tmp_path / "run/plan.json").read_text())
    lines = [dict(zip(plan["block_fields"], line, strict=True)) for line in plan["blocks"]]
    rows_of = {}
    for line in lines:
        assert line["first_row"] == rows_of.get(line["file"], 0), "rows of a file follow each other"
        rows_of[line["file"]] = line["first_row"] + line["rows"]
    sizes = [len(Path(file["url"]).read_text().splitlines()) - 1 for file in plan["files"]]
    assert [rows_of.get(number, 0) for number in range(30)] == sizes
    assert len({line["index"] for line in lines}) < len(lines)


def test_files_that_must_not_share_a_block():
    marks = [Marks((0, 100), (0, 10)) for _ in range(4)]
    blocks = list(cut(marks, lambda left: 1000, joinable=lambda one, other: one // 2 == other // 2))
    assert [[span.file for span in block.spans] for block in blocks] == [[0, 1], [2, 3]]


def test_files_whose_text_is_large_do_not_share_a_block():
    marks = [Marks((0, 100), (0, 10)) for _ in range(4)]
    blocks = list(cut(marks, lambda left: 1000, lambda rows, size: rows // 2 if size > 250 else rows))
    assert [[span.file for span in block.spans] for block in blocks] == [[0, 1], [2, 3]]


@pytest.mark.parametrize("block_rows", [100, 10**6])
def test_a_quote_that_is_never_closed_does_not_reach_into_the_next_file(tmp_path, run_bytes, block_rows):
    """Even where the next file's own quotes would make the number of rows right."""
    (tmp_path / "0.csv").write_text("id,x\n" + "n,v\n" * 3000)
    (tmp_path / "1.csv").write_text('id,x\n0,w\n1,"abc')
    (tmp_path / "2.csv").write_text('id,x\n8,y\n2,"l1\nl2\nl3"\n')
    plan = dc.plan(tmp_path / "*.csv", lambda c: c.assign(L=1), tmp_path / "run", max_bad=1, block_rows=block_rows)
    result = dc.run(plan, "inline")
    (bad,) = result.quarantined().to_dict("records")
    assert (bad["source"].rpartition("/")[2], int(bad["row"]), bad["raw"]) == ("1.csv", 2, '1,"abc')
    assert run_bytes(tmp_path / "run") == b"n,v,1\n" * 3000 + b'0,w,1\n8,y,1\n2,"l1\nl2\nl3",1\n'


@pytest.mark.parametrize("now", [b"", b"id,x\n"])
@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet"])
@pytest.mark.parametrize("number", [0, 17])
def test_a_file_that_was_emptied_after_it_was_found_is_noticed(tmp_path, suffix, now, number):
    """While its producer writes it again: no block would ever read it, and so notice that it is another one."""

    def write(file, rows):
        if suffix == "parquet":
            pd.DataFrame({"id": ["1"] * rows, "x": ["2"] * rows}).to_parquet(file)
        else:
            text = b"id,x\n" + b"1,2\n" * rows if rows else now
            file.write_bytes(gzip.compress(text) if suffix.endswith("gz") else text)

    (tmp_path / "in").mkdir()
    for place in range(18):
        write(tmp_path / "in" / f"{place:02}.{suffix}", 5)
    plan = dc.plan(tmp_path / "in", lambda chunk: chunk, tmp_path / "run")
    write(tmp_path / "in" / f"{number:02}.{suffix}", 0)
    with pytest.raises(SourceError, match=r"has changed since the run began"):
        dc.run(plan, "inline")


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet"])
def test_a_file_that_changes_while_a_block_reads_it_is_noticed(tmp_path, suffix, monkeypatch):
    """Its version is looked at after the reading, since no other block may follow."""
    file, looks = tmp_path / f"in.{suffix}", []
    frame = pd.DataFrame({"id": ["1"] * 5, "x": ["2"] * 5})
    frame.to_parquet(file) if suffix == "parquet" else frame.to_csv(file, index=False)
    layout = dc.plan(file, lambda chunk: chunk, tmp_path / "run").source.layout
    (one,) = dc.plan(file, lambda chunk: chunk, tmp_path / "run").source.files
    of = one.survey(0, layout)
    marks = one.marks([of.piece])
    reads = storage.read if suffix == "csv" else storage.open_ranged if suffix == "parquet" else storage.open_stream

    def changing(*words):
        looks.append(words)
        os.utime(file, (1, 1))
        return reads(*words)

    monkeypatch.setattr(storage, reads.__name__, changing)
    with pytest.raises(SourceError, match=r"has changed since the run began"):
        one.read(marks.span(0, 0, 5), one.layout_of_rows(layout))
    assert looks
