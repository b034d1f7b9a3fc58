"""Who may make which call: one table, read by the guard before anything else looks at a request.

What is not in the table needs the scope `operator`; a test holds it against the routes that there are.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from edge_agent.coordinator.access import ANYBODY, Access, Caller, Scope
from edge_agent.errors import DeniedError


class Need(Enum):
    """What a call needs where it is no scope."""

    PUBLIC = "public"
    """Nothing: whoever reaches the address may make it."""
    ANY = "any"
    """A key that holds and is for more than MQTT, whatever its scopes."""


class Rule(NamedTuple):
    """Calls by their methods and path."""

    methods: str
    path: re.Pattern[str]
    need: Scope | Need


def _rule(methods: str, path: str, need: Scope | Need) -> Rule:
    return Rule(methods, re.compile(path), need)


_ID = r"[^/]+"

RULES: tuple[Rule, ...] = (
    # Whoever watches over the coordinator needs no key for that, and whoever audits the log needs only hashes.
    _rule("GET", r"/v2/health/(live|ready)", Need.PUBLIC),
    _rule("GET", r"/api/v1/log(/inclusion|/consistency|/leaves)?", Need.PUBLIC),
    _rule("GET", r"/api/v1/checks/keys", Need.PUBLIC),
    # The dashboard asks for an operator's key itself, by a login, and checks its session's cookie in each call.
    _rule("GET POST DELETE", r"/|/dashboard(/.*)?", Need.PUBLIC),
    # Enrolments are signed, limited and decided by token or operator; the list of revoked keys is for everybody.
    _rule("POST", r"/api/v1/enrol", Need.PUBLIC),
    _rule("GET", r"/api/v1/(identity|revocations)", Need.PUBLIC),
    _rule("GET", r"/v2/?", Need.ANY),
    _rule("GET", r"/openapi\.json", Need.ANY),
    _rule("GET", rf"/v2/models/{_ID}(/versions/{_ID})?(/ready)?", Need.ANY),
    _rule("POST", r"/v2/repository/index", Need.ANY),
    _rule("POST", rf"/v2/repository/models/{_ID}/(load|unload)", Scope.OPERATOR),
    _rule("POST", rf"/v2/models/{_ID}(/versions/{_ID})?/infer", Scope.INFER),
    _rule("GET", rf"/v1/models(/{_ID})?", Need.ANY),
    _rule("POST", r"/v1/embeddings", Scope.INFER),
    # Of jobs, a caller sees its own; with the scope `read`, all.
    _rule("POST", rf"/api/v1/models/{_ID}(/versions/{_ID})?/jobs", Scope.INFER),
    _rule("GET", r"/api/v1/jobs", Need.ANY),
    _rule("GET", rf"/api/v1/jobs/{_ID}(/receipt)?", Need.ANY),
    _rule("DELETE", rf"/api/v1/jobs/{_ID}", Need.ANY),
    _rule("GET", r"/api/v1/log/bundle", Need.ANY),
    # The ledger says who has earned what: that is for those who take part, and each of them can add it up again.
    _rule("GET", r"/api/v1/ledger/(balances|entries)", Need.ANY),
    _rule("GET", r"/api/v1/coordinator", Need.ANY),
    _rule("GET", rf"/api/v1/agents/{_ID}/(birth|certificate)", Need.ANY),  # whoever seals to an agent needs them
    _rule("GET", r"/api/v1/(agents|overview|models)", Scope.READ),
    _rule("GET", rf"/api/v1/jobs/{_ID}/way", Scope.READ),
    _rule("POST", rf"/api/v1/agents/{_ID}/{_ID}", Scope.OPERATOR),
    _rule("POST", r"/api/v1/tokens", Scope.OPERATOR),
    _rule("GET", r"/metrics", Scope.READ),
)


@lru_cache(maxsize=64)  # paths may be long, and are not ours
def need_of(method: str, path: str) -> Scope | Need:
    """Return what a call needs."""
    for rule in RULES:
        if method in rule.methods.split() and rule.path.fullmatch(path):
            return rule.need
    return Scope.OPERATOR


def admit(access: Access, need: Scope | Need, token: str | None, call: str, *, charge: bool = True) -> Caller:
    """Return whose call it is, if it may be made, and count it.

    Args:
        access: knows the keys.
        need: what the call needs.
        token: the key that came with it, if any.
        call: what it is called, for who is refused.
        charge: whether it counts among the calls of its key.

    Raises:
        DeniedError: `unauthorized` without a key that holds; `forbidden`: it is for something else.
        ResourceError: `too-many-calls`.
    """
    if need is Need.PUBLIC:
        return Caller(None, frozenset()) if access.required else ANYBODY
    caller = access.caller(token)
    if isinstance(need, Scope) and not caller.may(need):
        raise DeniedError(f"{call[:200]} needs a key with the scope {need.value}", code="forbidden")
    if caller.scopes <= {Scope.MQTT}:  # the broker has seen it
        raise DeniedError(f"{call[:200]} needs a key with another scope than {Scope.MQTT.value}", code="forbidden")
    if charge:
        access.charge_request(caller)
    return caller
