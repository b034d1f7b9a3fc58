"""A coordinator, or who stands between it and a client, about which keys were revoked: nothing, old things, lies."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from brokers import PATIENCE_SECONDS
from fakes import COORDINATOR_KEY, NETWORK, START_MS, answer_to, key, scan
from gateways import served
from signing import AGENT, SigningService, signed_receipt

from edge_agent import folders
from edge_agent.cli import main
from edge_agent.client import AsyncClient, Client, JobOptions, revocations
from edge_agent.client.proof import Verified
from edge_agent.client.revocations import ASK_SECONDS, FRESH_MS, KnownRevocations
from edge_agent.coordinator.events import AgentCertificates
from edge_agent.errors import EdgeAgentError, PeerError, StateError, TransportError
from edge_agent.wire.certificates import issue
from edge_agent.wire.envelope import seal
from edge_agent.wire.identity import Revocations, Revoked
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.oip_json import tensor_to_json
from edge_agent.wire.standing import MAX_LIST_BYTES

REGISTRAR, OTHER = key("registrar"), key("other")
IMAGE = np.full((1, 1, 8, 8), 3.0, np.float32)
REQUEST = json.dumps({"inputs": [tensor_to_json(scan(3))]}).encode()
CERTIFIED = issue(REGISTRAR, network=NETWORK, agent=AGENT.public, sealing_key=None, owner="ada", now_ms=START_MS)


def listed(
    *keys: SigningKey,
    since_ms: int = START_MS,
    at_ms: int = START_MS,
    signer: SigningKey = COORDINATOR_KEY,
    network: str = NETWORK,
) -> bytes:
    """Return a list on which these keys stand."""
    entries = tuple(Revoked(id=each.public.id, since_ms=since_ms, reason="stolen") for each in keys)
    return seal(signer, Revocations(network=network, issued_ms=at_ms, number=len(entries), revoked=entries))


class Desk:
    """The part of a coordinator that tells who was revoked, as a test wants it to."""

    registrar = None

    def __init__(self) -> None:
        self.says: Callable[[], bytes] = listed
        self.asked = 0

    def revocations(self) -> bytes:
        """Say it."""
        self.asked += 1
        return self.says()


class Scene:
    """A coordinator whose every result is right, and its clients, whose clocks are a test's."""

    def __init__(self, url: str, service: SigningService, desk: Desk) -> None:
        self.url, self.service, self.desk = url, service, desk
        self.now_ms = START_MS
        self.seconds = 0.0

    def client(self, **more: Any) -> Client:  # noqa: ANN401 as Client takes it
        """Return one that knows both keys."""
        made = Client(self.url, **{"coordinator_key": COORDINATOR_KEY.public, "registrar_key": REGISTRAR.public} | more)
        self._set(made)
        return made

    def _set(self, client: Client | AsyncClient) -> None:
        client._steps._wall = lambda: self.now_ms / 1000
        client._way.clock = lambda: self.seconds

    def ask(self, client: Client, *, as_json: bool = False) -> Verified:
        """Have the one job done that there is; the list is asked for anew each time."""
        self.seconds += 2 * ASK_SECONDS
        self.service.keys.clear()
        self.service._outcomes.clear()
        verified = (client.infer_json("digits", REQUEST) if as_json else client.infer("digits", IMAGE)).verified
        assert verified is not None
        return verified

    def refused(self, client: Client) -> str:
        """Return the code with which either way of asking is refused."""
        codes = set()
        for as_json in (False, True):
            with pytest.raises(PeerError) as seen:
                self.ask(client, as_json=as_json)
            codes.add(seen.value.error_code)
        (code,) = codes
        return code


@pytest.fixture
def scene() -> Iterator[Scene]:
    """Serve an honest one."""
    service, desk = SigningService(), Desk()
    receipt = signed_receipt(bytes(16), (scan(3),), answer_to(scan(3)), certificate=CERTIFIED)
    service.change = {"receipt": receipt}
    service.admissions = desk  # type: ignore[assignment] # what is asked of it here
    with served(service) as url:
        yield Scene(url, service, desk)


