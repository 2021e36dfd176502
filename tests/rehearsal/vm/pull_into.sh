#!/bin/bash
# pull_into.sh FOLDER: pulls the image into FOLDER/root, a machine's files, with that machine's Docker. In namespaces of its own.
root=$1/root
docker-registry serve "$1/registry.yml" &
mount --bind "$root" "$root" # Docker wants its root to be a mount point
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mount --rbind /sys "$root/sys"
chroot "$root" dockerd &
for _ in {1..60}; do
    chroot "$root" docker version >/dev/null 2>&1 && break
    sleep 0.5
done
chroot "$root" docker pull 172.31.0.2:5000/dask-classify:1
kill %2
wait %2 || true
umount -R "$root"
