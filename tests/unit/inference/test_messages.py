from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import MalformedError, PeerError
from edge_agent.inference import messages
from edge_agent.inference.events import (
    CanaryDone,
    CanaryFailed,
    LoadFailed,
    ModelLoaded,
    Port,
    RunDone,
    RunFailed,
)
from edge_agent.inference.frames import Frame
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

DIGEST = bytes(range(32))
DONE: dict[str, object] = {"say": "done", "outputs": [["y", "INT8", [2]]]}
RUN_FAILED: dict[str, object] = {
    "say": "run-failed",
    "code": "bad-input",
    "message": "wrong",
    "blame": "requester",
}
LOADED: dict[str, object] = {
    "say": "loaded",
    "digest": DIGEST,
    "load_us": 1500,
    "memory_bytes": 4096,
    "inputs": [["x", "FP32", ["n", 3, "?"]]],
    "outputs": [["y", "BYTES", []]],
}
LOAD_FAILED: dict[str, object] = {"say": "load-failed", "digest": DIGEST, "code": "model-load", "message": "no"}
CANARY_DONE: dict[str, object] = {
    "say": "canary-done",
    "digest": DIGEST,
    "load_us": 2500,
    "load_peak_bytes": 1 << 19,
    "steady_bytes": 1 << 18,
    "run_peak_bytes": 1 << 20,
    "lanes": 2,
    "together": 4,
    "times": [[2, 10, 20, 15, 30], [1, 14, 24, 13, 25]],
    "not_finite": "",
    "cases": [[["y", "INT8", [1]]], [["y", "INT8", [2]]]],
}
CANARY_FAILED = {**LOAD_FAILED, "say": "canary-failed"}
ANSWERS = (DONE, RUN_FAILED, LOADED, LOAD_FAILED, CANARY_DONE, CANARY_FAILED)
PARTS = {"done": (b"\x01\x02",), "canary-done": (b"\x01", b"\x02\x03")}


def row(name: str, data: bytes) -> Tensor:
    """Return a row of INT8."""
    return Tensor(TensorSpec(name, DataType.INT8, (len(data),)), data)


def event(header: dict[str, object], *parts: bytes, judged: str | None = "") -> object:
    """Read an answer; a canary run is judged with these words, or None for no judge."""
    frame = Frame(dict(header), parts, token=7, run_us=12)  # type: ignore[arg-type] # some are wrong on purpose
    return messages.event_of(frame, None if judged is None else lambda _: judged)


def test_every_answer_is_read() -> None:
    """Each kind of answer becomes its event, with all that it says."""
    assert event(DONE, b"\x01\x02") == RunDone(7, (row("y", b"\x01\x02"),), 12)
    assert event(RUN_FAILED) == RunFailed(7, "bad-input", "wrong", "requester")
    loaded = ModelLoaded(
        DIGEST,
        1.5,
        (Port("x", DataType.FP32, ("n", 3, "?")),),
        (Port("y", DataType.BYTES, ()),),
        4096,
    )
    assert event(LOADED) == loaded
    assert event(LOAD_FAILED) == LoadFailed(DIGEST, "model-load", "no")
    assert event(CANARY_FAILED) == CanaryFailed(DIGEST, "model-load", "no")


def test_a_canary_run_is_judged_by_its_outputs() -> None:
    """The judge sees the outputs case by case, and its words decide."""
    seen = []

    def judge(answers: object) -> str:
        seen.append(answers)
        return "case 2: wrong"

    frame = Frame(dict(CANARY_DONE), PARTS["canary-done"])  # type: ignore[arg-type] # a dict of plain values
    done = messages.event_of(frame, judge)
    assert seen == [[(row("y", b"\x01"),), (row("y", b"\x02\x03"),)]]
    assert done == CanaryDone(
        DIGEST,
        10,
        20,
        30,
        2.5,
        1 << 20,
        golden_ok=False,
        why="case 2: wrong",
        threads=2,
        load_peak_bytes=1 << 19,
        steady_bytes=1 << 18,
        run_peak_bytes=1 << 20,
        lanes=2,
        together=4,
        cpu_us=15,
        tried=((2, 10), (1, 14)),
    )


def test_a_canary_run_without_known_answers_is_unchecked_and_has_to_be_finite() -> None:
    """It only shows that the model runs, and that what comes out are numbers."""
    header = {**CANARY_DONE, "cases": []}
    done = event(header)
    assert isinstance(done, CanaryDone)
    assert (done.golden_ok, done.checked) == (True, False)
    done = event({**header, "not_finite": "the output 'y' has infinities"})
    assert isinstance(done, CanaryDone)
    assert (done.golden_ok, done.why) == (False, "the output 'y' has infinities")


def test_a_canary_run_that_nobody_judges_is_refused() -> None:
    """An answer to a canary run that was not asked for is no answer."""
    with pytest.raises(MalformedError):
        event(CANARY_DONE, *PARTS["canary-done"], judged=None)


