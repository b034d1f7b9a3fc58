"""Make the built-in family `digits`: train, export, measure, write; or check the committed artefacts.

    python -m edge_agent.models.train_digits            # writes edge_agent/models/builtin/
    python -m edge_agent.models.train_digits --check    # rebuilds elsewhere and compares

The data are the 1,797 scans that scikit-learn carries of the UCI set "Optical Recognition of Handwritten
Digits". A fifth of each digit, chosen by the SHA-256 of the pixels, is the test part: neither training nor
the calibration of the 8-bit forms sees it. The model files come out byte for byte the same on every machine
(see `train_exact`); golden outputs and accuracies are measured, and compared within their tolerances.

Needs the extra `train` (scikit-learn, onnx) besides onnxruntime.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before onnxruntime is imported: it reports to its maker otherwise


import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx.reference import ReferenceEvaluator

from edge_agent.models import costs, train_graphs
from edge_agent.models.catalogue import (
    BUILTIN_DIR,
    Catalogue,
    Family,
    Format,
    Golden,
    Port,
    Quality,
    Variant,
    parse,
)
from edge_agent.models.entries import BIT_IDENTICAL, NOT_CHECKABLE
from edge_agent.models.golden import Case, decode_cases, difference, encode_cases
from edge_agent.models.scans import MAX_LABEL, SCANS_FILE
from edge_agent.models.train_exact import SIDE, Plan, forward, train
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

if TYPE_CHECKING:
    import onnx

CATALOGUE_VERSION = 1
DATA_DIGEST = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
"""SHA-256 over all pixels and then all labels, one byte each: other data would make other models."""
TEST_FRACTION = 5  # one scan in five
SPLIT_SALT = b"digits-split-1"
DATASET = "UCI Optical Recognition of Handwritten Digits (scikit-learn), test part"
MIN_RUNTIME = "1.27"

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """Scans that are used together: pixels [n, 64] from 0 to 16, and the digits they show."""

    pixels: Pixels
    labels: Labels

    @property
    def images(self) -> npt.NDArray[np.float32]:
        """The scans as the family's input wants them."""
        return self.pixels.reshape(-1, 1, SIDE, SIDE).astype(np.float32)


@dataclass(frozen=True)
class Form:
    """A variant as it is made, before it is measured."""

    name: str
    format: Format
    model: onnx.ModelProto
    atol: float
    signedness: Literal["u8s8", "u8u8", "s8s8"] | None = None
    per_channel: bool = False
    reduce_range: bool = False
    reproducible: bool = False


