"""A network of real processes that can be broken: Mosquitto, the coordinator, agents with their workers."""

from __future__ import annotations

import http.client
import json
import os
import pwd
import random
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

from edge_agent.coordinator.store import Store
from edge_agent.folders import make_private
from edge_agent.wire.keys import SigningKey
from harness.clocks import Clock, conditions
from harness.disks import FragileDisk, SmallDisk
from harness.launch import enter_netns
from harness.memory import MemoryGroup
from harness.namespaces import Namespaces
from harness.processes import Keeper, Service, children_of, wait_until
from harness.proxy import Proxies

READY_SECONDS = 90.0
GET_SECONDS = 20.0
"""For an answer of the coordinator: slow, on a machine that is busy with other work, is not wrong."""
BROKER = "broker"
COORDINATOR = "coordinator"
WORKER = "edge_agent.inference.worker"
MQTT_PORT = 1883

SETTINGS = {
    # Short times, so that a run of minutes holds many faults; what is promised does not depend on them.
    "EDGE_AGENT_BROKER_KEEPALIVE_SECONDS": "4",
    "EDGE_AGENT_COORDINATOR_LEASE_SECONDS": "6",
    "EDGE_AGENT_COORDINATOR_JOB_DEADLINE_SECONDS": "60",
    "EDGE_AGENT_AGENT_THREADS": "1",
    # The oracle reads what becomes of each attempt in the agents' own logs.
    "EDGE_AGENT_LOG_LEVEL": "debug",
    "EDGE_AGENT_LOG_FORMAT": "json",
}


