"""install.sh on machines that can and cannot run the agent; all of it dry, so that nothing is changed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import needs
import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "install.sh"
MACHINE: Mapping[str, str] = {
    "uname": 'case "$1" in -s) echo Linux ;; -m) echo aarch64 ;; esac',
    "getconf": 'case "$1" in LONG_BIT) echo 64 ;; *) echo "glibc 2.36" ;; esac',
    "python3": 'case "$*" in *calcsize*) echo 64 ;; --version) echo "Python 3.11.2" ;; esac',
    "dpkg-query": "exit 1",
    "systemctl": 'echo "systemd 252 (252.39)"',
    "id": "echo 1000",
}
"""A Debian 12 on a Raspberry Pi, as far as the script asks."""
OTHERS = {"python3.11": "exit 1", "python3.12": "exit 1", "python3.13": "exit 1"}


def install(tmp_path: Path, *options: str, **programs: str) -> subprocess.CompletedProcess[str]:
    """Run the script on a machine whose programs answer like this."""
    tools = tmp_path / "bin"
    tools.mkdir(exist_ok=True)
    for name, script in {**MACHINE, **OTHERS, **programs}.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    environ = {"PATH": f"{tools}:/usr/bin:/bin", "LC_ALL": "C"}
    command = ["bash", str(SCRIPT), *options]
    return subprocess.run(command, env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


def test_dry_run_shows_every_step_in_order_and_needs_no_root(tmp_path: Path) -> None:
    """Environment before links, links before unit, user before folders, settings before enrolment and start."""
    done = install(tmp_path, "--dry-run", "--url", "https://coordinator.example")
    assert done.returncode == 0, done.stderr
    steps = (
        "-m venv",
        "-m pip install",
        "ln -sfn",
        "/etc/systemd/system/edge-agent.service",
        "systemd-sysusers",
        "systemd-tmpfiles",
    )
    steps += ("config.toml", "edge-agent enrol https://coordinator.example -", "systemctl enable", "systemctl restart")
    places = [done.stdout.find(step) for step in steps]
    assert -1 not in places
    assert places == sorted(places)
    assert not Path("/opt/edge-agent").exists()


@pytest.mark.parametrize(
    ("programs", "what", "way_out"),
    [
        ({"getconf": 'case "$1" in LONG_BIT) echo 32 ;; *) echo "glibc 2.36" ;; esac'}, "32-bit", "64-bit edition"),
        ({"getconf": '[ "$1" = LONG_BIT ] && echo 64'}, "musl", "container with a Debian userland"),
        ({"python3": 'case "$*" in --version) echo "Python 3.9.2" ;; *) exit 1 ;; esac'}, "Python 3.9.2", "--python"),
        (
            {"python3": 'case "$*" in *calcsize*) echo 64 ;; *ensurepip*) exit 1 ;; esac'},
            "virtual environments",
            "python3-venv",
        ),
        ({"uname": 'case "$1" in -s) echo Linux ;; -m) echo riscv64 ;; esac'}, "riscv64", "client"),
        ({"uname": "echo Darwin"}, "Darwin", ""),
    ],
    ids=["32-bit-userland", "musl", "old-python", "no-venv", "other-processor", "no-linux"],
)
def test_a_machine_that_cannot_run_it_is_told_why_and_the_way_out(
    tmp_path: Path, programs: dict[str, str], what: str, way_out: str
) -> None:
    """Before anything is done, with a status of its own."""
    done = install(tmp_path, "--dry-run", **programs)
    assert done.returncode == 69
    assert what in done.stderr
    assert way_out in done.stderr
    assert "+ " not in done.stdout


def test_without_root_nothing_is_begun(tmp_path: Path) -> None:
    """And the dry run is pointed to."""
    done = install(tmp_path)
    assert (done.returncode, done.stdout) == (64, "")
    assert "--dry-run" in done.stderr


def test_the_package_and_the_script_do_not_fight(tmp_path: Path) -> None:
    """Both bring a unit of the same name."""
    done = install(tmp_path, "--dry-run", **{"dpkg-query": 'echo "install ok installed"'})
    assert done.returncode == 64
    assert "apt-get remove edge-agent" in done.stderr


def test_uninstalling_keeps_what_is_the_owners_unless_told(tmp_path: Path) -> None:
    """Settings, keys and state."""
    kept = install(tmp_path, "--dry-run", "--uninstall").stdout
    assert "rm -rf -- /opt/edge-agent /usr/local/bin/edge-agent" in kept
    assert "rm -rf -- /etc/edge-agent" not in kept
    assert (
        "rm -rf -- /etc/edge-agent /var/lib/edge-agent"
        in install(tmp_path, "--dry-run", "--uninstall", "--purge").stdout
    )


def test_uninstalling_takes_the_device_back_from_home_assistant_while_it_still_can(tmp_path: Path) -> None:
    """After the agent has stopped, before the program goes; a coordinator has no such device."""
    done = install(tmp_path, "--dry-run", "--uninstall", "--purge").stdout
    places = [
        done.find(step) for step in ("edge-agent home forget", "rm -rf -- /opt/edge-agent", "rm -rf -- /etc/edge-agent")
    ]
    assert -1 not in places
    assert places == sorted(places)
    assert "home forget" not in install(tmp_path, "--dry-run", "--uninstall", "--coordinator").stdout


def test_the_token_is_never_an_argument(tmp_path: Path) -> None:
    """Arguments can be read by everybody on the machine."""
    token = tmp_path / "token"
    token.write_text("ea1-secret\n")
    done = install(tmp_path, "--dry-run", "--url", "https://coordinator.example", "--token-file", str(token))
    assert "ea1-secret" not in done.stdout + done.stderr
    assert "on standard input" in done.stdout


@pytest.mark.parametrize("options", [["--frobnicate"], ["--url"]], ids=["unknown", "without-value"])
def test_wrong_options_are_refused(tmp_path: Path, options: list[str]) -> None:
    """With the name of the option."""
    done = install(tmp_path, "--dry-run", *options)
    assert done.returncode == 64
    assert options[0] in done.stderr


SCRIPTS = (
    "install.sh",
    "packaging/debian/build.sh",
    "packaging/debian/postinst",
    "packaging/debian/prerm",
    "packaging/debian/postrm",
    "tests/machines/aarch64.sh",
    "tests/machines/emulated.sh",
    "tests/machines/look.sh",
    "tests/machines/make_image.sh",
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_clean(script: str) -> None:
    """As shellcheck judges them."""
    done = subprocess.run([needs.tool("shellcheck"), str(ROOT / script)], capture_output=True, text=True, check=False)
    assert done.stdout == ""


def test_scripts_can_be_run() -> None:
    """They are executable files."""
    assert os.access(SCRIPT, os.X_OK)
