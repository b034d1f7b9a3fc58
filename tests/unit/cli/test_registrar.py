"""`edge-agent registrar`: what it signs on a machine of its own."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from fakes import COORDINATOR_KEY, NETWORK, START_MS, key

from edge_agent.cli import main
from edge_agent.coordinator.identities import revoked_keys
from edge_agent.coordinator.store import Store
from edge_agent.errors import StateError
from edge_agent.wire import standing
from edge_agent.wire.envelope import seal
from edge_agent.wire.identity import MAX_REVOKED, Revocations, Revoked
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.standing import open_revocations

REGISTRAR = key("registrar")
ONE, TWO, THREE = (key(name).public.id for name in ("one", "two", "three"))
NOW_MS = START_MS + 86_400_000


@pytest.mark.parametrize("name", ["club.pem", "coordinator.pub"])
def test_the_coordinators_public_key_is_the_file_that_is_named(tmp_path: Path, name: str) -> None:
    """Not one beside it that is called as the coordinator calls its own."""
    key("registrar").write(tmp_path / "registrar.key")
    key("somebody else").public.write(tmp_path / "club.pub")
    COORDINATOR_KEY.public.write(tmp_path / name)
    arguments = ["--key", str(tmp_path / "registrar.key"), "--coordinator-key", str(tmp_path / name)]
    out = tmp_path / "broker"
    assert main(["registrar", "broker-certificates", *arguments, "--server-name", "b", "--out-dir", str(out)]) == 0
    made = x509.load_pem_x509_certificate((out / "coordinator.crt").read_bytes())
    assert made.public_key().public_bytes_raw() == COORDINATOR_KEY.public.raw  # type: ignore[union-attr] # Ed25519


# -- revoke -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the registrar's key and the coordinator's public one; the time stands still."""
    REGISTRAR.write(tmp_path / "registrar.key")
    REGISTRAR.public.write(tmp_path / "registrar.pub")
    COORDINATOR_KEY.public.write(tmp_path / "coordinator.pub")
    monkeypatch.setattr("time.time_ns", lambda: NOW_MS * 1_000_000)
    return tmp_path


def revoke(desk: Path, *arguments: str) -> int:
    """Run the command."""
    out = ["--key", str(desk / "registrar.key"), "--out", str(desk / "revoked.cose")]
    return main(["registrar", "revoke", *arguments, *out])


def signed(desk: Path) -> Revocations:
    """Return the list, by the registrar."""
    return open_revocations((desk / "revoked.cose").read_bytes(), [REGISTRAR.public], network=NETWORK)


def listed(*entries: Revoked, signer: SigningKey = COORDINATOR_KEY, network: str = NETWORK) -> bytes:
    """Return a list of revoked keys."""
    return seal(signer, Revocations(network=network, issued_ms=START_MS, number=len(entries), revoked=entries))


