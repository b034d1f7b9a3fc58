#!/usr/bin/env bash
# Installs the agent in an emulated arm64 Debian from the real aarch64 wheels, runs unit tests there, and the main job with
# an agent there and everybody else here: aarch64.sh IMAGE [WHEELS]. Run on demand, as root; takes a while.
set -euo pipefail
cd "$(dirname "$0")/../.."
image=$1 wheels=${2:-$1/root/wheels}
python=${PYTHON:-python3}
inside=tests/machines/emulated.sh
export TREE=$PWD
started=$SECONDS
fact() { printf '%5d s  %s\n' $((SECONDS - started)) "$*"; }

[ "$(id -u)" -eq 0 ] || { echo "skipped: images are made by root"; exit 0; }
[ -x /usr/bin/qemu-aarch64-static ] || { echo "skipped: qemu-user-static is not installed"; exit 0; }
[ ! -e "$image/debootstrap/debootstrap" ] || { $inside "$image" --configure >"$image.log" 2>&1 || { tail "$image.log"; exit 1; }; fact "Debian configured"; }
mkdir -p "$image/mnt/tree" "$image/root/wheels"
[ "$wheels" = "$image/root/wheels" ] || cp "$wheels"/*.whl "$image/root/wheels/"
"$python" -m pip wheel -q --no-deps -w "$image/root/wheels" . >/dev/null 2>&1

fact "$($inside "$image" uname -m), $($inside "$image" python3 --version)"
# qemu-user 7.2 crashes in the import of onnxruntime 1.32.0's aarch64 wheel; 1.27.0 runs. For this machine only.
$inside "$image" bash -ec '
    [ -x /root/venv/bin/edge-agent ] || python3 -m venv /root/venv
    /root/venv/bin/python -m pip install -q --no-index --find-links /root/wheels --no-compile \
        onnxruntime==1.27.0 pytest pytest-timeout pytest-xdist hypothesis httpx
    /root/venv/bin/python -m pip install -q --no-index --find-links /root/wheels --no-compile --force-reinstall --no-deps edge-agent'
fact "installed: $($inside "$image" /root/venv/bin/edge-agent version | head -n 1)"
fact "$($inside "$image" /root/venv/bin/python -c 'import onnxruntime, platform; print("onnxruntime", onnxruntime.__version__, "imported on", platform.machine())')"

# Rules, wire format, hardware probes and the worker's messages. Left out: what needs compilers of graphs, databases or
# browsers that agents do not have (coordinator, publishing), and what measures time.
tests=(tests/unit/wire tests/unit/agent tests/unit/hardware tests/unit/settings tests/unit/mqtt tests/unit/inference
    tests/unit/test_watchdog.py tests/unit/test_errors.py tests/unit/test_folders.py tests/unit/test_log.py)
$inside "$image" bash -c "cd /mnt/tree && PYTHONDONTWRITEBYTECODE=1 /root/venv/bin/python -m pytest -q -x \
    -p no:cacheprovider -p no:schemathesis --timeout 1200 ${tests[*]}" 2>&1 | tail -n "${TAIL:-15}"
fact "unit tests above"

PYTHONPATH=$PWD "$python" tests/machines/main_job.py --image "$image"
fact "done"
