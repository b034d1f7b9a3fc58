"""Sealed jobs: inputs that only the chosen agent can read, and outputs that only the client can (HPKE, RFC 9180).

A sealed job is an ordinary one whose only input is a tensor `#sealed`, and whose outputs are `#sealed` and `#digest`.
All that stands between client and agent sees their lengths and digests. Each is one byte that names the suite, the
encapsulated key, and the ciphertext. HPKE's `info` binds the inputs to the network and the agent, and the outputs to
these very inputs. `#digest` is a salted hash of the outputs as they were before they were sealed: two machines of one
class that were sent the same inputs with the same salt must give the same one, so that whoever cannot read the outputs
can still compare them.

What is inside is CBOR (`strict_cbor`); the schema is in docs/protocol.md. HPKE does not say who sealed the inputs. That
the outputs are the agent's, its signed result proves: the receipt has the digests of both tensors.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from edge_agent.errors import DigestMismatchError, MalformedError, PeerError, RefusedError, UsageError
from edge_agent.wire import strict_cbor
from edge_agent.wire.hpke import SUITES, PublicHalf, SecretHalf, decrypt, encrypt
from edge_agent.wire.statements import MAX_TENSORS
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

SEALED: Final = "#sealed"
DIGEST: Final = "#digest"
SALT_BYTES: Final = 32
DIGEST_BYTES: Final = 32
VERSION: Final = 1
MAX_NAME_CHARS: Final = 256
_MOST_KEYS: Final = 4
_LARGEST_KEY: Final = 4096


@dataclass(frozen=True, slots=True)
class Question:
    """What a client asks of one agent.

    Attributes:
        family: as the job names it.
        outputs: wanted, empty for all.
        salt: 32 bytes, the same for agents whose answers are to be compared.
        reply: what the outputs may be sealed to, the best first; none is refused.
    """

    family: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]
    salt: bytes
    reply: tuple[PublicHalf, ...]


@dataclass(frozen=True, slots=True)
class Unsealed:
    """A question that was opened, and what its answer is bound to.

    Attributes:
        info: binds the answer to the sealed inputs.
    """

    question: Question
    info: bytes


def new_salt() -> bytes:
    """Return a salt that nobody can guess."""
    return secrets.token_bytes(SALT_BYTES)


def is_sealed(specs: Iterable[TensorSpec]) -> bool:
    """Whether inputs, or outputs, are those of a sealed job."""
    return any(spec.name == SEALED for spec in specs)


def why_not_sealed_inputs(specs: Sequence[TensorSpec]) -> str | None:
    """Say what is wrong with the inputs of a sealed job, or None."""
    if len(specs) != 1 or not _are_bytes(specs[0]):
        return f"a sealed job has one input, {SEALED!r}, of type UINT8 and one dimension"
    return None


def why_not_sealed_outputs(specs: Sequence[TensorSpec]) -> str | None:
    """Say what is wrong with the outputs of a sealed job, or None."""
    names = tuple(spec.name for spec in specs)
    if names != (SEALED, DIGEST) or not all(map(_are_bytes, specs)) or specs[1].shape != (DIGEST_BYTES,):
        return f"a sealed job has two outputs, {SEALED!r} and {DIGEST!r}, of type UINT8 and one dimension"
    return None


def seal_question(question: Question, to: PublicHalf, *, network: str, agent_id: str) -> Tensor:
    """Seal a question to an agent.

    Raises:
        UsageError: `not-supported`: the library here has no HPKE.
        ValueError: a key or a salt of the wrong length, or one that anybody could open.
    """
    if len(question.salt) != SALT_BYTES:
        raise ValueError(f"A salt has {SALT_BYTES} bytes, not {len(question.salt)}.")
    content = {
        "v": VERSION,
        "family": question.family,
        "inputs": [_packed(tensor) for tensor in question.inputs],
        "outputs": list(question.outputs),
        "salt": question.salt,
        "reply": [[half.suite, half.raw] for half in question.reply],
    }
    return _tensor(SEALED, encrypt(strict_cbor.encode(content), to, _question_info(network, agent_id)))


def open_question(sealed: Tensor, keys: Sequence[SecretHalf], *, network: str, agent_id: str) -> Unsealed:
    """Open a question that was sealed to us.

    Args:
        sealed: foreign bytes.
        keys: our secret halves, one a suite.
        network: where we work.
        agent_id: who we are.

    Raises:
        RefusedError: `wrong-input`: not for us, altered, or of a suite that is not spoken here.
        MalformedError: what was sealed is no question.
    """
    content = _decoded(decrypt(sealed.data, keys, _question_info(network, agent_id)))
    fields = {"v", "family", "inputs", "outputs", "salt", "reply"}
    if not isinstance(content, dict) or content.keys() != fields or content["v"] != VERSION:
        raise MalformedError("What was sealed is no question of this version.")
    family, outputs, salt = content["family"], content["outputs"], content["salt"]
    if not _is_name(family) or not isinstance(outputs, list) or not all(map(_is_name, outputs)):
        raise MalformedError("The names in a sealed question are malformed.")
    if not isinstance(salt, bytes) or len(salt) != SALT_BYTES or len(outputs) > MAX_TENSORS:
        raise MalformedError(f"The salt of a sealed question has {SALT_BYTES} bytes.")
    question = Question(family, _unpacked(content["inputs"]), tuple(outputs), salt, _halves(content["reply"]))
    return Unsealed(question, _answer_info(network, agent_id, sealed))


def seal_answer(unsealed: Unsealed, outputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Seal outputs to whoever asked; the second tensor is what others can compare.

    Raises:
        RefusedError: `wrong-input`: no suite that the asker named is spoken here, or its key is none.
    """
    content = strict_cbor.encode({"v": VERSION, "outputs": [_packed(tensor) for tensor in outputs]})
    for half in unsealed.question.reply:
        if half.suite in SUITES:
            try:
                sealed = encrypt(content, half, unsealed.info)
            except (ValueError, UsageError) as error:
                raise RefusedError(
                    f"Nothing can be sealed to the key of the reply: {error}", code="wrong-input"
                ) from error
            return _tensor(SEALED, sealed), _tensor(DIGEST, compared(unsealed.question.salt, outputs))
    raise RefusedError("The sealed question names no key for the reply that can be used here.", code="wrong-input")


