#!/bin/sh
# Buildroot runs this on the finished tree, with its path as first argument: what belongs to the image and not to a base
# goes, as in the debian base; the common assembly puts it in.
set -eu
root=$1
rm -f "$root/etc/hostname" "$root/etc/fstab" "$root/etc/resolv.conf" "$root/etc/issue"
rm -f "$root/etc/os-release" "$root/usr/lib/os-release"
# An empty file is where systemd mounts the identity of this boot over a read-only /etc.
: > "$root/etc/machine-id"
# /var is a tmpfs that systemd-tmpfiles fills at every start.
find "$root/var" -mindepth 1 -delete
mkdir -p "$root/data" "$root/root/.ssh"
