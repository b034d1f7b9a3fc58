"""Every parser that meets foreign bytes, as a function of bytes, with good samples and the errors that it declares.

Whatever else leaves a parser is a defect. `benchmarks/fuzz.py` mutates the samples by the million.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

import onnx_models
import receipt_logs
import wire_samples
from cores import agent_core, agent_core_samples, core, core_samples
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from fakes import NETWORK, scan
from foreign import FOREIGN_TARGETS
from hostile import HOSTILE_TARGETS
from target import Target
from wire_samples import AGENT, COORDINATOR

from edge_agent.agent.control import parse_request
from edge_agent.agent.gates import parse_reading
from edge_agent.coordinator.gateway.encodings import wanted_coding
from edge_agent.coordinator.gateway.json_numbers import in_binary_form
from edge_agent.errors import EdgeAgentError, InputError, PeerError, SettingsError, StateError, UsageError, WorkerError
from edge_agent.inference import frames, model_file
from edge_agent.inference.messages import event_of
from edge_agent.models import catalogue, golden
from edge_agent.settings.layers import load
from edge_agent.wire import cose, hpke, oip_grpc, strict_cbor, strict_json
from edge_agent.wire.bundles import verify_bundle, verify_tree_head
from edge_agent.wire.envelope import (
    _validate,
    announced_key,
    attach,
    messages_in,
    open_envelope,
    peek_key_id,
    seal,
    seal_together,
)
from edge_agent.wire.job_options import options_from
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.kinds import ALL_STATEMENTS
from edge_agent.wire.messages import Birth, Hello, Job, Result
from edge_agent.wire.oip_json import OutputForm, body_of, request_from_body, response_from_body, tensor_to_json
from edge_agent.wire.protobuf import field, packed
from edge_agent.wire.receipts import _bare, verify_receipt, without_salt
from edge_agent.wire.registrar_files import read_certificates, read_requests, write_certificates, write_requests
from edge_agent.wire.sealing import SEALED, Question, open_answer, open_question, seal_answer, seal_question
from edge_agent.wire.successions import is_one
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec, unpack_strings
from edge_agent.wire.tokens import Token
from edge_agent.wire.topics import Topics
from edge_agent.wire.unpacking import Unpacker

MAX_BYTES: Final = 1 << 20
TOPICS: Final = Topics(NETWORK)
KINDS: Final = {kind.model_fields["kind"].default: kind for kind in ALL_STATEMENTS}
HALF: Final = hpke.SecretHalf(X25519PrivateKey.from_private_bytes(b"\1" * 32))
IMAGE: Final = scan(3)
SALT: Final = bytes(32)


# -- the wire -----------------------------------------------------------------------------------------------------


def _messages() -> list[bytes]:
    return [*_together(), *(seal(key, statement, tensors) for key, statement, tensors in wire_samples.one_of_each())]


def _payloads() -> list[bytes]:
    return [strict_cbor.encode(statement.said()) for _, statement, _ in wire_samples.one_of_each()]


def _envelope(data: bytes) -> None:
    for parse in (peek_key_id, announced_key):
        try:
            parse(data, MAX_BYTES)
        except PeerError:
            continue
    opened = open_envelope(data, AGENT.public, (Result, Birth), network=wire_samples.NETWORK, max_bytes=MAX_BYTES)
    if isinstance(opened.statement, Result):
        attach(opened.statement.outputs, opened.attachments)


def _packet(data: bytes) -> None:
    if b"".join(messages_in(data)) != data:
        raise AssertionError("bytes were lost or invented")


def _packets() -> list[bytes]:
    return [b"".join(_together()), b"".join(_messages()[:3])]


def _together() -> list[bytes]:
    """Return messages that share a signature, each with its proof."""
    result = wire_samples.result()
    said = [(result.model_copy(update={"epoch": epoch}), (wire_samples.OUTPUT.data,)) for epoch in (1, 2, 3)]
    return seal_together(AGENT, said)


def _statement(data: bytes) -> None:
    fields = strict_cbor.decode(data, max_bytes=MAX_BYTES)
    kind = KINDS.get(fields.get("kind")) if isinstance(fields, dict) and isinstance(fields.get("kind"), str) else None
    for each in (kind,) if kind is not None else (Result, Birth, Job, Hello):
        _validate(each, fields)


def _cose(data: bytes) -> None:
    cose.verify_sign1(cose.parse_sign1(data, MAX_BYTES), AGENT.public)


def _tensors(data: bytes) -> None:
    """The first byte is the number of elements, or 255 for booleans, of which there is one a byte."""
    count, rest = (data[0], data[1:]) if data else (0, b"")
    if count == 255:
        Tensor(TensorSpec("x", DataType.BOOL, (len(rest),)), rest)
        return
    Tensor(TensorSpec("x", DataType.BYTES, (count,)), rest)
    unpack_strings(rest, count)


def _topic(data: bytes) -> None:
    TOPICS.parse(data.decode("utf-8", "surrogateescape"))


def _receipts() -> list[bytes]:
    return [*(receipt_logs.receipt(number) for number in range(3)), *receipt_logs.together(3)]


def _bundles() -> list[bytes]:
    receipts = _receipts()
    log = receipt_logs.log_of(receipts)
    return [receipt_logs.bundle(log, receipts, 1), receipt_logs.head(log)]


def _receipt(data: bytes) -> None:
    """A receipt; and that the quick way to leave its salt out gives, or refuses, what the slow one does."""
    assert _or_refused(without_salt, data) == _or_refused(lambda each: _bare(cose.parse_sign1(each, MAX_BYTES)), data)
    verify_receipt(data, COORDINATOR.public)


def _or_refused(make: Callable[[bytes], bytes], data: bytes) -> bytes | str:
    try:
        return make(data)
    except PeerError as error:
        return error.error_code


def _bundle(data: bytes) -> None:
    try:
        verify_tree_head(data, COORDINATOR.public)
    except PeerError:
        verify_bundle(data, COORDINATOR.public)


def _key(data: bytes) -> None:
    PublicKey.from_bytes(data)


# -- sealed jobs ----------------------------------------------------------------------------------------------------


@cache
def _asked() -> Tensor:
    question = Question("digits", (IMAGE,), ("label",), SALT, (HALF.public,))
    return seal_question(question, HALF.public, network=NETWORK, agent_id="a" * 32)


def _sealed_samples() -> list[bytes]:
    info = b"edge-agent sealed question 1\0home\0" + b"a" * 32
    answer = seal_answer(open_question(_asked(), (HALF,), network=NETWORK, agent_id="a" * 32), (IMAGE,))
    return [b"p" + hpke.decrypt(_asked().data, (HALF,), info), b"q" + _asked().data, b"a" + answer[0].data]


def _sealed(data: bytes) -> None:
    rest = data[1:]
    if data[:1] == b"p":  # a stranger who seals rightly: what is inside is parsed
        info = b"edge-agent sealed question 1\0home\0" + b"a" * 32
        rest = hpke.encrypt(rest, HALF.public, info)
    sealed = Tensor(TensorSpec(SEALED, DataType.UINT8, (len(rest),)), rest)
    if data[:1] != b"a":
        seal_answer(open_question(sealed, (HALF,), network=NETWORK, agent_id="a" * 32), (IMAGE,))
        return
    digest = Tensor(TensorSpec("#digest", DataType.UINT8, (32,)), bytes(32))
    open_answer((sealed, digest), (HALF,), asked=_asked(), salt=SALT, network=NETWORK, agent_id="a" * 32)


# -- HTTP -----------------------------------------------------------------------------------------------------------


def _oip_samples() -> list[bytes]:
    texts = Tensor(TensorSpec("t", DataType.BYTES, (2,)), b"\2\0\0\0ab\0\0\0\0")
    found = []
    for tensor in (IMAGE, texts, Tensor(TensorSpec("n", DataType.INT64, (2,)), bytes(16))):
        document = {"inputs": [tensor_to_json(tensor)], "outputs": [{"name": "y"}], "parameters": {"priority": 1}}
        found.append(b"\0" + json.dumps(document).encode())
        body, length = body_of({"id": "1"}, "inputs", [tensor], OutputForm(binary=True))
        found.append(bytes((length or 0,)) + body)
    return found


def _text_samples() -> list[bytes]:
    """Requests that are text alone; `_oip_samples` have a byte in front."""
    return [sample[1:] for sample in _oip_samples() if not sample[0]]


def _oip(data: bytes) -> None:
    """The first byte is the length of the text in front of binary data, or 0 where there is none."""
    length = str(data[0]) if data and data[0] else None
    for parse in (request_from_body, response_from_body):
        try:
            parse(data[1:], length)
        except InputError:
            continue


def _options(data: bytes) -> None:
    found = strict_json.read(data)
    if isinstance(found, dict):
        options_from(found)


def _numbers(data: bytes) -> None:
    """What is moved out of a text must mean the same as the text."""
    moved = in_binary_form(data)
    if moved is None:
        return
    try:
        read = request_from_body(moved[0], str(moved[1]))
    except InputError:
        return  # wrong beside its numbers
    assert read == request_from_body(data, None)


def _packed(data: bytes) -> None:
    """The first byte chooses the coding; what is announced in headers is text."""
    unpacker = Unpacker(("gzip", "deflate", data[1:20].decode("latin-1"))[data[0] % 3] if data else "gzip")
    room = 1 << 16
    for at in range(1, len(data), 512):
        for part in unpacker.feed(data[at : at + 512]):
            room -= len(part)
            if room < 0:
                return
    unpacker.end()


def _packed_samples() -> list[bytes]:
    body = json.dumps({"inputs": [tensor_to_json(IMAGE)]}).encode()
    gzip = zlib.compressobj(wbits=31)
    return [
        b"\0" + gzip.compress(body) + gzip.flush(),
        b"\1" + zlib.compress(body),
        b"\1" + zlib.compress(bytes(1 << 20)),
    ]


def _grpc(data: bytes) -> None:
    for parse in (oip_grpc.model_named, oip_grpc.infer_request, oip_grpc.only_ready):
        try:
            parse(data)
        except InputError:
            continue


def _grpc_samples() -> list[bytes]:
    described = field(1, "image") + field(2, "FP32") + packed(3, (1, 1, 8, 8))
    named = field(1, "digits") + field(2, "1")
    return [named + field(5, described) + field(7, IMAGE.data), named, field(2, value=True)]


# -- enrolment --------------------------------------------------------------------------------------------------------


def _registrar_file(data: bytes) -> None:
    for parse in (read_requests, read_certificates):
        try:
            parse(data)
        except EdgeAgentError:
            continue
    is_one(data, MAX_BYTES)


def _registrar_samples() -> list[bytes]:
    return [
        write_certificates(NETWORK, [(b"certificate", b"of a broker")]),
        write_requests(NETWORK, []),
        *_messages()[:4],
    ]


def _token_samples() -> list[bytes]:
    return [Token(NETWORK, COORDINATOR.public.id, bytes(16)).text().encode()]


# -- models -----------------------------------------------------------------------------------------------------------


def _onnx(data: bytes) -> None:
    fd = os.memfd_create("fuzz")
    try:
        os.write(fd, data)
        model_file.check(fd)
    finally:
        os.close(fd)


def _onnx_samples() -> list[bytes]:
    made = [onnx_models.identity("FP32"), onnx_models.endless(), onnx_models.external("x"), onnx_models.nested_ifs(3)]
    return [*made, onnx_models.claiming([2**40]), onnx_models.foreign("some.domain")]


def _catalogue_samples() -> list[bytes]:
    whole = catalogue.builtin()
    return [catalogue.compact(whole.model_copy(update={"families": whole.families[:1]}))]


def _golden_samples() -> list[bytes]:
    return [golden.encode_cases([golden.Case((IMAGE,), (IMAGE,))])]


# -- the worker and the machine ---------------------------------------------------------------------------------------


def _frame(data: bytes) -> None:
    """What a worker writes into the pipe, and the event that the daemon makes of it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        ours.send(data[:65_536])
        ours.shutdown(socket.SHUT_WR)
        reader = frames.FrameReader(theirs, lambda *_: 65_536)
        while (frame := reader.read()) is not None:
            event_of(frame, lambda _: "")


