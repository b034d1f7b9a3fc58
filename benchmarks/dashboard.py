"""What the dashboard costs and how far behind it is, with 200 machines and 100 jobs a second.

A real coordinator and Mosquitto; the machines are simulated in this process: each signs births, offers, statuses and
results with a key of its own. Chromium opens the dashboard: the first paint and the moment when all machines are in the
table are the browser's own times; how far behind an update is, is the time from a machine's message to the change on
the page, both on this machine's clock. CPU is the coordinator's, with the same jobs, in many short phases that take
turns: nobody watches, one browser on the fleet, nobody, one on the jobs, and so on. Each with somebody is compared with
the one before and the one after; and the coordinator counts what its looks take.
`python benchmarks/dashboard.py [--agents N] [--rate N] [--seconds N] [--phases N]`
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Self

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import browsers
import psutil
from brokers import Client, mosquitto, options
from fakes import COORDINATOR_KEY, NETWORK, TOPICS, FakeAgent, ManualClock
from gateways import FakeService
from networks import clean_environment
from playwright.sync_api import Page

from edge_agent.clock import Now, system_now
from edge_agent.coordinator.events import MessageReceived, Publish
from edge_agent.coordinator.gateway.dashboard.feed import LOOK_SECONDS, Feed
from edge_agent.coordinator.registry import Agent, Presence
from edge_agent.coordinator.rows import StoredAgent
from edge_agent.mqtt import Connected, Message
from edge_agent.wire.envelope import messages_in, open_envelope
from edge_agent.wire.messages import Hello, Job

STATUS_SECONDS = 60.0
UPDATES = 20
READY_SECONDS = 60.0
SCAN = Path(__file__).resolve().parent.parent / "examples" / "scan.json"


class WallClock(ManualClock):
    """The clock of the machine."""

    @property
    def now(self) -> Now:
        """Read it."""
        return system_now()


class Machines:
    """Simulated machines behind one connection."""

    def __init__(self, port: int, count: int) -> None:
        self.clock = WallClock()
        self.agents = {agent.id: agent for agent in (FakeAgent(f"machine {n}", self.clock) for n in range(count))}
        topics = [TOPICS.coordinator, TOPICS.all_agents("jobs")]
        self._client = Client(options(port, "machines"), topics)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.answered = 0
        self.hello = threading.Event()

    def __enter__(self) -> Self:
        self._client.__enter__()
        self._client.expect(Connected)
        self._thread.start()
        if not self.hello.wait(READY_SECONDS):
            raise SystemExit("the coordinator said no hello")
        return self

    def __exit__(self, *details: object) -> None:
        self._client.__exit__(*details)

    def say(self, message: MessageReceived) -> None:
        """Publish."""
        self._client.link.publish(message.topic, message.payload)

    def _serve(self) -> None:
        while True:
            event = self._client.next(3600)
            if not isinstance(event, Message):
                continue
            if event.topic == TOPICS.coordinator:
                hello = open_envelope(event.payload, COORDINATOR_KEY.public, Hello, network=NETWORK, max_bytes=1 << 16)
                self._present(hello.statement.session)
                continue
            agent = self.agents.get(event.topic.split("/")[2])
            if agent is not None:
                for message in messages_in(bytes(event.payload)):
                    self.say(agent.result(agent.open(Publish(event.topic, message), Job)))
                    self.answered += 1

    def _present(self, session: int) -> None:
        for number, agent in enumerate(self.agents.values()):
            agent.session += 1
            self.say(agent.birth(answers=session, labels=(f"machine-{number:03}",)))
            self.say(agent.offers())
            self.say(agent.status(celsius=40 + number % 30, cpu_percent=number % 100))
        self.hello.set()

    def statuses(self, stop: threading.Event) -> None:
        """Let each machine say how it fares once a minute."""
        while not stop.is_set():
            for number, agent in enumerate(list(self.agents.values())):
                if stop.wait(STATUS_SECONDS / len(self.agents)):
                    return
                if number:  # the first is the one whose updates are timed
                    self.say(agent.status(celsius=40 + (number + int(time.time())) % 30, cpu_percent=number % 100))


@contextmanager
def coordinator(folder: Path, port: int) -> Iterator[tuple[psutil.Process, str]]:
    """Run a coordinator; give its process and address."""
    state, ready = folder / "coordinator", folder / "ready.json"
    state.mkdir(mode=0o700)
    COORDINATOR_KEY.write(state / "coordinator.key")
    command = [sys.executable, "-m", "edge_agent", "coordinator", "--state", str(state), "--ready-file", str(ready)]
    command += ["--broker", f"mqtt://127.0.0.1:{port}", "--http", "127.0.0.1:0", "--network", NETWORK]
    environment = {**clean_environment(), "EDGE_AGENT_COORDINATOR_ADMIT": "anyone", "EDGE_AGENT_LOG_LEVEL": "error"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        end = time.monotonic() + READY_SECONDS
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit((folder / "log").read_text())
            time.sleep(0.05)
        yield psutil.Process(process.pid), json.loads(ready.read_text())["http"]
    finally:
        process.terminate()
        process.wait(30)


class Load:
    """Clients that submit synchronous jobs at a rate."""

    def __init__(self, base_url: str, rate: float, clients: int = 16) -> None:
        self._address = urllib.parse.urlsplit(base_url).netloc
        self._body = SCAN.read_bytes()
        self._pause = clients / rate
        self._stop = threading.Event()
        self.done = 0
        self._threads = [threading.Thread(target=self._run, args=(n / clients,), daemon=True) for n in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self, offset: float) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=60)
        due = time.monotonic() + offset * self._pause
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due += self._pause
            self.submit(connection)
            self.done += 1

    def submit(self, connection: http.client.HTTPConnection) -> str:
        """Run one job; return its id."""
        connection.request("POST", "/v2/models/digits/infer", self._body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.getheader("Edge-Agent-Job", "")


class Phase(NamedTuple):
    """What a coordinator took in one stretch of time.

    Attributes:
        processor: seconds of processor time a second.
        looking: of that, what it counts itself as spent for dashboards.
        rate: jobs a second.
    """

    processor: float
    looking: float
    rate: float

    @property
    def per_job(self) -> float:
        """Processor seconds a job."""
        return self.processor / self.rate


def phase(process: psutil.Process, url: str, load: Load, seconds: float) -> Phase:
    """Measure one."""
    looking, before, jobs, began = counted(url), process.cpu_times(), load.done, time.monotonic()
    time.sleep(seconds)
    after, took = process.cpu_times(), time.monotonic() - began
    spent = after.user + after.system - before.user - before.system
    return Phase(spent / took, (counted(url) - looking) / took, (load.done - jobs) / took)


def counted(url: str) -> float:
    """Return the seconds that the coordinator counts for dashboards."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("edge_agent_dashboard_cpu_seconds_total"))


