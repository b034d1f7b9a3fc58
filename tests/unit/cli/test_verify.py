"""`edge-agent verify`: plain words for a right receipt, clear errors for anything else."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
import wire_samples

from edge_agent.cli import main
from edge_agent.models.catalogue import builtin
from edge_agent.wire import cose, strict_cbor
from edge_agent.wire.certificates import MAX_LIFETIME_MS, issue
from edge_agent.wire.envelope import CONTENT_TYPE
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.messages import Result, TensorDigest
from edge_agent.wire.oip_json import tensor_to_json
from edge_agent.wire.receipts import make_receipt, without_salt
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = Tensor(TensorSpec("image", DataType.FP32, (1, 2)), bytes.fromhex("0000803f00000040"))


def receipt(certificate: bytes | None = None, **change: Any) -> bytes:  # noqa: ANN401 - fields of any type
    """Return a receipt for IMAGE and wire_samples.OUTPUT."""
    fields = {"inputs": (TensorDigest.of(IMAGE, wire_samples.SALT),)} | change
    statement: Result = wire_samples.result().model_copy(update=fields)
    signed = cose.sign1(wire_samples.AGENT, strict_cbor.encode(statement.model_dump()), content_type=CONTENT_TYPE)
    return make_receipt(
        wire_samples.COORDINATOR,
        result=signed,
        agent_key=wire_samples.AGENT.public,
        network=wire_samples.NETWORK,
        salt=wire_samples.SALT,
        accepted_ms=wire_samples.NOW_MS,
        certificate=certificate,
    )


def certificate(signer: SigningKey = wire_samples.REGISTRAR) -> bytes:
    """Return the agent's certificate."""
    agent, now_ms = wire_samples.AGENT.public, wire_samples.NOW_MS
    return issue(signer, network=wire_samples.NETWORK, agent=agent, sealing_key=None, owner="ada", now_ms=now_ms)


class Desk:
    """A folder with a receipt, the coordinator's key, the request and the response."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys
        self.receipt = folder / "job.receipt"
        self.key = folder / "coordinator.pub"
        self.request = folder / "request.json"
        self.response = folder / "response.json"
        self.receipt.write_bytes(receipt())
        wire_samples.COORDINATOR.public.write(self.key)
        self.request.write_text(json.dumps({"inputs": [tensor_to_json(IMAGE)]}))
        self.response.write_text(json.dumps({"model_name": "digits", "outputs": [tensor_to_json(wire_samples.OUTPUT)]}))

    def verify(self, *more: object) -> tuple[int, str, str]:
        """Run the command and return status, output and errors."""
        status = main(["verify", str(self.receipt), "--coordinator-key", str(self.key), *map(str, more)])
        captured = self._capsys.readouterr()
        return status, captured.out, captured.err

    def refused(self, *more: object) -> tuple[int, str]:
        """Run the command, expect an error and nothing proven, and return status and errors."""
        status, out, err = self.verify(*more)
        assert status != 0
        assert out == ""
        assert err.startswith("edge-agent: error: ")
        assert "\nhint: " in err
        return status, err


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    """Everything that there is to verify."""
    return Desk(tmp_path, capsys)


def test_the_agents_certificate_is_checked_where_the_registrar_is_given(desk: Desk) -> None:
    """In words and as JSON; without the registrar's key nothing is said of it."""
    registrar = desk.folder / "registrar.pub"
    wire_samples.REGISTRAR.public.write(registrar)
    desk.receipt.write_bytes(receipt(certificate()))
    status, out, _ = desk.verify("--registrar", registrar)
    assert status == 0
    assert f"belonged to the network and to ada then, as the registrar {wire_samples.REGISTRAR.public.id} signed" in out
    status, out, _ = desk.verify("--registrar", registrar, "--json")
    assert json.loads(out)["certificate"] == {
        "registrar_id": wire_samples.REGISTRAR.public.id,
        "agent_id": wire_samples.AGENT.public.id,
        "owner": "ada",
        "not_before_ms": wire_samples.NOW_MS,
        "not_after_ms": wire_samples.NOW_MS + MAX_LIFETIME_MS,
    }
    status, out, _ = desk.verify("--json")
    assert (status, json.loads(out)["certificate"]) == (0, None)


