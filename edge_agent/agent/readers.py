"""Reads of the machine what the owner's rules ask for, and nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, tzinfo
from pathlib import Path

from edge_agent.agent.asked import HomeSaid, HomeUp
from edge_agent.agent.gates import Gates, Speaker
from edge_agent.agent.policy import Reading, Readings, Rules
from edge_agent.clock import Now
from edge_agent.mqtt import LinkOptions
from edge_agent.settings import Source
from hardware import load, metered, power, pressure, seats, thermal
from hardware.power import Supply
from hardware.sysfs import Root

LOCAL_TIME = Path("/etc/localtime")
MIN_SECONDS = 1.0
METERED_SECONDS = 60.0
_UNASKED = Reading(None, "it was not read")


class Readers:
    """The readers, with what they remember.

    Args:
        root: of the machine, or of a tree laid out like one.
        pid: of our own process, whose CPU time and whose children's is not others'.
        gates: listens to the owner's broker.
    """

    def __init__(self, root: Root, pid: int, gates: Gates | None = None) -> None:
        self._gates = gates or Gates(time.monotonic)
        self._root = root
        self._pid = pid
        self._sample: load.Sample | str = "it takes two looks"
        self._others_now = Reading(None, "it takes two looks", pending=True)
        self._others_at: float | None = None
        self._metered_now = _UNASKED
        self._metered_again_at = 0.0

    def read(self, rules: Rules, now: Now) -> Readings:
        """Look at the machine, as far as these rules ask for it."""
        own, root = rules.settings, self._root
        idle = others = memory = celsius = _UNASKED
        if own.idle_seconds:
            idle = _reading(seats.idle_seconds(root, now.wall_ms / 1000))
        if own.max_other_cpu_share is not None:
            others = self._others(now)
        if own.max_memory_pressure_share is not None:
            memory = _reading(pressure.memory_pressure_share(root))
        if own.max_cpu_celsius is not None:
            celsius = self.cpu_celsius()
        supply = power.supply(root) if rules.minds_battery else Supply()
        paid = self._metered(now) if own.network == "unmetered" else _UNASKED
        gates = self._gates.read(rules.gates, now)
        return Readings(idle, others, memory, celsius, metered=paid, supply=supply, gates=gates)

    def listen(
        self,
        rules: Rules,
        sources: Sequence[Source],
        home: LinkOptions | None,
        speaker: Speaker | None,
        put: Callable[[HomeSaid | HomeUp], None],
    ) -> None:
        """Listen to the gates of these rules, and to these numbers, from now on, on the owner's broker."""
        self._gates.listen([*rules.gates, *sources], home, speaker, put)

    def publish(self, topic: str, payload: bytes) -> bool:
        """Say something on the owner's broker; return whether it was taken."""
        return self._gates.publish(topic, payload)

    def number(self, source: Source, now: Now) -> Reading:
        """Return the last number that was said somewhere on the owner's broker."""
        return self._gates.read([source], now)[source.text]

    def stop(self) -> None:
        """Listen no more."""
        self._gates.stop()

    def cpu_celsius(self) -> Reading:
        """Read how hot the CPU is."""
        return _reading(thermal.cpu_celsius(self._root))

    def _metered(self, now: Now) -> Reading:
        """Ask whether the network is metered, once a minute: somebody else's process has to answer."""
        if now.monotonic >= self._metered_again_at:
            found = metered.metered(self._root)
            self._metered_now = Reading(None, found) if isinstance(found, str) else Reading(float(found))
            self._metered_again_at = now.monotonic + METERED_SECONDS
        return self._metered_now

    def _others(self, now: Now) -> Reading:
        """Read what others take, at most once a second: over less time the ticks say nothing."""
        if self._others_at is not None and now.monotonic - self._others_at < MIN_SECONDS:
            return self._others_now
        before, after = self._sample, load.sample(self._root, load.descendants(self._root, self._pid))
        first, self._sample, self._others_at = self._others_at is None, after, now.monotonic
        if first and not isinstance(after, str):
            return self._others_now
        if isinstance(after, str) or isinstance(before, str):
            self._others_now = Reading(None, after if isinstance(after, str) else "it takes two looks")
        else:
            share = load.other_share(before, after)
            self._others_now = Reading(share, "" if share is not None else "no time has passed since the last look")
        return self._others_now


def _reading(found: float | str) -> Reading:
    return Reading(None, found) if isinstance(found, str) else Reading(found)


def local_zone(name: str | None) -> tzinfo:
    """Return a time zone, or the machine's: `TZ`, else `/etc/localtime`, else UTC, as the C library has it.

    Args:
        name: was checked with the settings.
    """
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415 only who sets hours pays for it

    if name is not None:
        return ZoneInfo(name)
    try:
        if given := os.environ.get("TZ", "").removeprefix(":"):
            return ZoneInfo(given)
        with LOCAL_TIME.open("rb") as file:
            return ZoneInfo.from_file(file, key="local")
    except (OSError, ValueError, ZoneInfoNotFoundError):
        return UTC


def terminal_is_there() -> bool:
    """Return whether this process has a terminal; it is hung up when its window is closed (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def midnight_ms() -> int:
    """Return the Unix milliseconds at which today began here."""
    today = time.localtime()
    return int(time.mktime((today.tm_year, today.tm_mon, today.tm_mday, 0, 0, 0, -1, -1, -1))) * 1000
