#!/usr/bin/env bash
# Makes the folder of a bare Debian 12 with systemd, and puts the packages that the machines need later into its cache,
# so that installing them there asks no network: make_image.sh FOLDER [ARCHITECTURE]. With KERNEL=1 it gets one.
set -euo pipefail
target=$1 architecture=${2:-$(dpkg --print-architecture)}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
[ ! -e "$target/etc/debian_version" ] || { echo "$target is there already"; exit 0; }
if [ "$architecture" = "$(dpkg --print-architecture)" ]; then
    # What the standard system has of it. python3-venv is not among that: installing it is one of the commands measured.
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,python3,iproute2,procps,ca-certificates \
        bookworm "$target" "$mirror"
    chroot "$target" apt-get update -qq
    chroot "$target" apt-get install -qq -y --download-only python3-venv adduser
    [ -z "${KERNEL:-}" ] || chroot "$target" apt-get install -qq -y initramfs-tools "linux-image-cloud-$architecture"
else
    # A userland for `emulated.sh`. All packages are unpacked here, and none is configured there: dpkg under an emulator takes
    # half an hour for what tar does in half a minute, and nothing that Python needs is made by a package's scripts.
    debootstrap --foreign --arch="$architecture" --variant=minbase --include=python3,python3-venv,ca-certificates,procps \
        bookworm "$target" "$mirror"
    for package in "$target"/var/cache/apt/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -C "$target" --keep-directory-symlink -xf -
    done
    # debootstrap leaves a link there where it takes its surroundings for a container.
    [ ! -L "$target/proc" ] || { rm "$target/proc" && mkdir "$target/proc"; }
fi
