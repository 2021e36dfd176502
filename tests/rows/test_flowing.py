"""Large compressed inputs flow: a worker reads them once, into pieces that are classified and deleted."""

import bz2
import contextlib
import gzip
import json
import lzma
import os
import random
import re
import signal
import time
import zlib
from pathlib import Path

import classifiers as known
import pytest
import zstandard
from generated_csv import csv_of
from reference import reference

import dask_classifier as dc
from dask_classifier.engine import growing
from dask_classifier.engine.executors import DaskExecutor
from dask_classifier.errors import LimitReached, OutputExists, SourceError, StorageError, TooManyBadRows
from dask_classifier.parts.run_folder import RunFolder
from dask_classifier.rows import csv_files, decompression, row_stream, unpacking
from dask_classifier.rows.decompression import Packing, TextStream
from dask_classifier.runs.limits import Limits
from dask_classifier.runs.progress import Progress, Snapshot
from dask_classifier.show.terminal import describe
from dask_classifier.units import roughly

PACK = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstandard.compress}


@pytest.fixture(autouse=True)
def everything_flows(monkeypatch):
    """Packed files count as large from a kilobyte on, and few pieces are read at once."""
    monkeypatch.setattr(csv_files, "SMALL_BYTES", dict.fromkeys(csv_files.SMALL_BYTES, 1000))
    monkeypatch.setattr(growing, "_MOST_AT_ONCE", 3)


class Watcher(Progress):
    """Looks at the run's folder whenever a block is finished, and may do something then."""

    def __init__(self, folder, then=lambda done: None):
        super().__init__()
        self.folder, self.then, self.done, self.pieces, self.sizes = folder, then, 0, [], []

    def finished(self, receipt):
        super().finished(receipt)
        self.done += 1
        self.pieces.append(len(list((self.folder / "unpacked").glob("*.csv"))))
        self.then(self.done)

    def resize(self, rows, blocks, is_estimate):
        super().resize(rows, blocks, is_estimate)
        self.sizes.append((rows, blocks, is_estimate))


class Interrupted(Exception):
    pass


def interrupt_after(count):
    def then(done):
        if done == count:
            raise Interrupted

    return then


def leftovers(folder):
    return [path.name for name in ("unpacked", "blocks") for path in (folder / name).glob("*")]


# --- the bytes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("block_rows", [100, 700, "auto"])
def test_bytes_of_a_file_that_flows(cluster, tmp_path, run_bytes, classifiers, suffix, block_rows):
    text = csv_of(5000)
    file = tmp_path / f"in.csv.{suffix}"
    file.write_bytes(PACK[suffix](text))
    plan = dc.plan(file, classifiers("lengths"), tmp_path / "run", block_rows=block_rows)
    assert plan.source.flowing
    watcher = Watcher(tmp_path / "run")
    result = dc.run(plan, cluster, progress=watcher)
    assert run_bytes(tmp_path / "run") == reference(text, known.lengths)
    assert result.verify().rows == 5000 and not leftovers(tmp_path / "run")
    assert watcher.sizes[0][2] and watcher.sizes[-1] == (5000, len(result.receipts), False)
    if block_rows == 100:
        assert len(result.receipts) == 50
        assert 0 < max(watcher.pieces) <= 3 * 2 + 3 + 1, "pieces are those of the blocks under way"


def test_the_first_rows_are_classified_before_more_is_read(cluster, tmp_path, classifiers, monkeypatch):
    unpack, seen = growing.GrowingCut._unpack, []

    def after_the_first(self, *arguments):
        deadline = time.monotonic() + 60
        while seen and not list((tmp_path / "run/parts").glob("*.json")) and time.monotonic() < deadline:
            time.sleep(0.05)
        seen.append(len(list((tmp_path / "run/parts").glob("*.json"))))
        return unpack(self, *arguments)

    monkeypatch.setattr(growing.GrowingCut, "_unpack", after_the_first)
    monkeypatch.setattr(growing, "_MOST_AT_ONCE", 1)  # fewer pieces at once than there are processes
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(csv_of(5000)))
    dc.run(dc.plan(tmp_path / "in.csv.gz", classifiers("lengths"), tmp_path / "run", block_rows=100), cluster)
    assert seen[0] == 0 and seen[1] > 0 and len(seen) > 10


def test_a_mix_of_files(cluster, tmp_path, run_bytes, classifiers):
    """Blocks are numbered in the order of inputs, of which some flow, some are small and packed, some are plain."""
    texts = [csv_of(rows) for rows in (250, 3000, 30, 5, 2000, 1500, 0, 310)]
    packed = {1: ".gz", 3: ".gz", 4: ".bz2", 5: ".xz"}
    files = []
    for number, text in enumerate(texts):
        suffix = packed.get(number, "")
        data = PACK[suffix[1:]](text) if suffix else text
        files.append(tmp_path / f"{number}.csv{suffix}")
        files[-1].write_bytes(data)
    plan = dc.plan(files, classifiers("lengths"), tmp_path / "run", block_rows=400)
    assert [number for number, _ in plan.source.flowing] == [1, 4, 5]
    result = dc.run(plan, cluster)
    assert run_bytes(tmp_path / "run") == b"".join(reference(text, known.lengths) for text in texts)
    assert result.verify().rows == sum((250, 3000, 30, 5, 2000, 1500, 0, 310))
    blocks = json.loads((tmp_path / "run/plan.json").read_text())["blocks"]
    assert [line[3] for line in blocks] == sorted(line[3] for line in blocks) and "growing" not in blocks


