from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import wire_samples
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edge_agent.errors import MalformedError
from edge_agent.wire import cose, identity, messages, strict_cbor
from edge_agent.wire.envelope import open_envelope, seal
from edge_agent.wire.identity import Certificate, Enrol, Enrolled, Revocations, Revoked
from edge_agent.wire.kinds import ALL_STATEMENTS
from edge_agent.wire.messages import (
    Birth,
    Control,
    Failure,
    HeldAttempt,
    Job,
    Offer,
    Offers,
    Part,
    Progress,
    Receipt,
    Result,
    Settled,
    SettledAttempt,
    Statement,
    TensorDigest,
    VariantClass,
)
from edge_agent.wire.tensors import DataType

if TYPE_CHECKING:
    from edge_agent.wire.keys import SigningKey

SAMPLES = wire_samples.one_of_each()
HERE: dict[str, Any] = {"network": "n" * 32, "issued_ms": messages.MAX_INTEGER}
WIDE = "\U0001d54f"  # four bytes in UTF-8
BIG = messages.MAX_INTEGER


def fields_of(statement: Statement) -> dict[str, Any]:
    """Return what travels, as the receiver decodes it."""
    fields = strict_cbor.decode(strict_cbor.encode(statement.said()), max_bytes=300_000)
    assert isinstance(fields, dict)
    return fields


def test_the_samples_are_all_there_are() -> None:
    """Every kind of statement has a sample, and every kind has its own name."""
    assert [type(statement) for _, statement, _ in SAMPLES] == list(ALL_STATEMENTS)
    assert len({statement.kind for _, statement, _ in SAMPLES}) == len(ALL_STATEMENTS)
    assert {kind.__name__ for kind in Statement.__subclasses__()} == {kind.__name__ for kind in ALL_STATEMENTS}


@pytest.mark.parametrize("statement", [sample for _, sample, _ in SAMPLES], ids=lambda sample: sample.kind)
def test_what_a_statement_says_is_in_the_one_encoding(statement: Statement) -> None:
    """No type or order is looked at again when it is encoded: it must be right by its model."""
    encoded = statement.encoded()
    assert encoded == strict_cbor.encode(statement.said())
    assert type(statement).model_validate(strict_cbor.decode(encoded, max_bytes=300_000)) == statement


@pytest.mark.parametrize("statement", [sample for _, sample, _ in SAMPLES], ids=lambda sample: sample.kind)
def test_a_statement_survives_cbor(statement: Statement) -> None:
    """The bytes give back an equal statement, whose bytes are the same."""
    again = type(statement).model_validate(fields_of(statement))
    assert again == statement
    assert strict_cbor.encode(again.said()) == strict_cbor.encode(statement.said())


@pytest.mark.parametrize("statement", [sample for _, sample, _ in SAMPLES], ids=lambda sample: sample.kind)
def test_an_unknown_field_is_refused_on_every_level(statement: Statement) -> None:
    """Nobody can smuggle in what only some readers understand."""

    def maps(value: object) -> list[dict[str, Any]]:
        if isinstance(value, dict):
            return [value, *(found for inner in value.values() for found in maps(inner))]
        if isinstance(value, list):
            return [found for inner in value for found in maps(inner)]
        return []

    for number in range(len(maps(fields_of(statement)))):
        fields = fields_of(statement)
        maps(fields)[number]["extra"] = 1
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            type(statement).model_validate(fields)


@pytest.mark.parametrize("statement", [sample for _, sample, _ in SAMPLES], ids=lambda sample: sample.kind)
@pytest.mark.parametrize(
    "wrong", [[], {}, 1.0, -1, 2**64 - 1, "", "\x00", b"", True, pytest.param(object(), id="an object")], ids=repr
)
def test_a_field_of_another_type_is_refused(statement: Statement, wrong: object) -> None:
    """Nothing is converted: each field refuses nearly all of these, and what it takes it keeps as it is."""
    for name in type(statement).model_fields:
        fields = {**fields_of(statement), name: wrong}
        try:
            taken = getattr(type(statement).model_validate(fields), name)
        except (ValidationError, MalformedError):
            continue
        assert taken == (tuple(wrong) if isinstance(wrong, list) else wrong)
        assert name in {
            *("held", "inputs", "outputs", "offers", "settled", "retry", "message", "code"),
            *("reasons", "fits", "celsius", "revoked"),
        }


