"""Attacks on the catalogue, as TUF names them: each is refused, what was trusted stays, and the agent goes on with it.

An attacker sits between the operator and the agent: he serves what he likes, from copies, with or without stolen keys,
over a real HTTP server. `in force` is the catalogue that the agent goes by; beside it the agent keeps genuine metadata
that it has verified, which may become newer also when a refresh fails.
"""

from __future__ import annotations

import datetime as dt
import http.server
import json
import logging
import os
import shutil
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from repositories import NOW, Operator
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.ngclient._internal import trusted_metadata_set

from edge_agent.errors import CatalogueRefusedError, ProcessFailedError, TransportError
from edge_agent.models import known as knowing
from edge_agent.models.known import Known, Record, known
from edge_agent.models.publishing import roles
from edge_agent.models.publishing.roles import DAYS, KeySigner, Role
from edge_agent.models.publishing.server import Server
from edge_agent.models.refresh import MAX_TIMESTAMP_BYTES, refresh
from edge_agent.models.refresher import Refresher
from edge_agent.models.transfer import Limits, Source
from edge_agent.wire.keys import SigningKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IMPATIENT = Limits(connect_seconds=5.0, silence_seconds=5.0, patience_seconds=0.2)
FAR = 2**31


class Agent:
    """An agent that pinned the operator's root, and whose way to the operator an attacker controls."""

    def __init__(self, folder: Path, operator: Operator, clock: Clock) -> None:
        self.operator = operator
        self.clock = clock
        self.root = operator.root_file.read_bytes()
        self.state = folder / "state"
        self.served = folder / "served"
        self.root_file = folder / "pinned.json"
        self.root_file.write_bytes(self.root)
        self.url = ""
        self.limits = Limits()

    def relay(self) -> None:
        """Let the attacker serve exactly what the operator publishes now."""
        shutil.rmtree(self.served, ignore_errors=True)
        shutil.copytree(self.operator.public, self.served)

    def refresh(self, root: bytes | None = None) -> Record:
        """Ask for news."""
        now_ms = int(self.clock.now.timestamp() * 1000)
        return refresh(self.url, root or self.root, self.state, now_ms, Source(self.limits))

    def known(self) -> Known:
        """What the agent goes by."""
        source = knowing.Source(self.state, self.url, self.root_file)
        return known(source, int(self.clock.now.timestamp() * 1000))

    def families(self) -> list[str]:
        """The published families that the agent goes by."""
        return [family.name for family in self.known().catalogue.families if family.name != "digits"]

    def trusted(self) -> dict[str, bytes]:
        """Every file that the agent trusts."""
        found = {str(p.relative_to(self.state)): p.read_bytes() for p in self.state.rglob("*") if p.is_file()}
        found.pop("lock", None)
        return found

    def in_force(self) -> dict[str, bytes]:
        """The catalogue that the agent goes by, and the record that says so."""
        return {name: data for name, data in self.trusted().items() if not name.startswith("metadata")}

    def metadata(self, role: Role) -> bytes:
        """The verified metadata of a role."""
        return (self.state / "metadata" / f"{role}.json").read_bytes()


class Clock:
    """The time of day that python-tuf sees."""

    def __init__(self) -> None:
        self.now = NOW

    def forward(self, days: float) -> None:
        """Let time pass."""
        self.now += timedelta(days=days)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that the test moves; python-tuf reads it through its module `datetime`."""
    found = Clock()

    class FakeDatetime(datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> FakeDatetime:
            return cls.fromtimestamp(found.now.timestamp(), tz)

    class FakeModule:
        datetime = FakeDatetime
        timezone = dt.timezone

    monkeypatch.setattr(trusted_metadata_set, "datetime", FakeModule)
    return found


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    """An operator who has published the family `a`."""
    made = Operator(tmp_path / "repository")
    made.publish("a")
    return made


@contextmanager
def serving(server: http.server.ThreadingHTTPServer) -> Iterator[str]:
    """Serve until the block ends; give the address."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def agent(tmp_path: Path, operator: Operator, clock: Clock) -> Iterator[Agent]:
    """An agent that goes by the catalogue with `a`."""
    made = Agent(tmp_path, operator, clock)
    made.relay()
    with serving(Server(("127.0.0.1", 0), made.served, logging.getLogger("edge_agent.test"))) as made.url:
        made.refresh()
        assert made.families() == ["a"]
        yield made


