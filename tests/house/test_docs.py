"""The pages of docs/ and the README: what they show is run, block by block, and the site is built without a warning.

Of a page's fenced blocks, one with a title is written to that file; `sh` is run by bash in the page's folder, and must
end with the exit code of `fails=`; `python` is run as a script; a `text` titled "shown: FILE" is what FILE holds.
Blocks of `console` and `text` are only shown; but a `dask-classify` in them must be a call that is understood.
"""

import ast
import inspect
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import click
import pytest
from numpydoc.validate import validate

import dask_classifier as dc
from dask_classifier import tasks
from dask_classifier.cli.app import app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.glob("*.md") if page.name not in {"ec2.md", "commands.md"})
FENCE = re.compile(r"^```(\w+)(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def do(language, words, text, folder):
    """One block."""
    title = re.search(r'title="(?:(shown): )?(.+)"', words)
    if title and title[1]:
        assert (folder / title[2]).read_text() == text
    elif title:
        (folder / title[2]).write_text(text)
    elif language in {"sh", "python"}:
        call = ["bash", "-e", "-c", text] if language == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(
            call, cwd=folder, env=os.environ | {"PATH": PATH}, capture_output=True, text=True, timeout=600
        )
        expected = re.search(r"fails=(\d+)", words)
        assert done.returncode == int(expected[1] if expected else 0), f"{text}\n{done.stdout}{done.stderr}"


@pytest.mark.long
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_shows_is_run(page, tmp_path, request):
    blocks = FENCE.findall(page.read_text())
    if any(words.strip() == "s3" for _, words, _ in blocks):
        request.getfixturevalue("s3")
    for language, words, text in blocks:
        do(language, words, text, tmp_path)


def calls():
    """Each `dask-classify ...` that a page or the README shows, as words."""
    for page in [ROOT / "README.md", *DOCS.glob("*.md")]:
        text = re.sub(r"\\\n\s*", "", page.read_text())
        shown = re.findall(r"^(?:    |\$ )?(dask-classify .*)$", text, re.MULTILINE)
        for line in shown:
            line = re.split(r"  +|\s[>#|]", line)[0].replace("...", "")
            yield pytest.param(shlex.split(line)[1:], id=f"{page.stem}: {line}")


@pytest.mark.parametrize("words", list(calls()))
def test_each_call_that_is_shown_is_understood(words):
    group = app.make_context("dask-classify", list(words), resilient_parsing=False)
    first = group._protected_args if hasattr(group, "_protected_args") else group.protected_args  # click before 8.2
    name, command, rest = app.resolve_command(group, first + group.args)
    if "--help" in rest or name == "--version":
        return
    try:
        command.make_context(name, rest, parent=group)
    except click.UsageError as error:
        pytest.fail(f"{error.format_message()}")


def test_the_commands_page_is_that_of_the_command():
    sys.path.insert(0, str(DOCS))
    import make_commands

    assert (DOCS / "commands.md").read_text() == make_commands.text(), "renew it with `make docs`"
    helps = make_commands.text().removeprefix(make_commands.HEAD)
    assert max(map(len, helps.splitlines())) <= 80


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.long
def test_the_site_has_no_broken_link_and_no_warning(tmp_path):
    call = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", DOCS, tmp_path / "site"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    pages = {page.name: page.read_text() for page in (tmp_path / "site").glob("*.html")}
    assert {f"{page.stem}.html" for page in DOCS.glob("*.md")} <= set(pages)
    for name, text in pages.items():
        asked = re.findall(r'<(?:script|img|link)[^>]*(?:src|href)="(https?:[^"]+)"', text)
        assert not asked, f"{name} asks another machine: {asked}"


def test_architecture_shows_the_function_that_is_all_of_the_work():
    shown = ast.parse(
        re.search(r"```python\n(def classify_block.*?)```", (ROOT / "ARCHITECTURE.md").read_text(), re.DOTALL)[1]
    )
    function = ast.parse(textwrap.dedent(inspect.getsource(tasks.classify_block)))
    del function.body[0].body[0]  # its docstring
    assert ast.unparse(shown) == ast.unparse(function)


METHODS = [name for name, _ in inspect.getmembers(dc.Result, inspect.isfunction) if name[0] != "_"]
METHODS = [name for name in METHODS if name not in {"begins_with_names", "read_ahead", "stored"}]  # for this package
SECTIONS = {
    "GL08",
    "SS01",
    "SS03",
    "PR01",
    "PR02",
    "PR03",
    "PR04",
    "RT01",
    "YD01",
}  # numpydoc's names for what is missing


@pytest.mark.parametrize(
    "name",
    [
        *(f"{value.__module__}.{name}" for name in dc.__all__ if inspect.isfunction(value := getattr(dc, name))),
        *(f"dask_classifier.runs.result.Result.{name}" for name in METHODS),
        "dask_classifier.engine.local.LocalCluster",
        "dask_classifier.cluster.EC2Cluster",
        "dask_classifier.ec2.spec.ClusterSpec",
    ],
)
def test_public_docstrings_have_numpydocs_sections(name):
    assert [text for code, text in validate(name)["errors"] if code in SECTIONS] == []