def hard_rows(rows):
    """Quotes over line breaks, blank lines, CR and CRLF, rows of all lengths."""
    rng = random.Random(7)
    kinds = ("{0},x{1}", '{0},"a\n\nb{1}"', '{0},"q""{1}"', '{0},"\r\n,{1}"', '\n{0},5" pipe', "{0}," + "y" * 300)
    ends = ("\n", "\r\n", "\n\n")
    text = "".join(rng.choice(kinds).format(n, n) + rng.choice(ends) for n in range(rows))
    return ("id,text\n" + text + 'end,"last"').encode()


@pytest.mark.parametrize("read_bytes", [1, 7, 1000, 2**20])
def test_rows_are_found_wherever_reads_end(tmp_path, monkeypatch, read_bytes):
    """Pieces of all sizes, joined, are the text; each has as many rows as it says, on its own."""
    text = hard_rows(400 if read_bytes < 1000 else 4000)
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(text))
    monkeypatch.setattr(TextStream.read, "__defaults__", (read_bytes,))
    plan = dc.plan(tmp_path / "in.csv.gz", "blackbox", tmp_path / "run")
    ((_, file),) = plan.source.flowing
    unpacker, row, found = unpacking.Unpacker(), 0, b""
    while True:
        order = unpacking.Order(row, (100, 200, 700), largest=20_000, chunk_rows=100)
        unpacked = unpacker.unpack(file, plan.source.layout, order, "me")
        for rows, size in unpacked.pieces:
            piece = Path(file.piece(row, rows)).read_bytes()
            assert len(piece) == size and len(file._rows_of(piece, plan.source.layout)) == rows
            assert rows % 100 == 0 or unpacked.ended
            found, row = found + piece, row + rows
        if unpacked.ended:
            break
    assert text.endswith(found) and text[: -len(found)].strip() == b"id,text"
    assert row == len(file._rows_of(text, plan.source.layout)) - 1


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "shift_jis", "utf-8-sig"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_encodings(tmp_path, run_bytes, classifiers, encoding, suffix):
    words = "größe" if encoding == "latin-1" else "大きさ,名前"[:3]
    text = "id,text\n" + "".join(f"{n},{words}{n}\n" for n in range(3000))
    data = text.encode(encoding)
    (tmp_path / f"in.csv{suffix}").write_bytes(gzip.compress(data) if suffix else data)
    plan = dc.plan(tmp_path / f"in.csv{suffix}", classifiers("lengths"), tmp_path / "run", encoding=encoding)
    assert bool(plan.source.flowing) == (bool(suffix) or encoding in {"utf-16", "shift_jis"})
    dc.run(plan, "inline")
    assert run_bytes(tmp_path / "run") == reference(text.encode(), known.lengths)


def test_json_lines_flow(tmp_path, run_bytes, classifiers):
    lines = b"".join(b'{"id": %d, "text": "a\\"b%d"}\n' % (n, n) for n in range(3000))
    (tmp_path / "in.jsonl").write_bytes(lines)
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(lines))
    for name, flows in (("in.jsonl", False), ("in.jsonl.gz", True)):
        plan = dc.plan(tmp_path / name, classifiers("lengths"), tmp_path / name.replace(".", "-"), block_rows=500)
        assert bool(plan.source.flowing) == flows
        dc.run(plan, "inline")
    assert run_bytes(tmp_path / "in-jsonl-gz") == run_bytes(tmp_path / "in-jsonl")


@pytest.mark.parametrize("suffix", PACK)
def test_the_content_says_what_a_name_does_not(tmp_path, run_bytes, classifiers, suffix, monkeypatch):
    """A file of the command line, one that flows, and one of many, which only the survey reads."""
    text = csv_of(300)
    for number in range(20):
        (tmp_path / f"{number:02d}.csv").write_bytes(PACK[suffix](text) if number in {0, 19} else text)
    monkeypatch.setattr(csv_files, "SMALL_BYTES", dict.fromkeys(csv_files.SMALL_BYTES, 2**20))
    dc.classify(tmp_path / "*.csv", classifiers("lengths"), tmp_path / "many", cluster="inline")
    assert run_bytes(tmp_path / "many") == 20 * reference(text, known.lengths)
    monkeypatch.setattr(csv_files, "SMALL_BYTES", dict.fromkeys(csv_files.SMALL_BYTES, 1000))
    plan = dc.plan(tmp_path / "00.csv", classifiers("lengths"), tmp_path / "one")
    assert plan.source.flowing
    dc.run(plan, "inline")
    assert run_bytes(tmp_path / "one") == reference(text, known.lengths)


