"""`edge-agent submit`: send one job from a file and print its outputs."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from edge_agent.cli.parsing import new_command
from edge_agent.cli.reaching import Patience, add_coordinator, add_registrar, client_of
from edge_agent.errors import InputError, RefusedError, StateError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edge_agent.cli.parsing import Parser, Subparsers
    from edge_agent.client import Answer, Client
    from edge_agent.models.entries import Port
    from edge_agent.wire.job_options import JobOptions

MAX_INPUT_BYTES = 64 * 1024 * 1024


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = new_command(
        subparsers,
        "submit",
        summary="send a job to a coordinator and print its outputs",
        description="Send one inference request and print the response, JSON of the Open Inference Protocol v2.\n"
        "The input file is such a request, or a .npy array for a family with one input.\n"
        "A call that is interrupted on the way is sent again under the same idempotency key.",
        examples=(
            "edge-agent submit digits --input request.json",
            "edge-agent submit digits --input scan.npy --receipt scan.receipt",
            "edge-agent submit digits --input scan.npy --labels kitchen --deadline 5 --async",
            "edge-agent submit digits --input scan.npy --seal AGENT_ID --receipt scan.receipt",
        ),
    )
    parser.add_argument("family", help="what to run, as `edge-agent models` lists it")
    parser.add_argument("--input", metavar="FILE", required=True, help="request as JSON, or an array as .npy")
    add_coordinator(parser)
    parser.add_argument("--version", metavar="VARIANT", help="insist on one variant")
    parser.add_argument("--receipt", metavar="FILE", help="write the signed receipt here, with its proof")
    parser.add_argument("--output", metavar="FILE", help="write the response here instead of printing it")
    parser.add_argument("--async", dest="later", action="store_true", help="do not wait: print the job's id")
    parser.add_argument(
        "--seal",
        metavar="AGENT",
        nargs="?",
        const="",
        help="only this agent can read the inputs, and only you the outputs; without an id, any that serves the family",
    )
    add_registrar(parser)
    add_options(parser)


def add_options(parser: Parser) -> None:
    """Add the options of a job."""
    group = parser.add_argument_group("options of the job")
    group.add_argument("--deadline", metavar="SECONDS", type=float, help="fail when there is no result by then")
    group.add_argument("--priority", metavar="N", type=int, default=0, help="among your jobs, -100 to 100: high first")
    group.add_argument("--max-attempts", metavar="N", type=int, help="fail when so many attempts have failed")
    group.add_argument("--idempotency-key", metavar="KEY", help="the same request under the same key is one job")
    group.add_argument("--labels", metavar="NAMES", default="", help="only on agents that have all these labels")
    group.add_argument(
        "--job-labels",
        metavar="NAMES",
        default="",
        help="what the job is, such as batch: owners may take some, or none",
    )
    group.add_argument("--owner", metavar="NAME", help="only on agents of this owner")
    group.add_argument(
        "--mode",
        default="signed",
        help="how the result is verified before it is given out: signed (default), rechecked, or quorum(n) of n owners",
    )
    group.add_argument(
        "--accept-newcomers", action="store_true", help="take results of unknown machines before they are checked"
    )
    group.add_argument("--class", dest="klass", metavar="ID", help="only in this class of machines, as answers name it")
    group.add_argument("--client", metavar="NAME", help="for whom; machines are shared fairly between clients")


def options_of(args: argparse.Namespace) -> JobOptions:
    """Read the options of a job.

    Raises:
        InputError: one is out of bounds.
    """
    from edge_agent.wire.job_options import JobOptions, Placement, labels_from  # noqa: PLC0415 as below

    return JobOptions(
        deadline_seconds=args.deadline,
        priority=args.priority,
        idempotency_key=args.idempotency_key,
        max_attempts=args.max_attempts,
        placement=Placement(labels_from(args.labels), args.owner, args.klass, job_labels=labels_from(args.job_labels)),
        client=args.client,
        mode=args.mode,
        accept_newcomers=args.accept_newcomers,
    )


def run(args: argparse.Namespace) -> int:
    """Send the job."""
    from pathlib import Path  # noqa: PLC0415 the parser of every command imports this module

    if args.later and (args.receipt or args.output):
        raise UsageError(
            "--async does not wait, so that there is nothing yet for --receipt and --output.",
            hint="Look at it later with: edge-agent jobs show ID --receipt FILE",
        )
    for flag, name in (("--receipt", args.receipt), ("--output", args.output)):
        if name is not None and not (os.access(Path(name).parent, os.W_OK) and not Path(name).is_dir()):
            # Told before a machine works for nothing.
            raise UsageError(f"{flag} {name} cannot be written: give the name of a file in a folder of yours.")
    if args.later and args.seal is not None:
        raise UsageError("--async does not go with --seal: the key that opens the outputs is kept until they come.")
    options = options_of(args)
    with client_of(args, on_retry=Patience()) as client:
        request = read_request(Path(args.input), args.family, client.inputs)
        if args.seal is not None:
            return _show(args, _run_sealed(args, client, request, options))
        if args.later:
            print(client.submit_json(args.family, request, version=args.version, options=options))
            return 0
        answer = client.infer_json(args.family, request, version=args.version, options=options)
        _warn(answer)
        if args.receipt:
            write_file(Path(args.receipt), fetch_receipt(client, answer.job_id))
    return _show(args, answer.body)


def _warn(answer: Answer) -> None:
    """Say that an agent's key may have been revoked, where nobody said that it was not."""
    seen = answer.verified.revocations if answer.verified is not None else None
    if seen is not None and seen.problem:
        print(f"not proven: that the agent's key was not revoked: {seen.problem}", file=sys.stderr)


