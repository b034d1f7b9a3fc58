"""One error tree, split by who is at fault, each error with a stable code, an exit status and a hint.

`EdgeAgentError` is what the command line catches: it prints the message and the hint and leaves with the exit
status. Codes are part of the interface: they appear in logs, HTTP bodies and MQTT messages and never change their
meaning. `docs/errors.md` lists all of them; a test keeps that list true.
"""

from __future__ import annotations

from typing import ClassVar

RETRYABLE = frozenset(
    {
        "queue-full",
        "too-many-calls",
        "no-agent",
        "loading",
        "stopping",
        "deadline",
        "job-failed",
        "timeout",
        "unreachable",
    }
)
"""Codes with which the same call makes sense again, later; `docs/errors.md` lists them."""


class EdgeAgentError(Exception):
    """Anything this project raises on purpose.

    Args:
        message: what happened and why, as a sentence.
        hint: what to do next; falls back to the class's own hint.
        code: a more precise stable code than the class's own, from the class's `codes`.
        retry_after_seconds: when another try makes sense, where that is known.
    """

    code: ClassVar[str] = "internal"
    codes: ClassVar[tuple[str, ...]] = ()
    exit_status: ClassVar[int] = 70
    default_hint: ClassVar[str] = "This is a defect: please report it with the lines above."

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        code: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        if code is not None and code != type(self).code and code not in type(self).codes:
            raise ValueError(f"{type(self).__name__} does not declare the code {code!r}")
        self.message = message
        self.hint = hint if hint is not None else type(self).default_hint
        self.error_code = code or type(self).code
        self.retry_after_seconds = retry_after_seconds

    @property
    def retryable(self) -> bool:
        """Whether the same call makes sense again, later: after `retry_after_seconds`, where that is known."""
        return self.error_code in RETRYABLE


# -- our own configuration and use ------------------------------------------------------------------------------


class UsageError(EdgeAgentError):
    """The command or call cannot be carried out as it was given."""

    code = "usage"
    codes = ("not-supported",)
    exit_status = 64
    default_hint = "Run the command with --help to see an example."


class SettingsError(EdgeAgentError):
    """A setting is unknown, malformed or contradicts another."""

    code = "settings"
    exit_status = 78
    default_hint = "Run `edge-agent config` to see every setting and where it came from."


class KeyFileError(EdgeAgentError):
    """A key file is missing, cut, of the wrong kind or readable by others."""

    code = "key-file"
    exit_status = 77
    default_hint = "Make a new key with `edge-agent keygen FILE`, or restore the file from a backup."


class AccessError(EdgeAgentError):
    """Something on this machine belongs to another user, who does not share it."""

    code = "access"
    exit_status = 77
    default_hint = "Run the command as the user that the agent runs as, for example with sudo -u edge-agent."


class DeniedError(EdgeAgentError):
    """The coordinator does not let this caller do this."""

    code = "unauthorized"
    codes = ("forbidden",)
    exit_status = 77
    default_hint = "Put a key from `edge-agent coordinator keys add` into a file that `client.api_key_file` names."


class UnknownFamilyError(EdgeAgentError):
    """No family of that name is in the catalogue."""

    code = "unknown-family"
    exit_status = 65
    default_hint = "Run `edge-agent models` to see the families there are."


class InputError(EdgeAgentError):
    """A client's input does not fit the model, or a file cannot be read as what it should be."""

    code = "bad-input"
    codes = ("idempotency-conflict", "unsupported-encoding")
    exit_status = 65
    default_hint = "Compare the input with what `edge-agent models FAMILY` shows."


# -- the peer ---------------------------------------------------------------------------------------------------


class PeerError(EdgeAgentError):
    """The other side sent something that is refused; nothing of ours has changed."""

    code = "peer"
    exit_status = 76
    default_hint = "The message was refused and changed nothing; look at the sender."


class MalformedError(PeerError):
    """Bytes that are not what the protocol says."""

    code = "malformed"


class TooLargeError(PeerError):
    """A message or a part of it is above its limit."""

    code = "too-large"


