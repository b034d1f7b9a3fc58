"""A Debian machine with systemd as its first process, in namespaces of its own, and the network that it joins.

The machine is an image's folder under an overlay, so that the image stays as it is; it is booted by systemd-nspawn with
a network namespace that only has a loopback. Broker and coordinator run outside, in the same network namespace: to the
machine they are somebody else's.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
BOOT_SECONDS = 120.0
BROKER_PORT = 1883
HTTP = "127.0.0.1:8420"


class MachineError(Exception):
    """Something on a machine is not as it should be."""


def missing() -> str:
    """Say what keeps machines from being booted here; empty if nothing does."""
    if os.geteuid() != 0:
        return "machines are booted by root"
    tools = [name for name in ("systemd-nspawn", "debootstrap", "ip", "nsenter") if shutil.which(name) is None]
    if tools:
        return f"not installed: {', '.join(tools)}"
    probe = subprocess.run(["unshare", "--mount", "--pid", "--net", "--fork", "true"], capture_output=True, check=False)
    return "" if probe.returncode == 0 else "namespaces cannot be made here"


class Machine:
    """A machine that is booted, asked things, and switched off.

    Args:
        image: the folder of the operating system; it is not changed.
        folder: for the overlay and the logs.
    """

    def __init__(self, image: Path, folder: Path) -> None:
        self._folder = folder
        self.root = folder / "root"
        self.netns = f"ea-machine-{os.getpid()}"
        for name in ("upper", "work", "root"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        options = f"lowerdir={image},upperdir={folder / 'upper'},workdir={folder / 'work'}"
        _do(["mount", "-t", "overlay", "overlay", "-o", options, str(self.root)])
        _do(["ip", "netns", "add", self.netns])
        _do(["ip", "-n", self.netns, "link", "set", "lo", "up"])
        self._nspawn: subprocess.Popen[bytes] | None = None

    def boot(self) -> float:
        """Boot, and return how many seconds it took until systemd was done."""
        began = time.monotonic()
        command = ["systemd-nspawn", "--directory", str(self.root), "--boot", "--register=no", "--keep-unit"]
        command += [f"--network-namespace-path=/run/netns/{self.netns}", "--machine", self.netns, "--console=pipe"]
        # The host may still have control groups of version 1; the machine gets the unified hierarchy.
        environ = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        log = (self._folder / "console.log").open("ab")
        self._nspawn = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.wait_booted()
        return time.monotonic() - began

    def wait_booted(self) -> None:
        """Wait until systemd has started everything."""
        until = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < until:
            time.sleep(0.3)
            if self._leader() is None:
                continue
            state = self.run("systemctl is-system-running", check=False)[1].strip()
            if state in {"running", "degraded"}:
                return
        raise MachineError(f"not booted within {BOOT_SECONDS:g} s; see {self._folder / 'console.log'}")

    def reboot(self) -> float:
        """Reboot as `systemctl reboot` does it, and return how many seconds it took."""
        began = time.monotonic()
        self.run("systemctl reboot", check=False)
        if self._nspawn is not None:
            self._nspawn.wait(BOOT_SECONDS)  # the first process ended all others, and then itself
        self.boot()
        return time.monotonic() - began

    def run(self, command: str, *, check: bool = True, seconds: float = 600.0, stdin: str = "") -> tuple[int, str]:
        """Run a line of bash as root; return its status and what it printed on both streams.

        Raises:
            MachineError: it failed, and `check` is set.
        """
        leader = self._leader()
        if leader is None:
            raise MachineError("the machine is off")
        enter = ["nsenter", "--target", str(leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd"]
        environ = [
            "env",
            "-i",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME=/root",
            "LANG=C.UTF-8",
        ]
        done = subprocess.run(
            [*enter, *environ, "bash", "-c", command],
            input=stdin.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )
        text = done.stdout.decode(errors="replace")
        if check and done.returncode != 0:
            raise MachineError(f"status {done.returncode} of: {command}\n{text[-4000:]}")
        return done.returncode, text

    def copy(self, source: Path, target: str) -> None:
        """Put a file or folder into the machine."""
        place = self.root / target.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, place, dirs_exist_ok=True, symlinks=True)
        else:
            shutil.copy2(source, place)

    def off(self) -> None:
        """Switch it off and leave nothing behind but its logs."""
        if self._nspawn is not None and self._nspawn.poll() is None:
            self._nspawn.terminate()
            try:
                self._nspawn.wait(30)
            except subprocess.TimeoutExpired:
                self._nspawn.kill()
                self._nspawn.wait()
        subprocess.run(["umount", "--lazy", str(self.root)], check=False)
        subprocess.run(["ip", "netns", "delete", self.netns], check=False)

    def _leader(self) -> int | None:
        if self._nspawn is None or self._nspawn.poll() is not None:
            return None
        for task in Path(f"/proc/{self._nspawn.pid}/task").glob("*/children"):
            try:
                for child in task.read_text().split():
                    if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                        return int(child)
            except OSError:
                continue
        return None


class Network:
    """A broker and a coordinator of somebody else, in the network namespace of a machine, or on the loopback here.

    Args:
        netns: the namespace's name; None for the loopback here, and ports that are free.
        folder: for their state and logs.
    """

    def __init__(self, netns: str | None, folder: Path) -> None:
        self._netns = netns
        self.broker_port = BROKER_PORT if netns else _free_port()
        self.http = HTTP if netns else f"127.0.0.1:{_free_port()}"
        self.folder = folder
        self.state = folder / "coordinator"
        folder.mkdir(parents=True, exist_ok=True)
        self.verified = ""
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start both, and wait until they work."""
        self._start("broker", ["broker", "--listen", f"127.0.0.1:{self.broker_port}"])
        ready = self.folder / "ready.json"
        command = ["coordinator", "--broker", f"mqtt://127.0.0.1:{self.broker_port}", "--http", self.http]
        self._start("coordinator", [*command, "--state", str(self.state), "--ready-file", str(ready)])
        until = time.monotonic() + 180
        while not ready.exists():
            if time.monotonic() > until or any(process.poll() is not None for process in self._processes):
                raise MachineError(f"the network does not come up; see {self.folder}")
            time.sleep(0.1)

    @property
    def public_key(self) -> Path:
        """The file of the coordinator's public key."""
        return self.state / "coordinator.pub"

    def edge_agent(self, *arguments: str, seconds: float = 120.0) -> tuple[int, str]:
        """Run one of our commands from the network's side; return status and output."""
        done = subprocess.run(
            [*self._enter(), *arguments],
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )
        return done.returncode, done.stdout.decode(errors="replace")

    def token(self) -> str:
        """Have an enrolment token made, as the operator does."""
        status, text = self.edge_agent("coordinator", "token", "--state", str(self.state))
        found = [word for word in text.split() if word.startswith("ea1-")]
        if status != 0 or not found:
            raise MachineError(f"no token: {text}")
        return found[0]

    def job(self, seconds: float = 150.0) -> dict[str, Any]:
        """Send a scan of a digit until it is answered, verify the receipt offline, and return the response.

        Raises:
            MachineError: there was none in time, or it does not verify.
        """
        scan, receipt, output = REPOSITORY / "examples" / "scan.json", self.folder / "receipt", self.folder / "answer"
        until = time.monotonic() + seconds
        while True:
            files = ["--input", str(scan), "--receipt", str(receipt), "--output", str(output)]
            status, text = self.edge_agent(
                "submit", "digits", *files, "--deadline", "20", "--coordinator", f"http://{self.http}"
            )
            if status == 0:
                break
            if time.monotonic() > until:
                raise MachineError(f"no job within {seconds:g} s: {text}")
            time.sleep(0.3)
        files = ["--coordinator-key", str(self.public_key), "--input", str(scan), "--output", str(output)]
        status, text = self.edge_agent("verify", str(receipt), *files)
        if status != 0:
            raise MachineError(f"the receipt does not verify: {text}")
        self.verified = text
        found: dict[str, Any] = json.loads(output.read_text())
        return found

    def stop(self) -> None:
        """End both."""
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            process.wait(30)
        self._processes.clear()

    def _enter(self) -> list[str]:
        inside = ["ip", "netns", "exec", self._netns] if self._netns else []
        return [*inside, sys.executable, "-m", "edge_agent"]

    def _start(self, name: str, arguments: Sequence[str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [*self._enter(), *arguments]
            process = subprocess.Popen(command, env=_environment(), stdout=log, stderr=log)
        self._processes.append(process)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "ORT_DISABLE_TELEMETRY": "1"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _do(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MachineError(f"{shlex.join(command)}: {done.stderr.strip()}")


@contextmanager
def booted(image: Path, folder: Path) -> Iterator[tuple[Machine, Network]]:
    """Give a booted machine and a network that works, and end both."""
    machine = Machine(image, folder / "machine")
    network = Network(machine.netns, folder / "network")
    try:
        network.start()
        machine.boot()
        yield machine, network
    finally:
        network.stop()
        machine.off()
