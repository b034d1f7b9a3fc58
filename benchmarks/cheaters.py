"""How many wrong results get through: 1,000 agents, 20 % of them cheats of six kinds, over the real rules of trust.

`python benchmarks/cheaters.py [--jobs 200000] [--agents 1000] [--picture FILE]`; docs/verification.md has the
formulas. Simulated are the machines and what they answer; who is checked, by whom, what a comparison says and what
follows is decided by `edge_agent.coordinator`: trust, checks, comparing, classes, reviews.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import struct
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge_agent.coordinator.checks import Standing, Vote
from edge_agent.coordinator.classes import Classes
from edge_agent.coordinator.comparing import Answer, checkable
from edge_agent.coordinator.reviews import Review
from edge_agent.coordinator.trust import Party, Subject, Trust, TrustRules
from edge_agent.models.catalogue import Reproducibility
from edge_agent.wire.draws import Draw, period_key
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

KINDS = ("random", "cached", "smaller", "flips", "colluding", "patient")
CPUS = ("vnni", "avx2", "neon", "dotprod")
VARIANTS = {
    b"int8-reproducible": Reproducibility(kind="bit-identical"),
    b"fp32": Reproducibility(kind="tolerance", atol=1e-5, rtol=0.0, gap=1000.0),
    b"int8-dynamic": Reproducibility(kind="none"),
}
SPREAD = {b"int8-reproducible": 0.0, b"fp32": 0.8e-5, b"int8-dynamic": 0.03}
"""How far an honest processor's outputs are from the truth: each has its own, the same for the same input."""
FLIP_RATE = 0.01
PATIENCE = 30
"""So many honest results the patient cheat gives before it begins."""
TRUSTED = 10
AT_ONCE = 24
"""So many of the machines that could check a result have room at that moment, and all trusted ones."""
SPEC = TensorSpec("scores", DataType.FP32, (4,))


@dataclass(slots=True)
class Machine:
    """An agent, honest or not."""

    party: Party
    cpu: str
    variant: bytes
    kind: str = "honest"
    accomplice: str = ""
    done: int = 0
    own: int = 0
    turned_at: int | None = None
    drawn: list[float] = field(default_factory=list)
    last: int = 0
    accepted_wrong: int = 0
    caught_at: int | None = None
    wrong_until_caught: int = 0
    blamed: int = 0

    def cheats(self, rng: random.Random) -> bool:
        """Whether the next result is a false one."""
        match self.kind:
            case "honest":
                return False
            case "flips":
                return rng.random() < FLIP_RATE
            case "patient":
                if self.done >= PATIENCE and self.turned_at is None:
                    self.turned_at = self.own
                return self.done >= PATIENCE
            case _:
                return True

    def answer(self, job: int, *, false: bool) -> Answer:
        """Compute, or pretend to."""
        values = _values("truth", job, self.variant.decode())
        if false and self.kind == "cached":
            values = _values("truth", self.last, self.variant.decode())
        elif false and self.kind == "smaller":
            noise = _values("smaller", job, self.variant.decode())
            values = [v + 0.02 * (n - 0.5) + 0.01 for v, n in zip(values, noise, strict=True)]
        elif false and self.kind == "flips":
            values[job % 4] = 1.0 - values[job % 4] + 0.5
        elif false and self.kind == "colluding":
            values = _values("lie", job, self.accomplice)
        elif false:
            values = _values("random", job, self.party.agent_id)
        spread = SPREAD[self.variant]
        if spread:
            noise = _values(self.cpu, job, self.variant.decode())
            values = [v + spread * (n - 0.5) for v, n in zip(values, noise, strict=True)]
        klass = f"{self.variant.decode()}/{self.cpu}"
        return Answer(klass, (Tensor(SPEC, struct.pack("<4f", *values)),))


def _values(*parts: object) -> list[float]:
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()
    return [number / 2**32 for number in struct.unpack("<4I", digest)]


@dataclass(slots=True)
class Tally:
    """What happened in one run."""

    jobs: int = 0
    wrong: list[int] = field(default_factory=list)
    extra: list[int] = field(default_factory=list)
    undelivered: int = 0
    honest_blamed: int = 0
    honest_resting: int = 0
    checks: Counter[str] = field(default_factory=Counter)


