"""Measure how fast the rows of a CSV file are found, on one core and on classifier processes.

python benchmarks/borders.py FILE
"""

import platform
import sys
import time

from dask_classifier.classifier.job import SURVEY
from dask_classifier.engine.connect import INLINE, connect
from dask_classifier.runs.planning import plan
from dask_classifier.runs.progress import Progress


def main(file):
    import dask_classifier as dc

    survey = plan(input=file, classifier="blackbox", output="unused")
    tasks = survey.source.pieces()
    pieces = [([(survey.source.files[n], start) for n, start in task], survey.source.layout) for task in tasks]
    megabytes = survey.source.files[0].size / 1e6
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, Python {platform.python_version()}, {megabytes:,.0f} MB")
    for workers in (0, 2):
        cluster = dc.LocalCluster(workers, dashboard_address="127.0.0.1:0") if workers else None
        with connect(cluster or INLINE, "borders", survey.package, Progress()) as executor:
            list(executor.each(SURVEY, pieces[:workers]))  # starts the processes
            started = time.perf_counter()
            surveyed = sorted((outcome.number, outcome.value) for outcome in executor.each(SURVEY, pieces))
            _, (marks,) = survey.source.surveyed((0, piece) for _, pieces_ in surveyed for piece in pieces_)
            seconds = time.perf_counter() - started
        where = f"{workers} processes" if workers else "one core"
        print(f"{marks.rows[-1]:,} rows, {where}: {seconds:.2f} s, {megabytes / seconds:,.0f} MB/s")
        if cluster:
            cluster.close()


if __name__ == "__main__":
    main(sys.argv[1])
