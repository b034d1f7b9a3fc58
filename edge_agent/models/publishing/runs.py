"""Run a model in onnxruntime on the operator's machine, with the operators it asks for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from edge_agent.errors import EdgeAgentError, InputError
from edge_agent.models import custom_ops

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before onnxruntime is imported: it reports to its maker otherwise
import onnxruntime as ort

Array: TypeAlias = npt.NDArray[Any]
Feed: TypeAlias = Mapping[str, Array]

VERSION: str = ort.__version__
"""Of the onnxruntime that measures."""
OFF = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
BASIC = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
ALL = ort.GraphOptimizationLevel.ORT_ENABLE_ALL


def needs_library(model: onnx.ModelProto) -> bool:
    """Return whether the model uses operators of onnxruntime-extensions."""
    return any(item.domain in custom_ops.DOMAINS for item in model.opset_import)


class Runner:
    """A model in onnxruntime: feeds in, arrays out.

    Args:
        model: a file, or the model itself.
        library: whether to register the operators of onnxruntime-extensions.
        level: how far onnxruntime may change the graph.
        threads: inside an operator.
        save_to: where to write the graph as onnxruntime changed it.

    Raises:
        InputError: onnxruntime refuses the model; the message has its reason.
    """

    def __init__(
        self,
        model: Path | onnx.ModelProto,
        *,
        library: bool = False,
        level: Any = ALL,  # noqa: ANN401 - onnxruntime ships no types
        threads: int = 1,
        save_to: Path | None = None,
    ) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.graph_optimization_level = level
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if save_to is not None:
            options.optimized_model_filepath = str(save_to)
        if library:
            path = custom_ops.library()
            if path is None:
                raise InputError(
                    "The model needs onnxruntime-extensions, which is not installed.", hint=custom_ops.HINT
                )
            options.register_custom_ops_library(path)
        source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
        try:
            self._session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise InputError(
                f"onnxruntime {VERSION} refuses the model: {reason(error)}",
                hint="Check the model with `python -m onnx.checker`, or export it again.",
            ) from error
        self.inputs = tuple(node.name for node in self._session.get_inputs())
        self.outputs = tuple(node.name for node in self._session.get_outputs())

    def run(self, feed: Feed, wanted: Sequence[str] | None = None) -> dict[str, Array]:
        """Return the outputs by their names.

        Raises:
            InputError: the model does not take the feed, or fails on it.
        """
        names = list(self.outputs if wanted is None else wanted)
        try:
            values = self._session.run(names, dict(feed))
        except EdgeAgentError:
            raise
        except Exception as error:
            raise InputError(
                f"The model does not run on the samples: {reason(error)}",
                hint="Give samples with the names, types and shapes of the model's inputs.",
            ) from error
        return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}


def reason(error: Exception) -> str:
    """Return the first line of an exception from onnxruntime or onnx, without prefixes, at most 300 characters."""
    text = str(error).strip() or type(error).__name__
    if text.startswith("[ONNXRuntimeError]"):
        text = text.split(" : ", 3)[-1]
    return " ".join(text.splitlines()[0].split())[:300]
