"""One model in onnxruntime: tensors in, tensors out, every bit as it came.

Ordinary types go through `InferenceSession.run` and numpy views of the received bytes, without a copy.
bfloat16, which numpy does not know, goes through `OrtValue`s of 16-bit integers. What a requester got wrong
is found before onnxruntime runs, so that what fails after that is the model's fault or a lack of memory.
"""

from __future__ import annotations

import ctypes
import os
import time
import weakref
from collections.abc import Sequence
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_agent.errors import EdgeAgentError, InputError, ResourceError, StateError, TooLargeError, WorkerError
from edge_agent.inference import limits, model_file
from edge_agent.inference.events import Port
from edge_agent.inference.frames import Buffer
from edge_agent.inference.messages import plain
from edge_agent.inference.ports import check_input, listed
from edge_agent.models import custom_ops
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec, pack_strings, unpack_strings

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime as ort

PROVIDERS = ("CPUExecutionProvider",)
NUMPY = {
    DataType.BOOL: np.dtype("?"),
    DataType.UINT8: np.dtype("u1"),
    DataType.UINT16: np.dtype("<u2"),
    DataType.UINT32: np.dtype("<u4"),
    DataType.UINT64: np.dtype("<u8"),
    DataType.INT8: np.dtype("i1"),
    DataType.INT16: np.dtype("<i2"),
    DataType.INT32: np.dtype("<i4"),
    DataType.INT64: np.dtype("<i8"),
    DataType.FP16: np.dtype("<f2"),
    DataType.BF16: np.dtype("<u2"),
    DataType.FP32: np.dtype("<f4"),
    DataType.FP64: np.dtype("<f8"),
}
"""What stands for a type in numpy: same size, and the same bits unless they are counted or compared."""
# onnx.TensorProto.DataType, for the values that are made without numpy's word on their type.
_ONNX_NUMBERS = {
    DataType.FP32: 1,
    DataType.UINT8: 2,
    DataType.INT8: 3,
    DataType.UINT16: 4,
    DataType.INT16: 5,
    DataType.INT32: 6,
    DataType.INT64: 7,
    DataType.BOOL: 9,
    DataType.FP16: 10,
    DataType.FP64: 11,
    DataType.UINT32: 12,
    DataType.UINT64: 13,
    DataType.BF16: 16,
}
# How onnxruntime and the C++ library say that an allocation failed.
_OUT_OF_MEMORY = ("bad_alloc", "Failed to allocate memory", "bad allocation")


class Output(NamedTuple):
    """One output: what it is, and its bytes, which belong to onnxruntime and live as long as this does."""

    spec: TensorSpec
    data: Buffer


def runtime_name() -> str:
    """Return the runtime as a class names it, for example `onnxruntime 1.32.0`."""
    return f"onnxruntime {ort.__version__}"


class Weights(Enum):
    """What becomes of the weights of an optimised file that is mapped into memory."""

    IN_PLACE = "in-place"
    """They are used where they lie. What kernels lay out anew is there twice, but the file's part can be read again."""
    COPIED = "copied"
    """The file is mapped only while it is loaded."""


