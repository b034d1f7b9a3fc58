"""What an agent is made with: settings as it needs them, and the machine in short."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.agent.calibrator import Calibrator
from edge_agent.agent.policy import Policy
from edge_agent.agent.prospects import Circumstances
from edge_agent.agent.reporting import Detail
from edge_agent.agent.rules import Rules
from edge_agent.agent.wanted import Wishes
from edge_agent.models.fit import MachineFacts
from edge_agent.models.optimised import OptimisedFiles
from edge_agent.mqtt import LinkOptions
from edge_agent.telemetry import Tracer
from edge_agent.wire.messages import Machine
from edge_agent.wire.sealing_key import SealingKey


@dataclass(frozen=True, slots=True)
class Options:
    """What an agent runs with; made from the settings by the command line.

    Attributes:
        state_dir: holds the session number, the status and the spool.
        threads: for one inference.
        when: the owner's rules on when it works.
        stop_seconds: a clean stop takes at most this long.
        inbox_messages: from the broker that may wait to be handled.
        inbox_bytes: of them together.
        sealing: opens inputs that were sealed to this agent.
        tracer: takes spans, if somebody wants traces.
        status_detail: how much the coordinator is told of how the machine fares.
        copies: optimised copies of models; None if none are kept.
    """

    network: str
    state_dir: Path
    link: LinkOptions
    rules: Rules
    policy: Policy
    when: Wishes
    threads: int
    stop_seconds: float
    inbox_messages: int
    inbox_bytes: int
    sealing: SealingKey | None = None
    status_detail: Detail = "codes"
    tracer: Tracer | None = None
    copies: OptimisedFiles | None = None

    @property
    def sealing_public(self) -> bytes | None:
        """The public half of `sealing`."""
        return self.sealing.public if self.sealing is not None else None


@dataclass(frozen=True, slots=True)
class MachineSummary:
    """What the daemon needs of the profile.

    Attributes:
        statement: the few facts that a birth carries.
        facts: what the predictor goes by.
        budget_bytes: memory that is free for models.
        text: one line for people.
        circumstances: what the choice of variants goes by beside that.
        calibrator: has the machine's speed measured where it is needed.
    """

    statement: Machine
    facts: MachineFacts
    budget_bytes: int
    text: str
    circumstances: Circumstances = field(default_factory=Circumstances)
    calibrator: Calibrator | None = None
