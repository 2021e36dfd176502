"""Compare classifier processes behind one Dask worker with one single-threaded Dask worker per core.

Both process the same blocks with the same code and write the same parts. Rounds are interleaved, and each is a new
interpreter, so that start-up counts. The script also counts the rows that come out wrong when a black box seeds
Python's global random generator.

    python benchmarks/processes.py [--rounds 5]
"""

import argparse
import hashlib
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WAYS = ("classifier processes", "one Dask worker per core")
WORK = {"blackbox": 8_000, "free": 1_000_000, "seeding": 40_000}
BLOCKS = {"blackbox": 500, "free": 20_000, "seeding": 1_000}
CORES = 2


class Free:
    """Near-free: a number from one column."""

    def __call__(self, chunk):
        return chunk["SKU"].str.len() * 0.5


class Seeding:
    """Seed the global random generator, as an early version of the demo's black box did."""

    def __call__(self, chunk):
        import random

        def score(row):
            random.seed(row.name)
            return random.random() + random.random()

        return chunk.apply(score, axis=1)


def plan_for(kind, output):
    import dask_classifier as dc

    classifier = "blackbox" if kind == "blackbox" else f"{__file__}:{kind.title()}"
    return dc.plan(rows=WORK[kind], output=output, classifier=classifier, block_rows=BLOCKS[kind])


def run_processes(plan):
    import dask_classifier as dc

    with dc.LocalCluster(CORES, dashboard_address="127.0.0.1:0") as cluster:
        dc.run(plan, cluster)
        return cpu_seconds()


def run_workers(plan):
    """Run on single-threaded Dask workers, the usual way around the GIL, with this package's settings of Dask."""
    import dask
    from distributed import Client, LocalCluster, wait

    from dask_classifier import tasks
    from dask_classifier.classifier.job import Site
    from dask_classifier.engine.dask_settings import DASK_SETTINGS
    from dask_classifier.rows.blocks import cut

    job = plan.job(0)
    blocks = cut(plan.source.surveyed([])[1], lambda left: plan.block_rows)
    with dask.config.set(DASK_SETTINGS):
        with (
            LocalCluster(CORES, threads_per_worker=1, dashboard_address="127.0.0.1:0", memory_limit=0) as cluster,
            Client(cluster) as client,
        ):
            futures = [
                client.submit(
                    tasks.classify_block, Site("", plan.package.home), _silent, job, plan.source.read_by(block), block
                )
                for block in blocks
            ]
            wait(futures)
            [future.result() for future in futures]
            return cpu_seconds()


def _silent(rows, bad):
    pass


def cpu_seconds():
    """Return the CPU seconds of this process and all of its children, alive or reaped."""
    import psutil

    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(used.user + used.system + used.children_user + used.children_system for used in times)


def one(way, kind):
    """Make one measurement and print it as JSON."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_for(kind, folder)
        cpu = (run_processes if way == WAYS[0] else run_workers)(plan)
        seconds = time.perf_counter() - started
        parts = [part.read_bytes() for part in sorted(Path(folder, "parts").glob("*.gz"))]
        print(
            json.dumps(
                {
                    "wall": seconds,
                    "cpu": cpu,
                    "wrong": wrong_rows(kind, parts),
                    "digest": hashlib.sha256(b"".join(parts)).hexdigest(),
                }
            )
        )


def wrong_rows(kind, parts):
    """Count the rows whose answer differs from that of a process in which nothing else runs."""
    if kind != "seeding":
        return 0
    import gzip
    import random

    lines = b"".join(map(gzip.decompress, parts)).decode().splitlines()
    wrong = 0
    for line in lines:
        name, *_, score = line.split(",")
        random.seed(name)
        wrong += float(score) != random.random() + random.random()
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", nargs=2)
    arguments = parser.parse_args()
    if arguments.one:
        return one(*arguments.one)
    print(
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {CORES} processes, "
        f"Python {platform.python_version()}, {arguments.rounds} rounds"
    )
    for kind in WORK:
        results = {way: [] for way in WAYS}
        for _ in range(arguments.rounds):
            for way in WAYS:
                done = subprocess.run(
                    [sys.executable, __file__, "--one", way, kind], capture_output=True, text=True, check=True
                )
                results[way].append(json.loads(done.stdout))
        for way, measurements in results.items():
            wall, cpu = ([result[what] for result in measurements] for what in ("wall", "cpu"))
            print(
                f"{kind:9} {WORK[kind]:>9,} rows  {way:24} "
                f"wall {statistics.median(wall):6.2f} s ({min(wall):.2f} to {max(wall):.2f}), "
                f"CPU {statistics.median(cpu):6.2f} s, wrong rows {sum(result['wrong'] for result in measurements)}"
            )
        if kind != "seeding":
            assert len({result["digest"] for measurements in results.values() for result in measurements}) == 1
    return None


if __name__ == "__main__":
    main()
