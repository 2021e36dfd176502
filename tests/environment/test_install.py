"""The packages of instances without an image: locked for them, packed, and installed in a container of Python."""

import hashlib
import importlib.metadata
import importlib.resources
import json
import os
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from wheel_index import served, write_index

import dask_classifier as dc
from dask_classifier import environment
from dask_classifier.classifier.local_packages import contents, is_local
from dask_classifier.environment import archive, lock, pip
from dask_classifier.environment.installed import Needed, needed
from dask_classifier.environment.lock import Lock, requirements_of
from dask_classifier.environment.wheels import wheel_of
from dask_classifier.errors import ClusterError, UsageError

INSTALL = importlib.resources.files(environment).joinpath("install.py").read_text()
OPTIONS = pip.options_for("3.11", "x86_64")


@pytest.fixture
def web(tmp_path):
    """A folder, and the address at which it is served."""
    folder = tmp_path / "web"
    folder.mkdir()
    with served(folder) as address:
        yield folder, address


def entry(name):
    """An entry of a ZIP file whose time is always the same."""
    return zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))


def wheel(folder, name, version="1.0", tag="py3-none-any"):
    """A wheel with a module that says its version."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}-{version}-{tag}.whl"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr(entry(f"{name}.py"), f"version = {version!r}\n")
        packed.writestr(entry(f"{name}-{version}.dist-info/METADATA"), metadata)
        packed.writestr(
            entry(f"{name}-{version}.dist-info/WHEEL"), f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n"
        )
        packed.writestr(entry(f"{name}-{version}.dist-info/RECORD"), "")
    return file


def index_of(web, *wheels):
    """The options for an index with these wheels."""
    write_index(web[0], wheels)
    return ["--index-url", f"{web[1]}/simple"]


# --- the lock ------------------------------------------------------------------------------------------------


def test_wheels_are_those_for_the_instances(web, tmp_path):
    wheels = [
        wheel(tmp_path / "made", "alpha", tag=f"cp311-cp311-manylinux_2_28_{one}") for one in ("x86_64", "aarch64")
    ]
    index = index_of(web, *wheels)
    for architecture, expected in (("x86_64", wheels[0]), ("arm64", wheels[1])):
        options = pip.options_for("3.11", architecture) + index
        (entry,) = pip.resolve(["alpha==1.0"], [], options, tmp_path)
        digest = hashlib.sha256(expected.read_bytes()).hexdigest()
        assert entry["download_info"]["archive_info"]["hashes"]["sha256"] == digest


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["alpha==2.0"], "cannot be put together: No matching distribution found for alpha==2.0"),
        (["beta==1.0"], "cannot be put together: No matching distribution found for beta==1.0"),
    ],
)
def test_what_cannot_be_installed(web, tmp_path, wanted, message):
    """A version that does not exist; no wheel for this architecture."""
    made = tmp_path / "made"
    beta = wheel(made, "beta", tag="cp311-cp311-manylinux_2_28_aarch64")
    index = index_of(web, wheel(made, "alpha"), beta)
    with pytest.raises(ClusterError, match=message):
        pip.resolve(wanted, [], OPTIONS + index, tmp_path)


def test_an_index_that_cannot_be_reached(tmp_path, monkeypatch):
    monkeypatch.setattr(pip, "_PATIENCE", ["--retries", "1", "--timeout", "2"])
    with pytest.raises(ClusterError, match=r"The package index cannot be reached: .*alpha==1.0\."):
        pip.resolve(["alpha==1.0"], [], [*OPTIONS, "--index-url", "http://127.0.0.1:9/simple"], tmp_path)


def test_what_an_index_has_only_as_source_is_packed_from_here(web, tmp_path, monkeypatch):
    """An index without a wheel of click, which runs anywhere; and without one of numpy, which does not."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)  # no index but the test's
    options = OPTIONS + index_of(web, wheel(tmp_path / "made", "alpha"))
    click, numpy = (f"{name}=={importlib.metadata.version(name)}" for name in ("click", "numpy"))
    monkeypatch.setattr(lock, "needed", lambda *words: Needed((click, "alpha==1.0"), ()))
    (tmp_path / "one").mkdir()
    locked = lock.lock([], tmp_path / "one", options, "x86_64")
    assert [line.split()[0] for line in locked.lines] == ["alpha==1.0", click]
    assert [line.split()[0] for line in locked.private] == ["alpha==1.0"]
    assert [each.name for each in (tmp_path / "one/wheels").iterdir()] == [f"click-{click[7:]}-py3-none-any.whl"]
    monkeypatch.setattr(lock, "needed", lambda *words: Needed((numpy,), ()))
    (tmp_path / "two").mkdir()
    with pytest.raises(ClusterError, match=f"No matching distribution found for {numpy}"):
        lock.lock([], tmp_path / "two", options, "x86_64")


