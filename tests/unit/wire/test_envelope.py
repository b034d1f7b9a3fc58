from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import wire_samples
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.errors import DigestMismatchError, MalformedError, PeerError, TooLargeError
from edge_agent.wire import cose
from edge_agent.wire.envelope import CONTENT_TYPE, announced_key, attach, open_envelope, peek_key_id, seal
from edge_agent.wire.kinds import ALL_STATEMENTS
from edge_agent.wire.messages import (
    Birth,
    Failure,
    Job,
    Receipt,
    Result,
    Statement,
    TensorDigest,
)
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec, digest

if TYPE_CHECKING:
    from edge_agent.wire.keys import SigningKey

SAMPLES = wire_samples.one_of_each()
BY_KIND = {statement.kind: seal(key, statement, tensors) for key, statement, tensors in SAMPLES}
LIMIT = 100_000


@pytest.mark.parametrize(("key", "statement", "tensors"), SAMPLES, ids=lambda value: getattr(value, "kind", ""))
def test_every_kind_opens_to_what_was_sealed(key: SigningKey, statement: Statement, tensors: tuple[bytes, ...]) -> None:
    """Statement, tensors, key and the signed bytes come out as they went in."""
    data = seal(key, statement, tensors)
    opened = open_envelope(data, key.public, type(statement), network=wire_samples.NETWORK, max_bytes=len(data))
    assert opened.statement == statement
    assert tuple(bytes(attachment) for attachment in opened.attachments) == tensors
    assert opened.key == key.public
    assert data.startswith(opened.signed)
    assert opened.signed == data[: cose.sign1_end(data)]
    assert peek_key_id(data, LIMIT) == key.public.id


def test_a_view_opens_like_bytes() -> None:
    """A message inside a longer buffer needs no copy."""
    data = BY_KIND["result"]
    opened = open_envelope(
        memoryview(data), wire_samples.AGENT.public, Result, network=wire_samples.NETWORK, max_bytes=LIMIT
    )
    assert opened.statement == wire_samples.result()


def test_several_kinds_can_be_expected() -> None:
    """The results topic carries results and failures."""
    for kind in ("result", "failure"):
        opened = open_envelope(
            BY_KIND[kind],
            wire_samples.AGENT.public,
            (Result, Failure),
            network=wire_samples.NETWORK,
            max_bytes=LIMIT,
        )
        assert opened.statement.kind == kind


def test_the_signed_part_alone_opens_as_evidence() -> None:
    """A receipt keeps the signed statement without the tensors; their digests stay in it."""
    data = BY_KIND["result"]
    opened = open_envelope(data, wire_samples.AGENT.public, Result, network=wire_samples.NETWORK, max_bytes=LIMIT)
    receipt = Receipt(
        network=wire_samples.NETWORK,
        issued_ms=wire_samples.NOW_MS,
        result=opened.signed,
        certificate=None,
        agent_key=wire_samples.AGENT.public.raw,
        accepted_ms=wire_samples.NOW_MS,
    )
    outer = open_envelope(
        seal(wire_samples.COORDINATOR, receipt),
        wire_samples.COORDINATOR.public,
        Receipt,
        network=wire_samples.NETWORK,
        max_bytes=LIMIT,
    )
    inner = open_envelope(
        outer.statement.result,
        wire_samples.AGENT.public,
        Result,
        network=wire_samples.NETWORK,
        max_bytes=LIMIT,
    )
    assert inner.statement == wire_samples.result()
    assert inner.attachments == ()
    with pytest.raises(MalformedError, match="names 1 tensors but 0"):
        attach(inner.statement.outputs, inner.attachments)


@pytest.mark.parametrize("kind", ["birth", "hello"])
def test_a_first_message_announces_its_key(kind: str) -> None:
    """The key that was announced opens the message."""
    key = announced_key(BY_KIND[kind], LIMIT)
    expected = wire_samples.AGENT if kind == "birth" else wire_samples.COORDINATOR
    assert key == expected.public
    assert open_envelope(BY_KIND[kind], key, ALL_STATEMENTS, network=wire_samples.NETWORK, max_bytes=LIMIT)