def test_no_field_is_filled_in_when_it_is_missing() -> None:
    """Only kind and v have defaults, for writing; both are looked for before a statement is parsed.

    What came with version 2 is absent in version 1, and there in version 2.
    """
    for model in (*ALL_STATEMENTS, *Part.__subclasses__()):
        optional = {name for name, field in model.model_fields.items() if not field.is_required()}
        since = model.since_terms if issubclass(model, Statement) else ()
        assert optional == ({"kind", "v", *since} if issubclass(model, Statement) else set())
    for statement in (wire_samples.job(), wire_samples.offers()):
        for name in statement.since_terms:
            with pytest.raises(ValidationError, match="go with version 2"):
                type(statement).model_validate({**fields_of(statement), name: None if name != "labels" else []})
        with pytest.raises(ValidationError, match="go with version 2"):
            type(statement).model_validate({**fields_of(statement), "v": 2})


def test_a_statement_does_not_change() -> None:
    """What was verified stays what was verified."""
    with pytest.raises(ValidationError, match="frozen"):
        wire_samples.result().job = bytes(16)  # type: ignore[misc]


@pytest.mark.parametrize("value", [True, "1", 1.0, b"\x01", -1, BIG + 1])
def test_integers_are_strict_and_bounded(value: object) -> None:
    """Neither booleans nor text nor floats, and nothing that a database would not hold."""
    with pytest.raises(ValidationError):
        HeldAttempt.model_validate({"job": bytes(16), "epoch": value})


@pytest.mark.parametrize("size", [0, 15, 17, 32])
def test_a_job_id_has_16_bytes(size: int) -> None:
    """No shorter, no longer."""
    with pytest.raises(ValidationError):
        HeldAttempt(job=bytes(size), epoch=1)


@pytest.mark.parametrize(
    "agent_id", ["", "a" * 31, "a" * 33, "A" * 32, "1" * 32, "a" * 31 + "\n", "a" * 32 + "\n", "+" * 32]
)
def test_an_agent_id_is_32_characters(agent_id: str) -> None:
    """A line end behind the id does not slip through the pattern."""
    with pytest.raises(ValidationError):
        Progress.model_validate({**fields_of(SAMPLES[3][1]), "agent_id": agent_id})


@pytest.mark.parametrize("family", ["", "-a", ".a", "A", "a/b", "a" * 65, "../a", "a\n", "ä"])
def test_a_family_name_is_one_plain_token(family: str) -> None:
    """Names become file names and URLs."""
    with pytest.raises(ValidationError):
        Job.model_validate({**fields_of(wire_samples.job()), "family": family})


@pytest.mark.parametrize("text", ["\x1b[31m", "a\nb", "\x00", "\x7f", "\x9b", "\u202e", "\u2066", "x" * 501])
def test_a_failures_message_cannot_play_with_the_terminal(text: str) -> None:
    """Escape sequences, line ends and direction overrides are refused where they come in."""
    fields = fields_of(SAMPLES[5][1])
    assert Failure.model_validate({**fields, "message": "Schlüssel 🔑"}).message == "Schlüssel 🔑"
    with pytest.raises(ValidationError):
        Failure.model_validate({**fields, "message": text})


def test_a_birth_must_be_of_its_own_key() -> None:
    """The id is computed from the key, so one agent cannot announce a key under another's id."""
    fields = fields_of(wire_samples.birth())
    with pytest.raises(ValidationError, match="agent_id is not the id of public_key"):
        Birth.model_validate({**fields, "public_key": wire_samples.OTHER_AGENT.public.raw})


@pytest.mark.parametrize(
    ("command", "job", "epoch"),
    [
        ("cancel", None, None),
        ("cancel", bytes(16), None),
        ("cancel", None, 1),
        ("rebirth", bytes(16), 1),
        ("rebirth", bytes(16), None),
        ("not-enrolled", None, 1),
        ("shutdown", None, None),
    ],
)
def test_only_a_cancel_names_an_attempt(command: str, job: bytes | None, epoch: int | None) -> None:
    """And a cancel always does."""
    fields = fields_of(SAMPLES[9][1])
    with pytest.raises(ValidationError):
        Control.model_validate({**fields, "command": command, "job": job, "epoch": epoch})
    assert Control.model_validate({**fields, "command": "rebirth", "job": None, "epoch": None})