def refused(agent: Agent, match: str, *, code: str = "catalogue-refused", families: tuple[str, ...] = ("a",)) -> None:
    """Refresh, and see that it is refused, that nothing that is trusted changed, and that the agent goes on."""
    before = agent.trusted()
    with pytest.raises(CatalogueRefusedError, match=match) as error:
        agent.refresh()
    assert error.value.error_code == code
    assert agent.trusted() == before
    assert agent.families() == list(families)


def sign(metadata: Metadata[Any], *keys: SigningKey) -> bytes:
    """Sign with stolen keys."""
    metadata.signatures.clear()
    for key in keys:
        metadata.sign(KeySigner(key), append=True)
    return metadata.to_bytes()


def forge_timestamp(agent: Agent, version: int, change: Callable[[Timestamp], None] = lambda _: None) -> None:
    """Serve a timestamp that is signed with the operator's stolen key."""
    path = agent.served / "metadata" / "timestamp.json"
    metadata = Metadata[Timestamp].from_file(str(path))
    metadata.signed.version = version
    change(metadata.signed)
    path.write_bytes(sign(metadata, *agent.operator.keys["timestamp"]))


def forge_snapshot(agent: Agent, version: int, targets: bytes) -> None:
    """Serve a snapshot and a timestamp, signed with the operator's stolen keys, for other targets."""
    expires = roles.expiry(agent.clock.now, 9)
    snapshot = Metadata(roles.new_snapshot(version, expires, Metadata[Targets].from_bytes(targets), targets))
    data = sign(snapshot, *agent.operator.keys["snapshot"])
    (agent.served / "metadata" / f"{version}.snapshot.json").write_bytes(data)
    timestamp = Metadata(roles.new_timestamp(version, expires, snapshot, data))
    (agent.served / "metadata" / "timestamp.json").write_bytes(sign(timestamp, *agent.operator.keys["timestamp"]))


# -- rollback -----------------------------------------------------------------------------------------------------


def test_rollback_of_the_timestamp(agent: Agent) -> None:
    """An older timestamp, genuine when it was made, does not bring an older catalogue back."""
    old = (agent.served / "metadata" / "timestamp.json").read_bytes()
    agent.operator.publish("b")
    agent.relay()
    agent.refresh()
    (agent.served / "metadata" / "timestamp.json").write_bytes(old)
    refused(agent, "version", families=("a", "b"))


def test_rollback_of_the_snapshot(agent: Agent) -> None:
    """Who stole the timestamp's key cannot name an older snapshot."""
    old = Metadata[Timestamp].from_file(str(agent.served / "metadata" / "timestamp.json")).signed.snapshot_meta
    agent.operator.publish("b")
    agent.relay()
    agent.refresh()

    def back(timestamp: Timestamp) -> None:
        timestamp.snapshot_meta = old

    forge_timestamp(agent, 3, back)
    refused(agent, "snapshot version", families=("a", "b"))


def test_rollback_of_the_targets(agent: Agent) -> None:
    """Who stole the keys of snapshot and timestamp cannot name an older catalogue: targets only grow."""
    old = (agent.served / "metadata" / "1.targets.json").read_bytes()
    agent.operator.publish("b")
    agent.relay()
    agent.refresh()
    before, snapshot, targets = agent.in_force(), agent.metadata("snapshot"), agent.metadata("targets")
    forge_snapshot(agent, 3, old)
    with pytest.raises(CatalogueRefusedError, match=r"targets\.json version"):
        agent.refresh()
    assert agent.in_force() == before
    assert (agent.metadata("snapshot"), agent.metadata("targets")) == (snapshot, targets)
    assert agent.families() == ["a", "b"]


