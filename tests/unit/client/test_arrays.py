"""From .npy files to tensors."""

from __future__ import annotations

import io

import numpy as np
import pytest

from edge_agent.client.arrays import tensor_from_npy
from edge_agent.errors import InputError
from edge_agent.models.catalogue import Port

PORT = Port(name="image", datatype="FP32", shape=("N", 1, 8, 8))


def npy(array: np.ndarray) -> bytes:
    """Return the bytes of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_missing_batch_dimension_is_added() -> None:
    """One sample without its batch dimension becomes a batch of one."""
    tensor = tensor_from_npy(npy(np.ones((1, 8, 8), np.float32)), PORT)
    assert tensor.spec.shape == (1, 1, 8, 8)
    assert tensor.data == np.ones(64, "<f4").tobytes()


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float64", ">f4", "float16"])
def test_exact_conversions(dtype: str) -> None:
    """Numbers that the input's type holds exactly are converted, whatever their order of bytes."""
    values = np.arange(64).reshape(1, 1, 8, 8)
    assert tensor_from_npy(npy(values.astype(dtype)), PORT).data == values.astype("<f4").tobytes()


def test_inexact_conversion_is_refused() -> None:
    """A number that would be changed is not sent."""
    with pytest.raises(InputError, match="float64"):
        tensor_from_npy(npy(np.full((1, 1, 8, 8), 0.1)), PORT)


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY", npy(np.ones(3, np.float32))[:-1]])
def test_cut_file(data: bytes) -> None:
    """A cut file says so."""
    with pytest.raises(InputError, match="npy"):
        tensor_from_npy(data, PORT)


def test_pickled_objects_are_never_loaded() -> None:
    """An array of objects would be code: refused."""
    with pytest.raises(InputError):
        tensor_from_npy(npy(np.array([{}], dtype=object)), PORT)