class SignatureRefusedError(PeerError):
    """A signature does not verify, or is of an algorithm that the key is not pinned to."""

    code = "bad-signature"
    codes = ("wrong-algorithm", "unknown-key", "wrong-coordinator")


class RefusedError(PeerError):
    """A verified statement that is not acceptable here and now."""

    code = "refused"
    codes = (
        "wrong-kind",
        "wrong-version",
        "wrong-network",
        "wrong-agent",
        "wrong-job",
        "wrong-model",
        "wrong-input",
        "wrong-output",
        "stale-epoch",
        "stale-session",
        "not-enrolled",
        "revoked",
        "old-revocations",
        "certificate-expired",
        "no-certificate",
        "wrong-owner",
        "wrong-code",
        "token-unknown",
        "token-expired",
        "token-used",
        "key-known",
        "key-too-new",
        "too-many-keys",
        "not-fresh",
        "already-settled",
        "unknown-job",
        "unknown-version",
        "not-logged",
        "wrong-proof",
        "unverified",
        "rate-limited",
        "ledger-wrong",
        "check-steered",
    )


class DigestMismatchError(PeerError):
    """Bytes that do not have the digest that was promised."""

    code = "digest-mismatch"
    default_hint = "The bytes were changed on the way or on disk: fetch them again."


class CatalogueRefusedError(PeerError):
    """What a catalogue's address gave is not signed as the pinned root demands, or is older than what is known."""

    code = "catalogue-refused"
    codes = ("catalogue-expired",)
    default_hint = "What was known before stays in use; ask the catalogue's operator, or look at who is in between."


class LogForkedError(EdgeAgentError):
    """A coordinator signed two states of its log of which neither continues the other: the evidence is kept."""

    code = "log-forked"
    codes = ("log-shortened",)
    exit_status = 1
    default_hint = "Keep the files with both tree heads: they are signed with one key. Ask the coordinator's operator."


# -- the machine's resources --------------------------------------------------------------------------------------


class ResourceError(EdgeAgentError):
    """The machine, or a limit on it, does not allow this now."""

    code = "resource-exhausted"
    codes = ("queue-full", "does-not-fit", "no-room", "disk-full", "too-many-calls", "quota-exhausted")
    exit_status = 75
    default_hint = "Try again later, or raise the limit that the message names."


class WorkerError(EdgeAgentError):
    """The worker process died, hung or refused what it was given."""

    code = "worker"
    codes = ("worker-died", "worker-hung", "model-load", "model-run", "worker-start")
    exit_status = 70
    default_hint = "The attempt failed and the worker was started again; `edge-agent run --log-level debug` tells more."


class StateError(EdgeAgentError):
    """Something on disk is not as this version needs it."""

    code = "state"
    codes = ("newer-schema", "older-schema", "state-in-use")
    exit_status = 74
    default_hint = "Look at the state directory that `edge-agent config` names."


# -- the transport ------------------------------------------------------------------------------------------------


class TransportError(EdgeAgentError):
    """The network or the broker does not let us through."""

    code = "transport"
    codes = (
        "not-connected",
        "outbox-full",
        "broker-refused",
        "tls",
        "timeout",
        "unreachable",
        "stopping",
        "download-failed",
    )
    exit_status = 69
    default_hint = "Check that the broker and the coordinator run and that the address is right."


class JobFailedError(EdgeAgentError):
    """A job ended without a result; the message says why and who is to blame."""

    code = "job-failed"
    codes = (
        "deadline",
        "cancelled",
        "no-agent",
        "loading",
        "too-few-owners",
        "no-taker",
        "attempts-exhausted",
        "poison",
    )
    exit_status = 1
    default_hint = "Read the reason; jobs that failed for want of an agent can simply be sent again."


class ProcessFailedError(EdgeAgentError):
    """A process of ours did not come up, or ended when it should not have."""

    code = "process-failed"
    exit_status = 71
    default_hint = "The end of its log is shown above; `edge-agent up --state DIR` keeps whole logs in DIR/logs."
