#!/bin/sh
# make_disk.sh FOLDER: what a virtual machine boots: vmlinuz, and base.qcow2, a Debian with cloud-init and Docker;
# root.tar.gz has its files.
set -eu
cd "$1"
packages=systemd,systemd-sysv,dbus,libpam-systemd,udev,cloud-init,isc-dhcp-client,ifupdown,docker.io,iptables,ca-certificates
packages=$packages,linux-image-cloud-amd64,iproute2,netbase,procps,kmod,busybox

# Units that nothing here needs: starting them takes seconds of each boot.
useless='apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer
    getty.target systemd-binfmt.service modprobe@configfs.service modprobe@dm_mod.service modprobe@drm.service
    modprobe@efi_pstore.service modprobe@fuse.service modprobe@loop.service systemd-ask-password-console.path
    systemd-ask-password-wall.path systemd-initctl.socket systemd-journal-flush.service systemd-modules-load.service
    systemd-pstore.service systemd-random-seed.service systemd-sysusers.service systemd-tmpfiles-clean.timer
    systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-user-sessions.service dev-hugepages.mount
    dev-mqueue.mount proc-sys-fs-binfmt_misc.automount sys-kernel-debug.mount sys-kernel-tracing.mount'
useless=$(echo $useless)

# What a test wants of its machine comes on the kernel's command line, and is done at each boot before cloud-init.
cat >rehearsal.service <<'END'
[Unit]
DefaultDependencies=no
After=systemd-remount-fs.service
Before=cloud-init-local.service networking.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'sed -n "s/.* rehearsal=\\([^ ]*\\).*/\\1/p" /proc/cmdline | base64 -d | sh -x'
StandardOutput=journal+console
StandardError=journal+console
[Install]
WantedBy=cloud-init-local.service
END
# Nothing has a name here, and an address at which nobody listens says so at once: cloud-init tries three names at each boot.
# cloud-init without the modules that set up users and packages: half of its time, and none of what is tried here
cat >modules.cfg <<'END'
cloud_init_modules: [seed-random]
cloud_config_modules: [runcmd]
cloud_final_modules: [scripts-per-once, scripts-per-boot, scripts-per-instance, scripts-user, final-message]
END
mkdir -p etc/docker etc/containerd
# The product's containers have the network of their machine: no bridge and no rules for one.
cat >etc/docker/daemon.json <<'END'
{"insecure-registries": ["172.31.0.2:5000"], "bridge": "none", "iptables": false, "ip6tables": false, "ip-forward": false}
END
cat >etc/containerd/config.toml <<'END'
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
    "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.tracing.processor.v1.otlp"]
END
mmdebstrap --quiet --variant=minbase --mode=root --components=main --include="$packages" \
    --aptopt='Apt::Install-Recommends "false"' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='echo localhost >"$1/etc/hostname"; : >"$1/etc/machine-id"' \
    --customize-hook='echo "/dev/nvme0n1 / ext4 rw,discard 0 1" >"$1/etc/fstab"' \
    --customize-hook='echo "datasource_list: [ Ec2, None ]" >"$1/etc/cloud/cloud.cfg.d/90_dpkg.cfg"' \
    --customize-hook='cp --parents etc/docker/daemon.json etc/containerd/config.toml "$1"' \
    --customize-hook='echo "nameserver 127.0.0.1" >"$1/etc/resolv.conf"' \
    --customize-hook='cp modules.cfg "$1/etc/cloud/cloud.cfg.d/99_modules.cfg"' \
    --customize-hook="chroot \"\$1\" systemctl mask $useless" \
    --customize-hook='cp rehearsal.service "$1/etc/systemd/system/"; chroot "$1" systemctl enable rehearsal' \
    bookworm root.tar "$(ls /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null | head -n 1)"
mkdir root
tar -x -C root -f root.tar
cp root/boot/vmlinuz-* vmlinuz
truncate -s 8G base.raw
mkfs.ext4 -q -F -L root -d root base.raw
qemu-img convert -f raw -O qcow2 base.raw base.new
gzip -1 root.tar
rm -rf root base.raw rehearsal.service modules.cfg etc
mv base.new base.qcow2
