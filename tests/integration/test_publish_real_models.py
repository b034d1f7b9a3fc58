"""Real public models go through publishing: each gets its variants, or says why it does not."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from needs import module, reference_data

from edge_agent.models.golden import decode_cases, difference
from edge_agent.models.publishing.adding import Addition, Wish, add
from edge_agent.models.publishing.forms import NAMES, REPRODUCIBLE
from edge_agent.models.publishing.goldens import tensor_of
from edge_agent.models.publishing.runs import Runner
from edge_agent.models.publishing.samples import Samples, array_of

pytestmark = pytest.mark.timeout(600)  # 10 s of work a model, on machines that may be busy

FOLDER = reference_data() / "models" / "onnx"
COUNT = 24

Feed = dict[str, npt.NDArray[Any]]


def _spectra(source: np.random.Generator) -> Feed:
    """A magnitude spectrum that falls with frequency, as speech has it, and a state between -1 and 1."""
    level = source.uniform(0.1, 3.0)
    spectrum = np.abs(source.normal(0.0, level, (1, 1, 257))) / np.linspace(1.0, 20.0, 257)
    state = np.tanh(source.normal(0.0, 0.5, (1, 2, 128, 2)))
    return {"input_2": spectrum.astype(np.float32), "input_3": state.astype(np.float32)}


def _beginnings(source: np.random.Generator) -> Feed:
    """2,048 bytes as of a text, a program or a compressed file; 256 stands for padding."""
    kind = source.integers(0, 3)
    low, high = ((32, 127), (0, 256), (9, 100))[kind]
    content = source.integers(low, high, (1, 2048)).astype(np.int32)
    content[0, source.integers(200, 2048) :] = 256
    return {"bytes": content}


def _strokes(source: np.random.Generator) -> Feed:
    """A white stroke on black, 28 by 28."""
    image = np.zeros((1, 1, 28, 28), np.float32)
    x, y = source.uniform(6, 22, 2)
    for _ in range(60):
        x, y = np.clip(np.array([x, y]) + source.normal(0.0, 1.2, 2), 2, 25)
        image[0, 0, int(y) : int(y) + 2, int(x) : int(x) + 2] = 255.0
    return {"Input3": image}


def _sounds(source: np.random.Generator) -> Feed:
    """512 samples of a tone with noise at 16 kHz, and the state of a fresh start."""
    time = np.arange(512) / 16_000
    tone = np.sin(2 * np.pi * source.uniform(80, 400) * time) * source.uniform(0.0, 0.5)
    sound = (tone + source.normal(0.0, 0.02, 512))[None].astype(np.float32)
    return {"input": sound, "state": np.zeros((2, 1, 128), np.float32), "sr": np.array(16_000, np.int64)}


def _pictures(source: np.random.Generator) -> Feed:
    """Smooth colours with a bright ellipse, from -1 to 1, 240 by 320."""
    rows, columns = np.mgrid[0:240, 0:320]
    image = np.stack([np.sin(rows / source.uniform(20, 90)) * np.cos(columns / source.uniform(20, 90))] * 3)
    image += source.normal(0.0, 0.1, (3, 1, 1))
    inside = ((rows - source.uniform(60, 180)) / 40) ** 2 + ((columns - source.uniform(60, 260)) / 30) ** 2 < 1
    image[:, inside] = source.uniform(0.2, 0.9, (3, 1))
    return {"input": np.clip(image, -1, 1)[None].astype(np.float32)}


def _photographs(source: np.random.Generator) -> Feed:
    """A PNG file of 32 by 32 pixels: the model decodes it itself."""
    rows, columns = np.mgrid[0:32, 0:32]
    pixels = np.stack([128 + 100 * np.sin((rows + columns * k) / source.uniform(2, 9)) for k in (1, 2, 3)], axis=-1)
    return {"image": np.frombuffer(_png(pixels.astype(np.uint8)), np.uint8)}


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


SOURCES: dict[str, Callable[[np.random.Generator], Feed]] = {
    "dtln_model_1": _spectra,
    "magika_standard_v3_3": _beginnings,
    "mnist_ort_examples": _strokes,
    "silero_vad": _sounds,
    "superres_prepost_op18": _photographs,
    "ultraface_slim-320_simplified": _pictures,
    "ultraface_version-RFB-320": _pictures,
}
# Of each model: what must be there, and of what must not the words that say why.
EXPECTED: dict[str, tuple[set[str], dict[str, str]]] = {
    "dtln_model_1": ({"fp16", "int8-dynamic-u8"}, {REPRODUCIBLE.name: "not smaller"}),
    "magika_standard_v3_3": ({"fp16", "int8-dynamic-u8"}, {}),
    "mnist_ort_examples": ({"fp16", REPRODUCIBLE.name}, {}),
    "silero_vad": ({"fp16"}, {REPRODUCIBLE.name: "outside of sub-graphs", "int4-weights": "no matrix product"}),
    "superres_prepost_op18": (set(), {"int8-dynamic-s8": "not smaller"}),
    "ultraface_slim-320_simplified": ({"fp16"}, {"int8-weights": "no matrix product"}),
    "ultraface_version-RFB-320": ({"fp16", REPRODUCIBLE.name}, {"int8-weights": "no matrix product"}),
}


def test_all_real_models_are_tried() -> None:
    """A model that comes to the reference data is not left out silently."""
    assert {path.stem for path in FOLDER.glob("*.onnx")} == set(SOURCES) == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_each_form_has_figures_or_a_reason(name: str, tmp_path: Path) -> None:
    """Published within the gate, refused above it, or not made; goldens hold here, and the costs are known."""
    if name.startswith("superres"):
        module("onnxruntime_extensions")
    source = np.random.default_rng(17)
    samples = Samples(tuple(SOURCES[name](source) for _ in range(COUNT)))
    addition = add(FOLDER / f"{name}.onnx", samples, tmp_path, Wish(name="real", reference_seconds=10))
    assert [row.form.name for row in addition.rows] == list(NAMES)
    for row in addition.rows:
        assert row.why
        if row.drop is not None:
            assert (row.verdict == "published") == (row.drop <= 0.02), row
    present, absent = EXPECTED[name]
    assert present <= {variant.name for variant in addition.family.variants}
    reasons = {row.form.name: row.why for row in addition.rows if row.verdict == "not made"}
    for form, words in absent.items():
        assert words in reasons[form]
    assert all(variant.costs is not None for variant in addition.family.variants)
    _assert_goldens_hold(addition)


def _assert_goldens_hold(addition: Addition) -> None:
    """What onnxruntime answers here is within each tolerance, but for forms that saturate on some machines."""
    for variant in addition.family.variants:
        if variant.golden is None:
            assert any(f"no golden file for {variant.name}" in note for note in addition.notes)
            continue
        if variant.format == "qdq" and not variant.reduce_range:
            continue
        runner = Runner(addition.files[variant.digest], library=bool(variant.requires))
        for case in decode_cases(addition.files[variant.golden.digest].read_bytes()):
            found = runner.run({tensor.name: array_of(tensor) for tensor in case.inputs})
            answers = [tensor_of(output, array) for output, array in found.items()]
            assert difference(variant.golden, case, answers) is None, variant.name