def told(name: str, phases: list[Phase], befores: list[Phase], afters: list[Phase], rate: float) -> None:
    """Print what watching costs: of each phase what it takes more than the two around it, a job, times the rate."""
    more = sorted(
        rate * (one.per_job - (before.per_job + after.per_job) / 2)
        for one, before, after in zip(phases, befores, afters, strict=True)
    )
    looking = statistics.median(one.looking for one in phases)
    print(
        f"{name:17} {statistics.median(more):+6.1%} of a core, median of {len(more)} differences from {more[0]:+.1%} "
        f"to {more[-1]:+.1%}; its looks alone, as counted inside: {looking:.1%}; "
        f"at least {min(one.rate for one in phases):.0f} jobs/s"
    )


WATCH = """
([selector, text, count]) => new Promise((found) => {
  const look = () => {
    const elements = document.querySelectorAll(selector);
    if (elements.length < count || !elements[0].textContent.includes(text)) return false;
    found(performance.timeOrigin + performance.now());
    return true;
  };
  if (!look()) { const watch = new MutationObserver(() => look() && watch.disconnect());
    watch.observe(document.body, { subtree: true, childList: true, characterData: true }); }
})
"""


def behind_ms(page: Page, machines: Machines) -> list[float]:
    """Return how long after a machine's status the page has it, milliseconds."""
    agent = next(iter(machines.agents.values()))
    found = []
    for number in range(UPDATES):
        celsius = 70 + number
        time.sleep(1.1 + number % 7 / 10)  # at different moments of the feed's half second; one a second counts
        selector = f"#fleet tr:has(button[data-id='{agent.id}']) td[data-label=Heat]"
        page.evaluate(f"(a) => {{ window.seen = ({WATCH})(a); }}", [selector, f"{celsius} °C", 1])
        sent = time.time() * 1000
        machines.say(agent.status(celsius=celsius))
        found.append(page.evaluate("window.seen") - sent)
    return found


