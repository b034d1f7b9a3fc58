"""The brokers that users have, each as a process of its own that a test starts, kills, and lets forget."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO, ClassVar

import needs
import tied

START_SECONDS = 240.0
"""RabbitMQ takes 15 s on a quiet machine."""
START_ATTEMPTS = 5


class BrokerError(RuntimeError):
    """A broker did not come up; the message is what it said."""


class BrokerProcess(ABC):
    """One broker with its files in a folder of its own, on one port of 127.0.0.1 through all its lives.

    Args:
        folder: empty, or as an earlier process left it.

    Attributes:
        name: of the program.
        protocols: versions of MQTT that it speaks, the newest first.
        persistent: whether retained messages can survive its restart.
        retained_by_wildcard: whether a wildcard subscription gets retained messages.
        ready: what it says when clients can connect.
    """

    name: ClassVar[str]
    protocols: ClassVar[tuple[str, ...]] = ("3.1.1",)
    persistent: ClassVar[bool] = True
    retained_by_wildcard: ClassVar[bool] = True
    ready: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.log = ""
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"mqtt://127.0.0.1:{self.port}"

    @abstractmethod
    def command(self) -> list[str]:
        """Write what it needs into its folder; return how it is started."""

    def environment(self) -> dict[str, str]:
        """Return the variables that it is started with."""
        return dict(os.environ)

    def start(self) -> None:
        """Start it, and wait until clients can connect."""
        for attempt in range(START_ATTEMPTS):
            try:
                self._start()
            except BrokerError:
                # Somebody else may have been given a port in between: take others, unless clients know ours already.
                if attempt == START_ATTEMPTS - 1:
                    raise
                if not self.log.count(self.ready):
                    self.port = free_port()
                continue
            return

    def _start(self) -> None:
        process = tied.start(
            self.command(),
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._process = process
        assert process.stdout is not None
        is_ready = threading.Event()
        threading.Thread(target=self._read, args=(process.stdout, is_ready), daemon=True).start()
        end = time.monotonic() + START_SECONDS
        while not is_ready.wait(0.05):
            if process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise BrokerError(self.log)
        # Some say so a moment before they listen.
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            if time.monotonic() > end:
                raise BrokerError(self.log)

    def _read(self, stream: IO[str], is_ready: threading.Event) -> None:
        with stream, contextlib.suppress(ValueError):
            for line in stream:
                self.log += line
                if self.ready in line:
                    is_ready.set()

    def stop(self) -> None:
        """End it as its init system does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a loss of power does."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def forget(self) -> None:
        """Remove all that it kept; to be called between two lives."""
        shutil.rmtree(self.folder / "state", ignore_errors=True)

    def close(self) -> None:
        """End it for good."""
        self.kill()

    def state(self) -> Path:
        """Return the folder for what it keeps, made when it is not there."""
        folder = self.folder / "state"
        folder.mkdir(exist_ok=True)
        return folder


class Mosquitto(BrokerProcess):
    """Eclipse Mosquitto, as Debian has it."""

    name = "mosquitto"
    protocols = ("5", "3.1.1")
    ready = " running"

    def command(self) -> list[str]:
        """Write a configuration with persistence, and a user of its own so that it need not change to one."""
        config = self.folder / "mosquitto.conf"
        lines = [
            f"user {pwd.getpwuid(os.getuid()).pw_name}",
            "log_dest stderr",
            "allow_anonymous true",
            "persistence true",
            "autosave_on_changes true",
            "autosave_interval 1",
            f"persistence_location {self.state()}/",
            f"listener {self.port} 127.0.0.1",
        ]
        config.write_text("\n".join([*lines, ""]))
        return [needs.tool("mosquitto"), "-c", str(config)]


class Nats(BrokerProcess):
    """The NATS server with JetStream and its MQTT listener."""

    name = "nats-server"
    ready = "Server is ready"

    def command(self) -> list[str]:
        """Write a configuration; NATS' own port is any free one."""
        config = self.folder / "nats.conf"
        config.write_text(
            "server_name: test\nhost: 127.0.0.1\nport: -1\nauthorization { timeout: 60 }\n"
            f'jetstream {{ store_dir: "{self.state()}" }}\n'
            f"mqtt {{ host: 127.0.0.1, port: {self.port}, ack_wait: 10s, max_ack_pending: 1000 }}\n"
        )
        return [needs.tool("nats-server"), "-c", str(config)]


class RabbitMq(BrokerProcess):
    """RabbitMQ with its MQTT plugin, as a node that knows no other and whose port mapper is its own."""

    name = "rabbitmq"
    retained_by_wildcard = False
    ready = "Server startup complete"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._mapper: subprocess.Popen[bytes] | None = None
        self._mapper_port = free_port()
        self._node_port = free_port()

    def command(self) -> list[str]:
        """Write a configuration and start the port mapper."""
        # The program in the path changes to another user when root calls it; this one does not.
        program = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
        if not program.exists():
            needs.absent("the program rabbitmq-server is not installed")
        lines = [
            "listeners.tcp = none",
            f"mqtt.listeners.tcp.1 = 127.0.0.1:{self.port}",
            "mqtt.allow_anonymous = true",
            "mqtt.default_user = guest",
            "mqtt.default_pass = guest",
            "log.file = false",
            "log.console = true",
            "log.console.level = info",
        ]
        (self.folder / "rabbitmq.conf").write_text("\n".join([*lines, ""]))
        (self.folder / "plugins").write_text("[rabbitmq_mqtt].\n")
        if self._mapper is None or self._mapper.poll() is not None:
            self._mapper_port = free_port()
            self._mapper = tied.start(
                [needs.tool("epmd"), "-port", str(self._mapper_port), "-address", "127.0.0.1"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._node_port = free_port()
        return [str(program)]

    def environment(self) -> dict[str, str]:
        """Return variables that keep it out of the system's folders and away from other nodes."""
        state = self.state()
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))},
            "HOME": str(self.folder),  # for the cookie
            "RUNNING_UNDER_SYSTEMD": "yes",  # the script becomes the node, instead of waiting for it
            "RABBITMQ_NODENAME": f"edge{self._mapper_port}@localhost",
            "RABBITMQ_MNESIA_BASE": str(state),
            "RABBITMQ_MNESIA_DIR": str(state / "node"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_DIST_PORT": str(self._node_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none",
            "ERL_EPMD_PORT": str(self._mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def close(self) -> None:
        """End it and its port mapper for good."""
        super().close()
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper.wait()


class Amqtt(BrokerProcess):
    """The embedded broker, as `edge-agent broker` runs it."""

    name = "amqtt"
    persistent = False
    ready = "action=broker-ready"

    def command(self) -> list[str]:
        """Return our own command."""
        needs.module("amqtt")
        return [sys.executable, "-m", "edge_agent", "broker", "--listen", f"127.0.0.1:{self.port}"]


KINDS: dict[str, type[BrokerProcess]] = {kind.name: kind for kind in (Mosquitto, Nats, RabbitMq, Amqtt)}


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
