"""A family comes out measured, with golden files that hold on this machine, and without what is broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from float_models import branching, conv_net, pictures, saved, sentences, switches, word_net
from onnx import TensorProto, helper, numpy_helper

from edge_agent.errors import InputError
from edge_agent.models.golden import decode_cases, difference
from edge_agent.models.publishing import adding, variants
from edge_agent.models.publishing.adding import Addition, Wish, add
from edge_agent.models.publishing.forms import NAMES, REPRODUCIBLE
from edge_agent.models.publishing.goldens import tensor_of
from edge_agent.models.publishing.runs import Runner
from edge_agent.models.publishing.samples import Samples, array_of

WISH = Wish(name="spots", title="Bright spots", licence="Apache-2.0", dataset="made up", reference_seconds=60)


@pytest.fixture(scope="module")
def spots(tmp_path_factory: pytest.TempPathFactory) -> Addition:
    """Return the family of `conv_net`, made once for this module."""
    folder = tmp_path_factory.mktemp("spots")
    return add(saved(conv_net(), folder), pictures(36), folder, WISH)


def test_each_form_has_a_verdict(spots: Addition) -> None:
    """Published, refused with its figures, or not made with the reason: none is missing."""
    assert [row.form.name for row in spots.rows] == list(NAMES)
    for row in spots.rows:
        assert (row.quality is None) == (row.verdict == "not made")
        assert row.why
    published = [row.form.name for row in spots.rows if row.verdict == "published"]
    assert [variant.name for variant in spots.family.variants] == published
    assert {"fp32", "fp16", REPRODUCIBLE.name, "int8-weights"} <= set(published)


def test_the_family_says_what_was_measured(spots: Addition) -> None:
    """Metric, value, data and the number of samples that set no range."""
    family = spots.family
    assert (family.name, family.title, family.task, family.metric) == (
        "spots",
        "Bright spots",
        "Bright spots",
        "cosine",
    )
    for variant in family.variants:
        assert variant.quality is not None
        assert (variant.quality.dataset, variant.quality.n, variant.quality.reported) == ("made up", 24, False)
        assert 0.98 <= variant.quality.value <= 1.0
    assert family.inputs[0].shape == ("N", 1, 8, 8)


def test_golden_files_hold_on_this_machine(spots: Addition) -> None:
    """What onnxruntime answers here is within the tolerance of what is published, for all but saturating forms."""
    for variant in spots.family.variants:
        assert variant.golden is not None
        cases = decode_cases(spots.files[variant.golden.digest].read_bytes())
        assert len(cases) == 8
        if variant.format == "qdq" and not variant.reduce_range:
            continue  # whether these hold is for each machine to find out
        runner = Runner(spots.files[variant.digest])
        for case in cases:
            outputs = runner.run({tensor.name: array_of(tensor) for tensor in case.inputs})
            assert difference(variant.golden, case, [tensor_of(n, a) for n, a in outputs.items()]) is None


def test_tolerances_tell_the_original_from_cheaper_variants(spots: Addition) -> None:
    """A cheat that runs the half-precision file is caught by the first golden case."""
    original = spots.family.variants[0]
    assert original.reproducibility.kind == "tolerance"
    assert original.reproducibility.gap is not None
    assert original.reproducibility.gap >= 2.0
    assert original.golden is not None
    cases = decode_cases(spots.files[original.golden.digest].read_bytes())
    for variant in spots.family.variants[1:]:
        runner = Runner(spots.files[variant.digest])
        wrong = [
            difference(
                original.golden,
                case,
                [tensor_of(n, a) for n, a in runner.run({t.name: array_of(t) for t in case.inputs}).items()],
            )
            for case in cases
        ]
        assert any(wrong), variant.name


def test_reproducibility_is_said_of_each_form(spots: Addition) -> None:
    """Bits for integers only, a tolerance for floats, nothing for what differs between instruction sets."""
    kinds = {variant.name: variant.reproducibility.kind for variant in spots.family.variants}
    assert kinds[REPRODUCIBLE.name] == "bit-identical"
    assert {kinds[name] for name in kinds if name not in {"fp32", REPRODUCIBLE.name}} == {"none"}


def test_the_reference_is_the_judge_of_the_original(spots: Addition) -> None:
    """Where ONNX's reference can answer, a defect of onnxruntime here does not become the truth."""
    assert "golden outputs of the original: ONNX's reference implementation" in spots.notes


def test_costs_are_counted(spots: Addition) -> None:
    """The device predicts from them before it has the file."""
    for variant in spots.family.variants:
        assert variant.costs is not None
        assert variant.costs.initializer_bytes > 0
    costs = spots.family.variants[0].costs
    assert costs is not None
    assert costs.macs == 16 * 9 * 64 + 64 * 16 * 9 * 16 + 10 * 1024


