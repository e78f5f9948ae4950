#!/bin/sh
# Buildroot runs this on the finished tree, with its path as first argument. It takes out what belongs to the image and
# not to a base, as the debian base does, and gives things the names that units and settings of the overlay expect.
set -eu
root=$1
units=$root/usr/lib/systemd

rm -f "$root/etc/hostname" "$root/etc/fstab" "$root/etc/resolv.conf" "$root/etc/issue" "$root/etc/os-release" "$root/usr/lib/os-release"
rm -rf "$root/etc/init.d" "$root/etc/systemd/network"
# An empty file is where systemd mounts the identity of this boot over a read-only /etc.
: > "$root/etc/machine-id"
# /var is a tmpfs that systemd-tmpfiles fills at every start.
find "$root/var" -mindepth 1 -delete
mkdir -p "$root/data" "$root/root/.ssh"

# The scanner and the signature engine are started by our units, with our settings. Threat data comes by the feeds.
rm -f "$units/system/"clamav-* "$units/system/suricata.service"
rm -f "$root/etc/clamd.conf.sample" "$root/etc/freshclam.conf.sample" "$root/etc/suricata/suricata.yaml"
rm -rf "$root/usr/share/suricata/rules"
for name in clambc clamconf clamdscan clamdtop clamscan clamsubmit freshclam sigtool suricatactl suricatasc; do
    rm -f "$root/usr/bin/$name"
done
rm -f "$root/usr/sbin/clamonacc"

# Buildroot enables every unit that no preset speaks of. Here the overlay says what runs.
mkdir -p "$units/system-preset"
echo 'disable *' > "$units/system-preset/00-mamori.preset"

# Buildroot's unit writes host keys into /etc, and its settings include no folder.
if [ -e "$units/system/sshd.service" ]; then
    rm "$units/system/sshd.service"
    cat > "$units/system/ssh.service" << 'UNIT'
[Unit]
Description=OpenSSH server
After=network.target

[Service]
ExecStart=/usr/sbin/sshd -D -e
Restart=on-failure
UNIT
    echo 'Include /etc/ssh/sshd_config.d/*.conf' > "$root/etc/ssh/sshd_config"
    echo 'd /var/empty 0755 root root' > "$root/usr/lib/tmpfiles.d/ssh.conf"
fi
