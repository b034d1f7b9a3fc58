#!/usr/bin/env bash
# Builds the Debian package of the agent: packaging/debian/build.sh [--wheels FOLDER] [--revision N] OUTPUT-FOLDER
#
# Needs dpkg-deb and the Python that the package is for (python3.11 on Debian 12, with pip), whose machine and version the
# wheels have to fit. The package brings an environment of its own: Debian's Python packages are too old for the program,
# and onnxruntime is not among them (docs/adr/0024-installation.md). SOURCE_DATE_EPOCH is taken for all times,
# XZ_LEVEL (6) for the compression.
set -euo pipefail
cd "$(dirname "$0")/../.."

wheels='' revision=1 output=''
while [ $# -gt 0 ]; do
    case $1 in
        --wheels) wheels=$2 && shift ;;
        --revision) revision=$2 && shift ;;
        -*) echo "build.sh: there is no option $1" >&2; exit 64 ;;
        *) output=$1 ;;
    esac
    shift
done
[ -n "$output" ] || { echo "usage: packaging/debian/build.sh [--wheels FOLDER] [--revision N] OUTPUT-FOLDER" >&2; exit 64; }
mkdir -p "$output"
output=$(cd "$output" && pwd)
[ -z "$wheels" ] || wheels=$(cd "$wheels" && pwd)

python=${PYTHON:-python3.11}
upstream=$("$python" -c 'exec(open("edge_agent/_version.py").read()); print(__version__)')
version=$upstream-$revision
abi=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
next_abi=$("$python" -c 'import sys; print("%d.%d" % (sys.version_info[0], sys.version_info[1] + 1))')
architecture=$(dpkg --print-architecture)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
tree=$work/edge-agent
venv=$tree/usr/lib/edge-agent/venv
site=$venv/lib/python$abi/site-packages
umask 022

# -- the environment, put together for the place where it will be ---------------------------------------------------
mkdir -p "$venv/bin" "$site"
printf 'home = /usr/bin\ninclude-system-site-packages = false\nversion = %s\n' "$abi" >"$venv/pyvenv.cfg"
ln -s "../../../../bin/python$abi" "$venv/bin/python3"
ln -s python3 "$venv/bin/python"
pip=(--quiet --disable-pip-version-check --no-input --no-compile --target "$site")
what=.
if [ -n "$wheels" ]; then
    pip+=(--no-index --find-links "$wheels")
    what=$(find "$wheels" -maxdepth 1 -name 'edge_agent-*.whl' | sort -V | tail -n 1)
fi
"$python" -m pip install "${pip[@]}" "${what:-.}"
rm -rf "${site:?}/bin"
find "$site" -name __pycache__ -prune -exec rm -rf {} +
find "$site" -name '.git*' -delete
# Tests and headers of others, which nothing here runs or compiles.
find "$site" -type d \( -name tests -o -name testing -o -name include \) -path "*/numpy/*" -prune -exec rm -rf {} +
printf '#!/bin/sh\nexec /usr/lib/edge-agent/venv/bin/python3 -P -m edge_agent "$@"\n' >"$venv/bin/edge-agent"
chmod 755 "$venv/bin/edge-agent"
# No byte code: it is compiled when the package is configured. Libraries stay as their authors linked them: `strip` breaks
# those that patchelf has been at (OpenBLAS in numpy: "ELF load command address/offset not page-aligned").
find "$site" -type f -exec chmod 644 {} +
mkdir -p "$tree/usr/bin"
ln -s ../lib/edge-agent/venv/bin/edge-agent "$tree/usr/bin/edge-agent"

# -- units, users, settings, documents ------------------------------------------------------------------------------
install -d "$tree/usr/lib/systemd/system" "$tree/usr/lib/sysusers.d" "$tree/usr/lib/tmpfiles.d" "$tree/etc/edge-agent"
sed -e 's|/opt/edge-agent/venv|/usr/lib/edge-agent/venv|' -e 's|/opt/edge-agent/share|/usr/share/doc/edge-agent|' \
    systemd/edge-agent.service >"$tree/usr/lib/systemd/system/edge-agent.service"
install -m 644 systemd/edge-agent.sysusers "$tree/usr/lib/sysusers.d/edge-agent.conf"
install -m 644 systemd/edge-agent.tmpfiles "$tree/usr/lib/tmpfiles.d/edge-agent.conf"
install -m 644 packaging/debian/config.toml "$tree/etc/edge-agent/config.toml"
install -D -m 644 -t "$tree/usr/share/doc/edge-agent/drop-ins" systemd/drop-ins/*.conf
rm "$tree/usr/share/doc/edge-agent/drop-ins/newer-systemd-coordinator.conf" # of a unit that this package does not bring
install -m 644 README.md packaging/debian/copyright "$tree/usr/share/doc/edge-agent/"
install -D -m 644 packaging/debian/lintian-overrides "$tree/usr/share/lintian/overrides/edge-agent"
install -d "$tree/usr/share/man/man1"
gzip -9n <packaging/debian/edge-agent.1 >"$tree/usr/share/man/man1/edge-agent.1.gz"
gzip -9n <CHANGELOG.md >"$tree/usr/share/doc/edge-agent/changelog.gz"
gzip -9n >"$tree/usr/share/doc/edge-agent/changelog.Debian.gz" <<END
edge-agent ($version) unstable; urgency=medium

  * See changelog.gz for what has changed.

 -- Edge agent maintainers <maintainers@edge-agent.org>  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")
END

# -- what dpkg reads ------------------------------------------------------------------------------------------------
install -d "$tree/DEBIAN"
install -m 755 packaging/debian/postinst packaging/debian/prerm packaging/debian/postrm "$tree/DEBIAN/"
echo /etc/edge-agent/config.toml >"$tree/DEBIAN/conffiles"
(cd "$tree" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) >"$tree/DEBIAN/md5sums"
cat >"$tree/DEBIAN/control" <<END
Package: edge-agent
Version: $version
Architecture: $architecture
Maintainer: Edge agent maintainers <maintainers@edge-agent.org>
Installed-Size: $(du -sk --exclude=DEBIAN "$tree" | cut -f1)
Depends: python3 (>= $abi), python3 (<< $next_abi), libc6 (>= 2.34), libgcc-s1, libstdc++6, systemd | systemd-standalone-sysusers, init-system-helpers (>= 1.52)
Recommends: ca-certificates
Section: net
Priority: optional
Description: serves this machine's spare time to an open inference network
 The agent profiles the machine, measures which quantized ONNX models truly fit,
 takes jobs over MQTT, runs them in a contained worker process and signs every
 result. The owner stays master: hours, idleness, heat, battery and gates are
 rules in one file, and nothing remote can loosen them.
 .
 The package brings its Python packages, onnxruntime among them, in an
 environment of its own.
END
find "$tree" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
# Whatever was done to it: it must start what it is for, before anybody gets it.
PYTHONPATH=$site PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1 "$python" -P -c 'import onnxruntime, edge_agent.cli'
dpkg-deb --root-owner-group -Zxz -z"${XZ_LEVEL:-6}" --build "$tree" "$output/edge-agent_${version}_$architecture.deb"
