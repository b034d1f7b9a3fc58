"""For whom the machine works, as settings say it: what is told, and what people read."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from edge_agent.agent.policy import clientele, terms_of
from edge_agent.settings import Policy
from edge_agent.wire.terms import Terms


@pytest.mark.parametrize(
    ("settings", "terms", "text"),
    [
        (Policy(), None, "for everybody"),
        (Policy(circle=("bob",)), None, "for everybody"),
        (
            Policy(my_clients=("ada",)),
            Terms(clients=None, first=("ada",), labels=None, denied=()),
            "first for ada, then for everybody",
        ),
        (
            Policy(clients="mine", my_clients=("ada", "phone", "ada")),
            Terms(clients=("ada", "phone"), first=(), labels=None, denied=()),
            "only for ada, phone",
        ),
        (
            Policy(clients="mine", my_clients=("ada",), circle=("bob",)),
            Terms(clients=("ada",), first=(), labels=None, denied=()),
            "only for ada",
        ),
        (
            Policy(clients="circle", my_clients=("ada",), circle=("bob", "ada")),
            Terms(clients=("ada", "bob"), first=("ada",), labels=None, denied=()),
            "first for ada, then for bob",
        ),
        (
            Policy(clients="circle", circle=("bob",)),
            Terms(clients=("bob",), first=(), labels=None, denied=()),
            "only for bob",
        ),
        (
            Policy(clients="circle", my_clients=("ada",)),
            Terms(clients=("ada",), first=("ada",), labels=None, denied=()),
            "only for ada",
        ),
        (
            Policy(allow_labels=("batch", "text"), deny_labels=("video",)),
            Terms(clients=None, first=(), labels=("batch", "text"), denied=("video",)),
            "for everybody; only jobs labelled batch or text; no jobs labelled video",
        ),
    ],
)
def test_settings_become_terms_and_a_sentence(settings: Policy, terms: Terms | None, text: str) -> None:
    """Without a rule nothing is told at all."""
    assert terms_of(settings) == terms
    assert clientele(settings)["text"] == text


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"clients": "mine"}, "needs the names of your clients"),
        ({"clients": "mine", "circle": ("bob",)}, "needs the names of your clients"),
        ({"clients": "circle"}, "needs names of clients"),
        ({"clients": "friends"}, "everybody"),
        ({"my_clients": ("ada\n",)}, "pattern"),
        ({"my_clients": ("",)}, "pattern"),
        ({"circle": ("a" * 65,)}, "pattern"),
        ({"my_clients": ("a",) * 65}, "64"),
        ({"deny_labels": ("Video",)}, "pattern"),
        ({"allow_labels": ("a",) * 17}, "16"),
    ],
)
def test_rules_that_would_let_it_work_for_nobody_are_refused(settings: dict[str, object], says: str) -> None:
    """And names that no client can have."""
    with pytest.raises(ValidationError, match=says):
        Policy.model_validate(settings)
