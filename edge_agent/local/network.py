"""A whole network on this machine: broker, coordinator and agent, each a process of its own, as in production."""

from __future__ import annotations

import http.client
import json
import logging
import os
import queue
import random
import secrets
import ssl
import urllib.parse
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from edge_agent.agent.status import read_status
from edge_agent.clock import system_now
from edge_agent.connection import link_options
from edge_agent.coordinator.access import KeyRecord, Scope, digest_of
from edge_agent.coordinator.identities import admit
from edge_agent.coordinator.key_table import add_key, new_token, read_keys
from edge_agent.coordinator.store import Store
from edge_agent.errors import TransportError
from edge_agent.folders import make_private, take
from edge_agent.local.processes import Child, Supervisor
from edge_agent.mqtt import Connected, ConnectFailed, Link, LinkEvent
from edge_agent.settings import load
from edge_agent.wire.keys import SigningKey

READY_SECONDS = 60.0
BROKER_CHECK_SECONDS = 15.0
STOP_ORDER = ("agent", "coordinator", "broker")


@dataclass(frozen=True, slots=True)
class Options:
    """What `edge-agent up` and `edge-agent demo` can be told.

    Attributes:
        state_dir: everything is kept below it.
        http: HOST:PORT of the coordinator; port 0 takes a free one.
        mqtt: HOST:PORT of the embedded broker; port 0 takes a free one.
        broker_url: use this broker instead of the embedded one.
        catalogue: address and root file of a published catalogue.
        grpc: HOST:PORT of gRPC; None leaves it to the settings, where it is off unless somebody wants it.
    """

    state_dir: Path
    http: str = "127.0.0.1:0"
    mqtt: str = "127.0.0.1:0"
    broker_url: str | None = None
    log_level: str = "info"
    catalogue: tuple[str, Path] | None = None
    grpc: str | None = None


