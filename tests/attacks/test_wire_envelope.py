"""What a peer, a broker or anybody on the way may do to a message: refused, and nothing was opened."""

from __future__ import annotations

from typing import Any

import pytest
import wire_samples
from wire_samples import AGENT, COORDINATOR, NETWORK, OTHER_AGENT

from edge_agent.errors import DigestMismatchError, PeerError
from edge_agent.wire import cbor_items, cose, envelope, strict_cbor
from edge_agent.wire.envelope import CONTENT_TYPE, attach, open_envelope, seal
from edge_agent.wire.messages import MAX_TENSORS, Birth, Failure, Hello, Job, Result, Statement
from edge_agent.wire.tensors import digest

LIMIT = 400_000
GOOD = seal(AGENT, wire_samples.result(), [wire_samples.OUTPUT.data])
SIGNED_END = cose.sign1_end(GOOD)
OUR_HEADER: dict[Any, Any] = {1: -8, 3: CONTENT_TYPE, 4: AGENT.public.id_bytes}
PAYLOAD = strict_cbor.encode(wire_samples.result().model_dump())


class Door:
    """The envelope's opening, with a record of everything that got through each of its doors."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[Any] = []
        self.parsed: list[Any] = []
        genuine_opened, genuine_validate = envelope.Opened, envelope._validate

        def record_opened(*parts: Any) -> Any:  # noqa: ANN401
            self.opened.append(parts)
            return genuine_opened(*parts)

        def record_parsed(kind: type[Statement], fields: object) -> Statement:
            self.parsed.append(fields)
            return genuine_validate(kind, fields)

        monkeypatch.setattr(envelope, "Opened", record_opened)
        monkeypatch.setattr(envelope, "_validate", record_parsed)

    def refuses(
        self,
        data: bytes,
        code: str,
        *,
        key: Any = AGENT.public,  # noqa: ANN401
        expected: Any = Result,  # noqa: ANN401
        before_parsing: bool = True,
        **limits: int,
    ) -> None:
        """Assert that `data` is refused with `code`, that nothing came of it, and that a good one opens."""
        limits.setdefault("max_bytes", LIMIT)
        with pytest.raises(PeerError) as refused:
            open_envelope(data, key, expected, network=NETWORK, **limits)
        assert refused.value.error_code == code
        assert len(refused.value.message) < 500
        assert refused.value.message.isprintable()
        assert self.opened == []
        if before_parsing:
            assert self.parsed == []
        assert open_envelope(GOOD, AGENT.public, Result, network=NETWORK, max_bytes=LIMIT).statement
        self.opened.clear()
        self.parsed.clear()


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Door:
    """A door that is watched."""
    return Door(monkeypatch)


def signed_anyhow(
    payload: bytes = PAYLOAD,
    *,
    protected: bytes | None = None,
    unprotected: bytes = b"\xa0",
    tag: bytes = b"\xd2",
    sign: Any = AGENT.sign,  # noqa: ANN401
    tail: bytes = GOOD[SIGNED_END:],
) -> bytes:
    """Return a message whose signature is right for whatever strange parts it has."""
    if protected is None:
        protected = strict_cbor.encode(OUR_HEADER)
    signature = sign(cose.sig_structure(protected, b"", payload))

    def wrapped(content: bytes) -> bytes:
        return cbor_items.byte_string_head(len(content)) + content

    return tag + b"\x84" + wrapped(protected) + unprotected + wrapped(payload) + wrapped(signature) + tail


def resigned(change: dict[str, Any], *, statement: Statement | None = None, key: Any = AGENT) -> bytes:  # noqa: ANN401
    """Return a statement with changed fields, correctly signed: an attack by the key's owner."""
    fields = {**(statement or wire_samples.result()).model_dump(), **change}
    fields = {name: value for name, value in fields.items() if value is not ...}
    header = {**OUR_HEADER, 4: key.public.id_bytes}
    return signed_anyhow(strict_cbor.encode(fields), protected=strict_cbor.encode(header), sign=key.sign)


def test_the_bench_itself_makes_messages_that_open() -> None:
    """Without this the tests below could refuse for a wrong reason."""
    assert signed_anyhow() == GOOD
    assert resigned({}) == GOOD
    assert open_envelope(GOOD, AGENT.public, Result, network=NETWORK, max_bytes=LIMIT).statement


# -- altered bytes -----------------------------------------------------------------------------------------


