#!/usr/bin/env bash
# Installs the agent (or, with --coordinator, a coordinator) as a service of systemd. Run as root from an unpacked
# source tree:
#
#     sudo ./install.sh --dry-run                 # print every command, change nothing
#     sudo ./install.sh --url https://coordinator.example    # asks for the enrolment token
#     sudo ./install.sh                           # again, later: an upgrade, undone if it does not come up
#     sudo ./install.sh --uninstall               # settings, keys and state stay; --purge removes them, too
#
# What it does, in this order: looks whether this machine can run it; makes a virtual environment below
# /opt/edge-agent; lets systemd-sysusers make the user, and systemd-tmpfiles the folders; puts the unit in its place;
# enrols at the coordinator; starts the service; asks `edge-agent doctor`. Nothing is fetched but Python packages, by
# pip, as its configuration says, or from a folder with --wheels. Each command that changes something is shown.
set -euo pipefail

PREFIX=/opt/edge-agent
COMMAND=/usr/local/bin/edge-agent
KEEP_RELEASES=2
SETTLE_SECONDS=6

usage() {
    cat <<'END'
usage: install.sh [OPTION]...

  --url URL              the coordinator (https://…) or its broker (mqtts://…) to enrol at; asked for at a terminal
  --token-file FILE      file with the enrolment token, or - for standard input; asked for at a terminal. The operator
                         makes one with: edge-agent coordinator token
  --broker URL           instead of enrolling: the broker, which goes into the settings file
  --coordinator-key FILE instead of enrolling: the coordinator's public key, to be pinned
  --coordinator          install a coordinator instead of an agent; --broker names its broker
  --extras NAMES         also these, with commas between them: text (models that read text), grpc (a coordinator's gRPC),
                         telemetry (OpenTelemetry), plot (report --plot); an upgrade keeps them. none: no longer any
  --text                 the same as --extras text
  --wheels DIR           take packages from this folder alone, nothing from a network
  --python PYTHON        the interpreter to use (3.11 to 3.13)
  --no-start             install, but do not start
  --dry-run              print what would be done, and do nothing
  --uninstall            stop and remove the program; --purge also removes settings, keys, state and the user
  --help                 print this

Status: 0 done; 64 wrong option; 69 this machine cannot run it; 70 the new version did not come up, the old one runs again.
END
}

# -- what is asked for ---------------------------------------------------------------------------------------------

role=agent action=install dry_run='' purge='' start=1 wanted='' extras='' url='' token_file='' broker='' coordinator_key='' wheels='' python=''
# Each extra that can be chosen, and a package by which it is found where somebody put it by hand.
EXTRAS='text:onnxruntime_extensions grpc:grpc telemetry:opentelemetry plot:matplotlib'
while [ $# -gt 0 ]; do
    case $1 in
        --url | --token-file | --broker | --coordinator-key | --wheels | --python)
            [ $# -ge 2 ] || { echo "install.sh: $1 needs a value" >&2; exit 64; }
            name=${1#--} && printf -v "${name//-/_}" %s "$2" && shift ;;
        --coordinator) role=coordinator ;;
        --text) wanted+=' text' ;;
        --extras)
            [ $# -ge 2 ] || { echo "install.sh: $1 needs a value" >&2; exit 64; }
            for name in ${2//,/ }; do
                case " none $EXTRAS" in *" $name:"* | *" $name "*) wanted+=" $name" ;; *)
                    echo "install.sh: --extras knows no $name; it takes text, grpc, telemetry, plot, or none" >&2; exit 64 ;;
                esac
            done
            shift ;;
        --no-start) start='' ;;
        --dry-run) dry_run=1 ;;
        --uninstall) action=uninstall ;;
        --purge) purge=1 ;;
        --help | -h) usage; exit 0 ;;
        *) echo "install.sh: there is no option $1; see install.sh --help" >&2; exit 64 ;;
    esac
    shift
done
unit=edge-$role.service user=edge-$role state=/var/lib/edge-$role settings=/etc/edge-$role
source=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

say() { printf '%s\n' "$*"; }
step() { printf '\n== %s\n' "$*"; }