class LocalNetwork:
    """Starts the three processes, keeps them running, and ends them.

    Args:
        options: addresses and the state directory.
        on_step: told what is being done, for people.
        on_change: called when a process was started again or the worker changed.
    """

    def __init__(
        self,
        options: Options,
        on_step: Callable[[str], None] = lambda _: None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.state_dir = options.state_dir.absolute()
        self.http = ""
        self.mqtt = options.broker_url or ""
        self.grpc: str | None = None
        self.agent_id = ""
        self.coordinator_key = self.state_dir / "coordinator" / "coordinator.pub"
        self.api_key_file = self.state_dir / "api.key"
        self._api_key = ""
        self._options = options
        self._on_step = on_step
        self._on_change = on_change
        self._supervisor = Supervisor(on_restart=lambda _: on_change())
        self._lock: IO[str] | None = None
        self._broker: Child | None = None
        self._coordinator: Child | None = None
        self._agent: Child | None = None
        self._seen: dict[str, Any] = {}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    # -- life -----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._lock = take(self.state_dir)
        for name in ("broker", "coordinator", "agent", "logs"):
            make_private(self.state_dir / name)
        self._on_step("making keys and admitting the agent")
        self._make_identities()
        if self._options.broker_url is None:
            self._start_broker()
        else:
            self._on_step(f"looking for the broker {self._options.broker_url}")
            check_broker(self._options.broker_url)
        self._start_coordinator_and_agent()
        self._on_step("waiting for the first offer: the agent measures its variants")
        agent = self._require(self._agent)
        self._supervisor.wait_ready(agent, READY_SECONDS, done=self._offered)
        self._seen = self.pids()

    def _end(self) -> None:
        self._supervisor.stop(STOP_ORDER)
        if self._lock is not None:
            self._lock.close()

    def _make_identities(self) -> None:
        """Make both keys and enrol the agent beforehand: on one machine nobody needs to approve it by hand."""
        for name in ("coordinator", "agent"):
            path = self.state_dir / name / f"{name}.key"
            if not path.exists():
                key = SigningKey.generate()
                key.write(path)
                path.with_suffix(".pub").unlink(missing_ok=True)
                key.public.write(path.with_suffix(".pub"))
        agent = SigningKey.from_file(self.state_dir / "agent" / "agent.key")
        self.agent_id = agent.public.id
        with take(self.state_dir / "coordinator"):  # a coordinator that was left behind must be gone
            store = Store(self.state_dir / "coordinator" / "coordinator.db", upgrade=True)
            store.write(
                lambda connection: admit(
                    connection, agent.public.id, owner=None, public_key=agent.public.raw, sealing_key=None
                )
            )
            self._api_key = operator_key(store, self.api_key_file)
            store.close()

    def _start_broker(self) -> None:
        self._on_step("starting the broker")
        self._broker = self._add("broker", ["broker", "--listen", self._options.mqtt])
        self.mqtt = self._supervisor.wait_ready(self._broker, READY_SECONDS)["mqtt"]
        _pin(self._broker, "--listen", self.mqtt.removeprefix("mqtt://"))

    def _start_coordinator_and_agent(self) -> None:
        self._on_step("starting the coordinator and the agent")
        state = self.state_dir
        http, mqtt = self._options.http, self.mqtt
        coordinator = ["coordinator", "--broker", mqtt, "--http", http, "--state", str(state / "coordinator")]
        if self._options.grpc is not None:
            coordinator += ["--grpc", self._options.grpc]
        agent = ["run", "--broker", mqtt, "--state", str(state / "agent")]
        agent += ["--coordinator-key", str(self.coordinator_key)]
        if self._options.catalogue is not None:
            url, root = self._options.catalogue
            for arguments in (coordinator, agent):
                arguments += ["--catalogue", url, "--catalogue-root", str(root)]
        self._coordinator = self._add("coordinator", coordinator)
        (state / "agent" / "status.json").unlink(missing_ok=True)
        self._agent = self._add("agent", agent)
        about = self._supervisor.wait_ready(self._coordinator, READY_SECONDS)
        self.http, self.grpc = about["http"], about.get("grpc")
        _pin(self._coordinator, "--http", urllib.parse.urlsplit(self.http).netloc)
        if self.grpc is not None:
            _pin(self._coordinator, "--grpc", self.grpc)

    def _add(self, name: str, arguments: list[str]) -> Child:
        ready = self.state_dir / name / "ready.json"
        more = ["--ready-file", str(ready), "--log-level", self._options.log_level]
        child = Child(name, [*arguments, *more], ready, self.state_dir / "logs" / f"{name}.log")
        self._supervisor.add(child)
        return child

    @staticmethod
    def _require(child: Child | None) -> Child:
        if child is None:
            raise AssertionError("started before")
        return child

    def _offered(self) -> bool:
        """Whether the coordinator knows of an offer of our agent."""
        try:
            connection = self._connection()
        except OSError:  # the certificate is being renewed
            return False
        try:
            connection.request("GET", "/api/v1/agents", headers={"Authorization": f"Bearer {self._api_key}"})
            answer = connection.getresponse()
            agents = json.loads(answer.read()) if answer.status == HTTPStatus.OK else []
        except (OSError, ValueError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return any(agent["agent_id"] == self.agent_id and agent["offers"] for agent in agents)

    def _connection(self) -> http.client.HTTPConnection:
        """Connect to our coordinator.

        Raises:
            OSError: its certificate cannot be read.
        """
        address = urllib.parse.urlsplit(self.http)
        if address.scheme != "https":
            return http.client.HTTPConnection(address.hostname or "", address.port, timeout=5)
        # It is for the name that clients use, maybe not for this address: whoever has its key is ours all the same.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cafile=self.certificate)
        return http.client.HTTPSConnection(address.hostname or "", address.port, timeout=5, context=context)

    @property
    def certificate(self) -> str | None:
        """The file of the coordinator's certificate, where it has one."""
        file = load(None, os.environ, {}).settings.gateway.tls_cert_file
        return None if file is None else str(file)

    # -- while it runs ----------------------------------------------------------------------------------------------

    def look_after(self, timeout_seconds: float) -> None:
        """Wait this long, or until a process ends; start again what ended."""
        self._supervisor.look_after(timeout_seconds)
        pids = self.pids()
        if pids != self._seen:
            self._seen = pids
            self._on_change()

    def pids(self) -> dict[str, int | None]:
        """Return the process ids; None for what does not run (or, for the broker, is not ours)."""
        status = self.status() or {}
        worker = status.get("worker_pid")
        return {
            "broker": self._broker.pid if self._broker else None,
            "coordinator": self._coordinator.pid if self._coordinator else None,
            "agent": self._agent.pid if self._agent else None,
            "worker": worker if isinstance(worker, int) and _alive(worker) else None,
        }

    def status(self) -> dict[str, Any] | None:
        """Return what the agent says about itself."""
        return read_status(self.state_dir / "agent")

    def description(self) -> dict[str, Any]:
        """Return what a script needs to use this network."""
        return {
            "http": self.http,
            "mqtt": self.mqtt,
            "grpc": self.grpc,
            "agent_id": self.agent_id,
            "coordinator_key": str(self.coordinator_key),
            "api_key_file": str(self.api_key_file),
            "pids": self.pids(),
        }


def operator_key(store: Store, file: Path) -> str:
    """Return the operator's API key of a local network, which its file keeps; made where there is none that holds.

    Raises:
        StateError: the file cannot be written.
    """
    now = system_now()
    with suppress(OSError):
        token = file.read_text().strip()
        if any(k.digest == digest_of(token) and k.state(now.wall_ms) == "active" for k in store.read(read_keys)):
            return token
    key_id, token, digest = new_token()
    most = 10_000_000  # a minute: nobody is slowed down at home
    key = KeyRecord(key_id, "local", digest, frozenset({Scope.OPERATOR}), now.wall_ms, most, 10**12)
    store.write(lambda connection: add_key(connection, key))
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(token + "\n")
    return token


def check_broker(url: str) -> None:
    """Connect once with the settings that the processes will use, so that a wrong address is told at once.

    Raises:
        TransportError: the broker cannot be reached or does not let us in; the message says why.
    """
    settings = load(None, os.environ, {"broker.url": url}).settings
    events: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    options = link_options(settings, f"ea1-check-{secrets.token_hex(8)}")
    quiet = logging.getLogger("edge_agent.local.check")
    quiet.setLevel(logging.CRITICAL)
    link = Link(options, [], events.put, will=lambda: None, rng=random.Random(0), log=quiet)  # noqa: S311 one try, no jitter
    link.start()
    try:
        while True:
            event = events.get(timeout=BROKER_CHECK_SECONDS)
            if isinstance(event, Connected):
                return
            if isinstance(event, ConnectFailed):
                raise TransportError(
                    event.reason,
                    code=event.code if event.code in TransportError.codes else None,
                    hint=f"Is {url} the right address? For logins and certificates see [broker] in docs/settings.md.",
                )
    except queue.Empty:
        raise TransportError(f"the broker {url} gives no answer", code="timeout") from None
    finally:
        link.stop(1.0)


def _pin(child: Child, flag: str, address: str) -> None:
    """Have a process that is started again come back where the others look for it."""
    if flag in child.arguments:
        child.arguments[child.arguments.index(flag) + 1] = address
    else:
        child.arguments += [flag, address]


def _alive(pid: int) -> bool:
    with suppress(OSError):
        os.kill(pid, 0)
        return True
    return False
