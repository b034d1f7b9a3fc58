"""Nodes and constants of an ONNX graph, in the order in which they are added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper


class Nodes:
    """What a graph is made of; each method returns the name of what it added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._names: set[str] = set()

    def _take(self, name: str) -> str:
        if name in self._names:
            raise ValueError(f"{name} is there twice")
        self._names.add(name)
        return name

    def constant(self, name: str, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """Add numbers."""
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), self._take(name)))
        return name

    def texts(self, name: str, values: Sequence[str], dims: Sequence[int]) -> str:
        """Add texts, `dims` being their shape."""
        data = [value.encode() for value in values]
        self.constants.append(
            onnx.TensorProto(name=self._take(name), data_type=TensorProto.STRING, dims=dims, string_data=data)
        )
        return name

    def add(self, kind: str, inputs: Sequence[str], output: str, domain: str = "", **attributes: Any) -> str:  # noqa: ANN401 - what ONNX takes
        """Add an operator with one output, which is also its name."""
        self.nodes.append(
            helper.make_node(kind, list(inputs), [self._take(output)], name=output, domain=domain, **attributes)
        )
        return output

    def whole(self, name: str, *values: int) -> str:
        """Add a row of whole numbers."""
        return self.constant(name, values, np.int64)
