"""What an agent says of an attempt, signed: a result with its tensors, or a failure with its cause. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from edge_agent.agent.attempts import Held
from edge_agent.agent.events import Spooled
from edge_agent.agent.unsettled import Key
from edge_agent.clock import Now
from edge_agent.errors import RefusedError
from edge_agent.inference.events import RunDone
from edge_agent.wire.envelope import attach, open_envelope, seal, seal_together
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.messages import Failure, Result, TensorDigest, VariantClass
from edge_agent.wire.topics import Topics

MAX_MESSAGE_CHARS = 500

Blame: TypeAlias = Literal["agent", "model", "requester"]


class Answers:
    """Signs with the agent's key for one network.

    Args:
        key: the agent's.
        topics: of the network.
    """

    def __init__(self, key: SigningKey, topics: Topics) -> None:
        self._key = key
        self._network = topics.network

    def results(self, done: Sequence[tuple[Held, VariantClass, RunDone]], now: Now) -> list[bytes]:
        """Say what came out of runs, all signed together: a message of each."""
        said = [(self._result(held, klass, run, now), [t.data for t in run.outputs]) for held, klass, run in done]
        return seal_together(self._key, said)

    def _result(self, held: Held, klass: VariantClass, done: RunDone, now: Now) -> Result:
        """Say what came out, of exactly these inputs: what is held has the digests that the job names (`attach`)."""
        job = held.job
        return Result(
            network=self._network,
            issued_ms=now.wall_ms,
            job=job.job,
            epoch=job.epoch,
            agent_id=self._key.public.id,
            family=job.family,
            variant=job.variant,
            klass=klass,
            inputs=job.inputs,
            outputs=tuple(TensorDigest.of(tensor) for tensor in done.outputs),
            received_ms=held.received_ms,
            finished_ms=now.wall_ms,
            run_us=done.run_us,
        )

    def failure(  # noqa: PLR0913 the fields of the statement
        self,
        key: Key,
        code: str,
        message: str,
        blame: Blame,
        now: Now,
        *,
        retry: bool,
        retry_after_seconds: float = 0.0,
    ) -> bytes:
        """Say that there is no result of (job, epoch) and why, whether another attempt makes sense, and when here."""
        job, epoch = key
        failure = Failure(
            network=self._network,
            issued_ms=now.wall_ms,
            job=job,
            epoch=epoch,
            agent_id=self._key.public.id,
            code=code,
            message=_plain(message),
            blame=blame,
            retry=retry,
            retry_after_ms=int(retry_after_seconds * 1000),
        )
        return seal(self._key, failure)

    def model_of(self, spooled: Spooled) -> tuple[str, bytes]:
        """Check what the disk gave back as if a stranger had sent it: our signature, this attempt, whole tensors.

        Returns:
            The family and the variant of a result; both empty for a failure.

        Raises:
            PeerError: it is not as we made it, and not to be sent.
        """
        kinds: tuple[type[Result | Failure], ...] = (Result, Failure)
        opened = open_envelope(
            spooled.payload, self._key.public, kinds, network=self._network, max_bytes=len(spooled.payload)
        )
        statement = opened.statement
        if (statement.job, statement.epoch) != (spooled.job, spooled.epoch):
            raise RefusedError("it is the answer to another attempt", code="wrong-job")
        if not isinstance(statement, Result):
            return "", b""
        attach(statement.outputs, opened.attachments)
        return statement.family, statement.variant


def _plain(message: str) -> str:
    """Make the text of a library fit for a statement: printable, on one line, bounded."""
    return "".join(char if char.isprintable() else " " for char in message)[:MAX_MESSAGE_CHARS]