def test_what_is_needed_is_what_is_installed():
    found = needed(["scikit-learn==0"], "x86_64")
    assert f"scikit-learn=={importlib.metadata.version('scikit-learn')}" in found.pins, "and not what was asked for"
    assert f"aiobotocore=={importlib.metadata.version('aiobotocore')}" in found.pins, "by way of an extra of a package"
    assert [one.metadata["Name"] for one in found.local] == ["dask-classify"]
    assert not any(pin.startswith("pytest==") for pin in found.pins)
    with pytest.raises(UsageError, match=", which pandas needs on the instances, is not installed here"):
        needed(["pandas[excel]==0"], "x86_64")


def test_a_wheel_for_two_versions_of_python_keeps_both(tmp_path):
    distribution = importlib.metadata.distribution("python-dateutil")
    assert wheel_of(distribution, tmp_path).name.endswith("-py2.py3-none-any.whl")


def test_what_is_not_from_an_index(tmp_path):
    folder = tmp_path / "there"
    for name, url, expected in (
        ("conda", "file:///nowhere/work", False),
        ("folder", folder.as_uri(), True),
        ("gone", "file:///nowhere/corporate-1.0-py3-none-any.whl", True),
        ("repository", "https://a/b.git", True),
    ):
        (tmp_path / f"{name}-1.dist-info").mkdir()
        (tmp_path / f"{name}-1.dist-info/direct_url.json").write_text(json.dumps({"url": url}))
        (tmp_path / f"{name}-1.dist-info/INSTALLER").write_text("conda\n" if name == "conda" else "pip\n")
        folder.mkdir(exist_ok=True)
        assert is_local(importlib.metadata.PathDistribution(tmp_path / f"{name}-1.dist-info")) == expected


def develop(folder):
    """A package as `setup.py develop` installs it: its description beside its code, without a record."""
    (folder / "mine.egg-info").mkdir(parents=True)
    (folder / "mine.egg-info/PKG-INFO").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (folder / "setup.py").write_text(
        "from setuptools import setup\nsetup(name='mine', version='1.0', py_modules=['mine'])\n"
    )
    (folder / "mine.py").write_text("VALUE = 1\n")
    return importlib.metadata.PathDistribution(folder / "mine.egg-info")


def test_a_package_in_development_is_not_looked_up_on_an_index(tmp_path, monkeypatch):
    distribution = develop(tmp_path / "project")
    assert is_local(distribution)
    (tmp_path / "project/setup.py").unlink()
    assert not is_local(distribution), "as packages of Debian, which have no record either"


def test_the_code_of_local_packages_is_part_of_a_run(tmp_path, monkeypatch):
    develop(tmp_path / "project")
    monkeypatch.syspath_prepend(tmp_path / "project")
    assert set(before := contents(["mine", "click"])) == {"mine"}, "and none of an index"
    (tmp_path / "project/venv").mkdir()
    (tmp_path / "project/venv/pyvenv.cfg").touch()
    (tmp_path / "project/venv/other.py").touch()
    assert contents(["mine"]) == before
    plan = dc.plan(rows=10, output=tmp_path / "run", requirements=["mine"])
    assert plan.identity["content of mine"] == before["mine"]
    (tmp_path / "project/mine.py").write_text("VALUE = 2\n")
    assert contents(["mine"]) != before, "its version is still 1.0"
    assert dc.plan(rows=10, output=tmp_path / "run", requirements=["mine"]).fingerprint != plan.fingerprint


