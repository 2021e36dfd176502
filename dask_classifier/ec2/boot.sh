# What an instance does when it boots. boot.py puts its values before this, and leaves the comments out.
#
# cloud-init runs a boothook early at every boot, also if an earlier boot crashed. The first boot runs the container. Any
# later one only powers off: a container that has lost its peers is of no use, and costs.

main() {
    boot_id=/proc/sys/kernel/random/boot_id
    if [ -e first-boot ]; then
        cmp -s "$boot_id" first-boot || systemctl poweroff --force
        return
    fi
    cat "$boot_id" >first-boot
    power_off_at_later_boots
    sync
    set_deadline
    # Not from within cloud-init: Docker's unit may wait until cloud-init has finished.
    unit --unit=dask-classify -p Wants=network-online.target -p After=network-online.target -p TimeoutStopSec=30 \
        sh "$here/$(basename "$0")" run || systemctl poweroff
}

# Without cloud-init, which may fail at a later boot: it needs the network and EC2's metadata.
power_off_at_later_boots() {
    cat >dask-classify-off.service <<END
[Unit]
DefaultDependencies=no
[Service]
ExecStart=/bin/sh -c "cmp -s $boot_id '$here/first-boot' || systemctl poweroff --force"
[Install]
WantedBy=multi-user.target
END
    systemctl enable "$here/dask-classify-off.service"
}

# On the clock that nobody sets, from the time that is left now. If the boot seems to have begun before the launch, or
# long after it, the instance's clock or the client's is wrong: then the time since the boot counts.
set_deadline() {
    now=$(date +%s)
    up=$(cut -d. -f1 /proc/uptime)
    waited=$((now - launched - up))
    left=$((deadline - launched - up))
    [ "$waited" -lt -60 ] || [ "$waited" -gt 900 ] || left=$((deadline - now))
    [ "$left" -gt 0 ] || left=1
    # Without a semicolon: when systemd 252 is reloaded, as dnf does, it hands on a backslash before each.
    timer --on-active="$left" sh -c 'echo "the deadline has passed" || true && systemctl poweroff' ||
        shutdown -h "+$((left / 60))" || shutdown -h now
    timer --on-active="$((left + 120))" systemctl poweroff --force --force
}

# Lines on the console begin with the identifier, by which reasons.py finds them.
unit() {
    systemd-run --quiet --no-block -p SyslogIdentifier=dask-classify -p StandardOutput=journal+console \
        -p StandardError=journal+console "$@"
}

timer() {
    unit --timer-property=AccuracySec=1s --timer-property=DefaultDependencies=no -p DefaultDependencies=no "$@"
}

run() {
    command -v docker >/dev/null || dnf install -y docker || { apt-get update && apt-get install -y docker.io; }
    systemctl stop --no-block ecs
    systemctl start docker
    docker image inspect "$image" >/dev/null 2>&1 || pull
    container
    echo "the container exited with code $?"
    systemctl poweroff
}

pull() {
    for pause in 2 4 8 16 32 0; do
        [ -z "$registry" ] || log_in
        pulled=$(docker pull --quiet "$image" 2>&1) && return
        echo "$pulled"
        case $pulled in *"not found"* | *"does not exist"* | *"manifest unknown"* | *"no space left"*) return ;; esac
        sleep $pause
    done
}

# At each try, because EC2 may take some seconds before an instance has the credentials of its profile.
log_in() {
    command -v aws >/dev/null || dnf install -y awscli-2 || { apt-get update && apt-get install -y awscli; } ||
        snap install aws-cli --classic
    aws ecr get-login-password --region "$region" | docker login --username AWS --password-stdin "$registry"
}

cd "$(dirname "$0")" || exit
here=$(pwd -P)
"${1:-main}"