# --- resume, and workers that die ----------------------------------------------------------------------------


def interrupted(options, output, cluster, after):
    """Run until so many blocks are finished; return its files with blocks, in order."""
    with pytest.raises(Interrupted):
        dc.run(dc.plan(**options, output=output), cluster, progress=Watcher(output, interrupt_after(after)))
    return sorted((output / "blocks").glob("*"))


@pytest.mark.parametrize("after", [1, 4, 12])
def test_resume_in_the_middle_of_a_file(cluster, tmp_path, run_bytes, classifiers, after):
    """The blocks that were known stay the same, whatever their number; pieces are written again where they are gone."""
    text = csv_of(4000)
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv.gz").write_bytes(gzip.compress(text))
    options = {"input": tmp_path / "*.csv.gz", "classifier": classifiers("lengths"), "block_rows": 300}
    files = interrupted(options, tmp_path / "run", cluster, after)
    known_blocks = sum(len(json.loads(path.read_text())["blocks"]) for path in files)
    assert known_blocks >= after and not (tmp_path / "run/manifest.json").exists()
    pieces = list((tmp_path / "run/unpacked").glob("*.csv"))
    for piece in pieces[::2]:
        piece.unlink()
    for piece in pieces[1::4]:
        piece.write_bytes(piece.read_bytes()[:-10])
    before = {path.name: path.read_bytes() for path in (tmp_path / "run/parts").glob("*.json")}
    result = dc.run(dc.plan(**options, output=tmp_path / "run", resume=True), cluster)
    assert run_bytes(tmp_path / "run") == 2 * reference(text, known.lengths)
    assert result.verify().rows == 8000 and not leftovers(tmp_path / "run")
    assert len(result.manifest["resumed"]) >= after
    for index in result.manifest["resumed"]:
        name = f"part-{index:05d}.json"
        assert (tmp_path / "run/parts" / name).read_bytes() == before[name]


def test_files_with_blocks_that_are_no_longer_those_of_the_run(cluster, tmp_path, run_bytes, classifiers):
    """One in the middle is deleted; what is cut behind it, in other sizes, is never mixed with the later files."""
    text = csv_of(9000)
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(text))
    options = {"input": tmp_path / "in.csv.gz", "classifier": classifiers("lengths"), "block_rows": 300}
    files = interrupted(options, tmp_path / "run", cluster, 9)
    assert len(files) >= 4, "so there are some behind the one that is deleted"
    files[1].unlink()
    for file in files[2:]:  # as if they had been cut in another size
        content = json.loads(file.read_text())
        content["blocks"] = [[*line[:-1], line[-1] + 100] for line in content["blocks"]]
        file.write_text(json.dumps(content))
    again = dc.plan(**options, output=tmp_path / "run", resume=True)
    with pytest.raises(Interrupted):
        dc.run(again, cluster, progress=Watcher(tmp_path / "run", interrupt_after(2)))
    result = dc.run(again, cluster)
    assert result.verify().rows == 9000 and run_bytes(tmp_path / "run") == reference(text, known.lengths)


def test_blocks_that_an_earlier_version_has_stored_are_cut_again(cluster, tmp_path, run_bytes, classifiers):
    """Its files had the blocks alone, and did not say what they follow."""
    text = csv_of(4000)
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(text))
    options = {"input": tmp_path / "in.csv.gz", "classifier": classifiers("lengths"), "block_rows": 300}
    files = interrupted(options, tmp_path / "run", cluster, 4)
    assert files and not (tmp_path / "run/manifest.json").exists()
    for file in files:
        file.write_text(json.dumps(json.loads(file.read_text())["blocks"]))
    result = dc.run(dc.plan(**options, output=tmp_path / "run", resume=True), cluster)
    assert result.verify().rows == 4000 and run_bytes(tmp_path / "run") == reference(text, known.lengths)


@pytest.mark.parametrize("places", [(0, 2), (0, -1)], ids=["another row", "another file"])
def test_files_with_blocks_of_two_commands(cluster, tmp_path, run_bytes, classifiers, places):
    """Their numbers follow each other, but not their rows: what does not follow the blocks before it is cut again."""
    text = csv_of(4000)
    for name in "ab":
        (tmp_path / f"{name}.csv.gz").write_bytes(gzip.compress(text))
    options = {"input": tmp_path / "*.csv.gz", "classifier": classifiers("lengths"), "block_rows": 300}
    files = interrupted(options, tmp_path / "run", cluster, 20)
    behind, content = (json.loads(files[place].read_text()) for place in places)
    first = behind["blocks"][-1][0] + 1
    content["blocks"] = [[first + n, *line[1:]] for n, line in enumerate(content["blocks"])]
    for file in files[places[0] + 1 :]:
        file.unlink()
    (tmp_path / f"run/blocks/{first:05d}.json").write_text(json.dumps(content))
    result = dc.run(dc.plan(**options, output=tmp_path / "run", resume=True), cluster)
    assert result.verify().rows == 8000 and run_bytes(tmp_path / "run") == 2 * reference(text, known.lengths)


