"""House rules that a program can check."""

import ast
import re
from pathlib import Path

import dask_classifier

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "dask_classifier"
PRINTING = {"completion", "cli", "commands", "machine_commands", "options", "display"}
SPEAKING_TO_AWS = {"storage", "aws", "reaper", "fleet", "costs", "doctor"}


def table():
    """The files in ARCHITECTURE.md, top layer first."""
    section = (ROOT / "ARCHITECTURE.md").read_text().split("## Files")[1].split("\n## ")[0]
    return re.findall(r"^\| (\w+)\.py \|", section, re.MULTILINE)


def imports(path):
    """The modules of this package that a file imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
    return found


def foreign_imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


def test_the_table_lists_each_module_and_imports_go_up_only():
    order = table()
    assert sorted(order) == sorted(path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__"))
    for number, name in enumerate(order):
        assert imports(PACKAGE / f"{name}.py") - {"__version__"} <= set(order[:number]), f"{name}.py imports from below"


def test_one_door_each():
    for path in PACKAGE.glob("*.py"):
        foreign = set(foreign_imports(path))
        assert path.stem == "storage" or ("fsspec" not in foreign and "s3fs" not in foreign), path
        assert path.stem in PRINTING or not foreign & {"click", "rich"}, path
        assert path.stem in SPEAKING_TO_AWS or "botocore" not in foreign, path
        calls = {
            node.func.id
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert path.stem in PRINTING or "print" not in calls, path


def test_each_module_says_its_reason_and_is_short():
    for path in PACKAGE.glob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), path
        assert len(path.read_text().splitlines()) <= 400, path


def test_the_public_names_are_there():
    for name in dask_classifier.__all__:
        assert getattr(dask_classifier, name).__doc__
        assert name in dir(dask_classifier)
