"""More parsers: of answers and files that clients read, a worker's orders, catalogues, and small things at home."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import random
import socket
import struct
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import receipt_logs
import wire_samples
from fakes import digits, scan
from pydantic import ValidationError
from repositories import Operator
from target import Target
from tuf.api.exceptions import RepositoryError
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from edge_agent.agent.assistant.orders import ORDERS, parse
from edge_agent.client.credentials import Pins
from edge_agent.client.procedures import Procedures, Wish
from edge_agent.client.rows import count_rows, read_rows
from edge_agent.client.steps import Aside, Reply, Wait, Way
from edge_agent.coordinator.gateway import reading_process
from edge_agent.coordinator.gateway.mqtt_jobs import _key_inside
from edge_agent.errors import EdgeAgentError, InputError, KeyFileError, PeerError, SettingsError, StateError
from edge_agent.inference import frames, messages
from edge_agent.inference.shared import Inputs, SharedInputs
from edge_agent.settings.enrolment import enrolled, text_of
from edge_agent.wire import strict_cbor
from edge_agent.wire.job_options import JobOptions
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.oip_binary import LENGTH_HEADER
from edge_agent.wire.oip_json import OutputForm, body_of, tensor_to_json
from edge_agent.wire.terms import Terms

IMAGE: Final = scan(3)
OUTPUT: Final = wire_samples.OUTPUT

# -- whose jobs a machine takes ---------------------------------------------------------------------------------------


def _terms_samples() -> list[bytes]:
    said = Terms(clients=("ada", "grace"), first=("grace",), labels=("family", "school"), denied=("press",))
    return [strict_cbor.encode({**said.model_dump(), "client": "ada", "given": ["family"]})]


def _terms(data: bytes) -> None:
    """What an agent says of its terms, and a job's client and labels judged by them; both ends must agree."""
    fields = strict_cbor.decode(data, max_bytes=1 << 16)
    if not isinstance(fields, dict):
        return
    client, given = fields.pop("client", None), fields.pop("given", None)
    try:
        terms = Terms.model_validate(fields)
    except ValidationError:
        return
    named = client if isinstance(client, str) else None
    labels = [each for each in given if isinstance(each, str)] if isinstance(given, list) else []
    refused = terms.why_not_client(named) is not None or terms.why_not_labels(labels) is not None
    assert terms.restrict or not refused
    assert Terms.model_validate(strict_cbor.decode(strict_cbor.encode(terms.model_dump()), max_bytes=1 << 17)) == terms


# -- the process that reads long requests -----------------------------------------------------------------------------


@cache
def _file() -> int:
    return os.memfd_create("fuzz")


def _long_samples() -> list[bytes]:
    message = {"inputs": [tensor_to_json(IMAGE)], "outputs": [{"name": "label"}], "id": "1", "model_name": "digits"}
    wish = {"model": "minilm-l6", "input": ["Hello", "world"], "dimensions": 64, "encoding_format": "base64"}
    return [b"r" + json.dumps(message).encode(), b"e" + json.dumps(wish).encode()]


def _long(data: bytes) -> None:
    """The first byte says which kind of request it is; what it is made into is read as the gateway reads it."""
    text = data[1:]
    os.ftruncate(_file(), 0)
    os.pwrite(_file(), text, 0)
    kind = reading_process.EMBEDDINGS if data[:1] == b"e" else "request"
    answer = reading_process.answer({"kind": kind, "bytes": len(text), "json_length": None}, _file())
    packet = json.dumps(answer).encode()
    assert len(packet) < reading_process.MAX_PACKET_BYTES
    if "error" not in answer:
        body = os.pread(_file(), int(str(answer["bytes"])), 0)
        assert len(body) == answer["bytes"]
    _key_inside(text)


# -- a client, and what a coordinator answers -------------------------------------------------------------------------


