"""Attacks on who gets in: each as real bytes against the real decision and database, which then are as before."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fakes import COORDINATOR_KEY, NETWORK, START_MS, key

from edge_agent.clock import Now
from edge_agent.coordinator import admissions, identities, statements
from edge_agent.coordinator.admissions import LIST_SECONDS, ONE_AT_ONCE, Admissions, Terms
from edge_agent.coordinator.registrar import Registrar
from edge_agent.coordinator.schema import agents, tokens
from edge_agent.coordinator.schema import identities as table
from edge_agent.coordinator.store import Store
from edge_agent.enrolling.asking import Asking
from edge_agent.errors import PeerError, RefusedError, ResourceError, SignatureRefusedError, StateError, UsageError
from edge_agent.notes import Note
from edge_agent.wire import certificates, successions
from edge_agent.wire.envelope import open_envelope, seal
from edge_agent.wire.identity import Enrol, Enrolled
from edge_agent.wire.keys import PublicKey, SigningKey
from edge_agent.wire.standing import open_revocations
from edge_agent.wire.tokens import Token, commitment

REGISTRAR = key("registrar")
DAY_MS = 86_400_000
MAX = 1 << 16


class Office:
    """A coordinator's side of enrolments on a database of its own, with a clock that the test moves."""

    def __init__(self, folder: Path, registrar: Registrar | None = None) -> None:
        self.store = Store(folder / "coordinator.db")
        self.now = Now(1000.0, START_MS)
        self.notes: list[Note] = []
        self.registrar = registrar or Registrar(REGISTRAR.public, REGISTRAR, NETWORK)
        self.admissions = Admissions(
            self.store,
            COORDINATOR_KEY,
            NETWORK,
            registrar=self.registrar,
            terms=Terms("mqtt://broker.example"),
            clock=lambda: self.now,
            tell=self.notes.append,
        )

    def token(self, owner: str | None = "ada", ttl_ms: int = 3_600_000) -> Token:
        """Make a token, as the operator does."""
        return self.store.write(
            lambda c: identities.new_token(
                c,
                network=NETWORK,
                coordinator_id=COORDINATOR_KEY.public.id,
                owner=owner,
                now_ms=self.now.wall_ms,
                ttl_ms=ttl_ms,
            )
        )

    def later(self, seconds: float) -> None:
        """Let time pass."""
        self.now = Now(self.now.monotonic + seconds, self.now.wall_ms + int(seconds * 1000))

    def ask(self, asking: Asking, source: str = "198.51.100.1") -> Enrolled | None:
        """Carry a request and its answer."""
        return asking.answer(self.admissions.answer(asking.request(self.now.wall_ms), source)[1])

    def admitted(self) -> set[str]:
        """Return who may work here."""
        found = self.store.write(lambda c: identities.standing(c, self.registrar, self.now.wall_ms))
        return set(found.approved)

    def state(self) -> list[Any]:
        """Return all that the database knows about identities, without the counts of refusals."""

        def read(connection: sa.Connection) -> list[Any]:
            kept = [column for column in tokens.c if not column.name.startswith("refused")]
            queries = (sa.select(agents), sa.select(table), sa.select(*kept))
            return [[tuple(row) for row in connection.execute(query)] for query in queries]

        return self.store.read(read)

    def codes(self) -> list[str]:
        """Return the codes of the refusals that were told."""
        return [str(dict(note.fields).get("code")) for note in self.notes if note.action == "enrol-refused"]


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    """A coordinator whose registrar's key lies with it."""
    made = Office(tmp_path)
    yield made
    made.store.close()


def asking(who: SigningKey, token: Token | None = None, pinned: PublicKey | None = None) -> Asking:
    """An agent that wants to get in."""
    return Asking(who, bytes(32), NETWORK, secrets.token_bytes(32), token, pinned)


def unchanged(office: Office, attack: Callable[[], object], *errors: type[Exception]) -> Exception:
    """Do an attack; return how it failed, after seeing that nothing changed."""
    before = office.state()
    with pytest.raises(errors or (RefusedError,)) as caught:
        attack()
    assert office.state() == before
    return caught.value


