"""JSON Lines as input."""

import gzip
import json

import classifiers as known
import pandas as pd
import pytest

import dask_classifier as dc
from dask_classifier.errors import SourceError, UsageError


def rows(count):
    for number in range(count):
        row = {
            "id": number,
            "text": f'"{number}", line\nfeed \u00e9\U0001f600',
            "price": number / 8,
            "yes": number % 2 == 0,
        }
        if number % 5 == 0:
            row["text"] = None
        if number % 11 == 0:
            del row["price"]
        yield row


def expected(objects, columns):
    """The rows as a frame of text."""
    values = [["" if each.get(name) is None else str(each[name]) for name in columns] for each in objects]
    frame = pd.DataFrame(values, columns=columns, dtype="str")
    return frame.set_index(columns[0])


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".jsonl.gz"])
@pytest.mark.parametrize("block_rows", [100, 10**6])
def test_values_as_text(tmp_path, run_bytes, suffix, block_rows):
    text = "".join(json.dumps(row, ensure_ascii=row["id"] % 2 == 0) + "\n" * (1 + row["id"] % 2) for row in rows(1234))
    file = tmp_path / f"in{suffix}"
    file.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
    dc.run(dc.plan(file, known.lengths, tmp_path / "run", block_rows=block_rows), "inline").verify()
    frame = expected(list(rows(1234)), ["id", "text", "yes", "price"])
    assert run_bytes(tmp_path / "run") == known.lengths(frame).to_csv(header=False).encode()


def test_a_first_line_that_is_too_long(tmp_path):
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": 1, "x": "y" * 2**20}) + "\n")
    with pytest.raises(SourceError, match=r"The first row of .* is longer than 1 MiB"):
        dc.run(dc.plan(tmp_path / "in.jsonl", known.lengths, tmp_path / "run"), "inline")


def test_numbers_keep_their_digits_and_nested_values_are_json(tmp_path, run_bytes):
    (tmp_path / "in.jsonl").write_text(
        '{"id": 1.10, "n": 12345678901234567890.50, "l": [1, 2.50, 1e400, {"a": null, "é": true}], "x": NaN}\n'
    )
    dc.run(dc.plan(tmp_path / "in.jsonl", lambda c: c, tmp_path / "run"), "inline")
    nested = '"[1, 2.50, 1e400, {""a"": null, ""é"": true}]"'
    assert run_bytes(tmp_path / "run").decode() == f"1.10,12345678901234567890.50,{nested},NaN\n"


@pytest.mark.parametrize("block_rows", [100, 1])
def test_lines_of_blanks_are_no_rows(tmp_path, run_bytes, block_rows):
    (tmp_path / "in.jsonl").write_bytes(b'  \n\r{"i":1,"t":"a"}\n \t\r\n\n\r\n {"i":2,"t":"b"}\r\n   ')
    plan = dc.plan(tmp_path / "in.jsonl", lambda c: c, tmp_path / "run", block_rows=block_rows)
    assert dc.run(plan, "inline").verify().rows == 2 and run_bytes(tmp_path / "run") == b"1,a\n2,b\n"


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_json_is_in_utf_8_whatever_the_encoding_of_csv(tmp_path, run_bytes, suffix, encoding):
    (tmp_path / "a.csv").write_text("i,t\n1,ä\n", encoding=encoding)
    text = '{"i":2,"t":"é"}\n'.encode()
    (tmp_path / f"b.{suffix}").write_bytes(gzip.compress(text) if suffix.endswith("gz") else text)
    files = [tmp_path / "a.csv", tmp_path / f"b.{suffix}"]
    dc.run(dc.plan(files, lambda c: c, tmp_path / "run", encoding=encoding), "inline")
    assert run_bytes(tmp_path / "run").decode() == "1,ä\n2,é\n"


def test_bad_rows(tmp_path):
    lines = [json.dumps({"id": n, "text": "x"}) for n in range(1, 3001)]
    lines[2499], lines[2600], lines[2700] = '{"id": 5', "[1, 2]", '{"id": 7, "other": 1}'
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    result = dc.run(dc.plan(tmp_path / "in.jsonl", known.lengths, tmp_path / "run", max_bad=3), "inline")
    bad = result.quarantined()
    assert list(bad["row"].astype(int)) == [2500, 2601, 2701] and list(bad["raw"]) == [
        lines[n] for n in (2499, 2600, 2700)
    ]
    assert bad["reason"].str.contains("not valid JSON|not a JSON object|the key 'other' is not among those").all()


def test_chosen_columns_may_be_missing_in_rows_and_files_and_others_are_ignored(cluster, tmp_path, run_bytes):
    (tmp_path / "a.jsonl").write_text('{"id": 1, "text": "a", "more": 1}\n{"id": 2}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "b", "id": 3, "other": 2}\n')
    plan = dc.plan(tmp_path / "*.jsonl", lambda c: c, tmp_path / "run", columns=["id", "text"])
    dc.run(plan, cluster)
    assert run_bytes(tmp_path / "run") == b"1,a\n2,\n3,b\n"


