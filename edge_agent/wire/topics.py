"""The MQTT topics of one network: `ea1/{network}/{agent}/{channel}` and `ea1/{network}/coordinator`.

Each level is one token without dots, slashes or wildcards, so every broker takes them, and access
control lists can be written with the agent's id as the only variable.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from edge_agent.errors import MalformedError, UsageError

PREFIX: Final = "ea1"
COORDINATOR: Final = "coordinator"
UP_CHANNELS: Final = ("birth", "gone", "offers", "progress", "status", "results", "enrol")
DOWN_CHANNELS: Final = ("jobs", "settled", "control", "enrolled")
CLIENTS: Final = "clients"
PROBE: Final = "probe"
REVOCATIONS: Final = "revocations"
CHANNELS: Final = UP_CHANNELS + DOWN_CHANNELS

NETWORK_PATTERN: Final = r"^[a-z0-9][a-z0-9_-]{0,31}$"
AGENT_ID_PATTERN: Final = r"^[a-z2-7]{32}$"
_NETWORK = re.compile(NETWORK_PATTERN.removesuffix("$") + r"\Z")
_CLIENT = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_AGENT_ID = re.compile(AGENT_ID_PATTERN.removesuffix("$") + r"\Z")


class Topics:
    """The topics of the network `network`.

    Raises:
        UsageError: the name is not one token of 1 to 32 characters a-z, 0-9, `_` and `-`.
    """

    __slots__ = ("_base", "network")

    network: str

    def __init__(self, network: str) -> None:
        if not _NETWORK.match(network):
            raise UsageError(
                f"{network!r} is not a name for a network.",
                hint="Use 1 to 32 characters: a-z, 0-9, - and _, starting with a letter or digit.",
            )
        self.network = network
        self._base = f"{PREFIX}/{network}"

    @property
    def coordinator(self) -> str:
        """Where the coordinator's signed hello is retained."""
        return f"{self._base}/{COORDINATOR}"

    @property
    def revocations(self) -> str:
        """Where the signed list of keys that count no more is retained."""
        return f"{self._base}/{REVOCATIONS}"

    def birth(self, agent_id: str) -> str:
        """Where the agent says that it is here, or that it stopped (retained)."""
        return self._of(agent_id, "birth")

    def gone(self, agent_id: str) -> str:
        """Where the broker publishes the agent's will."""
        return self._of(agent_id, "gone")

    def offers(self, agent_id: str) -> str:
        """Where the agent says what it serves."""
        return self._of(agent_id, "offers")

    def progress(self, agent_id: str) -> str:
        """Where the agent renews its leases."""
        return self._of(agent_id, "progress")

    def status(self, agent_id: str) -> str:
        """Where the agent says how it fares."""
        return self._of(agent_id, "status")

    def results(self, agent_id: str) -> str:
        """Where the agent delivers results and failures."""
        return self._of(agent_id, "results")

    def jobs(self, agent_id: str) -> str:
        """Where the coordinator sends jobs to the agent."""
        return self._of(agent_id, "jobs")

    def settled(self, agent_id: str) -> str:
        """Where the coordinator tells the agent which attempts need no further delivery."""
        return self._of(agent_id, "settled")

    def control(self, agent_id: str) -> str:
        """Where the coordinator tells the agent anything else."""
        return self._of(agent_id, "control")

    def enrol(self, agent_id: str) -> str:
        """Where an agent asks to be let in."""
        return self._of(agent_id, "enrol")

    def enrolled(self, agent_id: str) -> str:
        """Where the coordinator answers that, and sends the agent its certificates."""
        return self._of(agent_id, "enrolled")

    def probe(self, agent_id: str) -> str:
        """Below this the agent tries out what the broker can do: nobody else's business, and no channel."""
        return self._of(agent_id, PROBE)

    @property
    def client_jobs(self) -> str:
        """The filter for jobs of plain MQTT clients: `ea1/{network}/clients/{name}/jobs`."""
        return f"{self._base}/{CLIENTS}/+/jobs"

    def client_of(self, topic: str) -> str:
        """Return the name of the client that a job on this topic is of.

        Raises:
            MalformedError: not such a topic of this network.
        """
        name = topic.removeprefix(f"{self._base}/{CLIENTS}/").removesuffix("/jobs")
        if not _CLIENT.match(name) or topic != f"{self._base}/{CLIENTS}/{name}/jobs":
            raise MalformedError(f"{topic[:200]!r} is not a topic for jobs of clients of the network {self.network}.")
        return name

    def takes_results(self, topic: str, client: str) -> bool:
        """Whether this is where a client may have its results: `ea1/{network}/clients/{name}/results`, or one below."""
        base = f"{self._base}/{CLIENTS}/{client}/results"
        return topic == base or bool(topic.startswith(f"{base}/") and _CLIENT.match(topic[len(base) + 1 :]))

    def all_agents(self, channel: str) -> str:
        """Return the filter for one channel of every agent, for example `ea1/home/+/birth`.

        Raises:
            ValueError: there is no such channel.
        """
        return f"{self._base}/+/{_known(channel)}"

    def all_channels(self, agent_id: str) -> tuple[str, ...]:
        """Return the topics that the agent reads."""
        return tuple(self._of(agent_id, channel) for channel in DOWN_CHANNELS)

    def parse(self, topic: str) -> tuple[str | None, str]:
        """Return the agent's id and the channel; None and the topic's last level for the coordinator's own.

        What an agent tries out below its topic `probe` comes back with that as the channel.

        Raises:
            MalformedError: not a topic of this network.
        """
        if topic == self.coordinator:
            return None, COORDINATOR
        if topic == self.revocations:
            return None, REVOCATIONS
        return _agents_own(self.network, topic)

    def _of(self, agent_id: str, channel: str) -> str:
        if not _AGENT_ID.match(agent_id):
            raise ValueError(f"{agent_id!r} is not an agent's id.")
        return f"{self._base}/{agent_id}/{channel}"

    def __repr__(self) -> str:
        return f"Topics({self.network!r})"


@lru_cache(maxsize=4096)
def _agents_own(network: str, topic: str) -> tuple[str, str]:
    # The same for each message of an agent. What is none is remembered by nobody: it may be long.
    levels = topic.split("/")
    if len(levels) in {4, 5} and levels[0] == PREFIX and levels[1] == network:
        agent_id, channel = levels[2:4]
        known = channel in CHANNELS if len(levels) == 4 else channel == PROBE
        if known and _AGENT_ID.match(agent_id):
            return agent_id, channel
    raise MalformedError(f"{topic[:200]!r} is not a topic of the network {network}.")


def _known(channel: str) -> str:
    if channel not in CHANNELS:
        raise ValueError(f"{channel!r} is not a channel: {', '.join(CHANNELS)}.")
    return channel
