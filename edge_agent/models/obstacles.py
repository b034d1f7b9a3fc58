"""Why a variant cannot run on this machine at all, known without trying it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_agent.models.catalogue import Family, Variant


def everything_is_here(_variant: Variant) -> bool:
    """Say of every variant that its file is here."""
    return True


@dataclass(frozen=True, slots=True)
class Here:
    """What this machine has.

    Attributes:
        runtime: its onnxruntime, for example `onnxruntime 1.32.0`; empty where that is not known yet.
        installed: what may be required beside it; None where that is not known.
        present: says whether a variant's file lies here.
        uncontained: why models of strangers are not run here; empty where they are.
        own: digests of the variants that came with the program, and are no strangers'.
    """

    runtime: str = ""
    installed: frozenset[str] | None = None
    present: Callable[[Variant], bool] = everything_is_here
    uncontained: str = ""
    own: frozenset[str] = frozenset()


def obstacle(variant: Variant, family: Family, here: Here) -> str:
    """Return in words why a variant cannot run here, or nothing."""
    if here.runtime and version(variant.min_runtime) > version(here.runtime):
        return f"it needs onnxruntime {variant.min_runtime}, and here is {here.runtime}"
    missing = [] if here.installed is None else [name for name in variant.requires if name not in here.installed]
    if missing:
        return f"it needs {', '.join(missing)}, which is not installed here (the extra `text` has it)"
    types = {port.datatype for port in (*family.inputs, *family.outputs)}
    if "BYTES" in types and any(port.datatype == "BF16" for port in family.outputs):
        return "it mixes strings and bfloat16 outputs, which onnxruntime does not hand out here"
    if here.uncontained and variant.digest not in here.own:
        return f"it did not come with the program, and {here.uncontained}; `agent.uncontained_models` can allow it"
    if not here.present(variant):
        return f"its file is not here; `edge-agent models pull {family.name}` fetches it"
    return ""


def version(text: str) -> tuple[int, int]:
    """Read the first two numbers of a version, such as `1.27` or `onnxruntime 1.32.0`."""
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)