def test_an_agent_that_nobody_revoked_is_believed(scene: Scene) -> None:
    """Without this the tests below could refuse for a wrong reason; it is said how new the list is."""
    scene.desk.says = lambda: listed(OTHER)
    with scene.client() as client:
        seen = scene.ask(client).revocations
        assert seen is not None
        assert (seen.issued_ms, seen.count, seen.problem) == (START_MS, 1, "")
        assert any("not among the 1 that were revoked by" in each for each in scene.ask(client).means())
    with scene.client(registrar_key=None) as client:
        assert scene.ask(client).revocations is None
    assert scene.desk.asked == 2


def test_result_of_an_agent_that_was_revoked_before(scene: Scene) -> None:
    """By every way of asking, with or without asyncio; one that was revoked later was believed rightly."""
    scene.desk.says = lambda: listed(AGENT, since_ms=START_MS)
    with scene.client() as client:
        assert scene.refused(client) == "revoked"

    async def ask() -> str:
        async with AsyncClient(
            scene.url, coordinator_key=COORDINATOR_KEY.public, registrar_key=REGISTRAR.public
        ) as client:
            scene._set(client)
            scene.service._outcomes.clear()
            scene.service.keys.clear()
            with pytest.raises(PeerError) as seen:
                await client.infer("digits", IMAGE)
            return seen.value.error_code

    assert asyncio.run(ask()) == "revoked"
    scene.desk.says = lambda: listed(AGENT, since_ms=START_MS + 1)
    with scene.client() as client:
        assert scene.ask(client).agent_id == AGENT.public.id


def test_the_registrar_may_sign_the_list(scene: Scene) -> None:
    """As `edge-agent verify` takes it."""
    scene.desk.says = lambda: listed(AGENT, signer=REGISTRAR)
    with scene.client() as client:
        assert scene.refused(client) == "revoked"


def test_coordinator_that_withholds_the_list(scene: Scene) -> None:
    """The result is given out, and says what is not proven; what was heard before is not forgotten."""

    def nothing() -> bytes:
        raise TransportError("away", code="unreachable")

    scene.desk.says = nothing
    with scene.client() as client:
        client._way.rng.uniform = lambda *_: 10.0  # type: ignore[method-assign] # no further try fits in
        for as_json in (False, True):
            verified = scene.ask(client, as_json=as_json)
            assert verified.revocations is not None
            assert verified.revocations.issued_ms is None
            (sentence,) = [each for each in verified.means() if "was not revoked" in each]
            assert sentence.startswith("Not proven: ")
            assert "there is no list" in sentence
        scene.desk.says = lambda: listed(AGENT)
        assert scene.refused(client) == "revoked"
        scene.desk.says = nothing
        assert scene.refused(client) == "revoked"


def test_list_that_is_kept_back_at_an_old_state(scene: Scene) -> None:
    """A list of an hour ago is genuine, and no news: the result says so; one from the future is none either."""
    with scene.client() as client:
        for made_ms, stale in ((-FRESH_MS - 1, True), (-FRESH_MS, False), (FRESH_MS, False), (FRESH_MS + 1, True)):
            scene.desk.says = lambda made_ms=made_ms: listed(at_ms=START_MS + made_ms)  # type: ignore[misc] # bound now
            verified = scene.ask(client)
            assert verified.revocations is not None
            assert (verified.revocations.issued_ms, verified.revocations.count) == (START_MS + made_ms, 0)
            assert bool(verified.revocations.problem) is stale
            assert any(each.startswith("Not proven: that the agent's key was") for each in verified.means()) is stale


def test_list_that_is_rolled_back(scene: Scene) -> None:
    """It lacks a key that was seen, also with another one in its place, or dates it later: nothing is given out."""
    scene.desk.says = lambda: listed(OTHER, at_ms=START_MS + 1)
    with scene.client() as client:
        assert scene.ask(client).agent_id == AGENT.public.id
        later = listed(OTHER, key("third"), since_ms=START_MS + 1, at_ms=START_MS + 2)
        for older in (listed(), listed(key("third"), at_ms=START_MS + 2), later):
            scene.desk.says = lambda older=older: older  # type: ignore[misc] # bound now
            assert scene.refused(client) == "old-revocations"
        scene.desk.says = lambda: listed(OTHER, key("third"), at_ms=START_MS + 3)
        seen = scene.ask(client).revocations
        assert seen is not None
        assert seen.count == 2


