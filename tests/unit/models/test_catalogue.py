from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, get_args

import pytest
from pydantic import ValidationError

from edge_agent.errors import StateError, UnknownFamilyError
from edge_agent.models import catalogue, entries
from edge_agent.models.catalogue import Catalogue, Family, Variant, builtin, parse
from edge_agent.wire.tensors import DataType

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _document() -> dict[str, Any]:
    plain: dict[str, Any] = json.loads((catalogue.BUILTIN_DIR / "catalogue.json").read_text())
    return plain


def test_a_catalogue_survives_the_way_to_json_and_back(
    make_variant: Callable[..., Variant], make_family: Callable[..., Family]
) -> None:
    """What is written is what is read."""
    made = Catalogue(version=3, families=(make_family(make_variant()),))
    assert parse(json.dumps(made.model_dump(mode="json"))) == made


def test_the_builtin_catalogue_has_the_digits_in_three_forms() -> None:
    """Floats, static 8 bits, dynamic 8 bits; a variant is found by its digest and by its name."""
    family = builtin().family("digits")
    assert [(v.name, v.format) for v in family.variants] == [
        ("fp32", "fp32"),
        ("int8-static", "qdq"),
        ("int8-dynamic", "dynamic"),
    ]
    for variant in family.variants:
        assert family.variant(variant.digest) is variant
        assert family.variant(variant.digest_bytes) is variant
        assert family.variant_named(variant.name) is variant
    assert family.variant(bytes(32)) is None
    assert family.variant_named("fp16") is None


def test_an_unknown_family_names_the_closest() -> None:
    """A slip of the finger is answered with the right name; anything else with the names there are."""
    with pytest.raises(UnknownFamilyError) as caught:
        builtin().family("Digit")
    assert "'digits'" in caught.value.hint
    with pytest.raises(UnknownFamilyError) as caught:
        builtin().family("zzz" * 1000)
    assert "digits" in caught.value.hint
    assert len(caught.value.message) < 200


def test_an_unknown_family_names_the_nearest_ones(make_variant: Callable[..., Variant], make_family: Any) -> None:  # noqa: ANN401 any fields
    """Up to three; among very many only those that begin in the same way are compared."""
    family = make_family(make_variant())
    few = [family.model_copy(update={"name": f"minilm-l{number}"}) for number in (6, 12)]
    many = [family.model_copy(update={"name": f"zz{number}"}) for number in range(catalogue.MANY_NAMES)]
    for families in (few, few + many):
        with pytest.raises(UnknownFamilyError) as caught:
            Catalogue(version=1, families=tuple(families)).family("minilm-l7")
        assert "'minilm-l6' or 'minilm-l12'" in caught.value.message


def _set(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    *parents, last = path.split(".")

    def change(document: dict[str, Any]) -> None:
        place: Any = document
        for step in parents:
            place = place[int(step)] if step.isdigit() else place[step]
        place[last] = value

    return change


_VARIANT = "families.0.variants.0."


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("extra", 1),
        ("version", 0),
        ("version", "1"),
        ("families.0.surprise", True),
        ("families.0.latency_target_ms", 0),
        ("families.0.latency_target_ms", float("inf")),
        ("families.0.metric", "vibes"),
        ("families.0.inputs", []),
        ("families.0.inputs.0.datatype", "FP8"),
        ("families.0.inputs.0.shape", [-1]),
        ("families.0.inputs.0.shape", ["a b"]),
        ("families.0.variants", []),
        (_VARIANT + "file", "../escape.onnx"),
        (_VARIANT + "file", "/etc/passwd"),
        (_VARIANT + "file", ".hidden"),
        (_VARIANT + "file", "sub/file.onnx"),
        (_VARIANT + "file", "line\n"),
        (_VARIANT + "digest", "ab"),
        (_VARIANT + "digest", "A" * 64),
        (_VARIANT + "digest", "0" * 64 + "\n"),
        (_VARIANT + "size_bytes", 0),
        (_VARIANT + "size_bytes", 2**62),
        (_VARIANT + "size_bytes", 1.5),
        (_VARIANT + "signedness", "u8s8"),
        (_VARIANT + "quality.value", 1.01),
        (_VARIANT + "quality.value", float("nan")),
        (_VARIANT + "quality.n", 0),
        (_VARIANT + "golden.atol", -1.0),
        (_VARIANT + "golden.atol", float("inf")),
        (_VARIANT + "golden.size_bytes", 2**30),
        (_VARIANT + "costs.macs", -1),
        (_VARIANT + "min_runtime", "latest"),
        (_VARIANT + "urls", ["ftp://example.org/model.onnx"]),
        (_VARIANT + "urls", ["../escape.onnx"]),
        (_VARIANT + "urls", ["/etc/passwd"]),
        (_VARIANT + "urls", ["sub/../../escape.onnx"]),
        (_VARIANT + "urls", ["https://example.org/a b"]),
        (_VARIANT + "reproducibility", {"kind": "tolerance", "atol": 0.1}),
        (_VARIANT + "reproducibility", {"kind": "bit-identical", "gap": 2.0}),
        (_VARIANT + "requires", ["anything"]),
        ("families.0.usual", [{"symbol": "N", "extent": -1}]),
    ],
)
def test_a_wrong_field_is_refused(path: str, value: object) -> None:
    """Each bound holds, and the error names the place that is wrong."""
    document = _document()
    _set(path, value)(document)
    with pytest.raises(StateError, match="not valid") as caught:
        parse(json.dumps(document))
    last = path.rsplit(".", 1)[-1]
    assert last in caught.value.message or "signedness" in caught.value.message


