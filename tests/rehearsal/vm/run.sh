#!/usr/bin/env bash
# run.sh [short | TESTS AND OPTIONS OF PYTEST]: the tests that are marked `virtual`, with virtual machines instead of played ones.
#
# short: a whole run, and a reboot.
# Exit code 77: virtual machines cannot run here, and the last line says why.
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
network=dask-classify-$$
[[ ${1:-} != short ]] || set -- tests/vm/test_machines.py::test_off_after_a_reboot tests/vm/test_clusters.py::test_end_to_end

log=$(mktemp)
code=0
tests/rehearsal/vm/prepare.sh | tee "$log" || code=$?
machine=$(tail -n 1 "$log")
rm "$log"
((code == 0)) || exit "$code"
marked=virtual # with the slow ones, if they are named

clean_up() {
    trap '' INT TERM HUP
    # shellcheck disable=SC2046  # process ids, and each is a word
    kill $(jobs -p) 2>/dev/null || true
    wait
    for name in "$network-1" "$network-2"; do
        tests/rehearsal/vm/network.sh down "$name"
    done
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

# shard NUMBER WHAT...: pytest in a network
shard() {
    local name=$network-$1
    exec ip netns exec "$name-home" env REHEARSAL_VM="$name" REHEARSAL_VM_MACHINE="$machine" PYTHONPATH=tests \
        .venv/bin/python -m pytest -m "$marked" -p rehearse_virtual -p no:cacheprovider -o timeout=3600 "${@:2}"
}

if (($#)); then
    tests/rehearsal/vm/network.sh up "$network-1"
    shard 1 "$@" &
    wait "$!"
    exit
fi
marked='virtual and not slow'

# Two at once: machines wait for their deadlines, and a boot keeps little more than one core busy. Whichever is free takes the
# next test from a queue, the longest first. The machines of test_machines.py wait together.
readonly LONGEST=(
    tests/vm/test_machines.py
    tests/vm/test_clusters.py::test_workers_that_are_lost_frozen_and_reclaimed
    tests/ec2/test_ec2_faults.py::test_a_lost_scheduler_then_resume_on_a_new_cluster
    tests/ec2/test_ec2_faults.py::test_after_kill_9_the_machines_end_themselves
)
readonly LOGS=build/vm/logs
rm -rf "$LOGS"
mkdir "$LOGS"
: >"$LOGS/lock"
collected=$(REHEARSAL_VM=collecting PYTHONPATH=tests .venv/bin/python -m pytest --collect-only -q -m "$marked" -p no:cacheprovider tests/vm tests/ec2)
{
    printf '%s\n' "${LONGEST[@]}"
    grep :: <<<"$collected" | grep --invert-match --fixed-strings "$(printf '%s\n' "${LONGEST[@]}")"
} >"$LOGS/queue"

# take_next: the next test of the queue, in $next; fails when there is none
take_next() {
    exec 7<"$LOGS/lock"
    flock 7
    next=$(head -n 1 "$LOGS/queue")
    sed -i 1d "$LOGS/queue"
    exec 7<&-
    [[ -n $next ]]
}

# work NUMBER: tests of the queue, one after the other; fails if one has failed
work() {
    local next code=0 log
    trap 'kill "$!"; wait "$!"; exit 143' TERM
    tests/rehearsal/vm/network.sh up "$network-$1"
    while take_next; do
        log=$LOGS/$(tr '/:' '__' <<<"$next").log
        (shard "$1" "$next") >"$log" 2>&1 &
        wait "$!" || code=$?
        flock "$LOGS/lock" cat "$log"
    done
    exit "$code"
}

work 1 &
first=$!
work 2 &
second=$!
wait "$first" || code=$?
wait "$second" || code=$?
exit "$code"
