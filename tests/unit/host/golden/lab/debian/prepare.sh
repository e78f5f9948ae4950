#!/bin/sh
# Runs on the finished tree, outside it, with its path as argument: take out what is handed to later steps.
set -eu
root=$1
out=$root/mamori-out
mkdir -m 0777 "$out" "$out/licences" "$out/kernel"

# The kernel package is unpacked, not installed: its own scripts would build an initramfs and look for a boot loader.
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
kernel=$(apt-cache depends --important linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
[ -n "$kernel" ] || { echo "E: linux-image-amd64 depends on no kernel image" >&2; exit 1; }
(cd "$out/kernel" && apt-get -o APT::Sandbox::User=root download "$kernel" && mkdir tree && dpkg-deb --extract "$kernel"_*.deb tree)
deb=$(echo "$out/kernel/$kernel"_*.deb)
# Listed as installed, so that the package list, the SBOM and the lock have it. dpkg itself does not stay in the image.
{ dpkg-deb --field "$deb" | sed 's/^Version:/Status: install ok installed\n&/'; echo; } >> "$root/var/lib/dpkg/status"
mv "$out/kernel/tree/boot/"vmlinuz-* "$out/kernel/vmlinuz"
mv "$out/kernel/tree/boot/"config-* "$out/kernel/config"
release=$(ls "$out/kernel/tree/usr/lib/modules")
echo "$release" > "$out/kernel/release"
mkdir -p "$root/usr/lib/modules"
mv "$out/kernel/tree/usr/lib/modules/$release" "$root/usr/lib/modules/"
mkdir -p "$root/usr/share/doc/$kernel"
mv "$out/kernel/tree/usr/share/doc/$kernel/copyright" "$root/usr/share/doc/$kernel/copyright"
rm -rf "$out/kernel/tree" "$deb"

# Drivers of things that a two-port box does not have.
for kind in sound drivers/gpu drivers/media drivers/net/wireless drivers/bluetooth drivers/infiniband drivers/isdn \
    drivers/staging drivers/accel drivers/iio drivers/input/joystick drivers/net/can net/bluetooth net/wireless net/mac80211 net/can; do
    rm -rf "$root/usr/lib/modules/$release/kernel/$kind"
done
chroot "$root" depmod "$release"

# Licence texts, then the folders that held them.
(cd "$root/usr/share/doc" && find . -name copyright | LC_ALL=C sort | tar --create --dereference --sort=name \
    --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --files-from=- --file="$out/licences/licences.tar")
chroot "$root" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' > "$out/kernel/python"
chmod -R a+rX "$out"
