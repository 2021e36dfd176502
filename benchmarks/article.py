"""Remake the tables of the 2018 demo with the same black box: measured here, and modelled for its clusters.

The demo ran on c5.4xlarge instances, 7 workers each, provisioned and terminated by its own scripts. Its black box took
about 3.8 ms per row there; ours takes what it takes here, so modelled times are given for both.

    python benchmarks/article.py [--million] [--write]
"""

import argparse
import datetime
import json
import math
import os
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import dask_classifier as dc
from dask_classifier.ec2.spec import ClusterSpec
from dask_classifier.planner.places import here, unasked
from dask_classifier.planner.planner import Planner, sample_of
from dask_classifier.planner.sample import Measurements
from dask_classifier.rows.blocks import Marks
from dask_classifier.units import format_dollars, format_seconds

DOCS = Path(__file__).parents[1] / "docs"
PAGE, PLOT = DOCS / "figures" / "article.md", DOCS / "figures" / "worth.svg"
MEASURED = Path(__file__).parents[1] / "build" / "article.json"  # so that a run of 12 minutes is not repeated
DEMO_MS = 3.83  # of 10k, 100k and 1M rows on one worker of the demo
DEMO_ONE = {  # on one machine: rows to times on 1, 4 and 8 workers
    "10k": ("39s", "20s", "11s"),
    "100k": ("6m28s", "3m16s", "1m41s"),
    "1M": ("1h03m46s", "32m12s", "16m33s"),
}
DEMO_MANY = {  # on 4, 8 and 16 machines, with provisioning
    "10k": ("2m13s", "2m36s", "2m43s"),
    "100k": ("3m38s", "3m42s", "3m48s"),
    "1M": ("7m38s", "6m41s", "5m56s"),
    "10M": ("40m56s", "33m10s", "23m24s"),
    "30M": ("over 2h", "1h45m", "1h12m"),
}
ROWS = {"10k": 10**4, "100k": 10**5, "1M": 10**6, "10M": 10**7, "30M": 3 * 10**7}
SPEEDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # ms per row


def measured(million):
    """Return the seconds of real runs by rows and processes, from an earlier call where there was one."""
    known = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    cases = [("10k", 1), ("10k", 2), ("100k", 1), ("100k", 2), *([("1M", 2)] if million else [])]
    for rows, processes in cases:
        key = f"{rows} {processes}"
        if key not in known:
            with tempfile.TemporaryDirectory() as folder, dc.LocalCluster(processes) as cluster:
                began = time.time()
                dc.run(dc.plan(rows=rows, output=Path(folder) / "run"), cluster)
                known[key] = time.time() - began
            print(key, round(known[key], 1), flush=True)
            MEASURED.parent.mkdir(exist_ok=True)
            MEASURED.write_text(json.dumps(known))
    return known


def planner(sample, rows, ms):
    """Return a planner for so many rows of so many milliseconds each, with what else a sample has shown."""
    factor = ms / 1000 / sample.measured.seconds_a_row
    calls = tuple((fifth, each._replace(seconds=factor * each.seconds)) for fifth, each in sample.measured.calls)
    trial = sample.trial._replace(seconds_a_row=ms / 1000)
    marks = (Marks((0, 0), (0, rows)),)
    scaled = replace(sample, rows=rows, marks=marks, trial=trial, measured=Measurements(calls))
    return Planner(dc.plan(rows=rows, output="s3://bucket/never"), scaled)


def cell(choice):
    """Return time, range and dollars."""
    seconds = choice.seconds
    low, mid, high = (format_seconds(60 * round(each / 60)) for each in (seconds.low, seconds.mid, seconds.high))
    return f"{mid} ({low} to {high}), ${format_dollars(choice.dollars)}".replace("m00s", "m")


def worth(sample, fleet):
    """Return, for each speed, the rows from which on four instances are faster than all cores here; and in dollars."""
    lines = []
    for ms in SPEEDS:
        low, high = 2.0, 10.0  # powers of ten
        while high - low > 0.02:
            rows = int(10 ** ((low + high) / 2))
            plans = planner(sample, rows, ms)
            local = plans.choice(here(sample.cores, sample.cores))
            low, high = (low, math.log10(rows)) if plans.choice(fleet.place(4)).seconds.mid < local.seconds.mid else (
                math.log10(rows), high
            )  # fmt: skip
        rows = 10**high
        cost = planner(sample, int(rows), ms).choice(fleet.place(4)).dollars
        lines.append((ms, rows, cost))
    return lines


