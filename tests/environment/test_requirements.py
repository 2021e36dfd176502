"""What a classifier needs: files of requirements, PEP 723, versions, and how a run's identity has them."""

import importlib.metadata
import json
from dataclasses import replace

import pytest

import dask_classifier as dc
from dask_classifier.classifier import bundle
from dask_classifier.classifier.requirements import installed, pinned, version_of
from dask_classifier.errors import OutputExists, UsageError

CLICK = importlib.metadata.version("click")
PANDAS = importlib.metadata.version("pandas")
CODE = """
# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "click>=8",
#   "colorama; sys_platform == 'win32'",
# ]
# ///

def classify(chunk):
    return chunk["m"].str.len()
"""


def test_a_file_like_pips(tmp_path):
    file = tmp_path / "requirements.txt"
    hashes = "\\\n    --hash=sha256:0123 \\\n    --hash=sha256:4567"
    file.write_text(f"# all of it\n\nPandas >= 3  # fast\nclick>=8 {hashes}\n")
    assert pinned(file) == (f"click=={CLICK}", f"pandas=={PANDAS}") == pinned(str(file))
    assert pinned(["dask[array]"]) == (f"dask[array]=={importlib.metadata.version('dask')}",)
    assert version_of("a_b[c]==1") == ("a-b", "1")


def test_only_what_linux_needs():
    assert pinned(["nowhere>1; sys_platform == 'win32'", "click; sys_platform == 'linux'"])[0].startswith("click==")
    assert len(pinned(["nowhere>1; sys_platform == 'win32'"])) == 0


def test_everything_that_is_installed():
    found = dict(map(version_of, pinned([], everything=True)))
    assert found["pandas"] == PANDAS and "dask-classify" not in found and len(found) > 50


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pandas<1", rf"requires pandas<1, but {PANDAS} is installed here"),
        ("not-here==1.0", r"not-here==1\.0 is not installed here"),
        ("not here", "'not here' is not a requirement"),
    ],
)
def test_a_requirement_that_is_wrong(text, message):
    with pytest.raises(UsageError, match=message):
        pinned([text])


def test_a_file_that_is_wrong(tmp_path):
    file = tmp_path / "r.txt"
    with pytest.raises(UsageError, match=r"Cannot read the requirements in .*No such file"):
        pinned(file)
    file.write_text("--index-url https://example.org/simple\nclick\n")
    with pytest.raises(UsageError, match="has the option '--index-url', which is not a requirement"):
        pinned(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="it is not text"):
        pinned(file)


def test_a_script_says_what_it_needs(tmp_path):
    (tmp_path / "mine.py").write_text(CODE)
    package = bundle.create(f"{tmp_path}/mine.py:classify")
    assert pinned([], package) == (f"click=={CLICK}",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (">=3.11", "<3", r"mine\.py requires Python <3, and this is 3"),
        ('"click>=8",', '"click>=8"', "The block '# /// script' of mine.py cannot be read"),
        ('">=3.11"', "3.11", "must be a text, and dependencies a list of texts"),
        ("# ///\n\n", "# ///\n\n# /// script\n# dependencies = []\n# ///\n", "several blocks"),
    ],
)
def test_a_script_that_is_wrong(tmp_path, old, new, message):
    (tmp_path / "mine.py").write_text(CODE.replace(old, new))
    package = bundle.create(f"{tmp_path}/mine.py:classify")
    with pytest.raises(UsageError, match=message):
        pinned([], package)


def test_versions_are_part_of_a_runs_identity(tmp_path, monkeypatch):
    (tmp_path / "in.csv").write_text("n,m\n" + "1,2\n" * 150)
    (tmp_path / "mine.py").write_text(CODE)
    arguments = (tmp_path / "in.csv", f"{tmp_path}/mine.py:classify", tmp_path / "run")
    plan = dc.plan(*arguments, requirements=["pandas"])
    result = dc.run(plan, "inline")
    assert result.manifest["versions"]["click"] == CLICK and result.manifest["versions"]["pandas"] == PANDAS
    stored = json.loads((tmp_path / "run/plan.json").read_text())
    assert f'"version of click": "{CLICK}"' in json.dumps(stored)
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99.0" if name == "click" else version(name))
    with pytest.raises(OutputExists, match="version of click"):
        dc.run(dc.plan(*arguments, requirements=["pandas"]), "inline", resume=True)


def test_workers_with_another_version_are_refused(cluster, tmp_path):
    plan = dc.plan(rows=200, output=tmp_path / "run", slowness=1)
    plan = replace(plan, package=replace(plan.package, requirements=("not-here==1.5",)))
    assert installed(("not-here==1.5",)) == {"not-here": "none"}
    with pytest.raises(dc.errors.ClusterError, match=r"not-here none \(you have 1.5\)"):
        dc.run(plan, cluster)


@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
def test_a_requirement_for_one_processor_is_refused(machine):
    """The machines may have another one than this computer, and all need the same packages."""
    with pytest.raises(UsageError, match="depends on the processor"):
        pinned([f'pandas; platform_machine == "{machine}"'])
    assert pinned(['pandas; sys_platform == "linux"', 'nothing-of-this-name; sys_platform == "win32"'])