def test_a_token_lets_its_holder_in_as_the_owners(office: Office) -> None:
    """What is attacked below: certified, by the registrar, for the owner and the sealing key."""
    agent = key("agent")
    said = office.ask(asking(agent, office.token("ada")))
    assert said is not None
    assert said.state == "admitted"
    assert said.certificate is not None
    checked = certificates.check_certificate(
        said.certificate, REGISTRAR.public, network=NETWORK, at_ms=START_MS, agent_id=agent.public.id
    )
    assert (checked.statement.owner, checked.statement.sealing_key) == ("ada", bytes(32))
    assert office.admitted() == {agent.public.id}


def test_reused_token(office: Office) -> None:
    """A token that was used lets nobody else in, and the operator is told that a copy is around."""
    token = office.token()
    office.ask(asking(key("first"), token))
    error = unchanged(office, lambda: office.ask(asking(key("thief"), token)))
    assert isinstance(error, RefusedError)
    assert error.error_code == "token-used"
    assert office.codes() == ["token-used"]
    assert "copy" in office.notes[-1].sentence
    (kept,) = office.store.read(identities.all_tokens)
    assert (kept.refused, kept.refused_from) == (1, key("thief").public.id)
    assert office.ask(asking(key("first"), token)).state == "admitted"  # type: ignore[union-attr] # an answer


def test_stolen_proof(office: Office) -> None:
    """A request that somebody in between saw is worth nothing for another key: the proof is bound to the agent's."""
    token = office.token()
    seen = open_envelope(
        asking(key("victim"), token).request(START_MS), key("victim").public, Enrol, network=NETWORK, max_bytes=MAX
    ).statement
    thief = key("thief")
    forged = seen.model_copy(update={"agent_id": thief.public.id, "public_key": thief.public.raw})
    answer = office.admissions.answer(seal(thief, forged), "198.51.100.1")[1]
    with pytest.raises(RefusedError) as caught:
        asking(thief, token).answer(_answering(answer, thief))
    assert caught.value.error_code == "token-unknown"
    assert office.admitted() == set()
    assert office.ask(asking(key("victim"), token)).state == "admitted"  # type: ignore[union-attr] # as above


def _answering(answer: bytes, who: SigningKey) -> bytes:
    """Return the answer as if it were for the next request of `asking`: only its code is looked at."""
    said = open_envelope(answer, COORDINATOR_KEY.public, Enrolled, network=NETWORK, max_bytes=MAX).statement
    assert said.agent_id == who.public.id
    raise RefusedError("as the coordinator says", code=said.code)


def test_guessed_token(office: Office) -> None:
    """A token that was never made is refused like a wrong one, and takes no room in the database."""
    office.token()
    for _ in range(3):
        guess = Token(NETWORK, COORDINATOR_KEY.public.id, secrets.token_bytes(16))
        error = unchanged(office, lambda guess=guess: office.ask(asking(key("guesser"), guess)))  # type: ignore[misc]
        assert isinstance(error, RefusedError)
        assert error.error_code == "token-unknown"


def test_known_token_id_without_its_secret(office: Office) -> None:
    """Whoever saw which token was named cannot prove it, nor use it up."""
    token = office.token()
    agent = key("guesser")
    statement = open_envelope(
        asking(agent, token).request(START_MS), agent.public, Enrol, network=NETWORK, max_bytes=MAX
    ).statement
    office.admissions.answer(seal(agent, statement.model_copy(update={"proof": bytes(32)})), "198.51.100.1")
    assert office.codes() == ["token-unknown"]
    assert office.admitted() == set()
    assert office.ask(asking(key("owner"), token)).state == "admitted"  # type: ignore[union-attr] # as above


def test_expired_token(office: Office) -> None:
    """After its time it lets nobody in, but who is in stays in."""
    used, late = office.token(ttl_ms=60_000), office.token(ttl_ms=60_000)
    office.ask(asking(key("early"), used))
    office.later(61)
    error = unchanged(office, lambda: office.ask(asking(key("late"), late)))
    assert isinstance(error, RefusedError)
    assert error.error_code == "token-expired"
    assert office.admitted() == {key("early").public.id}


