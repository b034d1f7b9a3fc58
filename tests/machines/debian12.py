"""Installs the agent on a booted Debian 12, breaks it, and looks whether it comes back: run on demand, as root.

    tests/machines/make_image.sh IMAGE
    python tests/machines/debian12.py --image IMAGE --wheels WHEELS [--deb FILE --newer-deb FILE]

WHEELS is a folder with the wheels of the agent and of all that it needs (`pip wheel -w WHEELS .`). Each line printed is
a fact that was checked; the first that does not hold ends the run with status 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from machine import REPOSITORY, Machine, MachineError, Network, booted, missing

UNIT = "edge-agent.service"
MAX_EXPOSURE = 1.6
AS_AGENT = "runuser -u edge-agent -- env STATE_DIRECTORY=/var/lib/edge-agent "
BEGAN = time.monotonic()
NOT_OURS = ("/root", "/proc", "/sys", "/tmp", "/run/systemd", "/var/cache/apt", "/var/log")  # noqa: S108 not used


def fact(text: str) -> None:
    """Print what was found to hold."""
    print(f"{time.monotonic() - BEGAN:7.1f} s  {text}", flush=True)


def expect(condition: object, text: str, more: str = "") -> None:
    """Print a fact, or end with what is wrong."""
    if not condition:
        raise MachineError(f"does not hold: {text}\n{more}")
    fact(text)


def prop(machine: Machine, name: str) -> str:
    """Return a property of the unit."""
    return machine.run(f"systemctl show -P {name} {UNIT}")[1].strip()


def agent_id(machine: Machine) -> str:
    """Return who the agent is, by its public key."""
    return machine.run("sha256sum < /var/lib/edge-agent/agent.pub")[1].split()[0]


def wait_restarted(machine: Machine, pid: str, seconds: float) -> float:
    """Wait until the unit runs in another process; return the seconds it took."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if prop(machine, "MainPID") not in {pid, "0"} and prop(machine, "ActiveState") == "active":
            return time.monotonic() - began
        time.sleep(0.2)
    raise MachineError(
        f"not started again within {seconds:g} s\n{machine.run(f'systemctl status {UNIT}', check=False)[1]}"
    )


def tree(machine: Machine) -> None:
    """Put the source tree into the machine, as a download would be."""
    target = machine.root / "root" / "edge-agent"
    ignore = shutil.ignore_patterns(
        ".git", ".venv*", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", "tests"
    )
    shutil.copytree(REPOSITORY, target, ignore=ignore, dirs_exist_ok=True)


def first_job(machine: Machine, network: Network) -> None:
    """From the bare image to the first verified job: three commands."""
    token = network.token()
    began = time.monotonic()
    machine.run("apt-get install -y -qq python3-venv")
    after_apt = time.monotonic() - began
    text = machine.run(
        f"/root/edge-agent/install.sh --wheels /root/wheels --url http://{network.http} --token-file -",
        stdin=f"{token}\n",
    )[1]
    after_install = time.monotonic() - began
    network.job()
    seconds = time.monotonic() - began
    print("\n".join(f"           | {line}" for line in text.splitlines()))
    parts = f"apt {after_apt:.0f}, install.sh {after_install - after_apt:.0f}, job {seconds - after_install:.0f}"
    fact(f"bare image to first verified job: 3 commands, {seconds:.0f} s ({parts})")
    load = Path("/proc/loadavg").read_text().split()[0]
    within = "at most" if seconds <= 180 else "MORE THAN"
    fact(f"  {within} 3 minutes, at a load of {load} on {os.cpu_count()} processors")


def hardened(machine: Machine, network: Network) -> None:
    """What systemd says of the unit, in the place where it runs."""
    line = machine.run(f"systemd-analyze security --no-pager {UNIT}")[1].strip().splitlines()[-1]
    exposure = float(line.rpartition("service: ")[2].split()[0])
    expect(exposure <= MAX_EXPOSURE, f"systemd-analyze security of the running unit: {exposure}")
    expect(
        machine.run(f"systemd-analyze verify --man=no {UNIT}")[1].strip() == "",
        "systemd-analyze verify has nothing to say",
    )
    expect("serving digits" in prop(machine, "StatusText"), f"systemctl status shows: {prop(machine, 'StatusText')}")
    modes = machine.run(
        "stat -c '%a %U %n' /var/lib/edge-agent /var/lib/edge-agent/agent.key /etc/edge-agent"
        " /etc/edge-agent/config.toml"
    )[1].splitlines()
    expect(
        [mode.split()[:2] for mode in modes]
        == [["700", "edge-agent"], ["600", "edge-agent"], ["750", "root"], ["640", "root"]],
        f"modes: {'; '.join(modes)}",
    )
    status, text = machine.run(f"{AS_AGENT} edge-agent doctor", check=False)
    print("\n".join(f"           | {line}" for line in text.splitlines()))
    expect(status == 0, "doctor finds nothing that keeps it from working")
    machine.run(f"systemctl reload {UNIT}")
    expect(prop(machine, "ActiveState") == "active", "reload: the rules are read anew, the process stays")
    network.job()


