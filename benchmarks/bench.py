"""Compare this tool with the alternatives, on the same rows with the same classifier.

Rounds are interleaved, and each run is a new interpreter, so that start-up counts and a slow minute of the machine
affects all tools. The CPU time of a run covers all its processes, including those that outlive it: they become children
of this process (PR_SET_CHILD_SUBREAPER), which waits for them. If nobody waits for a process, its CPU time is sampled.
Peak memory is the sampled sum of PSS. Start is the time until the first call of the classifier; work lasts until its
last answer.

    python benchmarks/bench.py [--quick] [--rounds 5] [--only NAME,...] [--kinds blackbox,free] [--write]

`--write` saves the table, the figures and the chart in docs/.
"""

import argparse
import contextlib
import ctypes
import gzip
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import resource
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

HERE = Path(__file__).parent
FIGURES = HERE.parent / "docs" / "figures"
OURS = "dask-classify"
GENERATED = "dask-classify, generated rows"
KINDS = {
    "blackbox": {
        "title": "The demo's black box",
        "rows": {"quick": 4_000, "full": 16_000},
        "peers": ["forks", "pool", "joblib", OURS, "dask_blocks", "dask_frames", "dask_dataframe", "ray", "spark"],
    },
    "free": {
        "title": "A near-free classifier",
        "rows": {"quick": 200_000, "full": 1_000_000},
        "peers": [
            "forks", "pool_blocks", OURS, GENERATED, "dask_blocks", "dask_dataframe", "polars", "duckdb",
        ],
    },
}  # fmt: skip
NAMES = {
    "forks": "two forks",
    "pool": "multiprocessing.Pool.imap, frames",
    "pool_blocks": "multiprocessing.Pool, blocks",
    "joblib": "joblib.Parallel, frames",
    "dask_blocks": "Dask, stock, block tasks",
    "dask_frames": "Dask, stock, frame tasks",
    "dask_dataframe": "dask.dataframe.map_partitions",
    "ray": "Ray Data map_batches",
    "spark": "PySpark mapInPandas",
    "polars": "polars (an expression)",
    "duckdb": "duckdb (an expression)",
}
TIME_LIMIT = 600  # seconds for one run
TARGETS = [  # kind, what, of whom, against whom, at most
    ("blackbox", "work", OURS, "forks", 1.03),
    ("blackbox", "wall", OURS, "pool", 1.03),
    ("blackbox", "wall", OURS, "dask_blocks", 0.85),
    ("blackbox", "wall", OURS, "dask_dataframe", 0.75),
    ("blackbox", "wall", OURS, "ray", 0.55),
    ("blackbox", "wall", OURS, "spark", 0.40),
    ("free", "wall", OURS, "pool_blocks", 1 / 1.5),
    ("free", "wall", OURS, "dask_blocks", 1 / 2.5),
]


# --- one run -----------------------------------------------------------------------------------------


def command(peer, kind, rows, source, output):
    if peer not in (OURS, GENERATED):
        return [sys.executable, str(HERE / "peers.py"), peer, kind, str(source), str(output)]
    what = ["--input", str(source)] if peer == OURS else ["--rows", str(rows)]
    options = ["--classifier", f"{HERE / 'classifiers.py'}:{kind}", "--workers", "2", "--quiet"]
    program = str(Path(sys.executable).with_name("dask-classify"))
    return [program, *what, *options, "--dashboard-address", "127.0.0.1:0", "--output", str(output)]


def run(peer, kind, rows, source):
    """Run a peer once and return its figures."""
    with tempfile.TemporaryDirectory() as folder:
        output, notes = Path(folder, "output"), Path(folder, "notes")
        notes.mkdir()
        if peer not in (OURS, GENERATED):
            output.mkdir()
        cpu, sampler = cpu_of_children(), Sampler()
        sampler.start()
        started = time.time()
        environment = os.environ | {"BENCH_NOTES": str(notes), "PYTHONPATH": str(HERE)}
        with Path(folder, "talk").open("wb") as talk:
            call = command(peer, kind, rows, source, output)
            try:
                code = subprocess.Popen(call, stdout=talk, stderr=talk, env=environment, cwd=folder).wait(TIME_LIMIT)
                wall = time.time() - started
            finally:
                sampler.stop()
                end_leftovers()
        if code:
            raise SystemExit(f"{peer} failed:\n{Path(folder, 'talk').read_text()[-3000:]}")
        used = max(cpu_of_children() - cpu, sampler.cpu)  # Ray's and Spark's daemons do not wait for their processes
        figures = {"wall": wall, "cpu": used, "memory": sampler.peak, "digest": digest(output)}
        figures |= first_block(output, started) if peer in (OURS, GENERATED) else {}
        return figures | noted(notes, started)


