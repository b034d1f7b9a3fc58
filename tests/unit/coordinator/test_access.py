"""API keys as rules: who is let in, what each may do, and how much of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.clock import Now
from edge_agent.coordinator.access import (
    ANYBODY,
    DAY_MS,
    Access,
    Caller,
    KeyRecord,
    Scope,
    Usage,
    digest_of,
)
from edge_agent.coordinator.key_table import add_key, new_token, read_keys, read_usage, revoke_keys, write_usage
from edge_agent.coordinator.store import Store
from edge_agent.errors import DeniedError, ResourceError

KEY_ID, TOKEN, DIGEST = new_token()
RECORD = KeyRecord(
    KEY_ID, "reports", DIGEST, frozenset({Scope.INFER}), created_ms=0, requests_per_minute=60, jobs_per_day=3
)


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> Now:
        """Read it."""
        return Now(self.seconds, int(self.seconds * 1000))


@pytest.fixture
def clock() -> Clock:
    """Return a clock."""
    return Clock()


@pytest.fixture
def access(clock: Clock) -> Access:
    """Return what knows one key and wants one."""
    made = Access(required=True, clock=clock)
    made.adopt([RECORD])
    return made


def test_a_key_says_whose_call_it_is(access: Access) -> None:
    """With its name and its scopes."""
    caller = access.caller(TOKEN)
    assert (caller.name, caller.key_id, caller.scopes) == ("reports", KEY_ID, {Scope.INFER})
    assert caller.may(Scope.INFER)
    assert not caller.may(Scope.READ)
    assert not caller.may(Scope.OPERATOR)
    assert caller.owns("reports")
    assert not caller.owns("others")


def test_an_operator_may_do_everything() -> None:
    """Whatever the scope that is asked for."""
    caller = Caller("ada", frozenset({Scope.OPERATOR}))
    assert all(caller.may(scope) for scope in Scope)
    assert caller.owns("others")


@pytest.mark.parametrize(
    "token",
    [
        None,
        "",
        "none",
        TOKEN[:-1],
        TOKEN + "a",
        TOKEN[:-1] + ("A" if TOKEN[-1] != "A" else "B"),
        f"ea_aaaaaaaaaa_{TOKEN[14:]}",
        TOKEN.upper(),
        f" {TOKEN}",
        digest_of(TOKEN).hex(),
    ],
    ids=["none", "empty", "word", "cut", "long", "other-secret", "other-id", "upper", "blank", "digest"],
)
def test_without_the_right_key_nobody_is_let_in(access: Access, token: str | None) -> None:
    """Neither with none, nor with a part of one, nor with what the database holds of it."""
    with pytest.raises(DeniedError) as refused:
        access.caller(token)
    assert refused.value.error_code == "unauthorized"
    assert access.changed() == {}


def test_a_stolen_database_has_no_key(tmp_path: Path) -> None:
    """What is kept of a key opens nothing."""
    store = Store(tmp_path / "coordinator.db")
    store.write(lambda connection: add_key(connection, RECORD))
    store.close()
    held = b"".join(file.read_bytes() for file in tmp_path.iterdir() if file.is_file())
    assert RECORD.name.encode() in held
    assert TOKEN.encode() not in held
    assert TOKEN[14:].encode() not in held


def test_where_no_key_is_wanted_a_wrong_one_of_ours_is_still_refused(clock: Clock) -> None:
    """A placeholder that clients insist on is no key; a revoked key must not turn into everybody's rights."""
    access = Access(required=False, clock=clock)
    access.adopt([replace(RECORD, revoked_ms=5)])
    assert access.caller(None) is ANYBODY
    assert access.caller("none") is ANYBODY
    with pytest.raises(DeniedError, match="revoked"):
        access.caller(TOKEN)


