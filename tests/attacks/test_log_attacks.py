"""Attacks on the log of receipts: forked, rewritten, shortened, borrowed proofs and signatures; each is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import wire_samples
from receipt_logs import Log, bundle, head, log_of, receipt

from edge_agent.client.auditing import SeenHead, append_head, check_continues, read_head
from edge_agent.errors import EdgeAgentError, LogForkedError, PeerError
from edge_agent.wire import cose, merkle, strict_cbor
from edge_agent.wire.bundles import Bundle, verify_bundle, verify_tree_head
from edge_agent.wire.envelope import CONTENT_TYPE, open_envelope, seal
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.messages import Hello, Receipt, TreeHead
from edge_agent.wire.receipts import verify_receipt

COORDINATOR = wire_samples.COORDINATOR
OTHER = SigningKey.generate(bytes(range(32)))
RECEIPTS = [receipt(number) for number in range(9)]
HONEST = log_of(RECEIPTS)


def seen(log: Log, where: str = "heads.jsonl") -> SeenHead:
    """Return a tree head as an auditor has it: verified."""
    signed = head(log)
    return SeenHead(where, verify_tree_head(signed, COORDINATOR.public).statement, signed)


def judged(old: Log, new: Log, prove: Callable[[int, int], list[bytes]]) -> LogForkedError:
    """Return what an audit says, having checked that the file of what was seen stays as it was."""
    with pytest.raises(LogForkedError) as caught:
        check_continues(seen(old), seen(new, "the coordinator"), prove)
    assert caught.value.exit_status == 1
    return caught.value


def refused(data: bytes) -> str:
    """Return the code with which a bundle is refused."""
    with pytest.raises(PeerError) as caught:
        verify_bundle(data, COORDINATOR.public)
    return caught.value.error_code


# -- what a lying coordinator does to its log -----------------------------------------------------------------------


def test_a_forked_log_is_found_out() -> None:
    """Two logs with the same beginning and different ends: neither proof leads from one to the other."""
    fork = log_of([*RECEIPTS[:4], receipt(100), receipt(101), receipt(102)])
    old = log_of(RECEIPTS[:6])
    assert judged(old, fork, fork.consistency).error_code == "log-forked"
    assert judged(old, fork, HONEST.consistency).error_code == "log-forked"
    check_continues(seen(log_of(RECEIPTS[:4])), seen(fork), fork.consistency)  # the common part is none


def test_a_rewritten_leaf_is_found_out() -> None:
    """Whichever leaf it is, and whatever proof comes with it."""
    for number in range(6):
        rewritten = log_of([*RECEIPTS[:number], receipt(200), *RECEIPTS[number + 1 :]])
        assert judged(log_of(RECEIPTS[:6]), rewritten, rewritten.consistency).error_code == "log-forked"


def test_two_logs_of_one_size_are_found_out() -> None:
    """Without asking for any proof."""

    def never(_old: int, _new: int) -> list[bytes]:
        raise AssertionError("nothing can be proven here")

    other = log_of([*RECEIPTS[:8], receipt(300)])
    assert judged(HONEST, other, never).error_code == "log-forked"


def test_a_shortened_log_is_found_out() -> None:
    """A rollback, such as after an old backup was put back: both sizes are said."""
    error = judged(HONEST, log_of(RECEIPTS[:7]), HONEST.consistency)
    assert error.error_code == "log-shortened"
    assert "7" in error.message
    assert "9" in error.message


def test_a_shortened_log_that_grew_again_is_found_out() -> None:
    """It is longer than before, but does not continue it."""
    regrown = log_of([*RECEIPTS[:7], *(receipt(400 + number) for number in range(6))])
    assert judged(HONEST, regrown, regrown.consistency).error_code == "log-forked"


def test_a_made_up_proof_of_consistency_proves_nothing() -> None:
    """Neither none, nor too long a one, nor that of other sizes."""
    old = log_of(RECEIPTS[:5])
    for path in ([], [bytes(32)] * 54, HONEST.consistency(4, 9), [*HONEST.consistency(5, 9), bytes(32)]):
        assert judged(old, HONEST, lambda _old, _new, path=path: path).error_code == "log-forked"
    check_continues(seen(old), seen(HONEST), HONEST.consistency)


def test_what_was_seen_stays_when_a_fork_is_found(tmp_path: Path) -> None:
    """The auditor's file is not touched by an audit that fails, nor by a tree head that is refused."""
    path = tmp_path / "heads.jsonl"
    append_head(path, seen(HONEST), 1)
    before = path.read_bytes()
    found = read_head(path, COORDINATOR.public)
    assert found is not None
    with pytest.raises(LogForkedError):
        check_continues(found, seen(log_of(RECEIPTS[:3])), HONEST.consistency)
    with pytest.raises(PeerError):
        read_head(path, OTHER.public)
    assert path.read_bytes() == before


# -- borrowed proofs ------------------------------------------------------------------------------------------------


def test_the_proof_of_another_receipt_is_refused() -> None:
    """Each receipt with the index and path of each other one."""
    for number, data in enumerate(RECEIPTS):
        for other in range(len(RECEIPTS)):
            forged = Bundle(data, head(HONEST), other, tuple(HONEST.inclusion(other))).encode()
            if other != number:
                assert refused(forged) == "wrong-proof"


def test_a_receipt_that_is_not_in_the_log_is_refused() -> None:
    """However good its own signatures are."""
    part = Bundle.decode(bundle(HONEST, RECEIPTS, 2))
    assert refused(Bundle(receipt(500), part.tree_head, part.index, part.path).encode()) == "wrong-proof"


