import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import dask_classifier as dc

HERE = Path(__file__).parent
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:  # `make test &`, nohup: commands that tests start would inherit that
        signal.signal(number, lambda number, frame: None)
os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")  # no test asks for credentials beyond this machine


@pytest.fixture(scope="session")
def cluster():
    """Two classifier processes behind a real scheduler; each run gets new processes."""
    with dc.LocalCluster(2, dashboard_address="127.0.0.1:0") as cluster:
        yield cluster


@pytest.fixture
def classifiers():
    """Names a function of classifiers.py as the user of a file would."""
    return lambda name: f"{HERE / 'classifiers.py'}:{name}"


@pytest.fixture
def command(tmp_path):
    """Runs the installed command in an empty folder; returns the finished process."""

    def run(*args, check=None, env=None, **options):
        done = subprocess.run(
            [Path(sys.executable).parent / "dask-classify", *map(str, args)],
            cwd=options.pop("cwd", tmp_path),
            env=os.environ | {"COLUMNS": "120"} | (env or {}),
            capture_output=True,
            text=True,
            timeout=120,
            **options,
        )
        assert "Traceback" not in done.stderr, done.stderr
        if check is not None:
            assert done.returncode == check, done.stderr
        return done

    return run


@pytest.fixture
def run_bytes():
    """All rows of a run's parts, decompressed with the standard library alone."""

    def read(output):
        import gzip

        return b"".join(gzip.decompress(part.read_bytes()) for part in sorted(Path(output, "parts").glob("*.csv.gz")))

    return read


@pytest.fixture(scope="session")
def region(tmp_path_factory):
    """A region of AWS in rehearsal; see rehearsal/README.md."""
    from rehearse import Rehearsal

    rehearsal = Rehearsal(tmp_path_factory.mktemp("region"))
    yield rehearsal
    rehearsal.close()


@pytest.fixture
def ec2(region):
    """The region, with nothing in it and nothing going wrong; a test that leaves something behind fails."""
    region.settings()
    yield region
    left = region.remains()
    region.wipe()
    assert not left