def _frame_samples() -> list[bytes]:
    entry = ["image", "FP32", [1, 1, 8, 8]]
    done = {"say": "done", "outputs": [entry]}
    failed = {"say": "run-failed", "code": "model-run", "message": "no", "blame": "model"}
    loaded = {"say": "loaded", "digest": bytes(32), "inputs": [entry], "outputs": [entry]}
    return [
        b"".join(bytes(piece) for piece in frames.pack(header, parts, token=1, run_us=5))
        for header, parts in ((done, [IMAGE.data]), (failed, []), (loaded, []))
    ]


def _reading(data: bytes) -> None:
    parse_reading(data, ())
    parse_reading(data, ("battery", "level"))


def _settings(data: bytes) -> None:
    fd = os.memfd_create("fuzz")
    try:
        os.write(fd, data)
        load(Path(f"/proc/self/fd/{fd}"), {"HOME": "/home/ada"}, {})
    finally:
        os.close(fd)


def _settings_samples() -> list[bytes]:
    text = '[network]\nname = "home"\n[agent]\nlabels = ["kitchen"]\nthreads = 2\n[coordinator]\nlease_seconds = 30.5\n'
    return [text.encode()]


def _control(data: bytes) -> None:
    parse_request(data)


def _keys() -> list[bytes]:
    return [AGENT.public.raw, bytes(32), (2**255 - 19).to_bytes(32, "little")]


