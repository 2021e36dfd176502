"""Measure a run on a large simulated cluster.

The scheduler, the Dask workers, the pipeline, the Dask tasks, and the parts and receipts written to a bucket over HTTP
are real. The classifier is simulated: it sleeps for as long as the demo's black box works, at 270 rows/s per process,
with a spread of 3% between processes. So parts are empty.

Everything shares the cores of this machine, so the efficiency is a lower bound.

    python benchmarks/scale.py [--processes 112,256,1000] [--rows 10M,30M] [--block-rows auto]
"""

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

HERE = Path(__file__).parent
SECONDS_A_ROW = 1 / 270  # the demo's black box does 270 to 295 rows/s on a core
SPREAD = 0.03  # of processes' speeds, one standard deviation
THREADS = 16  # processes of one worker, as on a 16-vCPU instance
WORKERS_A_PROCESS = 2  # simulated workers in one Python process: more would wait for its one S3 client


# --- simulated: the classifier processes of one worker -------------------------------------------------


class SleepingProcesses:
    """Simulate `ClassifierProcesses`: each thread of the worker sleeps in place of a child, at a speed of its own."""

    def __init__(self, count, site, environment=None, renewal=None):
        import threading

        self.site, self.own = site, threading.local()

    def call(self, task, *args, on_report, on_start=None, on_output=None, timeout=None):
        from dask_classifier.classifier.job import TRY_OUT, Trial

        if task == TRY_OUT:
            *_, rows, _ = args
            time.sleep(0.25)
            return Trial(len(rows), SECONDS_A_ROW)
        return self._block(*args, on_report)

    def _block(self, job, files, block, report):
        """Sleep, with reports of progress as from a classifier process; then commit an empty part."""
        from dask_classifier.parts.writer import PartWriter
        from dask_classifier.rows.borders import Rows
        from dask_classifier.rows.chunks import Parsed

        if not hasattr(self.own, "slowness"):
            self.own.slowness = random.Random().gauss(1, SPREAD)
        part = PartWriter(job, block.index, Parsed(Rows(b"", [0]), job.layout, None, plain=False), self.site.worker)
        for first in range(0, block.rows, 1000):
            time.sleep(min(1000, block.rows - first) * SECONDS_A_ROW * self.own.slowness)
            report(first, 0)
        part.rows = block.rows
        return part.commit()

    def stop_idle(self):
        pass

    def pids(self):
        return []

    def close(self):
        pass


def workers(address, first, count):
    """Run simulated workers until they are killed."""
    import asyncio

    import dask
    from distributed import Worker

    from dask_classifier.engine import worker_plugin as ours
    from dask_classifier.engine.dask_settings import DASK_SETTINGS
    from dask_classifier.parts import writer  # noqa: F401  imports pandas, as a forkserver does

    ours.ClassifierProcesses, ours.start_forkserver = SleepingProcesses, lambda: None

    async def run():
        names = [f"vm{number}" for number in range(first, first + count)]
        async with contextlib.AsyncExitStack() as stack:
            for name in names:
                await stack.enter_async_context(Worker(address, nthreads=THREADS, name=name, memory_limit=0))
            await asyncio.Event().wait()

    with dask.config.set(DASK_SETTINGS):
        asyncio.run(run())


# --- real: the client -----------------------------------------------------------------------------------


def client(address, workers, rows, output, block_rows):
    """Run once and print the figures as JSON."""
    from distributed import Client

    import dask_classifier as dc

    me, begun = psutil.Process(), time.time()
    with Client(address, set_as_default=False) as connection:
        connection.wait_for_workers(workers, timeout=120)
        scheduler_used = connection.run_on_scheduler(time.process_time)
        used, started = sum(me.cpu_times()[:2]), time.time()
        result = dc.run(dc.plan(rows=rows, output=output, block_rows=block_rows), connection)
        seconds = time.time() - started
        used = sum(me.cpu_times()[:2]) - used
        scheduler_used = connection.run_on_scheduler(time.process_time) - scheduler_used
    receipts = result.receipts
    ends = {}
    for receipt in receipts:
        ends[receipt.worker] = max(ends.get(receipt.worker, 0), receipt.started + receipt.seconds)
    first, last = min(receipt.started for receipt in receipts), max(ends.values())
    slept = sum(receipt.rows for receipt in receipts) * SECONDS_A_ROW
    busy = sum(receipt.seconds for receipt in receipts)
    figures = {
        "wall": seconds,
        "start": first - started,
        "writing": busy - slept,
        "busy": busy,
        "rows": result.rows,
        "joining": started - begun,
        "work": last - first,
        "blocks": len(receipts),
        "tail": last - statistics.median(ends.values()),
        "client cpu": used,
        "scheduler cpu": scheduler_used,
        "client memory": me.memory_info().rss / 2**20,
    }
    print(json.dumps(figures))