def test_an_order_ends_behind_a_piece_that_was_made_smaller(tmp_path):
    """What follows it would begin within a chunk, if the limit has made the last size a part of one."""
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(csv_of(40_000)))
    plan = dc.plan(tmp_path / "in.csv.gz", "blackbox", tmp_path / "run")
    ((_, file),) = plan.source.flowing
    order = unpacking.Order(0, (800, 800, 130), largest=40_000, chunk_rows=100)
    pieces = unpacking.Unpacker().unpack(file, plan.source.layout, order, "me").pieces
    assert [rows for rows, _ in pieces if rows % 100] == [] and pieces[-1][0] < 800


def test_a_large_file_without_line_feeds(tmp_path, classifiers):
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(b"id,x\r" + b"1,2\r" * 20_000_000, 1))
    with pytest.raises(SourceError, match="has no line feed for 64 MiB"):
        dc.run(dc.plan(tmp_path / "in.csv.gz", classifiers("lengths"), tmp_path / "run"), "inline")


def test_a_block_of_a_complete_run_is_classified_again(cluster, tmp_path, run_bytes, classifiers):
    text = csv_of(3000)
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(text))
    options = {"input": tmp_path / "in.csv.gz", "classifier": classifiers("lengths"), "block_rows": 300}
    dc.run(dc.plan(**options, output=tmp_path / "run"), cluster)
    for index in (2, 3, 8):
        (tmp_path / f"run/parts/part-{index:05d}.csv.gz").unlink()
    result = dc.run(dc.plan(**options, output=tmp_path / "run", resume=True), cluster)
    assert len(result.manifest["resumed"]) == 7 and not leftovers(tmp_path / "run")
    assert run_bytes(tmp_path / "run") == reference(text, known.lengths)


def test_another_process_takes_over(cluster, tmp_path, run_bytes, classifiers, monkeypatch):
    """The process that has the file open is killed after each of its orders: the next one reads up to there again."""
    killed = []
    ask = DaskExecutor.soon

    def kill_after(self, task, args, near, is_over=None):
        outcome = ask(self, task, args, near, is_over)
        for pids in self.client.run(open_files).values():
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
        return outcome

    def open_files(dask_worker):
        plugins = [plugin for plugin in dask_worker.plugins.values() if hasattr(plugin, "unpacking")]
        return [pid for plugin in plugins for pid in plugin.unpacking.pids()]

    monkeypatch.setattr(DaskExecutor, "soon", kill_after)
    text = csv_of(3000)
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(text))
    plan = dc.plan(tmp_path / "in.csv.gz", classifiers("lengths"), tmp_path / "run", block_rows=300)
    dc.run(plan, cluster)
    assert len(set(killed)) >= 3
    assert run_bytes(tmp_path / "run") == reference(text, known.lengths)