def test_a_broken_variant_is_refused_with_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An 8-bit file with a wrong scale, as public zoos have them, is measured and kept out; its files too."""
    right = variants.quantizers.weight_only

    def broken(model: onnx.ModelProto, form: variants.Form) -> onnx.ModelProto:
        result = right(model, form)
        for item in result.graph.initializer:
            if item.name.endswith("_scales"):
                scales = numpy_helper.to_array(item).copy()
                scales[: scales.size // 2] *= -3.0
                item.CopyFrom(numpy_helper.from_array(scales, item.name))
        return result

    monkeypatch.setattr(variants.quantizers, "weight_only", broken)
    addition = add(saved(conv_net(), tmp_path), pictures(36), tmp_path, WISH)
    row = next(row for row in addition.rows if row.form.name == "int8-weights")
    assert row.verdict == "refused"
    assert row.quality is not None
    assert row.drop is not None
    assert row.drop > 0.02
    assert f"falls by {row.drop:.2%}, the gate allows 2.00%" in row.why
    assert addition.family.variant_named("int8-weights") is None
    assert not any("int8-weights" in path.name for path in addition.files.values())
    assert addition.family.variant_named(REPRODUCIBLE.name) is not None


def test_labels_measure_what_is_right(tmp_path: Path) -> None:
    """With labels the metric is top1, of the original too, and the drop is relative to it."""
    path = saved(conv_net(), tmp_path)
    unlabelled = pictures(60)
    runner = Runner(path)
    labels = [int(runner.run(feed)["logits"].argmax()) for feed in unlabelled.feeds]
    labels[::3] = [(label + 1) % 10 for label in labels[::3]]
    addition = add(path, Samples(unlabelled.feeds, tuple(labels)), tmp_path, WISH)
    first = addition.rows[0]
    assert addition.family.metric == "top1"
    assert first.quality is not None
    assert 0.4 < first.quality < 0.9
    for row in addition.rows:
        if row.quality is not None:
            assert row.drop == pytest.approx((first.quality - row.quality) / first.quality)


def test_labels_of_other_samples_are_noticed(tmp_path: Path) -> None:
    """If the original gets nothing right, no variant can be compared with it."""
    samples = Samples(pictures(36).feeds, (99,) * 36)
    with pytest.raises(InputError, match="none of the samples right"):
        add(saved(conv_net(), tmp_path), samples, tmp_path, WISH)


def test_without_samples_only_the_original_is_offered(tmp_path: Path) -> None:
    """Nothing would stop a broken file, so nothing unmeasured but the original is published."""
    addition = add(saved(conv_net(), tmp_path), None, tmp_path, WISH)
    (variant,) = addition.family.variants
    assert (variant.name, variant.quality, variant.golden) == ("fp32", None, None)
    assert {row.verdict for row in addition.rows[1:]} == {"refused"}
    assert all("--calibrate" in row.why for row in addition.rows[1:])


def test_samples_too_large_for_a_golden_file_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The family is still published and measured; that it cannot be checked on the device is said."""
    monkeypatch.setattr(adding.goldens, "BUDGET_BYTES", 100)
    addition = add(saved(conv_net(), tmp_path), pictures(36), tmp_path, WISH)
    assert all(variant.golden is None for variant in addition.family.variants)
    assert any("no golden files" in note for note in addition.notes)


def test_usual_extents_are_those_of_the_samples(tmp_path: Path) -> None:
    """A symbol that varies gets its median; one that is always 1 is left out."""
    addition = add(saved(word_net(), tmp_path), sentences(36), tmp_path, Wish(name="words"))
    assert [(usual.symbol, 5 <= usual.extent <= 12) for usual in addition.family.usual] == [("T", True)]


def test_a_model_with_branches_gets_what_it_can_have(tmp_path: Path) -> None:
    """Weight-only forms inside the branches; the static ones say why they are not there."""
    addition = add(saved(branching(), tmp_path), switches(24), tmp_path, Wish(name="branches"))
    rows = {row.form.name: row for row in addition.rows}
    assert rows["int8-weights"].verdict == "published"
    assert rows[REPRODUCIBLE.name].verdict == "not made"


def test_whole_number_outputs_stay_out_of_golden_files_when_they_flip(tmp_path: Path) -> None:
    """A label near a tie differs between honest machines; the floats beside it are checked instead."""
    model = conv_net()
    model.graph.node.append(helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]))
    addition = add(saved(model, tmp_path), pictures(36), tmp_path, WISH)
    for variant in addition.family.variants:
        assert variant.golden is not None
        cases = decode_cases(addition.files[variant.golden.digest].read_bytes())
        assert "logits" in {tensor.name for tensor in cases[0].outputs}
    original = decode_cases(addition.files[addition.family.variants[0].golden.digest].read_bytes())  # type: ignore[union-attr]
    assert {tensor.name for tensor in original[0].outputs} == {"logits", "label"}
    labels = [int(np.frombuffer(t.data, "<i8")[0]) for case in original for t in case.outputs if t.name == "label"]
    assert len(labels) == 8
