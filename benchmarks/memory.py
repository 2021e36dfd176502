"""Measure the peak memory of a run, in the client (with scheduler and Dask worker) and in each classifier process.

python benchmarks/memory.py [--rows 30M] [--workers 2] [--input FILE]
"""

import argparse
import platform
import tempfile
import threading
import time

import psutil

import dask_classifier as dc

CLASSIFIER = "benchmarks/processes.py:Free"


def watch(peaks, over):
    """Record the largest resident set size of each process, in bytes, until `over` is set."""
    me = psutil.Process()
    while not over.wait(0.2):
        for process in [me, *me.children(recursive=True)]:
            try:
                name = "client" if process == me else "forkserver" if process.children() else f"process {process.pid}"
                peaks[name] = max(peaks.get(name, 0), process.memory_info().rss)
            except psutil.Error:
                continue


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="30M")
    parser.add_argument("--input")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    peaks, over = {}, threading.Event()
    watcher = threading.Thread(target=watch, args=(peaks, over), daemon=True)
    watcher.start()
    with tempfile.TemporaryDirectory() as folder:
        source = {"input": arguments.input} if arguments.input else {"rows": arguments.rows}
        started = time.perf_counter()
        with dc.LocalCluster(arguments.workers, dashboard_address="127.0.0.1:0") as cluster:
            result = dc.run(dc.plan(**source, output=folder, classifier=CLASSIFIER), cluster)
        seconds = time.perf_counter() - started
        over.set()
        started = time.perf_counter()
        verified = result.verify()
        verifying = time.perf_counter() - started
    print(
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, Python {platform.python_version()}, "
        f"{arguments.workers} processes"
    )
    print(
        f"{result.rows:,} rows in {seconds:.0f} s, {result.rows / seconds:,.0f} rows/s; "
        f"{verified.parts:,} parts verified in {verifying:.0f} s"
    )
    for name, peak in peaks.items():
        print(f"peak of {name}: {peak / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
