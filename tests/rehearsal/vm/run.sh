#!/usr/bin/env bash
# run.sh [short | TESTS AND OPTIONS OF PYTEST]: the tests that are marked `virtual`, with virtual machines instead of played ones.
#
# short: a whole run, and a reboot.
# Exit code 77: virtual machines cannot run here, and the last line says why.
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
network=dask-classify-$$
[[ ${1:-} != short ]] || set -- tests/vm/test_machines.py::test_off_after_a_reboot tests/vm/test_clusters.py::test_end_to_end
machines_log=''

log=$(mktemp)
code=0
tests/rehearsal/vm/prepare.sh | tee "$log" || code=$?
machine=$(tail -n 1 "$log")
rm "$log"
((code == 0)) || exit "$code"

clean_up() {
    trap '' INT TERM HUP
    # shellcheck disable=SC2046  # process ids, and each is a word
    kill $(jobs -p) 2>/dev/null || true
    wait
    [[ -z $machines_log ]] || cat "$machines_log"
    for name in "$network-1" "$network-2"; do
        tests/rehearsal/vm/network.sh down "$name"
    done
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

# shard NUMBER WHAT...: pytest in a network of its own
shard() {
    local name=$network-$1
    tests/rehearsal/vm/network.sh up "$name"
    exec ip netns exec "$name-home" env REHEARSAL_VM="$name" REHEARSAL_VM_MACHINE="$machine" PYTHONPATH=tests \
        .venv/bin/python -m pytest -m virtual -p rehearse_virtual -p no:cacheprovider -o timeout=3600 "${@:2}"
}

if (($#)); then
    shard 1 "$@" &
    wait "$!"
    exit
fi
# two at once: machines wait for their deadlines, and a boot keeps little more than one core busy
machines_log=build/vm/machines.log # printed at the end
lost=tests/ec2/test_ec2_faults.py::test_a_lost_scheduler_then_resume_on_a_new_cluster # with the machines, which take less time
shard 1 tests/vm/test_machines.py "$lost" >"$machines_log" 2>&1 &
machines=$!
shard 2 tests/vm/test_clusters.py tests/ec2 --deselect "$lost" &
wait "$!" || code=$?
wait "$machines" || code=$?
exit "$code"