def test_every_single_altered_byte_of_the_signed_part(door: Door) -> None:
    """No byte of the signed part is free to change."""
    for at in range(SIGNED_END):
        changed = bytearray(GOOD)
        changed[at] ^= 0x01
        with pytest.raises(PeerError):
            open_envelope(bytes(changed), AGENT.public, Result, network=NETWORK, max_bytes=LIMIT)
    assert door.opened == []
    assert door.parsed == []


def test_altered_payload(door: Door) -> None:
    """Another family in the place of the signed one."""
    door.refuses(GOOD.replace(b"digits", b"digitz"), "bad-signature")


def test_altered_signature(door: Door) -> None:
    """One bit of the signature."""
    changed = bytearray(GOOD)
    changed[SIGNED_END - 1] ^= 0x80
    door.refuses(bytes(changed), "bad-signature")


def test_malleable_signature(door: Door) -> None:
    """The order of the group added to S: the same equation, another signature."""
    order = 2**252 + 27742317777372353535851937790883648493
    signature = GOOD[SIGNED_END - 64 : SIGNED_END]
    s = int.from_bytes(signature[32:], "little") + order
    changed = GOOD[: SIGNED_END - 32] + s.to_bytes(32, "little") + GOOD[SIGNED_END:]
    door.refuses(changed, "bad-signature")


def test_empty_signature(door: Door) -> None:
    """No signature at all."""
    door.refuses(signed_anyhow(sign=lambda _: b""), "bad-signature")


def test_signature_of_another_message(door: Door) -> None:
    """A genuine signature under a statement that it was not made for."""
    genuine = GOOD[SIGNED_END - 64 : SIGNED_END]
    forged = signed_anyhow(PAYLOAD.replace(b"digits", b"digitz"), sign=lambda _: genuine)
    door.refuses(forged, "bad-signature")


def test_truncated_at_every_length(door: Door) -> None:
    """A message cut anywhere: refused, except where exactly the evidence without its tensors is left."""
    for keep in range(len(GOOD)):
        if keep == SIGNED_END:
            continue
        with pytest.raises(PeerError):
            open_envelope(GOOD[:keep], AGENT.public, Result, network=NETWORK, max_bytes=LIMIT)
    assert door.opened == []


def test_stripped_tensors() -> None:
    """The signed part alone is evidence; as a result it fails as soon as its tensors are wanted."""
    opened = open_envelope(GOOD[:SIGNED_END], AGENT.public, Result, network=NETWORK, max_bytes=LIMIT)
    with pytest.raises(PeerError) as refused:
        attach(opened.statement.outputs, opened.attachments)
    assert refused.value.error_code == "malformed"


def test_swapped_tensor_bytes() -> None:
    """The tensor beside the statement is another one of the same length."""
    changed = GOOD[:-8] + bytes(8)
    opened = open_envelope(changed, AGENT.public, Result, network=NETWORK, max_bytes=LIMIT)
    with pytest.raises(DigestMismatchError):
        attach(opened.statement.outputs, opened.attachments)


# -- something else where a message should be --------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"{}", b"\xd2", b"\xd2\x84", b"\xd2\x80", b"\xd2\x83\x40\xa0\x40", b"\xff" * 100]
)
def test_no_message_at_all(door: Door, data: bytes) -> None:
    """Empty, short and foreign payloads, as anybody may publish."""
    door.refuses(data, "malformed")


def test_trailing_bytes(door: Door) -> None:
    """Something behind the last tensor: a further tensor, a further statement, a byte."""
    door.refuses(GOOD + b"\x00", "malformed")
    door.refuses(GOOD + GOOD, "malformed")
    door.refuses(GOOD + b"\x41", "malformed")


def test_surplus_tensor(door: Door) -> None:
    """One more byte string than the statement names."""
    door.refuses(GOOD + b"\x41\x00", "malformed", before_parsing=False)


def test_flood_of_tensors(door: Door) -> None:
    """Empty byte strings by the hundred thousand are counted, not collected."""
    door.refuses(GOOD[:SIGNED_END] + b"\x40" * (MAX_TENSORS + 1), "too-large")
    door.refuses(GOOD[:SIGNED_END] + b"\x40" * 300_000, "too-large")


def test_tensor_of_another_type(door: Door) -> None:
    """Text, an array and a tagged byte string in the place of a tensor."""
    for tensor in (b"\x68" + bytes(8), b"\x81\x40", b"\xc2\x48" + bytes(8)):
        door.refuses(GOOD[:SIGNED_END] + tensor, "malformed")


