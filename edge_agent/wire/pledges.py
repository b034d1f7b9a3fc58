"""What the coordinator binds itself to before anybody can ask: the state of its ledger, and the keys of its draws."""

from __future__ import annotations

from typing import ClassVar, Literal

from edge_agent.wire.statements import Bytes32, Count, Party, Statement

MAX_PLEDGE_BYTES = 512


class LedgerHead(Statement):
    """My ledger has so many entries, and this is the hash of their chain. Kept by owners and by who audits."""

    signed_by: ClassVar[Party] = "coordinator"
    max_statement_bytes: ClassVar[int] = MAX_PLEDGE_BYTES

    kind: Literal["ledger-head"] = "ledger-head"
    size: Count
    chain: Bytes32


class CheckKey(Statement):
    """In this period, checks are drawn with the key of which this is the hash; the key is given out when it is over."""

    signed_by: ClassVar[Party] = "coordinator"
    max_statement_bytes: ClassVar[int] = MAX_PLEDGE_BYTES

    kind: Literal["check-key"] = "check-key"
    period: Count
    commitment: Bytes32
