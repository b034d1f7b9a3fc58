"""The models of the matrix as families of a catalogue: variants made and measured by the project's own publishing.

One variant of each quantized family is broken on purpose: the scale of one weight is wrong, while its entry promises
what the intact file gives. Such files are common in public collections.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from edge_agent.errors import EdgeAgentError
from edge_agent.models.catalogue import BUILTIN_DIR, builtin
from edge_agent.models.entries import Family
from edge_agent.models.publishing.adding import Wish, add
from edge_agent.models.publishing.forms import REPRODUCIBLE, form_named
from edge_agent.models.publishing.samples import Samples
from edge_agent.models.store import Store

from . import zoo

BROKEN = "int8-broken"
FORMS = tuple(
    form_named(name)
    for name in (
        *("fp32", "fp16", REPRODUCIBLE.name, "int8-u8u8-tensor", "int8-dynamic-s8", "int8-dynamic-u8", "int8-weights"),
        "int4-weights",
    )
)
REAL = {
    "mnist": "mnist_ort_examples",
    "magika": "magika_standard_v3_3",
    "dtln": "dtln_model_1",
    "silero-vad": "silero_vad",
    "ultraface-slim": "ultraface_slim-320_simplified",
    "ultraface-rfb": "ultraface_version-RFB-320",
}
SHAPED = {
    "mobilenet-v2": "mobilenet_v2",
    "efficientnet-b0": "efficientnet_b0",
    "resnet18": "resnet18_bn",
    "resnet50": "resnet50",
    "yolo-n": "yolo_n",
    "unet": "unet",
    "bert-mini": "bert_mini",
    "minilm-shaped": "minilm_shape",
    "vit-tiny": "vit_tiny",
    "lstm": "lstm",
}
QUICK = ("digits", "magika", "ultraface-slim", "mobilenet-v2", "bert-mini")
TARGET_MS = 1000.0
SAMPLES = 9


@dataclass(frozen=True)
class Entry:
    """A family with its files."""

    family: Family
    folder: Path
    real: bool

    @property
    def store(self) -> Store:
        """Where its files are."""
        return Store((self.folder,))


def all_names(*, quick: bool) -> tuple[str, ...]:
    """Return the names of the families."""
    return QUICK if quick else ("digits", *REAL, *SHAPED)


def load(name: str, folder: Path) -> Entry:
    """Return a family that `build` has made."""
    real = name == "digits" or name in REAL
    if name == "digits":
        return Entry(builtin().family("digits"), BUILTIN_DIR, real)
    family = Family.model_validate_json((folder / name / "family.json").read_text(encoding="utf-8"))
    return Entry(family, folder / name, real)


def build(name: str, folder: Path, reference_data: Path | None) -> bool:
    """Make a family's files if they are not there; return whether there is one."""
    if name == "digits" or (folder / name / "family.json").exists():
        return True
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    source = place / "source.onnx"
    if name in REAL:
        if reference_data is None:
            return False
        source.write_bytes((reference_data / "models" / "onnx" / f"{REAL[name]}.onnx").read_bytes())
    else:
        onnx.save(zoo.GRAPHS[SHAPED[name]](), str(source))
    wish = Wish(name, gate=1e9, latency_target_ms=TARGET_MS, forms=FORMS, reference_seconds=0.0)
    try:
        addition = add(source, Samples(tuple(_feeds(source))), place, wish)
    except EdgeAgentError as error:
        print(f"  {name}: {error}", file=sys.stderr)
        return False
    finally:
        source.unlink(missing_ok=True)
    family = addition.family
    for variant in family.variants:
        if not (place / variant.file).exists():
            os.link(addition.files[variant.digest], place / variant.file)
        if variant.golden is not None and not (place / variant.golden.file).exists():
            os.link(addition.files[variant.golden.digest], place / variant.golden.file)
    family = _with_broken(family, place)
    (place / "family.json").write_text(family.model_dump_json(indent=1), encoding="utf-8")
    return True


def _with_broken(family: Family, place: Path) -> Family:
    intact = family.variant_named(REPRODUCIBLE.name)
    if intact is None or intact.golden is None:
        return family
    model = onnx.load(str(place / intact.file))
    scales = [item for item in model.graph.initializer if item.name.endswith("_scale") and len(item.dims) == 1]
    if not scales:
        return family
    middle = scales[len(scales) // 2]
    wrong = numpy_helper.to_array(middle)[::-1] * np.float32(-3.0)
    middle.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(wrong), middle.name))
    path = place / f"{BROKEN}.onnx"
    onnx.save(model, str(path))
    data = path.read_bytes()
    fields = {
        **intact.model_dump(),
        "name": BROKEN,
        "file": path.name,
        "digest": hashlib.sha256(data).hexdigest(),
        "size_bytes": len(data),
    }
    variant = type(intact).model_validate_json(json.dumps(fields))
    return family.model_copy(update={"variants": (*family.variants, variant)})


def _feeds(path: Path) -> list[dict[str, np.ndarray]]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(3)
    kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}
    feeds = []
    for _ in range(SAMPLES):
        feed = {}
        for port in session.get_inputs():
            shape = [size if isinstance(size, int) and size > 0 else 1 for size in port.shape]
            kind = kinds.get(port.type, np.float32)
            if path.parent.name == "silero-vad" and port.name == "input":
                shape = [1, 512]
            if port.name == "sr":
                feed[port.name] = np.array(16000, np.int64)
            elif "mask" in port.name:
                feed[port.name] = np.ones(shape, kind)
            elif kind is np.float32:
                feed[port.name] = rng.standard_normal(shape).astype(np.float32)
            else:
                feed[port.name] = rng.integers(0, 256, shape).astype(kind)
        feeds.append(feed)
    return feeds
