"""Every kind of statement that there is."""

from __future__ import annotations

from edge_agent.wire.identity import Certificate, Enrol, Enrolled, Revocations, Succession
from edge_agent.wire.messages import (
    Birth,
    Control,
    Failure,
    Gone,
    Hello,
    Job,
    Offers,
    Progress,
    Receipt,
    Result,
    Settled,
    Statement,
    TreeHead,
)
from edge_agent.wire.pledges import CheckKey, LedgerHead
from edge_agent.wire.status import Status

ALL_STATEMENTS: tuple[type[Statement], ...] = (
    *(Birth, Gone, Offers, Progress, Result, Failure),  # by agents
    *(Hello, Job, Settled, Control, Receipt, TreeHead),  # by the coordinator
    Status,  # by agents, for the operator
    *(Enrol, Succession, Enrolled, Certificate, Revocations),  # about identities
    *(LedgerHead, CheckKey),  # by the coordinator, for everybody
)
