"""Receipts: a whole one verifies, and whatever was done to one is noticed and named."""

from __future__ import annotations

import pytest
import wire_samples
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import (
    InputError,
    MalformedError,
    PeerError,
    RefusedError,
    SignatureRefusedError,
    TooLargeError,
)
from edge_agent.wire import cose, strict_cbor
from edge_agent.wire.envelope import CONTENT_TYPE, seal
from edge_agent.wire.keys import PublicKey, SigningKey
from edge_agent.wire.messages import Failure, TensorDigest
from edge_agent.wire.receipts import (
    MAX_RECEIPT_FILE_BYTES,
    VerifiedReceipt,
    make_receipt,
    verify_receipt,
    without_salt,
)
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

COORDINATOR = wire_samples.COORDINATOR
AGENT = wire_samples.AGENT
RESULT = cose.sign1(AGENT, strict_cbor.encode(wire_samples.result().model_dump()), content_type=CONTENT_TYPE)


def made(
    *,
    coordinator: SigningKey = COORDINATOR,
    result: bytes = RESULT,
    agent: SigningKey = AGENT,
    network: str = wire_samples.NETWORK,
    salt: bytes | None = wire_samples.SALT,
    accepted_ms: int = wire_samples.NOW_MS + 7,
) -> bytes:
    """Return a receipt, a right one by default."""
    return make_receipt(
        coordinator,
        result=result,
        agent_key=agent.public,
        network=network,
        salt=salt,
        accepted_ms=accepted_ms,
    )


GOOD = made()


def verified(data: bytes = GOOD) -> VerifiedReceipt:
    """Verify with the right key."""
    return verify_receipt(data, COORDINATOR.public)


def refused(data: bytes, key: SigningKey = COORDINATOR, network: str | None = None) -> PeerError:
    """Return the error that verifying ends in."""
    with pytest.raises(PeerError) as caught:
        verify_receipt(data, key.public, network=network)
    return caught.value


def test_a_receipt_verifies() -> None:
    """It gives the result, both keys, the time and the salt, in a file that starts with COSE's tag."""
    receipt = verify_receipt(GOOD, COORDINATOR.public, network="home")
    assert receipt.result == wire_samples.result()
    assert (receipt.coordinator, receipt.agent) == (COORDINATOR.public, AGENT.public)
    assert receipt.accepted_ms == wire_samples.NOW_MS + 7
    assert receipt.salt == wire_samples.SALT
    assert GOOD[:2] == b"\xd2\x84"


@pytest.mark.parametrize("network", [None, "home"])
def test_each_signature_is_verified_once(monkeypatch: pytest.MonkeyPatch, network: str | None) -> None:
    """The coordinator's and the agent's, also when the receipt itself says which network it is for."""
    asked: list[PublicKey] = []
    verify = PublicKey.verify

    def counting(key: PublicKey, signature: bytes, message: bytes) -> None:
        asked.append(key)
        verify(key, signature, message)

    monkeypatch.setattr(PublicKey, "verify", counting)
    assert verify_receipt(GOOD, COORDINATOR.public, network=network).result == wire_samples.result()
    assert asked == [COORDINATOR.public, AGENT.public]


def test_inputs_and_outputs_are_recognised() -> None:
    """The very tensors, NaN included, are those that the receipt is for."""
    receipt = verified()
    receipt.check_inputs([wire_samples.INPUT])
    receipt.check_outputs([wire_samples.OUTPUT])


def other(tensor: Tensor, **change: object) -> Tensor:
    """Return the tensor with another name, data type, shape or bytes."""
    spec = tensor.spec
    parts = {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape, "data": tensor.data} | change
    data = parts.pop("data")
    return Tensor(TensorSpec(**parts), data)  # type: ignore[arg-type] # whatever the test asks for


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ([], "given are none"),
        ([other(wire_samples.INPUT, name="picture")], "given are picture; the receipt is for image"),
        ([wire_samples.INPUT, wire_samples.INPUT], "given are image"),
        ([wire_samples.INPUT, other(wire_samples.INPUT, name="more")], "given are image, more"),
        ([other(wire_samples.INPUT, datatype=DataType.INT32)], "is INT32 of shape"),
        ([other(wire_samples.INPUT, shape=(2, 1))], r"shape \[2, 1\]; the receipt is for FP32 of shape \[1, 2\]"),
        ([other(wire_samples.INPUT, data=bytes(8))], "its digest differs"),
    ],
)
def test_other_inputs_are_refused(tensors: list[Tensor], problem: str) -> None:
    """Missing, renamed, doubled, reshaped, of another type or with other bytes."""
    with pytest.raises(RefusedError, match=problem) as caught:
        verified().check_inputs(tensors)
    assert caught.value.error_code == "wrong-input"


