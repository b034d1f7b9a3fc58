"""The owner's veto."""

from __future__ import annotations

import pytest

from edge_agent.agent.policy import Policy


@pytest.mark.parametrize(
    ("patterns", "family", "allowed"),
    [
        (("*",), "digits", True),
        (("digits",), "digits", True),
        (("digits",), "digits2", False),
        (("dig*", "letters"), "letters", True),
        (("D*",), "digits", False),
        ((), "digits", False),
        (("digit?",), "digits", True),
    ],
)
def test_only_the_families_that_the_owner_names_are_served(
    patterns: tuple[str, ...], family: str, *, allowed: bool
) -> None:
    """Shell patterns, case and all; no pattern allows nothing, and the reason names the setting."""
    reason = Policy(families=patterns).refuses_family(family)
    assert (reason is None) == allowed
    assert reason is None or "agent.families" in reason


def test_models_take_no_more_than_the_share_of_the_memory() -> None:
    """In whole bytes, rounded down."""
    assert Policy(memory_share=0.5).memory_bytes(1001) == 500
    assert Policy(memory_share=1.0).memory_bytes(1001) == 1001
