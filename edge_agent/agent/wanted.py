"""What the owner's side of an agent is made with: the settings that may change, and ways to the rest of the agent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any, NamedTuple

from edge_agent.agent.account.account import Account
from edge_agent.agent.asked import HomeSaid, HomeUp
from edge_agent.agent.assistant.discovery import Device
from edge_agent.agent.readers import Readers
from edge_agent.agent.tally import Tally
from edge_agent.clock import Now
from edge_agent.mqtt import LinkOptions
from edge_agent.settings import Energy, Policy


class Wanted(NamedTuple):
    """The settings that may be changed while the agent runs.

    Attributes:
        policy: when and how much it works.
        home: the owner's own broker, if there is one.
        energy: watts and their price.
        device: what Home Assistant sees of this machine; None where it sees nothing.
    """

    policy: Policy
    home: LinkOptions | None
    energy: Energy
    device: Device | None = None


@dataclass(frozen=True, slots=True)
class Wishes:
    """Where the owner's rules come from, and what the machine is read with.

    Attributes:
        at_start: the settings that hold at the start.
        reload: reads them anew; raises `SettingsError` if they are wrong.
        readers: look at the machine.
        zone: gives the time zone of a name, or the machine's.
        account: begins the account of what is counted.
        threads: that a worker may have at most.
        cpus: that can be used.
    """

    at_start: Wanted
    reload: Callable[[], Wanted]
    readers: Readers
    zone: Callable[[str | None], tzinfo]
    account: Callable[[Tally, Now], Account]
    threads: int = 1
    cpus: float = 1.0


class Ways(NamedTuple):
    """Ways to the rest of the agent.

    Attributes:
        put: gives an event to the daemon's loop.
        status: what the agent says of itself.
        latest: which version is known in the network; empty where none is.
        fetched_bytes: how many bytes of models were fetched by this process.
    """

    put: Callable[[HomeSaid | HomeUp], None]
    status: Callable[[], dict[str, Any]]
    latest: Callable[[], str]
    fetched_bytes: Callable[[], int]


NO_WAYS = Ways(lambda _: None, dict, str, int)