def paints(page: Page, url: str, count: int) -> tuple[float, float]:
    """Open the dashboard; return the first contentful paint and when all machines are in the table, milliseconds."""
    page.goto(f"{url}/dashboard/#fleet", wait_until="commit")
    page.wait_for_load_state()
    at = page.evaluate(WATCH, ["#fleet tbody tr", "", count])
    whole = at - page.evaluate("performance.timeOrigin")
    first = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    return float(first), float(whole)


def look_ms(count: int, looks: int = 100) -> float:
    """Return the CPU time of one look at so many machines that all changed, in this process, milliseconds."""
    service = FakeService()
    clock = ManualClock()
    stored, agents = [], service.operations.registry.agents
    for number in range(count):
        agent = FakeAgent(f"machine {number}", clock)
        offers = {"digits": agent.offer()}
        live = Agent(agent.id, agent.key.public, presence=Presence.ONLINE, offers=offers, labels=frozenset({"a"}))
        agents[agent.id] = live
        stored.append(StoredAgent(agent.id, b"", approved=True, session=1, software="edge-agent/1", seen_ms=5))
    service.operations.stored = stored

    async def script() -> float:
        feed = Feed(service, look_seconds=3600.0)
        stream = feed.stream()
        await anext(stream)
        began = time.process_time()
        for look in range(looks):
            for number, agent in enumerate(agents.values()):
                agent.in_flight = {bytes([n]): 0.0 for n in range((look + number) % 5)}
            await feed.look()
            await anext(stream)
        took = time.process_time() - began
        feed.close()
        return took / looks * 1000

    return asyncio.run(script())


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=200)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each phase")
    parser.add_argument("--phases", type=int, default=5, help="of each kind")
    args = parser.parse_args()
    each = look_ms(args.agents)
    print(f"one look          {each:.1f} ms, if all machines changed: {each / 10 / LOOK_SECONDS:.1f} % of a core")
    stop = threading.Event()
    with (
        tempfile.TemporaryDirectory() as name,
        mosquitto(Path(name), "allow_anonymous true", "set_tcp_nodelay true") as port,
        coordinator(Path(name), port) as (process, url),
        Machines(port, args.agents) as machines,
        browsers.browser(Path(name)) as chromium,
        Load(url, args.rate) as load,
    ):
        threading.Thread(target=machines.statuses, args=(stop,), daemon=True).start()
        time.sleep(5)
        alone, watched = [phase(process, url, load, args.seconds)], {"#fleet": [], "#jobs": []}
        late: list[float] = []
        for _ in range(args.phases):
            for place, found in watched.items():
                with browsers.page(chromium) as page:
                    if not late:
                        first, whole = paints(page, url, args.agents)
                        late = sorted(behind_ms(page, machines))
                    page.goto(f"{url}/dashboard/{place}")
                    page.wait_for_selector(f"{place} tbody tr")
                    found.append(phase(process, url, load, args.seconds))
                alone.append(phase(process, url, load, args.seconds))
        megabytes = process.memory_info().rss / 1e6
        stop.set()
    nobody = sorted(one.processor for one in alone)
    print(
        f"nobody watches    {statistics.median(nobody):6.1%} of a core, from {nobody[0]:.1%} to {nobody[-1]:.1%}, "
        f"at {statistics.median(one.rate for one in alone):.0f} jobs/s; {megabytes:.0f} MB"
    )
    told("one on the fleet", watched["#fleet"], alone[:-1:2], alone[1::2], args.rate)
    told("one on the jobs", watched["#jobs"], alone[1::2], alone[2::2], args.rate)
    print(f"first paint       {first:.0f} ms, all {args.agents} machines in the table after {whole:.0f} ms")
    print(f"behind            p50 {late[len(late) // 2]:.0f} ms, most {late[-1]:.0f} ms, of {len(late)} updates")
    with suppress(OSError):
        print(f"load average      {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")


if __name__ == "__main__":
    main()
