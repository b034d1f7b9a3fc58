"""What can be set: every setting with its type, its limits, its default and a description.

`docs/settings.md` lists all of it, and a test keeps that list true.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from edge_agent.settings.broker import Broker
from edge_agent.settings.energy import Energy
from edge_agent.settings.fields import (
    MIB,
    Derived,
    FamilyPattern,
    FamilyValue,
    Flag,
    Label,
    MessageBytes,
    OwnerName,
    Seconds,
    SecondsOrNever,
    Weight,
    http_address,
    optional_broker_url,
    weigh_something,
)
from edge_agent.settings.fields import Section as _Section
from edge_agent.settings.gateway import Client, Gateway
from edge_agent.settings.home import Home
from edge_agent.settings.policy import Policy
from edge_agent.settings.secrets import Keys
from edge_agent.settings.telemetry import Telemetry


class Network(_Section):
    """Which network this process belongs to."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$"), Flag("--network", "NAME")] = Field(
        default="home", description="Name of the network; all who work together use the same one."
    )


class Agent(_Section):
    """The agent: its files, and how much of the machine it may use."""

    state_dir: Annotated[
        Path,
        Derived(
            "`$STATE_DIRECTORY`, else `$XDG_STATE_HOME/edge-agent`, else `~/.local/state/edge-agent`",
        ),
        Flag("--state", "DIR"),
    ] = Field(description="Folder for everything that the agent keeps.")
    key_file: Annotated[Path, Derived("`agent.key` in `agent.state_dir`")] = Field(
        description="The agent's secret key: its identity. Made at the first start."
    )
    sealing_key_file: Annotated[Path, Derived("`sealing.key` in `agent.state_dir`")] = Field(
        description="The agent's other secret key, for inputs sealed to it. Made at the first start."
    )
    coordinator_key_file: Annotated[
        Path, Derived("`coordinator.pub` in `agent.state_dir`"), Flag("--coordinator-key", "FILE")
    ] = Field(description="Public key of the coordinator; the agent takes jobs from no other.")
    families: Annotated[tuple[FamilyPattern, ...], Field(max_length=256), Flag("--families", "NAMES")] = Field(
        default=("*",),
        description="Families to serve; `*` stands for any characters, `?` for any one.",
    )
    labels: Annotated[tuple[Label, ...], Field(max_length=16), Flag("--labels", "NAMES")] = Field(
        default=(),
        description="What you call this machine, such as `kitchen` or `region=eu`; jobs can ask for a label.",
    )
    threads: Annotated[int, Field(ge=0, le=1024), Flag("--threads", "N")] = Field(
        default=0, description="Threads of the worker; 0 takes one for each usable big core."
    )
    max_in_flight: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=8, description="Attempts that the agent holds at once, running and waiting."
    )
    memory_share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = Field(
        default=0.5, description="Share of the free memory that models may take."
    )
    download: Literal["never", "allowed"] = Field(
        default="never",
        description="Whether the agent fetches by itself what `agent.families` names and is predicted to fit; it never "
        "removes other files for that.",
    )
    uncontained_models: Literal["refuse", "allow"] = Field(
        default="refuse",
        description="Where this kernel cannot contain the worker (docs/security.md), models that did not come with the "
        "program are refused; `allow` runs them all the same: a hostile one can then read what the agent can.",
    )
    status_detail: Literal["none", "codes", "full"] = Field(
        default="codes",
        description="What the coordinator is told of how this machine fares: nothing; temperature, load and the codes "
        "of the reasons for which it rests; or those in full, with what your rules say.",
    )
    values: Annotated[tuple[FamilyValue, ...], Field(max_length=256)] = Field(
        default=(),
        description="What families are worth to you when not all fit: `PATTERN=NUMBER`, the first that fits counts, "
        "1 where none does, 0 never serves it.",
    )
    weights: Annotated[tuple[Weight, ...], AfterValidator(weigh_something)] = Field(
        default=("quality=1", "speed=1"),
        description="What counts between variants of a family: `quality`, `speed`, `memory`, `energy`, each "
        "`NAME=NUMBER`; what is not named counts nothing.",
    )
    max_quality_drop_share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        default=0.02,
        description="A variant whose reported quality is further below the best of its family, as a share of that, "
        "is not served.",
    )
    worker_idle_seconds: SecondsOrNever = Field(
        default=0.0, description="Stop a worker without work after so long, to free its memory; 0 keeps it."
    )
    stop_seconds: Seconds = Field(
        default=10.0,
        description="How long running attempts may take to finish when the agent is told to stop.",
    )
    max_held_bytes: Annotated[int, Field(ge=MIB, le=2**40)] = Field(
        default=256 * MIB,
        description="Inputs and unsettled answers in memory; above it jobs are answered with `queue-full`.",
    )
    spool_seconds: SecondsOrNever = Field(
        default=1.0,
        description="Results that took so long to compute are kept on disk, too, until they are settled.",
    )
    spool_bytes: Annotated[int, Field(ge=0, le=2**40)] = Field(
        default=64 * MIB, description="Results on disk, together; the oldest make room. 0 keeps none there."
    )
    spool_results: Annotated[int, Field(ge=1, le=512)] = Field(
        default=256, description="Most results on disk; the oldest make room."
    )
    unsettled_hours: Annotated[float, Field(gt=0, le=24 * 365, allow_inf_nan=False)] = Field(
        default=24.0,
        description="An answer that no coordinator settled for so long is given up; counted while the agent runs.",
    )


