#!/usr/bin/env bash
# Makes a virtual environment with a supported Python, without root: tools/make_venv.sh DIR
set -euo pipefail
target=$1

supported() {
    "$1" -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 13)))' 2>/dev/null
}

if [ -x "$target/bin/python" ] && supported "$target/bin/python" && "$target/bin/python" -m pip --version >/dev/null 2>&1; then
    exit 0
fi

python=
for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null && supported "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "edge-agent: there is no Python 3.11, 3.12 or 3.13 here (found: $(python3 --version 2>&1 || echo none))." >&2
    echo "hint: Debian 12, Ubuntu 24.04 and Raspberry Pi OS have one; elsewhere set PYTHON=/path/to/python3." >&2
    exit 1
fi
if [ "$("$python" -c 'import struct; print(struct.calcsize("P") * 8)')" != 64 ]; then
    echo "edge-agent: this is a 32-bit system, for which there is no onnxruntime." >&2
    echo "hint: install the 64-bit edition of your system; boards from the Raspberry Pi 3 on run it." >&2
    exit 1
fi

rm -rf "$target"
if "$python" -c 'import ensurepip' 2>/dev/null && "$python" -m venv "$target" 2>/dev/null; then
    exit 0
fi
# Debian splits venv off; without root there may still be one of these.
if "$python" -m virtualenv --quiet "$target" 2>/dev/null; then
    exit 0
fi
if command -v uv >/dev/null && uv venv --quiet --seed --python "$python" "$target"; then
    exit 0
fi
# A pip that is there at all can fill an environment that was made without one.
if "$python" -m pip --version >/dev/null 2>&1 && "$python" -m venv --without-pip "$target"; then
    if "$python" -m pip --quiet --disable-pip-version-check --python "$target/bin/python" install pip; then
        exit 0
    fi
fi
rm -rf "$target"
echo "edge-agent: $python cannot make virtual environments: its venv module is not installed." >&2
echo "hint: once, as root: apt-get install python3-venv" >&2
exit 1
