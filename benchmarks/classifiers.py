"""Classifiers of the benchmarks, the same for every tool.

If the environment variable BENCH_NOTES names a folder, each process records there when its first call of the
classifier began and its last one ended.
"""

import mmap
import os
import struct
import time
from pathlib import Path

from dask_classifier.classifier.blackbox import BlackBox

_black_box = BlackBox(10)
_notes = {}  # process ID to its open file


def _noted(classify):
    """Record when a classifier's first call starts and its last call ends. This takes less than 1 µs per call."""

    def noting(chunk):
        started = time.time()
        answer = classify(chunk)
        if "BENCH_NOTES" in os.environ:
            _note(started, time.time())
        return answer

    return noting


def _note(started, ended):
    pid = os.getpid()
    if pid not in _notes:
        path = Path(os.environ["BENCH_NOTES"], str(pid))
        path.write_bytes(struct.pack("dd", started, ended))
        with path.open("r+b") as file:
            _notes[pid] = mmap.mmap(file.fileno(), 16)
    struct.pack_into("d", _notes[pid], 8, ended)


@_noted
def blackbox(chunk):
    """The demo's black box, which takes milliseconds per row."""
    return _black_box(chunk)


@_noted
def free(chunk):
    """Near-free: a number from a column, as a Series."""
    return chunk["SKU"].str.len() * 0.5
