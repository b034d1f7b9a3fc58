"""A real agent process on a real broker, and a coordinator that the test plays by hand."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import psutil
import tied
from brokers import Client, options
from fakes import COORDINATOR_KEY, NETWORK, TOPICS, FakeCoordinator, ManualClock
from networks import clean_environment

from edge_agent.agent.events import MessageReceived
from edge_agent.mqtt import Connected, Message
from edge_agent.wire.envelope import Opened, messages_in, open_envelope
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.messages import Birth, Failure, Gone, Offers, Progress, Result, Statement

PATIENCE_SECONDS = 60.0
KINDS = (Birth, Gone, Offers, Progress, Result, Failure)

S = TypeVar("S", bound=Statement)


class Agent:
    """An `edge-agent run` in a state directory of its own, started and ended by the test.

    Args:
        folder: the state directory is made in it.
        port: of the broker on 127.0.0.1.
        settings: `EDGE_AGENT_*` variables without their prefix.
    """

    def __init__(self, folder: Path, port: int, **settings: str) -> None:
        self.state = folder / "agent"
        self.state.mkdir(mode=0o700, exist_ok=True)
        self._log = folder / "agent.log"
        self._port = port
        self._settings = settings
        pinned = self.state / "coordinator.pub"
        if not pinned.exists():
            COORDINATOR_KEY.public.write(pinned)
            SigningKey.generate().write(self.state / "agent.key")
        self.key = SigningKey.from_file(self.state / "agent.key").public
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, url: str | None = None, *, inside: Sequence[str] = ()) -> None:
        """Start it, with another address of the broker, or inside another program."""
        command = [*inside, sys.executable, "-m", "edge_agent", "run", "--network", NETWORK, "--state", str(self.state)]
        command += ["--broker", url or f"mqtt://127.0.0.1:{self._port}", "--threads", "1"]
        variables = {f"EDGE_AGENT_{name}": value for name, value in self._settings.items()}
        with self._log.open("ab") as log:
            self.process = tied.start(command, stdout=log, stderr=log, env={**clean_environment(), **variables})

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for its end; return the status."""
        assert self.process is not None
        return self.process.wait(seconds)

    def end(self) -> None:
        """Make sure that it is gone, and its worker with it."""
        if self.process is not None and self.process.poll() is None:
            family = [self.process, *psutil.Process(self.process.pid).children(recursive=True)]
            for process in family:
                process.kill()
            self.process.wait()

    @property
    def log(self) -> str:
        """What it logged, in all its lives."""
        return self._log.read_text(errors="replace")

    def wait_for_log(self, text: str, count: int = 1) -> None:
        """Wait until it has logged something so many times."""
        self.wait_until(lambda: self.log.count(text) >= count)

    def wait_until(self, true: Callable[[], bool]) -> None:
        """Poll what another process writes until it is so; the deadline decides."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not true():
            assert time.monotonic() < end, self.log
            time.sleep(0.02)

    @property
    def status(self) -> dict[str, Any]:
        """What it wrote about itself."""
        found: dict[str, Any] = json.loads((self.state / "status.json").read_bytes())
        return found


class Coordinator:
    """The other side: says what the test wants, hears everything.

    Args:
        agent: whom it speaks to.
        port: of the broker.
    """

    def __init__(self, agent: Agent, port: int) -> None:
        self._agent = agent
        self._fake = FakeCoordinator(agent.key, ManualClock())
        topics = [TOPICS.all_agents(channel) for channel in ("birth", "gone", "offers", "progress", "results")]
        self._client = Client(options(port, "coordinator"), topics)
        self._session = 100
        self._variant = b""
        self._heard: list[bytes] = []

    def __enter__(self) -> Self:
        self._client.__enter__()
        self._client.expect(Connected)
        self.hello()
        return self

    def __exit__(self, *details: object) -> None:
        self._client.__exit__(*details)

    def say(self, message: MessageReceived, *, retain: bool = False) -> None:
        """Publish something that the fake coordinator made."""
        self._client.link.publish(message.topic, message.payload, retain=retain)

    def hello(self) -> None:
        """Announce another session."""
        self._session += 1
        self.say(self._fake.hello(self._session), retain=True)

    def job(self, number: int, birth: Birth, epoch: int = 1, **changes: Any) -> None:  # noqa: ANN401 any field
        """Lease an attempt to the session of a birth."""
        self.say(self._fake.job(number, epoch=epoch, session=birth.session, variant=self._variant, **changes))

    def settled(self, number: int, epoch: int = 1) -> None:
        """Settle an answer."""
        self.say(self._fake.settled(number, epoch=epoch))

    def hear(self, kind: type[S], fits: Callable[[S], bool] = lambda _: True) -> Opened[S]:
        """Return the next statement of this kind that fits; what comes before it is passed over."""
        while True:
            while not self._heard:
                self._heard += messages_in(self._client.skip_to(Message).payload)
            said = self._heard.pop(0)
            if not said:
                continue
            opened = open_envelope(said, self._agent.key, KINDS, network=NETWORK, max_bytes=1 << 24)
            if isinstance(opened.statement, kind) and fits(opened.statement):
                return opened  # type: ignore[return-value] # narrowed by the line above

    def wait_for_offers(self) -> Birth:
        """Wait until the agent has answered our hello and offers something; return its birth."""
        birth = self.hear(Birth, lambda b: b.state == "online" and b.coordinator_session == self._session).statement
        offers = self.hear(Offers, lambda offers: offers.session == birth.session and len(offers.offers) > 0)
        self._variant = offers.statement.offers[0].variant
        return birth

    def wait_for_offers_again(self) -> Birth:
        """Greet the agent once more, and take what it offers now."""
        self.hello()
        return self.wait_for_offers()


@contextmanager
def running_agent(folder: Path, port: int, **settings: str) -> Iterator[Agent]:
    """Start an agent and make sure that it ends with the test."""
    agent = Agent(folder, port, **settings)
    agent.start()
    try:
        yield agent
    finally:
        agent.end()