def cpu_of_children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Sampler(threading.Thread):
    """Sample all descendants of this process.

    `peak` is the largest sum of their proportional set sizes, in bytes. `cpu` is the sum of their CPU seconds, each as
    sampled last, including processes for which nobody waited.
    """

    def __init__(self):
        super().__init__()
        self.peak, self.used, self.over = 0, {}, threading.Event()

    def run(self):
        while not self.over.wait(0.3):
            self.peak = max(self.peak, sum(map(self.look, psutil.Process().children(recursive=True))))

    def look(self, process):
        try:
            times = process.cpu_times()
            self.used[process.pid, process.create_time()] = times.user + times.system
            return process.memory_full_info().pss
        except psutil.Error:
            return 0

    @property
    def cpu(self):
        return sum(self.used.values())

    def stop(self):
        self.over.set()
        self.join()


def end_leftovers():
    """Kill and reap processes that a run left behind, so that their CPU time counts."""
    for _ in range(100):
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.05)


def noted(folder, started):
    """Return the seconds until the classifier's first call, and from there to its last answer."""
    spans = [struct.unpack("dd", path.read_bytes()) for path in folder.iterdir()]
    if not spans:
        return {}
    first, last = min(span[0] for span in spans), max(span[1] for span in spans)
    return {"start": first - started, "work": last - first}


def first_block(output, started):
    parts = json.loads((output / "manifest.json").read_text())["parts"]
    return {"first block": min(part["started"] for part in parts) - started}


def digest(output):
    """Return the SHA-256 of all rows, decompressed, in the order of the files' names."""
    sha256 = hashlib.sha256()
    for path in sorted(filter(Path.is_file, output.rglob("*"))):
        if path.read_bytes()[:2] == b"\x1f\x8b":
            with gzip.open(path) as file:
                while data := file.read(2**20):
                    sha256.update(data)
    return sha256.hexdigest()


# --- all of them -------------------------------------------------------------------------------------


def measure(kind, rows, rounds, only, folder):
    source = Path(folder, f"{kind}.csv")
    program = Path(sys.executable).with_name("dask-classify")
    subprocess.run([program, "generate", "--rows", str(rows), str(source)], check=True, stderr=subprocess.DEVNULL)
    peers = [peer for peer in KINDS[kind]["peers"] if not only or peer in only]
    if "spark" in peers and shutil.which("java") is None:
        print("Skipping PySpark: java is not installed.", file=sys.stderr)
        peers.remove("spark")
    runs = {peer: [] for peer in peers}
    for number in range(rounds):
        for peer in peers[number % len(peers) :] + peers[: number % len(peers)]:  # each round starts with another peer
            runs[peer].append(run(peer, kind, rows, source))
            print(f"{kind} {number + 1}/{rounds} {peer}: {runs[peer][-1]['wall']:.1f} s", file=sys.stderr, flush=True)
    return runs


def median(runs, what):
    values = [figures[what] for figures in runs if what in figures]
    return statistics.median(values) if values else float("nan")


