"""An agent whose catalogue changes while it works."""

from __future__ import annotations

from fakes import AgentScript, of_type, two_families

from edge_agent.agent.events import CancelCanary, CatalogueChanged, Command, LinkUp, PlanRequested, Publish, RunCanary
from edge_agent.inference.events import CANCELLED, CanaryFailed
from edge_agent.models.catalogue import builtin
from edge_agent.wire.messages import Offers


def offered(script: AgentScript, commands: list[Command]) -> set[str]:
    """Return what the last offers among the commands name."""
    return {offer.family for offer in script.said(commands, Offers)[-1].statement.offers}


def test_a_new_family_is_measured_and_offered_without_a_restart() -> None:
    """What was offered before stays so all the while, and is not measured again."""
    script = AgentScript(catalogue=builtin())
    first = script.ready()
    assert offered(script, first) == {"digits"}
    commands = script.tell(CatalogueChanged(two_families()))
    for said in script.said(commands, Offers):
        assert "digits" in {offer.family for offer in said.statement.offers}
    assert offered(script, script.play_worker(commands)) == {"digits", "letters"}


def test_a_family_that_is_gone_is_offered_no_more() -> None:
    """The coordinator hears of it at once."""
    script = AgentScript(catalogue=two_families())
    assert offered(script, script.ready()) == {"digits", "letters"}
    commands = script.tell(CatalogueChanged(builtin()))
    commands += script.play_worker(commands)
    assert offered(script, commands) == {"digits"}
    assert of_type(commands, Publish)


def test_the_same_catalogue_again_changes_nothing() -> None:
    """A look at the files that found nothing new withdraws nothing."""
    script = AgentScript(catalogue=two_families())
    script.ready()
    commands = script.tell(CatalogueChanged(two_families()))
    commands += script.play_worker(commands)
    for said in script.said(commands, Offers):
        assert {offer.family for offer in said.statement.offers} == {"digits", "letters"}


def test_a_change_in_the_middle_of_a_canary_run() -> None:
    """The run is called off and made again, once: the late word of its end is not taken for the end of the next."""
    script = AgentScript(catalogue=builtin())
    (first,) = of_type(script.tell(LinkUp(1), PlanRequested()), RunCanary)
    commands = script.tell(CatalogueChanged(two_families()))
    assert len(of_type(commands, CancelCanary)) == 1
    (second,) = of_type(commands, RunCanary)
    assert second.variant == first.variant
    late = script.tell(CanaryFailed(first.variant.digest_bytes, CANCELLED, "The canary run was called off."))
    assert (of_type(late, RunCanary), of_type(late, CancelCanary)) == ([], [])
    script.play_worker(commands)
    script.worker_up()
    assert {offer.family for offer in script.planner.offers()} == {"digits", "letters"}
