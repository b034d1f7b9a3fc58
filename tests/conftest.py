"""Shared test set-up: the tests' own helper modules can be imported, and onnxruntime never phones home."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import settings

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# Two processes of tests, each with a BLAS that spins on every CPU, take ten times as long as either alone.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

# The same examples in every run, and no clock: a machine with two busy cores must not decide a test.
# HYPOTHESIS_PROFILE=default looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
