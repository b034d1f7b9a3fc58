"""`edge-agent coordinator token|tokens|approve|revoke|reinstate|requests|certify`: who belongs to the network."""

from __future__ import annotations

import json
import re
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli.coordinator_keys import ttl_seconds
from edge_agent.cli.registrar_revoke import read_list
from edge_agent.errors import KeyFileError, PeerError, StateError, UsageError

if TYPE_CHECKING:
    import argparse

    from edge_agent.coordinator.registrar import Registrar
    from edge_agent.coordinator.store import Store
    from edge_agent.own_keys import KeySource
    from edge_agent.settings import Settings

ACTIONS = ("token", "tokens", "approve", "revoke", "reinstate", "requests", "certify")
MAX_TTL_DAYS = 30


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do one of the actions."""
    actions = {
        "token": _token,
        "tokens": _tokens,
        "approve": _approve,
        "revoke": _revoke,
        "reinstate": _reinstate,
        "requests": _requests,
        "certify": _certify,
    }
    return actions[args.action](args, settings)


def registrar_of(settings: Settings, source: KeySource, *, make: bool) -> Registrar | None:
    """Return the registrar of a coordinator.

    Args:
        settings: that hold.
        source: how key files are opened.
        make: make its key, if neither half of it is there: at the coordinator's first start.

    Raises:
        KeyFileError: a file is no key.
    """
    from edge_agent.coordinator.registrar import Registrar  # noqa: PLC0415 the coordinator's extra
    from edge_agent.own_keys import existing_signing_key, signing_key  # noqa: PLC0415 as above
    from edge_agent.wire.keys import PublicKey  # noqa: PLC0415 as above

    path, network = settings.coordinator.registrar_key_file, settings.network.name
    key = existing_signing_key(path, source)
    public = path.with_suffix(".pub")
    if key is None and public.exists():
        return Registrar(PublicKey.from_file(public), None, network)
    if key is None and make:
        key = signing_key(path, source)
    return Registrar(key.public, key, network) if key is not None else None


def existing(settings: Settings) -> Path:
    """Tell a wrong --state, instead of making an empty database there.

    Raises:
        StateError: no coordinator was ever started there.
    """
    database = settings.coordinator.database
    if not database.exists():
        raise StateError(
            f"there is no coordinator's database {database}",
            hint="Give the --state that the coordinator runs with; it makes its database at its first start.",
        )
    return database


def _open(settings: Settings) -> Store:
    from edge_agent.coordinator.store import Store  # noqa: PLC0415 as above

    return Store(existing(settings))


def _token(args: argparse.Namespace, settings: Settings) -> int:
    from edge_agent.coordinator import identities  # noqa: PLC0415 as above
    from edge_agent.wire.keys import PublicKey  # noqa: PLC0415 as above

    owner = _owner(args.owner)
    ttl = args.ttl or "1h"
    seconds = ttl_seconds(ttl, MAX_TTL_DAYS)
    public = settings.coordinator.key_file.with_suffix(".pub")
    existing(settings)
    coordinator = PublicKey.from_file(public)
    now_ms = time.time_ns() // 1_000_000
    with closing(_open(settings)) as store:
        token = store.write(
            lambda connection: identities.new_token(
                connection,
                network=settings.network.name,
                coordinator_id=coordinator.id,
                owner=owner,
                now_ms=now_ms,
                ttl_ms=seconds * 1000,
            )
        )
    if args.json:
        print(json.dumps({"token": token.text(), "owner": owner, "expires_ms": now_ms + int(seconds * 1000)}))
        return 0
    print(token.text())
    whose = f" as one of {owner}'s" if owner else ""
    print(f"lets one machine in{whose}, once, within {ttl}: edge-agent enrol URL TOKEN", file=sys.stderr)
    return 0


def _tokens(args: argparse.Namespace, settings: Settings) -> int:
    from edge_agent.coordinator import identities  # noqa: PLC0415 as above

    now_ms = time.time_ns() // 1_000_000
    with closing(_open(settings)) as store:
        found = store.read(identities.all_tokens)
    rows = []
    for each in found:
        state = "used" if each.used_by else "expired" if now_ms >= each.expires_ms else "open"
        rows.append(
            {
                "token_id": each.id.hex()[:12],
                "state": state,
                "owner": each.owner,
                "used_by": each.used_by,
                "expires_ms": each.expires_ms,
                "refused": each.refused,
                "refused_from": each.refused_from,
            }
        )
    if args.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        line = f"{row['token_id']}  {row['state']:7}  {row['owner'] or '-':16}  {row['used_by'] or '-'}"
        if row["refused"]:
            line += f"  REFUSED {row['refused']} times, last to {row['refused_from']}: a copy of it is around"
        print(line)
    if not rows:
        print("There are no tokens. Make one: edge-agent coordinator token --owner NAME --ttl 1h")
    return 0


def _approve(args: argparse.Namespace, settings: Settings) -> int:
    owner = _owner(args.owner)
    with closing(_open(settings)) as store:
        agent_id = _named(store, args.agent_id, "approve")
        store.approve(agent_id, owner=owner)
    whose = f" as one of {owner}'s" if owner else ""
    print(f"The agent {agent_id} is admitted{whose}.")
    return 0


def _revoke(args: argparse.Namespace, settings: Settings) -> int:
    reason = args.reason if args.reason is not None else "revoked by the operator"
    if not re.fullmatch(r"[ -~]{1,64}", reason):
        raise UsageError("--reason is a text of 1 to 64 printable ASCII characters.")
    if args.list is not None:
        return _revoke_all(args, settings)
    with closing(_open(settings)) as store:
        agent_id = _named(store, args.agent_id, "revoke")
        store.revoke(agent_id, reason, time.time_ns() // 1_000_000)
    print(f"The agent {agent_id} is no longer admitted, and its key is refused for ever: {reason}.")
    return 0


def _revoke_all(args: argparse.Namespace, settings: Settings) -> int:
    """Revoke what the registrar did, from the same moment on, so that our list goes on from its."""
    from edge_agent.own_keys import source_of  # noqa: PLC0415 as above

    if args.agent_id is not None or args.reason is not None:
        raise UsageError("--list goes with neither an id nor --reason: both stand in the list.")
    registrar = registrar_of(settings, source_of(settings), make=False)
    if registrar is None:
        raise KeyFileError(
            f"There is no registrar: neither half of {settings.coordinator.registrar_key_file} is there."
        )
    hint = "Give what `edge-agent registrar revoke` wrote for this network."
    listed = read_list(args.list, [registrar.public], settings.network.name, hint)
    with closing(_open(settings)) as store:
        for entry in listed.revoked:
            store.revoke(entry.id, entry.reason, entry.since_ms)
    count = len(listed.revoked)
    print(f"{count} key{'' if count == 1 else 's'} on the registrar's list: refused here for ever, too.")
    return 0


def _reinstate(args: argparse.Namespace, settings: Settings) -> int:
    from edge_agent.coordinator import identities  # noqa: PLC0415 as above

    now_ms = time.time_ns() // 1_000_000
    with closing(_open(settings)) as store:
        agent_id = _named(store, args.agent_id, "reinstate")
        rested = store.write(lambda connection: identities.reinstate(connection, agent_id, now_ms))
    if rested:
        print(f"The agent {agent_id} need rest no longer.")
    else:
        print(f"The agent {agent_id} did not rest.")
    return 0


def _requests(args: argparse.Namespace, settings: Settings) -> int:
    from edge_agent.coordinator import identities  # noqa: PLC0415 as above
    from edge_agent.own_keys import source_of  # noqa: PLC0415 as above
    from edge_agent.wire.registrar_files import Request, write_requests  # noqa: PLC0415 as above

    registrar = registrar_of(settings, source_of(settings), make=False)
    if registrar is None:
        raise KeyFileError(
            f"There is no registrar: neither half of {settings.coordinator.registrar_key_file} is there."
        )
    if args.agent_id is None:
        raise UsageError("Where do the requests go?", hint="edge-agent coordinator requests FILE")
    now_ms = time.time_ns() // 1_000_000
    with closing(_open(settings)) as store:
        due = store.read(lambda connection: identities.certificates_due(connection, registrar, now_ms))
    found = [Request(signed, owner) for signed, owner in due]
    Path(args.agent_id).write_bytes(write_requests(settings.network.name, found))
    print(
        f"{len(found)} requests in {args.agent_id}; next, where the key is: edge-agent registrar sign {args.agent_id}"
    )
    return 0


def _certify(args: argparse.Namespace, settings: Settings) -> int:
    from edge_agent.coordinator import identities  # noqa: PLC0415 as above
    from edge_agent.own_keys import source_of  # noqa: PLC0415 as above
    from edge_agent.wire.registrar_files import MAX_FILE_BYTES, read_certificates  # noqa: PLC0415 as above

    registrar = registrar_of(settings, source_of(settings), make=False)
    if registrar is None or args.agent_id is None:
        raise UsageError("Which file, and by which registrar?", hint="edge-agent coordinator certify FILE")
    with Path(args.agent_id).open("rb") as file:
        _, pairs = read_certificates(file.read(MAX_FILE_BYTES + 1))
    now_ms = time.time_ns() // 1_000_000
    with closing(_open(settings)) as store:
        taken = store.write(lambda connection: identities.take_certificates(connection, registrar, pairs, now_ms))
    print(f"{taken} of {len(pairs)} certificates taken; those agents work from now on.")
    return 0 if taken == len(pairs) else PeerError.exit_status


def _named(store: Store, text: str | None, word: str) -> str:
    """Return the agent that an id or a code names."""
    from edge_agent.coordinator import identities  # noqa: PLC0415 as above

    given = (text or "").strip().lower()
    if re.fullmatch(r"[a-z2-7]{32}", given):
        return given
    if re.fullmatch(r"[a-z2-7]{4}-[a-z2-7]{4}", given):
        found = [each.agent_id for each in store.read(identities.all_identities) if each.code == given]
        if len(found) == 1:
            return found[0]
        what = "No agent shows" if not found else "More than one agent shows"
        raise UsageError(f"{what} the code {given}.", hint="Do not approve what you did not compare.")
    raise UsageError(
        f"An agent's id is 32 letters and digits, not {(text or 'nothing')[:64]!r}.",
        hint=f"The agent prints its id at its first start: edge-agent coordinator {word} ID",
    )


def _owner(owner: str | None) -> str | None:
    if owner is not None and not re.fullmatch(r"[ -~]{1,64}", owner):
        raise UsageError("--owner is a text of 1 to 64 printable ASCII characters.")
    return owner