def svg(points):
    """Return a picture of rows by milliseconds per row, both on logarithmic scales."""
    left, right, top, bottom = 100, 570, 20, 260

    def x(ms):
        return left + (math.log10(ms) + 1) / 3 * (right - left)

    def y(rows):
        return bottom - (math.log10(rows) - 3) / 5 * (bottom - top)

    line = " ".join(f"{x(ms):.1f},{y(rows):.1f}" for ms, rows, _ in points)
    ticks = "".join(
        f'<text x="{x(10.0**power):.0f}" y="{bottom + 18}" text-anchor="middle">{10.0**power:g}</text>'
        for power in range(-1, 3)
    ) + "".join(
        f'<line x1="{left}" x2="{right}" y1="{y(10**power):.0f}" y2="{y(10**power):.0f}" stroke="#ddd"/>'
        f'<text x="{left - 8}" y="{y(10**power) + 4:.0f}" text-anchor="end">{10**power:,}</text>'
        for power in range(3, 9)
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 310" font-family="sans-serif" font-size="12">'
        '<rect width="600" height="310" fill="white"/>'
        f'{ticks}<polyline points="{line}" fill="none" stroke="#2a6fb0" stroke-width="2"/>'
        f'<text x="{right}" y="{bottom + 38}" text-anchor="end">ms per row</text>'
        f'<text x="{left}" y="{top - 6}">rows</text>'
        f'<text x="{right - 10}" y="{top + 30}" text-anchor="end">four instances are faster</text>'
        f'<text x="{left + 20}" y="{bottom - 14}">this computer is faster</text></svg>\n'
    )


def page(real, sample, fleet):
    """Return the page of the docs."""
    ms = 1000 * sample.measured.seconds_a_row
    lines = [
        "# Comparison with the 2018 demo",
        "",
        "The 2018 demo classified the same generated rows with the same black box on Wallaroo, on c5.4xlarge instances "
        "with 7 workers each, provisioned by Pulumi and Ansible. Its times include provisioning.",
        "",
        f"{datetime.date.today()}, {os.cpu_count()} vCPUs, Python {platform.python_version()}: {ms:.2f} ms per row "
        f"here, about {DEMO_MS} ms on the demo's machines. **Nothing was run on AWS**: times of clusters are "
        "predictions of [`dask-classify plan`](../planning.md), with a guess of 4 minutes for the start of instances "
        "and 1 minute for their end. About four runs in five should finish within the range, if that guess is right.",
        "",
        "## One computer",
        "",
        "| rows | demo: 1, 4, 8 workers | here: 1 process, measured | here: 2 processes, measured "
        f"| 8 processes on 8 cores, modelled at {DEMO_MS} ms |",
        "|---|---|---|---|---|",
    ]
    for rows, demo in DEMO_ONE.items():
        times = [format_seconds(real[f"{rows} {p}"]) if f"{rows} {p}" in real else "not run" for p in (1, 2)]
        eight = planner(replace(sample, cores=8), ROWS[rows], DEMO_MS)
        eight = replace(eight, plan=replace(eight.plan, output="runs/never"))
        modelled = format_seconds(eight.choice(here(8, 8)).seconds.mid)
        lines.append(f"| {rows} | {', '.join(demo)} | {' | '.join(times)} | {modelled} |")
    for speed, what in ((DEMO_MS, "the demo's speed"), (ms, "the speed of this computer")):
        lines += [
            "",
            f"## Clusters, at {what}: {speed:.2f} ms per row",
            "",
            "| rows | demo: 28, 56, 112 workers | 4 x 7 | 8 x 7 | 16 x 7 |",
            "|---|---|---|---|---|",
        ]
        for rows, demo in DEMO_MANY.items():
            plans = planner(sample, ROWS[rows], speed)
            cells = [cell(plans.choice(fleet.place(instances))) for instances in (4, 8, 16)]
            lines.append(f"| {rows} | {', '.join(demo)} | {' | '.join(cells)} |")
    points = worth(sample, fleet)
    lines += [
        "",
        "## Is a cluster worth it?",
        "",
        "The demo's rule of thumb: below a million rows, it is not. That depends on the classifier. Above this "
        f"number of rows, four instances with 7 processes each are faster than this computer's {sample.cores} cores:",
        "",
        "| ms per row | rows | cost of that run |",
        "|---|---|---|",
        *(f"| {each:g} | {float(f'{rows:.2g}'):,.0f} | ${format_dollars(cost)} |" for each, rows, cost in points),
        "",
        "![rows from which on a cluster is faster, by milliseconds per row](worth.svg)",
        "",
        "Total work matters, not the number of rows. If this computer can finish while instances are still starting, a "
        "cluster is not worth it. Run `dask-classify plan` to check your own input.",
    ]
    return "\n".join(lines) + "\n", svg(points)


def main():
    """Measure, model, and print or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--million", action="store_true", help="also a million rows on two processes")
    parser.add_argument("--write", action="store_true", help="write the page of the docs")
    options = parser.parse_args()
    real = measured(options.million)
    with dc.LocalCluster() as cluster:
        sample = sample_of(dc.plan(rows="10k", output="runs/never"), cluster, 2000)
    fleet = unasked(ClusterSpec.of(image="none", instance_type="c5.4xlarge", processes_per_worker=7))
    text, picture = page(real, sample, fleet)
    print(text)
    if options.write:
        PAGE.write_text(text)
        PLOT.write_text(picture)


if __name__ == "__main__":
    main()
