"""Shared test set-up: the tests' own helper modules can be imported, and onnxruntime never phones home."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).parent))
