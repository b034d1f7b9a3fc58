"""The owner's veto."""

from __future__ import annotations

import pytest

from edge_agent.agent.policy import Policy
from edge_agent.models.selection import IDLE_WORKER_BYTES


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
    """Nor what the reserve and an idle worker are to have."""
    assert Policy(memory_share=0.5).room_bytes(4_000_000_001) == 2_000_000_000
    assert Policy(memory_share=1.0).room_bytes(4_000_000_000) == 3_600_000_000 - IDLE_WORKER_BYTES
    assert Policy(memory_share=1.0).room_bytes(1000) == 0


def test_a_family_is_worth_what_the_first_pattern_says() -> None:
    """One where nothing is said."""
    policy = Policy(values=(("yolo-n", 3.0), ("yolo*", 0.5)))
    assert [policy.value_of(name) for name in ("yolo-n", "yolo-s", "digits")] == [3.0, 0.5, 1.0]


def test_what_is_denied_is_never_served() -> None:
    """Whatever is allowed beside it."""
    own = Policy(families=("*",), denied=("llm-*",))
    assert own.refuses_family("digits") is None
    assert "policy.deny_families" in (own.refuses_family("llm-7b") or "")