def without_code_that_is_written(machine: Machine, network: Network) -> None:
    """The drop-in that refuses memory which is both written and executed."""
    folder = f"/etc/systemd/system/{UNIT}.d"
    machine.run(f"mkdir -p {folder} && cp /root/edge-agent/systemd/drop-ins/memory-deny-write-execute.conf {folder}")
    machine.run(f"systemctl daemon-reload && systemctl restart {UNIT}")
    network.job()
    expect(prop(machine, "MemoryDenyWriteExecute") == "yes", "under MemoryDenyWriteExecute= a job is served")
    status, text = machine.run(f"{AS_AGENT} edge-agent doctor", check=False)
    expect(status == 0, "  and doctor finds nothing that keeps it from working", text)
    seen = machine.run(f"journalctl -u {UNIT} --no-pager -o cat | grep -ci 'worker died' || true")[1].strip()
    expect(seen == "0", "  no worker died of it", seen)
    machine.run(f"rm -r {folder} && systemctl daemon-reload && systemctl restart {UNIT}")
    network.job()


def broken_in_every_way(machine: Machine, network: Network) -> None:
    """Killed, hung, its worker killed, rebooted."""
    who = agent_id(machine)
    pid = prop(machine, "MainPID")
    machine.run(f"kill -KILL {pid}")
    fact(f"killed: started again after {wait_restarted(machine, pid, 60):.1f} s")
    network.job()
    fact("  and works")
    worker = machine.run("pgrep -u edge-agent -f inference.worker")[1].split()[0]
    pid = prop(machine, "MainPID")
    machine.run(f"kill -KILL {worker}")
    network.job()
    expect(prop(machine, "MainPID") == pid, "worker killed: the daemon stays, and the next job is served")
    short = f"/run/systemd/system/{UNIT}.d"
    machine.run(f"mkdir -p {short} && printf '[Service]\\nWatchdogSec=10\\n' > {short}/short.conf")
    machine.run(f"systemctl daemon-reload && systemctl restart {UNIT}")
    network.job()
    pid = prop(machine, "MainPID")
    machine.run(f"kill -STOP {pid}")
    seconds = wait_restarted(machine, pid, 60)
    fact(f"hung (SIGSTOP): the watchdog, here of 10 s, had it started again after {seconds:.1f} s")
    expect(
        "watchdog" in machine.run(f"journalctl -u {UNIT} --no-pager -o cat | grep -i watchdog")[1].lower(),
        "  and the journal says so",
    )
    network.job()
    fact("  and works")
    machine.run(f"rm -r {short}; systemctl daemon-reload; systemctl restart {UNIT}")
    fact(f"rebooted in {machine.reboot():.1f} s")
    network.job()
    expect(agent_id(machine) == who, "  and works, with the same identity")


def upgraded(machine: Machine, network: Network) -> None:
    """A newer version that works, one that does not, and the same one again."""
    who = agent_id(machine)
    machine.run("echo '# mine' >> /etc/edge-agent/config.toml")
    machine.run("touch /var/lib/edge-agent/spool-marker")
    before = machine.run("readlink -f /opt/edge-agent/venv")[1]
    machine.run("/root/edge-agent/install.sh --wheels /root/wheels")
    expect(machine.run("readlink -f /opt/edge-agent/venv")[1] != before, "install.sh again: a new release is in use")
    network.job()
    kept = (
        agent_id(machine) == who
        and "# mine" in machine.run("cat /etc/edge-agent/config.toml; ls /var/lib/edge-agent/spool-marker")[1]
    )
    expect(kept, "  identity, settings and state are kept, and it works")
    before = machine.run("readlink -f /opt/edge-agent/venv")[1]
    status, text = machine.run("/root/edge-agent/install.sh --wheels /root/broken-wheels", check=False)
    expect(status == 70, "an upgrade that does not come up ends with status 70", text)
    expect(machine.run("readlink -f /opt/edge-agent/venv")[1] == before, "  the version from before is in use again")
    network.job()
    expect(agent_id(machine) == who, "  and works, with the same identity")


def removed(machine: Machine, network: Network) -> None:
    """Uninstalled with and without what is the owner's."""
    who = agent_id(machine)
    machine.run("/root/edge-agent/install.sh --uninstall")
    left = machine.run(
        "ls -d /opt/edge-agent /etc/systemd/system/edge-agent* /usr/local/bin/edge-agent 2>/dev/null", check=False
    )[1]
    expect(left == "" and agent_id(machine) == who, "--uninstall: the program is gone, identity and state are there")
    machine.run("/root/edge-agent/install.sh --wheels /root/wheels")
    network.job()
    expect(agent_id(machine) == who, "installed again: it works with the old identity")
    machine.run("/root/edge-agent/install.sh --uninstall --purge")
    expect(leftovers(machine) == "", "--uninstall --purge: nothing is left", leftovers(machine))


