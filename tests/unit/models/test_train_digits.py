# ruff: noqa: E402 - what may be missing is imported after the skip
from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import needs
import pytest

needs.module("sklearn")
needs.module("onnx")

import numpy as np

from edge_agent.models import train_digits, train_exact
from edge_agent.models.catalogue import BUILTIN_DIR, builtin
from edge_agent.models.golden import decode_cases, encode_cases
from edge_agent.models.scans import load_scans

if TYPE_CHECKING:
    from pathlib import Path

    from edge_agent.models.train_digits import Part


@pytest.fixture(scope="module")
def parts() -> tuple[Part, Part]:
    """The train part and the test part."""
    return train_digits.split()


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the artefacts, made anew on this machine."""
    folder = tmp_path_factory.mktemp("rebuilt")
    train_digits.build(folder)
    return folder


def test_the_parts_never_mix(parts: tuple[Part, Part]) -> None:
    """No scan is in both, not even as an equal copy, and none is lost."""
    train, test = parts
    rows = [{row.tobytes() for row in part.pixels} for part in (train, test)]
    assert not rows[0] & rows[1]
    assert len(train.labels) + len(test.labels) == 1797


def test_the_test_part_is_a_fifth_of_every_digit(parts: tuple[Part, Part]) -> None:
    """Stratified: rounding up, one scan in five of each."""
    train, test = parts
    for digit in range(10):
        tested, trained = (int((part.labels == digit).sum()) for part in (test, train))
        assert tested == -(-(tested + trained) // 5)


def test_the_committed_scans_are_the_test_part(parts: tuple[Part, Part]) -> None:
    """The demonstration's jobs are scans that no variant has seen."""
    train, test = parts
    committed = [(scan.image, scan.label) for scan in load_scans()]
    made = [(image.tobytes(), int(label)) for image, label in zip(test.images, test.labels, strict=True)]
    assert committed == made
    assert not {image for image, _ in committed} & {image.tobytes() for image in train.images}


def test_golden_inputs_are_of_the_train_part(parts: tuple[Part, Part]) -> None:
    """One of each digit; the test part stays untouched by everything but the measurement."""
    known = {image.tobytes() for image in parts[0].images}
    for variant in builtin().family("digits").variants:
        cases = decode_cases((BUILTIN_DIR / variant.golden.file).read_bytes())
        assert {case.inputs[0].data for case in cases} <= known
        assert [struct.unpack("<q", case.outputs[1].data)[0] for case in cases] == list(range(10))


