"""Models made to do harm, as real bytes, given to real workers: refused where the file shows it, else contained.

Each time it is also shown what must not have changed: the worker that refused one runs the next honest model, and what
came of a hostile one is remembered.
"""

from __future__ import annotations

import hashlib
import logging
import platform
import queue
import struct
from collections.abc import Iterator
from pathlib import Path

import onnx_models
import pytest
from repositories import DIGITS

from edge_agent.inference import picking
from edge_agent.inference.events import LoadFailed, ModelLoaded, RunDone, RunFailed, WorkerEvent, WorkerStarted
from edge_agent.inference.handle import Worker
from edge_agent.models.catalogue import Family
from edge_agent.models.experience import Experience, Place, parse
from edge_agent.models.fit import MachineFacts
from edge_agent.models.store import Store
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

LOG = logging.getLogger("test.hostile")
WAIT_SECONDS = 60
MIB = 1 << 20
LIMIT_BYTES = 256 * MIB
HOSTILE, HONEST = bytes([6]) * 32, bytes([7]) * 32
ROW = Tensor(TensorSpec("in0", DataType.FP32, (1,)), struct.pack("<f", 1.5))
TERABYTES = 2**40


class Watched:
    """A worker, and what it says."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[WorkerEvent] = queue.SimpleQueue()
        self._worker = Worker(self._events.put, threads=1, memory_limit_bytes=LIMIT_BYTES, log=LOG)
        self._worker.start()
        assert isinstance(self.next(), WorkerStarted)
        self._pid = self._worker.pid

    def next(self) -> WorkerEvent:
        """Return what it says next."""
        return self._events.get(timeout=WAIT_SECONDS)

    def loads(self, content: bytes, digest: bytes = HOSTILE) -> WorkerEvent:
        """Have it load a model."""
        self._worker.load(digest, onnx_models.file_of(content))
        return self.next()

    def runs(self, tensor: Tensor, digest: bytes = HOSTILE, most: int = MIB) -> WorkerEvent:
        """Have it run a model."""
        self._worker.run(1, digest, [tensor], (), most)
        return self.next()

    def works(self) -> None:
        """It is the process that it was, and runs an honest model."""
        assert self._worker.pid == self._pid
        assert isinstance(self.loads(onnx_models.doubling(), HONEST), ModelLoaded)
        done = self.runs(ROW, HONEST)
        assert isinstance(done, RunDone)
        assert done.outputs[0].data == struct.pack("<f", 3.0)

    def stop(self) -> None:
        """End it."""
        self._worker.stop(0)


@pytest.fixture(scope="module")
def shared() -> Iterator[Watched]:
    """One worker for all that is refused: none of it may do anything to it."""
    watched = Watched()
    yield watched
    watched.stop()


@pytest.fixture
def watched(shared: Watched) -> Iterator[Watched]:
    """That worker, which has to be as it was after each test."""
    yield shared
    shared.works()


def refused(watched: Watched, content: bytes, words: str) -> None:
    """The model is refused before onnxruntime sees it, for this reason."""
    failed = watched.loads(content)
    assert isinstance(failed, LoadFailed), failed
    assert (failed.digest, failed.code) == (HOSTILE, "model-load")
    assert words in failed.message


# -- refused: the file shows it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "location", ["../../etc/passwd", "../" * 40 + "etc/passwd", "/etc/passwd", "file:///etc/passwd", "weights.bin", ""]
)
def test_external_data_outside_its_folder(watched: Watched, location: str) -> None:
    """Whatever the path, inside the folder too: a digest of the model's file does not cover it."""
    refused(watched, onnx_models.external(location), "outside its own file")


def test_external_data_behind_a_symbolic_link(watched: Watched, tmp_path: Path) -> None:
    """The name of a link beside the model, which leads to another folder."""
    (tmp_path / "link").symlink_to("/etc/passwd")
    refused(watched, onnx_models.external(str(tmp_path / "link")), "outside its own file")
    refused(watched, onnx_models.external("link"), "outside its own file")


@pytest.mark.parametrize("domain", ["evil", "ai.onnx.evil", "com.microsoft.evil", "\x1b[2J"])
def test_custom_operators_of_a_domain_that_nothing_has(watched: Watched, domain: str) -> None:
    """Named in the reason, without what a terminal would obey."""
    refused(watched, onnx_models.foreign(domain), "needs operators of ")
    failed = watched.loads(onnx_models.foreign(domain))
    assert isinstance(failed, LoadFailed)
    assert "\x1b" not in failed.message


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("dims", [[TERABYTES], [2**20, 2**20], [2**62, 2**62], [2] * 50], ids=str)
def test_a_constant_of_terabytes(watched: Watched, dims: list[int], *, sparse: bool) -> None:
    """It has four bytes in the file."""
    refused(watched, onnx_models.claiming(dims, sparse=sparse), "claims far more elements")


