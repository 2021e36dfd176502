#!/usr/bin/env bash
# make_images.sh FOLDER: the project's image and faulty variants of it, and Python's, in FOLDER/registry, the files of a registry;
# in FOLDER/index the packages that instances without the project's image install, and AWS's command line for the user.
set -Eeuo pipefail
folder=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
# shellcheck source=tests/image/build.sh
. tests/image/build.sh

readonly PORT=5099 # on loopback, only while this runs

# variant TAG [IMAGE], with the container in $container and its files in $root
variant() {
    container=$("${store[@]}" from --pull-never "${2:-$IMAGE}")
    root=$("${store[@]}" mount "$container")
    # where AWS is: the one thing that is not the project's
    "${store[@]}" config --env AWS_ENDPOINT_URL=http://172.31.0.2:4566 "$container"
    "variant_$1"
    quietly "${store[@]}" commit --rm "$container" "dask-classify:$1"
    quietly "${store[@]}" push --tls-verify=false "dask-classify:$1" "docker://127.0.0.1:$PORT/dask-classify:$1"
    step "dask-classify:$1"
}

variant_1() {
    :
}

# Python alone, which knows the region's index of packages
variant_python() {
    "${store[@]}" config --env PIP_INDEX_URL=http://172.31.0.2:5001/simple --env PIP_TRUSTED_HOST=172.31.0.2 "$container"
}

# with another version of pandas, as its metadata say
variant_other() {
    sed -i 's/^Version: .*/Version: 0.0.1/' "$root"/usr/local/lib/python*/site-packages/pandas-*.dist-info/METADATA
}

# with a container that does not heed SIGTERM
variant_stubborn() {
    "${store[@]}" config --entrypoint \
        '["python", "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(1e6)"]' "$container"
}

# for another kind of processor: the machine's number is in the 19th byte of a program; the shell's too, which execvp tries next
variant_arm() {
    local python program
    python=$(readlink -f "$root/usr/local/bin/python") # a link in the image may be absolute, and then leads out of it
    for program in "${python#"$root"}" /usr/bin/dash; do
        printf '\xb7' | dd of="$root/$program" bs=1 seek=18 conv=notrunc status=none
    done
}

main() {
    local minor container root
    prepare
    step "the image"
    mkdir -p "$folder/registry.new"
    cat >"$work/registry.yml" <<END
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: $folder/registry.new}}
http: {addr: "127.0.0.1:$PORT"}
END
    docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
    running+=("$!")
    for _ in {1..100}; do
        (: <"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null && break
        sleep 0.1
    done
    for tag in 1 other stubborn arm; do
        variant "$tag"
    done
    variant python "docker.io/library/python:$("$BIN/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-slim"
    step "the index"
    mkdir "$folder/index.new"
    "$BIN/python" -m pip wheel --quiet --wheel-dir "$work/aws" awscli
    PYTHONPATH=tests "$BIN/python" tests/wheel_index.py "$folder/index.new" "$work/aws"
    mv "$folder/index.new" "$folder/index"
    mv "$folder/registry.new" "$folder/registry"
}

main
