"""Says to the operator how this machine fares: seldom, small, at once only where something changed that people ask for.

The machine is looked at only when something is said, so that this alone wakes it once in two minutes at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from edge_agent.agent.core import Core
from edge_agent.agent.events import Publish
from edge_agent.agent.owner import Owner
from edge_agent.agent.planner import Planner
from edge_agent.agent.plans import Plan
from edge_agent.agent.policy import Mode
from edge_agent.agent.policy import Reason as OwnersReason
from edge_agent.agent.status import obstacles
from edge_agent.clock import Now
from edge_agent.inference.messages import plain
from edge_agent.wire.envelope import seal
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.status import MAX_FITS, MAX_REASONS, MAX_REMARK_CHARACTERS, FitReport, Reason, Status
from edge_agent.wire.topics import Topics
from hardware.load import parse_stat
from hardware.sysfs import Root
from hardware.thermal import cpu_celsius

AGAIN_SECONDS = 120.0
"""A status is said so often when nothing changes."""
SOON_SECONDS = 2.0
"""And at most so often, however much changes."""
FITS_EVERY = 5
"""In every such number of statuses the fits are said again, in case they got lost."""
OBSTACLES = frozenset({"no-broker", "no-coordinator", "measuring", "nothing-fits", "revoked", "old-coordinator"})
"""What keeps a machine from serving that has nothing to do with its owner."""

Detail: TypeAlias = Literal["none", "codes", "full"]


@dataclass(frozen=True, slots=True)
class Standing:
    """What others want to know at once when it changes.

    Attributes:
        session: of ours with the broker; None without one.
        coordinator_session: whoever is new has not heard the fits.
        resting: whether the owner's rules let it work now.
        reasons: code and sentence of each thing that keeps it from serving.
    """

    session: int | None
    coordinator_session: int | None
    resting: bool
    reasons: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, core: Core, planner: Planner, owner: Owner) -> Standing:
        """Take it from where it is known."""
        session, other = core.session, core.coordinator_session
        found = obstacles(
            planner, session is not None, other is not None, core.standing.revoked, core.clientele.unheard
        )
        return cls(session, other, owner.mode is Mode.REST, reasons_of(owner.reasons, found))

    @property
    def key(self) -> tuple[object, ...]:
        """What makes a change worth a message: sentences may hold numbers that change all the time."""
        return (self.session, self.coordinator_session, self.resting, tuple(code for code, _ in self.reasons))


class Reporting:
    """When to say a status, and what.

    Args:
        key: the agent's.
        topics: of the network.
        root: of the machine, or of a tree laid out like one.
        detail: how much of it the owner lets others know: `none`, `codes` or `full`.
    """

    def __init__(self, key: SigningKey, topics: Topics, root: Root, detail: Detail = "codes") -> None:
        self._detail = detail
        self._key = key
        self._topics = topics
        self._root = root
        self._sequence = 0
        self._said: tuple[object, ...] | None = None
        self._said_at = float("-inf")
        self._news_waits = False  # something changed so soon after the last status that it is not said yet
        self._fits: tuple[FitReport, ...] | None = None
        self._fits_to: tuple[object, ...] | None = None
        self._ticks: tuple[int, int] | None = None

    @property
    def due_at(self) -> float:
        """The monotonic second at which to `look` again at the latest."""
        return self._said_at + (SOON_SECONDS if self._news_waits else AGAIN_SECONDS)

    def look(self, standing: Standing, plans: Iterable[Plan], now: Now) -> list[Publish]:
        """Say a status if one is due.

        Args:
            standing: how things stand.
            plans: of the families; read only if something is said.
            now: the moment.
        """
        if standing.session is None or self._detail == "none":
            self._said_at, self._news_waits = now.monotonic, False  # nobody hears it; the next session begins with one
            return []
        self._news_waits = standing.key != self._said
        new_session = self._said is None or self._said[:2] != standing.key[:2]
        if now.monotonic < self.due_at and not new_session:
            return []
        self._said, self._said_at, self._news_waits = standing.key, now.monotonic, False
        self._sequence += 1
        return [self._publish(standing, self._news(standing, plans), now)]

    def _news(self, standing: Standing, plans: Iterable[Plan]) -> tuple[FitReport, ...] | None:
        """Return the fits if they are other ones than those that were said, or may not have been heard."""
        fits, to = fit_reports(plans), (standing.session, standing.coordinator_session)
        if fits == self._fits and to == self._fits_to and self._sequence % FITS_EVERY:
            return None
        self._fits, self._fits_to = fits, to
        return fits

    def _publish(self, standing: Standing, fits: tuple[FitReport, ...] | None, now: Now) -> Publish:
        if standing.session is None:
            raise AssertionError("a status belongs to a session")
        agent_id = self._key.public.id
        celsius = cpu_celsius(self._root)
        status = Status(
            network=self._topics.network,
            issued_ms=now.wall_ms,
            agent_id=agent_id,
            session=standing.session,
            sequence=self._sequence,
            mode="rest" if standing.resting else "work",
            reasons=tuple(self._reason(*reason) for reason in standing.reasons[:MAX_REASONS]),
            celsius=None if isinstance(celsius, str) else min(200, max(-100, round(celsius))),
            cpu_percent=self._cpu_percent(),
            fits=fits,
        )
        return Publish(self._topics.status(agent_id), seal(self._key, status))

    def _reason(self, code: str, text: str) -> Reason:
        # What the owner's rules go by (is anybody at home, what do the sensors say) is the owner's business.
        return Reason(code=code, text=_remark(text) if self._detail == "full" or code in OBSTACLES else "")

    def _cpu_percent(self) -> int | None:
        """Return the share of all CPUs that was taken since the last status, by whatever it was."""
        text = self._root.read_text("proc/stat", 16 * 1024)
        before, self._ticks = self._ticks, parse_stat(text) if text is not None else None
        if before is None or self._ticks is None or self._ticks[0] <= before[0]:
            return None
        return min(100, max(0, round(100 * (self._ticks[1] - before[1]) / (self._ticks[0] - before[0]))))


def reasons_of(resting: Sequence[OwnersReason], obstacles: Iterable[dict[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return why it rests, or else what keeps a machine from serving whose owner lets it work."""
    if resting:
        return tuple((reason.code, reason.text) for reason in resting)
    return tuple((found["code"], found["text"]) for found in obstacles)