def test_tensor_of_indefinite_length(door: Door) -> None:
    """A tensor in pieces."""
    door.refuses(GOOD[:SIGNED_END] + b"\x5f\x48" + bytes(8) + b"\xff", "malformed")


def test_tensor_with_a_length_longer_than_necessary(door: Door) -> None:
    """The same eight bytes behind a second spelling of eight."""
    door.refuses(GOOD[:SIGNED_END] + b"\x58\x08" + GOOD[-8:], "malformed")


@pytest.mark.parametrize("head", ["5b7fffffffffffffff", "5bffffffffffffffff", "5affffffff", "9b7fffffffffffffff"])
def test_huge_length_announced(door: Door, head: str) -> None:
    """In the place of each part of the message: nothing is prepared for what cannot be there."""
    huge = bytes.fromhex(head)
    door.refuses(huge, "malformed")
    door.refuses(b"\xd2\x84" + huge, "malformed")
    door.refuses(b"\xd2\x84\x41\xa0" + huge, "malformed")
    door.refuses(b"\xd2\x84\x41\xa0\xa0" + huge, "malformed")
    door.refuses(GOOD[:SIGNED_END] + huge, "malformed")


def test_message_above_the_limit(door: Door) -> None:
    """Refused by its length alone."""
    door.refuses(bytes(LIMIT + 1), "too-large")


def test_statement_above_the_limit(door: Door) -> None:
    """Correctly signed, and still too long to be parsed."""
    door.refuses(signed_anyhow(b"\x59\xff\xff" + bytes(65_535), tail=b""), "too-large", max_statement_bytes=65_536)


def test_header_above_the_limit(door: Door) -> None:
    """A header of 64 KiB where 55 bytes are expected."""
    header = strict_cbor.encode({**OUR_HEADER, 3: "x" * 65_000})
    door.refuses(signed_anyhow(protected=header), "too-large")


def test_missing_or_other_tag(door: Door) -> None:
    """Untagged, COSE_Sign, COSE_Mac0, a long form of 18, and the tag twice."""
    for tag in (b"", b"\xd8\x62", b"\xd1", b"\xd8\x12", b"\xd2\xd2", b"\xd9\xd9\xf7\xd2"):
        door.refuses(signed_anyhow(tag=tag), "malformed")


# -- headers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [-7, -19, -35, 5, 0, 8, "EdDSA", None, b"\x27", [-8], -8.0])
def test_wrong_algorithm_header(door: Door, algorithm: object) -> None:
    """Whatever the header says, the key's algorithm is used, and saying another one is refused."""
    header = strict_cbor.encode({**OUR_HEADER, 1: algorithm})
    door.refuses(signed_anyhow(protected=header), "wrong-algorithm")


def test_algorithm_left_out_or_unsigned(door: Door) -> None:
    """Nowhere, or only where no signature covers it."""
    header = strict_cbor.encode({3: CONTENT_TYPE, 4: AGENT.public.id_bytes})
    door.refuses(signed_anyhow(protected=header), "malformed")
    door.refuses(signed_anyhow(protected=header, unprotected=strict_cbor.encode({1: -8})), "malformed")
    door.refuses(signed_anyhow(protected=b"", unprotected=strict_cbor.encode(OUR_HEADER)), "malformed")


def test_empty_protected_header(door: Door) -> None:
    """Both ways to write nothing."""
    door.refuses(signed_anyhow(protected=b""), "malformed")
    door.refuses(signed_anyhow(protected=b"\xa0"), "malformed")


def test_critical_header(door: Door) -> None:
    """Entries that a reader must understand, which this one does not."""
    header = strict_cbor.encode({**OUR_HEADER, 2: [99], 99: 1})
    door.refuses(signed_anyhow(protected=header), "malformed")
    message = cose.parse_sign1(signed_anyhow(protected=header, tail=b""), 10_000)
    with pytest.raises(PeerError) as refused:
        cose.verify_sign1(message, AGENT.public)
    assert refused.value.error_code == "malformed"


def test_smuggled_header_entries(door: Door) -> None:
    """An X.509 chain, an unsigned key id, a counter-signature."""
    door.refuses(signed_anyhow(protected=strict_cbor.encode({**OUR_HEADER, 33: b"chain"})), "malformed")
    door.refuses(signed_anyhow(unprotected=strict_cbor.encode({4: AGENT.public.id_bytes})), "malformed")
    door.refuses(signed_anyhow(unprotected=strict_cbor.encode({11: b"countersigned"})), "malformed")