# --- damage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", PACK)
def test_no_row_before_a_cut_is_lost(tmp_path, classifiers, run_bytes, suffix):
    """All that the standard library can decompress of a file that is cut off is classified; the error says where."""
    text = csv_of(20_000)
    whole = PACK[suffix](text)
    cut = whole[: len(whole) * 2 // 3]
    file = tmp_path / f"in.csv.{suffix}"
    file.write_bytes(cut)
    plan = dc.plan(file, classifiers("lengths"), tmp_path / "run", block_rows=500)
    with pytest.raises(StorageError, match=r"Cannot decompress .* after byte [\d,]+ of its text") as raised:
        dc.run(plan, "inline")
    there = decompressed(suffix, cut)
    rows = there[: there.rfind(b"\n") + 1]
    number = rows.count(b"\n") - 1
    assert f"after byte {len(there):,} of" in raised.value.message
    assert f"{number:,} rows before it are classified" in raised.value.hint
    assert run_bytes(tmp_path / "run") == reference(rows, known.lengths)
    assert not (tmp_path / "run/manifest.json").exists()


KINDS = {"gz": "gzip", "bz2": "bz2", "xz": "xz", "zst": "zstd"}


def streams(suffix):
    """Three texts, and what several processes make of them: a stream of each."""
    texts = [csv_of(2000), *(csv_of(2000).partition(b"\n")[2] for _ in range(2))]
    return texts, list(map(PACK[suffix], texts))


def read_all(path, suffix):
    """All of the text, and the error behind it, or None."""
    stream, text = TextStream(str(path), Packing(KINDS[suffix], "utf-8")), []
    try:
        while data := stream.read():
            text.append(data)
    except StorageError as error:
        return b"".join(text), error
    finally:
        stream.close()
    return b"".join(text), None


@pytest.mark.parametrize("damage", ["zeros", "text", "cut"])
@pytest.mark.parametrize("suffix", PACK)
def test_damage_behind_the_first_stream_of_a_file(tmp_path, suffix, damage):
    """Python's own classes take the bad beginning of a later stream for the end."""
    texts, (first, second, third) = streams(suffix)
    begun = {"zeros": second[:2] + bytes(6) + second[8:], "text": b"no stream" + second[9:], "cut": second[:-30]}
    (tmp_path / "in").write_bytes(first + begun[damage] + (b"" if damage == "cut" else third))
    text, error = read_all(tmp_path / "in", suffix)
    assert re.search(r"Cannot decompress .* after byte [\d,]+ of its text", error.message)
    assert text.startswith(texts[0]) and (texts[0] + texts[1]).startswith(text)
    (tmp_path / "in").write_bytes(first + second + third)
    assert read_all(tmp_path / "in", suffix) == (b"".join(texts), None)


def test_a_run_over_a_file_with_a_damaged_second_stream(tmp_path, classifiers, run_bytes):
    texts, (first, second, third) = streams("bz2")
    (tmp_path / "in.csv.bz2").write_bytes(first + bytes(6) + second[6:] + third)
    plan = dc.plan(tmp_path / "in.csv.bz2", classifiers("lengths"), tmp_path / "run", block_rows=500)
    with pytest.raises(StorageError, match=r"Cannot decompress .* after byte [\d,]+ of its text"):
        dc.run(plan, "inline")
    assert not (tmp_path / "run/manifest.json").exists()
    assert run_bytes(tmp_path / "run") == reference(texts[0], known.lengths)


def test_zeros_between_streams_of_xz_are_padding(tmp_path):
    (first, second, _), packed = streams("xz")
    (tmp_path / "in").write_bytes(packed[0] + bytes(400_000) + packed[1] + bytes(8))
    assert read_all(tmp_path / "in", "xz") == (first + second, None)


@pytest.mark.parametrize("suffix", PACK)
def test_a_file_without_a_single_stream_is_cut_off(tmp_path, suffix):
    """What an upload that failed may leave; a text of nothing has a stream, too."""
    (tmp_path / "in").write_bytes(b"")
    text, error = read_all(tmp_path / "in", suffix)
    assert text == b"" and "after byte 0 of its text" in error.message
    (tmp_path / "in").write_bytes(PACK[suffix](b""))
    assert read_all(tmp_path / "in", suffix) == (b"", None)


def test_zeros_in_place_of_a_gzip_member_are_damage(tmp_path):
    """A crash of the machine that appends to a file may leave them. At the end of a file, they are padding."""
    (first, second, third), packed = streams("gz")
    for hole in (8, len(packed[1]), 400_000):
        (tmp_path / "in").write_bytes(packed[0] + bytes(hole) + packed[2])
        text, error = read_all(tmp_path / "in", "gz")
        assert text == first and f"after byte {len(first):,} of its text: zeros are in place of data" in error.message
        (tmp_path / "in").write_bytes(packed[0] + packed[1] + packed[2] + bytes(hole))
        assert read_all(tmp_path / "in", "gz") == (first + second + third, None)


def test_members_of_gzip_of_any_size_and_with_any_header(tmp_path, monkeypatch):
    """One for each line, as a logger appends them; with extra fields, as bgzip has them; empty ones; with all fields.

    Wherever what is read at a time ends.
    """
    text = csv_of(300)
    members = [gzip.compress(line) for line in text.splitlines(keepends=True)]
    plain = gzip.compress(text)
    extra = b"\x06\0BC\x02\0\x1b\0"
    bgzip = plain[:3] + b"\x04" + plain[4:10] + extra + plain[10:]
    head = plain[:3] + b"\x1e" + plain[4:10] + extra + b"a name.csv\0" + b"a comment\0"
    full = head + (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little") + plain[10:]
    (tmp_path / "in").write_bytes(b"".join([*members, bgzip, gzip.compress(b""), full, full, plain]))
    for step in (2**16, *range(len(full) - 3, len(full) + 40)):
        monkeypatch.setattr(decompression, "_STEP_BYTES", step)
        assert read_all(tmp_path / "in", "gz") == (text * 5, None)


def decompressed(suffix, data):
    """All of a stream that is cut off, from another decompressor where there is one."""
    if suffix == "gz":
        return zlib.decompressobj(31).decompress(data)
    if suffix == "bz2":
        return bz2.BZ2Decompressor().decompress(data)
    if suffix == "xz":
        return lzma.LZMADecompressor().decompress(data)
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


def test_a_cut_inside_quotes(tmp_path, classifiers, run_bytes):
    """The row in which the file ends is left out as a whole, also if its last line is complete."""
    text = b"id,text\n" + b"".join(b"%d,x\n" % n for n in range(500)) + b'500,"one\ntwo\n'
    packed = gzip.compress(text + random.Random(1).randbytes(3000).hex().encode())
    (tmp_path / "in.csv.gz").write_bytes(packed[:-2000])
    plan = dc.plan(tmp_path / "in.csv.gz", classifiers("lengths"), tmp_path / "run", block_rows=100)
    with pytest.raises(StorageError, match="after byte") as raised:
        dc.run(plan, "inline")
    assert "500 rows before it" in raised.value.hint
    assert run_bytes(tmp_path / "run") == reference(text[: text.index(b"500,")], known.lengths)


def test_files_behind_a_damaged_one_are_left_alone(tmp_path, classifiers):
    text = csv_of(3000)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text)[:-1000])
    (tmp_path / "b.csv").write_bytes(text)
    plan = dc.plan(tmp_path / "*.csv*", classifiers("lengths"), tmp_path / "run", block_rows=500)
    for resume in (False, True):
        with pytest.raises(StorageError, match=r"a\.csv\.gz"):
            dc.run(plan, "inline", resume=resume)
    parts = list((tmp_path / "run/parts").glob("*.csv.gz"))
    assert 1 < len(parts) <= 6