# -- freeze -------------------------------------------------------------------------------------------------------


def test_freeze_at_an_old_timestamp(agent: Agent) -> None:
    """News that are held back are noticed when the timestamp expires; what was known stays, with a warning."""
    agent.operator.publish("b")
    agent.clock.forward(DAYS["timestamp"] + 1)
    refused(agent, "timestamp.json is expired", code="catalogue-expired")
    assert "expired on" in agent.known().problem


def test_freeze_ends_with_the_grace(agent: Agent) -> None:
    """Held back for longer than the owner bears, the published families are no longer used."""
    agent.clock.forward(DAYS["timestamp"] + 89)
    assert agent.families() == ["a"]
    agent.clock.forward(2)
    assert agent.families() == []
    assert "longer ago than" in agent.known().problem
    assert agent.known().catalogue.family("digits").variants


def test_freeze_with_the_timestamp_key_alone(agent: Agent) -> None:
    """Who can sign timestamps keeps the catalogue from ageing only until the snapshot expires."""
    agent.clock.forward(DAYS["snapshot"] + 1)
    expires = roles.expiry(agent.clock.now, 9)

    def young(timestamp: Timestamp) -> None:
        timestamp.expires = expires

    forge_timestamp(agent, 2, young)
    before = agent.in_force()
    with pytest.raises(CatalogueRefusedError, match=r"snapshot\.json is expired"):
        agent.refresh()
    assert agent.in_force() == before


def test_freeze_with_all_online_keys(agent: Agent) -> None:
    """Who can sign snapshots, too, keeps it only until the targets expire, whose key lies elsewhere."""
    agent.clock.forward(DAYS["targets"] + 1)
    forge_snapshot(agent, 2, (agent.served / "metadata" / "1.targets.json").read_bytes())
    before = agent.in_force()
    with pytest.raises(CatalogueRefusedError, match=r"targets.*expired"):
        agent.refresh()
    assert agent.in_force() == before


def test_expired_root(agent: Agent) -> None:
    """With a root that expired, nothing is believed, whoever signed it."""
    agent.clock.forward(DAYS["root"] + 1)
    refused(agent, "root.json is expired", code="catalogue-expired", families=())


# -- mix and match -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("new", "old"), [("2.snapshot.json", "1.snapshot.json"), ("2.targets.json", "1.targets.json")])
def test_mix_and_match(agent: Agent, new: str, old: str) -> None:
    """Genuine files of different moments do not make a catalogue; only genuine metadata is kept of the attempt."""
    agent.operator.publish("b")
    agent.relay()
    shutil.copy(agent.served / "metadata" / old, agent.served / "metadata" / new)
    before = agent.in_force()
    with pytest.raises(CatalogueRefusedError):
        agent.refresh()
    assert agent.in_force() == before
    assert agent.families() == ["a"]
    genuine = {path.read_bytes() for path in (agent.operator.public / "metadata").iterdir()}
    assert {agent.metadata(role) for role in roles.ROLES} <= genuine
    agent.relay()
    agent.refresh()
    assert agent.families() == ["a", "b"]


def test_catalogue_of_another_moment(agent: Agent) -> None:
    """The old catalogue under the new one's name is not the file that was vouched for."""
    old = next((agent.served / "targets").iterdir()).read_bytes()
    agent.operator.publish("b")
    agent.relay()
    for path in (agent.served / "targets").iterdir():
        path.write_bytes(old)
    before = agent.in_force()
    with pytest.raises(CatalogueRefusedError):
        agent.refresh()
    assert agent.in_force() == before
    assert agent.families() == ["a"]


# -- fast forward ---------------------------------------------------------------------------------------------------