WRONG: list[object] = [None, True, -1, 2**63, "x" * 3000, b"short", 1.5, [], [[]], [["y", "FP99", [1]]], {}]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: str(answer["say"]))
def test_every_field_is_checked(answer: dict[str, object]) -> None:
    """Any field that is missing, or of another type or range, makes the answer malformed."""
    parts = PARTS.get(str(answer["say"]), ())
    event(answer, *parts)
    for key in answer:
        with pytest.raises(PeerError):
            event({name: value for name, value in answer.items() if name != key}, *parts)
        for wrong in WRONG:
            # A short text is a message, an empty list is a model without inputs or outputs; nothing else
            # passes.
            if wrong == [] and answer is LOADED and key in ("inputs", "outputs"):
                continue
            with pytest.raises(PeerError):
                event({**answer, key: wrong}, *parts)


@pytest.mark.parametrize(
    ("header", "parts"),
    [
        (DONE, (b"\x01",)),
        (DONE, ()),
        (DONE, (b"\x01\x02", b"")),
        (LOADED, (b"\x01",)),
        (RUN_FAILED, (b"\x01",)),
        (CANARY_DONE, (b"\x01", b"\x02\x03", b"\x04")),
        (CANARY_DONE, (b"\x01",)),
        ({**DONE, "outputs": [["y", "INT8", ["n"]]]}, (b"\x01",)),
        ({**DONE, "outputs": [["y", "INT8", [-1]]]}, (b"\x01",)),
        ({**LOADED, "inputs": [["x", "FP32", [""]]]}, ()),
        ({**LOADED, "inputs": [["x", "FP32", [-1]]]}, ()),
        ({**LOADED, "inputs": [["x", "FP32", ["n"] * 33]]}, ()),
        ({**LOADED, "inputs": [["\x1b", "FP32", []]]}, ()),
        ({**LOADED, "say": "hello"}, ()),
    ],
)
def test_parts_and_tensors_must_agree(header: dict[str, object], parts: tuple[bytes, ...]) -> None:
    """Bytes too many or too few, tensors without sizes, and unknown answers are refused."""
    with pytest.raises(PeerError):
        event(header, *parts)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5) | st.binary(max_size=33),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)


@given(
    say=st.sampled_from([str(answer["say"]) for answer in ANSWERS]),
    fields=st.dictionaries(st.sampled_from(sorted({key for answer in ANSWERS for key in answer})), values),
    parts=st.lists(st.binary(max_size=4), max_size=3),
)
def test_nothing_a_worker_says_breaks_the_reader(say: str, fields: dict[str, object], parts: list[bytes]) -> None:
    """Whatever values a hijacked worker puts into its answers, they are an event or a peer's error."""
    with contextlib.suppress(PeerError):
        event({**fields, "say": say}, *parts)


def test_texts_of_a_worker_are_made_harmless() -> None:
    """Terminal codes, line breaks and length are taken out of what ends in logs and messages."""
    failed = event({**LOAD_FAILED, "message": "\x1b[31mred\n\u202eevil\x00 " + "x" * 1900})
    assert isinstance(failed, LoadFailed)
    assert failed.message.startswith("[31mred evil x")
    assert messages.plain("a" * 5000, 100) == "a" * 99 + "…"


def test_the_cases_of_a_canary_command() -> None:
    """Inputs and wanted outputs are read case by case; lists that do not match are refused, none is made up for."""
    cases = [[["x", "INT8", [1]]], [["x", "INT8", [1]], ["z", "INT8", [1]]]]
    parts = [b"\x01", b"\x02", b"\x03"]
    found = messages.cases_of({"cases": cases, "wanted": [["y"], []]}, parts)
    assert found == [
        messages.Case((row("x", b"\x01"),), ("y",)),
        messages.Case((row("x", b"\x02"), row("z", b"\x03")), ()),
    ]
    assert messages.cases_of({"cases": [], "wanted": []}, []) == []
    for header in ({"cases": cases, "wanted": [["y"]]}, {"cases": [], "wanted": [[]]}, {"cases": cases}):
        with pytest.raises(MalformedError):
            messages.cases_of(header, parts)  # type: ignore[arg-type] # wrong on purpose


@pytest.mark.parametrize("wrong", [None, [], [0], [1, -1], [True], ["1"], [2000], [[1]]], ids=str)
def test_the_threads_of_a_canary_command_are_whole_numbers_from_1(wrong: object) -> None:
    """A worker that was to start a million threads would end the machine."""
    assert messages.counts_of({"threads": [2, 1]}, "threads") == (2, 1)
    with pytest.raises(MalformedError):
        messages.counts_of({"threads": wrong}, "threads")  # type: ignore[dict-item] # wrong on purpose


@pytest.mark.parametrize("wrong", [None, {}, [["N"]], [["N", -1]], [["N", True]], [[1, 1]], ["N"]], ids=str)
def test_the_extents_of_a_canary_command_are_names_and_sizes(wrong: object) -> None:
    """What the shapes of made-up inputs are made of."""
    assert messages.extents_of({"extents": [["N", 4], ["length", 128]]}) == {"N": 4, "length": 128}
    with pytest.raises(MalformedError):
        messages.extents_of({"extents": wrong})  # type: ignore[dict-item] # wrong on purpose
