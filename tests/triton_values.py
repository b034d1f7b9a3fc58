"""Values at the edges of each data type, as Triton's clients take them."""

from __future__ import annotations

from typing import Any

import numpy as np

VALUES: dict[str, Any] = {
    "BOOL": np.array([True, False, True]),
    "UINT8": np.array([0, 255], np.uint8),
    "UINT16": np.array([0, 2**16 - 1], np.uint16),
    "UINT32": np.array([0, 2**32 - 1], np.uint32),
    "UINT64": np.array([0, 2**64 - 1], np.uint64),
    "INT8": np.array([-128, 127], np.int8),
    "INT16": np.array([-(2**15), 2**15 - 1], np.int16),
    "INT32": np.array([-(2**31), 2**31 - 1], np.int32),
    "INT64": np.array([-(2**63), 2**63 - 1], np.int64),
    "FP16": np.array([0.1, -65504], np.float16),
    "FP32": np.array([0.1, -3.4e38], np.float32),
    "FP64": np.array([0.1, -1.7e308]),
    "BYTES": np.array([b"", "größe".encode(), b"a"], np.object_),
}
