"""How commands reach a coordinator: where it is, and with which API key."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from edge_agent.cli.parsing import Parser
    from edge_agent.client import Client
    from edge_agent.errors import EdgeAgentError


def add_coordinator(parser: Parser) -> None:
    """Add `--coordinator`."""
    parser.add_argument(
        "--coordinator", metavar="URL", help="its address; default: client.coordinator, else http://127.0.0.1:8420"
    )


def add_coordinator_key(parser: Parser, only_for: str | None = None) -> None:
    """Add `--coordinator-key`, which is required unless only one action wants it."""
    why = "" if only_for is None else f"for {only_for}: "
    parser.add_argument(
        "--coordinator-key",
        metavar="FILE",
        type=Path,
        required=only_for is None,
        help=f"{why}the coordinator's public key (PEM), from a source that you trust",
    )


def add_registrar(parser: Parser) -> None:
    """Add `--registrar`."""
    parser.add_argument(
        "--registrar",
        metavar="FILE",
        type=Path,
        help="the registrar's public key (PEM): take results only of agents that it let in; default: "
        "client.registrar_file",
    )
    parser.add_argument(
        "--revocations",
        metavar="FILE",
        type=Path,
        help="with the registrar's key: keep the newest list of revoked keys here, so that no older one is believed; "
        "default: client.revocations_file",
    )


def client_of(
    args: argparse.Namespace,
    on_retry: Callable[[EdgeAgentError], None] = lambda _: None,
    coordinator_key: str | None = None,
) -> Client:
    """Return a client of the coordinator that the command names, with the key that the settings name.

    Raises:
        SettingsError: a setting is wrong, or the key's file cannot be read.
        UsageError: the address is none.
    """
    from edge_agent.client import Client  # noqa: PLC0415 the parsers of commands import this module
    from edge_agent.settings import load  # noqa: PLC0415 as above

    own = load(getattr(args, "config", None), os.environ, {}).settings.client
    where = args.coordinator or own.coordinator
    return Client(
        where,
        on_retry=on_retry,
        api_key=own.read_api_key(),
        ca_file=own.ca_file,
        coordinator_key=coordinator_key,
        registrar_key=getattr(args, "registrar", None) or own.registrar_file,
        revocations_file=getattr(args, "revocations", None) or own.revocations_file,
    )


class Patience:
    """Says, once for each reason, why there is no answer yet."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def __call__(self, error: EdgeAgentError) -> None:
        """Say it."""
        if error.error_code not in self._told:
            self._told.add(error.error_code)
            print(f"… {error.message}; trying again, Ctrl-C gives up", file=sys.stderr, flush=True)
