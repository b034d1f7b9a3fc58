"""What the worker's session adds to a bare onnxruntime session, on models of every kind, and what a cold session costs.

    EDGE_AGENT_REFERENCE_DATA=DIR python benchmarks/sessions.py [--rounds 15]

Runs and loads take turns with bare ones; figures are medians of processor time on one thread. Kinds: floats in and
out, dynamic shapes, recurrent state that passes in and out (silero VAD), several inputs and outputs, float16, strings.
Cold: from the ONNX file, from onnxruntime's own optimised format (`.ort`), and from that one mapped into memory; the
outputs of all three are compared, bit for bit.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper
from worker import VisionModel

from edge_agent.inference import samples
from edge_agent.inference.sessions import Session, session_options
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec, pack_strings

EXTENTS = {"N": 1, "batch": 1, "batch_size": 1, "sequence": 512}
RUN_SECONDS = 0.03


def strings() -> bytes:
    """Return a model that gives each string back as it is, 32 of them."""
    value = [helper.make_tensor_value_info(name, TensorProto.STRING, ["N"]) for name in ("text", "same")]
    graph = helper.make_graph([helper.make_node("Identity", ["text"], ["same"])], "s", value[:1], value[1:])
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )


def halves() -> bytes:
    """Return a matrix product in 16-bit floats."""
    weights = onnx.numpy_helper.from_array(np.ones((256, 256), np.float16), "w")
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["N", 256]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "h", value[:1], value[1:], [weights])
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )


def inputs_of(name: str, session: Session) -> tuple[Tensor, ...]:
    """Make inputs up as canary runs do; texts are 32 short sentences."""
    if name == "silero_vad":  # sound, the state of what came before it, and the rate, which its file does not bound
        given = {"input": np.zeros((1, 576), "<f4"), "state": np.zeros((2, 1, 128), "<f4"), "sr": np.array(16_000)}
        kinds = {"input": DataType.FP32, "state": DataType.FP32, "sr": DataType.INT64}
        return tuple(Tensor(TensorSpec(key, kinds[key], array.shape), array.tobytes()) for key, array in given.items())
    if [port.datatype for port in session.inputs] == [DataType.BYTES]:
        texts = pack_strings(b"a sentence of some words, number %d" % number for number in range(32))
        return (Tensor(TensorSpec(session.inputs[0].name, DataType.BYTES, (32,)), texts),)
    return samples.make(session.inputs, EXTENTS)


def us(call: Callable[[], object]) -> float:
    """Return the processor time of one call in microseconds, over a short block of them."""
    count = 0
    started = time.process_time_ns()
    until = time.perf_counter() + RUN_SECONDS
    while time.perf_counter() < until:
        call()
        count += 1
    return (time.process_time_ns() - started) / count / 1000


def compare(name: str, content: bytes, rounds: int, folder: Path) -> None:
    """Measure and print one model."""
    path = folder / "model.onnx"
    path.write_bytes(content)
    fd = os.open(path, os.O_RDONLY)
    try:
        session = Session(fd, 1)
    finally:
        os.close(fd)
    bare = ort.InferenceSession(str(path), session_options(1), providers=["CPUExecutionProvider"])
    given = inputs_of(name, session)
    feed = {tensor.name: _array(tensor) for tensor in given}
    expected = [_bytes(array) for array in bare.run(None, feed)]
    assert [bytes(output.data) for output in session.run(given, (), 1 << 30)] == expected, name
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(rounds):
        theirs.append(us(lambda: bare.run(None, feed)))
        ours.append(us(lambda: session.run(given, (), 1 << 30)))
    added = statistics.median(ours) - statistics.median(theirs)
    share = statistics.median(theirs) / statistics.median(ours)
    print(f"{name:18} bare {statistics.median(theirs):9.1f} µs   added {added:7.1f} µs   share {share:.3f}", end="")
    print("   cold " + cold(path, feed, expected, folder))


def cold(path: Path, feed: dict[str, Any], expected: list[bytes], folder: Path) -> str:
    """Return the times of loading in milliseconds."""
    made = folder / "model.ort"
    options = session_options(1)
    options.optimized_model_filepath = str(made)
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.log_severity_level = 4
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found = []
    for file, mapped in ((path, False), (made, False), (made, True)):
        times = []
        for _ in range(5):
            options = ort.SessionOptions()
            options.intra_op_num_threads = 1
            if mapped:
                options.add_session_config_entry("session.use_memory_mapped_ort_model", "1")
            started = time.process_time()
            session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            times.append((time.process_time() - started) * 1000)
        same = [_bytes(array) for array in session.run(None, feed)] == expected
        found.append(f"{statistics.median(times):.1f} ms{'' if same else ' (other outputs)'}")
    return f"{found[0]} as ONNX, {found[1]} as ORT, {found[2]} mapped"


def _array(tensor: Tensor) -> Any:  # noqa: ANN401 - numpy's
    from edge_agent.inference import sessions  # noqa: PLC0415 - its private view of a tensor

    return sessions._array(tensor)  # noqa: SLF001 - the very arrays that the worker makes


def _bytes(array: Any) -> bytes:  # noqa: ANN401 - numpy's
    if array.dtype == object:
        return pack_strings(text.encode() for text in array.ravel().tolist())
    return bytes(array.tobytes())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    models = {"strings": strings(), "float16": halves(), "vision fp32": VisionModel().build()}
    reference = os.environ.get("EDGE_AGENT_REFERENCE_DATA")
    if reference:
        for path in sorted(Path(reference, "models", "onnx").glob("*.onnx")):
            models[path.stem[:18]] = path.read_bytes()
    print(f"onnxruntime {ort.__version__}")
    for name, content in models.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                compare(name, content, options.rounds, Path(folder))
            except Exception as error:  # noqa: BLE001 - one that cannot be loaded or needs other inputs is told
                print(f"{name:18} not measured: {str(error)[:150]}")


if __name__ == "__main__":
    main()