class Coordinator(_Section):
    """The coordinator: its address, its files, and its rules for jobs."""

    http: Annotated[str, AfterValidator(http_address), Flag("--http", "HOST:PORT")] = Field(
        default="127.0.0.1:8420", description="`HOST:PORT` of the HTTP interface; port 0 takes a free one."
    )
    state_dir: Annotated[
        Path,
        Derived(
            "`$STATE_DIRECTORY`, else `$XDG_STATE_HOME/edge-agent-coordinator`, "
            "else `~/.local/state/edge-agent-coordinator`",
        ),
        Flag("--state", "DIR"),
    ] = Field(description="Folder for everything that the coordinator keeps.")
    key_file: Annotated[Path, Derived("`coordinator.key` in `coordinator.state_dir`")] = Field(
        description="The coordinator's secret key, which signs jobs and receipts. Made at the first start."
    )
    registrar_key_file: Annotated[Path, Derived("`registrar.key` in `coordinator.state_dir`")] = Field(
        description="The registrar's secret key, which signs agents' certificates. Made at the first start, unless "
        "only its public half, the same name with `.pub`, is there: then the secret one lies elsewhere."
    )
    agents_broker_url: Annotated[str | None, AfterValidator(optional_broker_url)] = Field(
        default=None, description="Where agents that enrol reach the broker; `broker.url` if it is not set."
    )
    database: Annotated[Path, Derived("`coordinator.db` in `coordinator.state_dir`")] = Field(
        description="The SQLite database of jobs, attempts and receipts."
    )
    admit: Literal["approved", "anyone"] = Field(
        default="approved", description="Whose results count: agents the operator approved, or any agent."
    )
    lease_seconds: Seconds = Field(
        default=30.0, description="An attempt that gives no sign of life for so long goes to another agent."
    )
    job_deadline_seconds: Seconds = Field(
        default=60.0,
        description="A job without a result after so long has failed, unless it asks for another deadline.",
    )
    max_job_deadline_seconds: Seconds = Field(
        default=86_400.0, description="The longest deadline that a job may ask for."
    )
    max_attempts: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=5, description="Attempts that may fail before a job has failed, unless it asks for another number."
    )
    hedge_share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        default=0.02,
        description="Share of the synchronous jobs that get a second attempt on another agent when they are late.",
    )
    max_queued_jobs: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        default=10_000, description="Jobs that may wait or run; more are refused with `queue-full`."
    )
    max_queued_bytes: Annotated[int, Field(ge=MIB, le=2**40)] = Field(
        default=256 * MIB, description="Bytes of their inputs together; more are refused with `queue-full`."
    )
    max_agents: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=10_000, description="Agents that are kept in mind; further ones are told that there is no room."
    )
    max_clock_skew_seconds: Seconds = Field(
        default=86_400.0,
        description="An agent whose clock is further off gets no jobs, and its results are refused.",
    )
    messages_per_second: Annotated[float, Field(ge=1, le=1_000_000, allow_inf_nan=False)] = Field(
        default=50.0,
        description="Messages of one agent that are refused, or about itself; more are dropped with `rate-limited`.",
    )
    max_request_bytes: Annotated[int, Field(ge=1024, le=2**31)] = Field(
        default=16 * MIB, description="Largest HTTP request body."
    )
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=4096, description="HTTP connections at once; above that, the one that has been idle the longest goes."
    )
    offer_grace_seconds: SecondsOrNever = Field(
        default=30.0,
        description="How long jobs for a family that nobody offers now are kept waiting for an agent.",
    )
    first_checked_results: Annotated[int, Field(ge=0, le=10_000)] = Field(
        default=10,
        description="So many results of each agent with a variant, and of each owner, are always checked on a machine "
        "of another owner, and held until then.",
    )
    check_share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        default=0.05, description="Of later results, the share that is checked; it falls to this value."
    )
    trusted_owners: Annotated[tuple[OwnerName, ...], Field(max_length=256)] = Field(
        default=(),
        description="Owners whose machines the operator trusts as much as its own: those approved without an owner.",
    )
    retention_hours: Annotated[float, Field(gt=0, le=24 * 3650, allow_inf_nan=False)] = Field(
        default=168.0, description="How long jobs that have ended are kept, with their receipts."
    )

    @model_validator(mode="after")
    def _deadlines_agree(self) -> Self:
        if self.job_deadline_seconds > self.max_job_deadline_seconds:
            raise ValueError("coordinator.job_deadline_seconds must not be above coordinator.max_job_deadline_seconds")
        return self


def _mirror(text: str) -> str:
    if "@" in text or not re.fullmatch(r"(?:https?://[^\s/?#]+|file://)(?:/[^\s?#]*)?", text):
        raise ValueError("must be an https, http or file URL, without user, password or query")
    try:
        _ = urlsplit(text).port
    except ValueError as error:
        raise ValueError("must be a URL with a valid host and port") from error
    return text


