"""Commands that run while a test looks on, and what is in a folder afterwards."""

import os
import subprocess
import sys
import time
from pathlib import Path

COMMAND = Path(sys.executable).parent / "dask-classify"


def start(tmp_path, classifier, *args, rows=6000):
    """The command in the background, which goes no further than row 1000; returns when three blocks are done."""
    (tmp_path / "hold").touch()
    process = subprocess.Popen(
        [
            COMMAND,
            "--rows",
            str(rows),
            "--workers",
            "2",
            "--output",
            tmp_path / "run",
            "--block-rows",
            "200",
            "--classifier",
            classifier,
            "--dashboard-address",
            "127.0.0.1:0",
            *args,
        ],
        stderr=(tmp_path / "log").open("w"),
        start_new_session=True,
        env=os.environ | {"TEST_HOLD": str(tmp_path / "hold")},
    )
    while process.poll() is None:
        if len(list((tmp_path / "run/parts").glob("*.json"))) >= 3:
            return process
        time.sleep(0.05)
    raise AssertionError((tmp_path / "log").read_text())


def snapshot(folder):
    return {path.name: path.stat().st_mtime_ns for path in Path(folder).rglob("*") if path.is_file()}
