"""How good the predictions of `dask-classify plan` are: predict runs, run them, and compare.

Classifiers of several kinds run on 1 to 8 real processes and on simulated ones. They sleep, except for the black box,
so that 8 processes do not need 8 cores. A simulated run is the program's own cut of the source into blocks, with times
drawn row by row, on a heap of processes: what differs from the prediction is what the sample could not see.

Each case is predicted cold, from its sample alone, and warm, with one earlier run of the same classifier.

    python benchmarks/calibration.py [--repeat 4] [--write]
"""

import argparse
import datetime
import itertools
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

import dask_classifier as dc
from dask_classifier.classifier.job import Measured, Trial
from dask_classifier.planner import records
from dask_classifier.planner.places import here
from dask_classifier.planner.planner import Planner, sample_of
from dask_classifier.planner.sample import PLACES, STRATA, Measurements, Sample
from dask_classifier.planner.simulation import LOCAL_BLOCK_SECONDS, blocks_of, simulate
from dask_classifier.rows.blocks import Marks

RAW = Path(__file__).parents[1] / "build" / "calibration.json"
PAGE = Path(__file__).parents[1] / "docs" / "figures" / "calibration.md"
CODE = """
import time

first = True

def even(chunk):
    time.sleep(chunk["ms"].astype(float).sum() / 1000)
    return chunk["ms"].str.len().rename("CLASSIFICATION")

def slow_first(chunk):
    global first
    if first:
        time.sleep(1.5)
        first = False
    return even(chunk)

def overhead(chunk):
    time.sleep(0.02)
    return even(chunk)
"""
SECONDS = 16.0  # of work in a real run on two processes


@dataclass(frozen=True)
class Kind:
    """A kind of classifier: its function, and milliseconds per row along the source."""

    name: str
    function: str
    draw: object  # from a generator and a number of rows to milliseconds per row


def _sorted(random, rows):
    return np.linspace(0.5, 3.5, rows)


KINDS = [
    Kind("even", "even", lambda random, rows: np.full(rows, 2.0)),
    Kind("scattered", "even", lambda random, rows: random.gamma(4, 0.5, rows)),
    Kind("heavy-tailed", "even", lambda random, rows: random.lognormal(0.0, 1.2, rows)),
    Kind("sorted file", "even", _sorted),
    Kind("slow first call", "slow_first", lambda random, rows: np.full(rows, 2.0)),
    Kind("20 ms per call", "overhead", lambda random, rows: np.full(rows, 1.8)),
]


@dataclass(frozen=True)
class Outcome:
    """A prediction and the truth, in seconds."""

    kind: str
    processes: int
    real: bool
    warm: bool
    low: float
    mid: float
    high: float
    truth: float
    sampling: float  # seconds
    allowed: float  # seconds for sampling: 2, or 1 % of the work

    @property
    def error(self):
        return abs(self.mid - self.truth) / self.truth

    @property
    def inside(self):
        return self.low <= self.truth <= self.high


# --- real runs -------------------------------------------------------------------------------------------


def real_runs(folder, repeat):
    """Predict and run each kind on each number of processes, cold and then warm."""
    (folder / "mine.py").write_text(CODE)
    cases = [*itertools.product(KINDS, (1, 2, 4, 8)), *((None, processes) for processes in (1, 2))]
    for number, (kind, processes) in itertools.product(range(repeat), cases):
        yield from _real(folder, kind, processes, number)


def _real(folder, kind, processes, number):
    random = np.random.default_rng(1000 * number + processes)
    name = kind.name if kind else "black box"
    runs = folder / f"runs {name} {processes} {number}"
    if kind:
        rows = int(SECONDS * 1000 / 2 * (processes / 2) ** 0.5)
        file = folder / "in.csv"
        pd.DataFrame({"ms": kind.draw(random, rows).round(4)}).to_csv(file, index_label="id")
        source = {"input": file, "classifier": f"{folder}/mine.py:{kind.function}"}
    else:
        source = {"rows": 4000 * processes, "seed": number}
    for attempt, warm in enumerate((False, True)):
        plan = dc.plan(output=runs / str(attempt), **source)
        with dc.LocalCluster(processes, dashboard_address="127.0.0.1:0") as cluster:
            sample = sample_of(plan, cluster)
        choice = Planner(plan, sample, records.records(str(runs))).choice(here(processes, os.cpu_count()))
        began = time.perf_counter()
        with dc.LocalCluster(processes, dashboard_address="127.0.0.1:0") as cluster:
            result = dc.run(plan, cluster, prediction=choice.prediction)
        predicted, truth = choice.prediction["seconds"], result.manifest["seconds"]
        work = sample.rows * sample.measured.seconds_a_row
        yield Outcome(
            name, processes, True, warm, predicted["low"], predicted["mid"], predicted["high"], truth,
            sample.seconds, max(2.0, 0.01 * work / processes),
        )  # fmt: skip
        print(f"{name:16} {processes} {'warm' if warm else 'cold'}: {predicted['mid']:.1f}, took {truth:.1f} "
              f"({time.perf_counter() - began:.0f} s)", flush=True)  # fmt: skip
    shutil.rmtree(runs)


# --- simulated runs ---------------------------------------------------------------------------------------


