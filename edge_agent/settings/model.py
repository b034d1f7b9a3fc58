"""What can be set: every setting with its type, its limits, its default and a description.

`docs/settings.md` lists all of it, and a test keeps that list true.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Self, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from edge_agent.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

MIB = 1024 * 1024
ENVIRONMENT_PREFIX = "EDGE_AGENT_"
MAX_PASSWORD_BYTES = 4096
HIDDEN = "(set)"
"""What is shown in place of a secret."""


@dataclass(frozen=True)
class Flag:
    """The command-line flag that sets a field, on the commands that have it.

    Attributes:
        name: with its dashes.
        metavar: what stands for the value in `--help`.
    """

    name: str
    metavar: str


@dataclass(frozen=True)
class Derived:
    """How the default of a field is found when it depends on the machine or on another field, in words."""

    text: str


def parse_host_port(text: str) -> tuple[str, int]:
    """Split `HOST:PORT` or `[IPV6]:PORT`; port 0 means any free one.

    Raises:
        ValueError: it is something else.
    """
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", text)
    if match is None or int(match[3]) > 65535:
        raise ValueError("must be HOST:PORT, for example 127.0.0.1:8420 or [::1]:8420")
    return match[1] or match[2], int(match[3])


def _http(text: str) -> str:
    parse_host_port(text)
    return text


def _broker_url(text: str) -> str:
    # Addresses end up in logs and on screens, so a password must never be part of one.
    if "@" in text:
        raise ValueError("must not carry a user or password: use broker.username and broker.password_file")
    if not re.fullmatch(r"mqtts?://[^\s/?#]+/?", text):
        raise ValueError("must be mqtt://HOST[:PORT] or mqtts://HOST[:PORT]")
    return text


Seconds = Annotated[float, Field(gt=0, le=86_400 * 365, allow_inf_nan=False)]
SecondsOrNever = Annotated[float, Field(ge=0, le=86_400 * 365, allow_inf_nan=False)]
MessageBytes = Annotated[int, Field(ge=65_536, le=255 * MIB)]
Label = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._=-]{0,63}$")]
FamilyPattern = Annotated[str, Field(pattern=r"^[a-z0-9*?][a-z0-9._*?-]{0,63}$")]


class _Section(BaseModel):
    """What all sections are: frozen, strict, and without unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)