die() { # die STATUS WHAT HINT
    printf 'install.sh: %s\n' "$2" >&2
    [ -z "${3:-}" ] || printf 'hint: %s\n' "$3" >&2
    exit "$1"
}

# Everything that changes the machine goes through here: shown, and done unless this is a dry run.
run() {
    printf '+'
    printf ' %q' "$@"
    printf '\n'
    [ -n "$dry_run" ] || "$@"
}

write() { # write MODE GROUP FILE, with the content on standard input; a file that is there stays
    local mode=$1 group=$2 file=$3
    if [ -e "$file" ]; then
        say "  $file is there and stays as it is"
        cat >/dev/null
        return
    fi
    say "+ write $file (mode $mode, root:$group)"
    if [ -n "$dry_run" ]; then
        sed 's/^/    /'
    else
        (umask 077 && cat >"$file.new") && chown "root:$group" "$file.new" && chmod "$mode" "$file.new" && mv "$file.new" "$file"
    fi
}

# The user's own command line: with its state directory, its settings, and nothing of root's environment.
as_user() {
    runuser -u "$user" -- env -i PATH=/usr/bin:/bin HOME="$state" STATE_DIRECTORY="$state" ORT_DISABLE_TELEMETRY=1 \
        EDGE_AGENT_CONFIG="$settings/config.toml" LANG=C.UTF-8 "$PREFIX/venv/bin/edge-agent" "$@"
}

# -- can it run here? ----------------------------------------------------------------------------------------------

supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

check_machine() {
    local machine bits candidate
    [ "$(uname -s)" = Linux ] || die 69 "this is $(uname -s), and the agent runs on Linux alone."
    machine=$(uname -m)
    bits=$(getconf LONG_BIT 2>/dev/null || echo unknown)
    case $machine:$bits in
        x86_64:64 | aarch64:64) ;;
        *:32) die 69 "this system's programs are 32-bit ones (on a $machine kernel), and there is no onnxruntime for them." \
            "install the 64-bit edition of your system: boards from the Raspberry Pi 3 on run it (Raspberry Pi OS 64-bit, Debian arm64)." ;;
        *) die 69 "there is no onnxruntime for a $machine machine; x86_64 and aarch64 have one." \
            "such a machine can still be a client: pip install 'edge-agent[client]' needs no onnxruntime to verify." ;;
    esac
    # musl's loader says who it is; glibc's getconf answers.
    if ! getconf GNU_LIBC_VERSION >/dev/null 2>&1; then
        die 69 "this system's C library is not glibc (Alpine and other musl systems), and onnxruntime has no wheels for it." \
            "run the agent in a container with a Debian userland (podman run docker.io/library/debian:12), or install Debian."
    fi
    for candidate in "$python" python3 python3.13 python3.12 python3.11; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null && supported "$candidate"; then
            python=$(command -v "$candidate")
            break
        fi
        [ -z "$python" ] || die 69 "$python is no Python 3.11, 3.12 or 3.13."
    done
    [ -n "$python" ] || die 69 "there is no Python 3.11, 3.12 or 3.13 here (found: $(python3 --version 2>&1 || echo none))." \
        "Debian 12, Ubuntu 24.04 and Raspberry Pi OS 12 have one; on older ones upgrade the system, or build one and name it with --python."
    [ "$("$python" -c 'import struct; print(struct.calcsize("P") * 8)')" = 64 ] ||
        die 69 "$python is a 32-bit program, and there is no onnxruntime for it." "name a 64-bit one with --python."
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        die 69 "$python cannot make virtual environments." "apt-get install python3-venv, then run this again."
    [ -d /run/systemd/system ] || [ -n "$dry_run" ] ||
        die 69 "systemd does not run here, so there is nothing to install a service in." \
            "run the agent by hand (make setup; .venv/bin/edge-agent run) and let your own supervisor start it."
    if [ -n "$wheels" ]; then
        [ -d "$wheels" ] || die 64 "$wheels is no folder."
        wheels=$(cd "$wheels" && pwd)
    fi
    if dpkg-query -W -f '${Status}' edge-agent 2>/dev/null | grep -q ' installed'; then
        die 64 "the Debian package edge-agent is installed here, which brings the same service." \
            "upgrade it with apt, or remove it first: apt-get remove edge-agent (its state stays and is used here)."
    fi
    say "This is a $machine machine with $("$python" --version) and $(getconf GNU_LIBC_VERSION)."
}

