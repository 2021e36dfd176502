"""Interrupts runs on EC2, in rehearsal, at every half second of their life: SIGINT, SIGTERM, SIGHUP, and a second one.

Counts what is left each time; ends with exit code 1 if anything ever was. Half an hour; `make test-signals`.
"""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from rehearse import Rehearsal, finish

STEP = 0.5  # seconds
SIGNALS = [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGHUP,), (signal.SIGINT, signal.SIGTERM)]
WAITING = "import time\ndef sleepy(chunk):\n    time.sleep(0.1)\n    return chunk['FLUX'].str.len()\n"


def main(first: float, last: float) -> int:
    """Try each moment from `first` to `last` seconds after the command's start, or until it ends by itself."""
    wrong = tried = 0
    with tempfile.TemporaryDirectory() as folder:
        region = Rehearsal(Path(folder))
        (region.folder / "waiting.py").write_text(WAITING)
        try:
            for numbers in SIGNALS:
                seconds = first
                while seconds <= last:
                    outcome, left = interrupt(region, numbers, seconds)
                    tried += 1
                    wrong += bool(left) or outcome not in (
                        0,
                        130,
                        -numbers[0],
                    )  # the last: in Python's own end, after ours
                    names = "+".join(number.name for number in numbers)
                    print(
                        f"{names:<15} after {seconds:4.1f} s: exit code {outcome}, left: {left or 'nothing'}",
                        flush=True,
                    )
                    region.wipe()
                    if outcome != 130:
                        break
                    seconds += STEP
        finally:
            region.close()
    print(f"{tried} runs interrupted, {wrong} wrong")
    return 1 if wrong else 0


def interrupt(region: Rehearsal, numbers: tuple[signal.Signals, ...], seconds: float) -> tuple[int, list[str]]:
    """One run: its exit code, and what it left."""
    region.settings(terminate_seconds=1)
    output = f"s3://bucket/signals-{time.time_ns()}"
    words = ["--rows", "2k", "--block-rows", "100", "--classifier", "waiting.py:sleepy", "--workers", "1"]
    process = region.start(*words, "--output", output)
    time.sleep(seconds)
    for number in numbers:
        if process.poll() is None:
            os.killpg(process.pid, number)
        time.sleep(STEP)
    finish(process)
    return process.returncode, region.remains()


if __name__ == "__main__":
    bounds = [float(word) for word in sys.argv[1:3]] or [STEP, 60.0]
    sys.exit(main(*bounds))
