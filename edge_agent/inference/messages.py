"""The headers of the frames between daemon and worker, and the strict reading of what the other side says.

Commands have an entry `do` (load, unload, run, canary), answers an entry `say` (ready, loaded, load-failed,
done, run-failed, canary-done, canary-failed). Every command but unload gets exactly one answer, in the order
of the commands. What names a run and how long it took are the numbers in front of a frame's header.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias, cast, get_args

from edge_agent.errors import MalformedError
from edge_agent.inference.containment import Containment
from edge_agent.inference.events import (
    Blame,
    CanaryDone,
    CanaryFailed,
    LoadFailed,
    ModelLoaded,
    Port,
    RunDone,
    RunFailed,
    WorkerEvent,
)
from edge_agent.inference.frames import MAX_PARTS, Frame, Header, head_of
from edge_agent.wire.strict_cbor import Value
from edge_agent.wire.tensors import DIGEST_BYTES, MAX_RANK, DataType, Tensor, TensorSpec

MAX_TEXT_CHARACTERS = 2_000
MAX_INTEGER = 2**63 - 1
MAX_THREADS = 1024
_BLAMES = get_args(Blame)


class Case(NamedTuple):
    """One run of a canary command: the inputs, and the names of the outputs that are wanted."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]


def plain(text: str, limit: int = MAX_TEXT_CHARACTERS) -> str:
    """Return `text` cut to `limit` characters, with everything that is not printable as a space."""
    line = "".join(character if character.isprintable() else " " for character in text[: 4 * limit])
    line = " ".join(line.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


# -- fields --------------------------------------------------------------------------------------------------


def text_of(header: Header, key: str) -> str:
    """Return the text `key`, at most `MAX_TEXT_CHARACTERS` long.

    Raises:
        MalformedError: it is missing or something else.
    """
    value = header.get(key)
    if not isinstance(value, str) or len(value) > MAX_TEXT_CHARACTERS:
        raise MalformedError(f"The entry {key!r} of a frame is not text of at most {MAX_TEXT_CHARACTERS} characters.")
    return value


def integer_of(header: Header, key: str) -> int:
    """Return the whole number `key`, from 0 to 2**63-1.

    Raises:
        MalformedError: it is missing or something else.
    """
    value = header.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_INTEGER:
        raise MalformedError(f"The entry {key!r} of a frame is not a whole number from 0 to 2**63-1.")
    return value


def number_of(header: Header, key: str) -> float:
    """Return the number `key`, 0 or more; the frame's CBOR has no NaN and no infinity.

    Raises:
        MalformedError: it is missing or something else.
    """
    value = header.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise MalformedError(f"The entry {key!r} of a frame is not a number from 0 on.")
    return float(value)


def digest_of(header: Header) -> bytes:
    """Return the digest of the model that a frame is about.

    Raises:
        MalformedError: it is missing or not 32 bytes.
    """
    value = header.get("digest")
    if not isinstance(value, bytes) or len(value) != DIGEST_BYTES:
        raise MalformedError(f"The digest in a frame is not {DIGEST_BYTES} bytes.")
    return value


def names_of(header: Header, key: str) -> tuple[str, ...]:
    """Return the list of texts `key`.

    Raises:
        MalformedError: it is missing or something else.
    """
    values = _list(header.get(key), key)
    return tuple(text_of({key: value}, key) for value in values)


class Run(NamedTuple):
    """What a command to run says of the model and the outputs.

    Attributes:
        digest: names the model.
        outputs: that are wanted, none for all.
        max_output_bytes: of all of them together.
    """

    digest: bytes
    outputs: tuple[str, ...]
    max_output_bytes: int


def run_of(frame: Frame) -> Run:
    """Return what a command to run says of the model and the outputs; the same header is read once.

    Raises:
        MalformedError: it is not as described.
    """
    run = frame.memo.get("run")
    if not isinstance(run, Run):
        header = frame.header
        run = Run(digest_of(header), names_of(header, "outputs"), integer_of(header, "max_output_bytes"))
        frame.memo["run"] = run
    return run


def tensors_of(frame: Frame, key: str) -> tuple[Tensor, ...]:
    """Return the tensors that the entry `key` describes, one for each part of the frame; the same header is read once.

    Raises:
        MalformedError: an entry is no tensor, or a part does not fit it.
    """
    specs = frame.memo.get(key)
    if not isinstance(specs, tuple):
        specs = frame.memo[key] = tuple([_spec(entry) for entry in _list(frame.header.get(key), key)])
    return _tensors(specs, frame.parts)


def _tensors(specs: Sequence[TensorSpec], parts: Sequence[bytes | memoryview]) -> tuple[Tensor, ...]:
    if len(specs) != len(parts):
        raise MalformedError(f"A frame with {len(specs)} tensors has {len(parts)} parts.")
    # In the worker the parts are views of a buffer, good until the command is answered: long enough, and never copied.
    return tuple([Tensor(spec, cast("bytes", part)) for spec, part in zip(specs, parts, strict=True)])


@lru_cache(maxsize=32)
def run_head(run: Run, inputs: tuple[TensorSpec, ...], lengths: tuple[int, ...]) -> bytes:
    """Return the header of a command to run with inputs of these lengths; raises as `frames.pack`."""
    header: dict[str, object] = {
        "do": "run",
        "digest": run.digest,
        "inputs": spec_entries(inputs),
        "outputs": list(run.outputs),
        "max_output_bytes": run.max_output_bytes,
    }
    return head_of(header, lengths)


@lru_cache(maxsize=32)
def done_head(outputs: tuple[TensorSpec, ...], lengths: tuple[int, ...]) -> bytes:
    """Return the header of the answer to a run with parts of these lengths; raises as `frames.pack`."""
    return head_of({"say": "done", "outputs": spec_entries(outputs)}, lengths)


def cases_of(header: Header, parts: Sequence[bytes | memoryview]) -> list[Case]:
    """Return the known runs that a canary command asks for: their inputs, and the outputs wanted of each; maybe none.

    Raises:
        MalformedError: they are not as described.
    """
    inputs = grouped_tensors_of(header, "cases", parts)
    wanted = _list(header.get("wanted"), "wanted")
    if len(inputs) != len(wanted):
        raise MalformedError("A canary run has not as many lists of outputs as of inputs.")
    return [Case(group, names_of({"wanted": names}, "wanted")) for group, names in zip(inputs, wanted, strict=True)]


def counts_of(header: Header, key: str) -> tuple[int, ...]:
    """Return the list of whole numbers `key`: at least one, each from 1 to 1024.

    Raises:
        MalformedError: it is missing or something else.
    """
    values = tuple(integer_of({key: value}, key) for value in _list(header.get(key), key))
    if not values or not all(1 <= value <= MAX_THREADS for value in values):
        raise MalformedError(f"The entry {key!r} of a frame is not a list of numbers from 1 to {MAX_THREADS}.")
    return values


def extents_of(header: Header) -> dict[str, int]:
    """Return the extents of symbols in shapes, by their names.

    Raises:
        MalformedError: they are missing or something else.
    """
    extents = {}
    for entry in _list(header.get("extents"), "extents"):
        match entry:
            case [str(symbol), int(extent)] if not isinstance(extent, bool) and 0 <= extent <= MAX_INTEGER:
                extents[symbol] = extent
            case _:
                raise MalformedError("An extent in a frame is not a name and a whole number.")
    return extents


def containment_of(header: Header) -> Containment:
    """Return what a worker that is ready says of its containment; it has read nothing foreign yet.

    Raises:
        MalformedError: it says nothing of the kind.
    """
    missing = []
    for entry in _list(header.get("missing"), "missing"):
        match entry:
            case [str(name), str(why)]:
                missing.append((plain(name), plain(why)))
            case _:
                raise MalformedError("What a worker lacks is not a name and a reason.")
    return Containment(names_of(header, "contained"), tuple(missing))


def grouped_tensors_of(header: Header, key: str, parts: Sequence[bytes | memoryview]) -> list[tuple[Tensor, ...]]:
    """Return the groups of tensors that the entry `key` describes; the parts are those of all groups.

    Raises:
        MalformedError: an entry is no tensor, or a part does not fit it.
    """
    groups = []
    left = list(parts)
    for entries in _list(header.get(key), key):
        count = len(_list(entries, key))
        groups.append(_tensors([_spec(entry) for entry in _list(entries, key)], left[:count]))
        left = left[count:]
    if left:
        raise MalformedError(f"A frame has {len(left)} parts more than tensors.")
    return groups


def spec_entries(specs: Iterable[TensorSpec | Port]) -> list[list[object]]:
    """Return what a header says of tensors or ports: a list of name, data type and shape each."""
    return [[spec.name, spec.datatype.value, list(spec.shape)] for spec in specs]


def _list(value: Value, key: str) -> list[Value]:
    if not isinstance(value, list) or len(value) > MAX_PARTS:
        raise MalformedError(f"The entry {key!r} of a frame is not a list of at most {MAX_PARTS}.")
    return value


def _described(entry: Value) -> tuple[str, DataType, list[Value]]:
    match entry:
        case [str(name), str(datatype), list(shape)]:
            try:
                return name, DataType(datatype), shape
            except ValueError:
                pass
    raise MalformedError("A tensor or port in a frame is not a name, a data type and a shape.")


def _spec(entry: Value) -> TensorSpec:
    name, datatype, shape = _described(entry)
    if not all(type(size) is int for size in shape):
        raise MalformedError("A dimension of a tensor in a frame is not a whole number.")
    return TensorSpec(name, datatype, tuple(cast("list[int]", shape)))


def _port(entry: Value) -> Port:
    name, datatype, shape = _described(entry)
    # The fixed sizes are checked as those of a tensor are, by making one.
    TensorSpec(name, datatype, tuple(size for size in shape if isinstance(size, int)))
    if len(shape) > MAX_RANK or not all(type(size) is int or (isinstance(size, str) and size) for size in shape):
        raise MalformedError("A dimension of a port in a frame is neither a size nor a name.")
    sizes = cast("list[int | str]", shape)
    return Port(name, datatype, tuple(plain(size) if isinstance(size, str) else size for size in sizes))


# -- answers, as the daemon reads them -----------------------------------------------------------------------


Judge: TypeAlias = Callable[[Sequence[Sequence[Tensor]]], str]
"""Says in words what is wrong with the outputs of a canary run, case by case; empty if nothing is."""


def event_of(frame: Frame, judge: Judge | None = None) -> WorkerEvent:
    """Return the event that an answer stands for; not of `ready`, which needs to know the time of the start.

    Args:
        frame: the answer.
        judge: for the answer to a canary run.

    Raises:
        MalformedError: no such answer. A worker that says this is not to be believed in anything.
    """
    header = frame.header
    kind = text_of(header, "say")
    if kind == "done":
        return RunDone(frame.token, tensors_of(frame, "outputs"), frame.run_us)
    if kind == "canary-done" and judge is not None:
        answers = grouped_tensors_of(header, "cases", frame.parts)
        return _canary_done(header, judge(answers), checked=bool(answers))
    if frame.parts:
        raise MalformedError("The worker sent bytes where none belong.")
    if kind == "run-failed":
        blame = text_of(header, "blame")
        if blame not in _BLAMES:
            raise MalformedError("The worker blames nobody known.")
        return RunFailed(frame.token, *_failure(header), cast("Blame", blame))
    if kind == "loaded":
        return _loaded(header)
    if kind == "load-failed":
        return LoadFailed(digest_of(header), *_failure(header))
    if kind == "canary-failed":
        return CanaryFailed(digest_of(header), *_failure(header))
    raise MalformedError("The worker says something unknown.")


def _failure(header: Header) -> tuple[str, str]:
    return text_of(header, "code"), plain(text_of(header, "message"))


def _loaded(header: Header) -> ModelLoaded:
    return ModelLoaded(
        digest=digest_of(header),
        load_ms=integer_of(header, "load_us") / 1e3,
        inputs=tuple(_port(entry) for entry in _list(header.get("inputs"), "inputs")),
        outputs=tuple(_port(entry) for entry in _list(header.get("outputs"), "outputs")),
        memory_bytes=integer_of(header, "memory_bytes"),
    )


def _canary_done(header: Header, why: str, *, checked: bool) -> CanaryDone:
    tried = [_times(entry) for entry in _list(header.get("times"), "times")]
    if not tried:
        raise MalformedError("A canary run has no times.")
    threads, p50_us, p95_us, cpu_us, runs = tried[0]
    load_peak, run_peak = integer_of(header, "load_peak_bytes"), integer_of(header, "run_peak_bytes")
    wrong = why or plain(text_of(header, "not_finite"))
    return CanaryDone(
        digest=digest_of(header),
        p50_us=p50_us,
        p95_us=p95_us,
        runs=runs,
        load_ms=integer_of(header, "load_us") / 1e3,
        peak_bytes=max(load_peak, run_peak),
        golden_ok=not wrong,
        why=wrong,
        threads=threads,
        load_peak_bytes=load_peak,
        steady_bytes=integer_of(header, "steady_bytes"),
        run_peak_bytes=run_peak,
        cpu_us=cpu_us,
        checked=checked,
        tried=tuple((entry[0], entry[1]) for entry in tried),
        lanes=_few(header, "lanes"),
        together=_few(header, "together"),
    )


def _few(header: Header, name: str) -> int:
    count = integer_of(header, name)
    if not 1 <= count <= MAX_THREADS:
        raise MalformedError(f"A canary run's {name} are none.")
    return count


def _times(entry: Value) -> tuple[int, int, int, int, int]:
    match [integer_of({"times": value}, "times") for value in _list(entry, "times")]:
        case [threads, p50_us, p95_us, cpu_us, runs]:
            return threads, p50_us, p95_us, cpu_us, runs
    raise MalformedError("A canary run's times are not five numbers each.")