# -- the program ---------------------------------------------------------------------------------------------------

# A release is a virtual environment and the units that go with it; `venv` and `share` are links to those in use. A new
# one is complete before anything of the old one is touched.
make_release() {
    local pip=(--quiet --disable-pip-version-check --no-input) wheel what
    release=$PREFIX/releases/$(date -u +%Y%m%dT%H%M%SZ)-$$
    [ -z "$wheels" ] || pip+=(--no-index --find-links "$wheels")
    what=$source
    if [ -n "$wheels" ]; then
        wheel=$(find "$wheels" -maxdepth 1 -name 'edge_agent-*.whl' | sort -V | tail -n 1)
        what=${wheel:-$source}
    fi
    run install -d -m 755 "$PREFIX" "$PREFIX/releases"
    [ -n "$dry_run" ] || trap 'rm -rf -- "$release"' EXIT
    run "$python" -m venv "$release/venv"
    run "$release/venv/bin/python" -m pip install "${pip[@]}" "$what${extras:+[$extras]}"
    run install -d -m 755 "$release/share"
    run install -m 644 -t "$release/share" "$source/README.md" "$source/LICENSE" "$source"/systemd/edge-*
    run install -D -m 644 -t "$release/share/drop-ins" "$source"/systemd/drop-ins/*.conf
    run "$release/venv/bin/edge-agent" version
    say "+ write $release/extras: ${extras:-none}"
    [ -n "$dry_run" ] || printf '%s\n' "$extras" >"$release/extras"
    # Complete: whatever goes wrong from here on, it may be the one in use.
    trap - EXIT
}

# What was chosen once stays chosen. One environment serves both roles: whether a coordinator is here, its unit says.
choose_extras() { # choose_extras PREVIOUS
    local name kept=''
    case $wanted in
        *none*) wanted=${wanted//none/} ;; # nothing of what was
        *)
            if [ -n "$1" ] && [ -e "$1/extras" ]; then kept=$(cat "$1/extras"); fi
            for name in $EXTRAS; do # what was put there by hand, or by a release that did not write it down
                if [ -n "$1" ] && [ -n "$(find "$1/venv/lib" -maxdepth 3 -type d -name "${name#*:}" 2>/dev/null)" ]; then
                    kept+=,${name%:*}
                fi
            done ;;
    esac
    kept=,$kept, kept=${kept//,coordinator,/,}
    if [ "$role" = coordinator ] || [ -e /etc/systemd/system/edge-coordinator.service ]; then kept+=,coordinator; fi
    for name in ${kept//,/ } $wanted; do
        case ,$extras, in *,"$name",*) ;; *) extras=${extras:+$extras,}$name ;; esac
    done
}

use_release() { # use_release FOLDER: the links, the unit, the user, the folders
    local folder=$1 name newer='newer-systemd.conf' drop_in=/etc/systemd/system/$unit.d/newer-systemd.conf
    [ "$role" = agent ] || newer='newer-systemd-coordinator.conf'
    for name in venv share; do
        run ln -sfn "$folder/$name" "$PREFIX/.$name.new"
        run mv -T "$PREFIX/.$name.new" "$PREFIX/$name"
    done
    run ln -sfn "$PREFIX/venv/bin/edge-agent" "$COMMAND"
    run install -m 644 "$folder/share/$unit" "/etc/systemd/system/$unit"
    run install -D -m 644 "$folder/share/$user.sysusers" "/etc/sysusers.d/$user.conf"
    run install -D -m 644 "$folder/share/$user.tmpfiles" "/etc/tmpfiles.d/$user.conf"
    run systemd-sysusers "/etc/sysusers.d/$user.conf"
    run systemd-tmpfiles --create "/etc/tmpfiles.d/$user.conf"
    if [ "$(systemctl --version | awk 'NR == 1 { print $2 }')" -lt 254 ]; then
        :
    elif [ -n "$dry_run" ] || [ -e "$folder/share/drop-ins/$newer" ]; then
        run install -D -m 644 "$folder/share/drop-ins/$newer" "$drop_in"
    else
        run rm -f -- "$drop_in" # an older release, which had none for this unit
    fi
    run systemctl daemon-reload
}

forget_releases() { # all but the newest; the one in use is the newest
    local old
    for old in $(find "$PREFIX/releases" -mindepth 1 -maxdepth 1 -type d | sort | head -n "-$KEEP_RELEASES"); do
        run rm -rf -- "$old"
    done
}

# -- settings and enrolment ----------------------------------------------------------------------------------------

write_settings() {
    if [ "$role" = coordinator ]; then
        write 640 "$user" "$settings/config.toml" <<END
# The coordinator's settings: docs/settings.md lists all of them. After a change: systemctl restart $unit
[broker]
url = "${broker:-mqtt://127.0.0.1:1883}"

[coordinator]
http = "127.0.0.1:8420"
END
        return
    fi
    write 640 "$user" "$settings/config.toml" <<END
# The agent's settings: docs/settings.md lists all of them, docs/policy.md the owner's rules. What enrolment brought lies
# in $state/enrolment.toml; what is said here wins. After a change of the rules: systemctl reload $unit
${broker:+
[broker]
url = \"$broker\"
}
# [policy]
# work_hours = ["Mon-Fri 18:00-07:00", "Sat-Sun 00:00-24:00"]
END
    if [ -n "$coordinator_key" ]; then
        run install -o "$user" -g "$user" -m 644 "$coordinator_key" "$state/coordinator.pub"
    fi
}

enrolled() { [ -e "$state/coordinator.pub" ]; }

enrol() {
    local token=''
    if enrolled; then
        say "  enrolled already; the identity in $state stays"
        return
    fi
    if [ -z "$url" ] && [ -t 0 ] && [ -z "$dry_run" ]; then
        read -rp "Address of the coordinator (https://…) or its broker (mqtts://…); empty to enrol later: " url
    fi
    [ -n "$url" ] || { say "  not enrolled: no --url was given"; return; }
    case $token_file in
        '') if [ -t 0 ] && [ -z "$dry_run" ]; then read -rsp "Enrolment token; empty to be approved by a code: " token && echo; fi ;;
        -) [ -n "$dry_run" ] || read -r token ;;
        *) [ -n "$dry_run" ] || { read -r token <"$token_file" || [ -n "$token" ]; } ;;
    esac
    # The token goes through a pipe: an argument could be read by every user of this machine. Without one, a code is shown
    # that the operator compares and approves.
    local how=(-) note="the token on standard input"
    [ -n "$token$dry_run" ] || { how=() note="without a token: the operator approves the code"; }
    say "+ edge-agent enrol $url ${how[*]}   (as $user, $note)"
    if [ -z "$dry_run" ] && ! printf '%s\n' "$token" | as_user enrol "$url" "${how[@]}"; then
        die 69 "the coordinator did not enrol this machine; all else is installed." \
            "see the lines above, get a new token (edge-agent coordinator token), and run this again."
    fi
}

# -- the service ---------------------------------------------------------------------------------------------------

# READY=1 has come when systemctl returns; then it must stay up, and an agent must answer on its control socket.
comes_up() {
    run systemctl restart "$unit" || return 1
    [ -n "$dry_run" ] && return 0
    local before second
    before=$(systemctl show -P NRestarts "$unit")
    for ((second = 0; second < SETTLE_SECONDS; second++)); do
        sleep 1
        [ "$(systemctl show -P ActiveState "$unit")" = active ] || return 1
    done
    [ "$(systemctl show -P NRestarts "$unit")" = "$before" ] || return 1
    [ "$role" = coordinator ] || as_user status >/dev/null
}

start_or_roll_back() { # start_or_roll_back PREVIOUS
    local previous=$1
    run systemctl enable "$unit"
    if comes_up; then
        return
    fi
    journalctl --no-pager -u "$unit" -n 20 -o cat >&2 || true
    if [ -z "$previous" ]; then
        run systemctl stop "$unit"
        die 70 "$unit did not come up; its last lines are above." "mend what they say, then: systemctl start $unit"
    fi
    step "The new version did not come up: back to $(basename "$previous")"
    use_release "$previous"
    if comes_up; then
        die 70 "the new version did not come up and was taken back; the one from before runs." "the lines above say why."
    fi
    die 70 "neither the new version nor the one from before comes up." "journalctl -u $unit"
}

next_steps() {
    step "What next"
    if [ "$role" = coordinator ]; then
        cat <<END
  The coordinator serves HTTP at the address in $settings/config.toml; agents pin $state/coordinator.pub
    sudo -u $user env STATE_DIRECTORY=$state edge-agent coordinator token    # for each machine that is to join
    journalctl -u $unit -f
END
    elif enrolled; then
        cat <<END
  sudo -u $user env STATE_DIRECTORY=$state edge-agent status     # what it does, for whom; why, pause 2h, resume, history
  sudoedit $settings/config.toml                        # your rules; then: systemctl reload $unit
  journalctl -u $unit -f                       # what it says; its id, if the operator is to approve it
  sudo $source/install.sh                               # an upgrade; --uninstall takes it off again
END
    else
        cat <<END
  This machine belongs to no network yet. Ask the operator of one for a token, then:
    sudo $source/install.sh --url https://coordinator.example
END
    fi
}

install_it() {
    local previous=''
    step "Can it run here?"
    check_machine
    [ ! -e "$PREFIX/venv" ] || previous=$(dirname "$(readlink -f "$PREFIX/venv")")
    choose_extras "$previous"
    step "The program${previous:+ (an upgrade of $(basename "$previous"))}"
    make_release
    step "User, folders, unit"
    use_release "$release"
    write_settings
    if [ "$role" = agent ]; then
        step "Enrolment"
        if ! enrolled && [ -n "$url" ]; then run systemctl stop "$unit"; fi
        enrol
    fi
    if [ -n "$start" ] && { [ "$role" = coordinator ] || enrolled || [ -n "$dry_run" ]; }; then
        step "Start"
        start_or_roll_back "$previous"
        if [ "$role" = agent ] && [ -z "$dry_run" ]; then
            step "edge-agent doctor"
            as_user doctor || say "  doctor found something; each line says how to mend it"
        fi
    fi
    [ ! -d "$PREFIX/releases" ] || forget_releases
    next_steps
}

uninstall_it() {
    local other=edge-coordinator
    [ "$role" = agent ] || other=edge-agent
    step "Stop and remove $unit"
    if [ -e "/etc/systemd/system/$unit" ]; then
        run systemctl disable --now "$unit"
    fi
    if [ "$role" = agent ] && { [ -n "$dry_run" ] || [ -x "$PREFIX/venv/bin/edge-agent" ]; }; then
        # So that no ghost of it stays in Home Assistant, where it was let in; a broker that is away keeps nobody here.
        say "+ edge-agent home forget    # as $user"
        [ -n "$dry_run" ] || as_user home forget >/dev/null 2>&1 || true
    fi
    run rm -rf -- "/etc/systemd/system/$unit" "/etc/systemd/system/$unit.d" "/etc/sysusers.d/$user.conf" "/etc/tmpfiles.d/$user.conf"
    run systemctl daemon-reload
    if [ -e "/etc/systemd/system/$other.service" ]; then
        say "  $PREFIX stays: $other.service uses it"
    else
        run rm -rf -- "$PREFIX" "$COMMAND"
    fi
    if [ -n "$purge" ]; then
        step "Remove settings, keys, state and the user"
        run rm -rf -- "$settings" "$state"
        if getent passwd "$user" >/dev/null; then run userdel "$user"; fi
    else
        say "  $settings and $state stay: settings, identity, unsettled results. --uninstall --purge removes them."
    fi
}

[ "$(id -u)" -eq 0 ] || [ -n "$dry_run" ] || die 64 "this has to be run as root." "sudo $0 $action; or look first: $0 --dry-run"
if [ "$action" = uninstall ]; then uninstall_it; else install_it; fi
