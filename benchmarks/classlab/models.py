"""The models that are compared, in the forms in which they could be offered, with inputs as they are really sent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from edge_agent.models.catalogue import BUILTIN_DIR, builtin
from edge_agent.models.publishing.forms import form_named
from edge_agent.models.publishing.samples import Samples
from edge_agent.models.publishing.variants import make_variants
from edge_agent.models.scans import load_scans

FORMS = ("fp32", "int8-reproducible", "int8-u8s8-channel", "int8-u8u8-channel", "int8-dynamic-u8")
SEED = 7
CALIBRATION = 4
Feed = dict[str, np.ndarray]


def _scans() -> list[np.ndarray]:
    return [np.frombuffer(scan.image, "<f4").reshape(8, 8) for scan in load_scans()]


def _digits(count: int) -> list[Feed]:
    return [{"image": scan.reshape(1, 1, 8, 8)} for scan in _scans()[:count]]


def _mnist(count: int) -> list[Feed]:
    feeds = []
    for scan in _scans()[:count]:
        grown = np.pad(np.kron(scan / 16, np.ones((3, 3), np.float32)), 2)
        feeds.append({"Input3": (grown * 255).astype(np.float32).reshape(1, 1, 28, 28)})
    return feeds


def _faces(count: int) -> list[Feed]:
    """Images with the spectrum of photographs: amplitudes fall with the frequency."""
    rng = np.random.default_rng(SEED)
    height, width = 240, 320
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = 1 / width
    feeds = []
    for _ in range(count):
        planes = []
        for _ in range(3):
            noise = np.fft.rfft2(rng.normal(size=(height, width))) / frequency
            plane = np.fft.irfft2(noise, (height, width))
            planes.append((plane - plane.min()) / np.ptp(plane) * 255)
        feeds.append({"input": ((np.stack(planes)[None] - 127) / 128).astype(np.float32)})
    return feeds


def _files(count: int) -> list[Feed]:
    """The beginnings and ends of real files, as Magika takes them."""
    feeds = []
    for path in sorted(Path(__file__).parent.parent.glob("*.py"))[:count]:
        data = path.read_bytes().strip()
        tokens = [*data[:1024], *data[-1024:]]
        feeds.append({"bytes": np.array([tokens + [256] * (2048 - len(tokens))], np.int32)})
    return feeds


def _spectra(count: int) -> list[Feed]:
    rng = np.random.default_rng(SEED)
    return [
        {
            "input_2": np.abs(rng.normal(size=(1, 1, 257))).astype(np.float32) / np.arange(1, 258, dtype=np.float32),
            "input_3": np.zeros((1, 2, 128, 2), np.float32),
        }
        for _ in range(count)
    ]


_REAL: dict[str, tuple[str, Callable[[int], list[Feed]], int]] = {
    "mnist": ("mnist_ort_examples.onnx", _mnist, 16),
    "ultraface-slim": ("ultraface_slim-320_simplified.onnx", _faces, 2),
    "ultraface-rfb": ("ultraface_version-RFB-320.onnx", _faces, 2),
    "magika": ("magika_standard_v3_3.onnx", _files, 1),
    "dtln": ("dtln_model_1.onnx", _spectra, 4),
}


def prepare(folder: Path, only: Collection[str] = ()) -> None:
    """Make every form of every model (or of those that are named) below `folder`; what one does not have is said."""
    family = builtin().family("digits")
    _keep(folder / "digits", _digits(64))
    for variant in family.variants:
        shutil.copy(BUILTIN_DIR / variant.file, folder / "digits" / f"{variant.name}.onnx")
    reference = os.environ.get("EDGE_AGENT_REFERENCE_DATA")
    if reference is None:
        print("EDGE_AGENT_REFERENCE_DATA is not set: the built-in family alone is compared")
        return
    for name, (file, feeds_of, count) in _REAL.items():
        if only and name not in only:
            continue
        feeds = feeds_of(count + CALIBRATION)
        target = folder / name
        _keep(target, feeds[:count])
        calibration = Samples(tuple(feeds[count:]), None)
        forms = tuple(form_named(form) for form in FORMS)
        made = make_variants(Path(reference) / "models" / "onnx" / file, calibration, target, forms, keep_all=True)
        for missing in made.not_made:
            print(f"{name} has no {missing.form.name}: {missing.why}")


def _keep(folder: Path, feeds: list[Feed]) -> None:
    folder.mkdir(parents=True)
    arrays = {f"{number}:{name}": value for number, feed in enumerate(feeds) for name, value in feed.items()}
    np.savez(folder / "inputs.npz", **arrays)
