"""`edge-agent verify`: what a receipt proves, offline and in plain words."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edge_agent.cli.parsing import add_json_flag, new_command
from edge_agent.cli.reaching import add_coordinator_key
from edge_agent.errors import InputError, PeerError, StateError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from edge_agent.cli.parsing import Subparsers
    from edge_agent.wire.bundles import VerifiedBundle
    from edge_agent.wire.identity import Certificate, Revocations
    from edge_agent.wire.keys import PublicKey
    from edge_agent.wire.messages import Result, TensorDigest
    from edge_agent.wire.receipts import VerifiedReceipt
    from edge_agent.wire.tensors import Tensor

MAX_TENSOR_FILE_BYTES = 256 * 1024 * 1024


class Findings(NamedTuple):
    """What is proven and what is not, a sentence each."""

    proven: list[str]
    not_proven: list[str]


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = new_command(
        subparsers,
        "verify",
        summary="check a receipt offline and say what it proves",
        description="Check the two signatures of a receipt, without any network: the coordinator's, with\n"
        "the public key that you trust, and the agent's; and, if it came with its proof, that it is in the\n"
        "coordinator's log. With the input and output files, check that the\n"
        "receipt is about these very bytes. Files are the JSON of the Open Inference Protocol (request,\n"
        "response), or .npy where there is one tensor. Ends with status 0 only if all that was given fits.",
        examples=(
            "edge-agent verify job.receipt --coordinator-key coordinator.pub",
            "edge-agent verify job.receipt --coordinator-key coordinator.pub --output response.json",
            "edge-agent verify job.receipt --coordinator-key coordinator.pub --registrar registrar.pub",
        ),
    )
    parser.add_argument("receipt", metavar="RECEIPT", type=Path, help="the receipt's file, with or without its proof")
    add_coordinator_key(parser)
    parser.add_argument("--network", metavar="NAME", help="the network that the receipt must be for")
    parser.add_argument("--input", metavar="FILE", type=Path, help="the input that was sent")
    parser.add_argument("--output", metavar="FILE", type=Path, help="the output that came back")
    parser.add_argument(
        "--registrar",
        metavar="FILE",
        type=Path,
        help="the registrar's public key (PEM): check that the agent belonged to the network, and to whom",
    )
    parser.add_argument(
        "--revocations",
        metavar="FILE",
        type=Path,
        help="the signed list of revoked keys (/api/v1/revocations, or what clients keep): refuse what one signed",
    )
    add_json_flag(parser, "what is proven and what is not")


def run(args: argparse.Namespace) -> int:
    """Check the receipt and print what follows."""
    from edge_agent.wire.keys import PublicKey  # noqa: PLC0415 - cryptography is not for `--help`
    from edge_agent.wire.oip_json import request_from_json, response_from_json  # noqa: PLC0415 - as above

    key = PublicKey.from_file(args.coordinator_key)
    try:
        _, receipt, logged = open_receipt(args.receipt, key, args.network)
        result = receipt.result
        if args.input is not None:
            receipt.check_inputs(_tensors(args.input, result.inputs, lambda text: request_from_json(text).inputs))
        if args.output is not None:
            receipt.check_outputs(_tensors(args.output, result.outputs, lambda text: response_from_json(text).outputs))
        certificate, certified_by, revocations = _standing(args, receipt, key)
    except PeerError as error:
        _explain(error)
        raise
    found = findings(receipt, args.input, args.output, logged)
    if certificate is not None:
        whose = f" and to {certificate.owner}" if certificate.owner else ""
        found.not_proven[:] = [each.replace("Who owns the agent, and the", "The") for each in found.not_proven]
        found.proven.insert(
            2,
            f"The agent belonged to the network{whose} then, as the registrar {certified_by} signed, "
            f"until {_time(certificate.not_after_ms)}.",
        )
    if revocations is None:
        found.not_proven.append("That its agent's key was not revoked: no list was given; add --revocations FILE.")
    else:
        found.proven.append(
            f"Its agent stands not among the {len(revocations.revoked)} keys that were revoked by "
            f"{_time(revocations.issued_ms)}."
        )
        if revocations.issued_ms < receipt.accepted_ms:
            found.not_proven.append("That its agent's key was not revoked after that list and before this result.")
    if args.json:
        print(
            json.dumps(_document(receipt, found, args, logged) | {"certificate": _certified(certificate, certified_by)})
        )
    else:
        print(_text(found))
    return 0


def _certified(certificate: Certificate | None, registrar: str | None) -> dict[str, Any] | None:
    """Return what was checked of the agent's certificate."""
    if certificate is None:
        return None
    return {
        "registrar_id": registrar,
        "agent_id": certificate.agent_id,
        "owner": certificate.owner,
        "not_before_ms": certificate.issued_ms,
        "not_after_ms": certificate.not_after_ms,
    }


