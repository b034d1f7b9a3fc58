"""Between the serving worker and the optimised copies of its models: which file it loads, and when a copy goes.

Reads, hashes and writes files, so it is asked in the agent's loop alone, and not on the threads that hear the worker.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from edge_agent.agent.events import LoadModel, MakeCopy
from edge_agent.errors import ResourceError
from edge_agent.inference import containment
from edge_agent.inference.events import (
    CopyMade,
    CopyWanted,
    LoadFailed,
    ModelLoaded,
    RunDone,
    RunFailed,
    WorkerDied,
    WorkerEvent,
    WorkerStarted,
)
from edge_agent.inference.installed import runtime_name
from edge_agent.inference.launch import Options
from edge_agent.inference.optimising import CALLED_OFF, Failed, Optimising, Request, judge
from edge_agent.models.optimised import OptimisedFiles, Scratch
from edge_agent.models.store import Store

log = logging.getLogger("edge_agent.optimised")


@dataclass(slots=True)
class Given:
    """A copy that the worker was given.

    Attributes:
        command: what it was given for.
        has_run: whether a run of it had outputs.
    """

    command: LoadModel
    has_run: bool = False


class Copies:
    """The copies that the serving worker was given, and what it was asked and has not answered.

    What a worker dies of is held against a copy only if the worker was loading it, or running it for the first time.

    Args:
        files: the copies of this machine; None if none are kept.
        store: the models themselves.
        load: has the worker load a model again, when its copy was of no use.
    """

    def __init__(self, files: OptimisedFiles | None, store: Store, load: Callable[[LoadModel], None]) -> None:
        if files is not None and (why := containment.no_copies()):
            log.info("No optimised copies of models are made here: %s", why, extra={"action": "optimised-off"})
            files = None
        self._files = files
        self._store = store
        self._load = load
        self._runtime = runtime_name()
        self._pid: int | None = None  # of the worker that all this is about
        self._given: dict[bytes, Given] = {}  # by model
        self._owed: dict[bytes | int, bytes] = {}  # loads by model, and runs by token, in their order: the model
        self._plainly: set[bytes] = set()  # that are to be loaded from their own file the next time

    def open(self, command: LoadModel) -> tuple[int, str]:
        """Return a descriptor of what is to be loaded, and if it is a copy, how, as `Worker.load` has it.

        Raises:
            StateError, DigestMismatchError: as `Store.open_variant`.
        """
        variant = command.variant
        self._given.pop(variant.digest_bytes, None)
        plainly = variant.digest_bytes in self._plainly
        self._plainly.discard(variant.digest_bytes)
        if self._files is not None and not plainly and self._store.has(variant):
            copy = self._files.open(variant.digest)
            if copy is not None:
                self._store.touch(variant)
                return copy[0], "in-place" if copy[1] else "copied"
        return self._store.open_variant(variant), ""

    def loads(self, command: LoadModel, pid: int | None, optimised: str) -> None:
        """Take note that the worker was asked to load what `open` returned; `pid` is None if it has died."""
        digest = command.variant.digest_bytes
        if pid is not None:
            self._pid = pid
            self._owed[digest] = digest
            if optimised:
                self._given[digest] = Given(command)

    def runs(self, runs: Iterable[tuple[int, bytes]], pid: int | None) -> None:
        """Take note of the runs that this worker was asked for: the token and the model of each."""
        if self._files is not None and pid is not None and pid == self._pid:
            self._owed.update(runs)

    def has_run(self, tokens: Iterable[int]) -> None:
        """Take note of runs that had outputs."""
        for token in tokens:
            if (given := self._given.get(self._owed.pop(token, b""))) is not None:
                given.has_run = True

    def heard(self, event: WorkerEvent) -> Sequence[WorkerEvent]:
        """Return what is to be told of what the worker said."""
        if isinstance(event, ModelLoaded | LoadFailed):
            self._owed.pop(event.digest, None)
        if self._files is None:
            return (event,)
        match event:
            case RunDone():
                self.has_run((event.token,))
            case RunFailed():
                self._owed.pop(event.token, None)
            case WorkerStarted() if event.runtime != self._runtime:
                # Installed anew beneath us; copies are made again by the agent's next start.
                self._files = None
            case ModelLoaded() if event.digest not in self._given and self._files.wants(event.digest.hex()):
                return (event, CopyWanted(event.digest))
            case LoadFailed() if (given := self._given.pop(event.digest, None)) is not None:
                if event.code == ResourceError.code:
                    # Says nothing against the copy: the next time there may be memory for it.
                    self._plainly.add(event.digest)
                else:
                    self._refuse(event.digest, f"it cannot be loaded: {event.message}")
                self._load(given.command)
                return ()
            case WorkerDied() if event.pid == self._pid:
                self._died(event.message)
        return (event,)

    def _died(self, message: str) -> None:
        """Hold a death against the copy that the worker was at, if it had not yet run, and against no other."""
        at, digest = next(iter(self._owed.items()), (0, b""))
        given = self._given.get(digest)
        self._owed.clear()
        self._given.clear()
        if given is None:
            return
        if given.has_run:  # it may be the inputs, the model, or a disk that fails: the model itself is tried next
            self._plainly.add(digest)
        else:
            what = "ran it for the first time" if isinstance(at, int) else "loaded it"
            self._refuse(digest, f"the worker ended when it {what}: {message}")

    def forget(self) -> None:
        """The worker was stopped: what it was given says nothing any more."""
        self._owed.clear()
        self._given.clear()
        self._plainly.clear()

    def making(self, command: MakeCopy, options: Options) -> Making:
        """Return what makes a copy.

        Raises:
            ResourceError: there is no room for one.
            StateError, DigestMismatchError: as `Store.open_variant` and `Store.golden_file`.
        """
        variant = command.variant
        golden = b"" if variant.golden is None else self._store.golden_file(variant)
        scratch = None if self._files is None else self._files.scratch(variant.size_bytes)
        if scratch is None or self._files is None:
            raise ResourceError("There is no room on the disk for an optimised copy.", code="disk-full")
        try:
            model = self._store.open_variant(variant)
        except BaseException:
            self._files.discard(scratch)
            scratch.close()
            raise
        return Making(variant.digest, Request(model, scratch, golden, command.family.extents), options, self._files)

    def _refuse(self, digest: bytes, why: str) -> None:
        if self._files is not None:
            text = "The optimised copy of model %s is not used any more: %s"
            log.warning(text, digest.hex()[:12], why, extra={"action": "optimised-refused"})
            self._files.refuse(digest.hex(), why)


class Making:
    """One copy that is made, judged, and kept or not; takes the place of a canary run.

    Args:
        variant: the digest.
        request: what is asked of the process.
        options: how workers are started.
        files: where it is kept.
    """

    def __init__(self, variant: str, request: Request, options: Options, files: OptimisedFiles) -> None:
        self._variant = variant
        self._scratch: Scratch = request.scratch
        self._optimising = Optimising(request, options)
        self._files = files

    def run(self) -> CopyMade | None:
        """Make it, and say what came of it; nothing if it was called off."""
        try:
            report = self._optimising.run()
            if report == CALLED_OFF:
                return None
            judged = report if isinstance(report, Failed) else judge(report)
            why = ""
            fields = {"action": "optimised", "digest": self._variant}
            if isinstance(judged, Failed):
                why = judged.why
                passing = judged.passing or (judged is report and self._files.is_cramped(self._scratch))
                hours = self._files.refuse(self._variant, why, passing=passing) / 3600
                text = "No optimised copy of model %s, nor another try within %.3g h: %s"
                log.info(text, self._variant[:12], hours, why, extra=fields)
            elif not self._files.keep(self._variant, self._scratch, in_place=judged.in_place):
                why = "it cannot be kept"
            else:
                log.info("Made an optimised copy of model %s: %s", self._variant[:12], judged.text, extra=fields)
            return CopyMade(bytes.fromhex(self._variant), why)
        finally:
            self._files.discard(self._scratch)
            self._scratch.close()

    def cancel(self) -> None:
        """Call it off."""
        self._optimising.cancel()
