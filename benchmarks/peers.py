"""Do the same job with each tool: CSV to gzipped CSV, classified in frames of 100 rows by two processes.

Each peer is what a user of the tool would write in a few minutes, with its defaults except for what the job requires:
text columns, frames of 100 rows, two processes, and sixteen pieces if a tool needs a number. `bench.py` runs each in
its own interpreter:

    python benchmarks/peers.py PEER CLASSIFIER INPUT OUTPUT
"""

import gzip
import itertools
import multiprocessing
import sys
from pathlib import Path

PROCESSES, CHUNK_ROWS, PIECES = 2, 100, 16
COLUMNS = ["ID", "SKU", "FLUX", "MANUFACTURER_NAME", "DESCRIPTION"]
TEXT = {"dtype": str, "keep_default_na": False, "na_filter": False}


def classifier(name):
    import classifiers

    return getattr(classifiers, name)


def read(source, **options):
    import pandas as pd

    return pd.read_csv(source, **TEXT, **options)


def frames(table):
    """Cut a table into frames of 100 rows, indexed by the first column."""
    table = table.set_index("ID")
    return [table.iloc[first : first + CHUNK_ROWS] for first in range(0, len(table), CHUNK_ROWS)]


def classified(name, frame):
    """Return the frame with the column CLASSIFICATION."""
    answer = classifier(name)(frame)
    return answer if hasattr(answer, "columns") else frame.assign(CLASSIFICATION=answer)


def csv(name, frame):
    return classified(name, frame).to_csv(header=False)


def write(output, number, text):
    with gzip.open(Path(output, f"part-{number:05d}.csv.gz"), "wb", compresslevel=6) as file:
        file.write(text.encode())