def _standing(
    args: argparse.Namespace, receipt: VerifiedReceipt, coordinator: PublicKey
) -> tuple[Certificate | None, str | None, Revocations | None]:
    """Check the agent's certificate and that it was not revoked, as far as that was asked for."""
    from edge_agent.wire import standing  # noqa: PLC0415 - as above
    from edge_agent.wire.identity import MAX_REVOCATIONS_BYTES  # noqa: PLC0415 - as above
    from edge_agent.wire.keys import PublicKey  # noqa: PLC0415 - as above

    registrar = PublicKey.from_file(args.registrar) if args.registrar is not None else None
    certificate = standing.check_belonged(receipt, registrar) if registrar is not None else None
    revocations = None
    if args.revocations is not None:
        signers = (coordinator,) if registrar is None else (coordinator, registrar)
        data = _read(args.revocations, 2 * MAX_REVOCATIONS_BYTES)
        revocations = standing.open_revocations(data, signers, network=receipt.result.network)
        standing.check_not_revoked(receipt, revocations)
    return certificate, registrar.id if registrar is not None else None, revocations


def open_receipt(
    path: Path, key: PublicKey, network: str | None
) -> tuple[bytes, VerifiedReceipt, VerifiedBundle | None]:
    """Read and verify a receipt, with or without its proof; return the file, too.

    Raises:
        InputError: it cannot be read.
        PeerError: as `verify_receipt` and `verify_bundle`.
    """
    from edge_agent.wire.bundles import MAX_BUNDLE_BYTES, is_bundle, verify_bundle  # noqa: PLC0415 - as above
    from edge_agent.wire.receipts import verify_receipt  # noqa: PLC0415 - as above

    data = _read(path, MAX_BUNDLE_BYTES)
    try:
        if is_bundle(data):
            logged = verify_bundle(data, key, network=network)
            return data, logged.receipt, logged
        return data, verify_receipt(data, key, network=network), None
    except PeerError as error:
        _explain(error)
        raise


def _explain(error: PeerError) -> None:
    if error.hint == type(error).default_hint:
        error.hint = "Nothing is proven: the receipt is cut, altered or another coordinator's. Fetch it again."


def findings(
    receipt: VerifiedReceipt, input_file: Path | None, output_file: Path | None, logged: VerifiedBundle | None = None
) -> Findings:
    """Put into words what a verified receipt proves.

    Args:
        receipt: what `verify_receipt` returned.
        input_file: the file that `check_inputs` agreed to, if any.
        output_file: the file that `check_outputs` agreed to, if any.
        logged: what `verify_bundle` returned, if the receipt came with its proof.
    """
    result = receipt.result
    klass = result.klass
    proven = [
        (
            f"The coordinator {receipt.coordinator.id} accepted this result in the network {result.network} "
            f"on {_time(receipt.accepted_ms)}, by its own clock."
        ),
        f"The agent {receipt.agent.id} signed it: job {result.job.hex()}, attempt {result.epoch}.",
        (
            f"The agent states that it ran {result.family}, {_variant(result)}, with {klass.runtime} "
            f"({klass.provider}, {klass.isa}) in {result.run_us / 1000:.3g} ms."
        ),
    ]
    not_proven = [
        (
            "That the agent computed the output with that model: it says so, and its key answers for it. "
            "Only a second run elsewhere shows more."
        ),
        "Who owns the agent, and the exact times: each is one machine's word.",
    ]
    if logged is None:
        not_proven.append("That it is in the coordinator's log: this receipt came without its proof.")
    else:
        head = logged.tree_head
        proven.append(
            f"It is number {logged.index + 1} of the {head.size} receipts in the coordinator's log, "
            f"as the coordinator signed on {_time(head.issued_ms)}, by its own clock."
        )
        not_proven.append(
            "That the coordinator shows the same log to everybody: compare with what others saw, with "
            "`edge-agent log audit --compare`."
        )
    for what, file, signed in (
        ("input", input_file, result.inputs),
        ("output", output_file, result.outputs),
    ):
        if file is None:
            not_proven.insert(0, f"Which {what} it was: none was given; add --{what} FILE to check it.")
        else:
            proven.append(f"The {what} in {file} is the one that the agent signed for: {_names(signed)}.")
    return Findings(proven, not_proven)


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            # One byte more than the limit is enough to see that it is above it.
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise InputError(
            f"The file {path} cannot be read: {error.strerror}.", hint="Check its name and its permissions."
        ) from error
    if not data:
        raise InputError(f"The file {path} is empty.", hint="Fetch or write it again.")
    if len(data) > max_bytes:
        raise InputError(f"The file {path} is longer than {max_bytes} bytes.", hint="Is it the right file?")
    return data


