# shellcheck shell=bash
# Functions that build the image from the Dockerfile on a machine with neither Docker nor an image registry: buildah builds, and
# the base image is made of the machine's own Debian packages and its own Python. Sourced in the project's folder.
#
# They need root, apt, and the .venv of `make test`.

readonly BIN=$PWD/.venv/bin
readonly IMAGE=dask-classify
readonly CACHE=$PWD/build/image # what the next run need not download again

work='' # all that this run makes: storage of images, logs
share='' # the folder that the client outside and the worker inside have in common, at the same path
store=() # buildah with a storage of its own: nobody else's images are seen, and all of it goes with the folder
running=() # processes that were started and have not been waited for
volumes=() # what the build must see of this machine

skip() {
    echo "skipped: $*"
    exit 77
}

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

step() {
    printf '%4d s  %s\n' "$SECONDS" "$*"
}

# Runs a step whose output matters only when it fails. In the background, because bash hears no signal while it waits for a step
# in the foreground: Ctrl-C would have to wait for the build.
quietly() {
    local log code=0
    log=$(mktemp "$work/log-XXXXXX")
    "$@" >"$log" 2>&1 &
    running+=("$!")
    wait "$!" || code=$?
    unset 'running[-1]'
    ((code == 0)) || {
        tail -n 40 "$log" >&2
        echo "($* ended with $code)" >&2
    }
    return "$code"
}

# All processes below the given ones. By descent and not by group alone, since a classifier process leads a group of its own.
family() {
    local pid
    for pid in "$@"; do
        echo "$pid"
        # shellcheck disable=SC2046  # process ids, and each is a word
        family $(ps -o pid= --ppid "$pid" 2>/dev/null || true)
    done
}

alive() {
    local pid
    for pid in "$@"; do
        # a zombie waits for its parent and does no more
        [[ $(ps -o stat= -p "$pid" 2>/dev/null || true) == [!Z]* ]] && return 0
    done
    return 1
}

