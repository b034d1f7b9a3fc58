"""Whose jobs are taken: every rule and its opposite, and that nothing is told of whom nobody named."""

from __future__ import annotations

import pytest
import wire_samples
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edge_agent.errors import RefusedError
from edge_agent.wire.envelope import open_envelope, seal
from edge_agent.wire.messages import Hello, Job, Offers
from edge_agent.wire.terms import MAX_CLIENTS, MAX_FIRST, Terms

ANY = Terms(clients=None, first=(), labels=None, denied=())
NAMES = st.sampled_from(["ada", "bob", "cy", "a", "ada "])
LABELS = st.sampled_from(["batch", "video", "video-hd", "v"])


def names(most: int) -> st.SearchStrategy[tuple[str, ...]]:
    """Draw some names."""
    return st.lists(NAMES, max_size=most, unique=True).map(tuple)


def labels() -> st.SearchStrategy[tuple[str, ...]]:
    """Draw some labels."""
    return st.lists(LABELS, max_size=4, unique=True).map(tuple)


TERMS = st.builds(
    Terms,
    clients=names(3).map(lambda found: found or None),
    first=names(3),
    labels=labels().map(lambda found: found or None),
    denied=labels(),
)


@pytest.mark.parametrize(
    ("terms", "client", "had", "taken"),
    [
        (ANY, "ada", (), True),
        (ANY, None, ("video",), True),
        (Terms(clients=("ada",), first=(), labels=None, denied=()), "ada", (), True),
        (Terms(clients=("ada",), first=(), labels=None, denied=()), "bob", (), False),
        (Terms(clients=("ada",), first=(), labels=None, denied=()), None, (), False),
        (Terms(clients=("ada",), first=(), labels=None, denied=()), "ada ", (), False),
        (Terms(clients=("ada",), first=(), labels=None, denied=()), "Ada", (), False),
        (Terms(clients=None, first=("ada",), labels=None, denied=()), "bob", (), True),
        (Terms(clients=None, first=("ada",), labels=None, denied=()), None, (), True),
        (Terms(clients=None, first=(), labels=("batch",), denied=()), "ada", ("batch", "x"), True),
        (Terms(clients=None, first=(), labels=("batch",), denied=()), "ada", ("video",), False),
        (Terms(clients=None, first=(), labels=("batch",), denied=()), "ada", (), False),
        (Terms(clients=None, first=(), labels=None, denied=("video",)), "ada", ("batch",), True),
        (Terms(clients=None, first=(), labels=None, denied=("video",)), "ada", (), True),
        (Terms(clients=None, first=(), labels=None, denied=("video",)), "ada", ("batch", "video"), False),
        (Terms(clients=None, first=(), labels=("batch",), denied=("batch",)), "ada", ("batch",), False),
    ],
)
def test_each_rule_and_its_opposite(terms: Terms, client: str | None, had: tuple[str, ...], taken: bool) -> None:  # noqa: FBT001 a table
    """What is named is compared letter by letter; what is denied is denied whatever else allows it."""
    assert (terms.why_not(client, had) is None) is taken


@given(TERMS, NAMES, labels())
def test_what_an_agent_is_told_lets_it_judge_as_the_coordinator_does(
    terms: Terms, client: str, had: tuple[str, ...]
) -> None:
    """The name only if it is named, the labels that are named, and no other: the verdict is the same."""
    told, told_labels = terms.name_for(client), terms.labels_for(had)
    assert (terms.why_not(told, told_labels) is None) == (terms.why_not(client, had) is None)
    assert told in {None, client}
    assert told is None or told in terms.named
    assert set(told_labels) <= set(had) & {*(terms.labels or ()), *terms.denied}


@given(TERMS)
def test_terms_restrict_exactly_if_some_job_is_refused(terms: Terms) -> None:
    """A job of a stranger with no label, or with all labels, is the one that finds out."""
    refused = any(terms.why_not(None, had) for had in ((), ("batch",), ("video", *terms.denied)))
    assert terms.restrict or not refused
    assert not terms.restrict or terms.clients or terms.labels or terms.denied


@pytest.mark.parametrize(
    "changes",
    [
        {"clients": []},
        {"clients": ["a"] * (MAX_CLIENTS + 1)},
        {"clients": [""]},
        {"clients": ["a\n"]},
        {"clients": ["a" * 65]},
        {"clients": "ada"},
        {"first": ["a"] * (MAX_FIRST + 1)},
        {"first": None},
        {"labels": []},
        {"labels": ["a"] * 17},
        {"labels": ["Video"]},
        {"denied": ["a"] * 17},
        {"denied": None},
        {"more": 1},
    ],
    ids=repr,
)
def test_terms_out_of_bounds_are_refused(changes: dict[str, object]) -> None:
    """A hostile agent cannot say more than a household would."""
    with pytest.raises(ValidationError):
        Terms.model_validate({"clients": None, "first": [], "labels": None, "denied": [], **changes})


def test_statements_without_terms_are_what_they_were_and_those_with_them_are_of_version_2() -> None:
    """An older peer never sees a field that it would refuse, but for a statement whose version says so."""
    plain, job = wire_samples.offers(), wire_samples.job()
    assert not {"terms", "client", "labels"} & {*plain.said(), *job.said()}
    fields = {name: getattr(plain, name) for name in type(plain).model_fields if name not in {"v", "terms"}}
    with_terms = Offers(**fields, v=2, terms=ANY)
    assert with_terms.said()["terms"] == ANY.said()
    sealed = seal(wire_samples.AGENT, with_terms)
    key = wire_samples.AGENT.public
    assert open_envelope(sealed, key, Offers, network="home", max_bytes=9_999).statement == with_terms


def test_version_2_is_refused_where_there_is_no_such_field() -> None:
    """Only offers and jobs have it."""
    hello = next(found for _, found, _ in wire_samples.one_of_each() if isinstance(found, Hello))
    forged = hello.model_copy(update={"v": 2})
    sealed = seal(wire_samples.COORDINATOR, forged)
    with pytest.raises(RefusedError, match="version 2, not 1") as refused:
        open_envelope(sealed, wire_samples.COORDINATOR.public, Hello, network="home", max_bytes=9_999)
    assert refused.value.error_code == "wrong-version"
    third = seal(wire_samples.COORDINATOR, wire_samples.job().model_copy(update={"v": 3, "client": None, "labels": ()}),
                 [wire_samples.INPUT.data])  # fmt: skip
    with pytest.raises(RefusedError, match="version 3, not 2"):
        open_envelope(third, wire_samples.COORDINATOR.public, Job, network="home", max_bytes=9_999)