def test_duplicate_header_label(door: Door) -> None:
    """The algorithm twice, once right and once wrong."""
    twice = b"\xa4\x01\x27\x01\x26" + strict_cbor.encode(OUR_HEADER)[3:]
    door.refuses(signed_anyhow(protected=twice), "malformed")


def test_other_content_type(door: Door) -> None:
    """Something that this key signed for another purpose."""
    door.refuses(signed_anyhow(protected=strict_cbor.encode({**OUR_HEADER, 3: "text/plain"})), "malformed")
    door.refuses(signed_anyhow(protected=strict_cbor.encode({**OUR_HEADER, 3: 0})), "malformed")


def test_other_keys_kid_with_our_signature(door: Door) -> None:
    """The header names another key than the one that signed."""
    header = strict_cbor.encode({**OUR_HEADER, 4: OTHER_AGENT.public.id_bytes})
    door.refuses(signed_anyhow(protected=header), "unknown-key")


def test_our_kid_with_other_keys_signature(door: Door) -> None:
    """Signed by somebody else under our name."""
    door.refuses(signed_anyhow(sign=OTHER_AGENT.sign), "bad-signature")


def test_other_keys_message(door: Door) -> None:
    """A genuine message by another agent."""
    door.refuses(GOOD, "unknown-key", key=OTHER_AGENT.public)


@pytest.mark.parametrize("key_id", [b"", bytes(19), bytes(21), "text", 7, None])
def test_malformed_kid(door: Door, key_id: object) -> None:
    """A key id that is none."""
    door.refuses(signed_anyhow(protected=strict_cbor.encode({**OUR_HEADER, 4: key_id})), "malformed")


# -- signed by the key's owner, and still not acceptable ---------------------------------------------------


def test_wrong_network(door: Door) -> None:
    """Recorded in one network and played back in another."""
    door.refuses(resigned({"network": "elsewhere"}), "wrong-network")
    door.refuses(resigned({"network": ...}), "wrong-network")
    door.refuses(resigned({"network": ["home"]}), "wrong-network")


def test_wrong_kind(door: Door) -> None:
    """A genuine statement on a topic where it does not belong."""
    door.refuses(GOOD, "wrong-kind", expected=Birth)
    door.refuses(GOOD, "wrong-kind", expected=(Failure, Birth))
    door.refuses(resigned({"kind": ...}), "wrong-kind")
    door.refuses(resigned({"kind": "Result"}), "wrong-kind")
    door.refuses(resigned({"kind": ["result"]}), "wrong-kind")


@pytest.mark.parametrize("version", [0, 2, True, 1.0, "1", None, [1], ...])
def test_wrong_version(door: Door, version: object) -> None:
    """Also what only looks like version 1."""
    door.refuses(resigned({"v": version}), "wrong-version")


def test_agent_speaks_for_another(door: Door) -> None:
    """An enrolled agent signs a result in the name of another one."""
    forged = resigned({}, key=OTHER_AGENT)
    door.refuses(forged, "wrong-agent", key=OTHER_AGENT.public, before_parsing=False)


def test_agent_signs_what_only_the_coordinator_says(door: Door) -> None:
    """A hello with the coordinator's key, signed by an agent."""
    hello = Hello(
        network=NETWORK,
        issued_ms=1,
        coordinator_key=COORDINATOR.public.raw,
        session=1,
        software="edge-agent/0.1.0",
        versions=(1,),
    )
    door.refuses(resigned({}, statement=hello), "unknown-key", expected=Hello, before_parsing=False)


def test_agents_key_in_the_coordinators_place(door: Door) -> None:
    """A job that is not signed by the pinned coordinator."""
    forged = seal(AGENT, wire_samples.job(), [wire_samples.INPUT.data])
    door.refuses(forged, "unknown-key", key=COORDINATOR.public, expected=Job)


def test_unknown_and_missing_fields(door: Door) -> None:
    """Nothing is ignored and nothing is filled in."""
    door.refuses(resigned({"extra": 1}), "malformed", before_parsing=False)
    for name in Result.model_fields:
        if name not in {"kind", "v", "network"}:
            door.refuses(resigned({name: ...}), "malformed", before_parsing=False)