def test_other_outputs_are_refused() -> None:
    """One bit is enough."""
    with pytest.raises(RefusedError, match="its digest differs") as caught:
        verified().check_outputs([other(wire_samples.OUTPUT, data=bytes([6, *bytes(7)]))])
    assert caught.value.error_code == "wrong-output"


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_no_byte_can_be_changed(at: int, flip: int) -> None:
    """A changed byte is refused, or is in the salt, and then no input fits any more."""
    data = bytearray(GOOD)
    data[at] ^= flip
    try:
        receipt = verified(bytes(data))
    except PeerError:
        return
    assert receipt.salt != wire_samples.SALT
    with pytest.raises((RefusedError, InputError)):
        receipt.check_inputs([wire_samples.INPUT])


@given(st.integers(0, len(GOOD) - 1))
def test_a_cut_file_is_malformed(length: int) -> None:
    """However much is left of it."""
    assert isinstance(refused(GOOD[:length]), MalformedError)


@given(st.binary(max_size=300))
def test_other_bytes_are_refused(data: bytes) -> None:
    """Any other file is no receipt."""
    assert isinstance(refused(data), PeerError)


def test_a_longer_file_is_refused() -> None:
    """Bytes behind the end are not ignored, and endless ones not read."""
    assert isinstance(refused(GOOD + b"\x00"), MalformedError)
    assert isinstance(refused(GOOD + bytes(MAX_RECEIPT_FILE_BYTES)), TooLargeError)


def test_another_coordinator_is_refused() -> None:
    """A receipt that somebody made for themselves names another key, and both ids are said."""
    stranger = SigningKey.generate(bytes(range(32)))
    error = refused(made(coordinator=stranger))
    assert error.error_code == "unknown-key"
    assert stranger.public.id in str(error)
    assert COORDINATOR.public.id in str(error)
    assert refused(GOOD, key=stranger).error_code == "unknown-key"


def test_a_borrowed_key_id_is_refused() -> None:
    """Who names the coordinator's key but cannot sign with it gets nowhere."""
    message = cose.parse_sign1(GOOD, MAX_RECEIPT_FILE_BYTES)
    other_signature = cose.parse_sign1(made(accepted_ms=1), MAX_RECEIPT_FILE_BYTES).signature
    forged = GOOD.replace(message.signature, other_signature)
    error = refused(forged)
    assert isinstance(error, SignatureRefusedError)
    assert error.error_code == "bad-signature"


def test_a_result_by_another_agent_is_refused() -> None:
    """The coordinator names one key, the result was signed with another."""
    assert refused(made(agent=wire_samples.OTHER_AGENT)).error_code == "unknown-key"


def test_a_result_that_speaks_for_another_agent_is_refused() -> None:
    """An agent's own good signature is none for somebody else."""
    statement = wire_samples.result().model_copy(update={"agent_id": wire_samples.OTHER_AGENT.public.id})
    result = cose.sign1(AGENT, strict_cbor.encode(statement.model_dump()), content_type=CONTENT_TYPE)
    assert refused(made(result=result)).error_code == "wrong-agent"


def test_a_swapped_result_is_refused() -> None:
    """The result of another receipt, put into this one, breaks the coordinator's signature."""
    another = wire_samples.result().model_copy(update={"epoch": 2})
    result = cose.sign1(AGENT, strict_cbor.encode(another.model_dump()), content_type=CONTENT_TYPE)
    assert len(result) == len(RESULT)
    assert refused(GOOD.replace(RESULT, result)).error_code == "bad-signature"