def leftovers(machine: Machine) -> str:
    """Return the files that bear our name, and our user if there is one."""
    places = " ".join(f"-not -path '{place}/*'" for place in NOT_OURS)
    found = machine.run(f"find / -xdev -name '*edge-agent*' {places}; getent passwd edge-agent", check=False)
    return found[1]


def by_deb(machine: Machine, network: Network, deb: Path, newer: Path | None) -> None:
    """The package: installed, upgraded, removed, purged."""
    machine.copy(deb, f"/root/{deb.name}")
    machine.run(f"apt-get install -y -qq /root/{deb.name}")
    fact("the package is installed")
    expect(prop(machine, "ActiveState") != "failed", "  it has not failed for want of a network")
    machine.run("echo '# mine' >> /etc/edge-agent/config.toml")
    machine.run(f"{AS_AGENT} edge-agent enrol http://{network.http} -", stdin=f"{network.token()}\n")
    machine.run("systemctl start edge-agent")
    network.job()
    who, pid = agent_id(machine), prop(machine, "MainPID")
    fact("  a job ran under its unit")
    machine.run(f"kill -KILL {pid}")
    wait_restarted(machine, pid, 60)
    network.job()
    fact("  killed: it came back, and works")
    if newer is not None:
        machine.copy(newer, f"/root/{newer.name}")
        pid = prop(machine, "MainPID")
        machine.run(f"apt-get install -y -qq /root/{newer.name}")
        network.job()
        expect(
            agent_id(machine) == who and prop(machine, "MainPID") != pid,
            "  upgraded: restarted, same identity, settings kept, works",
        )
    machine.run("apt-get remove -y -qq edge-agent")
    expect(agent_id(machine) == who, "  removed: identity and settings are there")
    machine.run("apt-get purge -y -qq edge-agent")
    expect(leftovers(machine) == "", "  purged: nothing is left", leftovers(machine))


def broken_wheels(wheels: Path, folder: Path) -> None:
    """Make wheels of a newer version whose agent does not start."""
    shutil.copytree(wheels, folder)
    (good,) = folder.glob("edge_agent-*.whl")
    newer = folder / good.name.replace("edge_agent-", "edge_agent-9", 1)
    version = good.name.split("-")[1]
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(newer, "w") as target:
        for item in source.infolist():
            name = item.filename.replace(f"edge_agent-{version}", f"edge_agent-9{version}")
            data = source.read(item)
            if name == "edge_agent/cli/run.py":
                data += b"\n\ndef run(args):\n    raise SystemExit(71)\n"
            if name.endswith(".dist-info/METADATA"):
                data = data.replace(f"\nVersion: {version}\n".encode(), f"\nVersion: 9{version}\n".encode())
            if name.endswith(".dist-info/RECORD"):
                data = "\n".join(
                    line.partition(",")[0] + ",,"
                    for line in data.decode().replace(f"edge_agent-{version}", f"edge_agent-9{version}").splitlines()
                ).encode()
            target.writestr(name, data)
    good.unlink()


def main() -> int:
    """Do all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, required=True, help="folder that make_image.sh made")
    parser.add_argument("--wheels", type=Path, required=True, help="folder of wheels")
    parser.add_argument("--deb", type=Path, help="also install this package")
    parser.add_argument("--newer-deb", type=Path, help="and upgrade to this one")
    parser.add_argument("--only-deb", action="store_true", help="leave install.sh out")
    options = parser.parse_args()
    if why := missing():
        print(f"skipped: {why}")
        return 0
    with tempfile.TemporaryDirectory(prefix="edge-agent-machine-") as name:
        folder = Path(name)
        try:
            with booted(options.image, folder) as (machine, network):
                fact(f"booted: {machine.run('systemctl --version | head -1; uname -r')[1].split(chr(10))[:2]}")
                tree(machine)
                machine.copy(options.wheels, "/root/wheels")
                broken_wheels(options.wheels, folder / "broken")
                machine.copy(folder / "broken", "/root/broken-wheels")
                if not options.only_deb:
                    first_job(machine, network)
                    hardened(machine, network)
                    without_code_that_is_written(machine, network)
                    broken_in_every_way(machine, network)
                    upgraded(machine, network)
                    removed(machine, network)
                if options.deb:
                    by_deb(machine, network, options.deb, options.newer_deb)
        except MachineError as error:
            print(f"FAILED: {error}", flush=True)
            for log in sorted(folder.glob("*/*.log")):
                print(f"-- {log.name}\n{log.read_text(errors='replace')[-1500:]}")
            return 1
    fact("all of it holds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
