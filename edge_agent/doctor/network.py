"""Checks of the way to the coordinator: the broker, the hello, a fresh answer, and what it says of the clocks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from edge_agent.doctor.findings import Facts, Finding, SkipCheck, failed, ok, warning
from edge_agent.errors import EdgeAgentError

if TYPE_CHECKING:
    from edge_agent.doctor.context import Context
    from edge_agent.doctor.visit import Visit

WORRYING_SKEW_MS = 5 * 60 * 1000
MAX_SKEW_MS = 24 * 3600 * 1000
"""A coordinator refuses results whose time is further off (`not-fresh`)."""


def broker(context: Context) -> Finding:
    """The broker lets us in, over TLS where that is asked for, and can do what we use."""
    visit = context.visit
    limit = context.settings.limits.max_inline_bytes
    abilities = visit.abilities
    text = f"{visit.address} lets us in within {visit.connect_ms:.0f} ms"
    facts: dict[str, object] = {"address": visit.address, "connect_ms": round(visit.connect_ms, 1)}
    if abilities is None:
        return ok(f"{text}; what it can do is found out once the agent has a key", facts)
    facts["abilities"] = abilities.to_dict()
    text += f" with MQTT {abilities.protocol}"
    lacking = abilities.lacking(limit)
    facts["lacks"] = list(lacking)
    if abilities.max_packet_bytes is not None and abilities.max_packet_bytes < limit:
        mend = "Raise the broker's limit on packets, or lower limits.max_inline_bytes on both sides."
        return warning(f"{text}; it lacks {'; '.join(lacking)}", mend, facts)
    if abilities.max_qos == 0:
        return failed(f"{text}; it lacks {'; '.join(lacking)}", "Allow QoS 1 on the broker.", facts=facts)
    return ok(f"{text}; it lacks {'; '.join(lacking)}" if lacking else text, facts)


def _visit(context: Context) -> Visit:
    try:
        return context.visit
    except EdgeAgentError:
        raise SkipCheck("the broker cannot be reached") from None


def coordinator(context: Context) -> Finding:
    """A coordinator says hello in this network, signed by the pinned key."""
    visit = _visit(context)
    network = context.settings.network.name
    if visit.hello is not None:
        age_seconds = (time.time_ns() // 1_000_000 - visit.hello.issued_ms) / 1000
        said = f"said {age_seconds:.0f} s ago by our clock" if age_seconds >= 0 else "said in our future"
        text = f"{visit.hello.software} coordinates {network}, session {visit.hello.session}, {said}"
        facts = {"session": visit.hello.session, "software": visit.hello.software, "retained": visit.hello_retained}
        if context.coordinator_key is None:
            return warning(f"{text}; whether it is the right one is not known", "Pin its key.", facts)
        return ok(f"{text}, signed by the pinned key", facts)
    if visit.refused is not None:
        mend = "Is the right coordinator.pub pinned? Copy it anew from the coordinator, or ask who else speaks there."
        return failed(f"a hello is not believed: {visit.refused.message}", mend, visit.refused.error_code)
    mend = (
        f"Does a coordinator run, and is its network called {network!r} (network.name)? A broker that keeps no "
        "messages gives its hello only to those who are there when it starts."
    )
    return failed(f"no coordinator says hello in the network {network}", mend)


def admission(context: Context) -> Finding:
    """The coordinator answers us: the way works in both directions, and it has admitted this agent."""
    visit = _visit(context)
    if context.key is None:
        raise SkipCheck("the agent has no key yet")
    if context.coordinator_key is None:
        raise SkipCheck("no coordinator's key is pinned")
    if visit.answer is None:
        mend = (
            "If the coordinator runs, its operator has not admitted this agent yet: "
            f"edge-agent coordinator approve {context.key.public.id}"
        )
        return failed("the coordinator does not answer this agent", mend, "not-enrolled")
    facts = {"round_trip_ms": round(visit.answer.round_trip_ms, 1)}
    return ok(f"the coordinator answers within {visit.answer.round_trip_ms:.0f} ms", facts)


def clock(context: Context) -> Finding:
    """Our clock and the coordinator's agree, as far as a fresh answer shows."""
    visit = _visit(context)
    if visit.answer is None:
        return _clock_by_hello(visit)
    ahead, uncertain = visit.answer.ahead_ms, visit.answer.uncertain_ms
    way = "behind" if ahead > 0 else "ahead of"
    text = f"our clock is {abs(ahead) / 1000:.3f} s {way} the coordinator's, ± {uncertain / 1000:.3f} s"
    facts = {"coordinator_ahead_ms": round(ahead), "uncertain_ms": round(uncertain)}
    return _judge(abs(ahead) - uncertain, text, facts)


def _clock_by_hello(visit: Visit) -> Finding:
    """Say the little that an old message tells: it cannot have been made in the future."""
    if visit.hello is None:
        raise SkipCheck("there is neither an answer nor a hello to compare with")
    ahead = visit.hello.issued_ms - time.time_ns() // 1_000_000
    if ahead <= 0:
        raise SkipCheck("only a hello is there, which may be old: it does not show how the clocks differ")
    text = f"our clock is at least {ahead / 1000:.1f} s behind the coordinator's, whose hello is from our future"
    return _judge(ahead, text, {"coordinator_ahead_at_least_ms": ahead})


def _judge(least_ms: float, text: str, facts: Facts) -> Finding:
    mend = (
        "Set one of them right: `timedatectl set-ntp true`, or a real-time clock for a board without network at start."
    )
    if least_ms > MAX_SKEW_MS:
        return failed(f"{text}: results are refused as not fresh", mend, "not-fresh", facts)
    if least_ms > WORRYING_SKEW_MS:
        return warning(text, mend, facts)
    return ok(text, facts)