def _catalogue_url(text: str | None) -> str | None:
    return None if text is None else _mirror(text).rstrip("/") + "/"


class Models(_Section):
    """Where fetched models are kept, and how much of the disk they may take."""

    dir: Annotated[Path, Derived("`models` in `agent.state_dir`")] = Field(
        description="Folder of the fetched models, by digest."
    )
    max_bytes: Annotated[int, Field(ge=0, le=2**50)] = Field(
        default=4 * 1024 * MIB,
        description="Most that fetched models may take; the least recently used ones make room.",
    )
    keep_free_bytes: Annotated[int, Field(ge=0, le=2**50)] = Field(
        default=1024 * MIB, description="Of the disk, so much is left free whatever is fetched."
    )
    optimised: Literal["on", "off"] = Field(
        default="on",
        description="Whether a copy of each served model is kept as onnxruntime has optimised it, to be loaded faster.",
    )
    mirrors: Annotated[tuple[Annotated[str, AfterValidator(_mirror)], ...], Field(max_length=16)] = Field(
        default=(),
        description="Addresses that are asked for `sha256/DIGEST` first, such as a machine at home.",
    )


class Catalogue(_Section):
    """Which published models this process knows, besides the built-in ones; agent and coordinator should agree."""

    url: Annotated[str | None, AfterValidator(_catalogue_url), Flag("--catalogue", "URL")] = Field(
        default=None,
        description="Address of a published catalogue: `https`, `http` or `file`; needs `catalogue.root_file`.",
    )
    root_file: Annotated[Path | None, Flag("--catalogue-root", "FILE")] = Field(
        default=None,
        description="The catalogue's `root.json`, from its operator: nothing is taken that it does not vouch for.",
    )
    refresh_seconds: Annotated[float, Field(ge=60, le=86_400 * 30, allow_inf_nan=False)] = Field(
        default=21_600.0, description="A running agent or coordinator asks for news so often, give or take a tenth."
    )
    fetch_seconds: Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)] = Field(
        default=120.0, description="A refresh that takes longer is ended; what was known stays."
    )
    expired_grace_hours: Annotated[float, Field(ge=0, le=87_600, allow_inf_nan=False)] = Field(
        default=2160.0,
        description="How long a catalogue is used after it expired, with warnings, while no newer one can be had.",
    )
    public_models: Literal["off", "on"] = Field(
        default="off",
        description="Whether the public models described with the program are known, too. Nothing is fetched by that.",
    )

    @model_validator(mode="after")
    def _url_and_root_go_together(self) -> Self:
        if (self.url is None) != (self.root_file is None):
            raise ValueError("catalogue.url and catalogue.root_file must be set together: the root says whom to trust")
        return self


class Limits(_Section):
    """Bounds on messages and queues, of agent and coordinator alike."""

    max_inline_bytes: MessageBytes = Field(
        default=17 * MIB, description="Largest message through the broker, its tensors included."
    )
    max_output_bytes: Annotated[int, Field(ge=1024, le=255 * MIB)] = Field(
        default=16 * MIB, description="Most bytes that the outputs of one job may have together."
    )
    inbox_messages: Annotated[int, Field(ge=1, le=65_535)] = Field(
        default=1000, description="Messages from the broker that may wait to be handled."
    )
    inbox_bytes: Annotated[int, Field(ge=65_536, le=2**40)] = Field(
        default=64 * MIB, description="Their bytes together; a single larger message is taken when none waits."
    )
    outbox_messages: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=1000, description="Messages to the broker that may wait to be sent."
    )
    outbox_bytes: Annotated[int, Field(ge=65_536, le=2**40)] = Field(
        default=64 * MIB, description="Their bytes together; a single larger message is taken when none waits."
    )

    @model_validator(mode="after")
    def _outputs_fit_into_a_message(self) -> Self:
        if self.max_output_bytes > self.max_inline_bytes:
            raise ValueError("limits.max_output_bytes must not be above limits.max_inline_bytes")
        return self


class Log(_Section):
    """What is logged, and how."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Flag("--log-level", "LEVEL")] = Field(
        default="info", description="The least serious lines that are written."
    )
    format: Annotated[Literal["console", "json"], Flag("--log-format", "FORMAT")] = Field(
        default="console", description="Lines for people, or one JSON object a line."
    )


class Settings(_Section):
    """All effective settings."""

    network: Network
    broker: Broker
    agent: Agent
    policy: Policy
    home: Home
    keys: Keys
    energy: Energy
    coordinator: Coordinator
    gateway: Gateway
    client: Client
    telemetry: Telemetry
    models: Models
    catalogue: Catalogue
    limits: Limits
    log: Log

    @model_validator(mode="after")
    def _gates_need_a_broker(self) -> Self:
        energy, assistant = self.energy, self.home.assistant == "on"
        if self.home.url is None and (self.policy.gates or energy.watts_topic or energy.price_topic or assistant):
            raise ValueError(
                "policy.gates need home.url, the broker on which their topics are, as do energy's and home's"
            )
        return self
