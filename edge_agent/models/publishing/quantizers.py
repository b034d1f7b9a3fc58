"""onnxruntime's tools for the operator's machine, each behind one function: models in, models out.

They are imported when they are used: together they take seconds to import. What they print is kept off the
terminal; what matters of it is said by us.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx

from edge_agent.models.publishing.forms import Form

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before onnxruntime is imported: it reports to its maker otherwise

BLOCK = 32
"""Weights that share a scale in the weight-only forms."""
ACCURACY_LEVEL = 4
"""MatMulNBits may compute with 8-bit activations: the fast path of onnxruntime's CPU kernels."""
# Not in onnxruntime's own list; without 16-bit kernels, or too coarse in 16 bits.
_KEPT_IN_FP32 = ("Range", "CumSum", "Resize", "NonMaxSuppression", "TopK")


def static(
    model: onnx.ModelProto,
    form: Form,
    ranges: Mapping[str, tuple[float, float]],
    op_types: Sequence[str],
    *,
    float_outputs: bool,
) -> onnx.ModelProto:
    """Return `model` with QuantizeLinear and DequantizeLinear around the operators of `op_types`.

    Args:
        model: with inferred shapes.
        form: how.
        ranges: of each float tensor that these operators read or write.
        op_types: the operators.
        float_outputs: leave what matrix products give as floats, where float operators follow.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static  # noqa: PLC0415 - see above
    from onnxruntime.quantization.calibrate import (  # noqa: PLC0415
        CalibrationMethod,
        TensorsData,
        save_tensors_data,
    )

    found = {name: (np.array(low, np.float32), np.array(high, np.float32)) for name, (low, high) in ranges.items()}
    with _quiet(), _files(model) as (source, target):
        # The quantizer's calibrator knows no operators of other libraries, so ours has filled its cache.
        cache = source.with_name("ranges.json")
        save_tensors_data(TensorsData(CalibrationMethod.MinMax, found), cache)
        quantize_static(
            source,
            target,
            calibration_cache_path=cache,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(op_types),
            per_channel=form.per_channel,
            reduce_range=form.reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QUInt8 if form.signedness == "u8u8" else QuantType.QInt8,
            extra_options={
                "WeightSymmetric": form.signedness != "u8u8",
                # Products of two activations (attention) lose more than they gain.
                "MatMulConstBOnly": True,
                "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"] if float_outputs else [],
            },
        )
        return onnx.load(str(target))


def dynamic(model: onnx.ModelProto, form: Form, op_types: Sequence[str]) -> onnx.ModelProto:
    """Return `model` with integer operators whose activations find their range in each run."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415 - see above

    with _quiet(), _files(model) as (source, target):
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=list(op_types),
            per_channel=form.per_channel,
            reduce_range=form.reduce_range,
            weight_type=QuantType.QUInt8 if form.signedness == "u8u8" else QuantType.QInt8,
            extra_options={"EnableSubgraph": True, "MatMulConstBOnly": True},
        )
        return onnx.load(str(target))


def weight_only(model: onnx.ModelProto, form: Form) -> onnx.ModelProto:
    """Return `model` with its constant matrices in `form.bits` bits, in blocks; changes `model`."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer  # noqa: PLC0415 - see above
    from onnxruntime.quantization.onnx_model import ONNXModel  # noqa: PLC0415

    with _quiet():
        wrapped = ONNXModel(model)
        wrapped.replace_gemm_with_matmul()
        quantizer = MatMulNBitsQuantizer(
            wrapped.model, bits=form.bits, block_size=BLOCK, is_symmetric=True, accuracy_level=ACCURACY_LEVEL
        )
        quantizer.process()
        result: onnx.ModelProto = quantizer.model.model
        return result


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return `model` with 16-bit floats inside and its inputs and outputs as they are; changes `model`."""
    from onnxruntime.transformers.float16 import (  # noqa: PLC0415 - see above
        DEFAULT_OP_BLOCK_LIST,
        convert_float_to_float16,
    )

    with _quiet():
        result: onnx.ModelProto = convert_float_to_float16(
            model,
            keep_io_types=True,
            disable_shape_infer=True,
            op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_KEPT_IN_FP32],
        )
        return result


@contextmanager
def _files(model: onnx.ModelProto) -> Iterator[tuple[Path, Path]]:
    with tempfile.TemporaryDirectory(prefix="edge-agent-publish-") as name:
        source, target = Path(name) / "in.onnx", Path(name) / "out.onnx"
        onnx.save(model, str(source))
        yield source, target


@contextmanager
def _quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
