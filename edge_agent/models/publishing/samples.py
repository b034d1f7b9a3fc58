"""What a model is calibrated and measured on: samples, each one run, and their labels if there are any.

A folder holds one file a sample, a `.npz` file one array an input with the samples along the first axis:

- `.npz`: one array for each input;
- `.npy`: the model's only input;
- `.json`: a request of the Open Inference Protocol, as `edge-agent submit --input` takes it;
- `.txt`: for a model whose only input is text, one sample a line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_agent.errors import EdgeAgentError, InputError
from edge_agent.models.publishing.runs import Array, Feed
from edge_agent.wire.oip_json import request_from_json
from edge_agent.wire.tensors import DataType, Tensor, unpack_strings

LABELS_KEY = "labels"
"""The array of a `.npz` file that holds labels and is no input."""
MIN_SAMPLES = 8
"""Fewer say nothing: half of them set the ranges, the other half measures."""
MAX_SAMPLES = 20_000
MAX_SAMPLE_BYTES = 2 * 1024**3
_SALT = b"edge-agent publishing split 1"


@dataclass(frozen=True)
class Port:
    """One input of the model: its name, its data type, and its shape with None for what is free."""

    name: str
    datatype: DataType
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Samples:
    """Feeds of one sample each, in order; `labels` has one number a feed, or is None."""

    feeds: tuple[Feed, ...]
    labels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.labels is not None and len(self.labels) != len(self.feeds):
            raise InputError(
                f"There are {len(self.labels)} labels for {len(self.feeds)} samples.",
                hint="Give one label a sample, in the same order.",
            )

    def __len__(self) -> int:
        return len(self.feeds)

    def picked(self, indices: Sequence[int]) -> Samples:
        """Return the samples at `indices`, in that order."""
        labels = None if self.labels is None else tuple(self.labels[index] for index in indices)
        return Samples(tuple(self.feeds[index] for index in indices), labels)

    def split(self, most_for_calibration: int = 128) -> tuple[Samples, Samples]:
        """Return (to calibrate on, to measure on): no sample is in both.

        A third, at most `most_for_calibration`, calibrates. The digest of a sample decides, so that neither the
        order of files nor chance does; samples that are equal land in the same part.
        """
        keys = [_key(feed) for feed in self.feeds]
        ranked = sorted(range(len(keys)), key=lambda index: (keys[index], index))
        count = max(1, min(most_for_calibration, len(ranked) // 3))
        while count < len(ranked) and keys[ranked[count]] == keys[ranked[count - 1]]:
            count += 1
        if count == len(ranked):
            raise InputError("All samples are the same.", hint="Give samples that differ, as real inputs do.")
        return self.picked(ranked[:count]), self.picked(ranked[count:])


def _key(feed: Feed) -> bytes:
    state = hashlib.sha256(_SALT)
    for name in sorted(feed):
        array = feed[name]
        state.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        state.update(repr(array.tolist()).encode() if array.dtype == object else np.ascontiguousarray(array).tobytes())
    return state.digest()


def read(path: Path, ports: Sequence[Port], labels: Path | None = None, most: int = MAX_SAMPLES) -> Samples:
    """Return the samples at `path` (a folder or a file), the first `most` of them, with their labels.

    Raises:
        InputError: nothing there, a file that is not what its name says, too few samples, or arrays that the
            model does not take; the message names the file.
    """
    given = None if labels is None else _labels(labels)
    if path.is_dir():
        files = sorted(item for item in path.iterdir() if item.suffix in _READERS and item.name[0] != ".")
        feeds = [feed for file in files for feed in _feeds(file, ports, one=file.suffix in {".npz", ".npy"})[0]]
    else:
        feeds, own = _feeds(path, ports, one=False)
        given = own if given is None else given
    if len(feeds) < MIN_SAMPLES:
        raise InputError(
            f"There are {len(feeds)} samples in {path}; at least {MIN_SAMPLES} are needed.",
            hint="Give inputs as they will really come: a folder of .npz, .npy, .json or .txt files, or one .npz file.",
        )
    samples = Samples(tuple(feeds), None if given is None else tuple(given))
    return samples if len(samples) <= most else samples.picked(range(most))


def _feeds(path: Path, ports: Sequence[Port], *, one: bool) -> tuple[list[Feed], list[int] | None]:
    reader = _READERS.get(path.suffix)
    try:
        if reader is None:
            raise InputError("it is neither .npz, .npy, .json nor .txt")
        if path.stat().st_size > MAX_SAMPLE_BYTES:
            raise InputError(f"it has more than {MAX_SAMPLE_BYTES} bytes")
        return reader(path, ports, one)
    except (OSError, ValueError, KeyError, EdgeAgentError) as error:
        text = error.message if isinstance(error, EdgeAgentError) else str(error)
        wanted = ", ".join(f"{p.name} ({p.datatype.value} {_shown(p.shape)})" for p in ports)
        raise InputError(
            f"Samples cannot be read from {path}: {text.rstrip('.')}.", hint=f"The model takes {wanted}."
        ) from error


def _shown(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def _from_npz(path: Path, ports: Sequence[Port], one: bool) -> tuple[list[Feed], list[int] | None]:  # noqa: FBT001
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    names = {port.name for port in ports}
    labels = arrays.pop(LABELS_KEY, None) if LABELS_KEY not in names else None
    if unknown := sorted(set(arrays) - names):
        raise InputError(f"the model has no input {unknown[0]!r}")
    if missing := sorted(names - set(arrays)):
        raise InputError(f"there is no array for the input {missing[0]!r}")
    if one:
        return [{port.name: _one(arrays[port.name], port) for port in ports}], None
    counts = {len(array) if array.ndim else 0 for array in arrays.values()}
    if len(counts) != 1:
        raise InputError("its arrays have different lengths along the first axis, which counts the samples")
    count = counts.pop()
    feeds: list[Feed] = [{port.name: _one(arrays[port.name][index], port) for port in ports} for index in range(count)]
    return feeds, None if labels is None else [int(label) for label in labels]


def _from_npy(path: Path, ports: Sequence[Port], one: bool) -> tuple[list[Feed], None]:  # noqa: FBT001
    if len(ports) != 1:
        raise InputError(f"the model has {len(ports)} inputs, and this file is one array")
    array = np.load(path, allow_pickle=False)
    rows = [array] if one else list(array)
    return [{ports[0].name: _one(row, ports[0])} for row in rows], None


def _from_json(path: Path, ports: Sequence[Port], _one: bool) -> tuple[list[Feed], None]:  # noqa: FBT001
    request = request_from_json(path.read_bytes())
    feed = {tensor.name: array_of(tensor) for tensor in request.inputs}
    return [{port.name: _fitting(feed[port.name], port) for port in ports}], None


def _from_txt(path: Path, ports: Sequence[Port], _one: bool) -> tuple[list[Feed], None]:  # noqa: FBT001
    if len(ports) != 1 or ports[0].datatype is not DataType.BYTES:
        raise InputError("lines of text are for a model whose only input is text")
    shape = tuple(1 for _ in ports[0].shape)
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [{ports[0].name: np.array([line], dtype=object).reshape(shape)} for line in lines], None


_READERS = {".npz": _from_npz, ".npy": _from_npy, ".json": _from_json, ".txt": _from_txt}


def _one(array: Array, port: Port) -> Array:
    """Return one sample as the model takes it; a batch axis that the array lacks is put in front."""
    if array.ndim == len(port.shape) - 1 and (not port.shape or port.shape[0] in {None, 1}):
        array = array[None]
    return _fitting(array, port)


def _fitting(array: Array, port: Port) -> Array:
    if port.datatype is DataType.BYTES:
        array = array.astype(object)
    else:
        wanted = NUMPY_TYPES[port.datatype]
        if not np.can_cast(array.dtype, wanted, casting="same_kind"):
            raise InputError(f"the input {port.name!r} is {array.dtype} there")
        array = np.ascontiguousarray(array, dtype=wanted)
    expected = port.shape
    if len(array.shape) != len(expected) or any(
        want is not None and have != want for have, want in zip(array.shape, expected, strict=False)
    ):
        raise InputError(f"the input {port.name!r} has the shape {list(array.shape)} there")
    return array


NUMPY_TYPES: dict[DataType, npt.DTypeLike] = {
    DataType.BOOL: "?",
    DataType.UINT8: "u1",
    DataType.UINT16: "<u2",
    DataType.UINT32: "<u4",
    DataType.UINT64: "<u8",
    DataType.INT8: "i1",
    DataType.INT16: "<i2",
    DataType.INT32: "<i4",
    DataType.INT64: "<i8",
    DataType.FP16: "<f2",
    DataType.FP32: "<f4",
    DataType.FP64: "<f8",
}


def array_of(tensor: Tensor) -> Array:
    """Return a tensor of the protocol as numpy has it; text as an array of str.

    Raises:
        InputError: a type that numpy has not, or text that is not UTF-8.
    """
    spec = tensor.spec
    if spec.datatype is DataType.BYTES:
        try:
            items = [item.decode() for item in unpack_strings(tensor.data, spec.element_count)]
        except UnicodeDecodeError as error:
            raise InputError(f"the input {spec.name!r} is not UTF-8") from error
        return np.array(items, dtype=object).reshape(spec.shape)
    if spec.datatype not in NUMPY_TYPES:
        raise InputError(f"the input {spec.name!r} is {spec.datatype.value}")
    return np.frombuffer(tensor.data, NUMPY_TYPES[spec.datatype]).reshape(spec.shape)


def _labels(path: Path) -> list[int]:
    """Return the whole numbers in a `.npy` file, or in a text file with one a line.

    Raises:
        InputError: the file is not that.
    """
    try:
        if path.suffix == ".npy":
            return [int(label) for label in np.load(path, allow_pickle=False).ravel()]
        return [int(line) for line in path.read_text(encoding="utf-8").split()]
    except (OSError, ValueError) as error:
        raise InputError(
            f"Labels cannot be read from {path}: {error}.", hint="Give one whole number a line, or a .npy file of them."
        ) from error
