"""What the README shows is run, word for word."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text()


def block(language):
    return re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)[1]


def shell(line, folder):
    """A line that a person would type."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        line, shell=True, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done


def test_your_own_classifier_on_your_own_file(tmp_path):
    (tmp_path / "mine.py").write_text(block("python"))
    (tmp_path / "in.csv").write_text(block("csv"))
    lines = [line.strip() for line in README.splitlines() if line.startswith("    dask-classify ") and "today" in line]
    for line in lines[:-1]:  # the last one has FILE for a file's name
        shell(line.split("  ")[0], tmp_path)
    assert (tmp_path / "result.csv").read_text() in README, "the README shows the result as it is"
    rows = (tmp_path / "result.csv").read_text().partition("\n")[2]  # below the header line
    assert shell("cat runs/today/parts/*.csv.gz | gunzip", tmp_path).stdout == rows


def test_the_python_example(tmp_path):
    example = README.split("## In Python")[1].split("```python\n")[1].split("```")[0]
    (tmp_path / "example.py").write_text(example.replace('"10k"', '"1k"'))
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def test_the_two_commands_do_the_set_up_themselves():
    """Their recipes name nothing that the clone does not bring; `make test` itself is what runs this."""
    make = shutil.which("make")
    assert (
        make is None
        or subprocess.run([make, "-n", "run"], cwd=Path(__file__).parents[2], capture_output=True).returncode == 0
    )
