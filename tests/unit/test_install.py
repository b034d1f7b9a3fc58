"""install.sh on machines that can and cannot run the agent; all of it dry, so that nothing is changed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
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


class Sandbox:
    """A copy of the script whose machine lies in a folder: it runs for real, with programs that only write down."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = folder / "source"
        self.source.mkdir()
        for name in ("README.md", "LICENSE"):
            shutil.copy(ROOT / name, self.source)
        shutil.copytree(ROOT / "systemd", self.source / "systemd")
        text = SCRIPT.read_text()
        for place in ("/opt/edge-agent", "/usr/local/bin", "/etc/", "/var/lib/", "/run/systemd/system"):
            text = text.replace(place, f"{folder}{place}")
        (self.source / "install.sh").write_text(text)
        self.tools = folder / "bin"
        for path in (
            self.tools,
            folder / "usr/local/bin",
            folder / "etc/systemd/system",
            folder / "var/lib",
            folder / "run/systemd/system",
        ):
            path.mkdir(parents=True)
        environment = (
            'mkdir -p "$3/bin"; printf \'#!/bin/sh\\necho "$@" >>"%s"\\n\' '
            f"'{folder}/pip.log' >\"$3/bin/python\"; "
            'printf "#!/bin/sh\\n" >"$3/bin/edge-agent"; chmod 755 "$3/bin/python" "$3/bin/edge-agent"'
        )
        programs = {
            **MACHINE,
            **OTHERS,
            "id": "echo 0",
            "python3": f'case "$*" in *calcsize*) echo 64 ;; "-m venv"*) {environment} ;; esac',
            "systemctl": 'case "$1" in --version) echo "systemd 255 (255.4)" ;; esac',
            "systemd-sysusers": "exit 0",
            "systemd-tmpfiles": f"cd '{folder}' && mkdir -p etc/edge-agent etc/edge-coordinator",
            "chown": "exit 0",
        }
        for name, script in programs.items():
            self.program(name, script)

    def program(self, name: str, script: str) -> None:
        """Have a program do this."""
        (self.tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.tools / name).chmod(0o755)

    def install(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run the script."""
        environ = {"PATH": f"{self.tools}:/usr/bin:/bin", "LC_ALL": "C"}
        command = ["bash", str(self.source / "install.sh"), "--no-start", *options]
        return subprocess.run(
            command, env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )

    @property
    def in_use(self) -> Path:
        """The release that the links name."""
        return (self.folder / "opt/edge-agent/venv").resolve().parent

    @property
    def releases(self) -> list[Path]:
        """Those that are there."""
        return sorted((self.folder / "opt/edge-agent/releases").iterdir())

    @property
    def asked_of_pip(self) -> str:
        """What pip was asked to install last."""
        return (self.folder / "pip.log").read_text().splitlines()[-1].rpartition("/")[2]


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    """Return one in which nothing is installed."""
    return Sandbox(tmp_path)


@pytest.mark.parametrize("before", [0, 1], ids=["first", "upgrade"])
def test_a_step_that_fails_late_does_not_delete_the_release_in_use(sandbox: Sandbox, before: int) -> None:
    """The links name the new one by then: without it there would be no program at all."""
    for _ in range(before):
        assert sandbox.install().returncode == 0
    sandbox.program("systemd-sysusers", "echo no room >&2; exit 1")
    assert sandbox.install().returncode != 0
    assert (sandbox.in_use / "venv/bin/edge-agent").exists()
    assert (sandbox.folder / "usr/local/bin/edge-agent").exists()
    sandbox.program("systemd-sysusers", "exit 0")
    done = sandbox.install()
    assert done.returncode == 0, done.stderr
    assert sandbox.in_use == sandbox.releases[-1]


def test_a_release_that_never_got_complete_is_deleted_and_the_one_in_use_stays(sandbox: Sandbox) -> None:
    """Packages that could not be fetched leave nothing."""
    assert sandbox.install().returncode == 0
    kept = sandbox.in_use
    sandbox.program(
        "python3", 'case "$*" in *calcsize*) echo 64 ;; "-m venv"*) mkdir -p "$3/bin" ;; esac'
    )  # no pip in it
    assert sandbox.install().returncode != 0
    assert (sandbox.in_use, sandbox.releases) == (kept, [kept])


def test_what_was_chosen_at_the_first_installation_is_not_lost_at_an_upgrade(sandbox: Sandbox) -> None:
    """Of either role, and of a release that did not write it down; a coordinator's packages go with its unit."""
    sandbox.install("--text")
    assert sandbox.asked_of_pip == "source[text]"
    sandbox.install()
    assert sandbox.asked_of_pip == "source[text]"
    sandbox.install("--coordinator")
    assert sandbox.asked_of_pip == "source[text,coordinator]"
    sandbox.install("--text")
    assert sandbox.asked_of_pip == "source[text,coordinator]"
    (sandbox.folder / "etc/systemd/system/edge-coordinator.service").unlink()
    (sandbox.in_use / "extras").unlink()
    (sandbox.in_use / "venv/lib/python3.11/site-packages/onnxruntime_extensions").mkdir(parents=True)
    sandbox.install()
    assert sandbox.asked_of_pip == "source[text]"


def test_extras_are_kept_at_an_upgrade_also_those_that_somebody_added_by_hand_until_none_are_wanted(
    sandbox: Sandbox,
) -> None:
    """Written down with the release, or found in its environment; each once, however it was chosen."""
    sandbox.install("--extras", "grpc,telemetry")
    assert sandbox.asked_of_pip == "source[grpc,telemetry]"
    sandbox.install()
    assert sandbox.asked_of_pip == "source[grpc,telemetry]"
    packages = sandbox.in_use / "venv/lib/python3.11/site-packages"
    for name in ("grpc", "matplotlib", "numpy"):
        (packages / name).mkdir(parents=True)
    sandbox.install("--text")
    assert sandbox.asked_of_pip == "source[grpc,telemetry,plot,text]"
    assert (sandbox.in_use / "extras").read_text() == "grpc,telemetry,plot,text\n"
    sandbox.install("--extras", "none")
    assert sandbox.asked_of_pip == "source"
    sandbox.install("--coordinator", "--extras", "grpc")
    assert sandbox.asked_of_pip == "source[coordinator,grpc]"
    sandbox.install("--extras", "none,plot")
    assert sandbox.asked_of_pip == "source[coordinator,plot]"


def test_an_upgrade_that_fails_keeps_the_extras_of_the_release_in_use(sandbox: Sandbox) -> None:
    """What was to be added goes with the release that never got complete."""
    sandbox.install("--extras", "grpc")
    kept = sandbox.in_use
    sandbox.program(
        "python3", 'case "$*" in *calcsize*) echo 64 ;; "-m venv"*) mkdir -p "$3/bin" ;; esac'
    )  # no pip in it
    assert sandbox.install("--extras", "telemetry").returncode != 0
    assert sandbox.in_use == kept
    assert (kept / "extras").read_text() == "grpc\n"


def test_the_extras_of_the_script_are_extras_of_the_project_and_all_are_named() -> None:
    """In its help, in the message to who misspells one, and in the documentation."""
    text = SCRIPT.read_text()
    listed = re.search(r"^EXTRAS='(.*)'$", text, re.MULTILINE)
    assert listed is not None
    names = [each.partition(":")[0] for each in listed[1].split()]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(names) <= set(project)
    assert f"it takes {', '.join(names)}, or none" in text
    row = next(line for line in (ROOT / "docs/install.md").read_text().splitlines() if "`--extras NAMES`" in line)
    assert all(f"`{name}`" in row for name in names)


def test_without_extras_none_are_asked_for(sandbox: Sandbox) -> None:
    """Neither at first nor later."""
    for _ in range(2):
        sandbox.install()
        assert sandbox.asked_of_pip == "source"


def test_the_coordinators_unit_gets_neither_the_agents_keys_nor_its_reload(sandbox: Sandbox) -> None:
    """A SIGHUP ends a coordinator; each unit has a drop-in of its own, in the place of one that was there before."""
    units = sandbox.folder / "etc/systemd/system"
    (units / "edge-coordinator.service.d").mkdir(parents=True)
    wrong = units / "edge-coordinator.service.d/newer-systemd.conf"
    shutil.copy(sandbox.source / "systemd/drop-ins/newer-systemd.conf", wrong)
    for options in ((), ("--coordinator",)):
        done = sandbox.install(*options)
        assert done.returncode == 0, done.stderr
    agents = (units / "edge-agent.service.d/newer-systemd.conf").read_text()
    assert "Type=notify-reload" in agents
    assert "ImportCredential=agent.key" in agents
    settings = [line for line in wrong.read_text().splitlines() if line and not line.startswith(("#", "["))]
    assert "ImportCredential=coordinator.key" in settings
    assert [line for line in settings if "reload" in line.lower() or "agent" in line or "sealing" in line] == []


def test_an_older_systemd_gets_no_drop_in(sandbox: Sandbox) -> None:
    """It would warn of each line."""
    sandbox.program("systemctl", 'case "$1" in --version) echo "systemd 252 (252.39)" ;; esac')
    assert sandbox.install().returncode == 0
    assert not (sandbox.folder / "etc/systemd/system/edge-agent.service.d").exists()


@pytest.mark.parametrize(
    "options",
    [["--frobnicate"], ["--url"], ["--extras"], ["--extras", "grpc,rootkit"], ["--extras", "dev"], ["--extras", "te"]],
    ids=["unknown", "without-value", "without-extras", "unknown-extra", "not-for-services", "half-an-extra"],
)
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
