#!/bin/bash
# What a test host begins with: the first process of its own mount, host name, IPC and process namespaces.
# usage: host_init.sh NAME FOLDER SHARED. FOLDER has sshd_config, and begin, which is run at last; SHARED appears as /shared.
# Its files are those of this machine, with what it writes in memory; what it has beneath FOLDER/disk is kept.
set -eu
name=$1 folder=$2 shared=$3
hostname "$name"
mount -t tmpfs -o mode=755 tmpfs "$folder/memory"
mkdir -p "$folder"/memory/{upper,work} "$folder/root"
mount -t overlay -o "lowerdir=/,upperdir=$folder/memory/upper,workdir=$folder/memory/work" overlay "$folder/root"
root=$folder/root
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mkdir -p "$root/run/sshd" "$root/host" "$root/shared" "$root/old"
mount --bind "$folder" "$root/host"
echo "$name" >"$root/etc/hostname"
cp "$folder/etc_hosts" "$root/etc/hosts"
mount --bind "$shared" "$root/shared"
rm -f "$root/root/.bashrc" # what this machine's root has each shell start, each login by ssh would start, too
mkdir -p "$folder/disk" "$root/root/.local"
mount --bind "$folder/disk" "$root/root/.local"
cd "$root"
pivot_root . old
umount -l /old
exec /bin/bash /host/begin