class Session:
    """A loaded model.

    Args:
        fd: the very file that was verified; read from its start, and not closed.
        threads: for the inside of an operator, at least 1.
        optimised: it is a file that `save_optimised` made, and what is to become of its weights.

    Raises:
        WorkerError: "model-load": the file is no model, or one that cannot be served.
        StateError: this process is contained, and the file is not among those that it may open.
        ResourceError: there is not enough memory for it.
    """

    def __init__(self, fd: int, threads: int, *, optimised: Weights | None = None) -> None:
        before = limits.status_bytes("RssAnon")
        started = time.perf_counter_ns()
        library = None if optimised is not None else _library(model_file.check(fd))
        limits.count_stacks(threads)
        weakref.finalize(self, limits.count_stacks, -threads).atexit = False
        mapped = 0 if optimised is None else os.fstat(fd).st_size
        limits.count_mapped(mapped)
        unmapped = weakref.finalize(self, limits.count_mapped, -mapped)
        unmapped.atexit = False
        self._session = _open(fd, session_options(threads, optimised=optimised), library)
        self.inputs = tuple(_port(node, "input") for node in self._session.get_inputs())
        self.outputs = tuple(_port(node, "output") for node in self._session.get_outputs())
        self._ports = {port.name: port for port in self.outputs}
        self._checked: tuple[TensorSpec, ...] | None = None
        self._by_value = any(port.datatype is DataType.BF16 for port in self.outputs)
        if self._by_value and any(port.datatype is DataType.BYTES for port in self.inputs + self.outputs):
            raise WorkerError(
                "The model mixes strings and bfloat16 outputs, which is not supported.", code="model-load"
            )
        self.load_us = (time.perf_counter_ns() - started) // 1000
        limits.trim()
        if optimised is Weights.IN_PLACE:
            limits.drop_pages(fd)
        else:
            unmapped()
        self.memory_bytes = max(0, limits.status_bytes("RssAnon") - before)

    def run(self, inputs: Sequence[Tensor], wanted: Sequence[str], max_output_bytes: int) -> list[Output]:
        """Return the outputs `wanted` in that order, or all.

        Raises:
            InputError: the inputs are not what the model takes; the message says what it takes.
            TooLargeError: the outputs have more than `max_output_bytes` together.
            WorkerError: "model-run": the model failed on inputs that look right.
            ResourceError: there is not enough memory for this run.
        """
        specs = tuple([tensor.spec for tensor in inputs])
        if specs != self._checked:  # as a rule they are those of the run before
            self._check(inputs)
            self._checked = specs
        ports = self._wanted(wanted)
        arrays = {tensor.name: _array(tensor) for tensor in inputs}
        try:
            outputs = self._run_values(ports, arrays) if self._by_value else self._run_arrays(ports, arrays)
        except EdgeAgentError:
            raise
        except MemoryError:
            raise ResourceError("There is not enough memory for this run.") from None
        except Exception as error:
            raise _failure(error, "model-run", "The model failed while running") from error
        total = sum(len(output.data) for output in outputs)
        if total > max_output_bytes:
            raise TooLargeError(f"The outputs have {total} bytes, more than the {max_output_bytes} that are allowed.")
        return outputs

    def run_several(
        self, runs: Sequence[Sequence[Tensor]], wanted: Sequence[str], max_output_bytes: int
    ) -> list[list[Output]]:
        """Return the outputs of several runs whose inputs have the same shapes, computed as one.

        Args:
            runs: the inputs of each.
            wanted: the outputs that each has asked for.
            max_output_bytes: of each run.

        Raises:
            EdgeAgentError: as `run`; or the model has not answered each; see `together.take_several`.
        """
        self._check(runs[0])
        ports = self._wanted(wanted)
        feed = {
            first.name: np.concatenate([_array(inputs[place]) for inputs in runs])
            for place, first in enumerate(runs[0])
        }
        try:
            results = self._session.run([port.name for port in ports], feed)
        except MemoryError:
            raise ResourceError("There is not enough memory for these runs.") from None
        except Exception as error:
            raise _failure(error, "model-run", "The model failed while running") from error
        total_rows = len(next(iter(feed.values())))
        if not (total_rows and all(_has_rows(result, total_rows) for result in results)):
            raise WorkerError("The model does not answer several runs at once.", code="model-run")
        rows = total_rows // len(runs)
        found = []
        for at in range(0, total_rows, rows):
            outputs = [_output(port, result[at : at + rows]) for port, result in zip(ports, results, strict=True)]
            total = sum(len(output.data) for output in outputs)
            if total > max_output_bytes:
                raise TooLargeError(f"The outputs have {total} bytes, more than the {max_output_bytes} allowed.")
            found.append(outputs)
        return found

    # -- inputs ----------------------------------------------------------------------------------------------

    def _check(self, inputs: Sequence[Tensor]) -> None:
        given = {tensor.name: tensor.spec for tensor in inputs}
        if len(given) != len(inputs):
            raise InputError("An input is given twice.")
        free: dict[str, tuple[int, str]] = {}
        for port in self.inputs:
            spec = given.pop(port.name, None)
            if spec is None:
                raise InputError(f"The input {port} is missing; the model takes {listed(self.inputs)}.")
            check_input(port, spec, free)
        if given:
            raise InputError(f"The model has no input {next(iter(given))!r}; it takes {listed(self.inputs)}.")

    def _wanted(self, wanted: Sequence[str]) -> Sequence[Port]:
        if not wanted:
            return self.outputs
        unknown = [name for name in wanted if name not in self._ports]
        if unknown:
            raise InputError(f"The model has no output {unknown[0]!r}; it has {listed(self.outputs)}.")
        if len(set(wanted)) != len(wanted):
            raise InputError("An output is asked for twice.")
        return [self._ports[name] for name in wanted]

    # -- the two ways through onnxruntime --------------------------------------------------------------------

    def _run_arrays(self, ports: Sequence[Port], arrays: dict[str, npt.NDArray[Any]]) -> list[Output]:
        feed = {
            port.name: _value(arrays[port.name], port.datatype) if port.datatype is DataType.BF16 else arrays[port.name]
            for port in self.inputs
        }
        results = self._session.run([port.name for port in ports], feed)
        return [_output(port, result) for port, result in zip(ports, results, strict=True)]

    def _run_values(self, ports: Sequence[Port], arrays: dict[str, npt.NDArray[Any]]) -> list[Output]:
        feed = {port.name: _value(arrays[port.name], port.datatype) for port in self.inputs}
        results = self._session.run_with_ort_values([port.name for port in ports], feed)
        outputs = []
        for port, result in zip(ports, results, strict=True):
            data = ctypes.string_at(result.data_ptr(), size) if (size := result.tensor_size_in_bytes()) else b""
            outputs.append(Output(TensorSpec(port.name, port.datatype, tuple(result.shape())), data))
        return outputs