def test_token_of_another_network_or_coordinator(office: Office) -> None:
    """The proof names both."""
    token = office.token()
    other = Token(NETWORK, key("other").public.id, token.secret)
    agent = asking(key("agent"), other)
    answer = office.admissions.answer(agent.request(START_MS), "198.51.100.1")[1]
    assert office.codes() == ["token-unknown"]
    with pytest.raises(SignatureRefusedError) as caught:
        agent.answer(answer)
    assert caught.value.error_code == "wrong-coordinator"
    elsewhere = Asking(key("agent"), None, "elsewhere", bytes(32), token)
    with pytest.raises(PeerError):
        office.admissions.answer(elsewhere.request(START_MS), "198.51.100.1")


def test_flood_of_enrolments(office: Office) -> None:
    """One source is heard a few times, then no more, whatever key it shows; another source still is."""
    heard = 0
    for number in range(40):
        try:
            office.ask(asking(key(f"sybil {number}")), "203.0.113.9")
            heard += 1
        except ResourceError as error:
            assert error.error_code == "queue-full"  # noqa: PT017 both ends of the bound are counted
    assert heard == int(ONE_AT_ONCE)
    assert office.ask(asking(key("honest"), office.token()), "198.51.100.7").state == "admitted"  # type: ignore[union-attr]