def test_an_error_of_the_storage_is_not_damage(tmp_path, monkeypatch):
    """A file that cannot be read at the moment does not count as one that is damaged there."""
    (tmp_path / "in.gz").write_bytes(gzip.compress(random.Random(1).randbytes(3_000_000)))
    stream = TextStream(str(tmp_path / "in.gz"), Packing("gzip", "utf-8"))
    first = stream.read()
    stored = stream._stored.stream
    monkeypatch.setattr(stream._stored, "stream", Failing())
    with pytest.raises(StorageError, match="Cannot read"):
        while stream.read():
            pass
    assert not stream.is_damaged and first and not stored.closed


class Failing:
    def readinto(self, buffer):
        raise OSError(5, "Input/output error")


def test_the_wrong_checksum(tmp_path, classifiers):
    packed = bytearray(gzip.compress(csv_of(3000)))
    packed[-6] ^= 1
    (tmp_path / "in.csv.gz").write_bytes(packed)
    plan = dc.plan(tmp_path / "in.csv.gz", classifiers("lengths"), tmp_path / "run", block_rows=500)
    with pytest.raises(StorageError, match="of its text: Incorrect checksum found"):
        dc.run(plan, "inline")
    assert not (tmp_path / "run/manifest.json").exists()


# --- limits and budgets ------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_partial_result_knows_the_rows_that_it_lacks(cluster, tmp_path, classifiers):
    text = csv_of(100_000)
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(text))
    options = {"input": tmp_path / "in.csv.gz", "classifier": classifiers("slow"), "block_rows": 100}
    limits = Limits(finish_by=time.time() + 12, partial=True)
    result = dc.run(dc.plan(**options, output=tmp_path / "run"), cluster, limits=limits)
    assert result.partial and 0 < result.rows < 100_000
    verified = result.verify()
    assert verified.rows + verified.missing == 100_000
    (hole,) = json.loads((tmp_path / "run/missing.json").read_text())["holes"][-1:]
    assert hole["last_row"] == 100_000
    plan = json.loads((tmp_path / "run/plan.json").read_text())
    assert "growing" not in plan and plan["rows"] == 100_000


@pytest.mark.long
def test_a_limit_keeps_what_is_done(cluster, tmp_path, run_bytes, classifiers):
    text = csv_of(30_000)
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(text))
    options = {"input": tmp_path / "in.csv.gz", "classifier": classifiers("slow"), "block_rows": 300}
    with pytest.raises(LimitReached, match="of about"):
        dc.run(dc.plan(**options, output=tmp_path / "run"), cluster, limits=Limits(max_time=4))
    result = dc.run(dc.plan(**options, output=tmp_path / "run", resume=True), cluster)
    assert result.manifest["resumed"]
    assert run_bytes(tmp_path / "run") == reference(text, known.lengths)


@pytest.mark.parametrize(("allowed", "fits"), [("10%", True), ("9%", False)])
def test_a_share_of_bad_rows_counts_at_the_end(tmp_path, classifiers, allowed, fits):
    """All bad rows are in the first tenth, whose share is ten times that of the file."""
    lines = [b"%d,x,too,many\n" % n if n < 300 else b"%d,x\n" % n for n in range(3000)]
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(b"id,text\n" + b"".join(lines)))
    options = {"block_rows": 100, "max_bad": allowed}
    plan = dc.plan(tmp_path / "in.csv.gz", classifiers("lengths"), tmp_path / "run", **options)
    if fits:
        assert dc.run(plan, "inline").bad_rows == 300
    else:
        with pytest.raises(TooManyBadRows):
            dc.run(plan, "inline")
        assert not (tmp_path / "run/manifest.json").exists()


# --- estimates and small files -------------------------------------------------------------------------------


def test_small_packed_files_need_no_copy(cluster, tmp_path, run_bytes, classifiers, monkeypatch):
    monkeypatch.setattr(csv_files, "SMALL_BYTES", dict.fromkeys(csv_files.SMALL_BYTES, 2**22))
    texts = [csv_of(2000), csv_of(0), csv_of(777)]
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.csv.gz").write_bytes(gzip.compress(text))
    watcher = Watcher(tmp_path / "run")
    plan = dc.plan(tmp_path / "*.gz", classifiers("lengths"), tmp_path / "run", block_rows=300)
    dc.run(plan, cluster, progress=watcher)
    assert run_bytes(tmp_path / "run") == b"".join(reference(text, known.lengths) for text in texts)
    assert set(watcher.pieces) == {0} and not watcher.sizes[0][2]


