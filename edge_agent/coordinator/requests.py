"""Checks a client's tensors against what the catalogue says of a family, before anything is accepted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from edge_agent.errors import InputError
from edge_agent.models.catalogue import Family, Port
from edge_agent.wire.job_options import JobOptions
from edge_agent.wire.sealing import is_sealed, why_not_sealed_inputs
from edge_agent.wire.tensors import Tensor, TensorSpec


def check_inputs(family: Family, inputs: Sequence[Tensor], outputs: Sequence[str]) -> dict[str, int]:
    """Check names, types and shapes of a request.

    Args:
        family: what the client named.
        inputs: the tensors it sent, in any order.
        outputs: the outputs it asked for; empty means all.

    Returns:
        The value that each symbol of the family's shapes has in this request.

    Raises:
        InputError: naming the tensor, what was expected and what was sent.
    """
    ports = {port.name: port for port in family.inputs}
    by_name = {tensor.spec.name: tensor for tensor in inputs}
    if len(by_name) != len(inputs):
        raise InputError("two inputs have the same name")
    for name in by_name:
        if name not in ports:
            raise InputError(f"{family.name} has no input named {name!r}; it takes {_listed(ports)}")
    symbols: dict[str, int] = {}
    for name, port in ports.items():
        if name not in by_name:
            raise InputError(f"the input {name!r} of {family.name} is missing; it takes {_listed(ports)}")
        problem = mismatch(port, by_name[name].spec, symbols)
        if problem:
            raise InputError(f"the input {name!r} of {family.name} {problem}")
    known = {port.name for port in family.outputs}
    for name in outputs:
        if name not in known:
            raise InputError(f"{family.name} has no output named {name!r}; it gives {_listed(known)}")
    if len(set(outputs)) != len(outputs):
        raise InputError("an output is asked for twice")
    return symbols


def mismatch(port: Port, spec: TensorSpec, symbols: dict[str, int]) -> str | None:
    """Say how a tensor differs from its port, or None; binds symbols that are not bound yet."""
    if spec.datatype.value != port.datatype:
        return f"must be {port.datatype}, not {spec.datatype.value}"
    if len(spec.shape) != len(port.shape):
        return f"must have the shape {_shape(port.shape)}, not {_shape(spec.shape)}"
    for wanted, given in zip(port.shape, spec.shape, strict=True):
        bound = symbols.setdefault(wanted, given) if isinstance(wanted, str) else wanted
        if bound != given:
            return f"must have the shape {_shape(port.shape)}{_bound(port, symbols)}, not {_shape(spec.shape)}"
    return None


def ordered(family: Family, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Put checked inputs into the family's own order, so that equal requests have equal bytes."""
    by_name = {tensor.spec.name: tensor for tensor in inputs}
    return tuple(by_name[port.name] for port in family.inputs)


def arranged(
    family: Family, inputs: Sequence[Tensor], outputs: Sequence[str], options: JobOptions
) -> tuple[Tensor, ...]:
    """Check the tensors of a request and put them into order; of sealed ones, all that can be seen.

    Raises:
        InputError: as `check_inputs`; or a sealed job has other inputs than the sealed one, or names no agent.
    """
    if not is_sealed(tensor.spec for tensor in inputs):
        check_inputs(family, inputs, outputs)
        return ordered(family, inputs)
    problem = why_not_sealed_inputs([tensor.spec for tensor in inputs])
    if problem is None and outputs:
        problem = "the outputs that a sealed job wants stand in what is sealed"
    if problem is None and options.wanted > 1:
        problem = "nobody but the agent that a job is sealed to can compute it: it cannot be rechecked"
    if problem is None and len(options.placement.agents) != 1:
        problem = "a sealed job names the agent that it is sealed to, with the parameter agent"
    if problem is not None:
        raise InputError(problem, hint="docs/http.md says how jobs are sealed; `edge-agent submit --seal` does it.")
    return tuple(inputs)


def request_digest(family: str, variant: bytes | None, inputs: Sequence[Tensor], outputs: Sequence[str]) -> bytes:
    """SHA-256 that is equal for two requests exactly if they ask for the same thing."""
    hasher = hashlib.sha256()
    header = [family, variant.hex() if variant else "", *sorted(outputs)]
    hasher.update(repr(header).encode())
    for tensor in inputs:
        spec = tensor.spec
        hasher.update(repr((spec.name, spec.datatype.value, spec.shape, len(tensor.data))).encode())
        hasher.update(tensor.data)
    return hasher.digest()


def _listed(names: Mapping[str, object] | set[str]) -> str:
    return ", ".join(sorted(repr(name) for name in names))


def _shape(shape: Sequence[int | str]) -> str:
    return "[" + ", ".join(str(size) for size in shape) + "]"


def _bound(port: Port, symbols: Mapping[str, int]) -> str:
    named = [f"{s} = {symbols[s]}" for s in port.shape if isinstance(s, str) and s in symbols]
    return f" ({', '.join(named)})" if named else ""


def deadline_seconds(options: JobOptions, default: float, longest: float) -> float:
    """Return how long a job may take: what is asked for, or the default, and never longer than may be.

    Raises:
        InputError: more is asked for.
    """
    if options.deadline_seconds is None:
        return min(default, longest)
    if options.deadline_seconds > longest:
        raise InputError(
            f"a deadline of {options.deadline_seconds:g} s is further away than the {longest:g} s that may be",
            hint="The operator sets the limit with coordinator.max_job_deadline_seconds.",
        )
    return options.deadline_seconds