def _has_rows(result: object, rows: int) -> bool:
    return isinstance(result, np.ndarray) and result.ndim > 0 and len(result) == rows


def _library(domains: frozenset[str]) -> str | None:
    """Return the library with the operators that a model of these domains asks for; None if it asks for none.

    Raises:
        WorkerError: "model-load": it is not installed.
    """
    if not domains & custom_ops.DOMAINS:
        return None
    path = custom_ops.library()
    if path is None:
        message = "The model needs the operators of onnxruntime-extensions, which is not installed."
        raise WorkerError(message, code="model-load", hint=custom_ops.HINT)
    return path


def save_optimised(fd: int, into: int, threads: int) -> None:
    """Write what onnxruntime makes of a model with the options of every session here, in its own format.

    Args:
        fd: the model's file.
        into: the file to be written, which is opened anew.
        threads: as for a session.

    Raises:
        WorkerError: "model-load": the model cannot be loaded, or not be written in that format.
        ResourceError: there is not enough memory.
    """
    if model_file.check(fd) & custom_ops.DOMAINS:
        raise WorkerError("Models with custom operators are not kept in onnxruntime's format.", code="model-load")
    options = session_options(threads)
    options.optimized_model_filepath = f"/proc/self/fd/{into}"
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.log_severity_level = 4  # that it fits this machine alone is what is wanted
    _open(fd, options, None)