def table(kind, rows, runs_by_peer):
    """Return the figures of one classifier as Markdown."""
    expected = runs_by_peer["forks"][0]["digest"] if "forks" in runs_by_peer else None
    lines = [
        "| | whole command, s (lowest to highest) | rows/s | start, s | work, s | CPU, s | peak memory, MiB | bytes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for peer, runs in sorted(runs_by_peer.items(), key=lambda item: median(item[1], "wall")):
        wall = [figures["wall"] for figures in runs]
        middle = statistics.median(wall)
        times = [median(runs, what) for what in ("start", "work", "cpu")]
        cells = [NAMES.get(peer, peer), f"{middle:.1f} ({min(wall):.1f} to {max(wall):.1f})", f"{rows / middle:,.0f}"]
        cells += ["" if math.isnan(value) else f"{value:.1f}" for value in times]
        cells += [f"{median(runs, 'memory') / 2**20:.0f}"]
        same = {figures["digest"] for figures in runs} == {expected}
        cells += ["" if expected is None else "the same" if same else "differ"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def targets(results):
    """Return a table of the targets, with the measured values and those of two forks, which do nothing but the work."""
    lines = ["| | | target | measured | two forks | |", "|---|---|---|---|---|---|"]

    def add(kind, what, target, measured, floor, met):
        cells = [KINDS[kind]["title"], what, target, measured, floor, "met" if met else "missed"]
        lines.append(f"| {' | '.join(cells)} |")

    for kind, what, ours, peer, most in TARGETS:
        runs = results.get(kind, {}).get("runs", {})
        if ours in runs and peer in runs:
            ratio = median(runs[ours], what) / median(runs[peer], what)
            floor = f"{median(runs['forks'], what) / median(runs[peer], what):.2f}" if "forks" in runs else ""
            name = f"{'work' if what == 'work' else 'whole command'}, against {NAMES[peer]}"
            add(kind, name, f"<= {most:.2f}", f"{ratio:.2f}", floor, ratio <= most)
    for kind, result in results.items():
        for name in [name for name in (OURS, GENERATED) if name in result["runs"]]:
            seconds = median(result["runs"][name], "first block")
            add(kind, f"{name}: until the first block is at work", "<= 1.50 s", f"{seconds:.2f} s", "", seconds <= 1.5)
            speed = {peer: result["rows"] / median(runs, "wall") for peer, runs in result["runs"].items()}
            if kind == "free":
                floor = f"{speed['forks']:,.0f}" if "forks" in speed else ""
                add(kind, f"{name}: rows/s", ">= 120,000", f"{speed[name]:,.0f}", floor, speed[name] >= 120_000)
    return "\n".join(lines)


def machine():
    names = ("dask", "pandas", "pyarrow", "joblib", "ray", "pyspark", "polars", "duckdb")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    with Path("/proc/cpuinfo").open() as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    where = f"{os.cpu_count()} vCPUs ({model}), Python {platform.python_version()}"
    return f"{time.strftime('%Y-%m-%d')}, {where}, {versions}"


def report(where, results):
    rounds = max(len(runs) for result in results.values() for runs in result["runs"].values())
    pieces = [f"{where}; {rounds} rounds, interleaved; two processes."]
    for kind, result in results.items():
        pieces += [f"## {KINDS[kind]['title']}, {result['rows']:,} rows", table(kind, result["rows"], result["runs"])]
    return "\n\n".join([*pieces, "## Targets", targets(results)]) + "\n"


def picture(results, path):
    """Draw a bar chart of the medians, with the lowest and highest values, for each classifier."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(results), figsize=(6.5 * len(results), 4.2), squeeze=False)
    for axis, (kind, result) in zip(axes[0], results.items(), strict=True):
        wall = {peer: [figures["wall"] for figures in runs] for peer, runs in result["runs"].items()}
        order = sorted(wall, key=lambda peer: statistics.median(wall[peer]), reverse=True)
        for position, peer in enumerate(order):
            low, middle, high = min(wall[peer]), statistics.median(wall[peer]), max(wall[peer])
            color = "#d1495b" if peer in (OURS, GENERATED) else "#9aa5b1"
            axis.barh(position, middle, xerr=[[middle - low], [high - middle]], color=color, ecolor="#52606d")
            axis.text(high, position, f"  {middle:.1f} s", va="center", fontsize=8)
        axis.set_yticks(range(len(order)), [NAMES.get(peer, peer) for peer in order], fontsize=8)
        axis.set_xlim(0, 1.15 * max(max(seconds) for seconds in wall.values()))
        axis.set_title(f"{KINDS[kind]['title']}, {result['rows']:,} rows, two processes", fontsize=10)
        axis.set_xlabel("duration of the whole command in seconds: median, lowest and highest", fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rows and three rounds: takes a few minutes")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--only", default="", help="names of peers, separated by commas")
    parser.add_argument("--kinds", default=",".join(KINDS), help="blackbox, free, or both, separated by a comma")
    parser.add_argument("--write", action="store_true", help="write the results to docs/")
    parser.add_argument("--again", action="store_true", help="make the table and the chart from the last results")
    arguments = parser.parse_args()
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
    if arguments.again:
        results = json.loads((FIGURES / "bench.json").read_text())
        show(results.pop("machine"), results, write=True)
    else:
        show(machine(), measured(arguments), write=arguments.write)


def measured(arguments):
    """Run all peers in all rounds and return the results."""
    size = "quick" if arguments.quick else "full"
    rounds = arguments.rounds or (3 if arguments.quick else 5)
    only = set(filter(None, arguments.only.split(",")))
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in arguments.kinds.split(","):
            rows = KINDS[kind]["rows"][size]
            results[kind] = {"rows": rows, "runs": measure(kind, rows, rounds, only, folder)}
    return results


def show(where, results, *, write):
    """Print the tables; with `write`, save them, the figures and the chart in docs/."""
    text = report(where, results)
    print(text)
    if write:
        FIGURES.mkdir(exist_ok=True)
        (FIGURES / "bench.md").write_text(text)
        (FIGURES / "bench.json").write_text(json.dumps({"machine": where} | results, indent=1))
        picture(results, FIGURES / "bench.svg")


if __name__ == "__main__":
    main()
