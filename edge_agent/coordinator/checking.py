"""What becomes of a verified result: given out, given out and checked, or held until it is checked. Pure.

A check is a job like any other: of its own id and salt, leased to a machine of another owner, which cannot tell it
from a client's. The answers of a *case*, the result in question first, are votes; `reviews` says what follows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from edge_agent.clock import Now
from edge_agent.coordinator.acceptance import Acceptance
from edge_agent.coordinator.cases import Case, Pending, blamed, changed
from edge_agent.coordinator.check_jobs import check_of, insert_of
from edge_agent.coordinator.checks import Settlement, Standing, Vote
from edge_agent.coordinator.classes import Classes
from edge_agent.coordinator.comparing import Answer
from edge_agent.coordinator.events import PENDING, AddEntry, Command, Record, Verification, Verified
from edge_agent.coordinator.jobs import Attempt, Blame, Job
from edge_agent.coordinator.known_answers import KnownAnswers, Plan, Question
from edge_agent.coordinator.leasing import Leasing
from edge_agent.coordinator.ledger import Ledger
from edge_agent.coordinator.parties import Parties
from edge_agent.coordinator.reviews import Review
from edge_agent.coordinator.statements import Statements
from edge_agent.coordinator.trust import Party, Trust
from edge_agent.coordinator.verification import VerifiedResult
from edge_agent.models.catalogue import Family, Reproducibility, Variant
from edge_agent.models.worth import amount_of
from edge_agent.wire.draws import Draw, period_key, period_of
from edge_agent.wire.job_options import owners_wanted
from edge_agent.wire.sealing import is_sealed

MAX_CASES = 1000
"""So many results are being checked at most; further ones that need not be held are given out unchecked."""

MAX_ASKED = 8
"""So many checks are sent out for one result at most, answered or not."""

CHOICE = 3
"""Out of so many machines that the draw names, the one that is expected to be quickest does the check."""

LOOK_AGAIN_SECONDS = 1.0

UNKNOWN = Reproducibility(kind="none")  # of a variant that the catalogue has no longer


class Checking:
    """Decides about results, sends out checks and draws the consequences.

    Args:
        parties: whose each agent is.
        leasing: the jobs.
        statements: signs what we say.
        acceptance: ends jobs with results.
        families: of the catalogue, by name.
        trust: how far each agent is trusted.
        secret: 32 bytes that the keys of the draws are derived from.
    """

    def __init__(  # noqa: PLR0913, PLR0917 each is a part of the core
        self,
        parties: Parties,
        leasing: Leasing,
        statements: Statements,
        acceptance: Acceptance,
        families: dict[str, Family],
        trust: Trust,
        secret: bytes,
    ) -> None:
        self.trust = trust
        self.classes = Classes()
        self.ledger = Ledger()
        self.known = KnownAnswers()
        self._parties = parties
        self._leasing = leasing
        self._statements = statements
        self._acceptance = acceptance
        self._families = families
        self._secret = secret
        self._key = (0, b"")
        self._cases: dict[bytes, Case] = {}
        self._of_check: dict[bytes, bytes] = {}
        self._proven: dict[bytes, list[Vote]] = {}
        self._orphans: dict[bytes, list[Job]] = {}
        self._look_again_at: float | None = None

    # -- results --------------------------------------------------------------------------------------------------

    def on_result(self, job: Job, attempt: Attempt, verified: VerifiedResult, now: Now) -> list[Command]:
        """Say what becomes of a result of a live job."""
        answer = Answer(verified.statement.klass.id, verified.outputs)
        vote = Vote(self._parties.party(attempt.agent_id), answer, job.id)
        if job.checks is not None:
            done = self._acceptance.accept(job, attempt, verified, Verification("signed", "signed"), now)
            return [*done, *self._voted(job, vote, now)]
        draw, period = self._draw(verified.signed, now)
        proven = [known for known in self._proven.pop(job.id, []) if known.party.owner != vote.party.owner]
        demanded = owners_wanted(job.mode) > 1
        share = self.trust.probability(vote.party, attempt.variant)
        probability = 1.0 if demanded or proven else share
        # Nobody else can open what is sealed to an agent: a check of it is impossible.
        sealed = is_sealed(tensor.spec for tensor in job.inputs)
        drawn = draw.check < probability and not sealed
        verification = Verification(job.mode, "signed", (), probability, drawn, period)
        alone = drawn and not (demanded or proven or self._parties.others(job, attempt.variant, vote.party.owner))
        case = self._open(job, attempt, vote, draw, verification, proven) if drawn and not alone else None
        if case is None or not (demanded or proven or self._somebody_for(case)):
            if case is not None or alone:
                self._orphans.pop(job.id, None)
                self.known.plan(vote.party, job.family, attempt.variant, draw.seed, now.monotonic)
            self.trust.accepted(vote.party, attempt.variant)
            # Whoever is no newcomer before an accepted result is none after it.
            entries = () if share >= 1.0 else self._unchecked(job, vote.party, attempt.variant, now)
            return self._acceptance.accept(job, attempt, verified, verification, now, entries)
        self._cases[job.id] = case
        if demanded or proven or (share >= 1.0 and not job.accept_newcomers):
            case.held = (attempt, verified)
            return [*self._leasing.hold(job, attempt, now), *self._go_on(case, now)]
        case.verification = Verification(job.mode, PENDING, (), probability, drawn, period)
        done = self._acceptance.accept(job, attempt, verified, case.verification, now)
        return [*done, *self._go_on(case, now)]

    def _open(  # noqa: PLR0913, PLR0917 what a case consists of
        self, job: Job, attempt: Attempt, vote: Vote, draw: Draw, verification: Verification, proven: list[Vote]
    ) -> Case | None:
        if len(self._cases) >= MAX_CASES and owners_wanted(job.mode) == 1 and not proven:
            return None
        return self._case(job, attempt.epoch, attempt.variant, vote, draw, verification, proven)

    def _case(  # noqa: PLR0913, PLR0917 what a case consists of
        self,
        job: Job,
        epoch: int,
        variant: bytes,
        vote: Vote,
        draw: Draw,
        verification: Verification,
        proven: list[Vote],
    ) -> Case:
        entry = self._variant(job, variant)
        reproducibility = entry.reproducibility if entry else UNKNOWN
        share = self.trust.rules.trusted_share
        review = Review(variant, reproducibility, draw, share, max(2, owners_wanted(job.mode)), [vote, *proven])
        case = Case(job, review, verification, epoch)
        for check in self._orphans.pop(job.id, []):
            if check.id in self._leasing.jobs:
                case.asked[check.id] = check
                case.sent += 1
                self._of_check[check.id] = job.id
        return case

    def resume(self, pending: Iterable[Pending]) -> None:
        """Go on, after a restart, with the checks of results that were given out, and with those that still run."""
        for job in self._leasing.jobs.values():
            if job.checks is not None:
                self._orphans.setdefault(job.checks, []).append(job)
        for one in pending:
            before = one.verification
            draw = Draw.of(period_key(self._secret, before.period), one.signed)
            vote = Vote(self._parties.party(one.agent_id), Answer(one.klass, one.outputs), one.job.id)
            case = self._case(one.job, one.epoch, one.variant, vote, draw, before, [])
            case.waiting = True
            self._cases[one.job.id] = case
            self._look_again_at = 0.0

    def _unchecked(self, job: Job, party: Party, variant: bytes, now: Now) -> tuple[Record, ...]:
        """Enter a result that nobody checks, of who is no newcomer: a newcomer's would be worth nothing."""
        amount = amount_of(self._variant(job, variant))
        return tuple(self.ledger.unchecked(job.id, party, variant, amount, now.wall_ms))

    def _variant(self, job: Job, variant: bytes) -> Variant | None:
        family = self._families.get(job.family)
        return family.variant(variant) if family else None

    def _draw(self, signed: bytes, now: Now) -> tuple[Draw, int]:
        period = period_of(now.wall_ms)
        if self._key[0] != period:
            self._key = (period, period_key(self._secret, period))
        return Draw.of(self._key[1], signed), period

    # -- checks ---------------------------------------------------------------------------------------------------

    def _voted(self, check: Job, vote: Vote, now: Now) -> list[Command]:
        if (question := self.known.asked(check.id)) is not None:
            return self._judge(question, vote, now)
        case = self._answered(check)
        if case is None:  # its case was closed, or is from before a restart
            return []
        if all(vote.party.owner != known.party.owner for known in case.review.votes):
            case.review.votes.append(vote)
        return self._go_on(case, now)

    def _answered(self, check: Job) -> Case | None:
        subject = self._of_check.pop(check.id, None)
        case = self._cases.get(subject) if subject else None
        if case is not None:
            case.asked.pop(check.id, None)
        return case

    def follow_up(self, now: Now) -> list[Command]:
        """Go on where jobs ended without a result, and where nobody could be asked before."""
        commands: list[Command] = []
        ended, self._leasing.ended = self._leasing.ended, []
        for job in ended:
            self._proven.pop(job.id, None)
            self.known.asked(job.id)
            if job.checks is not None and (case := self._answered(job)) is not None:
                commands += self._go_on(case, now)
        if self._look_again_at is not None and now.monotonic >= self._look_again_at:
            self._look_again_at = None
            for case in [case for case in self._cases.values() if case.waiting]:
                commands += self._go_on(case, now)
        for plan in self.known.take_due(now.monotonic):
            commands += self._ask_known(plan, now)
        self._parties.expire(self.trust, now.wall_ms)
        return commands

    def next_deadline(self) -> float | None:
        """Return the monotonic second at which `follow_up` is due, if any."""
        return min((at for at in (self._look_again_at, self.known.next_at()) if at is not None), default=None)

    def _go_on(self, case: Case, now: Now) -> list[Command]:
        """Ask as many machines as are needed, or close the case."""
        commands: list[Command] = []
        case.waiting = False
        settlement = case.review.settle(self.classes, self.trust)
        while settlement.standing is Standing.OPEN:
            known = max(len(settlement.right), 1)
            missing = 1 if settlement.dispute else max(1, case.review.wanted - known)
            if len(case.asked) >= missing:
                return commands
            asked = self._ask(case, settlement, now, several=missing > 1) if case.sent < MAX_ASKED else None
            if asked is not None:
                commands += asked
                continue
            if case.asked:
                return commands
            settlement = case.review.settle(self.classes, self.trust, more=False)
            agreed = settlement.standing is Standing.AGREED
            if case.demanded and not agreed and case.held and not case.over and case.sent < MAX_ASKED:
                case.waiting = True  # the client wants it so, and says with its deadline how long
                self._look_again_at = now.monotonic + LOOK_AGAIN_SECONDS
                return commands
            break
        return [*commands, *self._close(case, settlement, now)]

    def _somebody_for(self, case: Case) -> bool:
        return bool(self._order(case, dispute=False))

    def _order(self, case: Case, *, dispute: bool) -> list[str]:
        candidates = self._parties.candidates(case.job, case.review.variant, case.review.able)
        asked = (self._parties.party(name) for job in case.asked.values() for name in job.placement.agents)
        return case.review.order(candidates, self.trust, dispute=dispute, asked=asked)

    def _ask(self, case: Case, settlement: Settlement, now: Now, *, several: bool) -> list[Command] | None:
        """Send a check to one of the machines that the draw names; None if there are none."""
        order = self._order(case, dispute=settlement.dispute)
        if not order:
            return None
        trusted = self._parties.party(order[0]).trusted
        chosen = [name for name in order if self._parties.party(name).trusted is trusted][: 1 if several else CHOICE]
        case.sent += 1
        about = b"%d %d" % (case.sent, case.epoch)
        job = check_of(self._secret, case.job, case.review.variant, tuple(chosen), about, now)
        if not self._leasing.takes(job):
            return None
        case.asked[job.id] = job
        self._of_check[job.id] = case.job.id
        self._leasing.add(job)
        return [insert_of(job, now)]

    # -- the end --------------------------------------------------------------------------------------------------

    def _close(self, case: Case, settlement: Settlement, now: Now) -> list[Command]:
        """Draw the consequences: for the agents' standing, and for the result in question."""
        del self._cases[case.job.id]
        for check in case.asked.values():
            self._of_check.pop(check.id, None)
        review = case.review
        review.close(settlement, self.trust, self.classes, now.wall_ms)
        standings = changed(self.trust)
        for number in settlement.wrong:
            self.known.distrust(review.votes[number].party)
        self.known.remember(case.job, review, settlement)
        lost = case.held is not None and (case.over or not self._parties.admitted(case.held[0].agent_id))
        entries = self._entries(case, settlement, now, lost=lost)
        self._parties.expire(self.trust, now.wall_ms)
        notes: list[Command] = [blamed(review.votes[number], case.job) for number in settlement.wrong]
        right = 0 in settlement.right
        by = tuple(review.votes[number].party.agent_id for number in settlement.right)
        agreed = settlement.standing is Standing.AGREED
        state = (
            ("quorum" if case.verification.mode.startswith("quorum") else "rechecked")
            if agreed and right
            else ("disputed" if len(review.votes) > 1 else "signed")
        )
        before = case.verification
        verification = Verification(
            before.mode, state, by if right and agreed else (), before.probability, before.drawn, before.period
        )
        if case.held is None:
            records: tuple[Record, ...] = (Verified(case.job.id, verification), *standings, *entries)
            self._acceptance.later(records)
            return notes
        attempt, verified = case.held
        if lost:
            self._acceptance.later((*standings, *entries))
            return notes if case.over else [*notes, *self._leasing.lose(case.job, attempt, "not-enrolled", now)]
        if (right and agreed) or (len(review.votes) == 1 and not case.demanded):
            also = (*standings, *entries)
            return [*notes, *self._acceptance.accept(case.job, attempt, verified, verification, now, also)]
        if agreed:
            self._proven[case.job.id] = [replace(review.votes[number], job_id=b"") for number in settlement.right]
            case.job.variant = review.variant  # what is proven is proven of this variant
        code = "wrong-result" if 0 in settlement.wrong else "not-confirmed"
        settled = self._statements.settled(attempt.agent_id, verified.statement, "refused", code, now)
        refused = self._leasing.lose(
            case.job,
            attempt,
            code,
            now,
            message="machines of other owners got other outputs",
            blame=Blame.AGENT,
            then=settled,
        )
        self._acceptance.later((*standings, *entries))
        return [*notes, *refused]

    # -- known answers --------------------------------------------------------------------------------------------

    def _ask_known(self, plan: Plan, now: Now) -> list[Command]:
        """Ask an agent what others have agreed on, if it is here; nobody is held to that if it is not."""
        agent_id = plan.party.agent_id

        def may(question: Question) -> bool:
            there = self._parties.candidates(question.job, plan.variant, question.review.able)
            return any(party.agent_id == agent_id for party in there)

        question = self.known.choose(plan, may)
        if question is None:
            return []
        job = check_of(self._secret, question.job, plan.variant, (agent_id,), b"known " + agent_id.encode(), now)
        if not self._leasing.takes(job):
            return []
        self.known.ask(job.id, plan, question)
        self._leasing.add(job)
        return [insert_of(job, now)]

    def _judge(self, question: Question, vote: Vote, now: Now) -> list[Command]:
        """Draw the consequences of an answer to what was known: for whoever gave it, and nobody else."""
        number, party = len(question.review.votes), vote.party
        review = replace(question.review, votes=[*question.review.votes, vote])
        if any(party.owner == known.party.owner for known in question.review.votes):  # it changed hands
            return []
        settlement = review.settle(self.classes, self.trust)
        review.close(settlement, self.trust, self.classes, now.wall_ms, known=number)
        entries: list[AddEntry] = []
        notes: list[Command] = []
        if number in settlement.right:
            self.known.learn(question, vote)
            new = self.trust.newcomer(party, review.variant)
            amount = amount_of(self._variant(question.job, review.variant))
            entries = self.ledger.confirmed(vote.job_id, party, review.variant, amount, now.wall_ms, newcomer=new)
        elif number in settlement.wrong:
            self.known.distrust(party)
            entries = self.ledger.forfeited(party, now.wall_ms)
            notes = [blamed(vote, question.job)]
        self._acceptance.later((*changed(self.trust), *entries))
        self._parties.expire(self.trust, now.wall_ms)
        return notes

    def _entries(self, case: Case, settlement: Settlement, now: Now, *, lost: bool) -> tuple[Record, ...]:
        """Enter what the settlement says of each result: those that agree are verified, wrong ones cost.

        Nothing is paid for a result in question that is `lost`, since it never ended its job.
        """
        review, at_ms = case.review, now.wall_ms
        amount = amount_of(self._variant(case.job, review.variant))
        found: list[Record] = []
        for number in settlement.right if settlement.standing is Standing.AGREED else ():
            vote = review.votes[number]
            new = self.trust.newcomer(vote.party, review.variant)
            if not vote.job_id or (lost and number == 0):
                found += () if new else self.ledger.release(vote.party, review.variant, at_ms)
                continue
            found += self.ledger.confirmed(vote.job_id, vote.party, review.variant, amount, at_ms, newcomer=new)
        for number in settlement.wrong:
            found += self.ledger.forfeited(review.votes[number].party, at_ms)
        if len(review.votes) == 1 and not case.demanded and not lost:
            party = review.subject.party
            if not self.trust.newcomer(party, review.variant):
                found += self._unchecked(case.job, party, review.variant, now)
        return tuple(found)