class Network(_Section):
    """Which network this process belongs to."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$"), Flag("--network", "NAME")] = Field(
        default="home", description="Name of the network; all who work together use the same one."
    )


class Broker(_Section):
    """How the broker is reached."""

    url: Annotated[str, AfterValidator(_broker_url), Flag("--broker", "URL")] = Field(
        default="mqtt://127.0.0.1:1883",
        description="Address of the broker: `mqtt://HOST[:PORT]`, or `mqtts://HOST[:PORT]` for TLS.",
    )
    username: str | None = Field(default=None, description="User name for the broker's own access control.")
    password_file: Path | None = Field(
        default=None, description="File whose first line is the password for the broker."
    )
    password: SecretStr | None = Field(
        default=None,
        description="The password itself; only from the environment, never shown, wins over the file.",
    )
    ca_file: Path | None = Field(
        default=None, description="PEM file of the only authorities to trust for TLS; otherwise the system's."
    )
    client_cert_file: Path | None = Field(
        default=None, description="PEM certificate to show to the broker; needs `broker.client_key_file`."
    )
    client_key_file: Path | None = Field(default=None, description="PEM key of that certificate, not encrypted.")
    protocol: Literal["auto", "5", "3.1.1"] = Field(
        default="auto", description="MQTT version; `auto` tries 5 and falls back to 3.1.1."
    )
    keepalive_seconds: Annotated[int, Field(ge=1, le=65_535)] = Field(
        default=30, description="A link that is silent for about twice this long counts as dead."
    )
    retry_max_seconds: Annotated[float, Field(ge=0.2, le=3600, allow_inf_nan=False)] = Field(
        default=3.0,
        description="Longest wait before the broker is tried again; many agents on one broker may want more.",
    )

    def read_password(self) -> str | None:
        """Return the password from the environment or else from `password_file`, or None if neither is set.

        Raises:
            SettingsError: the file cannot be read, or does not start with a line of text.
        """
        if self.password is not None:
            return self.password.get_secret_value()
        if self.password_file is None:
            return None
        try:
            with self.password_file.open("rb") as file:
                first = file.readline(MAX_PASSWORD_BYTES + 1).rstrip(b"\r\n")
            password = first.decode()
        except OSError as error:
            raise SettingsError(
                f"broker.password_file {self.password_file} cannot be read: {error.strerror}."
            ) from error
        except UnicodeDecodeError:
            # Without the cause: it would carry the bytes of the password.
            raise SettingsError(f"broker.password_file {self.password_file} is not UTF-8 text.") from None
        if not password or len(first) > MAX_PASSWORD_BYTES:
            raise SettingsError(
                f"The first line of broker.password_file {self.password_file} is empty or longer than "
                f"{MAX_PASSWORD_BYTES} bytes.",
                hint="Put the password alone on the first line of the file.",
            )
        return password


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

    http: Annotated[str, AfterValidator(_http), Flag("--http", "HOST:PORT")] = Field(
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
        description="A job without a result after so long has failed.",
    )
    max_attempts: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=5, description="Attempts before a job has failed."
    )
    max_queued_jobs: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        default=10_000, description="Jobs that may wait; more are refused with `queue-full`."
    )
    max_request_bytes: Annotated[int, Field(ge=1024, le=2**31)] = Field(
        default=16 * MIB, description="Largest HTTP request body."
    )
    offer_grace_seconds: SecondsOrNever = Field(
        default=30.0,
        description="How long jobs for a family that nobody offers now are kept waiting for an agent.",
    )
    retention_hours: Annotated[float, Field(gt=0, le=24 * 3650, allow_inf_nan=False)] = Field(
        default=168.0, description="How long jobs that have ended are kept, with their receipts."
    )


def _mirror(text: str) -> str:
    if "@" in text or not re.fullmatch(r"(?:https?://[^\s/?#]+|file://)(?:/[^\s?#]*)?", text):
        raise ValueError("must be an https, http or file URL, without user, password or query")
    return text


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
    mirrors: Annotated[tuple[Annotated[str, AfterValidator(_mirror)], ...], Field(max_length=16)] = Field(
        default=(),
        description="Addresses that are asked for `sha256/DIGEST` first, such as a machine at home.",
    )


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
    coordinator: Coordinator
    models: Models
    limits: Limits
    log: Log


class Key(NamedTuple):
    """One setting: its section, its name there, and its field."""

    section: str
    name: str
    field: FieldInfo

    @property
    def dotted(self) -> str:
        """`section.name`, as people write it."""
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"{ENVIRONMENT_PREFIX}{self.section}_{self.name}".upper()

    @property
    def flag(self) -> Flag | None:
        """The flag that sets it, on commands that have it."""
        return next((part for part in self.field.metadata if isinstance(part, Flag)), None)

    @property
    def default_text(self) -> str:
        """The default, as `docs/settings.md` and `--help` show it."""
        derived = next((part.text for part in self.field.metadata if isinstance(part, Derived)), None)
        return derived if derived is not None else plain(self.field.default)

    def is_a(self, kind: type) -> bool:
        """Whether values of this setting are of `kind`, None aside."""
        annotation = self.field.annotation
        return any(part is kind or get_origin(part) is kind for part in (annotation, *get_args(annotation)))


def keys() -> Iterator[Key]:
    """Give every setting there is, section by section."""
    for section, outer in Settings.model_fields.items():
        model = outer.annotation
        if not (isinstance(model, type) and issubclass(model, _Section)):  # pragma: no cover
            raise TypeError(f"the section {section} is no model")
        for name, field in model.model_fields.items():
            yield Key(section, name, field)


KEYS = {key.dotted: key for key in keys()}
"""Every setting by its `section.name`."""


def plain(value: object) -> str:
    """Return a value as people would write it in the file; "not set" for None and for no items."""
    match value:
        case None | ():
            return "not set"
        case SecretStr():
            return HIDDEN
        case float() if value.is_integer():
            return str(int(value))
        case tuple():
            return ", ".join(str(item) for item in value)
        case _:
            return str(value)
