"""What this machine has learnt of variants: what they took when they were measured, and which ones failed.

Pure. A measurement holds as long as onnxruntime, the kernel, the conditions of the machine (governor, throttling,
usable CPUs) and the known answers are the same, and it is not too old. A failure is remembered for the same
onnxruntime, kernel and class of memory, and tried again after a while: an hour, then twice as long each time.
The document of it is read as strictly as any other: whoever can write to the state directory is trusted, but a card
that loses power is not.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge_agent.errors import StateError
from edge_agent.models.entries import Digest, first_problem
from edge_agent.models.selection import Measured

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edge_agent.models.catalogue import Variant

MAX_ENTRIES = 512
"""The oldest are forgotten beyond that."""
MAX_DOCUMENT_BYTES = 1024 * 1024
RETRY_FIRST_MS = 3_600_000
RETRY_MAX_MS = 7 * 24 * 3_600_000
MAX_AGE_MS = 30 * 24 * 3_600_000
"""A measurement older than this is taken again: machines age, and so do heat sinks."""
MAX_REASON_CHARACTERS = 300

_Count = Annotated[int, Field(ge=0, le=2**62)]
_Text = Annotated[str, Field(max_length=MAX_REASON_CHARACTERS)]


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was learnt.

    Attributes:
        runtime: of onnxruntime, for example `1.32.0`.
        kernel: its release.
        conditions: whatever else a speed depends on, as one short text that is compared and not read.
        room_bytes: what one model may take.
    """

    runtime: str
    kernel: str
    conditions: str
    room_bytes: int

    @classmethod
    def of(cls, runtime: str, kernel: str, conditions: str, room_bytes: int, threads: int) -> Place:
        """Return the place of a worker with up to so many threads: with others, another number of them may be best."""
        return cls(runtime, kernel, f"{conditions}, a worker of {threads}"[-MAX_REASON_CHARACTERS:], room_bytes)

    @property
    def memory_class(self) -> int:
        """The class of memory: every doubling of the room in MiB is one."""
        return (self.room_bytes >> 20).bit_length()


