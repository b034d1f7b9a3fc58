"""What a result costs the coordinator: verifying, countersigning, and appending its receipt to the log; and the sizes.

    python benchmarks/receipts.py [--jobs 2000] [--leaves 20000] [--together 16] [--known] [--json]

One process plays everything around the coordinator: an agent signs its results beforehand, and the core, the writer's
own functions and a real database do with them what they do in production. The figures are CPU time of this process
(all threads), the mean over all jobs, with Python's garbage collector set as in the coordinator; `log` is the share of
the append and its leaf in `store`. The log has so many leaves before the first job. Sizes are of a receipt of `digits`,
plain and with its proof, and of the longest that a model with two outputs can have.
With `--together`, so many results, each with a signature of its own, are there at one moment, as under load: what the
coordinator signs because of them shares a signature. The agent is a newcomer whom nobody else could check: each of its
results is drawn. With `--known` it has done a thousand jobs: one in twenty is, and the ledger enters the others.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fakes import (
    COORDINATOR_KEY,
    NETWORK,
    CoordinatorScript,
    FakeAgent,
    ManualClock,
    answer_to,
    jobs_for,
    of_type,
    scan,
)

from edge_agent.coordinator.events import Commit, EndJob
from edge_agent.coordinator.ledger_table import Chain
from edge_agent.coordinator.log_table import Appender
from edge_agent.coordinator.receipt_log import ReceiptLog
from edge_agent.coordinator.store import Store
from edge_agent.coordinator.trust import Standing, Subject
from edge_agent.coordinator.writer import apply
from edge_agent.garbage import settle
from edge_agent.wire.bundles import Bundle, verify_bundle
from edge_agent.wire.certificates import issue
from edge_agent.wire.envelope import seal_together, signed_part
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.messages import Result, TensorDigest, VariantClass
from edge_agent.wire.receipts import Countersigned, make_receipts, receipt_leaf
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

GROUP = 16
"""Results that share a transaction, as under load."""


def fill(store: Store, leaves: int) -> Appender:
    """Give the log so many leaves."""
    with store.engine.begin() as connection:
        log = Appender.load(connection)
        for number in range(leaves):
            log.append(hashlib.sha256(b"%d" % number).digest())
        log.write(connection)
    return log


def signatures_ms() -> float:
    """Return what the signatures of a result take here: one verified, two made; CPU milliseconds."""
    data, turns = bytes(300), 1000
    begun = time.process_time()
    for _ in range(turns):
        COORDINATOR_KEY.sign(data)
        COORDINATOR_KEY.public.verify(COORDINATOR_KEY.sign(data), data)
    return (time.process_time() - begun) / turns * 1000


def longest_receipt() -> int:
    """Return the bytes of the longest receipt of a model with two outputs, its agent certified for a long name."""
    key, registrar = SigningKey.generate(), SigningKey.generate()
    now_ms, salt = 1_800_000_000_000, bytes(32)
    klass = VariantClass(
        variant=salt, runtime="onnxruntime 1.32.0", provider="CPUExecutionProvider", isa="x86_64+avx512f+vnni"
    )
    outputs = [Tensor(TensorSpec("logits", DataType.FP32, (1, 10)), bytes(40)), answer_to(scan(3))[1]]
    said = Result(
        network=NETWORK, issued_ms=now_ms, job=bytes(16), epoch=1, agent_id=key.public.id, family="digits",
        variant=salt, klass=klass, inputs=(TensorDigest.of(scan(3), salt),),
        outputs=tuple(TensorDigest.of(tensor) for tensor in outputs),
        received_ms=now_ms, finished_ms=now_ms, run_us=300_000,
    )  # fmt: skip
    data = [tensor.data for tensor in outputs]
    results = [signed_part(each, Result.max_statement_bytes) for each in seal_together(key, [(said, data)] * 100)]
    longest = 0
    for letters in range(1, 65):
        owner = "a" * letters
        signed = issue(registrar, network=NETWORK, agent=key.public, sealing_key=bytes(32), owner=owner, now_ms=now_ms)
        some = [Countersigned(result, key.public, salt, signed) for result in results]
        made = make_receipts(COORDINATOR_KEY, some, network=NETWORK, accepted_ms=now_ms)
        longest = max(longest, *map(len, made))
    return longest


def get_to_know(script: CoordinatorScript, agent: FakeAgent) -> None:
    """Have it done a thousand jobs."""
    party = script.core.parties.party(agent.id)
    subjects = Subject(party.lasting_id, agent.offer().variant), Subject(f"owner:{party.owner}")
    script.core.checking.trust.restore({subject: Standing(count=1000) for subject in subjects})


def measure(jobs: int, leaves: int, folder: Path, together: int = 1, *, known: bool = False) -> dict[str, Any]:
    """Return the figures."""
    clock = ManualClock()
    script = CoordinatorScript(clock)
    agent = FakeAgent("agent", clock)
    store = Store(folder / "coordinator.db")
    log = fill(store, leaves)
    script.connect()
    script.join(agent, agent.offer(room=together))
    if known:
        get_to_know(script, agent)
    verify = stored = logged = 0.0
    settle()  # as the coordinator does when it has started
    waiting: list[Commit] = []
    receipts: list[bytes] = []
    connection = store.engine.connect()
    chain = Chain.load(connection)
    connection.rollback()
    for _ in range(jobs // together):
        commands = [command for _ in range(together) for command in script.submit()[1]]
        commits = of_type(commands, Commit)
        answers = [agent.result(job) for job in jobs_for(agent, commands)]
        begun = time.process_time()
        commands = script.core.handle_together(answers, clock.now)
        verify += time.process_time() - begun
        waiting += [*commits, *of_type(commands, Commit)]
        if len(waiting) < 2 * GROUP:
            continue
        receipts = [r.outcome.receipt or b"" for c in waiting for r in c.records if isinstance(r, EndJob)]
        begun = time.process_time()
        with connection.begin():
            for commit in waiting:
                for record in commit.records:
                    apply(connection, record, log, chain)
            log.write(connection)
            chain.write(connection)
        stored += time.process_time() - begun
        waiting.clear()
        begun = time.process_time()  # once more, and given up: what the log alone takes
        spare = Appender.load(connection)
        connection.rollback()
        with connection.begin() as given_up:
            middle = time.process_time()
            for receipt in receipts:
                spare.append(receipt_leaf(receipt))
            spare.write(connection)
            logged += time.process_time() - middle
            given_up.rollback()
    connection.close()
    proofs = ReceiptLog(store, COORDINATOR_KEY, NETWORK, lambda: clock.now)
    found, head = asyncio.run(proofs.inclusion(receipt_leaf(receipts[-1])))
    bundle = Bundle(receipts[-1], head.signed, found.index, tuple(found.path)).encode()
    verify_bundle(bundle, COORDINATOR_KEY.public)
    size = (folder / "coordinator.db").stat().st_size
    store.close()
    return {
        "jobs": jobs,
        "together": together,
        "known": known,
        "leaves": leaves,
        "verify_ms": verify / jobs * 1000,
        "signatures_ms": signatures_ms(),
        "store_ms": stored / jobs * 1000,
        "log_ms": logged / jobs * 1000,
        "verify_and_log_ms": (verify + logged) / jobs * 1000,
        "receipt_bytes": len(receipts[-1]),
        "longest_receipt_bytes": longest_receipt(),
        "bundle_bytes": len(bundle),
        "bundle_leaves": found.size,
        "database_bytes": size,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--leaves", type=int, default=20_000)
    parser.add_argument("--together", type=int, default=1)
    parser.add_argument("--known", action="store_true", help="the agent is no newcomer")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args.jobs, args.leaves, Path(folder), args.together, known=args.known)
    if args.json:
        print(json.dumps(found))
        return
    print(
        f"verify and countersign   {found['verify_ms']:.3f} ms CPU a result (the core, the settled statement included)"
    )
    print(f"of it, Ed25519           {found['signatures_ms']:.3f} ms CPU: one signature verified, two made")
    print(f"append to the log        {found['log_ms']:.3f} ms CPU a result, a log of {found['bundle_leaves']} leaves")
    print(f"both                     {found['verify_and_log_ms']:.3f} ms CPU a result")
    print(f"everything that is stored of a job, the log included   {found['store_ms']:.3f} ms CPU")
    print(f"receipt                  {found['receipt_bytes']} bytes; with its proof {found['bundle_bytes']}")
    print(f"with a certificate, an owner's name of 1 to 64 letters  {found['longest_receipt_bytes']} bytes at most")


if __name__ == "__main__":
    main()