@pytest.mark.parametrize(
    ("certified", "words"),
    [
        (None, "carries no certificate"),
        (certificate(wire_samples.COORDINATOR), "not by the registrar"),
    ],
    ids=["none", "by-the-coordinator"],
)
def test_an_agent_that_the_registrar_did_not_let_in_is_told(desk: Desk, certified: bytes | None, words: str) -> None:
    """Nothing is printed as proven then."""
    registrar = desk.folder / "registrar.pub"
    wire_samples.REGISTRAR.public.write(registrar)
    desk.receipt.write_bytes(receipt(certified))
    status, err = desk.refused("--registrar", registrar)
    assert status == 76
    assert words in err


def test_a_receipt_alone_proves_who_and_what(desk: Desk) -> None:
    """Keys, job, model, time; and it is said that no input and output were looked at."""
    status, out, _ = desk.verify()
    assert status == 0
    proven = [line for line in out.splitlines() if line.startswith("proven ")]
    missing = [line for line in out.splitlines() if line.startswith("not proven ")]
    assert len(proven) + len(missing) == len(out.splitlines())
    assert wire_samples.COORDINATOR.public.id in proven[0]
    assert "2027-01-15 08:00:00 UTC" in proven[0]
    assert wire_samples.AGENT.public.id in proven[1]
    assert wire_samples.JOB_ID.hex() in proven[1]
    assert "onnxruntime 1.32.0 (CPUExecutionProvider, x86_64+avx512_vnni)" in proven[2]
    assert any("add --input FILE" in line for line in missing)
    assert any("add --output FILE" in line for line in missing)
    assert any("its key answers for it" in line for line in missing)


def test_files_are_proven_too(desk: Desk) -> None:
    """With both files, the input and output are what the agent signed for."""
    status, out, _ = desk.verify("--input", desk.request, "--output", desk.response, "--network", "home")
    assert status == 0
    assert f"proven      The input in {desk.request} is the one" in out
    assert f"proven      The output in {desk.response} is the one" in out
    assert "add --input" not in out
    assert "add --output" not in out


def test_a_variant_of_the_catalogue_is_named(desk: Desk) -> None:
    """A digest that is known is said by its name."""
    known = builtin().family("digits").variants[0]
    klass = wire_samples.CLASS.model_copy(update={"variant": known.digest_bytes})
    desk.receipt.write_bytes(receipt(variant=known.digest_bytes, klass=klass))
    assert f"variant {known.name} (model file {known.digest[:16]}" in desk.verify()[1]


def test_json_has_the_same(desk: Desk) -> None:
    """Ids, digests, and the sentences."""
    status, out, _ = desk.verify("--json", "--output", desk.response)
    document = json.loads(out)
    assert status == 0
    assert document["verified"] is True
    assert document["agent_id"] == wire_samples.AGENT.public.id
    assert document["job_id"] == wire_samples.JOB_ID.hex()
    assert [entry["checked"] for entry in document["inputs"] + document["outputs"]] == [False, True]
    assert document["outputs"][0]["digest"] == TensorDigest.of(wire_samples.OUTPUT).digest.hex()
    assert len(document["proven"]) == 4
    assert document["not_proven"]


@pytest.mark.parametrize("shape", [(1, 2), (2,)])
@pytest.mark.parametrize("dtype", [">f4", "float64", "int16"])
def test_an_array_is_read_as_submit_reads_it(desk: Desk, shape: tuple[int, ...], dtype: str) -> None:
    """Without the batch dimension, in another byte order, or of a type that holds the same numbers."""
    numpy = pytest.importorskip("numpy")
    buffer = io.BytesIO()
    numpy.save(buffer, numpy.array([1, 2], dtype).reshape(shape))
    file = desk.folder / "scan.npy"
    file.write_bytes(buffer.getvalue())
    assert desk.verify("--input", file)[0] == 0
    numpy.save(file, numpy.array([[1, 3]], dtype))
    status, err = desk.refused("--input", file)
    assert status == 76
    assert "its digest differs" in err


def test_an_array_for_several_tensors_is_refused(desk: Desk) -> None:
    """One array does not say which of two inputs it is."""
    second = TensorDigest.of(Tensor(TensorSpec("mask", DataType.BOOL, (1,)), b"\x01"), wire_samples.SALT)
    desk.receipt.write_bytes(receipt(inputs=(TensorDigest.of(IMAGE, wire_samples.SALT), second)))
    file = desk.folder / "scan.npy"
    file.write_bytes(b"\x93NUMPY")
    status, err = desk.refused("--input", file)
    assert status == 65
    assert "holds one array, but the receipt names 2: image (FP32 [1, 2]), mask (BOOL [1])" in err


