"""What is carried between a coordinator and a registrar elsewhere: requests one way, certificates the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from edge_agent.errors import MalformedError
from edge_agent.wire import cose, strict_cbor
from edge_agent.wire.envelope import Opened, announced_key, open_envelope
from edge_agent.wire.identity import MAX_IDENTITY_BYTES, Enrol

MAX_ENTRIES: Final = 2_000
MAX_FILE_BYTES: Final = 16 * 1024 * 1024
_VERSION: Final = 1
_REQUESTS: Final = "registrar-requests"
_CERTIFICATES: Final = "registrar-certificates"
_LIMIT: Final = MAX_IDENTITY_BYTES + cose.MAX_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class Request:
    """An agent that the operator let in, with what it signed itself.

    Attributes:
        signed: its `enrol`.
        owner: whose it is, as the coordinator has it: the registrar looks before it signs.
    """

    signed: bytes
    owner: str | None

    def open(self, network: str) -> Opened[Enrol]:
        """Check that its sender signed it, for this network.

        Raises:
            PeerError: it did not.
        """
        key = announced_key(self.signed, _LIMIT)
        return open_envelope(self.signed, key, Enrol, network=network, max_bytes=_LIMIT)


def write_requests(network: str, requests: Sequence[Request]) -> bytes:
    """Return the file of requests."""
    entries = [[each.signed, each.owner] for each in requests]
    return strict_cbor.encode({"kind": _REQUESTS, "v": _VERSION, "network": network, "entries": entries})


def read_requests(data: bytes) -> tuple[str, list[Request]]:
    """Return the network and the requests of a file; nothing of it is verified.

    Raises:
        PeerError: it is none.
    """
    network, entries = _read(data, _REQUESTS)
    found = []
    for entry in entries:
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], bytes)):
            raise MalformedError("An entry of the file of requests is none.")
        if not isinstance(entry[1], str | None):
            raise MalformedError("An owner in the file of requests is no text.")
        found.append(Request(entry[0], entry[1]))
    return network, found


def write_certificates(network: str, certificates: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the file of certificates: each signed, and the same as X.509."""
    entries = [list(pair) for pair in certificates]
    return strict_cbor.encode({"kind": _CERTIFICATES, "v": _VERSION, "network": network, "entries": entries})


def read_certificates(data: bytes) -> tuple[str, list[tuple[bytes, bytes]]]:
    """Return the network and the certificates of a file; nothing of it is verified.

    Raises:
        PeerError: it is none.
    """
    network, entries = _read(data, _CERTIFICATES)
    for entry in entries:
        if not (isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, bytes) for part in entry)):
            raise MalformedError("An entry of the file of certificates is none.")
    return network, [(entry[0], entry[1]) for entry in entries]


def _read(data: bytes, kind: str) -> tuple[str, list[Any]]:
    fields = strict_cbor.decode(data, max_bytes=MAX_FILE_BYTES, max_depth=3, max_items=3 * MAX_ENTRIES + 16)
    if not isinstance(fields, dict) or fields.keys() != {"kind", "v", "network", "entries"}:
        raise MalformedError(f"The file is none of {kind}.")
    if fields["kind"] != kind or fields["v"] != _VERSION:
        raise MalformedError(f"The file is none of {kind}, or of another version.")
    network, entries = fields["network"], fields["entries"]
    if not isinstance(network, str) or not isinstance(entries, list) or len(entries) > MAX_ENTRIES:
        raise MalformedError(f"The file of {kind} names no network, or holds too much.")
    return network, entries
