#!/usr/bin/env bash
# The built wheel in an environment with nothing else: every module, every command, what the package brings along.
# What only the tests' environment has must not be needed by any of it. Argument: a Python.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

"${1:-python3}" -m venv "$place/env"
"$place/env/bin/python" -m pip install --quiet --upgrade 'pip>=25.1'
"$place/env/bin/python" -m pip wheel --quiet --no-deps --wheel-dir "$place" "$here"
"$place/env/bin/python" -m pip install --quiet --constraint "$here/constraints.txt" "$place"/*.whl

cd "$place"
env/bin/python "$here/tests/import_all.py"
env/bin/dask-classify --version
env/bin/dask-classify --rows 1k --slowness 1 --output run --dashboard-address 127.0.0.1:0
env/bin/python -m dask_classifier verify run
env/bin/python -m dask_classifier report run > report.txt
grep -q "^rows out  *1,000" report.txt
grep -q "<svg" run/report.html

# Nobody's account: a home without settings, and an endpoint at which nobody listens.
export HOME="$place/home" XDG_STATE_HOME="$place/home/state" AWS_EC2_METADATA_DISABLED=true AWS_MAX_ATTEMPTS=1
export AWS_ENDPOINT_URL=http://127.0.0.1:1 AWS_ACCESS_KEY_ID=testing AWS_SECRET_ACCESS_KEY=testing
unset AWS_PROFILE AWS_REGION AWS_DEFAULT_REGION AWS_SESSION_TOKEN
mkdir -p "$HOME"

# EXIT_CODE WORD...: the command ends with this code, and with a sentence instead of a traceback
answers() {
    local code=0
    env/bin/dask-classify "${@:2}" >answer 2>&1 || code=$?
    if ((code != $1)) || grep -q Traceback answer; then
        echo "FAILED: dask-classify ${*:2} ended with $code instead of $1:" >&2
        cat answer >&2
        exit 1
    fi
}

aws=(--region us-east-1)
for name in $(env/bin/python -c 'from dask_classifier.cli.app import app; print(*app.commands)'); do
    answers 0 "$name" --help
    tried=" ${tried:-} $name "
done
answers 0 --help
answers 0 plan --rows 10k
answers 0 plan --rows 1k --slowness 1 --finish-in 1h --json
answers 4 plan --rows 10k --cluster ec2 "${aws[@]}" --image nowhere/image:1 --output s3://bucket/run
answers 0 generate --rows 1k in.csv
answers 0 --input in.csv --classifier blackbox --slowness 1 --cluster inline --output inline
answers 0 verify inline
answers 0 report inline --json
answers 0 fetch inline out.csv
answers 0 fetch inline out.parquet
answers 0 publish inline published.csv.gz --cluster inline
answers 2 publish inline published.csv.gz --cluster ec2
gzip -t published.csv.gz
answers 0 ledger 'runs/{date}/{hour}'
answers 0 backfill --since -2h -- --rows 100 --output 'runs/{date}/{hour}'
answers 2 --rows 10 --cluster nosuch --output s3://bucket/run
answers 1 --rows 10 --slowness 1 --cluster inline --output s3://bucket/run
answers 4 --rows 10 --cluster ec2 "${aws[@]}" --image nowhere/image:1 --output s3://bucket/run
answers 4 --rows 10 --cluster ec2 "${aws[@]}" --output s3://bucket/run
answers 2 --rows 10 --detach --cluster local
for name in attach wait cancel; do answers 1 "$name" s3://bucket/run; done
answers 2 up --name mine "${aws[@]}"
answers 2 image build registry/name:1 --tool nosuch
answers 4 up --name mine "${aws[@]}" --image nowhere/image:1
answers 4 down --name mine
answers 4 status "${aws[@]}"
answers 4 reap "${aws[@]}"
answers 0 doctor --policy
answers 0 doctor --template --detach
answers 1 doctor "${aws[@]}" --image nowhere/image:1 --output s3://bucket/run
for name in run plan generate verify report fetch publish ledger backfill attach wait cancel up down status reap doctor image; do
    tried=${tried/ $name /}
done
[[ -z ${tried// /} ]] || { echo "FAILED: never called:$tried" >&2; exit 1; }

env/bin/python - <<'PYTHON'
from importlib.resources import files

import dask_classifier as dc

assert files(dc).joinpath("py.typed").is_file()
assert [str(row) for row in dc.open_run("run").head(2).index] == ["0", "1"]
print("the wheel works")
PYTHON