def _tensors(path: Path, signed: Sequence[TensorDigest], from_json: Callable[[bytes], list[Tensor]]) -> list[Tensor]:
    """Read the tensors of a file, an array exactly as `edge-agent submit` does."""
    data = _read(path, MAX_TENSOR_FILE_BYTES)
    is_array = data.startswith(b"\x93NUMPY")
    if is_array and len(signed) != 1:
        raise InputError(f"{path} holds one array, but the receipt names {len(signed)}: {_names(signed)}.")
    try:
        return [_from_array(data, signed[0])] if is_array else from_json(data)
    except InputError as error:
        raise InputError(f"{path}: {error.message}", hint=error.hint) from error


def _from_array(data: bytes, signed: TensorDigest) -> Tensor:
    from edge_agent.client.arrays import tensor_from_npy  # noqa: PLC0415 - numpy, only where an array is read
    from edge_agent.models.catalogue import Port  # noqa: PLC0415 - as above

    # The first dimension is left open, as that of a batch, which a single sample may lack.
    shape: tuple[int | str, ...] = ("N", *signed.shape[1:]) if signed.shape else ()
    return tensor_from_npy(data, Port(name=signed.name, datatype=signed.datatype.value, shape=shape))


def _text(found: Findings) -> str:
    lines = [f"proven      {sentence}" for sentence in found.proven]
    lines += [f"not proven  {sentence}" for sentence in found.not_proven]
    return "\n".join(lines)


def _document(
    receipt: VerifiedReceipt, found: Findings, args: argparse.Namespace, logged: VerifiedBundle | None
) -> dict[str, Any]:
    result = receipt.result
    return {
        "verified": True,
        "network": result.network,
        "coordinator_id": receipt.coordinator.id,
        "agent_id": receipt.agent.id,
        "job_id": result.job.hex(),
        "epoch": result.epoch,
        "family": result.family,
        "variant": result.variant.hex(),
        "runtime": result.klass.runtime,
        "provider": result.klass.provider,
        "isa": result.klass.isa,
        "run_us": result.run_us,
        "accepted_ms": receipt.accepted_ms,
        "inputs": [_entry(signed, checked=args.input is not None) for signed in result.inputs],
        "outputs": [_entry(signed, checked=args.output is not None) for signed in result.outputs],
        "log": None
        if logged is None
        else {
            "index": logged.index,
            "size": logged.tree_head.size,
            "root": logged.tree_head.root.hex(),
            "issued_ms": logged.tree_head.issued_ms,
        },
        "proven": found.proven,
        "not_proven": found.not_proven,
    }


def _entry(signed: TensorDigest, *, checked: bool) -> dict[str, Any]:
    return {
        "name": signed.name,
        "datatype": signed.datatype.value,
        "shape": list(signed.shape),
        "digest": signed.digest.hex(),
        "checked": checked,
    }


def _names(signed: Sequence[TensorDigest]) -> str:
    return ", ".join(f"{entry.name} ({entry.datatype.value} {list(entry.shape)})" for entry in signed)


def _variant(result: Result) -> str:
    from edge_agent.models.catalogue import builtin, public_models  # noqa: PLC0415 - only to say a name

    digest = result.variant.hex()
    try:
        families = (*builtin().families, *public_models().families)
        known = [v for f in families if f.name == result.family for v in f.variants if v.digest == digest]
    except StateError:
        known = []
    return f"variant {known[0].name} (model file {digest[:16]}…)" if known else f"model file {digest}"


def _time(unix_ms: int) -> str:
    try:
        return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):  # beyond the year 9999
        return f"{unix_ms} ms after 1970"