def fit_reports(plans: Iterable[Plan]) -> tuple[FitReport, ...]:
    """Return what is known of each variant that was predicted or measured here, what is served first."""
    found = [report for plan in plans for report in _of_plan(plan)]
    found.sort(key=lambda report: (not report.served, report.measured_us is None))
    return tuple(found[:MAX_FITS])


def _of_plan(plan: Plan) -> list[FitReport]:
    if plan.trials is None:
        return []
    measured = {entry.variant.digest: entry for entry in plan.measured}
    why = {lost.variant.digest: lost.reason for lost in plan.lost}
    chosen = plan.chosen.variant.digest if plan.chosen is not None else None
    reports = []
    for variant in plan.family.variants:
        entry, fit = measured.get(variant.digest), plan.trials.fit(variant)
        counted = variant.costs is not None
        text = plan.why if variant.digest == chosen else why.get(variant.digest, "")
        reports.append(
            FitReport(
                family=plan.family.name,
                variant_name=variant.name,
                served=variant.digest == chosen,
                predicted_us=_whole(fit.latency_ms.expected * 1000) if counted else None,
                predicted_bytes=_whole(fit.peak_bytes.expected) if counted else None,
                measured_us=entry.p50_us if entry is not None and entry.golden_ok else None,
                measured_bytes=entry.peak_bytes if entry is not None and entry.golden_ok else None,
                why=_remark(text),
            )
        )
    return reports


def _whole(number: float) -> int:
    return int(min(max(number, 0.0), 2**53 - 1))


def _remark(text: str) -> str:
    return plain(text, MAX_REMARK_CHARACTERS)