def test_a_payload_that_is_no_map_announces_no_key() -> None:
    """Read before anything is verified, so it may be anything."""
    data = cose.sign1(wire_samples.AGENT, b"\x80", content_type=CONTENT_TYPE)
    with pytest.raises(MalformedError, match="announces no key"):
        announced_key(data, LIMIT)


@pytest.mark.parametrize("kind", ["gone", "result", "job", "control"])
def test_other_messages_announce_no_key(kind: str) -> None:
    """Only a birth and a hello introduce anybody."""
    with pytest.raises(MalformedError, match="announces no key"):
        announced_key(BY_KIND[kind], LIMIT)


def test_sealing_with_the_wrong_tensors_is_a_value_error() -> None:
    """Too few or too many are a mistake of the caller, before anything is signed."""
    for tensors in ((), (b"1", b"2")):
        with pytest.raises(ValueError, match="was given"):
            seal(wire_samples.AGENT, wire_samples.result(), tensors)


def test_sealing_more_than_a_kind_may_hold_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender learns of it, not the receiver."""
    monkeypatch.setattr(Birth, "max_statement_bytes", 100)
    with pytest.raises(TooLargeError, match="birth of"):
        seal(wire_samples.AGENT, wire_samples.birth())


def test_a_message_at_its_limit_opens_and_one_byte_above_does_not() -> None:
    """The limit counts the whole message, tensors included."""
    data = BY_KIND["job"]
    key = wire_samples.COORDINATOR.public
    assert open_envelope(data, key, Job, network=wire_samples.NETWORK, max_bytes=len(data))
    for check in (
        lambda: open_envelope(data, key, Job, network=wire_samples.NETWORK, max_bytes=len(data) - 1),
        lambda: peek_key_id(data, len(data) - 1),
        lambda: announced_key(data, len(data) - 1),
    ):
        with pytest.raises(TooLargeError):
            check()


def test_a_statement_above_the_callers_limit_is_too_large() -> None:
    """A caller can be stricter than the kind."""
    data = BY_KIND["birth"]
    for limit, opens in ((5_000, True), (200, False)):
        if opens:
            assert open_envelope(
                data,
                wire_samples.AGENT.public,
                Birth,
                network=wire_samples.NETWORK,
                max_bytes=LIMIT,
                max_statement_bytes=limit,
            )
            continue
        with pytest.raises(TooLargeError):
            open_envelope(
                data,
                wire_samples.AGENT.public,
                Birth,
                network=wire_samples.NETWORK,
                max_bytes=LIMIT,
                max_statement_bytes=limit,
            )


def test_a_tensor_that_was_swapped_is_a_digest_mismatch() -> None:
    """Other bytes of the right length; and the salt is part of the digest."""
    specs = (TensorDigest.of(wire_samples.INPUT, wire_samples.SALT),)
    assert attach(specs, [wire_samples.INPUT.data], wire_samples.SALT) == [wire_samples.INPUT]
    with pytest.raises(DigestMismatchError):
        attach(specs, [bytes(8)], wire_samples.SALT)
    with pytest.raises(DigestMismatchError):
        attach(specs, [wire_samples.INPUT.data])


@pytest.mark.parametrize("size", [64, 600_000])
def test_tensors_that_are_only_handed_on_are_not_copied_where_that_costs(size: int) -> None:
    """Large ones are views of the message, after the same checks; small ones do not keep it in memory."""
    tensor = Tensor(TensorSpec("image", DataType.UINT8, (size,)), bytes(range(1, 251)) * (size // 250) or bytes(size))
    message = tensor.data + b"what follows"
    view = memoryview(message)[: len(tensor.data)]
    specs = (TensorDigest.of(tensor, wire_samples.SALT),)
    (found,) = attach(specs, [view], wire_samples.SALT, copied=False)
    assert (found.spec, bytes(found.data)) == (tensor.spec, tensor.data)
    assert isinstance(found.data, memoryview) == (size > 64)
    assert found.data == tensor.data
    with pytest.raises(DigestMismatchError):
        attach(specs, [memoryview(bytes(size))], bytes(16), copied=False)
    with pytest.raises(MalformedError):
        attach(specs, [view[:-1]], wire_samples.SALT, copied=False)
    (copied,) = attach(specs, [view], wire_samples.SALT)
    assert type(copied.data) is bytes


def test_a_tensor_of_another_length_is_refused_before_it_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gigabyte in the place of eight bytes costs no hashing."""
    specs = (TensorDigest.of(wire_samples.INPUT),)
    monkeypatch.setattr("edge_agent.wire.envelope.digest", lambda *_: pytest.fail("it was hashed"))
    with pytest.raises(MalformedError, match="needs 8 bytes"):
        attach(specs, [bytes(9)])


