#!/usr/bin/env bash
# Runs the unit tests on every supported Python that this machine has besides the one of .venv, or on those of
# them that are named: tools/test_pythons.sh 3.11 3.13
set -euo pipefail
cd "$(dirname "$0")/.."
main=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
tested=0
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
    echo "Python $version: unit tests"
    "$venv/bin/python" -m pytest -q -p no:cacheprovider --numprocesses=logical --dist=loadfile \
        tests/unit tests/attacks
    tested=$((tested + 1))
done
echo "unit tests passed on $tested other Python version(s)"
