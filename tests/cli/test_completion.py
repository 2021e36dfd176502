"""Completion in the shell, by the protocol that the shells speak and in a real bash."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text("def classify(chunk): ...\ndef clean(chunk): ...\ndef _hidden(): ...\n")
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "input.csv").write_text("id,a\n")
    (tmp_path / "input-folder").mkdir()
    (tmp_path / "state/dask-classify/clusters").mkdir(parents=True)
    (tmp_path / "state/dask-classify/clusters/monday.json").write_text("{}")
    return tmp_path


@pytest.fixture
def proposals(folder):
    """What bash is told for a line whose last word is to be completed: (type, text)."""

    def ask(line):
        words = ["dask-classify", *line.split(" ")]
        asked = {"_DASK_CLASSIFY_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words)}
        done = subprocess.run(
            [BIN / "dask-classify"],
            cwd=folder,
            env=os.environ | asked | {"COMP_CWORD": str(len(words) - 1), "XDG_STATE_HOME": str(folder / "state")},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.stderr == ""
        return [tuple(text.split(",", 1)) for text in done.stdout.splitlines()]

    return ask


def texts(found):
    return [text for _, text in found]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("--input in", "file"),
        ("run --input=in", "file"),
        ("--with-file in", "file"),
        ("plan --input in", "file"),
        ("generate --rows 10 in", "file"),
        ("report run --html in", "file"),
        ("fetch run in", "file"),
        ("--output in", "dir"),
        ("verify in", "dir"),
        ("report in", "dir"),
        ("fetch in", "dir"),
    ],
)
def test_files_and_runs_are_left_to_the_shell(proposals, line, kind):
    assert proposals(line) == [(kind, "in")]


def test_options_of_run_without_a_command(proposals):
    assert texts(proposals("--wor")) == ["--workers", "--worker-timeout"]
    assert texts(proposals("--workers 2 --clu")) == ["--cluster"]
    both = texts(proposals("--"))
    assert {"--version", "--help", "--input", "--region"} <= set(both) and len(both) == len(set(both))
    assert texts(proposals("ver")) == ["verify"]


def test_values(proposals):
    assert texts(proposals("--cluster ")) == ["local", "inline", "ec2", "monday"]
    assert texts(proposals("--cluster m")) == ["monday"]
    assert texts(proposals("plan --cluster e")) == ["ec2"]
    assert texts(proposals("down --name ")) == ["monday"]
    assert texts(proposals("--output-format csv")) == ["csv.gz", "csv.zst"]


def test_a_classifier_is_a_function_in_a_file(proposals, folder):
    assert texts(proposals("--classifier mi")) == ["mine.py:classify", "mine.py:clean"]
    assert texts(proposals("--classifier ./mi")) == ["./mine.py:classify", "./mine.py:clean"]
    assert texts(proposals("--classifier mine.py : cla")) == ["classify"], "bash splits at a colon"
    assert texts(proposals("--classifier mine.py :")) in (["classify", "clean"], [":classify", ":clean"])
    assert texts(proposals("--classifier b")) == ["blackbox"]
    assert proposals("--classifier in") == [("file", "in")]


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
@pytest.mark.parametrize(
    ("typed", "becomes"),
    [
        ("--workers 2 --clu\t", "--workers 2 --cluster"),
        ("--input input.\t", "--input input.csv"),
        ("verify input-\t", "verify input-folder/"),
        ("--classifier mine.py:cla\t", "--classifier mine.py:classify"),
        ("--cluster mon\t", "--cluster monday"),
    ],
)
def test_the_tab_key_in_a_real_bash(folder, typed, becomes):
    """pexpect plays the terminal; what bash then shows on it is read back."""
    pexpect = pytest.importorskip("pexpect")
    environment = {
        "PATH": f"{BIN}:{os.environ['PATH']}", "TERM": "dumb", "HOME": str(folder), "PS1": "ready> ",
        "XDG_STATE_HOME": str(folder / "state"),
    }  # fmt: skip
    shell = pexpect.spawn("bash", ["--norc"], cwd=folder, env=environment, timeout=300)
    try:
        shell.sendline('eval "$(_DASK_CLASSIFY_COMPLETE=bash_source dask-classify)"; echo set"-up"')
        shell.expect("set-up\r\n")
        shell.send(f"dask-classify {typed}")
        shell.expect_exact(f"dask-classify {becomes}")
    finally:
        shell.close(force=True)
