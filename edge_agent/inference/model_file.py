"""A look through a model file before onnxruntime sees it: what it refers to, what it claims, how deep it is nested.

An ONNX file is one protobuf message. This walks only the parts of it in which graphs and tensors can be, and
skips over the bytes of weights, so that a file of a gigabyte costs a few page reads. Field numbers are those
of onnx.proto (ONNX 1.0 to 1.23); unknown fields are skipped, as protobuf does it.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Sequence
from typing import NoReturn

from edge_agent.errors import WorkerError
from edge_agent.inference.messages import plain
from edge_agent.models import custom_ops

MAX_GRAPH_DEPTH = 16
"""Graphs inside graphs (If, Loop, Scan). Real models stay below 6; time to load grows exponentially."""
MAX_NODES = 100_000
"""Real models stay below 20,000. The look itself takes about a second for so many."""
MAX_ELEMENTS_A_BYTE = 8
"""A tensor that claims more elements than its part of the file could hold, at a bit each, is none."""
MAX_DENSE_ELEMENTS = 2**31
"""onnxruntime makes sparse tensors dense when it loads them."""

MAX_DOMAINS = 64
"""Sets of operators that a model may name. Real models name up to ten."""
MAX_DOMAIN_BYTES = 128

_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _SPARSE, _FUNCTION, _TRAINING, _OPERATOR_SET = range(9)
# message → field number → the message inside
_CHILDREN: tuple[dict[int, int], ...] = (
    {7: _GRAPH, 8: _OPERATOR_SET, 20: _TRAINING, 25: _FUNCTION},
    {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    {5: _ATTRIBUTE},
    {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    {},
    {1: _TENSOR, 2: _TENSOR},
    {7: _NODE, 11: _ATTRIBUTE},
    {1: _GRAPH, 2: _GRAPH},
    {},
)
_DOMAIN = 1
_NODE_DOMAIN, _FUNCTION_DOMAIN = 7, 10
_DIMS, _SPARSE_DIMS = 1, 3
_MANY = 2**70  # no count needs to be exact beyond this
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5

_HINT = "Publish the model again as one self-contained ONNX file."


def check(fd: int) -> frozenset[str]:
    """Return the domains of the operators that the model names, if the file may be given to onnxruntime.

    Raises:
        WorkerError: "model-load": no ONNX file, cut, with external data, nested too deep, with too many nodes or sets
        of operators, with operators that no library here has, or with tensors larger than the file could hold.
    """
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        _refuse("The model file is no regular file.")
    size = status.st_size
    if not size:
        _refuse("The model file is empty.")
    try:
        data = mmap.mmap(fd, size, access=mmap.ACCESS_READ)
    except OSError as error:
        _refuse(f"The model file cannot be read: {error}.")
    with data:
        return _walk(data, size)


def mentions(fd: int, names: Sequence[bytes]) -> bool:
    """Return whether any of these stands anywhere in a model file that `check` let through."""
    with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as data:
        return any(data.find(name) >= 0 for name in names)


def _walk(data: mmap.mmap, size: int) -> frozenset[str]:  # noqa: C901, PLR0912, PLR0915 - one loop, once a field; calls would double its time
    # Messages that are not finished: (message, offset of its next field, its end, graphs around it). Not
    # recursive, so that the file does not decide how deep this process's stack gets.
    stack = [(_MODEL, 0, size, 0)]
    nodes = 0
    graphs = 0
    domains: set[str] = set()
    used: set[str] = set()  # by nodes
    defined: set[str] = set()  # by functions in the file
    dense = 1  # elements of the sparse tensor that is looked at; there are none inside each other
    while stack:
        message, at, end, depth = stack.pop()
        children = _CHILDREN[message]
        begun, elements = at, 1
        while at < end:
            key, at = _varint(data, at, end)
            field, wire_type = key >> 3, key & 7
            if wire_type == _LENGTH_DELIMITED:
                length, at = _varint(data, at, end)
                if length > end - at:
                    _refuse("The model file is cut, or is no ONNX file: a field reaches past its end.")
                inner = children.get(field)
                if inner is not None:
                    stack.append((message, at + length, end, depth))
                    nodes += inner == _NODE
                    graphs += inner == _GRAPH
                    dense = 1 if inner == _SPARSE else dense
                    _check_limits(nodes, depth + (inner == _GRAPH))
                    stack.append((inner, at, at + length, depth + (inner == _GRAPH)))
                    break
                if message == _NODE:
                    if field == _NODE_DOMAIN:
                        _note_domain(data[at : at + min(length, MAX_DOMAIN_BYTES + 1)], used)
                elif message == _TENSOR:
                    if field == _EXTERNAL_DATA:
                        _refuse_external()
                    if field == _DIMS:
                        elements = min(elements * _product(data, at, at + length), _MANY)
                elif message == _SPARSE:
                    if field == _SPARSE_DIMS:
                        dense = min(dense * _product(data, at, at + length), _MANY)
                elif message == _OPERATOR_SET:
                    if field == _DOMAIN:
                        _note_domain(data[at : at + min(length, MAX_DOMAIN_BYTES + 1)], domains)
                elif message == _FUNCTION and field == _FUNCTION_DOMAIN:
                    _note_domain(data[at : at + min(length, MAX_DOMAIN_BYTES + 1)], defined)
                at += length
            elif wire_type == _VARINT:
                value, at = _varint(data, at, end)
                if message == _TENSOR:
                    if field == _DATA_LOCATION and value:
                        _refuse_external()
                    if field == _DIMS:
                        elements = min(elements * value, _MANY)
                elif message == _SPARSE and field == _SPARSE_DIMS:
                    dense = min(dense * value, _MANY)
            elif wire_type in (_FIXED64, _FIXED32):
                at += 8 if wire_type == _FIXED64 else 4
                if at > end:
                    _refuse("The model file is cut, or is no ONNX file: a number reaches past its end.")
            else:
                _refuse("The model file is no ONNX file: it has a field of an unknown form.")
        # Asked at the end of each tensor: one with a dimension of 0 is empty, however large the others are.
        if elements > 1 + MAX_ELEMENTS_A_BYTE * (end - begun) or (message == _SPARSE and dense > MAX_DENSE_ELEMENTS):
            _refuse("The model has a tensor that claims far more elements than the file could hold.")
    if not graphs:
        _refuse("The model file is no ONNX file: it has no graph.")
    if foreign := sorted(used - defined - custom_ops.BUILT_IN_DOMAINS - custom_ops.DOMAINS):
        _refuse(f"The model needs operators of {plain(foreign[0], 80)!r}, which nothing here has.")
    return frozenset(domains)


def _note_domain(name: bytes, domains: set[str]) -> None:
    if len(name) > MAX_DOMAIN_BYTES or len(domains) >= MAX_DOMAINS:
        _refuse(f"The model names more than {MAX_DOMAINS} sets of operators, or one with a name too long.")
    domains.add(name.decode("utf-8", errors="replace"))


def _product(data: mmap.mmap, at: int, end: int) -> int:
    """Return the product of numbers that are packed together."""
    product = 1
    while at < end:
        value, at = _varint(data, at, end)
        product = min(product * value, _MANY)
    return product


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """Return the number at `at` and the offset behind it (protobuf's base 128, at most ten bytes)."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    return _refuse("The model file is cut, or is no ONNX file: a number does not end.")


def _check_limits(nodes: int, depth: int) -> None:
    if nodes > MAX_NODES:
        _refuse(f"The model has more than {MAX_NODES} nodes.")
    if depth > MAX_GRAPH_DEPTH:
        _refuse(f"The model nests graphs deeper than {MAX_GRAPH_DEPTH} levels.")


def _refuse_external() -> NoReturn:
    _refuse("The model refers to data outside its own file, which a digest of the file does not cover.")


def _refuse(message: str) -> NoReturn:
    raise WorkerError(message, code="model-load", hint=_HINT)