def test_a_result_and_an_offer_are_of_one_variant() -> None:
    """The class belongs to the variant that is named beside it."""
    other = {**wire_samples.CLASS.model_dump(), "variant": bytes(32)}
    for index, change in ((4, lambda fields: fields), (2, lambda fields: fields["offers"][0])):
        _, statement, _ = SAMPLES[index]
        fields = fields_of(statement)
        change(fields)["klass"] = other
        with pytest.raises(ValidationError, match="another variant"):
            type(statement).model_validate(fields)


def test_a_tensor_digest_of_impossible_shape_is_refused() -> None:
    """Its dimensions each pass; their product does not."""
    fields = fields_of(wire_samples.job())
    fields["inputs"][0]["shape"] = [2**40, 2**40]
    with pytest.raises(MalformedError, match="elements"):
        Job.model_validate(fields)


def test_a_tensor_digest_of_unknown_type_is_refused() -> None:
    """The types are a closed list."""
    fields = fields_of(wire_samples.job())
    for wrong in ("COMPLEX64", "fp32", 1, None, b"FP32"):
        fields["inputs"][0]["datatype"] = wrong
        with pytest.raises(ValidationError):
            Job.model_validate(fields)


@given(st.sampled_from(SAMPLES), st.data())
def test_no_decoded_value_makes_a_model_raise_anything_else(sample: Any, data: st.DataObject) -> None:  # noqa: ANN401
    """Any CBOR value in any field ends in a model or in one of two errors."""
    _, statement, _ = sample
    fields = fields_of(statement)
    name = data.draw(st.sampled_from(sorted(fields)))
    fields[name] = data.draw(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(2**63), 2**64 - 1)
            | st.binary(max_size=40)
            | st.text(max_size=40),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(st.text(max_size=9) | st.integers(0, 9), inner, max_size=4)
            ),
            max_leaves=8,
        )
    )
    try:
        again = type(statement).model_validate(fields)
    except (ValidationError, MalformedError):
        return
    assert strict_cbor.encode(again.said()) == strict_cbor.encode(fields)


def largest() -> list[tuple[SigningKey, Statement, list[bytes]]]:
    """Return the longest statements that the models take."""
    agent = wire_samples.AGENT.public.id
    klass = VariantClass(variant=bytes(32), runtime="r" * 64, provider="p" * 64, isa="i" * 64)
    tensor = TensorDigest(name=WIDE * 256, datatype=DataType.UINT16, shape=(0, 2**40) + (0,) * 30, digest=bytes(32))
    tensors = (tensor,) * messages.MAX_TENSORS
    nothing = [b""] * messages.MAX_TENSORS
    offer = Offer(
        family="f" * 64,
        variant=bytes(32),
        variant_name="v" * 64,
        klass=klass,
        latency_us=BIG,
        max_in_flight=1_024,
        loaded=False,
    )
    held = (HeldAttempt(job=bytes(16), epoch=BIG),) * messages.MAX_HELD
    settled = SettledAttempt(job=bytes(16), epoch=BIG, outcome="accepted", code="c" * 64)
    return [
        (
            wire_samples.AGENT,
            Offers(**HERE, agent_id=agent, session=BIG, sequence=BIG, offers=(offer,) * messages.MAX_OFFERS),
            [],
        ),
        (wire_samples.AGENT, wire_samples.birth().model_copy(update={"held": held}), []),
        (wire_samples.AGENT, Progress(**HERE, agent_id=agent, session=BIG, held=held), []),
        (
            wire_samples.AGENT,
            Result(
                **HERE,
                job=bytes(16),
                epoch=BIG,
                agent_id=agent,
                family="f" * 64,
                variant=bytes(32),
                klass=klass,
                inputs=tensors,
                outputs=tensors,
                received_ms=BIG,
                finished_ms=BIG,
                run_us=BIG,
            ),
            nothing,
        ),
        (
            wire_samples.COORDINATOR,
            Job(
                **HERE,
                job=bytes(16),
                epoch=BIG,
                agent_id=agent,
                session=BIG,
                family="f" * 64,
                variant=bytes(32),
                inputs=tensors,
                salt=bytes(32),
                outputs=(WIDE * 256,) * messages.MAX_TENSORS,
                lease_ms=BIG,
                max_output_bytes=BIG,
            ),
            nothing,
        ),
        (
            wire_samples.COORDINATOR,
            Settled(**HERE, agent_id=agent, settled=(settled,) * messages.MAX_SETTLED),
            [],
        ),
        (
            wire_samples.COORDINATOR,
            Receipt(
                **HERE,
                result=bytes(messages.MAX_LONG_STATEMENT_BYTES + 256),
                agent_key=bytes(32),
                certificate=bytes(identity.MAX_CERTIFICATE_BYTES),
                accepted_ms=BIG,
            ),
            [],
        ),
        (
            wire_samples.COORDINATOR,
            Enrolled(
                **HERE,
                agent_id=agent,
                coordinator_key=wire_samples.COORDINATOR.public.raw,
                state="admitted",
                code="c" * 64,
                commitment=bytes(32),
                nonce=bytes(32),
                certificate=bytes(identity.MAX_CERTIFICATE_BYTES),
                x509=bytes(identity.MAX_X509_BYTES),
                registrar_key=bytes(32),
                broker_url="mqtts://" + "b" * 250,
                broker_ca=bytes(identity.MAX_AUTHORITIES_BYTES),
            ),
            [],
        ),
        (
            wire_samples.COORDINATOR,
            Revocations(
                **HERE,
                number=BIG,
                revoked=(Revoked(id=agent, since_ms=BIG, reason="r" * 64),) * identity.MAX_REVOKED,
            ),
            [],
        ),
        (
            wire_samples.REGISTRAR,
            Certificate(
                **{**HERE, "issued_ms": 1},
                agent_id=agent,
                agent_key=wire_samples.AGENT.public.raw,
                sealing_key=bytes(32),
                login="l" * 64,
                owner="o" * 64,
                not_after_ms=BIG,
            ),
            [],
        ),
        (
            wire_samples.AGENT,
            Enrol(
                **HERE,
                agent_id=agent,
                public_key=wire_samples.AGENT.public.raw,
                sealing_key=bytes(32),
                commitment=bytes(32),
                opening=bytes(32),
                token=bytes(16),
                proof=bytes(32),
            ),
            [],
        ),
    ]