def split() -> tuple[Part, Part]:
    """Return the train part and the test part.

    Raises:
        ValueError: scikit-learn carries other scans than these models were made from.
    """
    from sklearn.datasets import load_digits  # noqa: PLC0415 - brings the whole of SciPy: seconds on a small machine

    bundled = load_digits()
    pixels = np.asarray(bundled.data).astype(np.uint8)
    labels = np.asarray(bundled.target).astype(np.int64)
    found = hashlib.sha256(pixels.tobytes() + labels.astype(np.uint8).tobytes()).hexdigest()
    if found != DATA_DIGEST:
        raise ValueError(f"scikit-learn's digits are not the ones these models were made from: {found}")
    keys = [hashlib.sha256(SPLIT_SALT + row.tobytes()).digest() for row in pixels]
    test: list[int] = []
    for digit in range(MAX_LABEL + 1):
        ranked = sorted(np.flatnonzero(labels == digit).tolist(), key=keys.__getitem__)
        test += ranked[: -(-len(ranked) // TEST_FRACTION)]
    # By key and not by digit, so that any stretch of the test part has all digits in it.
    test.sort(key=keys.__getitem__)
    train_part = sorted(set(range(len(labels))) - set(test))
    return Part(pixels[train_part], labels[train_part]), Part(pixels[test], labels[test])


def make_forms(part: Part, plan: Plan | None = None) -> list[Form]:
    """Train on `part` and return the family's forms."""
    images = part.pixels.reshape(-1, 1, SIDE, SIDE).astype(np.float64) / 16
    weights = train(images, part.labels, plan or Plan())
    ranges = train_graphs.Ranges.of(forward(weights, images))
    low, high = ranges.logits
    step = (high - low) / 255
    return [
        # Other orders of summing stay 300 times below this; the 8-bit forms differ from fp32 by 100 times
        # as much.
        Form("fp32", "fp32", train_graphs.float_model(weights), atol=1e-3),
        Form(
            "int8-static",
            "qdq",
            train_graphs.static_model(weights, ranges),
            atol=round(1.1 * step, 4),  # one step of the output's grid, should a kernel round a tie otherwise
            signedness="u8s8",
            per_channel=True,
            reduce_range=True,
            reproducible=True,
        ),
        # A range found at run time can move every 8-bit value of a layer by one when the last bit of a
        # float differs.
        Form("int8-dynamic", "dynamic", train_graphs.dynamic_model(weights), atol=0.1, signedness="u8u8"),
    ]


def accuracy(model: bytes, part: Part) -> float:
    """Return the fraction of `part` that onnxruntime gets right with `model`, one scan a run as jobs come."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    answers = [int(session.run(["label"], {"image": image[None]})[0][0]) for image in part.images]
    return float((np.array(answers) == part.labels).mean())


def golden_cases(model: onnx.ModelProto, part: Part) -> list[Case]:
    """Return one case for each digit, answered by ONNX's own reference implementation of the operators.

    The reference, not onnxruntime: a defect of onnxruntime on this machine must not become the truth.
    """
    reference = ReferenceEvaluator(model)
    cases = []
    for digit in range(MAX_LABEL + 1):
        image = part.images[np.flatnonzero(part.labels == digit)[0]][None]
        logits, label = reference.run(None, {"image": image})
        outputs = (
            _tensor("logits", DataType.FP32, np.asarray(logits, dtype="<f4")),
            _tensor("label", DataType.INT64, np.asarray(label, dtype="<i8")),
        )
        cases.append(Case((_tensor("image", DataType.FP32, image.astype("<f4")),), outputs))
    return cases


def _tensor(name: str, datatype: DataType, values: npt.NDArray[np.generic]) -> Tensor:
    return Tensor(TensorSpec(name, datatype, tuple(values.shape)), values.tobytes())


def build(folder: Path) -> Catalogue:
    """Make all artefacts in `folder`, and return the catalogue that describes them."""
    train_part, test_part = split()
    variants = []
    for form in make_forms(train_part):
        data = form.model.SerializeToString(deterministic=True)
        cases = encode_cases(golden_cases(form.model, train_part))
        stem = f"digits-{form.name}"
        (folder / f"{stem}.onnx").write_bytes(data)
        (folder / f"{stem}.golden.cbor").write_bytes(cases)
        variants.append(
            Variant(
                name=form.name,
                file=f"{stem}.onnx",
                digest=hashlib.sha256(data).hexdigest(),
                size_bytes=len(data),
                format=form.format,
                signedness=form.signedness,
                per_channel=form.per_channel,
                reduce_range=form.reduce_range,
                opset=train_graphs.OPSET,
                min_runtime=MIN_RUNTIME,
                reproducibility=BIT_IDENTICAL if form.reproducible else NOT_CHECKABLE,
                quality=Quality(
                    metric="top1",
                    value=round(accuracy(data, test_part), 6),
                    dataset=DATASET,
                    n=len(test_part.labels),
                ),
                costs=costs.count(form.model),
                golden=Golden(
                    file=f"{stem}.golden.cbor",
                    digest=hashlib.sha256(cases).hexdigest(),
                    size_bytes=len(cases),
                    atol=form.atol,
                    rtol=0.0,
                ),
            )
        )
    rows = np.column_stack([test_part.labels.astype(np.uint8), test_part.pixels])
    (folder / SCANS_FILE).write_bytes(rows.tobytes())
    catalogue = Catalogue(version=CATALOGUE_VERSION, families=(_family(tuple(variants)),))
    text = json.dumps(catalogue.model_dump(mode="json"), indent=2, ensure_ascii=False)
    (folder / "catalogue.json").write_text(text + "\n", encoding="utf-8")
    return catalogue


def _family(variants: tuple[Variant, ...]) -> Family:
    return Family(
        name="digits",
        title="Handwritten digits, 8 by 8 pixels",
        task="Say which digit from 0 to 9 a scan shows. Pixels go from 0 (paper) to 16 (ink).",
        licence="Apache-2.0 (model); the training data are CC BY 4.0, E. Alpaydin and C. Kaynak",
        source="Made by edge_agent.models.train_digits from https://doi.org/10.24432/C50P49",
        inputs=(Port(name="image", datatype="FP32", shape=("N", 1, SIDE, SIDE)),),
        outputs=(
            Port(name="logits", datatype="FP32", shape=("N", MAX_LABEL + 1)),
            Port(name="label", datatype="INT64", shape=("N",)),
        ),
        metric="top1",
        latency_target_ms=20.0,
        variants=variants,
    )


def differences(committed: Path, rebuilt: Path) -> list[str]:
    """Return in words how the artefacts in `committed` are not what a rebuild gave; an empty list is good.

    Model files and scans must be the same bytes. Accuracies may differ by one scan and golden outputs by
    their tolerance: those are measured, and the last bit of a float differs between machines.
    """
    found = []
    old = parse((committed / "catalogue.json").read_bytes())
    new = parse((rebuilt / "catalogue.json").read_bytes())
    old_family, new_family = old.family("digits"), new.family("digits")
    old_names = [variant.name for variant in old_family.variants]
    if old_names != [variant.name for variant in new_family.variants]:
        return [f"the committed variants are {', '.join(old_names)}"]
    if _without_measurements(old) != _without_measurements(new):
        found.append("catalogue.json says something else than a rebuild")
    names = [SCANS_FILE, *(variant.file for variant in new_family.variants)]
    found += [
        f"{name} has other bytes than a rebuild"
        for name in names
        if (committed / name).read_bytes() != (rebuilt / name).read_bytes()
    ]
    for before, after in zip(old_family.variants, new_family.variants, strict=True):
        (said, _), (measured, n) = _quality(before), _quality(after)
        if abs(said - measured) > 1.5 / n:
            found.append(f"{before.name} is said to reach {said}, but {measured} was measured")
        golden = _golden(before)
        old_cases = decode_cases((committed / golden.file).read_bytes())
        new_cases = decode_cases((rebuilt / _golden(after).file).read_bytes())
        if [case.inputs for case in old_cases] != [case.inputs for case in new_cases]:
            found.append(f"{golden.file} has other inputs than a rebuild")
            continue
        for number, (was, now) in enumerate(zip(old_cases, new_cases, strict=True)):
            wrong = difference(golden, was, now.outputs)
            if wrong is not None:
                found.append(f"{golden.file}, case {number}: {wrong}")
    return found


def _quality(variant: Variant) -> tuple[float, int]:
    """Return the measured fraction and the number of samples."""
    if variant.quality is None or variant.quality.n is None:
        raise ValueError(f"{variant.name} has no measured quality")
    return variant.quality.value, variant.quality.n


def _golden(variant: Variant) -> Golden:
    if variant.golden is None:
        raise ValueError(f"{variant.name} has no golden file")
    return variant.golden


def _without_measurements(catalogue: Catalogue) -> object:
    plain = catalogue.model_dump(mode="json")
    for family in plain["families"]:
        for variant in family["variants"]:
            del variant["quality"]["value"], variant["golden"]["digest"]
    return plain


def main(arguments: list[str] | None = None) -> int:
    """Build or check; return the exit status: 0, or 1 if a check found differences."""
    parser = argparse.ArgumentParser(prog="python -m edge_agent.models.train_digits", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare a rebuild with the committed artefacts")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    chosen = parser.parse_args(arguments)
    if not chosen.check:
        BUILTIN_DIR.mkdir(exist_ok=True)
        _report(build(BUILTIN_DIR))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        _report(build(Path(folder)))
        found = differences(BUILTIN_DIR, Path(folder))
    for line in found:
        sys.stdout.write(f"DIFFERENT: {line}\n")
    if not found:
        sys.stdout.write("The committed artefacts are what this script makes.\n")
    return 1 if found else 0


def _report(catalogue: Catalogue) -> None:
    for variant in catalogue.family("digits").variants:
        value, n = _quality(variant)
        right = round(value * n)
        sys.stdout.write(f"{variant.name:13} {variant.size_bytes:6} bytes  {right} of {n} right ({value:.4f})\n")


if __name__ == "__main__":
    sys.exit(main())
