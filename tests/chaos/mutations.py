"""The mutations: one rule of the production code broken each, to show that a promise can fail and that this is seen.

Each is a piece of source that must be there exactly once, and what stands in its place. docs/reliability.md has the
same table for people; a test keeps the two equal. Imports nothing of ours: the processes that run the mutated code
import this first.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_SEED = 2_000_000
"""Of the scripts that the mutated code is run on."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """A rule, broken.

    Attributes:
        name: a word or two.
        promise: the number in docs/reliability.md of the one that is broken with it.
        breaks: what the code does then, in words.
        module: that is changed.
        old: its source.
        new: what stands there instead.
        profile: of the scripts that see it.
        scripts: so many of them at most; the first that breaks the promise ends the run.
        first: the number of the first of them, so that one is not far that the mutation was seen to fail.
        directed: scripts written for it, as JSON.
    """

    name: str
    promise: int
    breaks: str
    module: str
    old: str
    new: str
    profile: str
    scripts: int = 60
    first: int = 0
    directed: tuple[str, ...] = ()

    def apply(self, source: str) -> str:
        """Change a source.

        Raises:
            ValueError: the text is not there, or not once: the mutation has to follow the code.
        """
        if source.count(self.old) != 1:
            raise ValueError(f"{self.name}: its text stands {source.count(self.old)} times in {self.module}")
        return source.replace(self.old, self.new)


_HEAD = '{"seed": 1, "profile": "everything", "agents": 1, "lease_seconds": 4.0, "steps": ['
DELAYED_RESULT = (
    _HEAD + '{"at": 1.0, "kind": "delay", "who": 0, "seconds": 5.0, "count": 1, "text": "results"}, '
    '{"at": 1.0, "kind": "lose", "who": 0, "count": 2, "text": "results"}, '
    '{"at": 1.0, "kind": "submit", "who": -1, "seconds": 60.0, "count": 1, "text": "k1"}, '
    '{"at": 4.5, "kind": "hang-worker", "who": 0}]}'
)
"""A result comes so late that its lease has run out and its agent is at work on the next attempt."""
UNSETTLED_STOP = (
    _HEAD + '{"at": 2.5, "kind": "submit", "who": -1, "seconds": 60.0, "count": 1, "text": "k1"}, '
    '{"at": 2.51, "kind": "crash", "who": -1, "seconds": 30.0}, '
    '{"at": 2.6, "kind": "stop", "who": 0, "seconds": 1.0}, '
    '{"at": 20.0, "kind": "clock", "who": 0, "seconds": 3.0}]}'
)
"""An agent is asked to stop while the coordinator is away, and nobody settles what it has finished."""

_CORE = "edge_agent.coordinator.core"
_LEASING = "edge_agent.coordinator.leasing"
_ACCEPTANCE = "edge_agent.coordinator.acceptance"
_ANSWERS = "edge_agent.coordinator.answers"
_PRESENCE = "edge_agent.coordinator.presence"
_CASES = "edge_agent.coordinator.cases"
_CHECK_JOBS = "edge_agent.coordinator.check_jobs"
_VETTING = "edge_agent.coordinator.vetting"
_AGENT = "edge_agent.agent.core"
_ENDING = "edge_agent.agent.ending"
REFUSED_AND_LOST = (
    '{"seed": 5, "profile": "everything", "agents": 2, "max_attempts": 1, "owners": 2, "bad": 1, "steps": ['
    '{"at": 1.0, "kind": "submit", "who": -1, "seconds": 60.0, "count": 1}, '
    '{"at": 1.38, "kind": "crash", "who": 1, "seconds": 1.0}]}'
)

MUTATIONS = (
    Mutation(
        "told-before-stored",
        1,
        "A client is told of a result before it is in the database",
        _ACCEPTANCE,
        "            commits += ends\n",
        "            commits += [*(end.then[0] for end in ends), *(replace(end, then=end.then[1:]) for end in ends)]\n",
        "kills",
        first=37,
    ),
    Mutation(
        "end-not-synchronised",
        1,
        "The end of an acknowledged job is told before it survives a power cut",
        _ACCEPTANCE,
        "durable=not job.synchronous, then=(outcome,)",
        "durable=False, then=(outcome,)",
        "coordinator",
        first=23,
    ),
    Mutation(
        "acknowledged-unstored",
        1,
        "An asynchronous job is acknowledged before it is stored",
        _CORE,
        "return [Commit((record,), durable=True, then=(stored,))]",
        "return [stored, Commit((record,), durable=True)]",
        "kills",
        first=4,
    ),
    Mutation(
        "requeue-dropped",
        1,
        "A job whose attempt was lost is not queued again",
        _LEASING,
        "        if not waits(why):\n            self._queue.put(job)\n            return\n",
        "        if not waits(why):\n            return\n",
        "kills",
        first=39,
    ),
    Mutation(
        "keys-ignored",
        1,
        "A request that is repeated under its idempotency key is done again",
        _CORE,
        "if key is not None and (found := self.requests.find(key)) is not None:",
        "if key is not None and (found := self.requests.find(key)) is None and found is not None:",
        "kills",
    ),
    Mutation(
        "accepted-twice",
        1,
        "A job stays open when its result is accepted, so that the other attempt's result is accepted, too",
        _LEASING,
        "        job.apply(JobEvent.ACCEPT)\n        self.verdicts.accepted[attempt.variant] += 1\n",
        "        job.state = JobState.SUCCEEDED\n        return [], []\n",
        "kills",
    ),
    Mutation(
        "poison-not-seen",
        1,
        "A job that ends workers is given to one agent after another",
        "edge_agent.coordinator.retries",
        "if len(job.killed) >= POISON_AGENTS:",
        "if len(job.killed) >= 100 * POISON_AGENTS:",
        "kills",
        first=6,
    ),
    Mutation(
        "no-fencing",
        2,
        "The answer of an attempt that is over is taken for that of the present one",
        "edge_agent.coordinator.verification",
        "    attempt = job.attempt_of(statement.epoch)\n",
        "    attempt = job.attempt_of(statement.epoch) or next(iter(job.attempts), None)\n",
        "network",
        20,
        directed=(DELAYED_RESULT,),
    ),
    Mutation(
        "settled-not-sent",
        2,
        "An agent is not told that its answer is for a job that is over",
        _ANSWERS,
        "Commit((), then=(settled,)),  # if it ended a moment ago, its end is stored first",
        "Commit(()),",
        "network",
    ),
    Mutation(
        "sent-once",
        2,
        "An answer is sent once and never again",
        "edge_agent.agent.unsettled",
        "        if now.monotonic < self._not_before:\n            return []\n",
        "        return []\n",
        "network",
        first=3,
    ),
    Mutation(
        "late-will",
        2,
        "The late will of an older session ends the present one",
        "edge_agent.coordinator.registry",
        "if gone.session != agent.session:",
        "if gone.session > agent.session:",
        "network",
        200,
        first=44,
    ),
    Mutation(
        "spool-not-taken-over",
        2,
        "What the spool kept through a crash is neither sent nor forgotten",
        "edge_agent.agent.delivery",
        "            answer = self._unsettled.add(_key(spooled), spooled.payload, now, age",
        "            continue\n            answer = self._unsettled.add(_key(spooled), spooled.payload, now, age",
        "processes",
        100,
        first=13,
    ),
    Mutation(
        "leases-not-renewed",
        3,
        "That an agent still works on what it holds renews no lease",
        _PRESENCE,
        "            if attempt is not None and attempt.epoch == held.epoch:\n"
        "                self._leasing.renew(attempt, now)\n",
        "            pass\n",
        "coordinator",
        200,
    ),
    Mutation(
        "standstill-not-noticed",
        3,
        "A coordinator that was stopped itself takes leases away before it reads what renewed them",
        _CORE,
        "        self.presence.renew_all(now)\n        text =",
        "        text =",
        "coordinator",
        400,
    ),
    Mutation(
        "absence-blamed",
        3,
        "Leases run out while the coordinator is cut off from the broker itself",
        _CORE,
        "case Kind.LEASE if attempt is not None and not self.connected:",
        "case Kind.LEASE if attempt is not None and now is None:",
        "coordinator",
        200,
        first=44,
    ),
    Mutation(
        "held-not-said",
        3,
        "An agent's birth leaves out what it holds",
        _AGENT,
        "self.coordinator_session, self.attempts.keys(), now)",
        "self.coordinator_session, (), now)",
        "coordinator",
        200,
    ),
    Mutation(
        "deadline-by-the-wall",
        4,
        "After a restart, deadlines are counted against the wall clock",
        "edge_agent.coordinator.ages",
        "    if deadline_at_ms is not None:\n        return min(whole, deadline_at_ms / 1000 - monotonic)\n",
        "    return (deadline_ms - wall_ms) / 1000\n",
        "clocks",
        200,
        first=54,
    ),
    Mutation(
        "deadline-not-watched",
        4,
        "The deadline of a job that is with an agent is not watched",
        _LEASING,
        "            case Kind.DEADLINE:\n                return True\n",
        "            case Kind.DEADLINE:\n                return not job.attempts\n",
        "agents",
        200,
        first=5,
    ),
    Mutation(
        "queue-unbounded",
        5,
        "More jobs are taken on than the queue may hold",
        _VETTING,
        "if len(self._leasing.jobs) >= self._rules.max_queued_jobs:",
        "if len(self._leasing.jobs) >= 100 * self._rules.max_queued_jobs:",
        "everything",
        200,
        first=36,
    ),
    Mutation(
        "refused-without-a-time",
        5,
        "A client whose job finds the queue full is not told when to come back",
        _VETTING,
        'as many as may"\n            return SubmitRefused(job.id, "queue-full", text, 1.0)\n        waiting',
        'as many as may"\n            return SubmitRefused(job.id, "queue-full", text, None)\n        waiting',
        "everything",
        200,
        first=36,
    ),
    Mutation(
        "room-not-given-back",
        5,
        "A job that has ended still takes up its room on its agent",
        _LEASING,
        "        job.attempts.remove(attempt)\n"
        "        if (agent := self._registry.agents.get(attempt.agent_id)) is not None:\n"
        "            agent.in_flight.pop(job.id, None)\n",
        "        job.attempts.remove(attempt)\n",
        "kills",
    ),
    Mutation(
        "stopped-not-said",
        6,
        "An agent stops without saying so",
        _ENDING,
        'commands.append(self._presence.birth("stopped", session',
        '_ = (self._presence.birth("stopped", session',
        "stops",
    ),
    Mutation(
        "stop-without-end",
        6,
        "An agent that is asked to stop waits without end for the settlement of what it holds",
        _ENDING,
        "if wait_for and now.monotonic < self._until:",
        "if wait_for:",
        "stops",
        20,
        directed=(UNSETTLED_STOP,),
    ),
    Mutation(
        "passed-over-for-good",
        1,
        "A job that had to wait in the round in which another one was leased is not looked at again",
        _LEASING,
        "                if leased:  # the agents are not as they were seen any more\n"
        "                    self._seen = ()\n",
        "",
        "processes",
        first=57,
    ),
    Mutation(
        "ended-yet-paid",
        1,
        "The result of a job that was cancelled while it was checked is given out and paid for",
        _CASES,
        "return self.held is not None and self.job.state.final",
        "return False",
        "kills",
        first=60,
    ),
    Mutation(
        "checks-repeat",
        1,
        "The check of a result that comes again after a restart has the id of the one before",
        _CHECK_JOBS,
        'about += b" %d %s" % (now.wall_ms, subject.id)',
        'about += b" %s" % subject.id',
        "kills",
        first=41,
    ),
    Mutation(
        "one-word-for-two",
        1,
        "Who asked for two owners is given the result of one where there is nobody else",
        _CASES,
        "return owners_wanted(self.verification.mode) > 1",
        "return owners_wanted(self.verification.mode) > 2",
        "kills",
        first=200,
    ),
    Mutation(
        "checks-forgotten",
        1,
        "A restart forgets the checks of results that were given out before",
        "edge_agent.coordinator.takeover",
        "    core.checking.resume(store.read(read_pending))\n",
        "",
        "kills",
        first=26,
    ),
    Mutation(
        "refusal-not-heard",
        1,
        "An agent is blamed for losing a job that another owner's machine had refused",
        "edge_agent.coordinator.retries",
        "if refused is not None:  #",
        "if not job.refusals and refused is not None:  #",
        "kills",
        scripts=0,
        directed=(REFUSED_AND_LOST,),
    ),
)
