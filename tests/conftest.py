import contextlib
import os
import shutil
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

import dask_classifier as dc

HERE = Path(__file__).parent
collect_ignore = [] if os.environ.get("REHEARSAL_VM") else ["vm"]  # these need virtual machines: make rehearse-vm
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:  # `make test &`, nohup: commands that tests start would inherit that
        signal.signal(number, lambda number, frame: None)
os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")  # no test asks for credentials beyond this machine
os.environ["AWS_DEFAULT_REGION"] = "us-east-1"  # whatever is configured here


def pytest_collection_modifyitems(items):
    """Mark the tests of EC2, which take as long as all others together, and the notebooks."""
    for item in items:
        if "region" in getattr(item, "fixturenames", ()):
            item.add_marker("rehearsal")
        if item.path.suffix == ".ipynb":
            item.add_marker("long")


@pytest.fixture(scope="session")
def package_index(tmp_path_factory):
    """The address of an index with what is installed here and scikit-learn, from the index of this computer."""
    from wheel_index import served, write_index

    from dask_classifier.environment.archive import packed

    folder, python = tmp_path_factory.mktemp("index"), "{}.{}".format(*sys.version_info)
    with packed(["scikit-learn"], python=python, architecture="x86_64", wheels=True) as (_, made):
        write_index(folder, (made / "wheels").iterdir())
    with served(folder) as address:
        yield f"{address}/simple"


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
            timeout=600,
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


@pytest.fixture(scope="module")
def s3():
    """moto's server with one bucket; the environment points botocore to it. For `make test-swift`, Swift's."""
    import boto3
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()  # those of another module have the address of its server
    if os.environ.get("TEST_SWIFT"):
        client = boto3.client("s3")
        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket="bucket")
        yield client
        return
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    reset = urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset).close()  # moto's servers in one process share their buckets
    added = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = dict(os.environ)
    os.environ.update(added)
    boto3.client("s3").create_bucket(Bucket="bucket")
    yield boto3.client("s3")
    for name in added:
        os.environ.pop(name)
    os.environ.update({name: before[name] for name in added if name in before})
    server.stop()


@pytest.fixture
def faulty(s3, monkeypatch):
    """A server in front of moto's that fails as told, and knows what it was asked; see faulty_s3.py."""
    from faulty_s3 import faulty_s3
    from s3fs import S3FileSystem

    with faulty_s3(os.environ["AWS_ENDPOINT_URL"]) as front:
        monkeypatch.setenv("AWS_ENDPOINT_URL", front.url)
        S3FileSystem.clear_instance_cache()
        yield front
    S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def region(tmp_path_factory):
    """A region of AWS in rehearsal; see rehearsal/README.md. `make rehearse-vm` wants virtual machines in it."""
    from rehearse import Rehearsal
    from rehearse_virtual import NAME, VirtualRehearsal

    rehearsal = (VirtualRehearsal if NAME else Rehearsal)(tmp_path_factory.mktemp("region"))
    yield rehearsal
    rehearsal.close()


@pytest.fixture(scope="module")
def profile(region):
    """An instance profile that exists."""
    iam = region.client("iam")
    with contextlib.suppress(iam.exceptions.EntityAlreadyExistsException):
        iam.create_instance_profile(InstanceProfileName="classify")
    return "classify"


@pytest.fixture
def ec2(region):
    """The region, with nothing in it and nothing going wrong; a test that leaves something behind fails."""
    region.settings()
    yield region
    left = region.remains()
    region.wipe()
    assert not left


@pytest.fixture(scope="session")
def chromium():
    """A real browser."""
    from playwright.sync_api import sync_playwright

    found = [path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))]
    if not found:
        pytest.skip("there is no Chromium: tests/install_tools.sh installs it as root on Debian")
    quiet = "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found[0], args=[f"--{word}" for word in quiet.split()])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Opens a page; the test fails where it shows an error, or asks another machine for anything."""
    pages, wrong = [], []

    def open_page(url, **options):
        page = chromium.new_page(**options)
        pages.append(page)
        page.on("request", lambda request: is_local(request.url) or wrong.append(request.url))
        page.on("console", lambda said: said.type == "error" and wrong.append(said.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(url, wait_until="load")
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not wrong


def is_local(url):
    return urllib.parse.urlsplit(url).scheme in {"file", "data"} or urllib.parse.urlsplit(url).hostname == "127.0.0.1"
