"""Samples are read from files of every form, checked against the model, and split without overlap."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from float_models import pictures
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import InputError
from edge_agent.models.publishing.samples import Port, Samples, read
from edge_agent.wire.tensors import DataType

IMAGE = Port("image", DataType.FP32, (None, 1, 8, 8))
TEXT = Port("text", DataType.BYTES, (None,))


def test_an_archive_has_samples_along_the_first_axis(tmp_path: Path) -> None:
    """Each row becomes one run, with a batch axis of one; labels may lie beside them."""
    images = np.arange(10 * 64, dtype=np.float32).reshape(10, 1, 8, 8)
    path = tmp_path / "samples.npz"
    np.savez(path, image=images, labels=np.arange(10))
    samples = read(path, [IMAGE])
    assert len(samples) == 10
    assert samples.labels == tuple(range(10))
    np.testing.assert_array_equal(samples.feeds[3]["image"], images[3:4])


def test_a_folder_has_one_sample_a_file(tmp_path: Path) -> None:
    """Arrays, archives and requests may lie side by side; other files are left alone."""
    images = np.random.default_rng(1).normal(size=(9, 1, 8, 8)).astype(np.float32)
    for index in range(4):
        np.save(tmp_path / f"{index}.npy", images[index])
    for index in range(4, 7):
        np.savez(tmp_path / f"{index}.npz", image=images[index : index + 1])
    for index in (7, 8):
        tensor = {"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": images[index].ravel().tolist()}
        (tmp_path / f"{index}.json").write_text(json.dumps({"inputs": [tensor]}))
    (tmp_path / "README").write_text("not a sample")
    samples = read(tmp_path, [IMAGE])
    np.testing.assert_allclose(np.concatenate([feed["image"] for feed in samples.feeds]), images, rtol=1e-6)


def test_lines_are_samples_of_a_model_of_text(tmp_path: Path) -> None:
    """Empty lines are no samples; anything in Unicode is."""
    path = tmp_path / "lines.txt"
    path.write_text("eins\n\nzwei\n日本語\nça\n5\n6\n7\n8", encoding="utf-8")
    samples = read(path, [TEXT])
    assert [feed["text"][0] for feed in samples.feeds] == ["eins", "zwei", "日本語", "ça", "5", "6", "7", "8"]


@pytest.mark.parametrize(
    ("name", "arrays", "reason"),
    [
        ("a.npz", {"other": np.zeros((9, 1, 8, 8), np.float32)}, "no input 'other'"),
        ("a.npz", {}, "no array for the input 'image'"),
        ("a.npz", {"image": np.zeros((9, 1, 8, 9), np.float32)}, r"shape \[1, 1, 8, 9\]"),
        ("a.npz", {"image": np.zeros((9, 1, 8, 8), np.complex64)}, "complex64"),
        ("a.npz", {"image": np.zeros((3, 1, 8, 8), np.float32)}, "at least 8 are needed"),
        ("a.wav", None, "neither .npz"),
    ],
)
def test_arrays_that_the_model_does_not_take_are_refused(
    tmp_path: Path, name: str, arrays: dict[str, np.ndarray] | None, reason: str
) -> None:
    """The message names the file and what is wrong with it."""
    path = tmp_path / name
    if arrays is None:
        path.write_bytes(b"RIFF")
    else:
        np.savez(path, **arrays)
    with pytest.raises(InputError, match=reason):
        read(path, [IMAGE])


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    """A `.npy` file may hold code that runs while it is read; such a file is refused."""
    path = tmp_path / "evil.npy"
    np.save(path, np.array([{"a": 1}] * 9, dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read"):
        read(path, [IMAGE])


def test_labels_must_be_as_many_as_samples(tmp_path: Path) -> None:
    """A shifted list of labels would measure nonsense."""
    np.savez(tmp_path / "samples.npz", image=np.zeros((9, 1, 8, 8), np.float32))
    (tmp_path / "labels.txt").write_text("1\n2\n3\n")
    with pytest.raises(InputError, match="3 labels for 9 samples"):
        read(tmp_path / "samples.npz", [IMAGE], tmp_path / "labels.txt")


def test_the_same_split_whatever_the_order() -> None:
    """The digest of a sample decides where it goes: neither order nor chance."""
    samples = pictures(30)
    first = samples.split()
    second = samples.picked(list(reversed(range(30)))).split()
    for one, two in zip(first, second, strict=True):
        assert {f["image"].tobytes() for f in one.feeds} == {f["image"].tobytes() for f in two.feeds}


@given(st.lists(st.integers(0, 12), min_size=2, max_size=60))
def test_no_sample_is_on_both_sides_of_the_split(values: list[int]) -> None:
    """What set the ranges never measures, also when samples repeat; labels stay with their samples."""
    samples = Samples(tuple({"x": np.array([v], np.float32)} for v in values), tuple(values))
    if len(set(values)) == 1:
        with pytest.raises(InputError, match="the same"):
            samples.split()
        return
    for_ranges, for_measuring = samples.split()
    sides = [[float(feed["x"][0]) for feed in part.feeds] for part in (for_ranges, for_measuring)]
    assert set(sides[0]) & set(sides[1]) == set()
    assert sorted(sides[0] + sides[1]) == sorted(float(v) for v in values)
    assert [part.labels for part in (for_ranges, for_measuring)] == [tuple(int(v) for v in side) for side in sides]