def test_waiting_room_filled(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strangers who wait make room for newer ones, and never push out who was let in."""
    monkeypatch.setattr(identities, "MAX_WAITING", 5)
    office.ask(asking(key("inside"), office.token()))
    for number in range(12):
        office.later(1)
        office.ask(asking(key(f"stranger {number}")), f"203.0.113.{number}")
    known = office.store.read(identities.all_identities)
    assert len([each for each in known if each.certificate is None]) == 5
    assert key("inside").public.id in office.admitted()


def test_coordinator_played_by_somebody_in_between(office: Office) -> None:
    """The token carries the fingerprint: another coordinator's answer is refused, whatever it says."""
    fake = key("in between")
    agent = asking(key("agent"), office.token())
    agent.request(START_MS)
    with pytest.raises(SignatureRefusedError) as caught:
        agent.answer(seal(fake, _admission(agent, fake)))
    assert caught.value.error_code == "wrong-coordinator"
    assert agent.coordinator is None


def test_coordinator_changed_after_it_was_pinned() -> None:
    """Without a token, too, the pinned key stays the only one."""
    fake = key("in between")
    agent = asking(key("agent"), pinned=COORDINATOR_KEY.public)
    with pytest.raises(SignatureRefusedError) as caught:
        agent.answer(seal(fake, _admission(agent, fake)))
    assert caught.value.error_code == "wrong-coordinator"


def _admission(agent: Asking, coordinator: SigningKey, **changes: Any) -> Enrolled:  # noqa: ANN401 any field
    fields: dict[str, Any] = {
        "agent_id": agent.key.public.id,
        "coordinator_key": coordinator.public.raw,
        "state": "admitted",
        "code": None,
        "commitment": commitment(agent.opening),
        "nonce": None,
        "certificate": None,
        "x509": None,
        "registrar_key": None,
        "broker_url": "mqtt://evil.example",
        "broker_ca": None,
    }
    return Enrolled(network=NETWORK, issued_ms=START_MS, **{**fields, **changes})


def test_relayed_enrolment_shows_two_codes(office: Office) -> None:
    """Who sits in between with keys of its own makes the codes differ: operator and owner see it."""
    victim, fake_agent, fake_coordinator = asking(key("victim")), asking(key("fake agent")), key("fake coordinator")
    relayed = office.ask(fake_agent)
    assert relayed is not None
    assert relayed.nonce is not None
    opened = victim.answer(
        seal(fake_coordinator, _admission(victim, fake_coordinator, state="open", nonce=relayed.nonce))
    )
    assert opened is not None
    office.ask(fake_agent)
    shown = office.store.read(lambda c: identities.find(c, fake_agent.key.public.id)).code  # type: ignore[union-attr]
    assert victim.code is not None
    assert shown is not None
    assert victim.code != shown


def test_nonce_changed_on_the_way(office: Office) -> None:
    """The coordinator's part of the code stands once it was said: nobody can try until two codes are alike."""
    agent = asking(key("agent"))
    office.ask(agent)
    code = agent.code
    with pytest.raises(PeerError, match="changed its part"):
        agent.answer(seal(COORDINATOR_KEY, _admission(agent, COORDINATOR_KEY, state="open", nonce=bytes(32))))
    assert agent.code == code


def test_opening_that_was_not_committed_to(office: Office) -> None:
    """An agent cannot choose its part of the code after it knows the coordinator's."""
    who = key("agent")
    agent = asking(who)
    office.ask(agent)
    statement = open_envelope(agent.request(START_MS), who.public, Enrol, network=NETWORK, max_bytes=MAX).statement
    before = office.state()
    office.admissions.answer(seal(who, statement.model_copy(update={"opening": bytes(32)})), "198.51.100.1")
    assert office.codes() == ["wrong-code"]
    assert office.state() == before


def test_request_that_somebody_else_signed(office: Office) -> None:
    """A request names the key that signed it, or is refused; over the broker, the topic's, too."""
    victim, thief = key("victim"), key("thief")
    statement = open_envelope(
        asking(victim).request(START_MS), victim.public, Enrol, network=NETWORK, max_bytes=MAX
    ).statement
    unchanged(office, lambda: office.admissions.answer(seal(thief, statement), "x"), PeerError)
    own = asking(thief).request(START_MS)
    unchanged(office, lambda: office.admissions.answer(own, "x", victim.public.id), RefusedError)


def test_garbage_for_a_request(office: Office) -> None:
    """Nothing but a request is taken, however it begins."""
    right = asking(key("agent")).request(START_MS)
    for number, wrong in enumerate((b"", b"\xd2\x84", right[:-1], right + b"\0", b"\xff" * 100, right + bytes(4096))):
        unchanged(
            office,
            lambda wrong=wrong, number=number: office.admissions.answer(wrong, f"x{number}"),  # type: ignore[misc]
            PeerError,
        )


def test_self_signed_certificate(office: Office) -> None:
    """Only the registrar's key makes certificates that count, in the coordinator and for whoever checks later."""
    agent = key("agent")
    own = certificates.issue(agent, network=NETWORK, agent=agent.public, sealing_key=None, owner="ada", now_ms=START_MS)
    for signer in (agent, COORDINATOR_KEY):
        forged = certificates.issue(
            signer, network=NETWORK, agent=agent.public, sealing_key=None, owner="ada", now_ms=START_MS
        )
        assert office.registrar.check(forged, agent.public.id, START_MS) is None
    with pytest.raises(SignatureRefusedError):
        certificates.check_certificate(own, REGISTRAR.public, network=NETWORK, at_ms=START_MS)


def test_certificate_of_another_agent_network_or_time(office: Office) -> None:
    """It counts for one agent, in one network, for thirty days at most."""
    agent = key("agent")
    good = office.registrar.certify(agent.public, None, "ada", START_MS).signed
    assert office.registrar.check(good, agent.public.id, START_MS) is not None
    assert office.registrar.check(good, key("other").public.id, START_MS) is None
    assert office.registrar.check(good, agent.public.id, START_MS + 30 * DAY_MS) is None
    assert office.registrar.check(good, agent.public.id, START_MS - DAY_MS) is None
    elsewhere = Registrar(REGISTRAR.public, None, "elsewhere")
    assert elsewhere.check(good, agent.public.id, START_MS) is None
    with pytest.raises(ValueError, match="30 days"):
        certificates.issue(
            REGISTRAR,
            network=NETWORK,
            agent=agent.public,
            sealing_key=None,
            owner=None,
            now_ms=START_MS,
            lifetime_ms=31 * DAY_MS,
        )


def test_stolen_coordinator_cannot_invent_agents(tmp_path: Path) -> None:
    """Where the registrar's key lies elsewhere, approving in the database lets nobody in."""
    office = Office(tmp_path, Registrar(REGISTRAR.public, None, NETWORK))
    office.ask(asking(key("invented"), office.token()))
    office.store.approve(key("invented").public.id)
    forged = certificates.issue(
        COORDINATOR_KEY,
        network=NETWORK,
        agent=key("invented").public,
        sealing_key=None,
        owner=None,
        now_ms=START_MS,
    )
    office.store.write(lambda c: identities.keep(c, key("invented").public.id, certificate=forged))
    assert office.admitted() == set()
    office.store.close()


def test_revoked_key_comes_back(office: Office) -> None:
    """Neither by a new token, nor by approving it again, nor by a succession."""
    agent = key("agent")
    office.ask(asking(agent, office.token()))
    office.store.revoke(agent.public.id, "stolen", START_MS)
    assert office.admitted() == set()
    again = office.token()
    error = unchanged(office, lambda: office.ask(asking(agent, again)))
    assert isinstance(error, RefusedError)
    assert error.error_code == "revoked"
    unchanged(office, lambda: office.store.approve(agent.public.id), UsageError)
    unasked = successions.make(agent, key("next"), network=NETWORK, new_sealing_key=None, now_ms=START_MS)
    office.admissions.answer(unasked, "198.51.100.1")
    assert office.codes()[-1] == "revoked"
    assert office.admitted() == set()


def test_succession_to_a_key_that_does_not_agree(office: Office) -> None:
    """A stolen old key cannot make somebody else's key its successor, nor can a stranger make itself one."""
    old, new = key("old"), key("new")
    office.ask(asking(old, office.token()))
    statement = successions.make(old, new, network=NETWORK, new_sealing_key=None, now_ms=START_MS)
    broken = bytearray(statement)
    broken[-1] ^= 1
    unchanged(office, lambda: office.admissions.answer(bytes(broken), "x"), PeerError)
    stranger = successions.make(key("stranger"), new, network=NETWORK, new_sealing_key=None, now_ms=START_MS)
    unchanged(office, lambda: office.admissions.answer(stranger, "y"), PeerError)
    elsewhere = successions.make(old, new, network="elsewhere", new_sealing_key=None, now_ms=START_MS)
    unchanged(office, lambda: office.admissions.answer(elsewhere, "z"), PeerError)
    assert office.admitted() == {old.public.id}


def test_old_key_after_its_succession(office: Office) -> None:
    """Owner and admission pass to the new key; the old one is refused from then on, also for a second succession."""
    old, new = key("old"), key("new")
    office.ask(asking(old, office.token("ada")))
    said = successions.make(old, new, network=NETWORK, new_sealing_key=bytes(32), now_ms=START_MS)
    office.admissions.answer(said, "x")
    office.admissions.answer(said, "x")  # its answer got lost on the way
    assert office.admitted() == {new.public.id}
    found = office.store.write(lambda c: identities.standing(c, office.registrar, START_MS))
    assert found.owners == {new.public.id: "ada"}
    assert set(found.revoked) == {old.public.id}
    other = successions.make(old, key("thief"), network=NETWORK, new_sealing_key=None, now_ms=START_MS)
    before = office.state()
    office.admissions.answer(other, "x")
    assert office.codes()[-1] == "revoked"
    assert office.state() == before


def succession(office: Office, old: SigningKey, new: SigningKey, source: str = "x") -> str:
    """Ask for one; return the state of the answer, or the code of the refusal."""
    said = successions.make(old, new, network=NETWORK, new_sealing_key=bytes(32), now_ms=office.now.wall_ms)
    answer = office.admissions.answer(said, source)[1]
    found = open_envelope(answer, COORDINATOR_KEY.public, Enrolled, network=NETWORK, max_bytes=MAX).statement
    return found.code or found.state


def test_key_changed_until_the_list_of_revoked_keys_is_full(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent can change its key once a day, all agents together have half of the list, and the operator the rest."""
    monkeypatch.setattr(identities, "MAX_REVOKED", 4)
    monkeypatch.setattr(identities, "MAX_SUCCESSIONS", 2)
    office.ask(asking(key("0"), office.token("eve")))
    office.ask(asking(key("bystander"), office.token("bob")))
    assert succession(office, key("0"), key("1")) == "admitted"
    office.later(86_399)
    before = office.state()
    assert succession(office, key("1"), key("2")) == "key-too-new"
    assert office.state() == before
    office.later(1)
    assert succession(office, key("1"), key("2")) == "admitted"
    office.later(86_400)
    before = office.state()
    assert succession(office, key("2"), key("3")) == "too-many-keys"
    assert office.state() == before
    assert office.admitted() == {key("2").public.id, key("bystander").public.id}
    office.store.revoke(key("2").public.id, "too clever", office.now.wall_ms)
    assert office.admitted() == {key("bystander").public.id}


def test_revoked_when_the_list_is_full(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent is out and stays out, and the operator is told what the list does not say."""
    monkeypatch.setattr(identities, "MAX_REVOKED", 1)
    monkeypatch.setattr(statements, "MAX_REVOKED", 1)
    tokens_of = {}
    for name in ("first", "second"):
        tokens_of[name] = office.token()
        office.ask(asking(key(name), tokens_of[name]))
    office.store.revoke(key("first").public.id, "stolen", START_MS)
    assert succession(office, key("second"), key("third")) == "too-many-keys"
    with pytest.raises(StateError, match="no longer admitted"):
        office.store.revoke(key("second").public.id, "stolen", START_MS + 1)
    assert office.admitted() == set()
    with pytest.raises(RefusedError):
        office.ask(asking(key("second"), tokens_of["second"]))
    assert office.codes() == ["too-many-keys", "revoked"]
    listed = open_revocations(office.admissions.revocations(), (COORDINATOR_KEY.public,), network=NETWORK)
    assert [each.id for each in listed.revoked] == [key("first").public.id]


def test_flood_of_questions_who_was_revoked(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody may ask, as often as they like: the list is read and signed once a second, also for many at once."""
    signed, reads = [], []
    real_seal, real_read = admissions.seal, office.store.read

    def seal_(*given: Any) -> bytes:  # noqa: ANN401 as it is given
        signed.append(given)
        return real_seal(*given)

    def read(query: Callable[[sa.Connection], Any]) -> Any:  # noqa: ANN401 what the query gives
        reads.append(query)
        return real_read(query)

    monkeypatch.setattr(admissions, "seal", seal_)
    monkeypatch.setattr(office.store, "read", read)

    def asked() -> list[str]:
        with ThreadPoolExecutor(16) as askers:
            answers = set(askers.map(lambda _: office.admissions.revocations(), range(200)))
        (answer,) = answers
        said = open_revocations(answer, (COORDINATOR_KEY.public,), network=NETWORK)
        return [each.id for each in said.revoked]

    assert asked() == []
    assert (len(signed), len(reads)) == (1, 1)
    office.ask(asking(key("one"), office.token()))
    signed.clear()
    reads.clear()
    office.store.revoke(key("one").public.id, "stolen", office.now.wall_ms)
    office.later(LIST_SECONDS / 2)
    assert asked() == []
    assert (signed, reads) == ([], [])
    office.later(LIST_SECONDS / 2)
    assert asked() == [key("one").public.id]
    assert (len(signed), len(reads)) == (1, 1)


def test_succession_to_a_key_that_is_an_agents_already(office: Office) -> None:
    """Nobody goes on as another agent of theirs, which has a standing of its own."""
    office.ask(asking(key("bad"), office.token()))
    office.ask(asking(key("good"), office.token()))
    before = office.state()
    assert succession(office, key("bad"), key("good")) == "key-known"
    assert office.state() == before


def test_standing_that_did_not_change_is_neither_written_nor_verified_again(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at every second, and the list of revoked keys is everybody's to ask for; time still counts."""
    office.ask(asking(key("one"), office.token()))
    office.ask(asking(key("two"), office.token()))
    office.store.revoke(key("two").public.id, "stolen", office.now.wall_ms)
    before = office.store.standing(office.registrar, office.now.wall_ms)
    assert before.approved == {key("one").public.id}

    def never(*_: object, **__: object) -> None:
        raise AssertionError("this was done before")

    monkeypatch.setattr(office.store, "write", never)
    monkeypatch.setattr(certificates, "open_envelope", never)
    assert office.store.standing(office.registrar, office.now.wall_ms) == before
    listed = open_revocations(office.admissions.revocations(), (COORDINATOR_KEY.public,), network=NETWORK)
    assert [each.id for each in listed.revoked] == [key("two").public.id]
    elsewhere = Registrar(REGISTRAR.public, None, NETWORK)  # which makes none anew
    assert office.store.standing(elsewhere, office.now.wall_ms + 31 * DAY_MS).approved == frozenset()
