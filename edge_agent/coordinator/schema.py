"""The coordinator's tables. The database is the only truth about jobs."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    func,
    literal_column,
)

SCHEMA_VERSION = 10
"""A change of a table is a step in `migrations`; a test compares the two."""

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

agents = Table(
    "agents",
    metadata,
    Column("id", String, primary_key=True),
    Column("public_key", LargeBinary),  # absent while the operator approved it but it was never here
    Column("approved", Boolean, nullable=False, default=False),
    Column("session", BigInteger, nullable=False, default=0),
    Column("software", String, nullable=False, default=""),
    Column("seen_ms", BigInteger),
    Column("owner", String),  # whom the operator named
    Column("sealing_key", LargeBinary),  # as its birth says
)

identities = Table(
    "identities",
    metadata,
    Column("agent_id", String, primary_key=True),
    Column("request", LargeBinary),  # its signed `enrol`, the newest
    Column("commitment", LargeBinary),
    Column("nonce", LargeBinary),
    Column("code", String),  # that both sides show; absent until the commitment is opened
    Column("asked_ms", BigInteger),
    Column("certificate", LargeBinary),  # the newest, signed by the registrar
    Column("x509", LargeBinary),  # the same for the broker, DER
    Column("revoked_ms", BigInteger),
    Column("revoked_reason", String),
    Column("successor", String),  # the agent that this one became
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", LargeBinary, primary_key=True),  # names it without showing it
    Column("mac_key", LargeBinary, nullable=False),
    Column("owner", String),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("used_ms", BigInteger),
    Column("used_by", String),
    Column("refused", Integer, nullable=False, server_default="0"),  # how often somebody came with it in vain
    Column("refused_from", String),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", LargeBinary, primary_key=True),
    Column("family", String, nullable=False),
    Column("variant", LargeBinary),  # asked for by the client
    Column("inputs", LargeBinary, nullable=False),
    Column("outputs", String, nullable=False),  # names, JSON
    Column("salt", LargeBinary, nullable=False),
    Column("state", String, nullable=False),
    Column("epoch", Integer, nullable=False, default=0),
    Column("max_attempts", Integer, nullable=False),
    Column("submitted_ms", BigInteger, nullable=False),
    Column("deadline_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    Column("idempotency_key", String, unique=True),
    Column("request_digest", LargeBinary, nullable=False),
    Column("error_code", String),
    Column("error_message", String),
    Column("error_blame", String),
    Column("client", String, nullable=False, server_default=""),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("placement", String),  # JSON; absent: anywhere
    Column("deadline_at_ms", BigInteger),  # on the monotonic clock of the boot that `meta` names
    Column("ended_age_ms", BigInteger),  # the database's age when it was noticed that the job had ended
    Column("checks", LargeBinary),  # the job that this one checks: no client's
    Column("mode", String),  # how it is verified before it is given out; absent: by its signature
    Index("jobs_by_state", "state"),
    Index("jobs_by_age", "ended_age_ms"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("job_id", LargeBinary, primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("agent_id", String, nullable=False),
    Column("variant", LargeBinary, nullable=False),
    Column("agent_session", BigInteger, nullable=False),
    Column("coordinator_session", BigInteger, nullable=False),
    Column("leased_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    Column("outcome", String),
    Column("refused_by", String),  # whose machine said that the job can never succeed, and was not believed yet
)

results = Table(
    "results",
    metadata,
    Column("job_id", LargeBinary, primary_key=True),  # one accepted result a job, whatever happens
    Column("epoch", Integer, nullable=False),
    Column("agent_id", String, nullable=False),
    Column("variant", LargeBinary, nullable=False),
    Column("run_us", BigInteger, nullable=False),
    Column("outputs", LargeBinary, nullable=False),
    Column("receipt", LargeBinary, nullable=False),
    Column("klass", String),  # id of the class of machines that computed it
    Column("verification", String),  # what else was done to verify it, JSON; absent: nothing
)


def is_pending(verification: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether the check of a result has not ended: words that the index below and those who look must share."""
    return func.instr(verification, literal_column("'\"pending\"'")) > literal_column("0")


Index("results_pending", results.c.job_id, sqlite_where=is_pending(results.c.verification))

ledger = Table(
    "ledger",
    metadata,
    # `wire.ledger.LedgerEntry`: never changed, never removed
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String, nullable=False),
    Column("debit", String, nullable=False),
    Column("credit", String, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("leaf", LargeBinary, unique=True),  # one entry a result, whatever happens
    Column("at_ms", BigInteger, nullable=False),
    Column("chain", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

standings = Table(
    "standings",
    metadata,
    # an agent with a variant, an agent (no variant), or an owner (`owner:NAME`): see `trust.Standing`
    Column("name", String, primary_key=True),
    Column("variant", LargeBinary, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("failures", BigInteger, nullable=False),
    Column("unclear", BigInteger, nullable=False),
    Column("resting_until_ms", BigInteger, nullable=False),
)

agent_orders = Table(
    "agent_orders",
    metadata,
    Column("agent_id", String, primary_key=True),
    Column("drained", Boolean, nullable=False, default=False),  # the operator lets it finish, and gives it nothing new
    Column("labels", String),  # the operator's, JSON; absent: none
    Column("reinstated_ms", BigInteger),  # when the operator last ended a rest of it
)

log_nodes = Table(
    "log_nodes",
    metadata,
    # `wire.merkle.Place`: level 0 are the leaves, in the order in which their receipts were accepted; never removed
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
Index("log_leaves", log_nodes.c.hash, sqlite_where=log_nodes.c.level == 0, postgresql_where=log_nodes.c.level == 0)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),  # of the client that uses it
    Column("digest", LargeBinary, nullable=False),  # SHA-256 of the key, which is kept nowhere
    Column("scopes", String, nullable=False),  # sorted, with commas
    Column("created_ms", BigInteger, nullable=False),
    Column("requests_per_minute", Integer, nullable=False),
    Column("jobs_per_day", BigInteger, nullable=False),
    Column("expires_ms", BigInteger),
    Column("revoked_ms", BigInteger),
)

api_key_usage = Table(
    "api_key_usage",
    metadata,
    Column("name", String, primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),  # UTC days since 1970
    Column("requests", BigInteger, nullable=False),
    Column("jobs", BigInteger, nullable=False),
)
