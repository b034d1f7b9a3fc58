"""Between the agent and its worker: sealed inputs are opened on the way there, outputs sealed on the way back.

What the core holds, signs and spools is sealed; the worker, which computes, sees it as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edge_agent.agent.events import RunModel
from edge_agent.errors import EdgeAgentError, MalformedError, RefusedError
from edge_agent.inference.events import RunDone, RunFailed, WorkerDied, WorkerEvent
from edge_agent.wire.hpke import HYBRID, SecretHalf, new_hybrid
from edge_agent.wire.sealing import Unsealed, is_sealed, open_question, seal_answer, why_not_sealed_inputs
from edge_agent.wire.sealing_key import SealingKey


def halves_of(key: SealingKey | None) -> tuple[SecretHalf, ...]:
    """Return what opens jobs that are sealed to this agent, the best suite first; nothing without a key.

    The hybrid one is made for this run of the agent and never written: what was sealed to it nobody opens later.
    """
    if key is None:
        return ()
    hybrid = new_hybrid()
    return (hybrid, SecretHalf(key.private)) if hybrid is not None else (SecretHalf(key.private),)


def hybrid_key(halves: Sequence[SecretHalf]) -> bytes | None:
    """Return the public key of the hybrid suite among them."""
    return next((half.public.raw for half in halves if half.suite == HYBRID), None)


class Unsealing:
    """Opens and seals for one agent. What was sealed is forgotten when its run ends, or the worker does.

    `opened` is called by the agent's own thread, `closed` by the one that reads the worker's pipe.

    Args:
        keys: our secret halves, the best first; none where this agent takes no sealed jobs.
        network: where we work.
        agent_id: who we are.
    """

    def __init__(self, keys: Sequence[SecretHalf], network: str, agent_id: str) -> None:
        self._keys = keys
        self._network = network
        self._agent_id = agent_id
        self._runs: dict[int, Unsealed] = {}

    def opened(self, run: RunModel) -> RunModel:
        """Return a run with its inputs in the clear; one that is not sealed as it is.

        Raises:
            RefusedError: it is sealed to somebody else, or was altered.
            MalformedError: what was sealed is no question.
        """
        if not is_sealed(tensor.spec for tensor in run.inputs):
            return run
        if problem := why_not_sealed_inputs([tensor.spec for tensor in run.inputs]):
            raise MalformedError(f"The inputs are not those of a sealed job: {problem}.")
        if not self._keys:
            raise RefusedError("this agent takes no sealed jobs", code="wrong-input")
        sealed = replace(run.inputs[0], data=bytes(run.inputs[0].data))  # it may be a view of the message
        unsealed = open_question(sealed, self._keys, network=self._network, agent_id=self._agent_id)
        self._runs[run.token] = unsealed
        return replace(run, inputs=unsealed.question.inputs, outputs=unsealed.question.outputs)

    def forget(self) -> None:
        """Keep nothing of any run: the worker is gone, and runs come back under new tokens, if at all."""
        self._runs.clear()

    def closed(self, event: WorkerEvent) -> WorkerEvent:
        """Return what the worker said with the outputs of a sealed run sealed."""
        if isinstance(event, WorkerDied):
            self.forget()
        if not isinstance(event, RunDone | RunFailed):
            return event
        unsealed = self._runs.pop(event.token, None)
        if unsealed is None or isinstance(event, RunFailed):
            return event
        try:
            return replace(event, outputs=seal_answer(unsealed, event.outputs))
        except EdgeAgentError as error:
            return RunFailed(event.token, error.error_code, error.message, "requester")