def test_two_who_revoke_at_once_take_nothing_out_of_the_list(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between one's look at the list and its writing, the other cannot write."""
    assert revoke(desk, ONE, "--network", NETWORK) == 0
    monkeypatch.setattr("edge_agent.folders.PATIENCE_SECONDS", 0.0)
    merge, others = standing.merge_revocations, []

    def meanwhile(*given: Any, **more: Any) -> Revocations:  # noqa: ANN401 passed through
        monkeypatch.setattr(standing, "merge_revocations", merge)
        others.append(revoke(desk, TWO))
        return merge(*given, **more)

    monkeypatch.setattr(standing, "merge_revocations", meanwhile)
    assert revoke(desk, THREE) == 0
    assert others == [StateError.exit_status]
    assert {each.id for each in signed(desk).revoked} == {ONE, THREE}


def test_a_list_of_revoked_keys_is_gone_on_with(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is in it stays in it; the earliest moment counts, with its reason."""
    assert revoke(desk, TWO, "--network", NETWORK, "--reason", "sold") == 0
    assert signed(desk).revoked == (Revoked(id=TWO, since_ms=NOW_MS, reason="sold"),)
    assert revoke(desk, ONE, TWO, "--since", "2026-01-02T03:04Z", "--reason", "stolen") == 0
    since_ms = 1_767_323_040_000
    first, second = sorted((ONE, TWO))
    both = tuple(Revoked(id=each, since_ms=since_ms, reason="stolen") for each in (first, second))
    assert signed(desk).revoked == both
    assert (signed(desk).number, signed(desk).issued_ms) == (2, NOW_MS)
    assert revoke(desk, ONE, "--reason", "again") == 0
    assert signed(desk).revoked == both
    said = capsys.readouterr().out
    assert f"{ONE}  since 2026-01-02T03:04:00+00:00  stolen" in said
    assert "edge-agent coordinator revoke --list" in said


def test_a_coordinators_list_is_taken_in(desk: Path) -> None:
    """Who has seen that one takes the registrar's for a later one."""
    theirs = [Revoked(id=each, since_ms=START_MS, reason="lost") for each in (ONE, TWO)]
    (desk / "theirs.cose").write_bytes(listed(*theirs))
    merge = ["--merge", str(desk / "theirs.cose"), "--coordinator-key", str(desk / "coordinator.pub")]
    assert revoke(desk, THREE, *merge) == 0
    assert {each.id: each.since_ms for each in signed(desk).revoked} == {ONE: START_MS, TWO: START_MS, THREE: NOW_MS}
    assert signed(desk).number == 3


@pytest.mark.parametrize(
    ("arguments", "there", "status", "why"),
    [
        ([ONE], None, 64, "Which network"),
        ([ONE, "--network", "no network"], None, 64, "no name of a network"),
        (["nobody", "--network", NETWORK], None, 64, "32 letters and digits"),
        ([ONE, "--network", NETWORK, "--reason", "a\nb"], None, 64, "printable ASCII"),
        ([ONE, "--network", NETWORK, "--since", "yesterday"], None, 64, "is no time"),
        ([ONE, "--network", NETWORK, "--since", "2126-01-01"], None, 64, "not in the past"),
        ([ONE, "--network", "elsewhere"], listed(signer=REGISTRAR), 65, "is for the network"),
        ([ONE], listed(), 65, "holds no list of revoked keys by"),
        ([ONE], b"nothing of the kind", 65, "holds no list of revoked keys by"),
    ],
    ids=[
        "no-network",
        "bad-network",
        "bad-id",
        "bad-reason",
        "bad-time",
        "future",
        "other-network",
        "other-signer",
        "no-list",
    ],
)
def test_a_list_that_would_be_wrong_is_not_signed(  # noqa: PLR0917 a case
    desk: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], there: bytes | None, status: int, why: str
) -> None:
    """What is there stays as it is."""
    out = desk / "revoked.cose"
    if there is not None:
        out.write_bytes(there)
    assert revoke(desk, *arguments) == status
    assert why in capsys.readouterr().err
    assert (out.read_bytes() if out.exists() else None) == there


def test_a_list_holds_no_more_than_clients_read(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One more is refused, and nothing is left out in silence."""
    letters = "abcdefghijklmnopqrstuvwxyz234567"
    ids = [f"{letters[n // 1024]}{letters[n // 32 % 32]}{letters[n % 32]}".rjust(32, "a") for n in range(MAX_REVOKED)]
    full = listed(*(Revoked(id=each, since_ms=1, reason="r" * 64) for each in ids), signer=REGISTRAR)
    (desk / "revoked.cose").write_bytes(full)
    assert revoke(desk, ONE) != 0
    assert f"{MAX_REVOKED} at most" in capsys.readouterr().err
    assert (desk / "revoked.cose").read_bytes() == full
    assert revoke(desk) == 0
    assert len(signed(desk).revoked) == MAX_REVOKED


def test_a_coordinator_says_what_the_registrar_does(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the same moment on, for keys that it never saw, too; nobody else's list is taken."""
    with closing(Store(desk / "coordinator.db")) as store:
        store.approve(ONE, owner="ada")
        store.revoke(TWO, "by the coordinator", NOW_MS)
    state = ["--state", str(desk), "--network", NETWORK]
    taken = ["coordinator", "revoke", "--list", str(desk / "revoked.cose"), *state]
    (desk / "revoked.cose").write_bytes(listed(Revoked(id=ONE, since_ms=1, reason="x"), signer=key("other")))
    assert main(taken) == 65
    assert revoke(desk, ONE) == 65
    (desk / "revoked.cose").unlink()
    assert revoke(desk, ONE, TWO, THREE, "--network", NETWORK, "--since", "2026-01-01", "--reason", "stolen") == 0
    with closing(Store(desk / "coordinator.db")) as store:
        assert [agent.approved for agent in store.agents() if agent.id == ONE] == [True]
    assert main(taken) == 0
    assert "3 keys on the registrar's list" in capsys.readouterr().out
    with closing(Store(desk / "coordinator.db")) as store:
        found = store.read(revoked_keys)
        assert [agent.approved for agent in store.agents() if agent.id == ONE] == [False]
    assert {each.id: (each.since_ms, each.reason) for each in signed(desk).revoked} == {
        ONE: (1_767_225_600_000, "stolen"),
        TWO: (1_767_225_600_000, "stolen"),
        THREE: (1_767_225_600_000, "stolen"),
    }
    assert {each.id: each.since_ms for each in found.values()} == dict.fromkeys((ONE, TWO, THREE), 1_767_225_600_000)
    assert (found[ONE].reason, found[TWO].reason) == ("stolen", "by the coordinator")
    assert main([*taken[:2], ONE, *taken[2:]]) == 64
    (desk / "registrar.pub").unlink()
    (desk / "registrar.key").unlink()
    assert main(taken) == 77
    assert "There is no registrar" in capsys.readouterr().err