@pytest.mark.parametrize("what", ["name", "digest"])
def test_twins_are_refused(what: str) -> None:
    """Two variants of a family never share a name or a digest."""
    document = _document()
    variants = document["families"][0]["variants"]
    variants[1][what] = variants[0][what]
    with pytest.raises(StateError, match="occurs twice"):
        parse(json.dumps(document))


def test_two_families_of_one_name_are_refused() -> None:
    """A name means one family."""
    document = _document()
    document["families"].append(document["families"][0])
    with pytest.raises(StateError, match="'digits' occurs twice"):
        parse(json.dumps(document))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"version": 1}', "null", "\ufeff{}"])
def test_what_is_no_catalogue_is_a_clear_error(text: str) -> None:
    """Neither a traceback nor an empty catalogue."""
    with pytest.raises(StateError, match="not valid"):
        parse(text)


def test_an_endless_catalogue_is_refused_by_its_size() -> None:
    """The limit comes before the parser."""
    with pytest.raises(StateError, match="limit"):
        parse(b" " * (catalogue.MAX_CATALOGUE_BYTES + 1))


def test_a_missing_builtin_catalogue_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged installation is named as one."""
    monkeypatch.setattr(catalogue, "BUILTIN_DIR", tmp_path)
    builtin.cache_clear()
    try:
        with pytest.raises(StateError, match="cannot be read") as caught:
            builtin()
    finally:
        builtin.cache_clear()
    assert "Install" in caught.value.hint


def test_entries_are_frozen() -> None:
    """Nobody changes what was verified."""
    with pytest.raises(ValidationError, match="frozen"):
        builtin().version = 2  # type: ignore[misc]


def test_the_types_are_those_of_the_wire() -> None:
    """A port can have exactly the types that tensors can have."""
    assert set(get_args(entries.DataTypeName)) == {member.value for member in DataType}


def test_what_the_daemon_imports_is_light() -> None:
    """Neither numpy nor onnxruntime nor onnx comes with the modules that the agent's daemon uses."""
    script = (
        "import sys\n"
        "from edge_agent.models import catalogue, fit, golden, scans, selection, store\n"
        "print(sorted({'numpy', 'onnxruntime', 'onnx', 'sklearn'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_error_rates_and_unknown_costs_are_said_as_they_are() -> None:
    """An error rate stays one, a reported figure says so, and what nobody has measured is None."""
    document = _document()
    family = document["families"][0]
    family["metric"] = "top1-error"
    for variant in family["variants"]:
        variant["quality"] = {"metric": "top1-error", "value": 0.29, "dataset": "ImageNet", "reported": True}
        variant["costs"] = variant["golden"] = variant["opset"] = None
        variant["urls"] = ["https://example.org/model.onnx", f"sha256/{variant['digest']}"]
    family["usual"] = [{"symbol": "N", "extent": 4}]
    parsed = parse(json.dumps(document)).families[0]
    quality = parsed.variants[0].quality
    assert quality is not None
    assert (quality.higher_is_better, quality.n, quality.reported) == (False, None, True)
    assert parsed.extents == {"N": 4}
