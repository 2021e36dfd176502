"""The public API is typed: each signature, and a user's program under a strict type checker."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import dask_classifier as dc

CHECKER = Path(sys.executable).with_name("basedpyright")
BEYOND = ["result.Verified", "receipts.Receipt", "progress.Snapshot", "progress.Beginning"]  # what public names give
# its base, dask-cloudprovider's EC2Cluster, has no types; these two are overrides of it
UNTYPED = {f"dask_classifier.cluster.EC2Cluster{name}" for name in ("", ".scheduler_class", ".worker_class")}
PROGRAM = """
from pathlib import Path

import pandas as pd

import dask_classifier as dc


class Following(dc.Progress):
    def note(self, text: str) -> None:
        print(text, self.snapshot().rows_a_second)


def classify(chunk: pd.DataFrame) -> pd.Series:
    return chunk["SKU"].str.len()


plan: dc.Plan = dc.plan(rows="1k", output=Path("runs"), classifier=classify, max_bad="1%")
try:
    with dc.LocalCluster(workers=2) as cluster:
        result: dc.Result = dc.run(plan, cluster, progress=Following())
except dc.errors.DaskClassifyError as error:
    print(error.message, error.hint, error.exit_code)
    raise
frame: pd.DataFrame = result.head(3)
digest: str = result.verify().sha256
seconds: list[float] = [receipt.seconds for receipt in result.receipts]
rows: int = dc.open_run("runs").rows + result.fetch(Path("all.csv"))
spec: dc.ClusterSpec = dc.ClusterSpec.of(image="registry/name:tag", workers=2)
print(result.rows_out)
"""


def check(*words, cwd):
    """The checker, with this environment's Python first on the path: it finds packages so."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [CHECKER, "--outputjson", *words], cwd=cwd, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def public_homes():
    """The public names by their modules."""
    found = [getattr(dc, name) for name in dc.__all__]
    return [each.__name__ if inspect.ismodule(each) else f"{each.__module__}.{each.__qualname__}" for each in found] + [
        f"dask_classifier.{name}" for name in BEYOND
    ]


def test_each_public_signature_has_types(tmp_path):
    told = check("--verifytypes", "dask_classifier", "--ignoreexternal", cwd=tmp_path)
    homes = public_homes()
    seen = {
        each["name"]: each["isTypeKnown"]
        for each in told["typeCompleteness"]["symbols"]
        for home in homes
        if each["name"] == home or (each["name"].startswith(f"{home}.") and each["name"][len(home) + 1] != "_")
    }
    assert {f"{home}.{name}" for home, name in [("dask_classifier.runs.result.Result", "head")]} < set(seen) and len(
        seen
    ) > 80
    assert {name for name, known in seen.items() if not known} <= UNTYPED


def test_a_strict_checker_passes_a_program_and_finds_its_one_mistake(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    told = check("program.py", cwd=tmp_path)["generalDiagnostics"]
    last = len(PROGRAM.splitlines()) - 1
    assert {each["range"]["start"]["line"] for each in told} == {last}, told
    assert "reportAttributeAccessIssue" in {each["rule"] for each in told}