def test_list_that_is_rolled_back_for_the_next_client(scene: Scene, tmp_path: Path) -> None:
    """With a file the newest list outlives the process; a file of somebody else's is not taken for one."""
    kept = tmp_path / "revoked"
    scene.desk.says = lambda: listed(OTHER)
    with scene.client(revocations_file=kept) as client:
        scene.ask(client)
    before = kept.read_bytes()
    scene.desk.says = listed
    with scene.client(revocations_file=kept) as client:
        assert scene.refused(client) == "old-revocations"
    assert kept.read_bytes() == before == listed(OTHER)
    kept.write_bytes(listed(signer=OTHER))
    with scene.client(revocations_file=kept) as client, pytest.raises(StateError, match="no list of revoked keys"):
        scene.ask(client)


LONG_RUNNING = """
import sys
from pathlib import Path
from edge_agent.client.revocations import KnownRevocations
from edge_agent.errors import EdgeAgentError
from edge_agent.wire.keys import PublicKey
known, signers = KnownRevocations(Path(sys.argv[1])), [PublicKey.from_bytes(bytes.fromhex(sys.argv[2]))]
for line in sys.stdin:
    try:
        known.take(bytes.fromhex(line), signers, sys.argv[3], 0.0)
        print("taken", flush=True)
    except EdgeAgentError as error:
        print(error.error_code, flush=True)
"""


def test_list_that_is_rolled_back_for_one_of_two_processes_with_one_file(tmp_path: Path) -> None:
    """What the other has kept meanwhile counts: it is neither unknown to the first nor written over by it."""
    kept, signers = tmp_path / "revoked", [COORDINATOR_KEY.public]
    some = listed(OTHER, at_ms=START_MS + 1)
    all_ = listed(OTHER, AGENT, at_ms=START_MS + 2)
    command = [sys.executable, "-c", LONG_RUNNING, str(kept), COORDINATOR_KEY.public.raw.hex(), NETWORK]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def told(said: bytes) -> str:
            process.stdin.write(said.hex() + "\n")  # type: ignore[union-attr] # there, as was looked at
            process.stdin.flush()  # type: ignore[union-attr]
            return process.stdout.readline().strip()  # type: ignore[union-attr]

        assert told(listed()) == "taken"
        KnownRevocations(kept).take(all_, signers, NETWORK, 0.0)
        assert told(some) == "old-revocations"
        assert kept.read_bytes() == all_
        assert told(all_) == "taken"
        process.stdin.close()
        assert process.wait() == 0
    with pytest.raises(PeerError) as seen:
        KnownRevocations(kept).take(some, signers, NETWORK, 0.0)
    assert seen.value.error_code == "old-revocations"
    assert kept.read_bytes() == all_


def test_list_that_is_rolled_back_between_the_look_and_the_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has looked at the file is alone with it until it is written: the other waits, or says why it cannot."""
    kept, signers = tmp_path / "revoked", [COORDINATOR_KEY.public]
    some, all_ = listed(OTHER, at_ms=START_MS + 1), listed(OTHER, AGENT, at_ms=START_MS + 2)
    codes: list[str] = []

    def write(path: Path, data: bytes) -> None:
        monkeypatch.undo()
        monkeypatch.setattr(folders, "PATIENCE_SECONDS", 0.0)
        with pytest.raises(StateError) as seen:
            KnownRevocations(kept).take(all_, signers, NETWORK, 0.0)
        codes.append(seen.value.error_code)
        folders.write_atomically(path, data)

    monkeypatch.setattr(revocations, "write_atomically", write)
    KnownRevocations(kept).take(some, signers, NETWORK, 0.0)
    assert codes == ["state-in-use"]
    KnownRevocations(kept).take(all_, signers, NETWORK, 0.0)
    assert kept.read_bytes() == all_


def test_file_of_the_list_that_another_process_does_not_let_go_of(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With asyncio nobody but the call that fetched the list waits for it: the loop goes on, and other calls end."""
    kept = tmp_path / "revoked"
    waits = threading.Event()
    wait_for = folders._wait_for

    def seen_waiting(lock: IO[str], patience_seconds: float) -> None:
        waits.set()
        wait_for(lock, patience_seconds)

    async def infer(client: AsyncClient) -> Verified:
        verified = (await client.infer("digits", IMAGE, options=JobOptions(idempotency_key="the one job"))).verified
        assert verified is not None
        return verified

    async def ask() -> None:
        keys = {"coordinator_key": COORDINATOR_KEY.public, "registrar_key": REGISTRAR.public}
        async with AsyncClient(scene.url, revocations_file=kept, **keys) as client:  # type: ignore[arg-type] # as named
            scene._set(client)
            await infer(client)
            scene.seconds += ASK_SECONDS
            scene.desk.says = lambda: listed(OTHER)
            with folders.alone_with(kept):
                monkeypatch.setattr(folders, "_wait_for", seen_waiting)
                first = asyncio.create_task(infer(client))
                assert await asyncio.to_thread(waits.wait, PATIENCE_SECONDS)
                seen = (await infer(client)).revocations
                assert seen is not None
                assert seen.count == 0
                assert not first.done()
            assert (await first).revocations == revocations.RevocationsSeen(START_MS, 1)
        assert kept.read_bytes() == listed(OTHER)

    asyncio.run(ask())


