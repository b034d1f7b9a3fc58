#!/usr/bin/env bash
# Installs the agent in an emulated arm64 Debian from the real aarch64 wheels, runs unit tests there, and the main job with
# an agent there and everybody else here: aarch64.sh IMAGE [WHEELS]. Without WHEELS they are downloaded. Run on demand, as
# root; takes a while. IMAGE is made by make_image.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
image=$1 wheels=${2:-}
python=${PYTHON:-python3}
inside=tests/machines/emulated.sh
export TREE=$PWD
started=$SECONDS
fact() { printf '%5d s  %s\n' $((SECONDS - started)) "$*"; }

[ "$(id -u)" -eq 0 ] || { echo "skipped: images are made by root"; exit 0; }
[ -x /usr/bin/qemu-aarch64-static ] || { echo "skipped: qemu-user-static is not installed"; exit 0; }
mkdir -p "$image/mnt/tree" "$image/root/wheels"
# qemu-user 7.2 crashes in the import of onnxruntime 1.32.0's aarch64 wheel; 1.27.0 runs. For this machine only.
wanted=(onnxruntime==1.27.0 edge-agent pytest pytest-timeout pytest-xdist hypothesis httpx onnx sqlalchemy)
[ -z "$wheels" ] || cp "$wheels"/*.whl "$image/root/wheels/"
"$python" -m pip wheel -q --no-deps -w "$image/root/wheels" . >/dev/null 2>&1
fits=(--only-binary=:all: --python-version 3.11 --implementation cp --abi cp311 --abi abi3 --abi none)
for glibc in 17 24 26 27 28 31 34 36; do fits+=(--platform "manylinux_2_${glibc}_aarch64"); done
fits+=(--platform manylinux2014_aarch64 --find-links "$image/root/wheels")
[ -n "$wheels" ] || "$python" -m pip download -q "${fits[@]}" -d "$image/root/wheels" "${wanted[@]}"

fact "$($inside "$image" uname -m), $($inside "$image" python3 --version)"
# pip here unpacks the wheels that fit there: under the emulator it takes many minutes for the same.
rm -rf "$image/root/venv"
$inside "$image" python3 -m venv --without-pip /root/venv
"$python" -m pip install -q "${fits[@]}" --no-index --no-compile --no-warn-conflicts --upgrade \
    --target "$image/root/venv/lib/python3.11/site-packages" "${wanted[@]}"
fact "installed: $($inside "$image" /root/venv/bin/python -m edge_agent version | tr '\n' ',')"
fact "$($inside "$image" /root/venv/bin/python -c 'import onnxruntime, platform; print("onnxruntime", onnxruntime.__version__, "imported on", platform.machine())')"

# Those that meet the architecture: hardware probes and onnxruntime's sessions. TESTS names others.
tests=${TESTS:-tests/unit/hardware/test_cpu.py tests/unit/hardware/test_profile.py tests/unit/inference/test_sessions.py
    tests/unit/test_folders.py}
$inside "$image" bash -c "cd /mnt/tree && PYTHONDONTWRITEBYTECODE=1 /root/venv/bin/python -m pytest -q -x \
    -p no:cacheprovider --timeout 1200 ${tests//[[:space:]]/ }" 2>&1 | tail -n "${TAIL:-15}"
fact "unit tests above"

PYTHONPATH=$PWD "$python" tests/machines/main_job.py --image "$image"
fact "done"
