"""The ranges of activations are those that the samples reach."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from float_models import conv_net, pictures, saved
from onnx import TensorProto, helper

from edge_agent.errors import InputError
from edge_agent.models.publishing.graphs import prepare, read
from edge_agent.models.publishing.ranges import measure
from edge_agent.models.publishing.runs import Runner


def test_ranges_are_the_extremes_over_all_samples(tmp_path: Path) -> None:
    """Input and output are there with the very extremes that the model reads and gives."""
    prepared = prepare(read(saved(conv_net(), tmp_path)))
    feeds = pictures(6).feeds
    found = measure(prepared, feeds, ("Conv", "Gemm"))
    images = np.concatenate([feed["image"].ravel() for feed in feeds])
    assert found["image"] == (images.min(), images.max())
    logits = np.concatenate([Runner(prepared.model).run(feed)["logits"].ravel() for feed in feeds])
    np.testing.assert_allclose(found["logits"], (logits.min(), logits.max()), rtol=1e-5)


def test_ranges_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    """A scale of infinity would make a broken file; the tensor is named."""
    model = conv_net()
    model.graph.node.insert(0, helper.make_node("Log", ["image"], ["log"]))
    model.graph.node[1].input[0] = "log"
    model.graph.value_info.append(helper.make_tensor_value_info("log", TensorProto.FLOAT, ["N", 1, 8, 8]))
    with pytest.raises(InputError, match="'log' becomes infinite or NaN"):
        measure(prepare(read(saved(model, tmp_path))), pictures(4).feeds, ("Conv",))
