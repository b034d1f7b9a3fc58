"""What a coordinator is made with: settings as it needs them."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_agent.coordinator.admissions import Terms
from edge_agent.coordinator.registrar import Registrar
from edge_agent.coordinator.registry import MAX_AGENTS
from edge_agent.coordinator.rules import Rules
from edge_agent.coordinator.trust import TrustRules
from edge_agent.mqtt import LinkOptions


@dataclass(frozen=True, slots=True)
class Options:
    """What a coordinator runs with; made from the settings by the command line.

    Attributes:
        job_deadline_seconds: of jobs that ask for none.
        max_job_deadline_seconds: the longest that may be asked for.
        registrar: says which agents belong here; None where no certificates are asked for.
        terms: what agents that enrol are told besides.
        inbox_bytes: of messages that wait to be handled; and of what waits to be written.
        check_rules: how often results are checked.
        check_secret: 32 bytes that the keys of the draws are derived from.
        trusted_owners: whose machines the operator trusts beside its own.
    """

    network: str
    link: LinkOptions
    rules: Rules
    admit_anyone: bool
    job_deadline_seconds: float
    retention_seconds: float
    max_job_deadline_seconds: float = 86_400.0
    max_agents: int = MAX_AGENTS
    inbox_bytes: int = 64 * 1024 * 1024
    registrar: Registrar | None = None
    terms: Terms = field(default_factory=Terms)
    check_rules: TrustRules = field(default_factory=TrustRules)
    check_secret: bytes = b""
    trusted_owners: tuple[str, ...] = ()
