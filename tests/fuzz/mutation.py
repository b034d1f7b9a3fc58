"""Mutations of samples, repeatable by their seed, and the judge of what a parser does with them."""

from __future__ import annotations

import contextlib
import gc
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from structure import reshaped
from target import Target

from edge_agent.inference import limits

CORPUS: Final = Path(__file__).parent / "corpus"
HANG_SECONDS: Final = 0.05
MEMORY_BYTES: Final = 64 * 2**20
LONGEST: Final = 1 << 16
MEMORY_EVERY: Final = 256
"""Memory is looked at after so many runs: growth that no single one shows is found, too."""

NUMBERS: Final = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**53, 2**63 - 1, 2**64 - 1)
PIECES: Final = (
    b"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xbf",
    b"\x9f",
    b"\xff",
    b"\x81" * 40,
    b"[" * 200,
    b'{"a":' * 50,
    b"1e999",
    b"-0",
    b"9" * 400,
    b"\\ud800",
    b"\xed\xa0\x80",
    b"\0",
    b"\xc2\x41\x01",
    b"\xfb\x7f\xf8\0\0\0\0\0\0",
    b"NaN",
    b"null",
    b"true",
)


@dataclass
class Found:
    """What is wrong with a parser.

    Attributes:
        kind: `crash`, `hang` or `memory`.
    """

    target: str
    kind: str
    data: bytes
    why: str


@dataclass
class Tally:
    """What was run.

    Attributes:
        refused: runs that ended with a declared error.
        slowest: CPU seconds of the slowest run that was looked at.
    """

    runs: int = 0
    refused: int = 0
    slowest: float = 0.0
    found: list[Found] = field(default_factory=list)


def mutated(rng: random.Random, samples: Sequence[bytes], target: Target | None = None) -> bytes:
    """Return a sample with one to five things done to it; or, where its form is known, to the values in it."""
    if target is not None and target.shape and rng.random() < 0.5:
        found = reshaped(rng, rng.choice(samples), target.shape, target.skip)
        if found is not None:
            return found[:LONGEST]
    data = bytearray(rng.choice(samples))
    for _ in range(1 + min(4, int(rng.expovariate(0.9)))):
        _mutate(rng, data, samples)
    return bytes(data[:LONGEST])


def _mutate(rng: random.Random, data: bytearray, samples: Sequence[bytes]) -> None:  # noqa: C901 one branch a mutation
    size = len(data)
    at = rng.randrange(size + 1)
    match rng.randrange(11):
        case 0 if size:
            data[at % size] ^= 1 << rng.randrange(8)
        case 1 if size:
            data[at % size] = rng.randrange(256)
        case 2:
            del data[at : at + rng.randrange(1, 9)]
        case 3:
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
        case 4:
            del data[at:]
        case 5:
            data[at:at] = rng.choice(PIECES)
        case 6:
            number = rng.choice(NUMBERS)
            data[at : at + 8] = number.to_bytes(8, rng.choice(("big", "little")))[-rng.choice((1, 2, 4, 8)) :]
        case 7:
            other = rng.choice(samples)
            cut = rng.randrange(len(other) + 1)
            data[at:] = other[cut:]
        case 8 if size:
            begin = rng.randrange(size)
            data[at:at] = data[begin : begin + rng.randrange(1, 65)]
        case 9 if size:
            begin = rng.randrange(size)
            data[at:at] = bytes(data[begin : begin + 16]) * rng.randrange(2, 17)
        case _ if size:
            data[at % size] = (data[at % size] + rng.choice((-1, 1))) % 256


def samples_of(target: Target) -> list[bytes]:
    """Return the samples of a target and what is kept in its corpus."""
    kept = [path.read_bytes() for path in sorted((CORPUS / target.name).glob("*"))]
    return [*target.samples(), *kept, b""]


def attempt(target: Target, data: bytes, tally: Tally) -> None:
    """Give one input to a parser; what must not happen is put into the tally."""
    began = time.thread_time()
    try:
        target.parse(data)
    except target.errors:
        tally.refused += 1
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        tally.found.append(Found(target.name, "crash", data, repr(error)[:200]))
    seconds = time.thread_time() - began
    tally.runs += 1
    if seconds > tally.slowest:
        if seconds > HANG_SECONDS and (seconds := _again(target, data)) > HANG_SECONDS:
            tally.found.append(Found(target.name, "hang", data, f"{seconds * 1000:.0f} ms"))
        tally.slowest = max(tally.slowest, seconds)


def _again(target: Target, data: bytes) -> float:
    """Return the quickest of three more runs: what was slow once may have been a collection or an import."""
    times = []
    for _ in range(3):
        began = time.thread_time()
        with contextlib.suppress(Exception):  # what it raises was judged before
            target.parse(data)
        times.append(time.thread_time() - began)
    return min(times)


def fuzz(target: Target, runs: int, seed: int, most: int = 5) -> Tally:
    """Run a parser so often; ends early when it is wrong `most` times."""
    rng = random.Random(seed)
    tally = Tally()
    samples = samples_of(target)
    for data in samples:
        attempt(target, data, tally)
    before = _watch_memory()
    while tally.runs < runs and len(tally.found) < most:
        data = mutated(rng, samples, target)
        attempt(target, data, tally)
        if tally.runs % MEMORY_EVERY == 0 or tally.runs >= runs or len(tally.found) >= most:
            grown = limits.status_bytes("VmHWM") - before
            if grown > MEMORY_BYTES:
                tally.found.append(Found(target.name, "memory", data, f"{grown / 2**20:.0f} MiB"))
                before = _watch_memory()
            limits.reset_peak()
    return tally


def _watch_memory() -> int:
    """Return the memory in use now, in bytes, and count peaks from there: an earlier one would hide them.

    What was freed before goes back first: given back meanwhile, it would make room for what is to be seen.
    """
    gc.collect()
    limits.trim()
    limits.reset_peak()
    return limits.status_bytes("VmRSS")