def test_fast_forward_of_the_timestamp_and_recovery(agent: Agent) -> None:
    """A stolen timestamp key makes an agent wait for a version that never comes, until the key is changed."""
    forge_timestamp(agent, FAR)
    agent.refresh()
    agent.operator.publish("b")
    agent.relay()
    refused(agent, "version")
    replace_key(agent.operator, "timestamp")
    agent.operator.publish()
    agent.relay()
    assert agent.refresh().versions["timestamp"] < FAR
    assert agent.families() == ["a", "b"]


def test_fast_forward_of_the_snapshot_and_recovery(agent: Agent) -> None:
    """The same with both online keys: both are changed, and the agent follows."""
    forge_snapshot(agent, FAR, (agent.served / "metadata" / "1.targets.json").read_bytes())
    agent.refresh()
    agent.operator.publish("b")
    agent.relay()
    refused(agent, "version")
    replace_key(agent.operator, "timestamp")
    replace_key(agent.operator, "snapshot")
    agent.operator.publish()
    agent.relay()
    assert agent.refresh().versions["snapshot"] < FAR
    assert agent.families() == ["a", "b"]


# -- keys -----------------------------------------------------------------------------------------------------------


def replace_key(operator: Operator, role: Role) -> SigningKey:
    """Replace the operator's key of a role; return the old one."""
    old = operator.keys[role][0]
    new = SigningKey.generate(os.urandom(32))
    operator.repository.propose(role, now=operator.now, add=[new.public], revoke=[old.public.id])
    operator.keys[role] = [old, new] if role == "root" else [new]
    operator.publish()
    operator.keys[role] = [new]
    return old


def test_key_rotation_over_several_roots(agent: Agent) -> None:
    """An agent that slept through three changes follows them one by one, from the root it pinned."""
    for role in ("root", "targets", "root"):
        replace_key(agent.operator, role)
    agent.operator.publish("b")
    agent.relay()
    assert agent.refresh().versions["root"] == 4
    assert agent.families() == ["a", "b"]
    kept = {path.name for path in (agent.state / "metadata" / "root_history").iterdir()}
    assert kept == {f"{version}.root.json" for version in range(1, 5)}


def test_revoked_targets_key(agent: Agent) -> None:
    """What a revoked key signs is worth nothing, even with both online keys in the attacker's hand."""
    old = replace_key(agent.operator, "targets")
    agent.relay()
    agent.refresh()
    evil = Metadata[Targets].from_file(str(agent.served / "metadata" / "2.targets.json"))
    evil.signed.version = 3
    data = sign(evil, old)
    (agent.served / "metadata" / "3.targets.json").write_bytes(data)
    forge_snapshot(agent, 3, data)
    before, targets = agent.in_force(), agent.metadata("targets")
    with pytest.raises(CatalogueRefusedError, match="signed"):
        agent.refresh()
    assert (agent.in_force(), agent.metadata("targets")) == (before, targets)


def test_revocation_is_not_forgotten_when_the_rest_fails(agent: Agent) -> None:
    """A newer root is kept although nothing else came: the key that it revokes must not be believed the next time."""
    old = replace_key(agent.operator, "timestamp")
    agent.relay()
    (agent.served / "metadata" / "timestamp.json").unlink()
    with pytest.raises(TransportError):
        agent.refresh()
    (agent.served / "metadata" / "2.root.json").unlink()
    stolen = Metadata[Timestamp].from_file(str(agent.operator.public / "metadata" / "timestamp.json"))
    stolen.signed.version = 9
    (agent.served / "metadata" / "timestamp.json").write_bytes(sign(stolen, old))
    refused(agent, "signed")


