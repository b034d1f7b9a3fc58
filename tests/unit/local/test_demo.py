"""The figures of the demonstration."""

from __future__ import annotations

import struct

from edge_agent.local.demo import Tally, predicted_digit
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec


def test_percentiles_are_values_that_occurred() -> None:
    """Nearest rank: p50 of 1..100 is 50, p99 is 99; of one value, that value."""
    tally = Tally(100, latencies_ms=[float(n) for n in range(100, 0, -1)])
    assert (tally.percentile_ms(50), tally.percentile_ms(99)) == (50.0, 99.0)
    assert Tally(1, latencies_ms=[7.0]).percentile_ms(99) == 7.0


def test_report_without_any_result_has_no_figures() -> None:
    """When nothing worked the report says null, not zero."""
    report = Tally(5, failures=["scan 0: no"]).report()
    assert (report["verified"], report["failed"], report["accuracy"], report["p50_ms"]) == (0, 5, None, None)


def test_prediction_is_the_largest_logit() -> None:
    """The digit is the position of the largest value."""
    values = [0.0, -1.0, 3.5, 3.25, 0, 0, 0, 0, 0, 1]
    logits = Tensor(TensorSpec("logits", DataType.FP32, (1, 10)), struct.pack("<10f", *values))
    assert predicted_digit([logits]) == 2
