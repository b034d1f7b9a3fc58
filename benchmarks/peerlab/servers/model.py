"""The session that every peer serves: one thread, spinning off, the same file as ours."""

from __future__ import annotations

import os
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy as np
import onnxruntime as ort

MODEL = os.environ.get("PEER_MODEL", "")
NAME = os.environ.get("PEER_INPUT", "")
SHAPE = [int(part) for part in os.environ.get("PEER_SHAPE", "1").split(",")]
DTYPE = os.environ.get("PEER_DTYPE", "float32")


class Model:
    """Bytes in, bytes out."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])

    def __call__(self, body: bytes) -> bytes:
        """Run on the raw bytes of the input; return those of all outputs."""
        return b"".join(array.tobytes() for array in self.arrays(np.frombuffer(body, DTYPE).reshape(SHAPE)))

    def arrays(self, given: Any) -> list[Any]:  # noqa: ANN401 an array
        """Run on an array."""
        found: list[Any] = self._session.run(None, {NAME: given})
        return found