def session_options(threads: int, *, optimised: Weights | None = None) -> Any:  # noqa: ANN401 - onnxruntime ships no types
    """Return the options of every session here, so that what is measured is what serves."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Waiting threads that spin starve the others on a small machine with more to do.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX" if optimised is None else "ORT")
    if optimised is not None:
        options.add_session_config_entry("session.use_memory_mapped_ort_model", "1")
    if optimised is Weights.IN_PLACE:
        options.add_session_config_entry("session.use_ort_model_bytes_for_initializers", "1")
    return options


def open_bytes(data: bytes, threads: int) -> Any:  # noqa: ANN401 - as above
    """Return an onnxruntime session of a model in memory; for the small ones that measure this machine."""
    return ort.InferenceSession(data, session_options(threads), providers=list(PROVIDERS), enable_fallback=0)


def _open(fd: int, options: Any, library: str | None) -> Any:  # noqa: ANN401 - as above
    path = f"/proc/self/fd/{fd}"
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except PermissionError:
        raise StateError(
            "The worker may not open the model's file: it is in no folder that the worker was told of when it started.",
            hint="Start the agent again; `edge-agent doctor` shows what the worker is contained by.",
        ) from None
    try:
        if library is not None:
            # Only for models that ask for it: what is not loaded cannot be attacked, and it takes 3 MB.
            options.register_custom_ops_library(library)
        return ort.InferenceSession(path, options, providers=list(PROVIDERS), enable_fallback=0)
    except MemoryError:
        raise ResourceError("There is not enough memory to load the model.") from None
    except Exception as error:
        raise _failure(error, "model-load", "onnxruntime refuses the model") from error


def _failure(error: Exception, code: str, what: str) -> EdgeAgentError:
    text = plain(str(error))
    if any(sign in text for sign in _OUT_OF_MEMORY):
        return ResourceError(f"There is not enough memory: {_reason(text)}")
    return WorkerError(f"{what}: {_reason(text)}", code=code)


def _reason(text: str) -> str:
    """Return onnxruntime's message without its prefix `[ONNXRuntimeError] : 1 : FAIL : `."""
    return text.split(" : ", 3)[-1][:500] if text.startswith("[ONNXRuntimeError]") else text[:500]


def _port(node: Any, kind: str) -> Port:  # noqa: ANN401 - onnxruntime ships no types
    try:
        datatype = DataType.from_onnx(node.type)
        shape = tuple(size if isinstance(size, int) and size >= 0 else str(size or "?") for size in node.shape)
        TensorSpec(node.name, datatype, tuple(size for size in shape if isinstance(size, int)))
    except (ValueError, EdgeAgentError) as error:
        raise WorkerError(
            f"The model's {kind} {plain(node.name, 80)!r} cannot be served: {error}", code="model-load"
        ) from None
    return Port(node.name, datatype, shape)


def _array(tensor: Tensor) -> npt.NDArray[Any]:
    """Return the tensor as numpy sees it; numbers are a view of its bytes."""
    spec = tensor.spec
    if spec.datatype is not DataType.BYTES:
        return np.frombuffer(tensor.data, NUMPY[spec.datatype]).reshape(spec.shape)
    array = np.empty(spec.element_count, dtype=object)
    for index, item in enumerate(unpack_strings(tensor.data, spec.element_count)):
        try:
            array[index] = item.decode()
        except UnicodeDecodeError as error:
            raise InputError(f"Element {index} of the input {spec.name!r} is not UTF-8: {error}.") from None
    return array.reshape(spec.shape)


def _value(array: npt.NDArray[Any], datatype: DataType) -> Any:  # noqa: ANN401 - onnxruntime ships no types
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, _ONNX_NUMBERS[datatype])


def _output(port: Port, result: Any) -> Output:  # noqa: ANN401 - whatever the model declared
    if not isinstance(result, np.ndarray):
        raise WorkerError(f"The model gave no tensor for its output {port}.", code="model-run")
    spec = TensorSpec(port.name, port.datatype, result.shape)
    if port.datatype is DataType.BYTES:
        return Output(spec, pack_strings(text.encode() for text in result.ravel().tolist()))
    if not result.size:
        return Output(spec, b"")
    # A view as bytes of the very memory that onnxruntime wrote; it keeps the array alive.
    return Output(spec, np.ascontiguousarray(result).reshape(-1).view(np.uint8).data)