def test_files_that_are_no_code_of_a_package_do_not_matter(tmp_path, monkeypatch):
    """A lock of an editor, which is a link to nowhere, and a folder of somebody else's."""
    develop(tmp_path / "project")
    monkeypatch.syspath_prepend(tmp_path / "project")
    before = contents(["mine"])
    (tmp_path / "project/.#mine.py").symlink_to("me@here.1")
    (tmp_path / "project/notes.txt").write_text("new")
    (tmp_path / "project/data").mkdir(mode=0)  # which root may enter all the same
    assert contents(["mine"]) == before
    (tmp_path / "project/gone.py").symlink_to("nowhere")
    with pytest.raises(UsageError, match=r"Cannot read .*gone\.py, a file of a package that the classifier needs"):
        contents(["mine"])


def test_an_installed_package_is_the_same_in_another_environment(tmp_path, monkeypatch):
    """Its record differs in what depends on the environment: scripts, and where it came from."""
    found = []
    for name, script in (("a", "1"), ("b", "2")):
        info = tmp_path / name / "mine-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
        (info / "direct_url.json").write_text(json.dumps({"url": f"file:///{name}", "dir_info": {}}))
        record = f"../../bin/mine,sha256={script},9\nmine-1.0.dist-info/direct_url.json,sha256={script},9\n"
        record += f"mine/__pycache__/a.cpython-311.pyc,,{script}\nmine/a.py,sha256=x,9\n"
        (info / "RECORD").write_text(record)
        with monkeypatch.context() as patched:
            patched.syspath_prepend(tmp_path / name)
            found.append(contents(["mine"]))
    assert found[0] == found[1] and set(found[0]) == {"mine"}
    (tmp_path / "b/mine-1.0.dist-info/RECORD").write_text(record.replace("sha256=x", "sha256=y"))
    monkeypatch.syspath_prepend(tmp_path / "b")
    assert contents(["mine"]) != found[0]


def test_a_package_in_development_is_built_with_the_index_that_is_named(tmp_path, monkeypatch):
    """pip gets it for what the build needs; without one that answers, the error names the package."""
    called = []
    monkeypatch.setattr(
        pip,
        "_call",
        lambda words: called.append(words) or subprocess.CompletedProcess(words, 1, "", "ERROR: no setuptools"),
    )
    distribution = develop(tmp_path / "project")
    with pytest.raises(ClusterError, match=r"Cannot build a wheel of mine from .*project: no setuptools\."):
        wheel_of(distribution, tmp_path, "http://index/simple")
    assert called[0][-3:] == ["--index-url", "http://index/simple", str(tmp_path / "project")]


def test_wheels_of_another_index_than_pypi_are_sent(web, tmp_path, monkeypatch):
    index = index_of(web, wheel(tmp_path / "made", "alpha"))
    monkeypatch.setattr(lock, "needed", lambda *words: Needed(("alpha==1.0",), ()))
    monkeypatch.setenv("PIP_INDEX_URL", index[1])
    options = {"python": "3.11", "architecture": "x86_64"}
    with archive.packed([], **options) as (locked, folder):
        assert locked.private == locked.lines and [each.name for each in (folder / "wheels").iterdir()] == [
            "alpha-1.0-py3-none-any.whl"
        ]
    with archive.packed([], **options, index_url=index[1]) as (_, folder):
        text = (folder / "requirements.txt").read_text()
        assert not list((folder / "wheels").iterdir()) and f"--index-url {index[1]}" in text
        assert f"--trusted-host {index[1].split('/')[2]}" in text  # without TLS; the hashes are checked all the same