def test_the_size_is_estimated_from_what_was_read(tmp_path, classifiers, monkeypatch):
    """After the first order, the number of rows is roughly known."""
    rng = random.Random(5)
    text = b"id,text\n" + b"".join(b"%d,%s\n" % (n, rng.randbytes(50).hex().encode()) for n in range(120_000))
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(text, 1))
    watcher = Watcher(tmp_path / "run", interrupt_after(8))
    plan = dc.plan(tmp_path / "in.csv.gz", classifiers("lengths"), tmp_path / "run", block_rows=10_000)
    with pytest.raises(Interrupted):
        dc.run(plan, "inline", progress=watcher)
    rows, blocks, is_estimate = watcher.sizes[-1]
    assert is_estimate and 100_000 < rows < 150_000 and blocks > 8


def test_a_file_is_open_in_one_process_at_a_time(tmp_path, classifiers):
    """Orders go to the worker that has the file open, so that nobody reads it twice."""
    text = csv_of(6000)
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(text))
    near = set()
    ask = DaskExecutor.soon

    def asked(self, task, args, worker, is_over=None):
        outcome = ask(self, task, args, worker, is_over)
        near.add(outcome.value.worker)
        return outcome

    plan = dc.plan(tmp_path / "in.csv.gz", classifiers("lengths"), tmp_path / "run", block_rows=100)
    with pytest.MonkeyPatch.context() as patch, dc.LocalCluster(2, dashboard_address="127.0.0.1:0") as cluster:
        patch.setattr(DaskExecutor, "soon", asked)
        dc.run(plan, cluster)
    assert len(near) == 1


# --- what a critical reading found ---------------------------------------------------------------------------


def twenty(tmp_path, last=None):
    """Twenty files, of which the command looks at the first 16 and the survey at the others."""
    for number in range(20):
        (tmp_path / f"{number:02d}.csv.gz").write_bytes(gzip.compress(csv_of(100)))
    if last:
        (tmp_path / "19.csv.gz").write_bytes(gzip.compress(last))
    return tmp_path / "*.csv.gz"


def test_many_files_that_flow(tmp_path, run_bytes, classifiers):
    plan = dc.plan(twenty(tmp_path), classifiers("lengths"), tmp_path / "run")
    assert len(plan.source.flowing) == 20
    assert dc.run(plan, "inline").verify().rows == 2000
    assert run_bytes(tmp_path / "run") == 20 * reference(csv_of(100), known.lengths)
    assert dc.estimate(plan, "inline").rows == 2000


def test_another_header_in_a_file_that_flows(tmp_path, classifiers):
    """It stops the run before anything is classified, as it does with other files."""
    names = twenty(tmp_path, b"id,other\n" + os.urandom(3000).hex().encode() + b",2\n")
    with pytest.raises(SourceError, match="have different columns"):
        dc.run(dc.plan(names, classifiers("lengths"), tmp_path / "run"), "inline")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("lost", ["middle", "end"])
def test_resume_with_a_file_whose_content_says_that_it_flows(tmp_path, run_bytes, classifiers, lost):
    """Behind the first 16 files, only plan.json and the survey know it."""
    for number in range(17):
        (tmp_path / f"{number:02d}.csv").write_bytes(csv_of(10))
    (tmp_path / "17.csv").write_bytes(gzip.compress(csv_of(1000)))
    options = {"input": tmp_path / "??.csv", "classifier": classifiers("lengths"), "block_rows": 100}
    watcher = Watcher(tmp_path / "run", interrupt_after(4) if lost == "middle" else lambda done: None)
    with contextlib.suppress(Interrupted):
        dc.run(dc.plan(**options, output=tmp_path / "run"), "inline", progress=watcher)
    if lost == "end":
        sorted((tmp_path / "run/parts").glob("*.csv.gz"))[-1].unlink()
    assert dc.run(dc.plan(**options, output=tmp_path / "run", resume=True), "inline").verify().rows == 1170
    expected = 17 * reference(csv_of(10), known.lengths) + reference(csv_of(1000), known.lengths)
    assert run_bytes(tmp_path / "run") == expected


@pytest.mark.long
def test_a_share_of_bad_rows_where_a_later_file_has_most_rows(tmp_path):
    """The second file has thirty times as many rows as its compressed size suggests."""
    rng = random.Random(3)
    lines = [f"{n},{rng.randbytes(40).hex()}{',bad' if n % 10 == 0 else ''}\n" for n in range(2000)]
    (tmp_path / "1.csv.gz").write_bytes(gzip.compress(("id,t\n" + "".join(lines)).encode()))
    (tmp_path / "2.csv.gz").write_bytes(gzip.compress(b"id,t\n" + b"1,x\n" * 60_000))
    plan = dc.plan(tmp_path / "*.gz", lambda c: c["t"].str.len(), tmp_path / "run", max_bad="1%", block_rows=100)
    assert dc.run(plan, "inline").bad_rows == 200


