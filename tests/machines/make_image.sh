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
    # Downloads and unpacks; what has to run on that architecture is left to `emulated.sh FOLDER --configure`.
    debootstrap --foreign --arch="$architecture" --variant=minbase --include=python3,python3-venv,ca-certificates,procps \
        bookworm "$target" "$mirror"
    # Nobody needs this machine after a loss of power, and waiting for disks is most of the time otherwise.
    mkdir -p "$target/etc/dpkg/dpkg.cfg.d"
    echo force-unsafe-io >"$target/etc/dpkg/dpkg.cfg.d/emulated"
fi