def test_a_wheel_of_what_is_installed_is_always_the_same(tmp_path):
    made = []
    for name in "ab":
        (tmp_path / name).mkdir()
        made.append(wheel_of(importlib.metadata.distribution("click"), tmp_path / name))
    assert made[0].read_bytes() == made[1].read_bytes() and made[0].name.startswith("click-")
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", tmp_path / "c"]
    subprocess.run([*words, made[0]], check=True)
    code = "import click, importlib.metadata as m; print(click.__file__, m.version('click'))"
    there = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(tmp_path / "c")}, capture_output=True, text=True
    )
    assert there.stdout.split() == [str(tmp_path / "c/click/__init__.py"), importlib.metadata.version("click")]


# --- on an instance ------------------------------------------------------------------------------------------


def stored(web, tmp_path, made):
    """An archive with wheels, where an instance gets it: its address and its digest."""
    folder = tmp_path / "packed"
    (folder / "wheels").mkdir(parents=True)
    file = wheel(folder / "wheels", "alpha", made)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    lines = Lock((f"alpha=={made} --hash=sha256:{digest}",))
    (folder / "requirements.txt").write_text(requirements_of(lines.lines, "--no-index"))
    there = archive.upload(lines, folder, str(web[0]))
    return f"{web[1]}/{there.url.rpartition('/')[2]}", there.sha256


def install(tmp_path, url, sha256):
    """As the container of an instance does."""
    home = tmp_path / "home"
    home.mkdir()
    command = [sys.executable, "-c", "import alpha; print(alpha.version, alpha.__file__)"]
    words = [sys.executable, "-c", INSTALL, url, sha256, *command]
    return subprocess.run(words, env={"HOME": str(home), "PATH": "/usr/bin"}, capture_output=True, text=True)


def test_the_packages_are_installed_and_the_command_runs(web, tmp_path):
    done = install(tmp_path, *stored(web, tmp_path, "1.0"))
    assert done.stdout.split() == ["1.0", str(tmp_path / "home/environment/packages/alpha.py")], done.stderr
    assert "installed the packages in " in done.stderr


def test_an_archive_that_was_altered(web, tmp_path):
    url, sha256 = stored(web, tmp_path, "1.0")
    done = install(tmp_path, url, sha256.replace(sha256[0], "0" if sha256[0] != "0" else "1"))
    assert done.returncode == 1 and "ERROR: the packages in the bucket were altered: their SHA-256 is" in done.stderr
    assert not done.stdout


def test_a_wheel_that_was_altered(web, tmp_path):
    folder = tmp_path / "packed"
    (folder / "wheels").mkdir(parents=True)
    wheel(folder / "wheels", "alpha")
    lines = Lock((f"alpha==1.0 --hash=sha256:{'0' * 64}",))
    (folder / "requirements.txt").write_text(requirements_of(lines.lines, "--no-index"))
    there = archive.upload(lines, folder, str(web[0]))
    done = install(tmp_path, f"{web[1]}/{there.url.rpartition('/')[2]}", there.sha256)
    assert done.returncode == 1 and "DO NOT MATCH THE HASHES" in done.stderr
    assert done.stderr.splitlines()[-1] == "ERROR: the packages could not be installed" and not done.stdout


def test_a_connection_that_breaks_is_made_again(tmp_path):
    """The first answer ends before its end."""
    data, asked = b"0123456789", []

    class Breaking(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: 4 if len(asked) == 1 else None])

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Breaking)
    threading.Thread(target=server.serve_forever).start()
    done = install(tmp_path, f"http://127.0.0.1:{server.server_port}/x.zip", "0")
    server.shutdown()
    server.server_close()
    assert len(asked) == 2 and "ERROR: the packages cannot be fetched: the connection broke" in done.stderr
    assert f"were altered: their SHA-256 is {hashlib.sha256(data).hexdigest()}" in done.stderr


def test_an_archive_that_is_gone(web, tmp_path):
    done = install(tmp_path, f"{web[1]}/none.zip", "0")
    assert done.returncode == 1 and done.stderr.count("ERROR: the packages cannot be fetched: HTTP Error 404") == 1


def test_an_archive_is_stored_once(web, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_SMALL", 0)
    first = stored(web, tmp_path, "1.0")
    monkeypatch.setattr(archive, "_copy", lambda *words: pytest.fail("it is there already"))
    assert stored(web, tmp_path / "again", "1.0") == first