def test_other_statements_are_no_receipt() -> None:
    """Neither a job by the coordinator nor a failure in the place of the result."""
    job = seal(COORDINATOR, wire_samples.job(), (wire_samples.INPUT.data,))
    assert refused(job[: cose.sign1_end(job)]).error_code == "wrong-kind"
    failure = next(s for _, s, _ in wire_samples.one_of_each() if isinstance(s, Failure))
    inner = cose.sign1(AGENT, strict_cbor.encode(failure.model_dump()), content_type=CONTENT_TYPE)
    assert refused(made(result=inner)).error_code == "wrong-kind"


def test_networks_are_kept_apart() -> None:
    """For another network than asked for, or with a result from another one."""
    assert refused(GOOD, network="club").error_code == "wrong-network"
    assert refused(made(network="club")).error_code == "wrong-network"
    assert refused(made(network="club"), network="club").error_code == "wrong-network"


def test_a_result_with_trailing_tensors_is_refused() -> None:
    """The receipt holds the signed statement alone."""
    with_outputs = seal(AGENT, wire_samples.result(), (wire_samples.OUTPUT.data,))
    assert with_outputs[: cose.sign1_end(with_outputs)] == RESULT
    assert refused(made(result=with_outputs)).error_code == "malformed"


def test_a_payload_without_a_network_is_malformed() -> None:
    """The coordinator's signature alone makes no receipt."""
    payload = strict_cbor.decode(cose.parse_sign1(GOOD, MAX_RECEIPT_FILE_BYTES).payload, max_bytes=len(GOOD))
    assert payload["network"] == "home"
    nameless = {name: value for name, value in payload.items() if name != "network"}
    for other in (nameless, {**payload, "network": 3}, {**payload, "network": None}, []):
        data = cose.sign1(COORDINATOR, strict_cbor.encode(other), content_type=CONTENT_TYPE)
        assert isinstance(refused(data), MalformedError)


class TestSalt:
    """The salt opens the inputs and can be left out."""

    def test_without_it_all_else_is_proven(self) -> None:
        """The same receipt without its salt verifies; outputs can be compared, inputs cannot."""
        bare = without_salt(GOOD)
        assert bare == made(salt=None)
        assert wire_samples.SALT not in bare
        receipt = verified(bare)
        receipt.check_outputs([wire_samples.OUTPUT])
        with pytest.raises(InputError, match="without its salt"):
            receipt.check_inputs([wire_samples.INPUT])

    def test_another_salt_opens_nothing(self) -> None:
        """It is not signed, and need not be."""
        with pytest.raises(RefusedError, match="its digest differs"):
            verified(made(salt=bytes(32))).check_inputs([wire_samples.INPUT])

    @pytest.mark.parametrize(
        "unprotected",
        [
            {"salt": b"short"},
            {"salt": wire_samples.SALT + b"\x00"},
            {"salt": "text"},
            {"pepper": wire_samples.SALT},
            {"salt": wire_samples.SALT, "more": 1},
        ],
    )
    def test_nothing_else_is_beside_the_signature(self, unprotected: dict[int | str, object]) -> None:
        """With a salt of another length, bytes could be moved between it and the input."""
        payload = cose.parse_sign1(GOOD, MAX_RECEIPT_FILE_BYTES).payload
        data = cose.sign1(COORDINATOR, payload, content_type=CONTENT_TYPE, unprotected=unprotected)
        assert isinstance(refused(data), MalformedError)

    def test_bytes_cannot_move_between_salt_and_input(self) -> None:
        """A longer input with a shorter salt has the same digest, but such a salt is refused."""
        salt, data = wire_samples.SALT, wire_samples.INPUT.data
        moved = Tensor(TensorSpec("image", DataType.UINT8, (len(data) + 1,)), salt[-1:] + data)
        assert TensorDigest.of(moved, salt[:-1]).digest == TensorDigest.of(wire_samples.INPUT, salt).digest
        with pytest.raises(ValueError, match="32 bytes"):
            made(salt=salt[:-1])


def test_the_statement_is_small() -> None:
    """A receipt of one input and one output, two signatures and the salt included, is below 1,000 bytes."""
    assert len(GOOD) < 1_000
