"""Classify a large .csv.gz and the same rows as Parquet, from a folder and from a bucket, with a near-free classifier.

Rates are stated beside `zcat | wc -l` and `pyarrow.parquet.read_table`. Memory and the space of pieces are looked at
five times a second.

python benchmarks/inputs.py [--rows 37M] [--workers 2] [--folder FOLDER]
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from isal import igzip

import dask_classifier as dc
from dask_classifier import generate
from dask_classifier.units import parse_count

HERE = Path(__file__).parent
CLASSIFIER = f"{HERE / 'processes.py'}:Free"
GROUP_ROWS = 100_000  # of a row group


class Watch:
    """The largest memory of each kind of process, and the largest number and size of pieces in a folder."""

    def __init__(self, folder):
        self.folder, self.over = folder, threading.Event()
        self.memory, self.pieces, self.first = {}, 0, None
        self.began = time.perf_counter()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def _watch(self):
        me = psutil.Process()
        while not self.over.wait(0.2):
            for process in [me, *me.children(recursive=True)]:
                try:
                    name = "client" if process == me else "forkserver" if process.children() else "process"
                    self.memory[name] = max(self.memory.get(name, 0), process.memory_info().rss)
                except psutil.Error:
                    continue
            sizes = [size_of(path) for path in Path(self.folder, "unpacked").glob("*.csv")]
            self.pieces = max(self.pieces, sum(sizes))
            if self.first is None and any(Path(self.folder, "parts").glob("*.json")):
                self.first = time.perf_counter() - self.began

    def close(self):
        self.over.set()
        self.thread.join()


def size_of(path):
    try:
        return path.stat().st_size
    except OSError:
        return 0


def make_inputs(folder, rows):
    """Write in.csv.gz and in.parquet; return the bytes of the text."""
    size = 0
    if not (folder / "in.csv.gz").exists():
        with igzip.open(folder / "new", "wb", compresslevel=1) as out:
            for text in generate.csv_stream(0, rows):
                out.write(text)
        (folder / "new").rename(folder / "in.csv.gz")
    with igzip.open(folder / "in.csv.gz") as text:
        while data := text.read(2**20):
            size += len(data)
    if not (folder / "in.parquet").exists():
        names = list(generate.COLUMNS)
        types = pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
        with igzip.open(folder / "in.csv.gz") as text:
            reader = pa.csv.open_csv(text, pa.csv.ReadOptions(block_size=2**24), convert_options=types)
            with pa.parquet.ParquetWriter(folder / "new", reader.schema, compression="zstd") as out:
                for batch in reader:
                    out.write_table(pa.Table.from_batches([batch]), row_group_size=GROUP_ROWS)
        (folder / "new").rename(folder / "in.parquet")
    return size


def timed(words):
    began = time.perf_counter()
    subprocess.run(words, shell=isinstance(words, str), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def classify(source, output, workers, rows):
    watch = Watch(output)
    with dc.LocalCluster(workers, dashboard_address="127.0.0.1:0") as cluster:
        result = dc.run(dc.plan(source, CLASSIFIER, output), cluster)
    seconds = time.perf_counter() - watch.began
    watch.close()
    assert result.rows == rows
    return seconds, watch.first, watch.pieces, watch.memory, result.verify().sha256


def apart(function, *args):
    """Call a function in a process of its own, so that the memory of one case does not count for the next."""
    with ProcessPoolExecutor(1, get_context("spawn")) as another:
        return another.submit(function, *args).result()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="37M")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", help="where inputs are kept")
    arguments = parser.parse_args()
    rows = parse_count(arguments.rows, "number of rows")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.folder or temporary)
        folder.mkdir(exist_ok=True)
        text = apart(make_inputs, folder, rows)
        sizes = {name: (folder / name).stat().st_size for name in ("in.csv.gz", "in.parquet")}
        print(
            f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPUs, {platform.machine()}, "
            f"Python {platform.python_version()}, {arguments.workers} processes"
        )
        print(f"{rows:,} rows, {text / 1e9:.2f} GB of text; {sizes['in.csv.gz'] / 1e9:.2f} GB as .csv.gz, ", end="")
        print(f"{sizes['in.parquet'] / 1e9:.2f} GB as Parquet")
        read = f"import pyarrow.parquet as pq; pq.read_table({str(folder / 'in.parquet')!r}, use_threads=False)"
        print(f"zcat | wc -l: {timed(f'zcat {folder}/in.csv.gz | wc -l'):.0f} s; ", end="")
        print(f"read_table, one thread: {timed([sys.executable, '-c', read]):.0f} s")
        server = subprocess.Popen([sys.executable, HERE / "bucket.py", str(folder)], stdout=subprocess.PIPE, text=True)
        try:
            address = server.stdout.readline().strip()
            os.environ |= {"AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1"}
            os.environ |= {"AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmark"}
            print("| input | s | rows/s | MB of text/s | first part, s | MB of pieces | MiB client | MiB process |")
            print("|---|---|---|---|---|---|---|---|")
            digests = set()
            for where in ("folder", "bucket"):
                for name in sizes:
                    source = folder / name if where == "folder" else f"s3://bucket/{name}"
                    output = f"{temporary}/run" if where == "folder" else f"s3://bucket/run-{name}"
                    seconds, first, pieces, memory, digest = apart(classify, source, output, arguments.workers, rows)
                    digests.add(digest)
                    first = f"{first:.1f}" if first else ""
                    pieces = f"{pieces / 1e6:.0f}" if where == "folder" else ""
                    mebibytes = " | ".join(f"{memory[name] / 2**20:.0f}" for name in ("client", "process"))
                    print(
                        f"| {name}, {where} | {seconds:.0f} | {rows / seconds:,.0f} | {text / seconds / 1e6:.0f} "
                        f"| {first} | {pieces} | {mebibytes} |",
                        flush=True,
                    )
                    shutil.rmtree(f"{temporary}/run", ignore_errors=True)
            assert len(digests) == 1, "the bytes differ"
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
