"""`edge-agent status`: what the agent on this machine does, on one screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_agent.cli.owner import COLUMN, ask_agent, headline, obstacle_lines, owner_command, reason_lines, show

if TYPE_CHECKING:
    import argparse

    from edge_agent.cli.parsing import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    owner_command(
        subparsers,
        "status",
        summary="show what the agent on this machine is doing",
        description="What the running agent does, for whom, with which models, how warm the CPU is, and what it did\n"
        "today. While it rests, all reasons for that; and what keeps it from working that its owner lets work.",
        examples=("edge-agent status", "edge-agent status --json", "edge-agent status --state ~/agent"),
    )


def run(args: argparse.Namespace) -> int:
    """Ask and print."""
    answer = ask_agent(args, "status")
    lines = [f"{name:{COLUMN}}{text}" for name, text in _rows(answer)]
    return show(args, answer, [*lines, *reason_lines(answer), *obstacle_lines(answer)])


def _rows(answer: dict[str, Any]) -> list[tuple[str, str]]:
    celsius = answer["cpu_celsius"]
    rows = [
        ("agent", f"{answer['agent_id']}, process {answer['pid']}"),
        ("now", headline(answer)),
        ("for", f"network {answer['network']}, coordinator {answer['coordinator_id']}, {_link(answer)}"),
        ("works", answer["clientele"]["text"]),
        ("models", _models(answer)),
        ("machine", answer["machine"]),
        ("warm", f"{celsius:.0f} °C" if celsius is not None else f"unknown: {answer['cpu_celsius_why']}"),
        ("today", _today(answer["today"])),
        ("mode", f"{answer['pace']}, {answer['threads']} threads"),
        ("took", _took(answer["account"])),
        ("earned", _earned(answer["account"])),
    ]
    if answer["refused_rules"]:
        rows.append(("settings", f"new rules were refused, the old ones hold: {answer['refused_rules']}"))
    rows += [("refused", answer[name]) for name in ("refused_order", "refused_control") if answer[name]]
    rows += [("note", f"{note['text']}; worked on all the same") for note in answer["notes"]]
    return rows


def _link(answer: dict[str, Any]) -> str:
    return "connected" if answer["connected"] else "not connected to the broker"


def _models(answer: dict[str, Any]) -> str:
    served = [
        f"{family['family']} ({family['chosen']}{', loaded' if family['loaded'] else ''})"
        for family in answer["families"]
        if family["chosen"]
    ]
    return ", ".join(served) or "none yet"


def _took(account: dict[str, Any]) -> str:
    """Return what today cost, as far as that is known, and says how it is known."""
    if account["kwh_today"] is None:
        return f"unknown watts: {account['watts_why']}"
    cost = "" if account["cost_today"] is None else f" for {account['cost_today']:.4f} {account['currency']}"
    now = (
        "" if account["watts"] is None else f"; the machine draws {account['watts']:.1f} W ({account['watts_source']})"
    )
    return f"{1000 * account['kwh_today']:.2f} Wh{cost} beyond the idle machine{now}"


def _earned(account: dict[str, Any]) -> str:
    """Return what today's results are worth, by the machine's own count."""
    accepted = account["accepted_today"]
    if not accepted:
        return "nothing yet"
    return f"{account['credit_today']} Mmac of credit for {accepted} accepted results, by this machine's count"


def _today(counts: dict[str, dict[str, int]]) -> str:
    if not counts:
        return "no jobs yet"
    sums = {name: sum(count[name] for count in counts.values()) for name in next(iter(counts.values()))}
    text = f"{sums['finished']} jobs in {sums['busy_us'] / 1e6:.1f} s of computing"
    more = [
        f"{sums[name]} {words}" for name, words in (("failed", "failed"), ("handed_back", "handed back")) if sums[name]
    ]
    families = ", ".join(f"{family} {count['finished']}" for family, count in sorted(counts.items()))
    return f"{', '.join([text, *more])} ({families})"