def test_file_of_the_list_is_put_back_or_taken_away(tmp_path: Path) -> None:
    """Whoever runs on knows what it has seen, and writes it down again with the next list."""
    kept, signers = tmp_path / "revoked", [COORDINATOR_KEY.public]
    known = KnownRevocations(kept)
    known.take(listed(OTHER), signers, NETWORK, 0.0)
    for put_back in (None, listed(at_ms=START_MS - 1)):
        kept.unlink() if put_back is None else kept.write_bytes(put_back)
        with pytest.raises(PeerError) as seen:
            known.take(listed(at_ms=START_MS + 1), signers, NETWORK, 0.0)
        assert seen.value.error_code == "old-revocations"
        known.take(listed(OTHER), signers, NETWORK, 0.0)
        assert kept.read_bytes() == listed(OTHER)


def test_list_that_nowhere_can_be_kept(tmp_path: Path) -> None:
    """It says where, and nothing is believed of it."""
    known = KnownRevocations(tmp_path / "nowhere" / "revoked")
    with pytest.raises(StateError, match=r"cannot be kept in .*nowhere/revoked: No such file"):
        known.take(listed(OTHER), [COORDINATOR_KEY.public], NETWORK, 0.0)
    assert known.why_revoked(OTHER.public.id) is None


@pytest.mark.parametrize(
    ("forged", "code"),
    [
        (listed(signer=OTHER), "unknown-key"),
        (listed()[:-1] + bytes((listed()[-1] ^ 1,)), "bad-signature"),
        (b"nothing of the kind", "malformed"),
        (bytes(MAX_LIST_BYTES + 1), "too-large"),
        (seal(COORDINATOR_KEY, Revocations(network="elsewhere", issued_ms=1, number=0, revoked=())), "wrong-network"),
        (CERTIFIED, "wrong-kind"),
    ],
    ids=["by-a-stranger", "altered", "no-list", "endless", "of-another-network", "another-statement"],
)
def test_list_that_is_forged(scene: Scene, forged: bytes, code: str) -> None:
    """Whoever stands between has only the choice to show a genuine one or none."""
    scene.desk.says = lambda: forged
    with scene.client() as client:
        assert scene.refused(client) == code
        scene.desk.says = listed
        assert scene.ask(client).agent_id == AGENT.public.id


def test_nothing_is_sealed_to_a_revoked_agent(scene: Scene) -> None:
    """Its certificate counts still; the list says more."""
    scene.service.operations.registry.certificates = {AGENT.public.id: AgentCertificates(CERTIFIED, b"")}
    with scene.client() as client:
        assert client.certificate(AGENT.public.id).owner == "ada"
        scene.seconds += 2 * ASK_SECONDS
        scene.desk.says = lambda: listed(AGENT)
        with pytest.raises(PeerError) as seen:
            client.certificate(AGENT.public.id)
        assert seen.value.error_code == "revoked"
    assert scene.service.submitted == []


def test_the_list_is_asked_for_now_and_then(scene: Scene) -> None:
    """Not for each result; and the newest one is heard within half a minute."""
    with scene.client() as client:
        for _ in range(5):
            client.infer("digits", IMAGE, options=JobOptions(idempotency_key="the one job"))
        assert scene.desk.asked == 1
        scene.desk.says = lambda: listed(AGENT)
        scene.seconds += ASK_SECONDS
        with pytest.raises(EdgeAgentError, match="was revoked: stolen"):
            client.infer("digits", IMAGE, options=JobOptions(idempotency_key="the one job"))


