#!/usr/bin/env bash
# prepare.sh: makes what virtual machines boot, unless it is there, and prints the folder as the last line:
#
#     vmlinuz                the kernel
#     base.qcow2             Debian with cloud-init and Docker
#     loaded.qcow2           the same with the container image already pulled
#     accelerator            of QEMU: kvm or tcg
#     registry/              the files of a registry with the image and its variants
#     index/                 a package index
#
# Exit code 77: virtual machines cannot run here, and the last line says why.
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
readonly HERE=tests/rehearsal/vm
readonly NETWORK=dask-classify-prepare-$$

skip() {
    echo "skipped: $*"
    exit 77
}

digest() {
    cat "$@" | sha256sum | cut -c1-12
}

need() {
    [[ $EUID == 0 ]] || skip "needs root, for network namespaces and a Debian of its own"
    [[ -c /dev/net/tun ]] || skip "needs /dev/net/tun"
    [[ -x .venv/bin/dask-classify ]] || skip "there is no .venv: make test"
    [[ $(. /etc/os-release && echo "${VERSION_CODENAME:-}") == bookworm ]] || skip "needs Debian 12 and its packages"
    local tools=(qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils mmdebstrap:mmdebstrap buildah:buildah nft:nftables
        docker-registry:docker-registry dnsmasq:dnsmasq-base ip:iproute2 mkfs.ext4:e2fsprogs) tool missing=()
    for tool in "${tools[@]}"; do
        command -v "${tool%:*}" >/dev/null || missing+=("${tool#*:}")
    done
    ((${#missing[@]} == 0)) || install_packages "${missing[@]}" >&2 || skip "cannot install ${missing[*]}"
    "$HERE/network.sh" up "$NETWORK" || skip "network namespaces, bridges or nftables do not work here"
    trap '"$HERE/network.sh" down "$NETWORK"' EXIT
}

install_packages() {
    local apt=(timeout 600 env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends)
    "${apt[@]}" install "$@" || { "${apt[@]}" update && "${apt[@]}" install "$@"; }
}

# build FOLDER COMMAND: unless FOLDER exists, COMMAND fills it
build() {
    [[ ! -d $1 ]] || return 0
    rm -rf "$1.new"
    mkdir -p "$1.new"
    "$2" "$1.new" >"$1.log" 2>&1 & # bash does not stop at an error in a function that stands before ||
    wait "$!" || { tail -n 20 "$1.log" >&2 && exit 1; }
    mv "$1.new" "$1"
}

# The disk with the image: the machine's own Docker pulls it, here, where that takes seconds.
load() {
    cat >"$1/registry.yml" <<END
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: $image/registry}}
http: {addr: "172.31.0.2:5000"}
END
    mkdir "$1/root"
    tar -xz -C "$1/root" -f "$disk/root.tar.gz"
    # not with ip-netns, which hides the cgroups that Docker looks for
    nsenter "--net=/run/netns/$NETWORK-vpc" unshare --mount --pid --fork --kill-child bash -Eeuo pipefail "$HERE/pull_into.sh" "$1"
    truncate -s 8G "$1/loaded.raw"
    mkfs.ext4 -q -F -L root -d "$1/root" "$1/loaded.raw"
    qemu-img convert -f raw -O qcow2 "$1/loaded.raw" "$1/loaded.qcow2"
    rm -rf "$1/root" "$1/loaded.raw" "$1/registry.yml"
    accelerator >"$1/accelerator"
}

# KVM if it runs an ordinary kernel, which not every machine that has /dev/kvm does.
accelerator() {
    local log
    log=$(mktemp)
    timeout 20 qemu-system-x86_64 -accel kvm -cpu max,la57=off,arch-capabilities=off -m 512 -display none -nic none -no-reboot \
        -kernel "$disk/vmlinuz" -append "console=ttyS0 panic=-1" -serial "file:$log" >&2 || true
    grep -q 'Linux version' "$log" && echo kvm || echo tcg,thread=multi,tb-size=256
    rm "$log"
}

main() {
    need
    mkdir -p build/vm
    local vm=$PWD/build/vm
    disk=$vm/disk-$(digest $HERE/make_disk.sh)
    build "$disk" "$HERE/make_disk.sh" & # beside the image
    local making_disk=$!
    image=$vm/image-$(digest $HERE/make_images.sh tests/image/build.sh tests/wheel_index.py Dockerfile constraints.txt pyproject.toml \
        $(find dask_classifier -type f ! -name '*.pyc' | sort))
    build "$image" "$HERE/make_images.sh"
    wait "$making_disk"
    local machine=$vm/machine-$(digest $HERE/prepare.sh $HERE/pull_into.sh)-${disk##*-}-${image##*-}
    build "$machine" load
    ln -sf "$disk"/{vmlinuz,base.qcow2} "$image"/{registry,index} "$machine/"
    echo "$machine"
}

main
