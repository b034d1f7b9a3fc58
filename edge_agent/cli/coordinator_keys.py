"""`edge-agent coordinator keys`: API keys of clients, in the coordinator's database."""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import closing
from typing import TYPE_CHECKING

from edge_agent.errors import StateError, UsageError

if TYPE_CHECKING:
    import argparse

    from edge_agent.cli.parsing import Parser
    from edge_agent.coordinator.access import KeyRecord, Usage
    from edge_agent.coordinator.store import Store
    from edge_agent.settings import Settings

VERBS = ("add", "list", "revoke")
SCOPES = ("infer", "read", "operator", "mqtt")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def add_flags(parser: Parser) -> None:
    """Add what `keys add` can be told."""
    group = parser.add_argument_group("options of keys add")
    group.add_argument(
        "--scope",
        action="append",
        choices=SCOPES,
        default=[],
        help="what the key is for, may be given several times: infer (submit jobs, see its own), read (the fleet and "
        "all jobs), operator (everything), mqtt (jobs over plain MQTT, alone); default: infer",
    )
    group.add_argument("--ttl", metavar="TIME", help="it ends after 30m, 12h or 90d; default: never, a token after 1h")
    group.add_argument("--requests-per-minute", metavar="N", type=int, help="default: gateway.requests_per_minute")
    group.add_argument("--jobs-per-day", metavar="N", type=int, help="default: gateway.jobs_per_day")
    group.add_argument(
        "--out", metavar="FILE", help="write the key to a new file of yours alone, instead of printing it"
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do what the verb says."""
    from edge_agent.coordinator.store import Store  # noqa: PLC0415 the coordinator's extra

    verb = args.agent_id or "list"
    if verb not in VERBS:
        raise UsageError(f"keys has no verb {verb[:40]!r}.", hint=f"There are {', '.join(VERBS)}.")
    if (args.name is None) != (verb == "list"):
        raise UsageError(f"keys {verb} takes {'no name' if verb == 'list' else 'the name of a client'}.")
    with closing(Store(settings.coordinator.database)) as store:
        match verb:
            case "add":
                return _add(args, settings, store)
            case "revoke":
                return _revoke(args.name, store)
            case _:
                return _list(store, as_json=args.json)


def _add(args: argparse.Namespace, settings: Settings, store: Store) -> int:
    from edge_agent.coordinator.access import NAME, KeyRecord, Scope  # noqa: PLC0415 as above
    from edge_agent.coordinator.key_table import add_key, new_token  # noqa: PLC0415 as above

    if not NAME.fullmatch(args.name):
        raise UsageError("A client's name is 1 to 64 letters, digits and . _ @ -, such as reports or ada@club.")
    now_ms = time.time_ns() // 1_000_000
    seconds = None if args.ttl is None else ttl_seconds(args.ttl)
    own = settings.gateway
    per_minute = own.requests_per_minute if args.requests_per_minute is None else args.requests_per_minute
    per_day = own.jobs_per_day if args.jobs_per_day is None else args.jobs_per_day
    if per_minute < 1 or per_day < 1:
        raise UsageError("--requests-per-minute and --jobs-per-day must be above 0.")
    if "mqtt" in args.scope and len(set(args.scope)) > 1:
        raise UsageError(
            "The scope mqtt stands alone: the broker sees such a key.", hint="Make two keys, under one name."
        )
    key_id, token, digest = new_token()
    key = KeyRecord(
        key_id,
        args.name,
        digest,
        frozenset(Scope(scope) for scope in args.scope or ["infer"]),
        now_ms,
        requests_per_minute=min(per_minute, 2**31 - 1),
        jobs_per_day=min(per_day, 2**62),
        expires_ms=None if seconds is None else now_ms + seconds * 1000,
    )
    if args.out:
        _write_secret(args.out, token)
    store.write(lambda connection: add_key(connection, key))
    print(f"The key {key_id} of {args.name} is in {args.out}." if args.out else token)
    return 0


def _write_secret(name: str, token: str) -> None:
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise StateError(
            f"{name} cannot be made: {error.strerror}", hint="--out takes the name of a file that is not there yet."
        ) from error
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")


def ttl_seconds(text: str, most_days: int | None = None) -> int:
    """Read `--ttl`.

    Raises:
        UsageError: it is no time, or a longer one than so many days.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,5})([smhd])", text)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not seconds or (most_days is not None and seconds > most_days * _UNITS["d"]):
        limit = f" of at most {most_days}d" if most_days is not None else ""
        raise UsageError(f"--ttl {text[:20]!r} is no time{limit}.", hint="Write 30m, 12h or 7d.")
    return seconds


def _revoke(which: str, store: Store) -> int:
    from edge_agent.coordinator.key_table import revoke_keys  # noqa: PLC0415 as above

    now_ms = time.time_ns() // 1_000_000
    ended = store.write(lambda connection: revoke_keys(connection, which, now_ms))
    if not ended:
        raise UsageError(f"There is no key of {which[:64]!r} that holds.", hint="edge-agent coordinator keys list")
    for key in ended:
        print(f"The key {key.id} of {key.name} holds no longer.")
    return 0


def _list(store: Store, *, as_json: bool) -> int:
    from edge_agent.cli.table import render  # noqa: PLC0415 as above
    from edge_agent.coordinator.access import DAY_MS, Usage  # noqa: PLC0415 as above
    from edge_agent.coordinator.key_table import read_keys, read_usage  # noqa: PLC0415 as above

    now_ms = time.time_ns() // 1_000_000
    keys = store.read(read_keys)
    usages = store.read(lambda connection: read_usage(connection, now_ms // DAY_MS))
    rows = [_row(key, usages.get(key.name, Usage()), now_ms) for key in keys]
    if as_json:
        print(json.dumps(rows))
    elif rows:
        shown = [[str(value) if value is not None else "" for value in row.values()] for row in rows]
        print(render(tuple(name.replace("_", " ") for name in rows[0]), shown, right=(5, 6, 7, 8)))
    else:
        print("No keys yet. Make one with: edge-agent coordinator keys add NAME")
    return 0


def _row(key: KeyRecord, usage: Usage, now_ms: int) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": ",".join(sorted(key.scopes)),
        "state": key.state(now_ms),
        "expires": _date(key.expires_ms),
        "requests_today": usage.requests,
        "per_minute": key.requests_per_minute,
        "jobs_today": usage.jobs,
        "per_day": key.jobs_per_day,
    }


def _date(wall_ms: int | None) -> str | None:
    return None if wall_ms is None else time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(wall_ms / 1000))