def _cbor(data: bytes) -> None:
    """Two judges, which must say the same."""
    quick = strict_cbor._quickly(data, 8, 10_000)
    slow = strict_cbor._slowly(data, 8, 10_000) if quick is strict_cbor._UNSURE else _checked(quick, data)
    if strict_cbor.encode(slow) != data:
        raise AssertionError("another encoding was accepted")


def _checked(quick: object, data: bytes) -> strict_cbor.Value:
    try:
        slow = strict_cbor._slowly(data, 8, 10_000)
    except PeerError as error:
        raise AssertionError("the quick judge accepted what the slow one refuses") from error
    if repr(slow) != repr(quick):
        raise AssertionError("the two judges read different values")
    return slow


def _cbor_samples() -> list[bytes]:
    return [*_payloads(), strict_cbor.encode([[[[1, -1, 2**63, 1.5, None, True, "ü", b"x"]]]]), struct.pack(">B", 0xF6)]


PEER, INPUT = (PeerError,), (InputError,)

TARGETS: Final = (
    Target(
        "cbor",
        _cbor,
        PEER,
        _cbor_samples,
        "all that is signed",
        60,
        shape="cbor",
    ),
    Target("cose", _cose, PEER, _messages, "brokers, peers, files", 20),
    Target("envelope", _envelope, PEER, _messages, "brokers and peers", 20),
    Target("packet", _packet, (), _packets, "brokers and peers", 10),
    Target("statement", _statement, PEER, _payloads, "enrolled peers: what is rightly signed", 20, shape="cbor"),
    Target("tensors", _tensors, PEER, lambda: [b"\2\2\0\0\0ab\0\0\0\0", b"\xff\0\1\1"], "peers and clients", 60),
    Target(
        "topic", _topic, PEER, lambda: [TOPICS.results("a" * 32).encode(), TOPICS.coordinator.encode()], "brokers", 40
    ),
    Target("key", _key, PEER, _keys, "births and hellos", 20),
    Target("receipt", _receipt, PEER, _receipts, "files of others", 10),
    Target("bundle", _bundle, PEER, _bundles, "files of others", 10),
    Target("sealed", _sealed, PEER, _sealed_samples, "clients, agents", 10, shape="cbor", skip=1),
    Target("oip", _oip, INPUT, _oip_samples, "HTTP clients", 20, shape="json", skip=1),
    Target(
        "options",
        _options,
        (InputError, ValueError),
        lambda: [b'{"priority":1,"labels":"a,b","deadline_seconds":2.5,"agent":"' + b"a" * 32 + b'"}'],
        "HTTP clients",
        20,
        shape="json",
    ),
    Target("oip-numbers", _numbers, INPUT, _text_samples, "HTTP clients", 20, shape="json"),
    Target("packed", _packed, INPUT, _packed_samples, "HTTP clients", 10),
    Target(
        "accept-encoding",
        lambda data: wanted_coding(data.decode("latin-1")),
        INPUT,
        lambda: [b"gzip;q=0.5, deflate, *;q=0", b"identity"],
        "HTTP clients",
        20,
    ),
    Target("grpc", _grpc, INPUT, _grpc_samples, "gRPC clients", 10),
    Target(
        "token", lambda data: Token.parse(data.decode("latin-1")), (UsageError,), _token_samples, "whoever enrols", 10
    ),
    Target("registrar-file", _registrar_file, (), _registrar_samples, "a stolen coordinator, peers", 10),
    Target("onnx", _onnx, (WorkerError,), _onnx_samples, "catalogues, mirrors, owners", 10),
    Target("catalogue", catalogue.parse, (StateError,), _catalogue_samples, "a catalogue's operator", 10, shape="json"),
    Target("golden", golden.decode_cases, PEER, _golden_samples, "a catalogue's operator", 10, shape="cbor"),
    Target("frame", _frame, PEER, _frame_samples, "the worker, where a model has taken it over", 10),
    Target(
        "reading", _reading, (), lambda: [b"on", b"12.5", b'{"battery":{"level":80}}'], "the house's MQTT topics", 40
    ),
    Target(
        "control",
        _control,
        (UsageError,),
        lambda: [b'{"do":"pause","seconds":60}', b'{"do":"history","count":5}'],
        "local users",
        30,
    ),
    Target("settings", _settings, (SettingsError,), _settings_samples, "whoever wrote the file", 5),
    Target("coordinator", core, (), core_samples, "anybody on the broker", 10),
    Target("agent", agent_core, (), agent_core_samples, "anybody on the broker", 10),
    *HOSTILE_TARGETS,
    *FOREIGN_TARGETS,
)
BY_NAME: Final = {target.name: target for target in TARGETS}
