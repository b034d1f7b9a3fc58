"""What the agent's core is told, and what it wants done: plain values, no behaviour.

What the worker reports are the events of `edge_agent.inference.events`.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.agent.own_copy import Entry
from edge_agent.inference.events import WorkerEvent
from edge_agent.models.catalogue import Catalogue, Family, Variant
from edge_agent.models.fit import MachineFacts
from edge_agent.notes import Note
from edge_agent.wire.identity import Enrolled
from edge_agent.wire.tensors import Tensor
from edge_agent.wire.terms import Terms

# -- events -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LinkUp:
    """The broker is connected and our topics are subscribed.

    Attributes:
        session: of this connection; larger than any before, and the one that its will carries.
        max_message_bytes: the largest message that the broker takes; None where that is not known.
    """

    session: int
    max_message_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The broker is not reachable."""

    reason: str


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """Foreign bytes from the broker."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class JobTurnedAway:
    """Foreign bytes on our topic for jobs, for which the inbox had no room: only the signed part was kept."""

    topic: str
    signed: bytes


@dataclass(frozen=True, slots=True)
class Spooled:
    """An answer as the disk had it; nothing about it has been checked.

    Attributes:
        age_seconds: how long it has been kept while an agent ran.
    """

    job: bytes
    epoch: int
    payload: bytes
    age_seconds: float


@dataclass(frozen=True, slots=True)
class SpoolLoaded:
    """What an earlier process of this agent left on disk, oldest first. To be told before the first `LinkUp`."""

    answers: tuple[Spooled, ...]


@dataclass(frozen=True, slots=True)
class SpoolFailed:
    """The disk does not take answers now; these are not on it.

    Attributes:
        keys: (job, epoch) of each.
        reason: a sentence for people.
    """

    keys: tuple[tuple[bytes, int], ...]
    reason: str


@dataclass(frozen=True, slots=True)
class PlanRequested:
    """The machine is profiled: choose what to offer."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Stop cleanly within this many seconds."""

    within_seconds: float


@dataclass(frozen=True, slots=True)
class RestRequested:
    """The owner's rules want the machine to rest: offer nothing, leave what is held, and free the memory.

    Attributes:
        why: in words.
        within_seconds: running attempts may take so long to finish, and the others are handed back at once; None lets
            everything that is held finish.
    """

    why: str
    within_seconds: float | None


@dataclass(frozen=True, slots=True)
class WorkRequested:
    """The owner's rules let the machine work again."""


@dataclass(frozen=True, slots=True)
class TermsChanged:
    """The owner's rules on whose jobs are taken are others now.

    Attributes:
        terms: None where every job is as good as any other.
        text: for whom the machine works, to follow "working".
    """

    terms: Terms | None
    text: str