def byte_ranges(path):
    """Cut a file without quoted fields into pieces of whole rows, as pairs (start, end) of byte offsets."""
    data = Path(path).read_bytes()
    start = data.index(b"\n") + 1
    targets = [start + (len(data) - start) * piece // PIECES for piece in range(1, PIECES)]
    borders = [start, *(data.index(b"\n", offset) + 1 for offset in targets), len(data)]
    return list(itertools.pairwise(borders))


def do_range(name, path, start, stop, output, number):
    """Do the task of one block: read, cut, classify, write."""
    import io

    with Path(path).open("rb") as file:
        file.seek(start)
        table = read(io.BytesIO(file.read(stop - start)), names=COLUMNS)
    write(output, number, "".join(csv(name, frame) for frame in frames(table)))


# --- the peers ---------------------------------------------------------------------------------------


def forks(name, path, output):
    """The least possible work: each of two forks classifies half of the rows, and no data is sent."""
    all_frames = frames(read(path))
    half = -(-len(all_frames) // PROCESSES)

    def work(number):
        write(output, number, "".join(csv(name, frame) for frame in all_frames[number * half : (number + 1) * half]))

    context = multiprocessing.get_context("fork")
    children = [context.Process(target=work, args=(number,)) for number in range(PROCESSES)]
    for child in children:
        child.start()
    for child in children:
        child.join()


class _Csv:
    """`csv` with a fixed classifier, for tools that map a function of one argument."""

    def __init__(self, name):
        self.name = name

    def __call__(self, frame):
        return csv(self.name, frame)


def pool(name, path, output):
    """multiprocessing.Pool.imap over frames."""
    with multiprocessing.get_context("fork").Pool(PROCESSES) as workers:
        write(output, 0, "".join(workers.imap(_Csv(name), frames(read(path)))))


def pool_blocks(name, path, output):
    """multiprocessing.Pool over pieces of the file; workers format and compress with zlib's level 6."""
    tasks = [(name, path, *piece, output, number) for number, piece in enumerate(byte_ranges(path))]
    with multiprocessing.get_context("fork").Pool(PROCESSES) as workers:
        workers.starmap(do_range, tasks, chunksize=1)


def joblib(name, path, output):
    """joblib.Parallel over frames."""
    from joblib import Parallel, delayed

    work = delayed(_Csv(name))
    write(output, 0, "".join(Parallel(n_jobs=PROCESSES)(work(frame) for frame in frames(read(path)))))


def _client():
    from distributed import Client, LocalCluster

    cluster = LocalCluster(n_workers=PROCESSES, threads_per_worker=1, dashboard_address="127.0.0.1:0")
    return Client(cluster), cluster


def dask_frames(name, path, output):
    """One Dask task per frame, on a LocalCluster with its defaults."""
    client, cluster = _client()
    with cluster, client:
        write(output, 0, "".join(client.gather(client.map(_Csv(name), frames(read(path)), pure=False))))


def dask_blocks(name, path, output):
    """One Dask task per piece of the file, on a LocalCluster with its defaults."""
    client, cluster = _client()
    with cluster, client:
        tasks = [(name, path, *piece, output, number) for number, piece in enumerate(byte_ranges(path))]
        client.gather(client.map(do_range, *zip(*tasks, strict=True), pure=False))


def _map_table(table, name):
    import pandas as pd

    return pd.concat([classified(name, frame) for frame in frames(table)])


def dask_dataframe(name, path, output):
    """dask.dataframe.map_partitions, on a LocalCluster with its defaults."""
    import dask.dataframe as dd

    client, cluster = _client()
    with cluster, client:
        table = dd.read_csv(path, blocksize=Path(path).stat().st_size // PIECES, **TEXT)
        meta = read(path, nrows=1).set_index("ID").iloc[:0].assign(CLASSIFICATION=0.5)
        done = table.map_partitions(_map_table, name, meta=meta)
        done.to_csv(f"{output}/part-*.csv.gz", header=False, compression="gzip")


def ray(name, path, output):
    """Ray Data, map_batches of pandas frames."""
    import os

    os.environ["RAY_DEDUP_LOGS"] = "0"
    import pyarrow as pa
    import pyarrow.csv
    import ray as ray_

    ray_.init(num_cpus=PROCESSES, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray_.data.DataContext.get_current().enable_progress_bars = False
    ray_.data.DataContext.get_current().execution_options.preserve_order = True
    types = pa.csv.ConvertOptions(column_types=dict.fromkeys(COLUMNS, pa.string()), strings_can_be_null=False)

    def work(frame):
        return classified(name, frame.set_index("ID")).reset_index()

    data = ray_.data.read_csv(path, convert_options=types).repartition(PIECES)
    done = data.map_batches(work, batch_size=CHUNK_ROWS, batch_format="pandas")

    def options():
        return {"write_options": pa.csv.WriteOptions(include_header=False, quoting_style="none")}

    done.write_csv(output, arrow_open_stream_args={"compression": "gzip"}, arrow_csv_args_fn=options)
    ray_.shutdown()


def spark(name, path, output):
    """PySpark, mapInPandas."""
    import os

    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    size = Path(path).stat().st_size
    session = (
        SparkSession.builder.master(f"local[{PROCESSES}]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", CHUNK_ROWS)
        .config("spark.sql.files.maxPartitionBytes", size // PIECES)
        .config("spark.sql.files.openCostInBytes", 0)
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("OFF")

    def work(batches):
        for frame in batches:
            yield classified(name, frame.set_index("ID")).reset_index()

    types = ", ".join(f"{column} string" for column in COLUMNS)
    done = session.read.csv(path, header=True, schema=types).mapInPandas(work, f"{types}, CLASSIFICATION double")
    done.write.csv(f"{output}/spark", compression="gzip")
    session.stop()


def polars(name, path, output):
    """A polars expression: no Python function is called."""
    import polars as pl

    table = pl.scan_csv(path, infer_schema=False).with_columns(CLASSIFICATION=pl.col("SKU").str.len_chars() * 0.5)
    table.collect().write_csv(f"{output}/part-00000.csv.gz", include_header=False, compression="gzip")


def duckdb(name, path, output):
    """A duckdb expression: no Python function is called."""
    import duckdb as duckdb_

    connection = duckdb_.connect()
    connection.execute(f"SET threads = {PROCESSES}")
    connection.execute(
        f"COPY (SELECT *, length(SKU) * 0.5::DOUBLE FROM read_csv('{path}', all_varchar = true)) "
        f"TO '{output}/part-00000.csv.gz' (HEADER false, COMPRESSION gzip)"
    )


if __name__ == "__main__":
    peer, *arguments = sys.argv[1:]
    globals()[peer](*arguments)