@pytest.mark.parametrize("block_rows", [1000, 10**6])
def test_a_chosen_column_may_be_rare(tmp_path, run_bytes, block_rows):
    """One file has it only behind the first thousand rows, one nowhere, and of many files most are surveyed later."""
    for number in range(40):
        text = "".join(json.dumps({"id": row}) + "\n" for row in range(1200))
        (tmp_path / f"{number:02d}.jsonl").write_text(text)
    (tmp_path / "01.jsonl").write_text('{"id": 7, "rare": 1}\n')
    with (tmp_path / "00.jsonl").open("a") as file:
        file.write('{"id": 1200, "rare": 8}\n')
    options = {"columns": "id,rare", "dtype": "rare=Int64", "index": "rare", "block_rows": block_rows}
    dc.run(dc.plan(tmp_path / "*.jsonl", lambda c: c, tmp_path / "run", **options), "inline")
    lines = run_bytes(tmp_path / "run").decode().splitlines()
    assert len(lines) == 39 * 1200 + 2
    assert [line for line in lines if not line.startswith(",")] == ["8,1200", "1,7"]


def test_a_type_of_a_key_that_a_later_file_lacks(tmp_path, run_bytes):
    (tmp_path / "a.jsonl").write_text('{"id": 1, "rare": 5}\n')
    (tmp_path / "b.jsonl").write_text('{"id": 2}\n')
    dc.run(dc.plan(tmp_path / "*.jsonl", lambda c: c, tmp_path / "run", dtype="rare=Int64"), "inline")
    assert run_bytes(tmp_path / "run") == b"1,5\n2,\n"


def test_a_column_that_no_file_has(tmp_path):
    for number in range(20):
        (tmp_path / f"{number:02d}.jsonl").write_text('{"id": 1, "text": "a"}\n')
    for options in ({"columns": "id,txt"}, {"dtype": "txt=Int64"}, {"index": "txt"}):
        with pytest.raises(UsageError, match=r"00\.jsonl does not have the column 'txt'") as refused:
            dc.plan(tmp_path / "*.jsonl", lambda c: c, tmp_path / "run", **options)
        assert "It has id, text" in refused.value.hint
    (tmp_path / "19.jsonl").write_text('{"id": 1, "row": 2}\n')
    with pytest.raises(UsageError, match="does not have the column 'row'"):  # none of those that are inspected has it
        dc.plan(tmp_path / "*.jsonl", lambda c: c, tmp_path / "run", columns="id,row", index="none")


@pytest.mark.parametrize("number", [1, 19])
def test_a_later_file_is_not_json_lines(tmp_path, number):
    """Among those that are looked at before the run, and among those that workers look at."""
    for each in range(20):
        (tmp_path / f"{each:02d}.jsonl").write_text('{"id": 1, "text": "a"}\n')
    (tmp_path / f"{number:02d}.jsonl").write_text("id,text\n1,a\n")
    with pytest.raises(SourceError, match=rf"{number:02d}\.jsonl is not JSON Lines: row 1 is not valid JSON"):
        dc.run(dc.plan(tmp_path / "*.jsonl", lambda c: c, tmp_path / "run", columns="id", max_bad=99), "inline")


def test_another_key_in_another_file(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": 1, "text": "a"}\n')
    (tmp_path / "b.jsonl").write_text('{"id": 3, "other": 2}\n')
    with pytest.raises(SourceError, match="have different columns: id,text and id,other"):
        dc.plan(tmp_path / "*.jsonl", lambda c: c, tmp_path / "run")


def test_what_is_not_json_lines(tmp_path):
    (tmp_path / "in.jsonl").write_text(json.dumps([{"id": 1}]) + "\n")
    with pytest.raises(SourceError, match="is not JSON Lines: row 1 is not a JSON object"):
        dc.plan(tmp_path / "in.jsonl", known.lengths, tmp_path / "run")
    (tmp_path / "in.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(UsageError, match="does not have the column 'it'"):
        dc.plan(tmp_path / "in.jsonl", known.lengths, tmp_path / "run", columns="it")


def test_an_empty_file(tmp_path):
    (tmp_path / "in.jsonl").write_text("\n\n")
    assert dc.run(dc.plan(tmp_path / "in.jsonl", known.lengths, tmp_path / "run"), "inline").rows == 0


def test_columns_of_csv(tmp_path, run_bytes):
    (tmp_path / "in.csv").write_text("a,b,c\n1,2,3\n4,,6\n")
    dc.run(dc.plan(tmp_path / "in.csv", lambda c: c.assign(X="x"), tmp_path / "run", columns="c,a"), "inline")
    assert run_bytes(tmp_path / "run") == b"3,1,x\n6,4,x\n"
    with pytest.raises(UsageError, match="named twice"):
        dc.plan(tmp_path / "in.csv", known.lengths, tmp_path / "other", columns="c,c")


def test_a_key_that_only_the_last_line_has(tmp_path, run_bytes):
    (tmp_path / "in.jsonl").write_text('{"a": 1}\n{"a": 2, "b": 3}\n')
    dc.run(dc.plan(tmp_path / "in.jsonl", lambda c: c, tmp_path / "run"), "inline")
    assert run_bytes(tmp_path / "run") == b"1,\n2,3\n"


@pytest.mark.parametrize(
    "text", ['{"a": "\u00e9"}\n'.encode("latin-1"), '{"a": 1}\n'.encode("utf-16"), b"[" * 100_000 + b"\n"]
)
def test_what_cannot_be_read_at_all(tmp_path, text):
    (tmp_path / "in.jsonl").write_bytes(text)
    with pytest.raises(SourceError, match="is not JSON Lines: row 1 is"):
        dc.plan(tmp_path / "in.jsonl", lambda c: c, tmp_path / "run")