def test_a_node_is_no_leaf() -> None:
    """An inner node's hash cannot be passed off as a leaf's: the prefixes keep them apart."""
    log = Log()
    for number in range(2):
        log.append(merkle.leaf_hash(RECEIPTS[number]))
    inner = merkle.leaf_hash(RECEIPTS[0]) + merkle.leaf_hash(RECEIPTS[1])
    assert merkle.leaf_hash(inner) != log.root
    assert merkle.leaf_hash(b"\x01" + inner) != log.root


def test_a_proof_for_another_size_is_refused() -> None:
    """The tree head's size is signed, and a path that is shorter or longer does not fit it."""
    part = Bundle.decode(bundle(HONEST, RECEIPTS, 8))
    for size in range(1, 9):
        signed = head(HONEST, size=size)
        assert refused(Bundle(part.receipt, signed, part.index, part.path).encode()) == "wrong-proof"


# -- borrowed signatures --------------------------------------------------------------------------------------------


def test_a_tree_head_by_another_key_is_refused() -> None:
    """That of another network's coordinator, with the very same log."""
    part = Bundle.decode(bundle(HONEST, RECEIPTS, 2))
    assert refused(Bundle(part.receipt, head(HONEST, OTHER), part.index, part.path).encode()) == "unknown-key"


def test_a_tree_head_of_another_network_is_refused() -> None:
    """By the same key: a coordinator may serve several networks."""
    part = Bundle.decode(bundle(HONEST, RECEIPTS, 2))
    signed = head(HONEST, network="club")
    assert refused(Bundle(part.receipt, signed, part.index, part.path).encode()) == "wrong-network"


def test_a_tree_head_with_a_borrowed_key_id_is_refused() -> None:
    """Named after the coordinator, signed by somebody else."""
    message = cose.parse_sign1(head(HONEST), 1000)
    stranger = cose.parse_sign1(head(HONEST, OTHER), 1000)
    forged = head(HONEST).replace(message.signature, stranger.signature)
    with pytest.raises(PeerError) as caught:
        verify_tree_head(forged, COORDINATOR.public)
    assert caught.value.error_code == "bad-signature"


@pytest.mark.parametrize("kind", [s.kind for _, s, _ in wire_samples.one_of_each() if s.signed_by == "coordinator"])
def test_another_statement_is_no_tree_head(kind: str) -> None:
    """The coordinator's own signature under a job, a hello, a receipt and so on is none under a tree head."""
    statement = next(s for _, s, _ in wire_samples.one_of_each() if s.kind == kind)
    if isinstance(statement, TreeHead):
        return
    signed = cose.sign1(COORDINATOR, strict_cbor.encode(statement.model_dump()), content_type=CONTENT_TYPE)
    with pytest.raises(PeerError) as caught:
        verify_tree_head(signed, COORDINATOR.public)
    assert caught.value.error_code in {"wrong-kind", "too-large"}


def test_a_tree_head_is_no_other_statement() -> None:
    """Its signature cannot be used as that of a receipt or a hello."""
    signed = head(HONEST)
    with pytest.raises(PeerError) as as_receipt:
        verify_receipt(signed, COORDINATOR.public)
    assert as_receipt.value.error_code == "wrong-kind"
    for kind in (Hello, Receipt):
        with pytest.raises(PeerError) as caught:
            open_envelope(signed, COORDINATOR.public, kind, network="home", max_bytes=10_000)
        assert caught.value.error_code == "wrong-kind"


def test_an_agent_cannot_sign_a_tree_head() -> None:
    """A tree head counts by the coordinator's key alone."""
    signed = seal(wire_samples.AGENT, HONEST.statement())
    part = Bundle.decode(bundle(HONEST, RECEIPTS, 2))
    assert refused(Bundle(part.receipt, signed, part.index, part.path).encode()) == "unknown-key"


# -- oversized, deep and strange --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"\xa1" + b"\x81" * 100_000,
        b"\xbf" + b"\x00" * 10,
        b"\xbb" + b"\xff" * 8,
        b"\xa6" + b"\x9b" + b"\xff" * 8,
        Bundle(RECEIPTS[0], head(HONEST), 0, (bytes(32),) * 54).encode(),
        Bundle(RECEIPTS[0], head(HONEST), 0, (bytes(32),) * 200_000).encode(),
        Bundle(bytes(1_000_000), head(HONEST), 0, ()).encode(),
        Bundle(RECEIPTS[0], bytes(100_000), 0, ()).encode(),
    ],
    ids=["deep", "indefinite", "huge-map", "huge-key", "long-path", "endless-path", "long-receipt", "long-head"],
)
def test_oversized_and_deep_bundles_are_refused(data: bytes) -> None:
    """With the codes of the parser, and no recursion error."""
    assert refused(data) in {"too-large", "malformed"}
    assert sys.getrecursionlimit() >= 1000


@pytest.mark.parametrize(
    "line",
    [
        b'{"tree_head": "' + b"00" * 5_000 + b'"}\n',
        b"[" * 50_000 + b"\n",
        b'{"tree_head": "\xc2\xb2"}\n',
        json.dumps({"tree_head": head(HONEST, OTHER).hex()}).encode() + b"\n",
    ],
    ids=["long", "deep", "no-hex", "other-key"],
)
def test_strange_files_of_tree_heads_are_refused(tmp_path: Path, line: bytes) -> None:
    """And left as they are."""
    path = tmp_path / "heads.jsonl"
    path.write_bytes(line)
    with pytest.raises(EdgeAgentError):
        read_head(path, COORDINATOR.public)
    assert path.read_bytes() == line