class _Talk:
    """Drives a client's procedures with the same answer to every call."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.now = 0.0
        way = Way("http://coordinator", lambda: self.now, random.Random(1), lambda _: None)
        keys = Pins(wire_samples.COORDINATOR.public, wire_samples.REGISTRAR.public)
        self.pinned = Procedures(way, 10.0, keys, lambda: 1.8e9)
        self.plain = Procedures(way, 10.0, Pins(), lambda: 1.8e9)

    def run(self, steps: Any) -> None:  # noqa: ANN401 Steps[...]
        with suppress(StopIteration, EdgeAgentError):
            step = next(steps)
            for _ in range(100):
                if isinstance(step, Wait):
                    self.now += step.seconds
                    step = steps.send(None)
                elif isinstance(step, Aside):
                    step = steps.send(step.work())
                else:
                    self.now += 1.0
                    step = steps.send(self.reply)


def _client_samples() -> list[bytes]:
    about = {
        "job_id": wire_samples.JOB_ID.hex(),
        "agent_id": "a" * 32,
        "class": "x",
        "run_us": 5,
        "verification": "signed",
    }
    receipt = receipt_logs.receipt(1)
    about["receipt_cose"] = base64.b64encode(receipt).decode()
    answer = {"model_name": "digits", "model_version": "v", "parameters": about}
    text = {**answer, "outputs": [tensor_to_json(OUTPUT)]}
    binary, length = body_of(answer, "outputs", [OUTPUT], OutputForm(binary=True))
    assert length is not None
    port = {"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}
    known = {"inputs": [port], "network": "home", "public_key": wire_samples.COORDINATOR.public.raw.hex()}
    error = {"error": "no", "hint": "wait", "code": "queue-full", "retry": True}
    return [
        *(bytes((call, 200, 0, 0)) + json.dumps(text).encode() for call in (1, 3)),
        *(bytes((4 + call, 200, 0, 0)) + json.dumps(each).encode() for call, each in enumerate((known, known, known))),
        *(
            bytes((call, status % 256, 0, 0)) + json.dumps(error).encode()
            for call, status in enumerate((400, 429, 503))
        ),
        *(bytes((call, 200, *length.to_bytes(2))) + binary for call in (0, 2)),
    ]


def _client(data: bytes) -> None:
    """Four bytes in front: the call, the status, and the length of the text in front of binary data."""
    call, code, length = struct.unpack(">BBH", data[:4].ljust(4, b"\0"))
    status = {each % 256: each for each in (400, 401, 404, 408, 429, 500, 503, 504)}.get(code, 200)
    headers = {LENGTH_HEADER.lower(): str(length)} if length else {}
    talk = _Talk(Reply(status, {**headers, "retry-after": "1"}, data[4:]))
    once = JobOptions(idempotency_key="k")
    match call % 7:
        case 0 | 2 as which:
            calls = talk.plain if which else talk.pinned
            talk.run(calls.infer(Wish("digits", [wire_samples.INPUT], options=once)))
        case 1 | 3 as which:
            request = json.dumps({"inputs": [tensor_to_json(IMAGE)]}).encode()
            talk.run((talk.plain if which == 3 else talk.pinned).infer_json("digits", request, None, once))
        case 4:
            talk.run(talk.plain.inputs("digits"))
        case 5:
            talk.run(talk.plain.coordinator_key())
        case 6:
            talk.run(talk.pinned.certificate("a" * 32))


# -- the inputs of a batch --------------------------------------------------------------------------------------------


@cache
def _folder() -> tuple[TemporaryDirectory[str], Path]:
    made = TemporaryDirectory(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)  # noqa: S108 memory
    return made, Path(made.name)


def _rows_samples() -> list[bytes]:
    stored, packed, array = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.savez(stored, image=np.zeros((2, 1, 8, 8), np.float32))
    np.savez_compressed(packed, image=np.zeros((2, 1, 8, 8), np.float32))
    np.save(array, np.zeros((1, 8, 8), np.float32))
    lines = json.dumps({"image": [[[0.0] * 8] * 8]}) + "\n" + json.dumps({"inputs": [tensor_to_json(IMAGE)]}) + "\n"
    return [b"z" + stored.getvalue(), b"z" + packed.getvalue(), b"y" + array.getvalue(), b"l" + lines.encode()]


def _rows(data: bytes) -> None:
    """The first byte says what kind of file it is."""
    suffix = {b"z": "rows.npz", b"y": "rows/one.npy"}.get(data[:1], "rows.jsonl")
    path = _folder()[1] / suffix
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data[1:])
    source = path.parent if suffix == "rows/one.npy" else path
    count = count_rows(source)
    for number, _ in enumerate(read_rows(source, digits().inputs)):
        if number > 300:
            break
        assert number < count


# -- what the daemon orders of its worker -----------------------------------------------------------------------------


def _order_samples() -> list[bytes]:
    entry = ["image", "FP32", [1, 1, 8, 8]]
    orders: list[tuple[dict[str, Any], list[bytes]]] = [
        (
            {"do": "run", "digest": bytes(32), "outputs": ["label"], "max_output_bytes": 9, "inputs": [entry]},
            [IMAGE.data],
        ),
        (
            {"do": "canary", "digest": bytes(32), "cases": [[entry]], "wanted": [["label"]], "extents": [["N", 1]]}
            | {"threads": [1, 2], "seconds": 1.0, "within_seconds": 2.5, "max_output_bytes": 9},
            [IMAGE.data],
        ),
        ({"do": "load", "digest": bytes(32), "threads": 2, "lanes": 1}, []),
    ]
    heads = [frames.pointing(frames.head_of(header, frames.lengths_of(parts)), 64, token=1) for header, parts in orders]
    following = [frames.pack(header, parts, token=1) for header, parts in orders]
    return [b"".join(map(bytes, buffers)) for buffers in following + heads]


@cache
def _inputs() -> Inputs:
    made = SharedInputs(logging.getLogger("fuzz"))
    assert made.fd is not None
    return Inputs(os.dup(made.fd))


def _order(data: bytes) -> None:
    """Frames as the worker reads them; a run's parts go into the reader's room."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        ours.send(data[:65_536])
        ours.shutdown(socket.SHUT_WR)
        shared = _inputs().parts
        reader = frames.FrameReader(theirs, lambda *_: 65_536, takes_fd=True, reuses_bytes=4096, shared=shared)
        while (frame := reader.read()) is not None:
            header = frame.header
            match messages.text_of(header, "do"):
                case "run":
                    messages.run_of(frame)
                    messages.tensors_of(frame, "inputs")
                case "canary":
                    messages.cases_of(header, frame.parts)
                    messages.extents_of(header)
                    messages.counts_of(header, "threads")
                    messages.number_of(header, "seconds")
                case _:
                    messages.digest_of(header)


