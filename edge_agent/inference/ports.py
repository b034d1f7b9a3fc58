"""What a model takes, and whether what is given fits."""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.errors import InputError
from edge_agent.inference.events import Port
from edge_agent.wire.tensors import TensorSpec


def listed(ports: Sequence[Port]) -> str:
    """Return the first of them in words."""
    return ", ".join(str(port) for port in ports[:16]) + (", …" if len(ports) > 16 else "") if ports else "none"


def check_input(port: Port, spec: TensorSpec, free: dict[str, tuple[int, str]]) -> None:
    """Raise `InputError` unless `spec` fits. `free` gathers the sizes of named dimensions."""
    if spec.datatype is not port.datatype:
        raise InputError(f"The input {port} was given as {spec.datatype.value}.")
    if not port.shape:
        return  # a scalar or of any rank
    given = list(spec.shape)
    if len(given) != len(port.shape):
        raise InputError(f"The input {port} was given with the shape {given}: {len(given)} dimensions.")
    for size, expected in zip(given, port.shape, strict=True):
        if isinstance(expected, int):
            if size != expected:
                raise InputError(f"The input {port} was given with the shape {given}.")
        elif expected != "?":
            before, where = free.setdefault(expected, (size, port.name))
            if before != size:
                raise InputError(
                    f"The input {port} was given with the shape {given}, but {expected!r} is {before} in {where!r}."
                )