@pytest.mark.parametrize("role", roles.ROLES)
def test_stranger_signs(agent: Agent, role: Role) -> None:
    """A key that the root does not name counts for no role."""
    stranger = SigningKey.generate(bytes([66]) * 32)
    agent.operator.publish("b")
    agent.relay()
    if role == "root":
        agent.operator.repository.propose("timestamp", now=NOW, add=[stranger.public])
        pending = agent.operator.repository.layout.pending / "root.json"
        name, source = "2.root.json", pending
    else:
        name = "timestamp.json" if role == "timestamp" else f"2.{role}.json"
        source = agent.served / "metadata" / name
    metadata: Metadata[Any] = Metadata.from_file(str(source))
    (agent.served / "metadata" / name).write_bytes(sign(metadata, stranger))
    before = agent.in_force()
    with pytest.raises(CatalogueRefusedError):
        agent.refresh()
    assert agent.in_force() == before
    assert agent.families() == ["a"]


def test_root_that_its_predecessor_did_not_sign(agent: Agent) -> None:
    """A new root that signs for itself alone is nobody's root."""
    root = Metadata[Root].from_bytes(agent.root)
    usurper = SigningKey.generate(bytes([66]) * 32)
    root.signed.version = 2
    root.signed.add_key(roles.as_tuf(usurper.public), "root")
    root.signed.revoke_key(agent.operator.keys["root"][0].public.id, "root")
    (agent.served / "metadata" / "2.root.json").write_bytes(sign(root, usurper))
    refused(agent, "root was signed by 0/1 keys")


def test_root_that_skips_a_version(agent: Agent) -> None:
    """A root of a later version under the next one's name is refused, though it is signed."""
    root = Metadata[Root].from_bytes(agent.root)
    root.signed.version = 3
    (agent.served / "metadata" / "2.root.json").write_bytes(sign(root, *agent.operator.keys["root"]))
    refused(agent, "Expected root version 2")


@pytest.mark.parametrize("role", ["root", "targets"])
def test_below_the_threshold(tmp_path: Path, clock: Clock, role: Role) -> None:
    """With a threshold of two, one stolen key signs nothing, however often."""
    operator = Operator(tmp_path / "repository", thresholds={"root": 2, "targets": 2})
    operator.publish("a")
    agent = Agent(tmp_path, operator, clock)
    agent.relay()
    with serving(Server(("127.0.0.1", 0), agent.served, logging.getLogger("edge_agent.test"))) as agent.url:
        agent.refresh()
        stolen = operator.keys[role][0]
        if role == "root":
            root = Metadata[Root].from_bytes(agent.root)
            root.signed.version = 2
            (agent.served / "metadata" / "2.root.json").write_bytes(sign(root, stolen, stolen))
        else:
            targets = Metadata[Targets].from_file(str(agent.served / "metadata" / "1.targets.json"))
            targets.signed.version = 2
            data = sign(targets, stolen, stolen)
            (agent.served / "metadata" / "2.targets.json").write_bytes(data)
            forge_snapshot(agent, 2, data)
        before = agent.in_force()
        with pytest.raises(CatalogueRefusedError, match="signed by 1/2 keys"):
            agent.refresh()
        assert agent.in_force() == before
        assert agent.families() == ["a"]


def test_wrong_root_pinned(agent: Agent, tmp_path: Path) -> None:
    """Another operator's root trusts nothing of this one; with the right root all is as before."""
    other = Operator(tmp_path / "other", seed=2)
    other.publish("evil")
    before = agent.in_force()
    with pytest.raises(CatalogueRefusedError, match="signed"):
        agent.refresh(other.root_file.read_bytes())
    assert agent.in_force() == before
    assert agent.families() == ["a"]
    agent.refresh()
    assert agent.families() == ["a"]


def test_another_root_makes_what_was_fetched_worthless(agent: Agent, tmp_path: Path) -> None:
    """An owner who pins another root goes by nothing that the old one vouched for."""
    other = Operator(tmp_path / "other", seed=2)
    other.publish()
    agent.root_file.write_bytes(other.root_file.read_bytes())
    assert agent.families() == []
    assert "another root was pinned" in agent.known().problem


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 100_000, b'{"signed": {"_type": "root"}}'])
def test_pinned_root_that_is_none(agent: Agent, content: bytes) -> None:
    """Rubbish is not taken for a root."""
    before = agent.in_force()
    with pytest.raises(CatalogueRefusedError):
        agent.refresh(content or b" ")
    assert agent.in_force() == before


