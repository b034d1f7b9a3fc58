from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import pytest

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime

from edge_agent.models.catalogue import BUILTIN_DIR, Variant, builtin
from edge_agent.models.golden import Case, difference
from edge_agent.models.scans import SCANS_FILE, load_scans
from edge_agent.models.store import Store
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

FAMILY = builtin().family("digits")
BY_NAME = pytest.mark.parametrize("variant", FAMILY.variants, ids=lambda variant: variant.name)
_NUMPY = {DataType.FP32: "<f4", DataType.INT64: "<i8"}


@pytest.fixture(scope="module")
def sessions() -> Iterator[dict[str, Any]]:
    """One onnxruntime session for each variant."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    made = {
        variant.name: onnxruntime.InferenceSession(
            str(BUILTIN_DIR / variant.file), options, providers=["CPUExecutionProvider"]
        )
        for variant in FAMILY.variants
    }
    yield made
    made.clear()


def _run(session: Any, case: Case) -> list[Tensor]:  # noqa: ANN401 - onnxruntime has no types
    feed = {
        tensor.name: np.frombuffer(tensor.data, _NUMPY[tensor.spec.datatype]).reshape(tensor.spec.shape)
        for tensor in case.inputs
    }
    names = [port.name for port in FAMILY.outputs]
    types = [DataType[port.datatype] for port in FAMILY.outputs]
    return [
        Tensor(TensorSpec(name, datatype, tuple(value.shape)), value.astype(_NUMPY[datatype]).tobytes())
        for name, datatype, value in zip(names, types, session.run(names, feed), strict=True)
    ]


@BY_NAME
def test_digests_and_sizes_are_true(variant: Variant) -> None:
    """Of the model and of its golden file."""
    for file, digest, size in (
        (variant.file, variant.digest, variant.size_bytes),
        (variant.golden.file, variant.golden.digest, variant.golden.size_bytes),
    ):
        data = (BUILTIN_DIR / file).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (digest, size)


@BY_NAME
def test_accuracies_are_true(variant: Variant, sessions: dict[str, Any]) -> None:
    """Recomputed on the committed scans, one a run; one scan of tolerance for rounding."""
    scans = load_scans()
    assert variant.quality.n == len(scans)
    right = 0
    for scan in scans:
        image = np.frombuffer(scan.image, "<f4").reshape(1, 1, 8, 8)
        right += int(sessions[variant.name].run(["label"], {"image": image})[0][0]) == scan.label
    assert abs(right - variant.quality.value * variant.quality.n) <= 1.01
    assert variant.quality.value >= 0.97


@BY_NAME
def test_golden_outputs_are_met(variant: Variant, sessions: dict[str, Any]) -> None:
    """What ONNX's reference implementation says is what onnxruntime says here."""
    cases = Store().golden_cases(variant)
    assert len(cases) == 10
    for case in cases:
        assert difference(variant.golden, case, _run(sessions[variant.name], case)) is None


def test_the_reproducible_variant_meets_its_golden_outputs_bit_for_bit(sessions: dict[str, Any]) -> None:
    """That is what the catalogue's word means; a machine where this fails must be known."""
    reproducible = [variant for variant in FAMILY.variants if variant.reproducible]
    assert [variant.name for variant in reproducible] == ["int8-static"]
    for case in Store().golden_cases(reproducible[0]):
        assert _run(sessions["int8-static"], case) == list(case.outputs)


def test_the_golden_outputs_of_fp32_tell_an_8_bit_cheat_apart(sessions: dict[str, Any]) -> None:
    """Whoever serves 8 bits and says fp32 is found out by the tolerance."""
    variant = FAMILY.variants[0]
    cases = Store().golden_cases(variant)
    for cheat in ("int8-static", "int8-dynamic"):
        assert all(difference(variant.golden, case, _run(sessions[cheat], case)) for case in cases)


@BY_NAME
def test_a_broken_kernel_would_be_noticed(variant: Variant, sessions: dict[str, Any]) -> None:
    """Outputs for a darker scan are outside the tolerance: it is not so wide that anything passes."""
    for case in Store().golden_cases(variant):
        image = np.frombuffer(case.inputs[0].data, "<f4") * np.float32(0.75)
        other = Case((Tensor(case.inputs[0].spec, image.tobytes()),), case.outputs)
        assert difference(variant.golden, case, _run(sessions[variant.name], other)) is not None


@BY_NAME
def test_ports_are_those_of_the_file(variant: Variant, sessions: dict[str, Any]) -> None:
    """Names, types and shapes, symbols included."""
    session = sessions[variant.name]
    for ports, nodes in ((FAMILY.inputs, session.get_inputs()), (FAMILY.outputs, session.get_outputs())):
        seen = [(node.name, DataType.from_onnx(node.type).value, tuple(node.shape)) for node in nodes]
        assert seen == [(port.name, port.datatype, port.shape) for port in ports]


@BY_NAME
def test_a_batch_gives_what_single_scans_give(variant: Variant, sessions: dict[str, Any]) -> None:
    """N is free; only the dynamic variant depends, a little, on what else is in the batch."""
    scans = load_scans()[:16]
    images = np.stack([np.frombuffer(scan.image, "<f4").reshape(1, 8, 8) for scan in scans])
    session = sessions[variant.name]
    single = np.concatenate([session.run(["logits"], {"image": image[None]})[0] for image in images])
    batch = session.run(["logits"], {"image": images})[0]
    tolerance = {"fp32": 1e-4, "int8-static": 0.0, "int8-dynamic": 0.2}[variant.name]
    assert np.abs(batch - single).max() <= tolerance


def test_everything_together_is_small() -> None:
    """The models stay under 100 KB, all files of the folder under 300 KB, and none is there by accident."""
    files = {path.name: path.stat().st_size for path in BUILTIN_DIR.iterdir()}
    expected = {"README.md", "catalogue.json", SCANS_FILE}
    for variant in FAMILY.variants:
        expected |= {variant.file, variant.golden.file}
    assert set(files) == expected
    assert sum(files[variant.file] for variant in FAMILY.variants) < 100_000
    assert sum(files.values()) < 300_000


def test_the_table_in_the_documentation_is_true() -> None:
    """docs/models.md gives the catalogue's figures."""
    text = (BUILTIN_DIR.parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    for variant in FAMILY.variants:
        quality, costs = variant.quality, variant.costs
        right = round(quality.value * quality.n)
        row = (
            f"| `{variant.name}` | {variant.format} | {variant.size_bytes:,} | {right} of {quality.n} "
            f"({quality.value:.4f}) | {costs.initializer_bytes:,} | {costs.activation_peak_bytes:,} "
            f"| {'yes' if variant.reproducible else 'no'} | {variant.golden.atol:g} |"
        )
        assert row in text


def test_the_source_of_the_data_is_credited() -> None:
    """CC BY 4.0 asks for names, source, licence and what was changed."""
    notice = (BUILTIN_DIR / "README.md").read_text()
    for word in ("Alpaydin", "Kaynak", "UCI", "10.24432/C50P49", "licenses/by/4.0", "split"):
        assert word in notice
