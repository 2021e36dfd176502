"""What the package says of itself: on an index, to those who cite it, to systemd, and to somebody on Windows."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import dask_classifier

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\(([^)]+)\)")


@pytest.fixture
def hook(monkeypatch):
    """hatch_build.py, without hatchling, which only a build has."""
    import types

    interface = types.SimpleNamespace(MetadataHookInterface=object)
    for name in ("hatchling", "hatchling.metadata", "hatchling.metadata.plugin"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "hatchling.metadata.plugin.interface", interface)
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.delitem(sys.modules, "hatch_build", raising=False)
    import hatch_build

    return hatch_build


def test_the_page_on_an_index_has_no_link_that_leads_nowhere(hook):
    readme = (ROOT / "README.md").read_text()
    assert [link for link in LINK.findall(readme) if not link.startswith("http")], "or nothing is tested"
    page = hook.long_description(readme, "")
    assert not LINK.findall(page) and "![" not in page and "](" not in page
    assert "your own classifier" in page and hook.urls("") == {}


def test_links_are_absolute_where_the_repository_is_known(hook):
    page = hook.long_description((ROOT / "README.md").read_text(), "https://host/owner/name")
    links = LINK.findall(page)
    assert links and all(link.startswith("https://") for link in links)
    paths = [re.sub(r"^https://host/owner/name/(raw|blob)/HEAD/", "", link) for link in links]
    assert all((ROOT / path).exists() for path in paths if not path.startswith("http"))
    assert hook.urls("https://host/owner/name")["Issues"] == "https://host/owner/name/issues"


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["version"] == project["version"] and citation["license"] == project["license"]
    assert [{"name": each["name"]} for each in citation["authors"]] == project["authors"]


@pytest.mark.parametrize("form", ["bug", "feature"])
def test_the_forms_for_issues_are_well_formed(form):
    told = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{form}.yml").read_text())
    assert told["name"] and told["description"]
    assert all(part["type"] and part["attributes"]["label"] for part in told["body"])
    assert len({part["id"] for part in told["body"]}) == len(told["body"])


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze")
def test_the_units_for_systemd_are_accepted(tmp_path):
    text = (ROOT / "docs/systemd.md").read_text()
    units = re.findall(r'```ini title="([^"]+)"\n(.*?)```', text, re.DOTALL)
    assert [name for name, _ in units] == ["classify.service", "classify.timer"]
    for name, unit in units:
        (tmp_path / name).write_text(unit)
    call = ["systemd-analyze", "verify", "--man=no", *(tmp_path / name for name, _ in units)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and str(tmp_path) not in done.stderr and "classify." not in done.stderr, done.stderr


def test_windows_is_refused_with_a_sentence(monkeypatch):
    code = "import sys, dask_classifier, dask_classifier.__main__ as program; sys.platform = 'win32'; program.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 2
    assert "does not run on Windows" in done.stderr and "WSL" in done.stderr and "Traceback" not in done.stderr
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(dask_classifier.errors.UsageError, match="does not run on Windows"):
        getattr(dask_classifier, "plan")  # noqa: B009  # an attribute that is looked up