# -- what is served ---------------------------------------------------------------------------------------------------


def test_arbitrary_catalogue(agent: Agent) -> None:
    """Another file of the same length is not the one that was vouched for."""
    agent.operator.publish("b")
    agent.relay()
    for path in (agent.served / "targets").iterdir():
        path.write_bytes(path.read_bytes().replace(b"digits", b"evil!!"))
    before = agent.in_force()
    with pytest.raises(CatalogueRefusedError, match="hash"):
        agent.refresh()
    assert agent.in_force() == before
    assert agent.families() == ["a"]


@pytest.mark.parametrize("name", ["2.root.json", "timestamp.json", "2.snapshot.json", "2.targets.json", "catalogue"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_truncated(agent: Agent, name: str, keep: float) -> None:
    """A file that was cut is refused, wherever it was cut."""
    replace_key(agent.operator, "timestamp")  # so that there is a second root
    agent.operator.publish("b")
    agent.relay()
    metadata = agent.served / "metadata"
    paths = list((agent.served / "targets").iterdir()) if name == "catalogue" else [metadata / name]
    for path in paths:
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * keep)])
    before = agent.in_force()
    with pytest.raises(CatalogueRefusedError):
        agent.refresh()
    assert agent.in_force() == before
    assert agent.families() == ["a"]


def signed_targets(agent: Agent, version: int, change: Callable[[Targets], None]) -> None:
    """Serve targets that the operator himself signed, as he would by mistake, with all that belongs to it."""
    targets = Metadata[Targets].from_file(str(agent.served / "metadata" / "1.targets.json"))
    targets.signed.version = version
    change(targets.signed)
    data = sign(targets, *agent.operator.keys["targets"])
    (agent.served / "metadata" / f"{version}.targets.json").write_bytes(data)
    forge_snapshot(agent, version, data)


def test_undefined_target(agent: Agent) -> None:
    """Signed targets without a catalogue leave the agent with the one it has."""

    def change(targets: Targets) -> None:
        targets.targets = {"other.json": targets.targets["catalogue.json"]}

    before = agent.in_force()
    signed_targets(agent, 2, change)
    with pytest.raises(CatalogueRefusedError, match=r"has no catalogue\.json"):
        agent.refresh()
    assert agent.in_force() == before
    assert agent.families() == ["a"]


def test_extraneous_target_is_never_asked_for(agent: Agent, caplog: pytest.LogCaptureFixture) -> None:
    """Files beside the catalogue, signed or not, are not fetched."""

    def change(targets: Targets) -> None:
        targets.targets["extra.bin"] = TargetFile.from_data("extra.bin", b"x" * 1000, ["sha256"])

    signed_targets(agent, 2, change)
    (agent.served / "targets" / "extra.bin").write_bytes(b"x" * 1000)
    caplog.set_level(logging.INFO, "edge_agent.test")
    agent.refresh()
    asked = [record.getMessage() for record in caplog.records]
    assert any("timestamp.json" in text for text in asked)
    assert not any("extra.bin" in text for text in asked)
    assert agent.families() == ["a"]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"not json", "cannot read it"),
        (b'{"version": 1, "families": [], "more": 1}', "cannot read it"),
        (b'{"version": 1, "families": ["a"]}', "cannot read it"),
    ],
)
def test_signed_rubbish(agent: Agent, data: bytes, match: str) -> None:
    """What is signed and no catalogue, or one of a later version of the format, changes nothing."""
    target = TargetFile.from_data("catalogue.json", data, ["sha256"])

    def change(targets: Targets) -> None:
        targets.targets = {"catalogue.json": target}

    before = agent.in_force()
    signed_targets(agent, 2, change)
    (agent.served / "targets" / f"{target.hashes['sha256']}.catalogue.json").write_bytes(data)
    with pytest.raises(CatalogueRefusedError, match=match):
        agent.refresh()
    assert agent.in_force() == before
    assert agent.families() == ["a"]


