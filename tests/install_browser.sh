#!/usr/bin/env bash
# Chromium, for tests of pages: installed where that can be done without asking; elsewhere said, and those tests are skipped.
set -euo pipefail
for name in chromium chromium-browser google-chrome; do
    command -v "$name" > /dev/null && exit 0
done
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core > /dev/null
else
    echo "There is no Chromium here: tests of pages in a browser will be skipped." >&2
fi