def open_answer(  # noqa: PLR0913 what binds an answer to its question, by name
    sealed: Sequence[Tensor],
    keys: Sequence[SecretHalf],
    *,
    asked: Tensor,
    salt: bytes,
    network: str,
    agent_id: str,
) -> tuple[Tensor, ...]:
    """Open the outputs of a sealed job; who sealed them, only the receipt says.

    Args:
        sealed: both outputs, foreign bytes.
        keys: the secret halves of the question's `reply`.
        asked: the sealed input.
        salt: of the question.
        network: as the question was sealed for.
        agent_id: likewise.

    Raises:
        RefusedError: `wrong-output`: not for this question, or altered.
        MalformedError: what was sealed is no answer.
        DigestMismatchError: it is not what `#digest` says.
    """
    problem = why_not_sealed_outputs([tensor.spec for tensor in sealed])
    if problem is not None:
        raise RefusedError(f"The answer is none to a sealed job: {problem}.", code="wrong-output")
    try:
        plain = decrypt(sealed[0].data, keys, _answer_info(network, agent_id, asked))
    except PeerError as error:
        raise RefusedError("The sealed outputs are not for this question.", code="wrong-output") from error
    content = _decoded(plain)
    if not isinstance(content, dict) or content.keys() != {"v", "outputs"} or content["v"] != VERSION:
        raise MalformedError("What was sealed is no answer of this version.")
    outputs = _unpacked(content["outputs"])
    if compared(salt, outputs) != sealed[1].data:
        raise DigestMismatchError("The sealed outputs are not those whose digest stands beside them.")
    return outputs


def compared(salt: bytes, outputs: Sequence[Tensor]) -> bytes:
    """Return the digest by which outputs can be compared without being read: salted, because labels are guessable."""
    return hashlib.sha256(salt + strict_cbor.encode([_packed(tensor) for tensor in outputs])).digest()


def _question_info(network: str, agent_id: str) -> bytes:
    return b"edge-agent sealed question 1\0" + network.encode() + b"\0" + agent_id.encode()


def _answer_info(network: str, agent_id: str, asked: Tensor) -> bytes:
    names = network.encode() + b"\0" + agent_id.encode()
    return b"edge-agent sealed answer 1\0" + names + b"\0" + hashlib.sha256(asked.data).digest()


def _decoded(plain: bytes) -> object:
    return strict_cbor.decode(plain, max_bytes=len(plain), max_items=MAX_TENSORS * 64)


def _packed(tensor: Tensor) -> dict[str, Any]:
    spec = tensor.spec
    return {"name": spec.name, "datatype": spec.datatype.value, "shape": list(spec.shape), "data": tensor.data}


def _unpacked(value: object) -> tuple[Tensor, ...]:
    if not isinstance(value, list) or len(value) > MAX_TENSORS:
        raise MalformedError(f"What was sealed are not up to {MAX_TENSORS} tensors.")
    return tuple(map(_tensor_from, value))


def _tensor_from(value: object) -> Tensor:
    if not isinstance(value, dict) or value.keys() != {"name", "datatype", "shape", "data"}:
        _no_tensor()
    name, datatype, shape, data = value["name"], value["datatype"], value["shape"], value["data"]
    if not _is_name(name) or not isinstance(shape, list) or not all(type(size) is int for size in shape):
        _no_tensor()
    if (
        not isinstance(data, bytes)
        or not isinstance(datatype, str)
        or datatype not in {kind.value for kind in DataType}
    ):
        _no_tensor()
    try:
        return Tensor(TensorSpec(name, DataType(datatype), tuple(shape)), data)
    except (ValueError, PeerError):
        _no_tensor()


def _no_tensor() -> NoReturn:
    raise MalformedError("A tensor that was sealed is malformed.")


def _halves(value: object) -> tuple[PublicHalf, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= _MOST_KEYS:
        raise MalformedError("The keys for the reply are malformed.")
    halves = []
    for entry in value:
        if not isinstance(entry, list) or len(entry) != 2 or type(entry[0]) is not int:
            raise MalformedError("A key for the reply is malformed.")
        if not isinstance(entry[1], bytes) or len(entry[1]) > _LARGEST_KEY:
            raise MalformedError("A key for the reply is malformed.")
        halves.append(PublicHalf(entry[0], entry[1]))
    return tuple(halves)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME_CHARS


def _are_bytes(spec: TensorSpec) -> bool:
    return spec.datatype is DataType.UINT8 and len(spec.shape) == 1


def _tensor(name: str, data: bytes) -> Tensor:
    return Tensor(TensorSpec(name, DataType.UINT8, (len(data),)), data)