@pytest.mark.parametrize(("key", "statement", "tensors"), largest(), ids=lambda value: getattr(value, "kind", ""))
def test_whatever_a_model_accepts_can_be_sealed_and_opened(
    key: SigningKey, statement: Statement, tensors: list[bytes]
) -> None:
    """The limits on fields, on statements, on depth and on items agree with each other."""
    data = seal(key, statement, tensors)
    opened = open_envelope(data, key.public, type(statement), network=statement.network, max_bytes=300_000)
    assert opened.statement == statement


def test_the_longest_result_fits_a_receipt() -> None:
    """No result that a coordinator accepts can be too long for its receipt."""
    key, statement, tensors = largest()[3]
    data = seal(key, statement, tensors)
    signed = open_envelope(data, key.public, Result, network=statement.network, max_bytes=300_000).signed
    receipt = Receipt(**HERE, result=signed, certificate=None, agent_key=key.public.raw, accepted_ms=1)
    assert receipt.result == signed
    assert Result.max_statement_bytes + cose.MAX_OVERHEAD_BYTES <= messages.MAX_LONG_STATEMENT_BYTES + 384


@pytest.mark.parametrize(
    ("index", "field", "limit"),
    [
        (0, "held", messages.MAX_HELD),
        (2, "offers", messages.MAX_OFFERS),
        (7, "inputs", messages.MAX_TENSORS),
        (7, "outputs", messages.MAX_TENSORS),
        (8, "settled", messages.MAX_SETTLED),
        (0, "versions", messages.MAX_VERSIONS),
    ],
)
def test_a_list_one_longer_than_its_limit_is_refused(index: int, field: str, limit: int) -> None:
    """Lists are bounded where they come in."""
    _, statement, _ = SAMPLES[index]
    fields = fields_of(statement)
    fields[field] = fields[field][:1] * limit
    assert type(statement).model_validate(fields)
    fields[field] = fields[field][:1] * (limit + 1)
    with pytest.raises(ValidationError, match="too_long"):
        type(statement).model_validate(fields)


def test_a_class_that_was_named_before_is_not_hashed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every offer and every result has one, and there are few of them; another class has another name."""
    named = {"runtime": "once", "provider": "cpu", "isa": "avx2"}
    first = VariantClass(variant=bytes(32), **named).id
    assert VariantClass(variant=bytes([1]) * 32, **named).id != first

    def never(_: object) -> bytes:
        raise AssertionError("this was hashed before")

    monkeypatch.setattr(strict_cbor, "encode", never)
    assert VariantClass(variant=bytes(32), **named).id == first