def test_calibration_sees_the_train_part_only(
    parts: tuple[Part, Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every scan of the test part blackened the models come out as the very same bytes."""
    train, test = parts
    black = train_digits.Part(np.full_like(test.pixels, 16), test.labels)
    monkeypatch.setattr(train_digits, "split", lambda: (train, black))
    train_digits.build(tmp_path)
    for variant in builtin().family("digits").variants:
        assert (tmp_path / variant.file).read_bytes() == (BUILTIN_DIR / variant.file).read_bytes()


def test_a_rebuild_gives_the_committed_artefacts(rebuilt: Path) -> None:
    """Model files and scans to the byte; measured values within their tolerances."""
    assert train_digits.differences(BUILTIN_DIR, rebuilt) == []


def test_another_blas_gives_the_same_models() -> None:
    """Old vector instructions sum in another order; sums that are exact don't mind."""
    environment = {
        **os.environ,
        "OPENBLAS_CORETYPE": "Prescott",
        "OPENBLAS_NUM_THREADS": "1",
        "ORT_DISABLE_TELEMETRY": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "edge_agent.models.train_digits", "--check"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "DIFFERENT" in done.stdout) == (0, False), done.stdout + done.stderr


def test_the_check_notices_what_was_tampered_with(rebuilt: Path, tmp_path: Path) -> None:
    """A changed model, a praised accuracy, other costs, and golden outputs that are off."""
    folder = shutil.copytree(rebuilt, tmp_path / "committed")
    assert train_digits.differences(folder, rebuilt) == []
    model = folder / "digits-fp32.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"\0")
    text = json.loads((folder / "catalogue.json").read_text())
    variants = text["families"][0]["variants"]
    variants[1]["quality"]["value"] = 1.0
    variants[1]["costs"]["macs"] += 1
    (folder / "catalogue.json").write_text(json.dumps(text))
    golden = folder / variants[2]["golden"]["file"]
    cases = list(decode_cases(golden.read_bytes()))
    golden.write_bytes(encode_cases([*cases[1:], cases[0]]))
    found = "\n".join(train_digits.differences(folder, rebuilt))
    for words in (
        "digits-fp32.onnx has other bytes",
        "catalogue.json says something else",
        "int8-static is said to reach 1.0",
        "digits-int8-dynamic.golden.cbor has other inputs",
    ):
        assert words in found


def test_other_data_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should scikit-learn ever carry other scans, the script says so instead of making other models."""
    monkeypatch.setattr(train_digits, "DATA_DIGEST", "0" * 64)
    with pytest.raises(ValueError, match="not the ones"):
        train_digits.split()


def test_exact_products_have_no_order() -> None:
    """Forwards, backwards and in two halves the very same bits; ordinary floats differ."""
    numbers = np.random.default_rng(7)
    left, right = numbers.normal(size=(40, 600)), numbers.normal(size=(600, 30))
    on_grid = train_exact.on_grid(left, 10, 64.0), train_exact.on_grid(right, 12, 4.0)
    whole = train_exact.exact_product(*on_grid, 10, 12)
    halves = on_grid[0][:, ::2] @ on_grid[1][::2] + on_grid[0][:, 1::2] @ on_grid[1][1::2]
    assert np.array_equal(whole, halves)
    assert not np.array_equal(left @ right, left[:, ::2] @ right[::2] + left[:, 1::2] @ right[1::2])


def test_a_product_that_would_be_rounded_is_refused() -> None:
    """Better no model than one that depends on the machine."""
    big = np.full((2, 2), 2.0**20)
    with pytest.raises(ArithmeticError, match="not be exact"):
        train_exact.exact_product(big, big, 10, 12)


@pytest.mark.parametrize("stride", [1, 2])
def test_scatter_is_the_transpose_of_patches(stride: int) -> None:
    """The sum over patches(x) * g is the sum over x * scatter(g), whatever x and g."""
    numbers = np.random.default_rng(3)
    image = numbers.integers(-9, 9, size=(2, 3, 8, 8)).astype(float)
    columns = train_exact.patches(image, stride)
    gradient = numbers.integers(-9, 9, size=columns.shape).astype(float)
    back = train_exact.scatter(gradient, 3, 8, stride)
    assert (columns * gradient).sum() == (image * back).sum()


def test_gradients_are_those_of_the_loss(parts: tuple[Part, Part]) -> None:
    """Against finite differences of the mean squared hinge loss, in every array of the weights."""
    train = parts[0]
    images, labels = train.images[:8].astype(float) / 16, train.labels[:8]
    weights = train_exact.train(images, labels, train_exact.Plan(epochs=3))

    def loss(changed: train_exact.Weights) -> float:
        logits = train_exact.forward(changed, images).logits
        signs = np.where(np.arange(10) == labels[:, None], 1.0, -1.0)
        return float((np.maximum(0.0, 1.0 - signs * logits) ** 2).sum() / len(images))

    step = 2.0**-7  # a multiple of the grid, far above the rounding of activations
    for index, (name, values) in enumerate(vars(weights).items()):
        gradient = train_exact._gradients(weights, images, labels)[index]
        place = np.unravel_index(int(np.abs(gradient).argmax()), values.shape)
        ends = []
        for sign in (1, -1):
            moved = values.copy()
            moved[place] += sign * step
            ends.append(loss(train_exact.Weights(**{**vars(weights), name: moved})))
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(gradient[place], rel=0.1, abs=0.02), name


def test_the_command_reports_and_fails_on_differences(
    rebuilt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without an argument it writes, with --check it compares and ends with 1 if something differs."""
    monkeypatch.setattr(train_digits, "BUILTIN_DIR", tmp_path)
    monkeypatch.setattr(train_digits, "build", lambda folder: _copied(rebuilt, folder))
    assert train_digits.main([]) == 0
    assert train_digits.main(["--check"]) == 0
    (tmp_path / "digits_test.bin").write_bytes(b"")
    assert train_digits.main(["--check"]) == 1
    printed = capsys.readouterr().out
    assert "int8-static" in printed
    assert "DIFFERENT: digits_test.bin" in printed


def _copied(source: Path, folder: Path) -> object:
    shutil.copytree(source, folder, dirs_exist_ok=True)
    return train_digits.parse((folder / "catalogue.json").read_bytes())