stop_all() {
    local all pid
    ((${#running[@]})) || return 0
    mapfile -t all < <(family "${running[@]}")
    for signal in TERM KILL; do
        for pid in "${all[@]}"; do
            kill -s "$signal" "$pid" 2>/dev/null || true
        done
        for _ in {1..100}; do
            alive "${all[@]}" || break 2
            sleep 0.1
        done
    done
    running=()
    ! alive "${all[@]}"
}

clean_up() {
    local code=$?
    trap - EXIT
    trap '' INT TERM HUP
    stop_all || echo "a process of the cluster could not be ended" >&2
    # the storage may hold a mounted container, whose files must not be deleted through the mount
    if [[ -n $work && -d $work/storage ]]; then
        timeout 60 "${store[@]}" rm --all >/dev/null 2>&1 || true
        timeout 60 "${store[@]}" rmi --all --force >/dev/null 2>&1 || true
    fi
    [[ -z $work ]] || rm -rf --one-file-system "$work"
    [[ -z $share ]] || rm -rf --one-file-system "$share"
    exit "$code"
}

apt() {
    timeout 300 env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Acquire::Retries=3 --no-install-recommends "$@"
}

# A machine may have been set up without lists of packages, or long ago.
apt_or_update() {
    quietly apt "$@" 2>/dev/null || { quietly apt update && quietly apt "$@"; }
}

need_tools() {
    [[ -x $BIN/dask-classify ]] || fail "there is no .venv: make test"
    [[ $EUID == 0 ]] || skip "needs root, to install buildah and to make a base image"
    command -v apt-get dpkg-deb >/dev/null || skip "needs apt, to install buildah and to make a base image"
    unshare --mount true 2>/dev/null || skip "this machine lets root make no mount namespace, which buildah needs"
}

need_buildah() {
    command -v buildah >/dev/null || apt_or_update install buildah || skip "buildah cannot be installed with apt"
    # vfs copies where overlay would stack: slower, but there is no file system on which it does not work
    store=(buildah --root "$work/storage" --runroot "$work/runroot" --storage-driver vfs)
}

# The smallest Debian on which a Dockerfile runs: packages of this machine's own release, from its own sources, unpacked and not
# configured. That takes a fifth of the time of debootstrap or
# mmdebstrap, and needs neither.
make_debian() {
    local archives=$work/archives root=$work/debian package
    local packages=(base-files base-passwd bash coreutils dash findutils grep libc-bin libstdc++6 passwd)
    mkdir -p "$archives/partial" "$root"
    # without the machine's state, so that apt asks for all that the packages need, installed here or not
    apt_or_update install --download-only -o Dir::State::status=/dev/null -o Dir::Cache::archives="$archives" \
        "${packages[@]}" || skip "apt cannot download the packages of the base image"
    for name in bin sbin lib lib64; do # as in every Debian today
        mkdir -p "$root/usr/$name"
        ln -s "usr/$name" "$root/$name"
    done
    for package in "$archives"/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$root"
    done
    for name in passwd group; do # as base-passwd's own set-up does
        cp "$root/usr/share/base-passwd/$name.master" "$root/etc/$name"
    done
    rm -rf "$root"/usr/share/{doc,man,locale} "$archives"
    mkdir -p "$CACHE"
    # under its own name only when it is whole
    tar -c -C "$root" . >"$work/debian.tar" && mv "$work/debian.tar" "$1"
    rm -rf "$root"
}

python_fact() {
    "$BIN/python" -c "import sys, sysconfig; print($1)"
}

# Python's own files, where the official images have them, and not what is installed in it. A Python that belongs to Debian
# looks for its library in /usr and nowhere else, so it stays there, and /usr/local becomes an environment of it.
copy_python() {
    local root=$1 minor=$2 stdlib prefix=/usr/local
    stdlib=$(python_fact 'sysconfig.get_path("stdlib")')
    [[ $(python_fact 'sys.base_prefix') != /usr ]] || prefix=/usr
    mkdir -p "$root$prefix/bin" "$root$prefix/lib" "$root/usr/local/bin" "$root/usr/local/lib/python$minor/site-packages"
    tar -c -C "${stdlib%/*}" --exclude=site-packages --exclude=dist-packages --exclude=__pycache__ \
        --exclude="python$minor/test" --exclude="python$minor/config-*" "python$minor" | tar -x -C "$root$prefix/lib"
    cp -L "$(readlink -f "$BIN/python")" "$root$prefix/bin/python$minor"
    [[ $prefix == /usr/local ]] || {
        ln -s "/usr/bin/python$minor" "$root/usr/local/bin/python$minor"
        printf 'home = /usr/bin\ninclude-system-site-packages = false\n' >"$root/usr/local/pyvenv.cfg"
    }
    ln -sf "python$minor" "$root/usr/local/bin/python"
    ln -sf "python$minor" "$root/usr/local/bin/python3"
    cp -R "$("$BIN/python" -c 'import pip, os; print(os.path.dirname(pip.__file__))')" \
        "$root/usr/local/lib/python$minor/site-packages/"
}

# The shared libraries that Python was linked with: which packages they come in differs from release to release, but the release
# is the same on both sides.
copy_libraries() {
    local root=$1 minor=$2 libpython library
    libpython=$(python_fact '(sysconfig.get_config_var("LIBDIR") or "") + "/" + (sysconfig.get_config_var("INSTSONAME") or "")')
    [[ $libpython != *.so* || ! -e $libpython ]] || cp -L "$libpython" "$root/usr/local/lib/"
    # _tkinter would bring half a desktop along
    {
        find "$root"/usr/bin "$root"/usr/local "$root"/usr/lib/python* \( -name '*.so*' -o -name "python$minor" \) -type f \
            ! -name '_tkinter*' -exec ldd {} + 2>/dev/null || true # not all of these are there, or linked
    } | awk '$2 == "=>" && $3 ~ "^/" { print $3 }' | sort -u |
        while read -r library; do
            [[ -e $root$library || $library == "$libpython" ]] || {
                mkdir -p "$root${library%/*}"
                cp -L "$library" "$root$library"
            }
        done
    chroot "$root" ldconfig
}

make_base() {
    local minor=$1 container root debian
    # shellcheck source=/dev/null
    debian=$CACHE/debian-$(. /etc/os-release && echo "${VERSION_CODENAME:-unknown}")-2.tar # counted up with make_debian
    [[ -s $debian ]] || make_debian "$debian"
    step "a Debian of $(du -m "$debian" | cut -f1) MB"
    container=$("${store[@]}" from --pull-never scratch)
    root=$("${store[@]}" mount "$container")
    tar -x -C "$root" -f "$debian"
    copy_python "$root" "$minor"
    copy_libraries "$root" "$minor"
    "${store[@]}" config --env PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin --env LANG=C.UTF-8 "$container"
    quietly "${store[@]}" commit --rm "$container" "docker.io/library/python:$minor-slim"
}

# What pip on this machine knows about where packages come from, as one file for the build, which sees it only while it lasts;
# then the folders, files and certificates that it names, a line each.
pip_settings() {
    "$BIN/python" - "$1" <<'PYTHON'
import ast, configparser, os, subprocess, sys
from pathlib import Path

WHERE = {"index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "cert", "client-cert", "proxy", "timeout",
         "default-timeout", "retries"}
listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True).stdout
entries = [line.split("=", 1) for line in listed.splitlines() if "=" in line]
settings = {}
for name, value in sorted(entries, key=lambda entry: entry[0].startswith(":env:")):  # the environment has the last word
    section, _, key = name.rpartition(".")
    if section in ("global", "install", ":env:") and key in WHERE:
        settings[key] = ast.literal_eval(value)
bundle = os.environ.get("SSL_CERT_FILE") or os.environ.get("REQUESTS_CA_BUNDLE")
if bundle:
    settings.setdefault("cert", bundle)
config = configparser.RawConfigParser()
config["global"] = {key: "\n".join(value.split()) for key, value in settings.items()}
with open(sys.argv[1], "w") as file:
    config.write(file)
words = [word for value in settings.values() for word in value.split()]
paths = {Path(word) for word in words if word.startswith("/")}
# an index on the disk has its files beside it
paths |= {Path(word.removeprefix("file://")).parent for word in words if word.startswith("file:///")}
print(*sorted(path for path in paths if path.exists() and path.name), sep="\n")
PYTHON
}

find_volumes() {
    local path
    pip_settings "$work/pip.conf" >"$work/paths"
    volumes=(--volume "$work/pip.conf:/etc/pip.conf:ro")
    while read -r path; do
        [[ -z $path ]] || volumes+=(--volume "$path:$path:ro")
    done <"$work/paths"
}

build_image() {
    find_volumes
    quietly timeout 400 "${store[@]}" bud --isolation chroot --pull=never "${volumes[@]}" \
        --build-arg "PYTHON_VERSION=$1" --tag "$IMAGE" .
}

# All that a script needs before it can build, and what must not remain when it ends.
prepare() {
    need_tools
    trap clean_up EXIT
    trap 'exit 130' INT TERM HUP
    trap 'echo "FAILED in line $LINENO: $BASH_COMMAND" >&2' ERR
    mkdir -p build
    work=$(mktemp -d "$PWD/build/image-XXXXXX")
    minor=$(python_fact '"%d.%d" % sys.version_info[:2]')
    need_buildah
    step "tools"
    make_base "$minor"
    step "a base image with Python $minor"
    build_image "$minor"
}
