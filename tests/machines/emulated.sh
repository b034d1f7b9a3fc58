#!/usr/bin/env bash
# Runs a command in the folder of a foreign Debian, emulated by qemu-user: emulated.sh FOLDER COMMAND [ARGUMENT]...
#
#     tests/machines/make_image.sh IMAGE arm64 && tests/machines/emulated.sh IMAGE uname -m
#
# In namespaces of its own: the kernel (6.7 and later) lets a user namespace have its own list of foreign formats, so that
# nothing of this machine is changed. Needs root, and qemu-user-static.
set -euo pipefail
image=$(cd "$1" && pwd)
shift
export IMAGE=$image QEMU=${QEMU:-/usr/bin/qemu-aarch64-static}
[ -x "$QEMU" ] || { echo "skipped: $QEMU is not installed (qemu-user-static)" >&2; exit 0; }
# The first 65536 users are those of this machine: root may write that without newuidmap and /etc/subuid.
unshare --user sleep 20 >/dev/null 2>&1 &
keeper=$!
until [ "$(readlink "/proc/$keeper/ns/user")" != "$(readlink /proc/self/ns/user)" ]; do sleep 0.05; done
echo 0 0 65536 >"/proc/$keeper/uid_map"
echo 0 0 65536 >"/proc/$keeper/gid_map"
# shellcheck disable=SC2016  # the variables are those of the inner shell
exec nsenter --user --target "$keeper" unshare --mount --pid --fork --kill-child bash -euc '
    mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc 2>/dev/null || {
        echo "skipped: this kernel gives a user namespace no list of formats (Linux 6.7 and later do)" >&2; exit 0; }
    # ELF, 64 bits, little endian, EM_AARCH64; F: the emulator is opened now, and so need not be inside.
    magic="\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    mask="\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
    echo ":emulated:M::$magic:$mask:$QEMU:F" >/proc/sys/fs/binfmt_misc/register
    mount --rbind /dev "$IMAGE/dev"
    mount -t proc proc "$IMAGE/proc"
    [ -z "${TREE:-}" ] || mount --bind "$TREE" "$IMAGE/mnt/tree"
    exec chroot "$IMAGE" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 ORT_DISABLE_TELEMETRY=1 "$@"
' inner "$@"