class _Learnt(BaseModel):
    """One entry of the document."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    digest: Digest
    against: _Text
    runtime: _Text
    kernel: _Text
    at_ms: _Count


class Success(_Learnt):
    """A measurement."""

    kind: Literal["measured"] = "measured"
    conditions: _Text
    p50_us: _Count
    p95_us: _Count
    cpu_us: _Count
    peak_bytes: _Count
    load_peak_bytes: _Count
    steady_bytes: _Count
    run_peak_bytes: _Count
    threads: _Count
    checked: bool
    lanes: Annotated[int, Field(ge=1, le=1024)] = 1
    together: Annotated[int, Field(ge=1, le=1024)] = 1


class Failure(_Learnt):
    """A failed canary run, or a variant that could not be loaded any more."""

    kind: Literal["failed"] = "failed"
    memory_class: _Count
    times: Annotated[int, Field(ge=1, le=1000)]
    why: _Text

    @property
    def retry_ms(self) -> int:
        """The wall-clock time at which it may be tried again, milliseconds."""
        return self.at_ms + self.wait_ms

    @property
    def wait_ms(self) -> int:
        """How long it is left alone."""
        return min(RETRY_FIRST_MS << min(self.times - 1, 20), RETRY_MAX_MS)


class _Document(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    version: Literal[1] = 1
    entries: tuple[Annotated[Success | Failure, Field(discriminator="kind")], ...] = Field(max_length=MAX_ENTRIES)


_Key = tuple[str, str, str, int]
"""(digest, onnxruntime, kernel, class of memory or -1)"""


class Experience:
    """All that is remembered; what is written last replaces what was known of the same variant in the same place."""

    def __init__(self, entries: Iterable[Success | Failure] = ()) -> None:
        self._entries: dict[_Key, Success | Failure] = {}
        for entry in entries:
            self._keep(entry)

    def __len__(self) -> int:
        return len(self._entries)

    def measured(self, variant: Variant, place: Place, wall_ms: int, extents: Mapping[str, int]) -> Measured | None:
        """Return what was measured of a variant, if it still holds here and now."""
        entry = self._entries.get((variant.digest, place.runtime, place.kernel, -1))
        if not isinstance(entry, Success):
            return None
        young = -MAX_AGE_MS < wall_ms - entry.at_ms < MAX_AGE_MS
        if not young or entry.conditions != place.conditions or entry.against != against(variant, extents):
            return None
        numbers = entry.model_dump(include={field.name for field in dataclasses.fields(Measured)})
        return Measured(variant=variant, golden_ok=True, **numbers)

    def refusal(self, variant: Variant, place: Place, wall_ms: int, extents: Mapping[str, int]) -> str:
        """Return in words why a variant is not to be tried now, or nothing."""
        entry = self._entries.get((variant.digest, place.runtime, place.kernel, place.memory_class))
        # A clock that went back far would otherwise keep it out for as long as it went back.
        if not isinstance(entry, Failure) or not entry.at_ms - RETRY_MAX_MS <= wall_ms < entry.retry_ms:
            return ""
        if entry.against != against(variant, extents):
            return ""
        hours = (entry.retry_ms - wall_ms) / 3_600_000
        return f"it failed here before ({entry.why}) and is tried again in {max(hours, 0.1):.1f} h"

    def succeeded(self, entry: Measured, place: Place, wall_ms: int, extents: Mapping[str, int]) -> None:
        """Remember a measurement, and forget that the variant ever failed in this place."""
        variant = entry.variant
        self._entries.pop((variant.digest, place.runtime, place.kernel, place.memory_class), None)
        numbers = {
            field.name: getattr(entry, field.name)
            for field in dataclasses.fields(Measured)
            if field.name in Success.model_fields
        }
        self._keep(
            Success(
                digest=variant.digest,
                against=against(variant, extents),
                runtime=place.runtime,
                kernel=place.kernel,
                at_ms=wall_ms,
                conditions=place.conditions,
                **numbers,
            )
        )

    def failed(self, variant: Variant, why: str, place: Place, wall_ms: int, extents: Mapping[str, int]) -> None:
        """Remember a failure, and forget what was measured of the variant in this place."""
        key = (variant.digest, place.runtime, place.kernel, place.memory_class)
        before = self._entries.get(key)
        again = isinstance(before, Failure) and before.against == against(variant, extents)
        self._entries.pop((*key[:3], -1), None)
        self._keep(
            Failure(
                digest=variant.digest,
                against=against(variant, extents),
                runtime=place.runtime,
                kernel=place.kernel,
                at_ms=wall_ms,
                memory_class=place.memory_class,
                times=min(before.times + 1, 1000) if again and isinstance(before, Failure) else 1,
                why=why[:MAX_REASON_CHARACTERS],
            )
        )

    def forget(self, variant: Variant) -> None:
        """Forget all about a variant, so that it is measured anew."""
        for key in [key for key in self._entries if key[0] == variant.digest]:
            del self._entries[key]

    def take(self, other: Experience) -> None:
        """Take over what another one has learnt."""
        for entry in other._entries.values():
            self._keep(entry)

    def document(self) -> str:
        """Return all of it as JSON."""
        return _Document(entries=tuple(self._entries.values())).model_dump_json() + "\n"

    def _keep(self, entry: Success | Failure) -> None:
        memory_class = entry.memory_class if isinstance(entry, Failure) else -1
        key = (entry.digest, entry.runtime, entry.kernel, memory_class)
        self._entries.pop(key, None)  # to the end, where the newest are
        self._entries[key] = entry
        while len(self._entries) > MAX_ENTRIES:
            del self._entries[next(iter(self._entries))]


def parse(text: bytes) -> Experience:
    """Return what a document says.

    Raises:
        StateError: it is not such a document.
    """
    if len(text) > MAX_DOCUMENT_BYTES:
        raise StateError(f"it has more than {MAX_DOCUMENT_BYTES} bytes")
    try:
        return Experience(_Document.model_validate_json(text).entries)
    except ValidationError as error:
        raise StateError(first_problem(error)) from error


def against(variant: Variant, extents: Mapping[str, int]) -> str:
    """Return in a few characters what outputs were held against; with other answers a measurement says nothing."""
    if variant.golden is None:
        return "made-up inputs, " + json.dumps(dict(sorted(extents.items())))[:200]
    return f"{variant.golden.digest[:32]} {variant.golden.atol:g} {variant.golden.rtol:g}"
