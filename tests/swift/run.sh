#!/usr/bin/env bash
# run.sh [OPTIONS OF PYTEST]: tests of S3 with OpenStack Swift's S3 interface, which has no code in common with moto.
#
# Not those of two commands at once: Swift's conditional writes are not atomic.
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
readonly ENVIRONMENT=build/swift

if [[ ! -x $ENVIRONMENT/bin/swift-proxy-server ]]; then
    .venv/bin/python -m venv "$ENVIRONMENT"
    "$ENVIRONMENT/bin/pip" install --quiet 'setuptools<81' 'swift==2.38.3'
fi
folder=$(mktemp -d)
tests/swift/serve.sh "$PWD/$ENVIRONMENT" "$folder" >"$folder/address" &
server=$!
trap 'kill "$server"; wait "$server" || true; rm -rf "$folder"' EXIT
until [[ -s $folder/address ]]; do
    kill -0 "$server"
    sleep 0.2
done
TEST_SWIFT=1 AWS_ENDPOINT_URL=$(cat "$folder/address") AWS_ACCESS_KEY_ID=test:tester AWS_SECRET_ACCESS_KEY=testing \
    AWS_DEFAULT_REGION=us-east-1 .venv/bin/python -m pytest -p no:cacheprovider -m "not slow" \
    tests/runs/test_single_file.py tests/engine/test_clusters.py tests/promises/test_verify.py \
    -k "bucket or s3 or object or key or uploads" "$@"