def test_a_million_nodes(watched: Watched) -> None:
    """Twenty megabytes of them, counted no further than allowed."""
    refused(watched, onnx_models.many_nodes(1_000_000), "more than 100000 nodes")


def test_ifs_nested_a_thousand_deep(watched: Watched) -> None:
    """Loading such a model takes a time that doubles with each level."""
    refused(watched, onnx_models.nested_ifs(1_000), "nests graphs deeper than 16 levels")
    assert isinstance(watched.loads(onnx_models.nested_ifs(3)), ModelLoaded)  # it is the depth that is refused


# -- contained: only running shows it -----------------------------------------------------------------------------


def test_a_model_that_allocates_100_gigabytes(watched: Watched) -> None:
    """The allocation fails where it is made; the worker does not even end."""
    loaded = watched.loads(onnx_models.hoarding(25_000_000_000))
    failed = watched.runs(ROW) if isinstance(loaded, ModelLoaded) else loaded
    assert isinstance(failed, (LoadFailed, RunFailed)), failed
    assert failed.code == "resource-exhausted"


def test_outputs_above_max_output_bytes(watched: Watched) -> None:
    """They are not sent: the answer is a refusal, blamed on who asked for them."""
    assert isinstance(watched.loads(onnx_models.growing()), ModelLoaded)
    asked = Tensor(TensorSpec("in0", DataType.INT64, (1,)), struct.pack("<q", MIB))
    failed = watched.runs(asked, most=4 * MIB - 1)
    assert isinstance(failed, RunFailed)
    assert (failed.code, failed.blame) == ("too-large", "requester")
    assert isinstance(watched.runs(asked, most=4 * MIB), RunDone)


# -- remembered ---------------------------------------------------------------------------------------------------

HOSTILES = {
    "loops for ever": (onnx_models.endless, "did not end its canary run within 4 s"),
    "allocates 100 GB": (lambda: onnx_models.hoarding(25_000_000_000), "not enough memory"),
    "points at /etc/passwd": (lambda: onnx_models.external("../../etc/passwd"), "outside its own file"),
    "is nested": (lambda: onnx_models.nested_ifs(1_000), "deeper than"),
    "claims terabytes": (lambda: onnx_models.claiming([TERABYTES]), "claims far more"),
    "has custom operators": (lambda: onnx_models.foreign("evil"), "needs operators of 'evil'"),
}
if platform.machine() == "x86_64":  # elsewhere this division has a result
    HOSTILES["crashes onnxruntime"] = (onnx_models.crashing, "crashed (SIGFPE)")


def of_strangers(folder: Path, models: dict[str, bytes]) -> Family:
    """Return a family with these models as its variants, whose files lie in a folder."""
    variants = []
    for number, content in enumerate(models.values()):
        (folder / f"{number}.onnx").write_bytes(content)
        update = {
            "name": f"v{number}",
            "file": f"{number}.onnx",
            "digest": hashlib.sha256(content).hexdigest(),
            "size_bytes": len(content),
            "golden": None,
            "costs": None,
            "quality": None,
        }
        variants.append(DIGITS.variants[0].model_copy(update=update))
    return DIGITS.model_copy(update={"name": "strangers", "variants": tuple(variants)})


def test_what_hostile_models_did_is_remembered(tmp_path: Path) -> None:
    """Each costs its own canary runs; the honest one among them is served; the next time none of them is run."""
    contents = {"honest": onnx_models.doubling()} | {name: build() for name, (build, _) in HOSTILES.items()}
    family = of_strangers(tmp_path, contents)
    experience = Experience()
    place = Place("onnxruntime 1.32.0", "6.12.1", "", LIMIT_BYTES)
    limits = picking.Limits(LIMIT_BYTES, 1, max_runs=None, seconds=0.01, limit_seconds=4.0)

    def pick(known: Experience) -> picking.Picked:
        past = picking.Past(known, place, 1_000_000)
        return picking.pick(family, Store((tmp_path,)), MachineFacts(cpus=1.0), limits, past=past, log=LOG)

    found = pick(experience)
    assert found.choice.chosen is not None
    assert found.choice.chosen.variant == family.variants[0]
    reasons = {lost.variant.name: lost.reason for lost in found.choice.lost}
    for number, (name, (_, words)) in enumerate(HOSTILES.items(), 1):
        assert words in reasons[f"v{number}"], name

    again = pick(parse(experience.document().encode()))  # as after a restart
    assert again.runs == 0
    assert again.choice.chosen == found.choice.chosen
    reasons = {lost.variant.name: lost.reason for lost in again.choice.lost}
    for number, (name, (_, words)) in enumerate(HOSTILES.items(), 1):
        assert "it failed here before" in reasons[f"v{number}"], name
        assert words in reasons[f"v{number}"], name
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"{number}.onnx" for number in range(len(contents))
    )