# -- catalogues -------------------------------------------------------------------------------------------------------


@cache
def _signed_catalogue() -> dict[str, bytes]:
    with TemporaryDirectory(prefix="fuzz-") as folder:
        operator = Operator(Path(folder) / "catalogue", now=datetime(2100, 1, 1, tzinfo=UTC))
        operator.publish("digits")
        names = {path.name.split(".")[-2]: path.read_bytes() for path in sorted(operator.public.rglob("*.json"))}
    return {role: names[role] for role in ("root", "timestamp", "snapshot", "targets")}


def _metadata_samples() -> list[bytes]:
    return [bytes((number,)) + data for number, data in enumerate(_signed_catalogue().values())]


def _metadata(data: bytes) -> None:
    """A file of a signed catalogue, in the place of its role; those before it are right."""
    known = _signed_catalogue()
    trusted = TrustedMetadataSet(known["root"], EnvelopeType.METADATA)
    update = (trusted.update_root, trusted.update_timestamp, trusted.update_snapshot, trusted.update_targets)
    at = data[0] % 4 if data else 0
    for number, role in enumerate(known):
        if 0 < number < at:
            update[number](known[role])
    if at == 3:
        trusted.update_delegated_targets(data[1:], "targets", "root")
    else:
        update[at](data[1:])


# -- files and topics at home -----------------------------------------------------------------------------------------


def _enrolment(data: bytes) -> None:
    folder = _folder()[1]
    (folder / "enrolment.toml").write_bytes(data)
    enrolled(folder)


def _public(data: bytes) -> None:
    path = _folder()[1] / "key.pub"
    path.write_bytes(data)
    PublicKey.from_file(path)


def _public_samples() -> list[bytes]:
    path = _folder()[1] / "sample.pub"
    path.unlink(missing_ok=True)
    wire_samples.COORDINATOR.public.write(path)
    return [path.read_bytes()]


def _home_order(data: bytes) -> None:
    what = ORDERS[data[0] % len(ORDERS)] if data else "work"
    parse(what, data[1:])


FOREIGN_TARGETS: Final = (
    Target("terms", _terms, (PeerError,), _terms_samples, "owners of machines", 10, "cbor"),
    Target("long-request", _long, (), _long_samples, "HTTP clients", 10, "json", 1),
    Target(
        "client-answer", _client, (), _client_samples, "a coordinator, or whoever answers in its place", 10, "json", 4
    ),
    Target("rows", _rows, (InputError,), _rows_samples, "whoever made the file", 5),
    Target("order", _order, (PeerError,), _order_samples, "clients, by way of the daemon", 10),
    Target("tuf", _metadata, (RepositoryError,), _metadata_samples, "a catalogue's mirror", 5, "json", 1),
    Target(
        "enrolment-file",
        _enrolment,
        (SettingsError, StateError),
        lambda: [text_of({"network": "home", "coordinator_key": "ab" * 32}).encode()],
        "whoever wrote the file",
        5,
    ),
    Target("key-file", _public, (KeyFileError,), _public_samples, "operators", 5),
    Target("home-order", _home_order, (), lambda: [b"\0ON", b"\1quiet", b"\3" + b"40"], "the house's MQTT topics", 20),
)