def test_another_input_is_refused(desk: Desk) -> None:
    """The file of another job: what differs is said, and nothing counts as proven."""
    desk.request.write_text(desk.request.read_text().replace("2.0", "3.0"))
    status, err = desk.refused("--input", desk.request)
    assert status == 76
    assert "The input 'image' is not the one that the receipt is for: its digest differs." in err


def test_swapped_files_are_noticed(desk: Desk) -> None:
    """The response in the place of the request, and the other way round."""
    status, err = desk.refused("--input", desk.response)
    assert (status, "'inputs' is missing" in err) == (65, True)
    status, err = desk.refused("--output", desk.request)
    assert (status, "The response has the unknown member 'inputs'" in err) == (65, True)


def test_a_cut_receipt_is_refused(desk: Desk) -> None:
    """At any place."""
    whole = desk.receipt.read_bytes()
    for length in (1, 2, 50, len(whole) // 2, len(whole) - 1):
        desk.receipt.write_bytes(whole[:length])
        status, err = desk.refused()
        assert status == 76
        assert "hint: Nothing is proven" in err


def test_an_altered_receipt_is_refused(desk: Desk) -> None:
    """One changed byte of the agent's result."""
    desk.receipt.write_bytes(desk.receipt.read_bytes().replace(b"x86_64", b"x86_46"))
    status, err = desk.refused()
    assert status == 76
    assert "altered" in err


def test_another_coordinators_key_is_refused(desk: Desk) -> None:
    """Both ids are said."""
    desk.key.unlink()
    wire_samples.AGENT.public.write(desk.key)
    status, err = desk.refused()
    assert status == 76
    assert wire_samples.COORDINATOR.public.id in err
    assert wire_samples.AGENT.public.id in err


def test_another_network_is_refused(desk: Desk) -> None:
    """When the caller insists on one."""
    status, err = desk.refused("--network", "club")
    assert status == 76
    assert "network" in err


def test_without_salt_inputs_cannot_be_compared(desk: Desk) -> None:
    """The reason is said; the outputs still can be."""
    desk.receipt.write_bytes(without_salt(desk.receipt.read_bytes()))
    status, err = desk.refused("--input", desk.request)
    assert status == 65
    assert "without its salt" in err
    assert desk.verify("--output", desk.response)[0] == 0


@pytest.mark.parametrize("which", ["receipt", "request", "response", "key"])
@pytest.mark.parametrize("how", ["missing", "empty", "folder"])
def test_files_that_cannot_be_read(desk: Desk, which: str, how: str) -> None:
    """Each is named, and the status says whether a key or another file is at fault."""
    path = getattr(desk, which)
    path.unlink()
    if how == "empty":
        path.touch()
    elif how == "folder":
        path.mkdir()
    status, err = desk.refused("--input", desk.request, "--output", desk.response)
    assert status == (77 if which == "key" else 65)
    assert str(path) in err


def test_the_secret_key_is_not_taken_for_the_public_one(desk: Desk) -> None:
    """With a hint which file to give."""
    desk.key.unlink()
    wire_samples.COORDINATOR.write(desk.key)
    status, err = desk.refused()
    assert status == 77
    assert "secret key where a public one is needed" in err


def test_json_that_is_cut_is_refused(desk: Desk) -> None:
    """The file and the place are named."""
    desk.request.write_text(desk.request.read_text()[:-5])
    status, err = desk.refused("--input", desk.request)
    assert status == 65
    assert f"{desk.request}: The text is not JSON" in err
    assert "line 1" in err


def test_times_beyond_the_calendar(desk: Desk) -> None:
    """A coordinator with a strange clock is still understood."""
    message = cose.parse_sign1(desk.receipt.read_bytes(), 10_000)
    fields = strict_cbor.decode(message.payload, max_bytes=10_000)
    assert isinstance(fields, dict)
    fields["accepted_ms"] = 2**53 - 1
    data = cose.sign1(wire_samples.COORDINATOR, strict_cbor.encode(fields), content_type=CONTENT_TYPE)
    desk.receipt.write_bytes(data)
    assert "9007199254740991 ms after 1970" in desk.verify()[1]
