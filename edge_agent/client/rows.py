"""The inputs of a batch, read one after the other from a file of JSON lines, an .npz file or a folder of files.

Nothing is read before it is needed, so that a batch may be larger than the memory. The order is always the same: rows
have numbers, which say after a restart what is done.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final

from edge_agent.errors import InputError
from edge_agent.models.entries import Port

MAX_ROW_BYTES: Final = 64 * 1024 * 1024
BLOCK_BYTES: Final = 1024 * 1024


def digest_of_source(path: Path) -> str:
    """Return what tells a source from another: SHA-256 over the file, or over names and sizes of a folder's files.

    Raises:
        InputError: it cannot be read.
    """
    state = hashlib.sha256()
    try:
        if path.is_dir():
            for file in _files(path):
                state.update(f"{file.name}\0{file.stat().st_size}\n".encode())
        else:
            with path.open("rb") as opened:
                while block := opened.read(BLOCK_BYTES):
                    state.update(block)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    return state.hexdigest()


def count_rows(path: Path) -> int:
    """Return how many rows a source has.

    Raises:
        InputError: it cannot be read, or is none.
    """
    if path.is_dir():
        return len(_files(path))
    if path.suffix == ".npz":
        with ExitStack() as stack:
            return _lengths(_arrays(path, stack))
    with path.open("rb") as file:
        return sum(1 for _ in _lines(file))


def read_rows(path: Path, ports: Sequence[Port]) -> Iterator[Any]:
    """Give the inputs of each row, as `Client.infer` takes them.

    JSON lines are values by the names of the inputs, requests of the Open Inference Protocol, or the value of the one
    input there is. An .npz file has an array for each input, whose first axis are the rows. In a folder, by name, each
    file is a row: .npy an array, .json as a line, anything else the content of the one input, if that takes bytes.

    A row that is wrong by itself is given as the `InputError` that says so.

    Raises:
        InputError: nothing can be read any more.
    """
    if path.is_dir():
        for file in _files(path):
            yield _or_error(lambda file=file: _from_file(file, ports))  # type: ignore[misc] # bound now
    elif path.suffix == ".npz":
        yield from _from_arrays(path)
    else:
        with path.open("rb") as opened:
            for number, line in enumerate(_lines(opened)):
                where = f"row {number} of {path.name}"
                yield _or_error(lambda line=line, where=where: _from_json(line, where))  # type: ignore[misc] # as above


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Give the lines that are not empty; of one that is too long for a row, its beginning, which is too long, too."""
    while line := file.readline(MAX_ROW_BYTES + 1):
        too_long, rest = len(line) > MAX_ROW_BYTES, line
        while too_long and rest and not rest.endswith(b"\n"):
            rest = file.readline(BLOCK_BYTES)
        if too_long or line.strip():
            yield line


def _or_error(read: Callable[[], Any]) -> Any:  # noqa: ANN401 as `read_rows`
    try:
        return read()
    except InputError as error:
        return error
    except OSError as error:
        return InputError(f"it cannot be read: {error.strerror}")


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))


def _from_json(line: bytes, where: str) -> Any:  # noqa: ANN401 JSON is any
    if len(line) > MAX_ROW_BYTES:
        raise InputError(f"{where} has more than {MAX_ROW_BYTES} bytes")
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is no JSON: {error}") from None
    if isinstance(found, dict) and isinstance(found.get("inputs"), list):
        from edge_agent.wire.oip_json import request_from_json  # noqa: PLC0415 few batches are of this form

        return request_from_json(found).inputs
    return found


def _from_file(file: Path, ports: Sequence[Port]) -> Any:  # noqa: ANN401 a value is any
    if file.stat().st_size > MAX_ROW_BYTES:
        raise InputError(f"{file.name} has more than {MAX_ROW_BYTES} bytes")
    data = file.read_bytes()
    if file.suffix == ".json":
        return _from_json(data, file.name)
    if len(ports) != 1:
        raise InputError(f"the family has {len(ports)} inputs: {file.name} does not say which it is; use .json files")
    if file.suffix == ".npy":
        from edge_agent.client.arrays import tensor_from_npy  # noqa: PLC0415 numpy only where an array is read

        return [tensor_from_npy(data, ports[0])]
    if ports[0].datatype != "BYTES":
        raise InputError(f"{file.name} is neither .npy nor .json, and the input {ports[0].name!r} takes no bytes")
    return {ports[0].name: [data]}


# -- .npz -------------------------------------------------------------------------------------------------------------


def _arrays(path: Path, stack: ExitStack) -> dict[str, tuple[Any, tuple[int, ...], Any]]:
    """Open the arrays of a file: for each the stream behind its header, its shape and its type."""
    import numpy as np  # noqa: PLC0415 only where arrays are read

    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
        found = {}
        for name in archive.namelist():
            stream = stack.enter_context(archive.open(name))
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(stream)
            unfit = dtype.hasobject or fortran or not shape
            found[name.removesuffix(".npy")] = (stream, () if unfit else shape, dtype)
    except Exception as error:  # a damaged header is parsed as Python and can raise nearly anything
        raise InputError(f"{path.name} is no .npz file: {error}") from error
    if not found or not all(shape for _, shape, _ in found.values()):
        raise InputError(f"{path.name} must hold arrays of numbers, row-major, whose first axis are the rows")
    return found


def _lengths(arrays: dict[str, tuple[Any, tuple[int, ...], Any]]) -> int:
    lengths = {shape[0] for _, shape, _ in arrays.values()}
    if len(lengths) != 1:
        raise InputError("the arrays of the .npz file have different numbers of rows")
    return lengths.pop()


def _from_arrays(path: Path) -> Iterator[dict[str, Any]]:
    import numpy as np  # noqa: PLC0415 as above

    with ExitStack() as stack:
        arrays = _arrays(path, stack)
        for number in range(_lengths(arrays)):
            row = {}
            for name, (stream, shape, dtype) in arrays.items():
                size = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
                if size > MAX_ROW_BYTES:
                    raise InputError(f"a row of {name} has more than {MAX_ROW_BYTES} bytes")
                data = stream.read(size)
                if len(data) < size:
                    raise InputError(f"the array {name} of {path.name} is cut in row {number}")
                row[name] = np.frombuffer(data, dtype).reshape(shape[1:])
            yield row