class Cluster:
    """Starts everything on entry and leaves nothing behind.

    Args:
        folder: gets the state directories, the logs and the timeline.
        agents: how many.
        parts: what can be broken: of `namespaces`, `proxies`, `small-disks`, `fragile-disks`, `memory`, `clocks`.
        seed: of what is drawn on the way.
        settings: more variables for coordinator and agents.

    Attributes:
        agents: the names of the agents.
        agent_ids: their ids by name.
        base_url: of the coordinator, to be used on threads that have called `enter`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        agents: int,
        parts: frozenset[str] = frozenset(),
        seed: int = 0,
        settings: dict[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.parts = parts
        self.agents = tuple(f"agent-{number}" for number in range(1, agents + 1))
        self.agent_ids: dict[str, str] = {}
        self.base_url = ""
        self.namespaces: Namespaces | None = None
        self.proxies: Proxies | None = None
        self.small_disks: dict[str, SmallDisk] = {}
        self.fragile_disks: dict[str, FragileDisk] = {}
        self.groups: dict[str, MemoryGroup] = {}
        self.clocks: dict[str, Clock] = {}
        self.keeper = Keeper()
        self.broker_address = ("127.0.0.1", 0)
        self._seed = seed
        self._settings = {**SETTINGS, **(settings or {})}
        self._stack = ExitStack()
        self._decks: dict[str, list[str]] = {}
        self._decks_lock = threading.Lock()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # -- composition ------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        for name in ("logs", BROKER, COORDINATOR, *self.agents):
            make_private(self.folder / name)
        if "namespaces" in self.parts:
            self.namespaces = self._stack.enter_context(Namespaces((BROKER, COORDINATOR, *self.agents)))
        self._make_breakable()
        self._make_identities()
        self._stack.enter_context(self.keeper)
        self._calls = self._stack.enter_context(ThreadPoolExecutor(1, "calls", initializer=self.enter))
        self._start_broker()
        if "proxies" in self.parts:
            self._start_proxies()
        self._start_coordinator()
        for name in self.agents:
            self._start_agent(name)
        self._await(self._all_offer, "offer of every agent")
        for disk in self.fragile_disks.values():  # keys and approvals are older than any fault
            disk.synchronise()

    def _make_breakable(self) -> None:
        places = [COORDINATOR, *self.agents[:2]]
        both = {"small-disks", "fragile-disks"} <= self.parts
        for number, name in enumerate(places):
            folder = self.folder / name
            if "small-disks" in self.parts and not (both and number % 2):
                self.small_disks[name] = self._stack.enter_context(SmallDisk(folder))
            elif "fragile-disks" in self.parts:
                image = self.folder / f"{name}.img"
                self.fragile_disks[name] = self._stack.enter_context(FragileDisk(folder, image))
        for name in self.agents if "memory" in self.parts else ():
            self.groups[name] = self._stack.enter_context(MemoryGroup(name))
        first = conditions(self.folder) if "clocks" in self.parts else None
        for name in (COORDINATOR, *self.agents) if "clocks" in self.parts else ():
            self.clocks[name] = Clock(self.folder / f"{name}.clock", first)

    def _make_identities(self) -> None:
        keys = {name: SigningKey.generate() for name in (COORDINATOR, *self.agents)}
        for name, key in keys.items():
            kind = COORDINATOR if name == COORDINATOR else "agent"
            key.write(self.folder / name / f"{kind}.key")
            key.public.write(self.folder / name / f"{kind}.pub")
        # Outside the state directory, which a fault may take away.
        shutil.copy(self.folder / COORDINATOR / "coordinator.pub", self.folder / "coordinator.pub")
        self.agent_ids = {name: keys[name].public.id for name in self.agents}
        store = Store(self.database)
        for agent_id in self.agent_ids.values():
            store.approve(agent_id)
        store.close()

    def _start_broker(self) -> None:
        if self.namespaces is not None:
            self.broker_address = (self.namespaces.address(BROKER), MQTT_PORT)
        else:
            self.broker_address = ("127.0.0.1", free_port(random.Random(f"{self._seed}/{os.getpid()}/mqtt")))
        folder = self.folder / BROKER
        config = self.folder / "mosquitto.conf"
        config.write_text(
            f"user {pwd.getpwuid(os.getuid()).pw_name}\n"
            "log_dest stderr\n"
            f"listener {self.broker_address[1]} {self.broker_address[0]}\n"
            "allow_anonymous true\n"
            "persistence true\n"
            f"persistence_location {folder}/\n"
        )
        program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        assert program is not None, "mosquitto is not installed"
        self._add(BROKER, [program, "-c", str(config)])
        self._await(self._broker_listens, "broker")

    def _start_proxies(self) -> None:
        host, enter = "127.0.0.1", _nothing
        if self.namespaces is not None:
            host, hub = self.namespaces.address("hub"), self.namespaces.file("hub")
            enter = lambda: enter_netns(hub)  # noqa: E731 a closure over one name
        names = (COORDINATOR, *self.agents)
        relays = Proxies(self.broker_address, names, host=host, seed=self._seed, enter=enter)
        self.proxies = self._stack.enter_context(relays)

    def _broker_of(self, name: str) -> str:
        host, port = self.broker_address
        if self.proxies is not None:
            host, port = self.proxies.host, self.proxies.relays[name].port
        return f"mqtt://{host}:{port}"

    def _start_coordinator(self) -> None:
        port = free_port(random.Random(f"{self._seed}/{os.getpid()}/http"))
        self.base_url = f"http://127.0.0.1:{port}"
        command = ["coordinator", "--broker", self._broker_of(COORDINATOR), "--http", f"127.0.0.1:{port}"]
        self._add(COORDINATOR, [*_PYTHON, *command, "--state", str(self.folder / COORDINATOR)])
        self._await(lambda: self.get("/v2/health/ready") is not None, "coordinator")

    def _start_agent(self, name: str) -> None:
        command = ["run", "--broker", self._broker_of(name), "--state", str(self.folder / name)]
        self._add(name, [*_PYTHON, *command, "--coordinator-key", str(self.folder / "coordinator.pub")])

    def _add(self, name: str, command: list[str]) -> None:
        service = Service(name, command, self.folder / "logs" / f"{name}.log")
        if name != BROKER:
            service.environment = dict(self._settings)
        if name in self.clocks:
            service.environment |= self.clocks[name].environment()
        if name in self.groups:
            service.cgroups = (self.groups[name].procs,)
        if self.namespaces is not None:
            service.netns = self.namespaces.file(name)
        self.keeper.add(service)

    def draw(self, rng: random.Random, deck: str, options: Iterable[str]) -> str:
        """Draw a kind or a victim as from a deck of cards: each once, in random order, before any comes again."""
        with self._decks_lock:
            left = self._decks.setdefault(deck, [])
            if not left:
                left.extend(sorted(options))
                rng.shuffle(left)
            return left.pop()

    # -- while it runs ------------------------------------------------------------------------------------------------

    @property
    def database(self) -> Path:
        """The coordinator's."""
        return self.folder / COORDINATOR / "coordinator.db"

    def log_of(self, name: str) -> Path:
        """Return a process's log, of all its lives."""
        return self.folder / "logs" / f"{name}.log"

    def enter(self) -> None:
        """Move the calling thread to where the coordinator's HTTP address means something."""
        if self.namespaces is not None:
            enter_netns(self.namespaces.file(COORDINATOR))

    def get(self, path: str) -> Any:  # noqa: ANN401 whatever JSON there is
        """Ask the coordinator once; None when there is no good answer."""
        return self._calls.submit(self._get, path).result()

    def _get(self, path: str) -> Any:  # noqa: ANN401 as above
        host, _, port = self.base_url.removeprefix("http://").partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=GET_SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return json.loads(response.read()) if response.status == 200 else None
        except (OSError, ValueError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def pid(self, name: str) -> int | None:
        """Return the process id of a service, or of an agent's worker as `NAME/worker`."""
        service, _, part = name.partition("/")
        pid = self.keeper.services[service].pid
        if pid is None or not part:
            return pid
        for child in children_of(pid):
            with suppress(OSError):
                if WORKER.encode() in Path(f"/proc/{child}/cmdline").read_bytes():
                    return child
        return None

    def offering(self) -> set[str]:
        """Return the names of the agents that offer something now."""
        listed = self.get("/api/v1/agents") or []
        offering = {agent["agent_id"] for agent in listed if agent["offers"] and agent["presence"] == "online"}
        return {name for name, agent_id in self.agent_ids.items() if agent_id in offering}

    def _all_offer(self) -> bool:
        return self.offering() == set(self.agents)

    def wait_whole(self, seconds: float) -> bool:
        """Wait until every agent offers something."""
        return wait_until(self._all_offer, seconds, 0.1)

    def broker_listens(self) -> bool:
        """Whether the broker takes connections now."""
        return bool(self._calls.submit(self._broker_listens).result())

    def _broker_listens(self) -> bool:
        with suppress(OSError), socket.create_connection(self.broker_address, timeout=1):
            return True
        return False

    def stop(self) -> dict[str, int | None]:
        """Stop everything cleanly, agents first; return the exit statuses."""
        return self.keeper.stop([*self.agents, COORDINATOR, BROKER])

    def leftovers(self) -> list[int]:
        """Return the workers whose agents are gone."""
        agents = {str(pid) for name in self.agents for pid in self.keeper.services[name].pids}
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                words = path.read_bytes().decode(errors="replace").split("\0")
                if WORKER in words and words[words.index("--parent") + 1] in agents:
                    found.append(int(path.parent.name))
        return found

    def _await(self, done: Callable[[], bool], what: str) -> None:
        if not wait_until(done, READY_SECONDS, 0.05):
            tails = "\n".join(
                f"-- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-5:])
                for path in sorted((self.folder / "logs").glob("*.log"))
            )
            raise RuntimeError(f"no {what} within {READY_SECONDS:g} s; the ends of the logs:\n{tails}")


_PYTHON = (sys.executable, "-m", "edge_agent")


def _nothing() -> None:
    pass


def free_port(rng: random.Random) -> int:
    """Return a port that nobody listens on, below those that the kernel gives to clients: it may be used again."""
    while True:
        port = rng.randrange(20_000, 32_000)
        with suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


def in_thread(target: Callable[[], None], name: str) -> threading.Thread:
    """Start a thread that does not keep the process alive."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread
