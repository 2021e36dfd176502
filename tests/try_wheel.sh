#!/usr/bin/env bash
# The built wheel in an empty environment: the command, `python -m`, what the package brings along. Argument: a Python.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

"${1:-python3}" -m venv "$place/env"
"$place/env/bin/python" -m pip install --quiet --upgrade 'pip>=25.1'
"$place/env/bin/python" -m pip wheel --quiet --no-deps --wheel-dir "$place" "$here"
"$place/env/bin/python" -m pip install --quiet --constraint "$here/constraints.txt" "$place"/*.whl

cd "$place"
env/bin/dask-classify --version
env/bin/dask-classify --rows 1k --slowness 1 --output run --dashboard-address 127.0.0.1:0
env/bin/python -m dask_classifier verify run
env/bin/python -m dask_classifier report run > report.txt
grep -q "^rows out  *1,000" report.txt
grep -q "<svg" run/report.html
env/bin/python - <<'PYTHON'
from importlib.resources import files

import dask_classifier as dc

assert files(dc).joinpath("py.typed").is_file()
assert [str(row) for row in dc.open_run("run").head(2).index] == ["0", "1"]
print("the wheel works")
PYTHON
