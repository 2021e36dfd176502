#!/usr/bin/env bash
# Chromium, for tests of pages, and OpenSSH's server, for SSHCluster: installed where that can be done without asking.
# Elsewhere, those tests are skipped.
set -euo pipefail
missing=()
command -v chromium > /dev/null || command -v chromium-browser > /dev/null || command -v google-chrome > /dev/null ||
    missing+=(chromium fonts-dejavu-core)
[ -x /usr/sbin/sshd ] || command -v sshd > /dev/null || missing+=(openssh-server openssh-client)
if [ ${#missing[@]} = 0 ]; then
    exit 0
elif [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
else
    echo "Tests that need ${missing[*]} will be skipped." >&2
fi
