"""Word tables in 8 bits, one scale a row."""

from __future__ import annotations

import numpy as np
import onnx
from float_models import sentences, word_net
from onnx import numpy_helper

from edge_agent.models.publishing import tables
from edge_agent.models.publishing.runs import Runner


def test_rows_stay_within_half_a_step() -> None:
    """Each number is off by at most half of its row's 127th part, and a row of zeros stays zeros."""
    model = word_net()
    table = next(item for item in model.graph.initializer if item.name == "table")
    values = numpy_helper.to_array(table).copy()
    values[3] = 0.0
    table.CopyFrom(numpy_helper.from_array(values, "table"))
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info("rows", 1, ["N", "T", 32]))
    assert tables.compress(model) == 1
    rows = Runner(model).run({"words": np.arange(1000, dtype=np.int64)[None]})["rows"][0]
    assert (np.abs(rows - values) <= np.abs(values).max(axis=1, keepdims=True) / 127 / 2 * 1.001).all()
    assert not rows[3].any()


def test_small_or_shared_tables_are_left_alone() -> None:
    """A table that something else reads too must stay what it is."""
    model = word_net()
    model.graph.node.append(onnx.helper.make_node("ReduceSum", ["table"], ["sum"], keepdims=0))
    model.graph.output.append(onnx.helper.make_tensor_value_info("sum", 1, []))
    feed = sentences(1).feeds[0]
    before = Runner(model).run(feed)
    assert tables.compress(model) == 0
    np.testing.assert_array_equal(before["vector"], Runner(model).run(feed)["vector"])