def test_strings_with_the_right_digest_and_broken_lengths_are_refused() -> None:
    """The signer may be at fault too."""
    broken = b"\xff\x00\x00\x00a"
    good = Tensor(TensorSpec("x", DataType.BYTES, (1,)), b"\x01\x00\x00\x00a")
    spec = TensorDigest.of(good).model_copy(update={"digest": digest(broken)})
    with pytest.raises(MalformedError, match="reaches past"):
        attach([spec], [broken])


@settings(max_examples=300)
@given(st.sampled_from(sorted(BY_KIND)), st.data())
def test_a_mutated_message_is_refused_or_says_the_same(kind: str, data: st.DataObject) -> None:
    """Flip, cut, insert, repeat: the signed statement that opens is the one that was sealed, or none."""
    original = BY_KIND[kind]
    key, statement, tensors = next(sample for sample in SAMPLES if sample[1].kind == kind)
    changed = bytearray(original)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(0, len(changed) - 1)))
        way = data.draw(st.sampled_from(["flip", "cut", "insert", "drop", "repeat"]))
        if way == "flip" and changed:
            changed[at] ^= data.draw(st.integers(1, 255))
        elif way == "cut":
            del changed[at:]
        elif way == "insert":
            changed[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        elif way == "drop":
            del changed[at : at + data.draw(st.integers(1, 8))]
        else:
            changed += changed[at:]
    try:
        opened = open_envelope(
            bytes(changed), key.public, ALL_STATEMENTS, network=wire_samples.NETWORK, max_bytes=LIMIT
        )
    except PeerError:
        return
    assert opened.statement == statement
    assert original.startswith(opened.signed)
    # What is beside the signature may have been changed, but then its digest tells.
    try:
        attached = attach(statement.attached, opened.attachments, getattr(statement, "salt", b""))
    except PeerError:
        return
    assert tuple(tensor.data for tensor in attached) == tensors


@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_but_peer_errors(data: bytes) -> None:
    """Behind no prefix, a tag, or the start of a real message."""
    real = BY_KIND["result"]
    for prefix in (b"", b"\xd2\x84", real[:60], real[:70], real):
        for read in (
            lambda message: open_envelope(
                message, wire_samples.AGENT.public, Result, network=wire_samples.NETWORK, max_bytes=LIMIT
            ),
            lambda message: peek_key_id(message, LIMIT),
            lambda message: announced_key(message, LIMIT),
        ):
            try:
                read(prefix + data)
            except PeerError:
                continue


def test_the_wire_needs_neither_numpy_nor_onnxruntime() -> None:
    """The agent's daemon stays small."""
    script = (
        "import sys, edge_agent.wire.envelope, edge_agent.wire.topics\n"
        "heavy = {'numpy', 'onnxruntime', 'paho', 'asyncio', 'edge_agent.coordinator'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
    assert done.returncode == 0