def test_announced_too_large(agent: Agent) -> None:
    """A catalogue above the limit is not even fetched."""

    def change(targets: Targets) -> None:
        targets.targets["catalogue.json"].length = 5 * 1024 * 1024
        targets.targets["catalogue.json"].hashes["sha256"] = "0" * 64

    signed_targets(agent, 2, change)
    with pytest.raises(CatalogueRefusedError, match="no more than"):
        agent.refresh()
    assert agent.families() == ["a"]


# -- servers that do not end, or hardly begin --------------------------------------------------------------------------


class _Rogue(http.server.BaseHTTPRequestHandler):
    """Serves files of a folder, but for one that it answers in its own way."""

    folder: Path
    match: str
    way: Callable[[Any], None]

    def do_GET(self) -> None:
        if self.match in self.path:
            self.way()
            return
        path = self.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def rogue(agent: Agent, match: str, way: Callable[[Any], None]) -> Iterator[None]:
    """Put a server in the way that answers one file in its own way."""
    handler = type("Rogue", (_Rogue,), {"folder": agent.served, "match": match, "way": way})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    before = agent.url
    with serving(server) as agent.url:
        yield
    agent.url = before


@pytest.mark.parametrize("match", ["2.root.json", "timestamp.json", "2.snapshot.json", "2.targets.json", "catalogue"])
def test_endless_data(agent: Agent, match: str) -> None:
    """A file without an end is left after as many bytes as it may have, and takes no room on the disk."""
    agent.operator.publish("b")
    agent.relay()
    sent = [0]

    def endless(handler: Any) -> None:  # noqa: ANN401 the handler of this test
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                sent[0] += handler.wfile.write(b"{" * 65_536)
        except OSError:
            pass

    before = agent.in_force()
    with rogue(agent, match, endless):
        with pytest.raises(CatalogueRefusedError, match="more bytes"):
            agent.refresh()
        assert agent.in_force() == before
        assert agent.families() == ["a"]
    assert sum(p.stat().st_size for p in agent.state.rglob("*") if p.is_file()) < 100_000
    if match == "timestamp.json":
        assert sent[0] < MAX_TIMESTAMP_BYTES + 16 * 1024 * 1024  # what the sockets' buffers took


@pytest.mark.parametrize("match", ["timestamp.json", "catalogue"])
def test_slow_retrieval(agent: Agent, match: str) -> None:
    """A server that drips is left."""
    agent.operator.publish("b")
    agent.relay()
    over = threading.Event()
    agent.limits = IMPATIENT

    def drip(handler: Any) -> None:  # noqa: ANN401 as above
        handler.send_response(200)
        handler.end_headers()
        try:
            while not over.wait(0.01):
                handler.wfile.write(b" ")
        except OSError:
            pass

    before = agent.in_force()
    with rogue(agent, match, drip):
        with pytest.raises(TransportError, match="too slow"):
            agent.refresh()
        over.set()
        assert agent.in_force() == before
        assert agent.families() == ["a"]


def test_slow_retrieval_of_the_head(agent: Agent) -> None:
    """One that drips its headers, which no timeout of a socket sees, ends with the whole refresh's time."""
    over = threading.Event()

    def drip(handler: Any) -> None:  # noqa: ANN401 as above
        try:
            handler.connection.sendall(b"HTTP/1.0 200 OK\r\nX: ")
            while not over.wait(0.05):
                handler.connection.sendall(b"x")
        except OSError:
            pass

    before = agent.trusted()
    with rogue(agent, "", drip):
        source = knowing.Source(agent.state, agent.url, agent.root_file, fetch_seconds=4.0)
        with pytest.raises(TransportError, match="not there within 4 s") as error:
            Refresher(source).refresh()
        over.set()
    assert error.value.error_code == "timeout"
    assert agent.trusted() == before


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "//"])
def test_redirect_to_another_scheme(agent: Agent, target: str) -> None:
    """Nobody makes an agent read its own files."""

    def redirect(handler: Any) -> None:  # noqa: ANN401 as above
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    before = agent.trusted()
    with rogue(agent, "timestamp.json", redirect), pytest.raises(TransportError, match="redirects"):
        agent.refresh()
    assert agent.trusted() == before
    assert agent.families() == ["a"]