# --- one simulation --------------------------------------------------------------------------------------


def simulate(processes, rows, block_rows, bucket, environment):
    """Return the figures of one run on a number of processes."""
    count = -(-processes // THREADS)
    with contextlib.ExitStack() as stack:

        def start(*arguments, **options):
            child = subprocess.Popen([sys.executable, *arguments], env=environment, **options)
            stack.callback(child.wait)
            stack.callback(child.kill)
            return child

        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            place = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
            scheduler = start(
                "-m", "distributed.cli.dask_scheduler", *place, "--scheduler-file", file.name, stderr=subprocess.DEVNULL
            )
            address = wait_for(lambda: json.loads(Path(file.name).read_text())["address"])
        for first in range(0, count, WORKERS_A_PROCESS):
            batch = min(WORKERS_A_PROCESS, count - first)
            start(__file__, "--workers", address, str(first), str(batch), stderr=subprocess.DEVNULL)
        output = f"s3://{bucket}/{processes}-{rows}-{time.time():.0f}"
        call = [sys.executable, __file__, "--client", address, str(count), rows, output, block_rows]
        done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        figures = json.loads(done.stdout.splitlines()[-1])
        figures["scheduler memory"] = psutil.Process(scheduler.pid).memory_info().rss / 2**20
    ideal = figures["rows"] * SECONDS_A_ROW / (count * THREADS)
    threads = count * THREADS  # each in place of a process
    figures["writing"] *= 100 / (threads * figures["work"])
    figures["waiting"] = 100 - 100 * figures["busy"] / (threads * figures["work"])
    return figures | {"processes": count * THREADS, "ideal": ideal, "efficiency": ideal / figures["wall"]}


def wait_for(look, seconds=30):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(ValueError, KeyError, OSError):
            return look()
        time.sleep(0.1)
    raise SystemExit(f"The scheduler has not started within {seconds} s.")


@contextlib.contextmanager
def local_s3():
    """Start a bucket; yield its name, and the environment variables that point to it."""
    server = subprocess.Popen([sys.executable, str(HERE / "bucket.py")], stdout=subprocess.PIPE, text=True)
    try:
        fake = {"AWS_ACCESS_KEY_ID": "fake", "AWS_SECRET_ACCESS_KEY": "fake", "AWS_DEFAULT_REGION": "us-east-1"}
        yield "scale", os.environ | fake | {"AWS_ENDPOINT_URL": server.stdout.readline().strip()}
    finally:
        server.kill()
        server.wait()


def print_row(rows, block_rows, row):
    cells = [rows, row["processes"], block_rows, row["blocks"], f"{row['ideal']:.0f}", f"{row['wall']:.1f}"]
    cells += [f"{row['efficiency']:.3f}"]
    cells += [f"{row[name]:.1f}" for name in ("start", "writing", "waiting", "tail")]
    for who in ("client", "scheduler"):
        cells += [f"{100 * row[f'{who} cpu'] / row['wall']:.1f}", f"{row[f'{who} memory']:.0f}"]
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", default="112,256,1000")
    parser.add_argument("--rows", default="10M")
    parser.add_argument("--block-rows", default="auto", help="auto, or fixed sizes to compare, separated by commas")
    parser.add_argument("--workers", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--client", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.workers:
        return workers(arguments.workers[0], *map(int, arguments.workers[1:]))
    if arguments.client:
        address, count, *rest = arguments.client
        return client(address, int(count), *rest)
    columns = ["rows", "processes", "block rows", "blocks", "ideal, s", "run, s", "efficiency"]
    columns += ["start, s", "writing, %", "waiting, %", "tail, s"]
    columns += ["client CPU, %", "client MiB", "scheduler CPU, %", "scheduler MiB"]
    print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} vCPUs for everything\n")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    with local_s3() as (bucket, environment):
        for rows in arguments.rows.split(","):
            for processes in map(int, arguments.processes.split(",")):
                for block_rows in arguments.block_rows.split(","):
                    print_row(rows, block_rows, simulate(processes, rows, block_rows, bucket, environment))
    return None


if __name__ == "__main__":
    main()