def test_hostile_values_stay_out_of_the_error(door: Door) -> None:
    """The error that is logged does not carry the peer's text."""
    for name in ("family", "network", "kind"):
        hostile = resigned({name: "\x1b[2J\n" + "A" * 5_000})
        with pytest.raises(PeerError) as refused:
            open_envelope(hostile, AGENT.public, Result, network=NETWORK, max_bytes=LIMIT)
        assert "\x1b" not in refused.value.message
        assert "\n" not in refused.value.message
        assert "A" * 100 not in refused.value.message
    door.refuses(resigned({"\x1b[2J\n" + "B" * 500: 1}), "malformed", before_parsing=False)
    tensor = {"name": "x", "datatype": "\x1b[2J" + "C" * 5_000, "shape": [], "digest": bytes(32)}
    door.refuses(resigned({"outputs": [tensor]}), "malformed", before_parsing=False)


# -- CBOR inside a genuine signature -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"\xae" + PAYLOAD[1:] + PAYLOAD[1:3], id="map one too long"),
        pytest.param(PAYLOAD + b"\x00", id="trailing byte"),
        pytest.param(b"\xbf" + PAYLOAD[1:] + b"\xff", id="indefinite length"),
        pytest.param(b"\xb8" + bytes((PAYLOAD[0] & 0x1F,)) + PAYLOAD[1:], id="non-canonical length"),
        pytest.param(b"\xd8\x18" + PAYLOAD, id="tagged map"),
        pytest.param(PAYLOAD.replace(b"\x65epoch\x01", b"\x65epoch\x18\x01"), id="non-canonical integer"),
        pytest.param(PAYLOAD.replace(b"\x65epoch\x01", b"\x65epoch\xc2\x41\x01"), id="tag smuggling: a bignum"),
        pytest.param(PAYLOAD.replace(b"\x65epoch\x01", b"\x65epoch\xf9\x3c\x00"), id="a half float"),
        pytest.param(PAYLOAD.replace(b"\x65epoch\x01", b"\x65epoch\xf7"), id="undefined"),
        pytest.param(
            bytes((PAYLOAD[0] + 1,)) + PAYLOAD[1:].replace(b"\x65epoch\x01", b"\x65epoch\x01\x65epoch\x02"),
            id="duplicate key",
        ),
        pytest.param(b"\x81" * 2_000 + b"\x80", id="deep nesting"),
        pytest.param(b"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff", id="huge array"),
        pytest.param(strict_cbor.encode([0] * 20_000), id="too many items"),
        pytest.param(b"\xa1\x61\xff\x01", id="invalid UTF-8"),
        pytest.param(b"\xf6", id="null"),
        pytest.param(b"\x80", id="array"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_malformed_cbor_correctly_signed(door: Door, payload: bytes) -> None:
    """An enrolled agent sends CBOR that is meant to hurt or to be read in two ways."""
    with pytest.raises(PeerError) as refused:
        open_envelope(signed_anyhow(payload), AGENT.public, Result, network=NETWORK, max_bytes=LIMIT)
    door.refuses(signed_anyhow(payload), refused.value.error_code)
    assert refused.value.error_code in ("malformed", "too-large")


@pytest.mark.parametrize("part", ["protected", "unprotected"])
def test_malformed_cbor_in_the_headers(door: Door, part: str) -> None:
    """Read before the signature can be checked, so by anybody."""
    for header in (
        b"\xbf\xff",
        b"\x80",
        b"\xa1\x01",
        b"\xd8\x18\xa0",
        b"\xb8\x00",
        b"\x81" * 500 + b"\x80",
        b"\xa0\xa0",
    ):
        with pytest.raises(PeerError) as refused:
            open_envelope(signed_anyhow(**{part: header}), AGENT.public, Result, network=NETWORK, max_bytes=LIMIT)
        door.refuses(signed_anyhow(**{part: header}), refused.value.error_code)
        assert refused.value.error_code in ("malformed", "too-large")


def test_tensor_reordering() -> None:
    """Two tensors of the same shape change places."""
    first, second = wire_samples.OUTPUT, wire_samples.OUTPUT.data[::-1]
    outputs = [
        {"name": name, "datatype": "INT64", "shape": [1], "digest": digest(data)}
        for name, data in (("a", first.data), ("b", second))
    ]
    data = resigned({"outputs": outputs})[:-9] + b"\x48" + second + b"\x48" + first.data
    opened = open_envelope(data, AGENT.public, Result, network=NETWORK, max_bytes=LIMIT)
    with pytest.raises(DigestMismatchError):
        attach(opened.statement.outputs, opened.attachments)