def make(agents: int, rng: random.Random) -> list[Machine]:
    """Make the network: a fifth cheats, of six kinds, owners have one to three machines."""
    cheats = agents // 5
    kinds = [KINDS[i % 6] for i in range(cheats)] + ["honest"] * (agents - cheats)
    machines: list[Machine] = []
    owner = 0
    left = 0
    for number, kind in enumerate(kinds):
        if left == 0 or kind != "honest":
            owner, left = owner + 1, rng.randint(1, 3)
        left -= 1
        trusted = number >= agents - TRUSTED
        party = Party(f"agent{number}", "operator" if trusted else f"owner{owner}", trusted)
        machines.append(Machine(party, rng.choice(CPUS), rng.choice(list(VARIANTS)), kind, last=-number))
    pairs = [machine for machine in machines if machine.kind == "colluding"]
    for one, other in zip(pairs[::2], pairs[1::2], strict=False):
        one.accomplice = other.accomplice = f"pair {one.party.agent_id}"
        other.variant, other.cpu = one.variant, one.cpu
    for machine in pairs[len(pairs) // 2 * 2 :]:
        machine.accomplice = machine.party.agent_id
    return machines


class Network:
    """The coordinator's part of it: the same rules, in the same order, with machines that answer at once."""

    def __init__(self, machines: list[Machine], rng: random.Random, *, rechecked: bool) -> None:
        self.machines = machines
        self.rng = rng
        self.rechecked = rechecked
        self.trust = Trust()
        self.classes = Classes()
        self.by_id = {machine.party.agent_id: machine for machine in machines}
        self.pools: dict[tuple[bytes, str], list[Machine]] = {}
        for machine in machines:  # who can check whom, by what the catalogue says of the variant
            for cpu in CPUS:
                if checkable(VARIANTS[machine.variant]) or cpu == machine.cpu:
                    self.pools.setdefault((machine.variant, cpu), []).append(machine)
        self.key = period_key(b"k" * 32, 1)
        self.tally = Tally()

    def run(self, jobs: int, progress: Callable[[int], None]) -> None:
        """Give every job to an agent, by chance."""
        for job in range(1, jobs + 1):
            self._job(job)
            if job % 20_000 == 0:
                progress(job)
        self.tally.jobs = jobs

    def _job(self, job: int) -> None:
        while True:
            machine = self.rng.choice(self.machines)
            if not rests(self.trust, machine, job):
                break
        false = machine.cheats(self.rng)
        party, variant = machine.party, machine.variant
        probability = 1.0 if self.rechecked else self.trust.probability(party, variant)
        held = self.rechecked or self.trust.newcomer(party, variant)
        draw = Draw.of(self.key, f"{party.agent_id} {job}".encode())
        machine.done += 1
        machine.own += 1
        if machine.caught_at is None and machine.kind != "honest":
            machine.drawn.append(probability)
        delivered = True
        if draw.check < probability:
            agreed = self._review(machine, job, draw, false=false)
            delivered = agreed or not held
        else:
            self.trust.accepted(party, variant)
        if not delivered:
            self.tally.undelivered += 1
        elif false:
            self.tally.wrong.append(job)
            machine.accepted_wrong += 1
            if machine.caught_at is None:
                machine.wrong_until_caught += 1
        machine.last = job

    def _free(self, machine: Machine, job: int) -> list[Party]:
        """Return those that have room for a check now: some of the machines that can do it, by chance."""
        pool = self.pools[machine.variant, machine.cpu]
        trusted = [other for other in pool if other.party.trusted]
        some = {other.party.agent_id: other for other in (*self.rng.sample(pool, min(AT_ONCE, len(pool))), *trusted)}
        return [other.party for other in some.values() if not rests(self.trust, other, job)]

    def _review(self, machine: Machine, job: int, draw: Draw, *, false: bool) -> bool:
        review = Review(machine.variant, VARIANTS[machine.variant], draw, self.trust.rules.trusted_share)
        review.votes.append(Vote(machine.party, machine.answer(job, false=false)))
        settlement = review.settle(self.classes, self.trust)
        while settlement.standing is Standing.OPEN:
            order = review.order(self._free(machine, job), self.trust, dispute=settlement.dispute)
            if not order:
                settlement = review.settle(self.classes, self.trust, more=False)
                break
            checker = self.by_id[order[0]]
            lies = checker.cheats(self.rng)
            review.votes.append(Vote(checker.party, checker.answer(job, false=lies)))
            checker.done += 1
            self.tally.extra.append(job)
            self.tally.checks["trusted" if checker.party.trusted else "others"] += 1
            settlement = review.settle(self.classes, self.trust)
        review.close(settlement, self.trust, self.classes, job)
        for number in settlement.wrong:
            blamed = self.by_id[review.votes[number].party.agent_id]
            blamed.blamed += 1
            if blamed.kind == "honest":
                self.tally.honest_blamed += 1
            if blamed.caught_at is None:
                blamed.caught_at = blamed.done
        if 0 not in settlement.right:
            self.tally.extra.append(job)  # it is run once more, elsewhere
        return 0 in settlement.right


def expected(machine: Machine, jobs: int, rules: TrustRules) -> tuple[float, float]:
    """Return mean and variance of the wrong results of one cheat that are accepted before it is caught.

    Backwards over its jobs: with probability p the next one is false; checked (q), it ends there; unchecked, it
    counts. For one q and many jobs the mean is (1-q)/q, whatever p; here q is what it was at each job until the cheat
    was caught, what `rules` say after that, also for one that was caught while it checked others, before it had
    a job of its own; and `jobs` is how many it would have been given.
    """
    kind, turned_at = machine.kind, machine.turned_at
    mean = square = 0.0
    for number in range(jobs - 1, -1, -1):
        if kind == "flips":
            p = FLIP_RATE
        elif kind == "patient":
            p = 1.0 if turned_at is not None and number >= turned_at else 0.0
        else:
            p = 1.0
        q = machine.drawn[number] if number < len(machine.drawn) else rules.probability(number)
        # accepted: 1 + what follows; caught: nothing more; honest: what follows
        square = p * (1 - q) * (1 + 2 * mean + square) + (1 - p) * square
        mean = p * (1 - q) * (1 + mean) + (1 - p) * mean
    return mean, square - mean * mean


def rests(trust: Trust, machine: Machine, job: int) -> bool:
    """Whether a machine is given nothing; looked up, since it is asked for every job."""
    agent = machine.party.lasting_id
    found = (trust.standings.get(Subject(agent)), trust.standings.get(Subject(agent, machine.variant)))
    return any(standing is not None and job < standing.resting_until_ms for standing in found)


def _horizon(machine: Machine, jobs: int, resting: set[str]) -> int:
    """Return how many jobs a cheat would have been given: no more after it rests without blame, unlike one caught."""
    return len(machine.drawn) if machine.caught_at is None and machine.party.agent_id in resting else jobs


def report(network: Network, jobs: int) -> dict[str, object]:
    """Return the figures of one run."""
    tally = network.tally
    half = jobs // 2
    late = sum(1 for job in tally.wrong if job > half)
    honest = [machine.own for machine in network.machines if machine.kind == "honest"]
    horizon = sum(honest) // len(honest)  # so many jobs a cheat would have been given, had it not been caught
    resting = {machine.party.agent_id for machine in network.machines if rests(network.trust, machine, jobs)}
    rows = {}
    for kind in KINDS:
        cheats = [machine for machine in network.machines if machine.kind == kind]
        found = sum(machine.wrong_until_caught for machine in cheats)
        rules = replace(network.trust.rules, floor=1.0) if network.rechecked else network.trust.rules
        means = [expected(machine, _horizon(machine, horizon, resting), rules) for machine in cheats]
        mean, sigma = sum(m for m, _ in means), math.sqrt(sum(v for _, v in means))
        first_wrong = [machine.caught_at for machine in cheats if machine.caught_at is not None]
        rows[kind] = {
            "cheats": len(cheats),
            "accepted_before_caught": found,
            "expected": round(mean, 1),
            "sigma": round(sigma, 1),
            "within_3_sigma": abs(found - mean) <= 3 * sigma + 1e-9,
            "caught": len(first_wrong),
            "resting_without_blame": sum(1 for m in cheats if m.caught_at is None and m.party.agent_id in resting),
            "latest_catch_at_its_job": max(first_wrong, default=None),
            "accepted_in_all": sum(machine.accepted_wrong for machine in cheats),
        }
    checks = sum(tally.checks.values())
    return {
        "mode": "rechecked" if network.rechecked else "signed",
        "jobs": jobs,
        "wrong_accepted": len(tally.wrong),
        "wrong_share_percent": round(100 * len(tally.wrong) / jobs, 4),
        "wrong_share_second_half_percent": round(100 * late / (jobs - half), 4),
        "honest_punished": tally.honest_blamed,
        "honest_resting": sum(
            1 for machine in network.machines if machine.kind == "honest" and machine.party.agent_id in resting
        ),
        "extra_runs_percent": round(100 * len(tally.extra) / jobs, 2),
        "extra_runs_second_half_percent": round(100 * sum(1 for job in tally.extra if job > half) / (jobs - half), 2),
        "checks_on_trusted_percent": round(100 * tally.checks["trusted"] / max(1, checks), 1),
        "kinds": rows,
    }


def picture(path: Path, networks: dict[str, Network], jobs: int) -> None:
    """Draw the wrong results that got through, over time, and the cost."""
    import matplotlib as mpl  # noqa: PLC0415 only for the picture

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    bins = 40
    width = jobs / bins
    for name, network in networks.items():
        wrong, extra = (
            Counter(int((j - 1) // width) for j in network.tally.wrong),
            Counter(int((j - 1) // width) for j in network.tally.extra),
        )
        x = [width * (i + 0.5) / 1000 for i in range(bins)]
        left.plot(x, [100 * wrong[i] / width for i in range(bins)], label=name)
        if not network.rechecked:
            right.plot(x, [100 * extra[i] / width for i in range(bins)], label=name)
    left.set_title("wrong results that were accepted, % of jobs")
    right.set_title("extra runs for checks, % of jobs (mode signed)")
    right.axhline(6, color="gray", linestyle=":")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.set_xlabel("thousand jobs")
        axes.grid(alpha=0.3)
    left.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run both modes and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--jobs", type=int, default=200_000)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    networks = {}
    for mode in ("signed", "rechecked"):
        rng = random.Random(args.seed)
        network = networks[mode] = Network(make(args.agents, rng), rng, rechecked=mode == "rechecked")
        begun = time.process_time()
        network.run(args.jobs, lambda _: None)
        print(json.dumps(report(network, args.jobs), indent=1))
        print(f"# {time.process_time() - begun:.0f} s of CPU")
    if args.picture is not None:
        picture(args.picture, networks, args.jobs)


if __name__ == "__main__":
    main()
