#!/bin/sh
# Runs on the finished tree, with its path as argument: leave nothing that belongs to one machine, one build or the package manager.
set -eu
root=$1
rm -rf "${root:?}/mamori-out" "${root:?}/usr/share/doc" "${root:?}/etc/apt" "${root:?}/etc/dpkg" "${root:?}/boot" "${root:?}/media" "${root:?}/srv" "${root:?}/opt"
rm -f "${root:?}/etc/ssh/"ssh_host_* "${root:?}/etc/hostname" "${root:?}/etc/resolv.conf" "${root:?}/etc/fstab" "${root:?}/etc/motd" "${root:?}/etc/.pwd.lock"
rm -f "${root:?}/etc/"passwd- "${root:?}/etc/"group- "${root:?}/etc/"shadow- "${root:?}/etc/"gshadow- "${root:?}/etc/"subuid- "${root:?}/etc/"subgid- "${root:?}/etc/"mailcap
rm -f "${root:?}/etc/os-release" "${root:?}/usr/lib/os-release" "${root:?}/etc/issue" "${root:?}/etc/issue.net"
# An empty file is where systemd mounts the identity of this boot over a read-only /etc.
: > "${root:?}/etc/machine-id"
# The hardware database names peripherals for desktops; it is 20 MB.
rm -rf "${root:?}/usr/lib/udev/hwdb.d" "${root:?}/usr/lib/udev/hwdb.bin" "${root:?}/etc/udev/hwdb.bin"
# /var is a tmpfs that systemd-tmpfiles fills at every start.
find "${root:?}/var" -mindepth 1 -delete
rm -rf "${root:?}/tmp" "${root:?}/run"
mkdir -m 1777 "${root:?}/tmp"
mkdir -m 0755 "${root:?}/run" "${root:?}/data" "${root:?}/root/.ssh" 2>/dev/null || true
# Only systemd starts things here.
rm -rf "${root:?}/etc/init.d" "${root:?}/etc/rc"*.d "${root:?}/etc/sv" "${root:?}/etc/runit" "${root:?}/etc/cron."* "${root:?}/etc/.resolv.conf.systemd-resolved.bak"
find "$root" -xdev -name '*.dpkg-*' -delete