@pytest.mark.parametrize("status", [500, 404, 403])
def test_nobody_answers_as_he_should(agent: Agent, status: int) -> None:
    """A broken server is no news."""

    def broken(handler: Any) -> None:  # noqa: ANN401 as above
        handler.send_error(status)

    before = agent.trusted()
    with rogue(agent, "", broken), pytest.raises(TransportError, match="cannot be fetched"):
        agent.refresh()
    assert agent.trusted() == before
    assert agent.families() == ["a"]


def test_refresh_that_is_called_off_leaves_nothing(agent: Agent) -> None:
    """An agent that is stopped in the middle of a refresh ends the process, and keeps what it had."""
    asked, over = threading.Event(), threading.Event()

    def hang(_: Any) -> None:  # noqa: ANN401 as above
        asked.set()
        over.wait(30)

    before = agent.trusted()
    with rogue(agent, "timestamp.json", hang):
        refresher = Refresher(knowing.Source(agent.state, agent.url, agent.root_file))
        failures: list[BaseException] = []

        def run() -> None:
            try:
                refresher.refresh()
            except ProcessFailedError as error:
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        assert asked.wait(60)
        refresher.stop()
        thread.join(30)
        over.set()
    assert len(failures) == 1
    assert agent.trusted() == before
    with pytest.raises(ProcessFailedError, match="called off"):
        refresher.refresh()


def test_damaged_on_disk(agent: Agent) -> None:
    """A catalogue that changed on the disk is not used, and the next refresh mends it."""
    path = next(agent.state.glob("catalogue-*.json"))
    good = path.read_bytes()
    path.write_bytes(good.replace(b'"a"', b'"e"'))
    assert agent.families() == []
    assert "damaged" in agent.known().problem
    agent.refresh()
    assert path.read_bytes() == good
    assert agent.families() == ["a"]


def test_record_that_is_rubbish_is_none(agent: Agent) -> None:
    """As if nothing had been fetched; it is fetched again."""
    for content in (b"", b"{}", b"[]", json.dumps({"v": 1}).encode(), b'{"v": 2}', b"x" * 10_000):
        (agent.state / knowing.RECORD_FILE).write_bytes(content)
        assert agent.families() == []
    agent.refresh()
    assert agent.families() == ["a"]


def test_times_are_compared_in_utc(agent: Agent) -> None:
    """The record's expiry is the first one of all roles: the timestamp's."""
    record = agent.known().record
    assert record is not None
    expires = Metadata[Timestamp].from_file(str(agent.served / "metadata" / "timestamp.json")).signed.expires
    assert datetime.fromtimestamp(record.expires_ms / 1000, UTC) == expires == NOW + timedelta(days=DAYS["timestamp"])


def test_snapshot_is_checked_against_the_timestamp(agent: Agent) -> None:
    """A snapshot signed with a stolen key, but not the one that the timestamp names, is refused."""
    agent.operator.publish("b")
    agent.relay()
    path = agent.served / "metadata" / "2.snapshot.json"
    snapshot = Metadata[Snapshot].from_file(str(path))
    snapshot.signed.expires += timedelta(days=1)
    path.write_bytes(sign(snapshot, *agent.operator.keys["snapshot"]))
    before = agent.in_force()
    with pytest.raises(CatalogueRefusedError):
        agent.refresh()
    assert agent.in_force() == before