def test_a_key_ends(access: Access, clock: Clock) -> None:
    """When its time is over, and when it is revoked."""
    access.adopt([replace(RECORD, expires_ms=101_000)])
    assert access.caller(TOKEN).name == "reports"
    clock.seconds = 101
    with pytest.raises(DeniedError, match="expired"):
        access.caller(TOKEN)
    access.adopt([replace(RECORD, revoked_ms=100_000)])
    with pytest.raises(DeniedError, match="revoked"):
        access.caller(TOKEN)
    access.adopt([])
    with pytest.raises(DeniedError, match="not known"):
        access.caller(TOKEN)


def test_calls_are_limited_to_so_many_in_a_minute(access: Access, clock: Clock) -> None:
    """A minute's worth at once, then one whenever its time has come; what is refused is not counted."""
    caller = access.caller(TOKEN)
    for _ in range(60):
        access.charge_request(caller)
    with pytest.raises(ResourceError) as refused:
        access.charge_request(caller)
    assert refused.value.error_code == "too-many-calls"
    assert refused.value.retry_after_seconds == pytest.approx(1.0)
    clock.seconds += 1
    access.charge_request(caller)
    with pytest.raises(ResourceError):
        access.charge_request(caller)
    assert access.changed()["reports"].requests == 61


def test_a_clock_that_jumps_gives_no_calls(access: Access, clock: Clock) -> None:
    """Only the monotonic clock refills; the wall clock says which day it is."""
    caller = access.caller(TOKEN)
    access.charge_request(caller)
    for _ in range(59):
        access.charge_request(caller)
    access._clock = lambda: Now(100.0, 10 * DAY_MS)
    with pytest.raises(ResourceError):
        access.charge_request(caller)


def test_jobs_are_limited_to_so_many_in_a_day(access: Access, clock: Clock) -> None:
    """From midnight to midnight; what was not taken on counts for nothing."""
    caller = access.caller(TOKEN)
    access.charge_jobs(caller, 2)
    with pytest.raises(ResourceError) as refused:
        access.charge_jobs(caller, 2)
    assert refused.value.error_code == "quota-exhausted"
    assert refused.value.retry_after_seconds == pytest.approx(86_300)
    access.charge_jobs(caller)
    access.refund_job(caller)
    access.charge_jobs(caller)
    assert access.changed()["reports"].jobs == 3
    clock.seconds = 86_400
    access.charge_jobs(caller, 3)
    assert access.changed()["reports"] == Usage(1, 0, 3)


def test_a_second_key_of_the_same_client_gives_no_second_quota(access: Access) -> None:
    """The client has the quota."""
    other_id, other, digest = new_token()
    access.adopt([RECORD, replace(RECORD, id=other_id, digest=digest)])
    access.charge_jobs(access.caller(TOKEN), 3)
    with pytest.raises(ResourceError):
        access.charge_jobs(access.caller(other))


def test_what_clients_did_outlives_a_restart(tmp_path: Path, access: Access, clock: Clock) -> None:
    """Through the database, which also keeps the keys."""
    store = Store(tmp_path / "coordinator.db")
    store.write(lambda connection: add_key(connection, RECORD))
    access.charge_jobs(access.caller(TOKEN), 2)
    for _ in range(2):  # the same day, again
        store.write(lambda connection: write_usage(connection, access.changed()))
        access.charge_request(access.caller(TOKEN))
    again = Access(required=True, clock=clock)
    again.adopt(store.read(read_keys))
    again.restore(store.read(lambda connection: read_usage(connection, 0)))
    with pytest.raises(ResourceError):
        again.charge_jobs(again.caller(TOKEN), 2)
    assert store.read(read_keys) == [RECORD]
    assert [key.id for key in store.write(lambda c: revoke_keys(c, "reports", 7))] == [KEY_ID]
    assert store.read(read_keys) == [replace(RECORD, revoked_ms=7)]
    assert store.write(lambda c: revoke_keys(c, KEY_ID, 8)) == []
    store.close()