def simulated_runs(repeat):
    """Predict and simulate each kind on many processes, with a spread of 3 % between their speeds."""
    for number, kind, processes in itertools.product(range(repeat), KINDS, (16, 32, 64, 128, 256)):
        generator = np.random.default_rng(77_000 * (number + 1) + processes)
        rows = 200_000 + 4000 * processes
        spent = np.cumsum(np.concatenate([[0.0], kind.draw(generator, rows) / 1000]))
        yield _simulated(kind, processes, spent, generator)


def _simulated(kind, processes, spent, generator):
    rows = len(spent) - 1
    overhead = 0.02 if kind.function == "overhead" else 0.0
    loading = 1.5 if kind.function == "slow_first" else 0.0
    calls = []
    for number in range(3 * STRATA):
        fifth = number % STRATA
        places = ((fifth + (np.arange(PLACES) + generator.random()) / PLACES) * rows / STRATA).astype(int)
        places = np.minimum(places, rows - 10)
        seconds = float((spent[places + 10] - spent[places]).sum()) + overhead
        calls.append((fifth, Measured(100, seconds, 0.0, None)))
    trial = Trial(2000, float(spent[40]) / 40 + overhead / 100)
    marks = (Marks((0, 0), (0, rows)),)
    sample = Sample(rows, marks, 10.0, trial, Measurements(tuple(calls)), loading, loading, 2, 2, False, 1.0, 2.0)
    plan = dc.plan(rows=rows, output="runs/never")
    choice = Planner(plan, sample).choice(replace(here(processes, 2), where="local"))
    blocks = blocks_of(plan, sample, processes)
    first = np.array([block.spans[0].first_row for block in blocks])
    counts = np.array([block.rows for block in blocks])
    work = spent[first + counts] - spent[first] + overhead * np.ceil(counts / 100)
    work = work * generator.normal(1, 0.03) * generator.normal(1, 0.02, len(work))
    truth = simulate(work, processes, first_seconds=loading, block_seconds=LOCAL_BLOCK_SECONDS).seconds
    truth += sample.start_seconds  # a prediction ends with the published results, and so does this
    predicted = choice.prediction["seconds"]
    return Outcome(
        kind.name, processes, False, False, predicted["low"], predicted["mid"], predicted["high"], truth, 2.0, 2.0
    )


# --- the page ---------------------------------------------------------------------------------------------


def table(outcomes):
    """Return the lines of a table: a line for each kind, and for all."""
    lines = ["| classifier | runs | median error | 90th percentile | within the range |", "|---|---|---|---|---|"]
    kinds = list(dict.fromkeys(outcome.kind for outcome in outcomes))
    for name, some in [(kind, [o for o in outcomes if o.kind == kind]) for kind in kinds] + [("all", outcomes)]:
        errors = [outcome.error for outcome in some]
        inside = sum(outcome.inside for outcome in some)
        ninety = float(np.quantile(errors, 0.9))
        lines.append(
            f"| {name} | {len(some)} | {statistics.median(errors):.1%} | {ninety:.1%} | "
            f"{inside} of {len(some)} ({inside / len(some):.0%}) |"
        )
    return lines


def page(outcomes, seconds):
    """Return docs/figures/calibration.md."""
    parts = {
        "Cold: from the sample alone": [o for o in outcomes if o.real and not o.warm],
        "Warm: after one run of the same classifier": [o for o in outcomes if o.warm],
        "Simulated: 16 to 256 processes": [o for o in outcomes if not o.real],
    }
    real = [outcome for outcome in outcomes if outcome.real]
    over = [outcome for outcome in real if outcome.sampling > outcome.allowed]
    worst = max(real, key=lambda outcome: outcome.sampling / outcome.allowed)
    lines = [
        "# How good the predictions are",
        "",
        "`make bench-calibration` predicts runs as [`dask-classify plan`](../planning.md) does, runs them, and "
        "compares. "
        f"{datetime.date.today()}, {os.cpu_count()} vCPUs, {platform.machine()}, Python {platform.python_version()}: "
        f"{len(real)} real runs on 1 to 8 processes and {len(outcomes) - len(real)} simulated ones, "
        f"{seconds / 60:.0f} minutes. Nothing was run on AWS.",
        "",
        "Classifiers sleep as long as each row says, except for the black box, which computes. The error is the "
        "distance of the prediction from what the run took, over the latter. The printed range is meant to hold 80 %. "
        "In simulated runs, the speed of processes scatters by 3 % from run to run, and by 2 % from block to block.",
        "",
    ]
    inside = sum(outcome.inside for outcome in outcomes)
    lines += [f"Of all {len(outcomes)} ranges, {inside} ({inside / len(outcomes):.0%}) held the truth.", ""]
    for title, some in parts.items():
        lines += [f"## {title}", "", *table(some), ""]
    lines += [
        "## What sampling costs",
        "",
        f"At most two seconds or 1 % of the work, whichever is more, is intended. {len(over)} of {len(real)} samples "
        f"took longer; the one that exceeded it most took {worst.sampling:.1f} s instead of {worst.allowed:.1f} s "
        f"({worst.kind}, {worst.processes} processes).",
    ]
    return "\n".join(lines) + "\n"


def main():
    """Run everything and print the page, or write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="write the page of the docs")
    options = parser.parse_args()
    began = time.time()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = [*real_runs(Path(folder), options.repeat), *simulated_runs(2 * options.repeat)]
    RAW.parent.mkdir(exist_ok=True)
    RAW.write_text(json.dumps([asdict(outcome) for outcome in outcomes], default=float))
    text = page(outcomes, time.time() - began)
    print(text)
    if options.write:
        PAGE.write_text(text)


if __name__ == "__main__":
    main()