def _show(args: argparse.Namespace, body: bytes) -> int:
    from pathlib import Path  # noqa: PLC0415 as above

    if args.output:
        write_file(Path(args.output), body)
    else:
        print(json.dumps(json.loads(body), indent=1))
    return 0


def _run_sealed(args: argparse.Namespace, client: Client, request: bytes, options: JobOptions) -> bytes:
    """Run a sealed job; return its response as if it had not been sealed.

    The receipt is about what was sealed, so that this is kept beside it: whoever checks the receipt needs no secret.
    """
    from pathlib import Path  # noqa: PLC0415 as above

    from edge_agent.client import infer_sealed  # noqa: PLC0415 as above
    from edge_agent.wire.oip_json import request_from_json, tensor_to_json  # noqa: PLC0415 as above

    asked = request_from_json(request)
    found = infer_sealed(
        client,
        args.family,
        asked.inputs,
        agent=args.seal or None,
        outputs=asked.outputs,
        version=args.version,
        options=options,
    )
    answer = found.answer
    _warn(answer)
    if args.receipt:
        sealed = json.dumps({"inputs": [tensor_to_json(found.question)]}).encode()
        write_file(Path(args.receipt), fetch_receipt(client, answer.job_id))
        write_file(Path(f"{args.receipt}.request.json"), sealed)
        write_file(Path(f"{args.receipt}.response.json"), answer.body)
    about = json.loads(answer.body)
    about["outputs"] = [tensor_to_json(tensor) for tensor in found.outputs]
    about["parameters"] = {**about.get("parameters", {}), "sealed_to": found.agent_id, "digest": found.digest.hex()}
    return json.dumps(about).encode()


def fetch_receipt(client: Client, job_id: str) -> bytes:
    """Return a receipt with its proof; one from before the log without it, which is said on standard error.

    Raises:
        EdgeAgentError: there is none.
    """
    try:
        return client.receipt_bundle(job_id)
    except RefusedError as error:
        if error.error_code != "not-logged":
            raise
        print(f"note: {error.message} It is written without a proof.", file=sys.stderr)
        return client.receipt(job_id)


def write_file(path: Path, data: bytes) -> None:
    """Write what came back.

    Raises:
        StateError: it cannot be written.
    """
    try:
        path.write_bytes(data)
    except OSError as error:
        raise StateError(
            f"{path} cannot be written: {error.strerror}", hint="The job itself is done; its answer is not kept here."
        ) from error


def read_request(path: Path, family: str, inputs: Callable[[str], Sequence[Port]]) -> bytes:
    """Read a request from a JSON or .npy file.

    Args:
        path: of the file.
        family: that it is for.
        inputs: says what a family takes; asked for an array alone, which does not say it itself.

    Raises:
        InputError: the file is not there, too large, or neither.
    """
    try:
        with path.open("rb") as file:  # /dev/stdin and /dev/zero have no size
            data = file.read(MAX_INPUT_BYTES + 1)
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}.", hint="Give a file with --input.") from error
    if len(data) > MAX_INPUT_BYTES:
        raise InputError(f"{path} has more than the {MAX_INPUT_BYTES} bytes that are sent at most.")
    if data.startswith(b"\x93NUMPY"):
        return _request_of_array(path, data, family, inputs(family))
    from edge_agent.wire.oip_json import request_from_json  # noqa: PLC0415 as above

    try:
        request_from_json(data)  # a cut file is told here, not by the coordinator
    except InputError as error:
        raise InputError(f"{path}: {error.message}", hint=error.hint) from error
    return data


def _request_of_array(path: Path, data: bytes, family: str, ports: Sequence[Port]) -> bytes:
    from edge_agent.client.arrays import tensor_from_npy  # noqa: PLC0415 numpy only where an array is read
    from edge_agent.wire.oip_json import tensor_to_json  # noqa: PLC0415 as above

    if len(ports) != 1:
        raise InputError(f"{family} has {len(ports)} inputs: a bare array does not say which one it is.")
    try:
        tensor = tensor_from_npy(data, ports[0])
    except InputError as error:
        raise InputError(f"{path}: {error.message}", hint=error.hint) from error
    return json.dumps({"inputs": [tensor_to_json(tensor)]}).encode()
