"""House rules that a program can check."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import dask_classifier

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "dask_classifier"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
    if path.parent != PACKAGE or not path.stem.startswith("__")
}
PRINTING = {"cli.app", "cli.checks", "cli.choosing", "cli.cluster_commands", "cli.completion", "cli.hours"}
PRINTING |= {"cli.image_commands", "cli.instances", "cli.options", "cli.run_commands", "show.terminal"}
PRINTING |= {"cli.detached", "cli.detached_commands"}
SPEAKING_TO_AWS = {"storage", "ec2.aws", "ec2.teardown", "ec2.launcher", "ec2.ingress", "ec2.prices", "ec2.doctor"}


def layers():
    """The top-level modules in the table of ARCHITECTURE.md, the lowest first."""
    section = (ROOT / "ARCHITECTURE.md").read_text().split("## Modules")[1].split("\n## ")[0]
    return re.findall(r"^\| (\w+)(?:/|\.py) \|", section, re.MULTILINE)


def layer_of(module):
    return module.split(".")[0]


def imports(module, *, types=True):
    """The modules of this package that a module imports, at any depth; without `types`, only those it runs."""
    package = [] if "." not in module and MODULES[module].stem != "__init__" else [layer_of(module)]
    imported = set()
    tree = ast.parse(MODULES[module].read_text())
    only_types = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in block.body
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and (types or node not in only_types):
            base = package[: len(package) + 1 - node.level] + (node.module.split(".") if node.module else [])
            inside = [".".join([*base, alias.name]) for alias in node.names]
            imported |= {name if name in MODULES else ".".join(base) for name in inside} - {""}
    return imported


def foreign_imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


def test_there_are_as_many_modules_as_files():
    assert len(MODULES) > 70 and {"rows", "cli.app", "tasks"} <= set(MODULES)


def test_no_module_imports_one_below_it_in_the_table():
    order = layers()
    assert sorted(order) == sorted({layer_of(module) for module in MODULES})
    for module in MODULES:
        for other in imports(module):
            assert order.index(layer_of(other)) <= order.index(layer_of(module)), f"{module} imports {other}"


def test_no_imports_go_in_a_circle():
    TopologicalSorter({module: imports(module, types=False) for module in MODULES}).prepare()


def test_each_room_says_in_two_sentences_what_it_is_for_and_imports_nothing():
    for module, path in MODULES.items():
        if path.stem == "__init__":
            tree = ast.parse(path.read_text())
            first, second = ast.get_docstring(tree).split("\n\n")
            assert len(tree.body) == 1 and first.endswith(".") and second.startswith("May import"), module


def test_one_door_each():
    for module, path in MODULES.items():
        foreign = set(foreign_imports(path))
        assert module == "storage" or ("fsspec" not in foreign and "s3fs" not in foreign), path
        assert module in PRINTING or not foreign & {"click", "rich"}, path
        assert module in SPEAKING_TO_AWS or "botocore" not in foreign, path
        calls = {
            node.func.id
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert module in PRINTING or "print" not in calls, path


def test_each_module_says_its_reason_and_is_short():
    for path in PACKAGE.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), path
        assert len(path.read_text().splitlines()) <= 400, path


def test_the_public_names_are_there():
    for name in dask_classifier.__all__:
        assert getattr(dask_classifier, name).__doc__
        assert name in dir(dask_classifier)


def test_little_of_dask_cloudprovider_is_used():
    """It has had no release since September 2025, so each name that is used is one that may have to be replaced."""
    used = set()
    for path in MODULES.values():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and not node.level and node.module.startswith("dask_cloudprovider"):
                used |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("dask_cloudprovider."):
                used.add(ast.unparse(node))
    longest = {name for name in used if not any(other.startswith(f"{name}.") for other in used)}
    assert longest == {
        "dask_cloudprovider.aws.EC2Cluster",
        "dask_cloudprovider.aws.ec2.EC2Scheduler",
        "dask_cloudprovider.aws.ec2.EC2Worker",
    }
