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
# The scanner and the signature engine are started by our units, with our settings and as our users. Threat data comes by the feeds,
# never by freshclam. What watches logs and turns them over finds none here.
(cd "${root:?}/usr" && rm -rf lib/suricata share/apport share/python3/runtime.d/suricata.rtupdate \
    lib/systemd/system/clamav-* lib/systemd/system/suricata.service lib/systemd/system/logrotate.* \
    lib/tmpfiles.d/clamav-base.conf lib/sysusers.d/clamav-base.conf \
    bin/clamconf bin/clamdtop bin/freshclam bin/suricatactl bin/suricatasc sbin/clamonacc sbin/logrotate)
(cd "${root:?}/etc" && rm -rf apparmor.d clamav default/suricata logcheck logrotate.conf logrotate.d network/if-*.d/clamav-* ppp ufw \
    suricata/rules suricata/suricata.yaml systemd/system/clamav-*)
for file in passwd group shadow gshadow; do
    sed -i '/^clamav:/d' "${root:?}/etc/$file"
done
# Libraries that only those programs had: fetching signatures, and matching with patterns compiled elsewhere.
rm -f "${root:?}/usr/lib/"*/libfreshclam.so.* "${root:?}/usr/lib/"*/libhs_runtime.so.*
# Python's tests of itself, and what its interactive help says.
rm -rf "${root:?}/usr/lib/python3."*/test "${root:?}/usr/lib/python3."*/pydoc_data "${root:?}/usr/lib/python3."*/turtle.py
# Links to units that are gone: systemd would say at every start that it cannot find them.
find "${root:?}/etc/systemd/system" -type l -lname '/*' | while read -r link; do
    target=$(readlink "$link")
    [ "$target" = /dev/null ] || [ -e "$root$target" ] || rm "$link"
done
find "$root" -xdev -name '*.dpkg-*' -delete