def test_commands_refuse_or_say_it(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`submit` prints nothing of a revoked agent's, `batch` writes the row down as failed; a stale list is told of."""
    monkeypatch.setattr("time.time", lambda: START_MS / 1000)
    registrar, scans, kept = tmp_path / "registrar.pub", tmp_path / "scan.json", tmp_path / "revoked"
    REGISTRAR.public.write(registrar)
    scans.write_bytes(REQUEST + b"\n")
    known = ["--coordinator", scene.url, "--registrar", str(registrar), "--revocations", str(kept)]
    scene.desk.says = lambda: listed(at_ms=START_MS - FRESH_MS - 1)
    submit = ["submit", "digits", "--input", str(scans), *known]
    assert main(submit) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["outputs"]
    assert "not proven: that the agent's key was not revoked" in printed.err
    scene.service._outcomes.clear()
    rows, out = tmp_path / "rows.jsonl", tmp_path / "results.jsonl"
    rows.write_bytes(scans.read_bytes())
    batch = ["batch", "run", str(rows), "--model", "digits", "--output", str(out), *known]
    assert main(batch) == 0
    assert json.loads(out.read_text().splitlines()[1])["revocations"]["problem"]
    assert "1 by agents that may have been revoked" in capsys.readouterr().out
    scene.service._outcomes.clear()
    out.unlink()
    scene.desk.says = lambda: listed(AGENT)
    assert main(submit) == 76
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "was revoked: stolen" in printed.err
    assert kept.read_bytes() == listed(AGENT)
    scene.service._outcomes.clear()
    assert main(batch) == 1
    assert json.loads(out.read_text().splitlines()[1])["error"]["code"] == "revoked"
    scene.desk.says = listed
    scene.service._outcomes.clear()
    assert main(submit) == 76
    assert "older list of revoked keys" in capsys.readouterr().err


@pytest.mark.parametrize("whose", ["agent", "coordinator"])
def test_coordinator_that_keeps_quiet_about_what_the_registrar_revoked(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    """Whoever has the list that `edge-agent registrar revoke` signs refuses what that key signed, and keeps it."""
    monkeypatch.setattr("time.time", lambda: START_MS / 1000)
    monkeypatch.setattr("time.time_ns", lambda: START_MS * 1_000_000)
    revoked = AGENT if whose == "agent" else COORDINATOR_KEY
    kept, secret, registrar = tmp_path / "revoked.cose", tmp_path / "registrar.key", tmp_path / "registrar.pub"
    REGISTRAR.write(secret)
    REGISTRAR.public.write(registrar)
    with scene.client(revocations_file=kept) as client:
        assert scene.ask(client).agent_id == AGENT.public.id
    kept.unlink()
    command = ["registrar", "revoke", revoked.public.id, "--key", str(secret), "--network", NETWORK, "--out", str(kept)]
    assert main([*command, "--reason", "stolen"]) == 0
    given = kept.read_bytes()

    def nothing() -> bytes:
        raise TransportError("away", code="unreachable")

    later = listed(revoked, since_ms=START_MS + 10**9, at_ms=START_MS + 1)
    for says, code in (
        (nothing, "revoked"),
        (listed, "old-revocations"),
        (lambda: later, "old-revocations"),
        (lambda: given, "revoked"),
    ):
        scene.desk.says = says
        with scene.client(revocations_file=kept) as client:
            client._way.rng.uniform = lambda *_: 10.0  # type: ignore[method-assign] # no further try fits in
            assert scene.refused(client) == code
        assert kept.read_bytes() == given
    scan_file, receipt, coordinator = tmp_path / "scan.json", tmp_path / "receipt.cose", tmp_path / "coordinator.pub"
    scan_file.write_bytes(REQUEST)
    receipt.write_bytes(scene.service.change["receipt"])  # type: ignore[arg-type] # as the scene made it
    COORDINATOR_KEY.public.write(coordinator)
    capsys.readouterr()
    scene.service._outcomes.clear()
    checked = ["--registrar", str(registrar), "--revocations", str(kept)]
    assert main(["submit", "digits", "--input", str(scan_file), "--coordinator", scene.url, *checked]) == 76
    verify = ["verify", str(receipt), "--coordinator-key", str(coordinator)]
    assert main([*verify, *checked]) == 76
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count(f"The key of the {whose} {revoked.public.id} was revoked: stolen.") == 2
    assert main(verify) == 0
