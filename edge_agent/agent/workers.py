"""The agent's worker processes: the one that serves, and those that measure; does what the core wants of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from edge_agent.agent.copies import Copies
from edge_agent.agent.events import (
    CancelCanary,
    LoadModel,
    MakeCopy,
    RunCanary,
    RunModel,
    StartWorker,
    StopWorker,
    UnloadModel,
    UseThreads,
)
from edge_agent.agent.unsealing import Unsealing
from edge_agent.errors import EdgeAgentError, PeerError, UsageError
from edge_agent.inference import bounds, control_group
from edge_agent.inference.canary_run import Canaries
from edge_agent.inference.containment import Containment
from edge_agent.inference.events import (
    CanaryFailed,
    CopyMade,
    LoadFailed,
    RunDone,
    RunFailed,
    WorkerDied,
    WorkerEvent,
)
from edge_agent.inference.handle import Request, Worker
from edge_agent.inference.launch import Options
from edge_agent.inference.measurements import request
from edge_agent.models.optimised import OptimisedFiles
from edge_agent.models.store import Store

STOP_SECONDS = 2.0
NO_PID = -1

WorkerCommand = (
    StartWorker | StopWorker | UseThreads | RunModel | RunCanary | MakeCopy | CancelCanary | LoadModel | UnloadModel
)

log = logging.getLogger("edge_agent.agent")


class Workers:
    """Starts and ends workers, and gives them work; what fails is put as the event that says so.

    Args:
        put: gets the events.
        store: where the models are.
        threads: for one inference.
        memory_limit_bytes: what the serving worker's models may take together.
        unsealing: opens sealed inputs for the worker, and seals what it answers.
        files: optimised copies of models; None if none are kept.
    """

    def __init__(  # noqa: PLR0913, PLR0917 each is a seam
        self,
        put: Callable[[WorkerEvent], None],
        store: Store,
        threads: int,
        memory_limit_bytes: int,
        unsealing: Unsealing,
        files: OptimisedFiles | None = None,
    ) -> None:
        self._put = put
        self._unsealing = unsealing
        self._store = store
        self._threads = threads
        self._cpus: float | None = None
        self._delegated, self._why_not = control_group.enter()
        self._copies = Copies(files, store, self._load)
        self._worker = Worker(
            self._heard,
            threads=threads,
            memory_limit_bytes=memory_limit_bytes,
            readable=store.readable,
            delegated=self._delegated,
            log=logging.getLogger("edge_agent.worker"),
        )
        self._runs: list[RunModel] = []
        self._canaries = Canaries(put, logging.getLogger("edge_agent.canary"))

    def _heard(self, event: WorkerEvent) -> None:
        self._put(self._unsealing.closed(event))

    def heard(self, event: WorkerEvent) -> Sequence[WorkerEvent]:
        """Take an event out of the queue; return what the core is to be told. To be called in the agent's loop."""
        return self._copies.heard(event)

    def has_run(self, events: Iterable[object]) -> None:
        """Take note of the runs among these events that have their outputs, as `heard` does of one."""
        self._copies.has_run(event.token for event in events if isinstance(event, RunDone))

    @property
    def pid(self) -> int | None:
        """The serving worker's process, if it runs."""
        return self._worker.pid

    @property
    def containment(self) -> Containment | None:
        """What holds the serving worker, as far as it has said."""
        return self._worker.containment

    @property
    def bounds(self) -> dict[str, str | float | None]:
        """What bounds the workers from outside, for a status file: a control group, else a watcher, and then why.

        `cpus` is how many the kernel lets them keep busy, None for no limit.
        """
        if self._delegated is not None:
            return {"by": bounds.GROUP, "why": None, "cpus": self._cpus if self._delegated.caps_cpu else None}
        return {"by": bounds.WATCHER, "why": self._why_not, "cpus": None}

    @property
    def owes_since(self) -> float | None:
        """The monotonic second since which the end of the serving worker is due; None if it is not."""
        return self._worker.owes_since

    def do(self, command: WorkerCommand) -> None:
        """Do what the core wants; runs are gathered until the next command of another kind, or `flush`."""
        if isinstance(command, RunModel):
            self._runs.append(command)
            return
        self.flush()
        match command:
            case StartWorker():
                self._start(command.limit_bytes)
            case UseThreads():
                self._threads, self._cpus = command.threads, command.cpus
            case StopWorker():
                if command.hung:
                    self._worker.kill("hung")
                else:
                    self._stop(0.0 if command.at_once else STOP_SECONDS)
            case RunCanary() | MakeCopy():
                self._measure(command)
            case CancelCanary():
                self._canaries.cancel()
            case LoadModel():
                self._load(command)
            case UnloadModel():
                self._unload(command.variant)

    def end(self) -> None:
        """End all of them."""
        self._canaries.cancel()
        self._stop(STOP_SECONDS)

    def _stop(self, seconds: float) -> None:
        self._worker.stop(seconds)
        self._copies.forget()
        self._unsealing.forget()  # what it had not answered ends without an event

    def _start(self, limit_bytes: int | None) -> None:
        try:
            self._worker.start(limit_bytes, self._threads, self._cpus)
        except EdgeAgentError as error:  # the planner tries again, later and later
            self._put(WorkerDied(NO_PID, "worker-died", error.message, ()))

    def flush(self) -> None:
        """Give the serving worker the runs that were gathered, together, so that it is woken once."""
        if not self._runs:
            return
        commands, self._runs = self._runs, []
        requests = []
        for command in commands:
            try:
                run = self._unsealing.opened(command)
            except (PeerError, UsageError) as error:
                self._put(RunFailed(command.token, error.error_code, error.message, "requester"))
                continue
            requests.append(Request(run.token, run.variant, run.inputs, run.outputs, run.max_output_bytes))
        problem: EdgeAgentError | None = None
        try:
            refused = self._worker.run_all(requests)
        except EdgeAgentError as error:
            refused, problem = requests, error
        left_out = {left.token for left in refused}
        taken = ((each.token, each.digest) for each in requests if each.token not in left_out)
        self._copies.runs(taken, self._worker.pid)
        for left in refused:
            why = problem or self._worker.full()
            self._put(self._unsealing.closed(RunFailed(left.token, why.error_code, why.message, "agent")))

    def _measure(self, command: RunCanary | MakeCopy) -> None:
        if isinstance(command, MakeCopy):
            self._copy(command)
            return
        variant = command.variant
        try:
            asked = request(command.family, variant, self._store, self._threads)
        except EdgeAgentError as error:
            self._put(CanaryFailed(variant.digest_bytes, error.error_code, error.message))
        else:
            self._canaries.start(asked, self._limits(command))

    def _copy(self, command: MakeCopy) -> None:
        try:
            self._canaries.begin(self._copies.making(command, self._limits(command)))
        except EdgeAgentError as error:
            self._put(CopyMade(command.variant.digest_bytes, error.message))

    def _limits(self, command: RunCanary | MakeCopy) -> Options:
        return Options(self._threads, command.limit_bytes, self._store.readable, self._delegated, self._cpus)

    def _load(self, command: LoadModel) -> None:
        digest = command.variant.digest_bytes
        try:
            fd, optimised = self._copies.open(command)
            ways = {"lanes": command.lanes, "together": command.together}
            self._worker.load(digest, fd, command.threads, optimised=optimised, **ways)
            self._copies.loads(command, self._worker.pid, optimised)
        except EdgeAgentError as error:
            self._put(LoadFailed(digest, error.error_code, error.message))

    def _unload(self, variant: bytes) -> None:
        try:
            self._worker.unload(variant)
        except EdgeAgentError as error:  # it holds the memory until it sleeps or ends
            log.warning("Could not unload a model: %s", error.message, extra={"action": "unload"})
