#!/usr/bin/env bash
# Builds the image from the Dockerfile and runs a cluster from it, for real, on a machine without Docker: see build.sh.
#
#     tests/image/try_image.sh        needs root, apt, and the .venv of `make test`
#
# Exit code 0: it works; 77: it cannot be tried here, and the last line says why; otherwise: it does not work.
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# shellcheck source=tests/image/build.sh
. tests/image/build.sh

readonly ROWS=2000

# The command of the image itself, which `buildah run` would not run.
default_command() {
    "${store[@]}" inspect --type image "$IMAGE" |
        "$BIN/python" -c 'import json, sys; print(*json.load(sys.stdin)["OCIv1"]["config"]["Cmd"], sep="\n")'
}

# [--user UID] COMMAND... in the container, to its end
inside() {
    local user=()
    [[ $1 != --user ]] || { user=(--user "$2") && shift 2; }
    timeout 60 "${store[@]}" run --isolation chroot "${user[@]}" "$container" -- "$@"
}

check_image() {
    local command
    mapfile -t command < <(default_command)
    inside "${command[@]}" | grep -q 'Usage: dask-classify' || fail "the image's command does not work: ${command[*]}"
    [[ $(inside id -u) == 1000 ]] || fail "the image's user is not 1000"
    # shellcheck disable=SC2016  # HOME is the image's
    quietly inside sh -c 'cd && touch here && cd - && touch here && [ "$HOME" != / ] && rm here ~/here' ||
        fail "the image's user cannot write its home and its work folder"
    inside python -v -c 'import pandas, pyarrow, dask_classifier.tasks' >"$work/imports" 2>&1 || fail "the image's packages"
    grep -q '^# code object from .*site-packages/dask_classifier' "$work/imports" || fail "what python -v says has changed"
    ! grep '^# could not create .*site-packages' "$work/imports" >&2 ||
        fail "the user can neither use nor write the bytecode: every start compiles it anew"
    inside python -c "$(<tests/import_all.py)" | grep -q '^all [0-9]* modules' || fail "a module cannot be imported in the image"
    quietly inside --user 4321:4321 sh -c 'dask-classify --rows 200 --slowness 1 --cluster inline --output as-nobody' ||
        fail "the image does not work for docker run --user"
}

# A part of the cluster, in the container, in the background.
start() {
    setsid "${store[@]}" run --isolation chroot --volume "$share:$share" "$container" -- \
        python -m "distributed.cli.dask_$1" --host 127.0.0.1 --no-dashboard --dashboard-address 127.0.0.1:0 "${@:2}" \
        >"$work/$1.log" 2>&1 &
    running+=("$!")
}

wait_for_file() {
    for _ in {1..300}; do
        [[ ! -s $1 ]] || return 0
        alive "${running[@]}" || return 1
        sleep 0.1
    done
    return 1
}

start_cluster() {
    start scheduler --port 0 --scheduler-file "$share/scheduler.json"
    wait_for_file "$share/scheduler.json" || fail "no scheduler: $(cat "$work/scheduler.log")"
    address=$("$BIN/python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["address"])' "$share/scheduler.json")
    [[ $address == tcp://127.0.0.1:* ]] || fail "the scheduler is not on loopback: $address"
    start worker "$address" --name in-the-image --nthreads 2
}

# The client, outside. Everybody may write what it makes, since the worker inside is another user; blocks of a given size, since
# otherwise measurement decides, and other blocks are other bytes.
classify() {
    (umask 0 && timeout 120 "$BIN/dask-classify" --rows "$ROWS" --slowness 1 --block-rows 200 --output "$2" --cluster "$1")
}

# Rows and checksum, if every part is what the manifest says.
verified() {
    timeout 60 "$BIN/dask-classify" verify --json "$1" |
        "$BIN/python" -c 'import json, sys; told = json.load(sys.stdin); print(told["rows"], told["sha256"])'
}

try_cluster() {
    local there here
    quietly classify "$address" "$share/cluster" || {
        tail -n 40 "$work/scheduler.log" "$work/worker.log" >&2
        fail "the run on the image's cluster"
    }
    quietly classify inline "$share/inline" || fail "the run without a cluster"
    there=$(verified "$share/cluster") || fail "verify refuses the cluster's result"
    here=$(verified "$share/inline") || fail "verify refuses one process's result"
    [[ $there == "$ROWS "* ]] || fail "rows: $there"
    [[ $there == "$here" ]] || fail "the cluster's result is $there, one process's is $here"
    # the work was done in there, and not by something else that answers at the address
    [[ $(stat -c %u "$share"/cluster/parts/*.csv.gz | sort -u) == 1000 ]] || fail "the image's user did not write the parts"
    [[ $(grep -L in-the-image "$share"/cluster/parts/*.json) == '' ]] || fail "the image's worker did not do the blocks"
}

# What `dask-classify image build` makes from what is installed here, with a buildah that keeps it in this test's storage.
try_own_image() {
    local tool=$work/buildah
    cat >"$tool" <<END
#!/bin/bash
[[ \$1 != build ]] || { shift && set -- bud --isolation chroot --pull=never "\$@"; }
exec ${store[@]@Q} "\$@"
END
    chmod +x "$tool"
    quietly "$BIN/dask-classify" image build own:1 --tool "$tool" --base-image "docker.io/library/python:$minor-slim" ||
        fail "dask-classify image build"
    container=$("${store[@]}" from --pull-never own:1)
    [[ $(inside id -u) == 1000 ]] || fail "the own image's user is not 1000"
    inside python -c "$(<tests/import_all.py)" | grep -q '^all [0-9]* modules' || fail "a module cannot be imported in the own image"
    quietly inside dask-classify --rows 200 --slowness 1 --cluster inline --output in-work || fail "a run in the own image"
}

main() {
    local minor container address size
    prepare
    share=$(mktemp -d)
    chmod 777 "$share"
    container=$("${store[@]}" from --pull-never "$IMAGE")
    size=$(du -sm "$("${store[@]}" mount "$container")" | cut -f1)
    step "the image, unpacked $size MB"
    check_image
    step "its command, its user, its folders"
    start_cluster
    step "a scheduler and a worker from it"
    try_cluster
    step "$ROWS rows from there are the same as from here"
    stop_all || fail "the cluster did not end"
    try_own_image
    step "the same for an image of dask-classify image build"
    step "done"
}

main "$@"