def test_memory_does_not_grow_with_rows(tmp_path, monkeypatch):
    """Rows of 20 bytes, then of 20 kB: not more text is read than a piece may have, and what one read adds."""
    lines = [b"%d,x\n" % n for n in range(2000)] + [b"%d,%s\n" % (n, b"y" * 20_000) for n in range(1500)]
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(b"id,t\n" + b"".join(lines), 1))
    plan = dc.plan(tmp_path / "in.csv.gz", lambda c: c["t"].str.len(), tmp_path / "run")
    ((_, file),) = plan.source.flowing
    peaks = []
    read = row_stream.RowStream._read
    monkeypatch.setattr(row_stream.RowStream, "_read", lambda self: (read(self), peaks.append(self._size))[0])
    unpacker, row = unpacking.Unpacker(), 0
    while True:
        order = unpacking.Order(row, (100_000,), largest=4 * 2**20, chunk_rows=100)
        unpacked = unpacker.unpack(file, plan.source.layout, order, "me")
        row += sum(rows for rows, _ in unpacked.pieces)
        assert all(size <= 4 * 2**20 for _, size in unpacked.pieces)
        if unpacked.ended:
            break
    assert row == 3500 and max(peaks) < 6 * 2**20
    assert dc.run(plan, "inline").verify().rows == 3500


def test_a_piece_that_was_changed(cluster, tmp_path, run_bytes, classifiers):
    text = csv_of(4000)
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(text))
    options = {"input": tmp_path / "in.csv.gz", "classifier": classifiers("slow"), "block_rows": 200}

    def shorten(done):
        if done == 1:
            pieces = (tmp_path / "run/unpacked").glob("*.csv")
            piece = max(pieces, key=lambda path: int(path.name.partition("-")[0]))
            piece.write_bytes(piece.read_bytes()[:1000])

    with pytest.raises(StorageError, match="does not have the rows of its block"):
        dc.run(dc.plan(**options, output=tmp_path / "run"), cluster, progress=Watcher(tmp_path / "run", shorten))
    dc.run(dc.plan(**options, output=tmp_path / "run", resume=True), cluster)
    assert run_bytes(tmp_path / "run") == reference(text, known.lengths)


def test_nothing_stays_open_and_nothing_is_left(tmp_path, classifiers):
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(csv_of(1000)))
    (tmp_path / "run/blocks").mkdir(parents=True)
    (tmp_path / "run/blocks/.00003.json.tmp-abc").write_bytes(b"left by a killed writer")
    dc.classify(tmp_path / "in.csv.gz", classifiers("lengths"), tmp_path / "run", cluster="inline")
    opened = [
        os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if Path(f"/proc/self/fd/{fd}").exists()
    ]
    assert not [name for name in opened if "in.csv.gz" in name]
    assert not (tmp_path / "run/blocks").exists() and not (tmp_path / "run/unpacked").exists()


def test_an_overwritten_run_has_lost_its_plan_before_its_parts(tmp_path, classifiers, monkeypatch):
    """If that is interrupted, nothing of the old run can be taken for a part of another."""
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(csv_of(1000)))
    options = {"input": tmp_path / "in.csv.gz", "classifier": classifiers("lengths"), "output": tmp_path / "run"}
    dc.run(dc.plan(**options, block_rows=100), "inline")
    delete, deleted = RunFolder.delete, []

    def interrupted(self, name):
        if len(deleted) == 5:
            raise Interrupted
        deleted.append(name)
        delete(self, name)

    monkeypatch.setattr(RunFolder, "delete", interrupted)
    with pytest.raises(Interrupted):
        dc.run(dc.plan(**options, block_rows=500, overwrite=True), "inline")
    assert deleted[:2] == ["manifest.json", "plan.json"]
    monkeypatch.undo()
    with pytest.raises(OutputExists, match=r"but no plan\.json"):
        dc.run(dc.plan(**options, block_rows=100, resume=True), "inline")


def test_an_estimate_with_a_limit_copies_the_first_rows_alone(tmp_path, classifiers, monkeypatch):
    text = csv_of(20_000)
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(text))
    sizes = []
    copy = csv_files.CsvFile.write_copy
    monkeypatch.setattr(csv_files.CsvFile, "write_copy", lambda *args: (sizes.append(copy(*args)), sizes[-1])[1])
    plan = dc.plan(tmp_path / "in.csv.gz", classifiers("lengths"), tmp_path / "run", limit=300)
    assert dc.estimate(plan, "inline").rows == 300
    assert sizes == [len(b"".join(text.splitlines(keepends=True)[:301]))]


@pytest.mark.parametrize(("number", "rough"), [(0, 0), (7, 7), (99, 99), (204_369, 200_000), (1_960_000, 2_000_000)])
def test_an_estimate_has_two_digits(number, rough):
    assert roughly(number) == rough
    now = Snapshot("classifying", number, 5, 0, number, 1, 1, 1.0, None, is_estimate=True)
    assert number == 0 or (f"5/~{rough:,} rows" in describe(now) and f"1/~{rough:,} blocks" in describe(now))
