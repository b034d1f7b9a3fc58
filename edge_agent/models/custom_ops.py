"""Operators that onnxruntime does not have itself: tokenizers and picture codecs of `onnxruntime-extensions`.

A model that uses them says so in its opset imports, by one of `DOMAINS`. The library is found without
importing its Python package, which would import onnx and cost 12 MB more.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

DOMAINS = frozenset({"ai.onnx.contrib", "com.microsoft.extensions"})
"""The opset domains whose operators the library has."""

BUILT_IN_DOMAINS = frozenset(
    {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"}
)
"""The domains whose operators are in onnxruntime itself; others that it imports without need are harmless."""

_PACKAGE = "onnxruntime_extensions"
HINT = "Install the extra `text` on this machine: pip install 'edge-agent[text]'."


@functools.cache
def library() -> str | None:
    """Return the path of the library, for `SessionOptions.register_custom_ops_library`, or None if it is not there.

    It is looked for once: a contained worker could not look for it later.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for path in sorted(Path(folder).glob("_extensions_pydll*.so")):
            return str(path)
    return None
