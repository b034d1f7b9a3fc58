#!/usr/bin/env bash
# Runs the unit tests on every supported Python that this machine has besides the one of .venv, or on those of
# them that are named: tools/test_pythons.sh 3.11 3.13
# With --set-up in front it makes their environments only.
set -euo pipefail
cd "$(dirname "$0")/.."
main=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
export PYTHONDONTWRITEBYTECODE=  # hundreds of processes are started
tested=0
set_up_only=
if [ "${1:-}" = --set-up ]; then
    set_up_only=1
    shift
fi
[ $# -gt 0 ] || set -- 3.11 3.12 3.13
for version in "$@"; do
    [ "$version" = "$main" ] && continue
    python=
    for candidate in "$HOME"/.pyenv/versions/"$version".*/bin/python "python$version"; do
        if "$candidate" --version >/dev/null 2>&1; then python=$candidate; fi
    done
    [ -n "$python" ] || { echo "Python $version: not found, skipped"; continue; }
    venv=".venv-$version"
    if [ ! -x "$venv/bin/pytest" ] || [ pyproject.toml -nt "$venv/.set-up" ]; then
        PYTHON=$python tools/make_venv.sh "$venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
        touch "$venv/.set-up"
    fi
    [ -z "$set_up_only" ] || continue
    echo "Python $version: unit tests"
    "$venv/bin/python" -m pytest -q -p no:cacheprovider --numprocesses="$(($(nproc) + 2))" --dist=loadfile \
        --no-loadscope-reorder tests/attacks tests/unit
    tested=$((tested + 1))
done
[ -n "$set_up_only" ] || echo "unit tests passed on $tested other Python version(s)"
