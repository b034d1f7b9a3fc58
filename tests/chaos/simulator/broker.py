"""A broker and the connections to it, which lose, delay, repeat, reorder and partition what they are given.

Every client connects with a clean session, as the link does. A message to a client that is connected arrives
whichever connection it was meant for: what a broker keeps back for the old one, nobody promises.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from edge_agent.wire.topics import CHANNELS, UP_CHANNELS, Topics
from simulator.chance import mix
from simulator.script import COORDINATOR, Kind, Step
from simulator.world import World

KEEPALIVE_LEASES = 1.5
"""A dead connection is noticed after so many leases: 45 s where the lease has 30."""
LATENCY_SECONDS = 0.002
RETRY_SECONDS = 2.0
_CHANNEL_NUMBERS = {channel: number for number, channel in enumerate((*CHANNELS, "coordinator"))}


class Client(Protocol):
    """A process with a link."""

    number: int
    alive: bool
    hung: bool

    def link_up(self) -> tuple[str, bytes] | None:
        """Begin a session; return topic and payload of the will for it."""

    def link_down(self, reason: str) -> None:
        """Learn that the connection has ended."""

    def message(self, topic: str, payload: bytes) -> None:
        """Get a message."""


@dataclass(slots=True)
class Link:
    """The connection of one client, as both ends see it.

    Attributes:
        up: the client has it.
        known: the broker has it.
        holed: nothing passes, and neither end has noticed.
        held: what was sent into the hole, and waits in the kernel.
        refused_until: no connection can be made before.
    """

    client: Client
    up: bool = False
    known: bool = False
    holed: bool = False
    will: tuple[str, bytes] | None = None
    generation: int = 0
    refused_until: float = 0.0
    held: list[Callable[[], None]] = field(default_factory=list)
    trying: bool = False


class Broker:
    """The broker, and everything between it and its clients.

    Args:
        world: that it is in.
        topics: of the network.
        lease_seconds: scales how long a dead connection goes unnoticed.
        fates: the steps that name single messages.
    """

    def __init__(self, world: World, topics: Topics, lease_seconds: float, fates: list[Step]) -> None:
        self.up = True
        self.retained: dict[str, bytes] = {}
        self.links: dict[int, Link] = {}
        self.well = False
        """Set at the end of a script: from then on nothing is lost any more."""
        self._first_retained: dict[str, bytes] = {}
        self._world = world
        self._topics = topics
        self._unnoticed_seconds = KEEPALIVE_LEASES * lease_seconds
        self._fates = {(step.who, step.text, step.count): step for step in fates}
        self._sent: Counter[tuple[int, str]] = Counter()
        self._ids: dict[str, int] = {}
        self._routes: dict[str, tuple[int, str]] = {}
        self._weather_until = 0.0
        self._weather_share = 0.0
        self._will_late: dict[int, float | None] = {}
        self.affected: list[Step] = []

    def join(self, client: Client, agent_id: str | None) -> Link:
        """Know a client, which is not connected yet."""
        self.links[client.number] = link = Link(client)
        if agent_id is not None:
            self._ids[agent_id] = client.number
        return link

    # -- connections --------------------------------------------------------------------------------------------------

    def connect_soon(self, number: int, seconds: float | None = None) -> None:
        """Let a client's link try to connect, again and again, until it is there or its process is not."""
        link = self.links[number]
        if link.trying:
            return
        link.trying = True
        wait = RETRY_SECONDS * self._world.draw(10 + number) if seconds is None else seconds
        self._world.later(wait, lambda: self._try(link))

    def _try(self, link: Link) -> None:
        link.trying = False
        if not link.client.alive or link.up:
            return
        if not self.up or link.holed or link.client.hung or (self._world.now < link.refused_until and not self.well):
            self.connect_soon(link.client.number)
            return
        if link.known:  # the broker still has the connection before: it takes it over and publishes its will
            self._lose(link)
        link.generation += 1
        link.up = link.known = True
        link.will = link.client.link_up()
        if not link.up:  # it did not survive its first words
            return
        for topic, payload in list(self.retained.items()):
            if link.client.number in self._receivers(topic):
                self._send_to(link, topic, payload)

    def _receivers(self, topic: str) -> tuple[int, ...]:
        """Return who has subscribed to a topic."""
        peer, channel = self._route(topic)
        if channel in UP_CHANNELS:
            return (COORDINATOR,)
        return tuple(self._ids.values()) if peer == COORDINATOR else (peer,)

    def _route(self, topic: str) -> tuple[int, str]:
        """Return whose topic it is, and its channel."""
        found = self._routes.get(topic)
        if found is None:
            agent_id, channel = self._topics.parse(topic)
            found = self._routes[topic] = (COORDINATOR if agent_id is None else self._ids[agent_id], channel)
        return found

    def end(self, number: int, *, noticed: bool, goodbye: bool = False) -> None:
        """Let a process's end be the end of its connection.

        Args:
            number: whose.
            noticed: the kernel closed it, so that the broker knows at once; otherwise its keepalive tells.
            goodbye: it said that it leaves: no will.
        """
        link = self.links[number]
        link.up = False
        link.held.clear()
        if goodbye:
            link.will = None
        if not link.known:
            return
        if noticed and not link.holed:
            self._lose(link)
        else:
            self._lose_unnoticed(link)

    def cut(self, number: int, reason: str = "the connection was reset") -> None:
        """Reset a connection; both ends notice."""
        link = self.links[number]
        link.held.clear()
        if link.known:
            self._lose(link)
        if link.up:
            link.up = False
            link.client.link_down(reason)
            self.connect_soon(number)

    def unreachable(self, number: int, seconds: float) -> None:
        """Reset a connection, and let no other be made for a while."""
        self.links[number].refused_until = self._world.now + seconds
        self.cut(number)

    def black_hole(self, number: int, seconds: float) -> None:
        """Let nothing pass for a while; if it is long, both ends give the connection up."""
        link = self.links[number]
        if link.holed:
            return
        link.holed = True
        generation = link.generation

        def noticed() -> None:
            if link.holed and link.generation == generation and (link.up or link.known):
                self.cut(number, "no answer from the broker")

        self._world.later(self._unnoticed_seconds, noticed)
        self._world.later(seconds, lambda: self.heal(number))

    def hung(self, number: int) -> None:
        """Let the broker give up a client that has stopped to answer, if it does not go on in time."""
        link = self.links[number]
        generation = link.generation

        def noticed() -> None:
            if link.client.hung and link.up and link.generation == generation:
                self.cut(number, "the broker closed the connection")

        self._world.later(self._unnoticed_seconds, noticed)

    def heal(self, number: int) -> None:
        """Let messages pass again; what waited in the kernel comes now."""
        link = self.links[number]
        link.holed = False
        held, link.held = link.held, []
        for act in held:
            act()

    def _lose_unnoticed(self, link: Link) -> None:
        generation = link.generation
        wait = self._unnoticed_seconds
        self._world.later(wait, lambda: self._lose(link) if link.known and link.generation == generation else None)

    def _lose(self, link: Link) -> None:
        """Let the broker forget a connection and publish its will, now or late."""
        link.known = False
        will, link.will = link.will, None
        number = link.client.number
        if will is None:
            return
        late = self._will_late.pop(number, 0.0)
        if late is None and not self.well:
            return
        topic, payload = will
        self._world.later(late or 0.0, lambda: self.publish(number, topic, payload, retain=True))

    def will_late(self, number: int, seconds: float | None) -> None:
        """Publish the next will of a client late, or never."""
        self._will_late[number] = seconds

    # -- the broker itself --------------------------------------------------------------------------------------------

    def crash(self, seconds: float, *, keeps_state: bool) -> None:
        """End the broker; wills are not published, retained messages stay only with its state."""
        if not self.up:
            return
        self.up = False
        for number, link in self.links.items():
            link.will = None
            link.known = False
            self.cut(number, "the broker is gone")
        if not keeps_state:
            self.retained.clear()
        self._world.later(seconds, self.start)

    def start(self) -> None:
        """Let clients in again."""
        self.up = True

    def forget(self) -> None:
        """Lose every retained message."""
        self.retained.clear()

    def remember(self) -> None:
        """Go back to the oldest retained messages, as a broker does that comes back from a backup."""
        self.retained = dict(self._first_retained)

    # -- messages -----------------------------------------------------------------------------------------------------

    def weather(self, seconds: float, percent: int) -> None:
        """Lose, repeat and delay a share of all messages for a while."""
        self._weather_until = self._world.now + seconds
        self._weather_share = percent / 100

    def publish(self, number: int, topic: str, payload: bytes, *, retain: bool) -> None:
        """Take a message of a client, or a will of it; its fate is decided here."""
        peer, channel = self._route(topic)
        self._sent[peer, channel] += 1
        count = self._sent[peer, channel]
        self._world.counts["messages"] += 1
        link = self.links[number]
        for delay in self._fate(peer, channel, count):
            self._world.later(delay, lambda: self._pass(link, lambda: self._arrive(topic, payload, retain=retain)))

    def _fate(self, peer: int, channel: str, count: int) -> list[float]:
        """Return after how many seconds each copy of a message arrives."""
        bits = mix(self._world.seed, peer, _CHANNEL_NUMBERS[channel], count)
        usual = LATENCY_SECONDS * (1 + (bits & 0xFF) / 256)
        if self.well:
            return [usual]
        step = self._fates.get((peer, channel, count))
        if step is not None:
            self._world.counts[step.kind] += 1
            match step.kind:
                case Kind.LOSE:
                    return []
                case Kind.REPEAT:
                    return [usual, usual + step.seconds]
                case _:
                    return [usual + step.seconds]
        if self._world.now < self._weather_until and (bits >> 8 & 0xFFFF) / 65536 < self._weather_share:
            seconds = round((bits >> 24 & 0xFFFF) / 65536 * 5, 2)
            kind = (Kind.LOSE, Kind.REPEAT, Kind.DELAY)[(bits >> 40) % 3]
            self._world.counts[kind] += 1
            self.affected.append(Step(self._world.now, kind, peer, seconds, count, channel))
            return {Kind.LOSE: [], Kind.REPEAT: [usual, usual + seconds]}.get(kind, [usual + seconds])
        return [usual]

    def _pass(self, link: Link, act: Callable[[], None]) -> None:
        """Go through a connection: at once, or when the hole in it closes."""
        if link.holed:
            link.held.append(act)
        else:
            act()

    def _arrive(self, topic: str, payload: bytes, *, retain: bool) -> None:
        if not self.up:
            return
        if retain:
            self.retained[topic] = payload
            self._first_retained.setdefault(topic, payload)
        for link in (self.links[number] for number in self._receivers(topic)):
            if link.up and link.known:
                self._send_to(link, topic, payload)

    def _send_to(self, link: Link, topic: str, payload: bytes) -> None:
        def arrive() -> None:
            if link.up:
                link.client.message(topic, payload)

        self._world.later(LATENCY_SECONDS, lambda: self._pass(link, arrive))
