"""Enrolment tokens: what is copied whole comes back, what is not is refused without being shown."""

from __future__ import annotations

import pytest
from fakes import COORDINATOR_KEY, key
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import UsageError
from edge_agent.wire import tokens
from edge_agent.wire.tokens import Token

NETWORKS = st.from_regex(r"\A[a-z0-9][a-z0-9_-]{0,31}\Z")


@given(NETWORKS, st.binary(min_size=16, max_size=16))
def test_a_token_comes_back(network: str, secret: bytes) -> None:
    """With white space around it, too."""
    token = Token(network, COORDINATOR_KEY.public.id, secret)
    assert Token.parse(f"  {token.text()}\n") == token
    assert len(token.text()) <= tokens.MAX_TOKEN_CHARACTERS


@given(NETWORKS, st.binary(min_size=16, max_size=16), st.integers(0, 200), st.sampled_from("abcxyz234567-=A\0"))
def test_a_token_that_was_changed_is_none(network: str, secret: bytes, at: int, letter: str) -> None:
    """A wrong letter, or one that is missing, and the error does not repeat the secret."""
    text = Token(network, COORDINATOR_KEY.public.id, secret).text()
    at %= len(text)
    for changed in (text[:at] + letter + text[at + 1 :], text[:at] + text[at + 1 :]):
        if changed.lower() == text:
            continue
        with pytest.raises(UsageError) as refused:
            Token.parse(changed)
        assert text[8:30] not in refused.value.message + (refused.value.hint or "")


@given(st.text(max_size=200))
def test_any_text_is_refused_or_a_token(text: str) -> None:
    """Nothing else is raised."""
    try:
        token = Token.parse(text)
    except UsageError:
        return
    assert Token.parse(token.text()) == token


def test_no_secret_shows() -> None:
    """Not in its `repr`, and what names it or proves it is not the secret."""
    token = Token("home", COORDINATOR_KEY.public.id, bytes(range(16)))
    assert repr(bytes(range(16))) not in repr(token)
    assert bytes(range(16)) not in token.id + token.proof(key("agent").public)


def test_proof_and_code_depend_on_all_that_they_are_for() -> None:
    """Another network, key, number or coordinator gives another one."""
    agent, other = key("agent").public, key("other").public
    proofs = {
        tokens.proof(tokens.mac_key(secret), network, coordinator, who)
        for secret in (bytes(16), bytes([1]) * 16)
        for network in ("home", "club")
        for coordinator in (COORDINATOR_KEY.public.id, other.id)
        for who in (agent, other)
    }
    assert len(proofs) == 16
    codes = {
        tokens.code(network, coordinator, who, opening, nonce)
        for network in ("home", "club")
        for coordinator in (COORDINATOR_KEY.public, other)
        for who in (agent, other)
        for opening in (bytes(32), bytes([1]) * 32)
        for nonce in (bytes(32), bytes([1]) * 32)
    }
    assert len(codes) == 32