@dataclass(frozen=True, slots=True)
class PaceChanged:
    """The worker is to compute with so many threads, and to keep so many CPUs busy; None for as many as it can."""

    threads: int
    cpus: float | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: `next_deadline` is reached."""


@dataclass(frozen=True, slots=True)
class CatalogueChanged:
    """There is another catalogue, or other files of models lie here now: consider it."""

    catalogue: Catalogue


@dataclass(frozen=True, slots=True)
class MachineMeasured:
    """How fast the machine is, for predictions from now on."""

    facts: MachineFacts


@dataclass(frozen=True, slots=True)
class ConditionsChanged:
    """The machine was looked at again.

    Attributes:
        budget_bytes: memory that is free for models, what the worker has included.
        conditions: what a speed depends on; compared, not read.
    """

    budget_bytes: int
    conditions: str


Event = (
    LinkUp
    | LinkDown
    | MessageReceived
    | JobTurnedAway
    | SpoolLoaded
    | SpoolFailed
    | PlanRequested
    | CatalogueChanged
    | MachineMeasured
    | ConditionsChanged
    | StopRequested
    | RestRequested
    | WorkRequested
    | PaceChanged
    | TermsChanged
    | Tick
    | WorkerEvent
)

# -- commands -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Publish:
    """Send these bytes, if the link is up; what matters is sent again by the core's own rules."""

    topic: str
    payload: bytes
    retain: bool = False


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Start the worker process; its models may take so much memory together, above an idle worker."""

    threads: int
    limit_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class UseThreads:
    """Workers that are started from now on compute with so many threads, and keep at most so many CPUs busy."""

    threads: int
    cpus: float | None = None


@dataclass(frozen=True, slots=True)
class StopWorker:
    """End the worker process.

    Attributes:
        hung: it does not answer.
        at_once: whatever it computes is not waited for.
    """

    hung: bool = False
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class RunCanary:
    """Measure a variant of a family in a worker of its own, which may take so much memory above an idle one."""

    variant: Variant
    family: Family
    limit_bytes: int


@dataclass(frozen=True, slots=True)
class MakeCopy:
    """Make an optimised copy of a variant of a family, in a process of its own with so much memory above an idle one.

    It takes the place of a canary run.
    """

    variant: Variant
    family: Family
    limit_bytes: int


@dataclass(frozen=True, slots=True)
class CancelCanary:
    """Call the canary run off, or the copy, that goes on; its outcome, if it still comes, is ignored."""


@dataclass(frozen=True, slots=True)
class LoadModel:
    """Load a variant in the worker.

    Attributes:
        threads: the best number for it, 0 the worker's own.
        lanes: how many runs of it are computed side by side.
        together: how many waiting runs of it are made one.
    """

    variant: Variant
    threads: int = 0
    lanes: int = 1
    together: int = 1


@dataclass(frozen=True, slots=True)
class UnloadModel:
    """Forget a variant in the worker, and give its memory back."""

    variant: bytes


@dataclass(frozen=True, slots=True)
class Wanted:
    """A variant whose files are to be fetched: the names of the family and the variant, and its digest."""

    family: str
    variant: str
    digest: str


@dataclass(frozen=True, slots=True)
class FetchModels:
    """Fetch these files, the most wanted first, and nothing else; what comes of it is told by `CatalogueChanged`."""

    wanted: tuple[Wanted, ...]


@dataclass(frozen=True, slots=True)
class SaveExperience:
    """Write what was learnt about variants to disk; when that fails, it is learnt again at the next start."""

    document: str


@dataclass(frozen=True, slots=True)
class KeepCertificates:
    """Write these certificates to the state directory, for the next start and the next connection."""

    said: Enrolled


@dataclass(frozen=True, slots=True)
class RunModel:
    """Run a loaded variant.

    Attributes:
        token: names this run in the worker's answer.
        outputs: wanted, empty for all.
    """

    token: int
    variant: bytes
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]
    max_output_bytes: int


@dataclass(frozen=True, slots=True)
class SpoolResult:
    """Keep an answer on disk until it is forgotten. `SpoolFailed` follows if that cannot be done."""

    job: bytes
    epoch: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class ForgetSpooled:
    """These answers, (job, epoch) each, are no longer needed on disk."""

    keys: tuple[tuple[bytes, int], ...]


@dataclass(frozen=True, slots=True)
class CountAccepted:
    """The coordinator accepted a result: take it into the account.

    Attributes:
        family: whose.
        amount: what it is worth by the catalogue, millions of multiply-accumulates.
        entry: for the agent's own copy.
    """

    family: str
    amount: int
    entry: Entry


@dataclass(frozen=True, slots=True)
class Exit:
    """Everything is done: leave with this status."""

    status: int


Command = (
    Publish
    | StartWorker
    | StopWorker
    | UseThreads
    | RunCanary
    | MakeCopy
    | CancelCanary
    | LoadModel
    | UnloadModel
    | RunModel
    | FetchModels
    | SaveExperience
    | KeepCertificates
    | SpoolResult
    | ForgetSpooled
    | CountAccepted
    | Note
    | Exit
)
