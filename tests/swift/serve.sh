#!/usr/bin/env bash
# serve.sh ENVIRONMENT FOLDER: OpenStack Swift with its S3 interface, from PyPI, on loopback, until it is killed.
#
# Prints its address once it answers. Access key test:tester, secret key testing, region us-east-1.
set -Eeuo pipefail
readonly ENVIRONMENT=$1 FOLDER=$2
export SWIFT_CONF_DIR=$FOLDER
export PYTHONWARNINGS=ignore
mkdir -p "$FOLDER/devices/one"

ports() {
    "$ENVIRONMENT/bin/python" - "$1" <<'END'
import socket, sys

sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(each.getsockname()[1] for each in sockets))
END
}

read -r proxy account container object < <(ports 4)

cat >"$FOLDER/swift.conf" <<END
[swift-hash]
swift_hash_path_suffix = test
[storage-policy:0]
name = one
default = yes
END
for kind in account container object; do
    port=${!kind}
    cat >"$FOLDER/$kind-server.conf" <<END
[DEFAULT]
devices = $FOLDER/devices
mount_check = false
bind_ip = 127.0.0.1
bind_port = $port
user = $(id -un)
swift_dir = $FOLDER
workers = 0
log_level = ERROR
fallocate_reserve = 0
[pipeline:main]
pipeline = $kind-server
[app:$kind-server]
use = egg:swift#$kind
END
    "$ENVIRONMENT/bin/swift-ring-builder" "$FOLDER/$kind.builder" create 2 1 0 >/dev/null
    "$ENVIRONMENT/bin/swift-ring-builder" "$FOLDER/$kind.builder" add "r1z1-127.0.0.1:$port/one" 1 >/dev/null
    "$ENVIRONMENT/bin/swift-ring-builder" "$FOLDER/$kind.builder" rebalance >/dev/null || true # 1: nothing was moved
done
cat >"$FOLDER/proxy-server.conf" <<END
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = $proxy
user = $(id -un)
swift_dir = $FOLDER
workers = 0
log_level = ERROR
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck cache listing_formats s3api tempauth copy slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:cache]
use = egg:swift#memcache
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
s3_acl = false
auth_pipeline_check = false
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
END
for kind in account container object proxy; do
    "$ENVIRONMENT/bin/swift-$kind-server" "$FOLDER/$kind-server.conf" >>"$FOLDER/$kind.log" 2>&1 &
done
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
for _ in $(seq 100); do
    if curl --silent --fail "http://127.0.0.1:$proxy/healthcheck" >/dev/null; then
        echo "http://127.0.0.1:$proxy"
        wait
        exit
    fi
    sleep 0.2
done
cat "$FOLDER"/*.log >&2
exit 1
