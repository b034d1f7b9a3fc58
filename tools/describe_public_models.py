"""Describes public models for `edge_agent/models/default/catalogue.json`, from facts that were collected about them.

    EDGE_AGENT_REFERENCE_DATA=DIR python tools/describe_public_models.py [--check]

Reads `models/onnx_models.jsonl` there: for each file its source, commit, path, digest, size, ports, licence, and the
quality that the source's page reports. Nothing is fetched. What is not in the facts is not said: ports, opsets and
sample counts stay empty where the source is silent. `public_families.py` is what a person decided: which files are
forms of one model, and what it is called. With `--check` the result is compared with the committed file.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from public_families import CV, FAMILIES, ZOO, Described

from edge_agent.models.catalogue import PUBLIC_FILE, Catalogue, readable
from edge_agent.models.entries import METRICS, Family, Port, Quality, Usual, Variant

VERSION = 1
OLDEST_OPSET = 7
"""onnxruntime promises no older one."""
MIN_RUNTIME = "1.27"

LICENCES = {
    "apache-2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache license": "Apache-2.0",
    "mit": "MIT",
    "mit license": "MIT",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-4.0": "CC-BY-4.0",
}
"""As sources write them, in lower case. What is not here, or not named at all, is left out."""

FORMATS = {"fp32": "fp32", "fp16": "fp16", "qdq": "qdq"}
DATA_TYPES = {
    "tensor(float)": "FP32",
    "tensor(int64)": "INT64",
    "tensor(int32)": "INT32",
    "tensor(uint8)": "UINT8",
    "tensor(string)": "BYTES",
    "tensor(bool)": "BOOL",
    "FLOAT": "FP32",
    "INT64": "INT64",
    "INT32": "INT32",
}
USUAL = {
    "seq_len": 128,
    "sequence": 128,
    "sentence_length": 128,
    "height": 640,
    "width": 640,
    "c": 64,
    "q": 16,
    "in0_1": 640,
    "in0_2": 640,
    "in0_3": 640,
    "input1_dynamic_axes_3": 8,
}
"""Extents that callers usually choose, for the symbols where it is not 1."""
USUAL_OF = {"silero-vad": {"in0_1": 512}}
"""Where a family's own are others: 32 ms of sound at 16 kHz."""


def describe(rows: list[dict[str, Any]], outputs: Mapping[str, list[dict[str, Any]]]) -> Catalogue:
    """Return the catalogue.

    Args:
        rows: the collected facts, one a file.
        outputs: ports of the files that lie here, by digest, where the facts have none.
    """
    sources: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        sources.setdefault(row["sha256"], []).append(row)
    families = [_family(entry, rows, sources, outputs) for entry in FAMILIES]
    return Catalogue(version=VERSION, families=tuple(sorted(families, key=lambda family: family.name)))


def _family(
    entry: Described,
    rows: Iterable[dict[str, Any]],
    sources: Mapping[str, list[dict[str, Any]]],
    outputs: Mapping[str, list[dict[str, Any]]],
) -> Family:
    found = [
        row
        for row in rows
        if row["source"] == entry.source
        and re.fullmatch(entry.files, row["file"])
        and (row["opset"] is None or row["opset"] >= OLDEST_OPSET)
        and _licence(row) is not None
    ]
    if not found:
        raise SystemExit(f"no file is described for {entry.name}")
    inputs, given = _ports(found, outputs)
    chosen = _chosen(entry, found)
    variants = [_variant(entry, row, name, sources[row["sha256"]]) for name, row in chosen.items()]
    licences = sorted({str(_licence(row)) for row in chosen.values()})
    if len(licences) != 1:
        raise SystemExit(f"{entry.name} has several licences: {licences}")
    symbols = {size for port in inputs for size in port.shape if isinstance(size, str)}
    usual = USUAL | USUAL_OF.get(entry.name, {})
    measured = any(variant.quality is not None for variant in variants)
    return Family(
        name=entry.name,
        title=entry.title,
        task=entry.task,
        licence=licences[0],
        source=f"https://github.com/{entry.source}/tree/{found[0]['commit']}/{Path(found[0]['path']).parent}",
        inputs=inputs,
        outputs=given,
        metric=entry.quality[1] if entry.quality is not None and measured else None,
        usual=tuple(Usual(symbol=name, extent=usual[name]) for name in sorted(symbols & usual.keys())),
        latency_target_ms=entry.target_ms,
        variants=tuple(variants),
    )


def _chosen(entry: Described, found: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the files by variant name: of each form the newest opset, and older ones of a quality of their own."""
    chosen: dict[str, dict[str, Any]] = {}
    digests = set()
    for row in sorted(found, key=lambda row: (-(row["opset"] or 0), row["file"])):
        if row["sha256"] in digests:
            continue
        name = _form(row)[0]
        if name in chosen:
            if _quality(entry, row) is None or row["opset"] is None:
                continue
            name = f"{name}-opset{row['opset']}"
        if name in chosen:
            continue
        digests.add(row["sha256"])
        chosen[name] = row
    return dict(sorted(chosen.items()))


def _variant(entry: Described, row: dict[str, Any], name: str, sources: Iterable[dict[str, Any]]) -> Variant:
    return Variant.model_validate(
        {
            "name": name,
            "file": f"{entry.name}-{name}.onnx",
            "digest": row["sha256"],
            "size_bytes": row["size_bytes"],
            "format": _form(row)[1],
            "opset": row["opset"],
            "min_runtime": MIN_RUNTIME,
            "quality": _quality(entry, row),
            "costs": None,
            "golden": None,
            "urls": tuple(_url(source) for source in sources),
        }
    )


def _form(row: dict[str, Any]) -> tuple[str, str]:
    """Return a variant's name and format."""
    kind = row["variant"]
    if kind in FORMATS:
        return kind, FORMATS[kind]
    if kind == "int8bq":
        return "int8-block", "qdq"  # weights of 8 bits in blocks, taken apart again before float operators
    if row["source"] in {ZOO, CV}:  # of the OpenCV zoo's files it is not said; quantizers' default is Q/DQ
        return "int8", "qoperator" if row["source"] == ZOO else "qdq"
    return "int8-dynamic", "dynamic"


def _url(row: dict[str, Any]) -> str:
    """Return where the very bytes are: a repository's file, or what its Git LFS pointer stands for."""
    path = f"{row['source']}/{row['commit']}/{quote(row['path'])}"
    if row["is_lfs_pointer"]:
        return f"https://media.githubusercontent.com/media/{path}"
    return f"https://raw.githubusercontent.com/{path}"


def _licence(row: dict[str, Any]) -> str | None:
    return LICENCES.get((row["licence"] or "").lower())


def _quality(entry: Described, row: dict[str, Any]) -> Quality | None:
    """Return the reported figure that counts, in our metric's unit; an error rate stays one."""
    reported = row["accuracy_reported"]
    if entry.quality is None or not reported or entry.quality[0] not in reported:
        return None
    key, metric, dataset = entry.quality
    text = str(reported[key])
    number = re.search(r"\d+(?:\.\d+)?", text)
    if number is None:
        return None
    value = float(number[0])
    percent = "%" in text or "%" in key or value > 1 or key in {"Top-1 Accuracy", "Top-1 error"}
    if metric not in METRICS:
        raise SystemExit(f"{metric} is no metric")
    return Quality(metric=metric, value=round(value / 100, 7) if percent else value, dataset=dataset, reported=True)


def _ports(
    found: list[dict[str, Any]], known: Mapping[str, list[dict[str, Any]]]
) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Return inputs and outputs, or nothing where the facts have not both; forget files whose ports are others."""
    for row in sorted(found, key=lambda row: -(row["opset"] or 0)):
        outputs = row.get("outputs") or known.get(row["sha256"])
        if not row["inputs"] or not outputs:
            continue
        inputs = tuple(_port(port, unknown=f"in{index}_") for index, port in enumerate(row["inputs"]))
        given = tuple(_port(port, unknown=f"out{index}_") for index, port in enumerate(outputs))
        names = ({port.name for port in inputs}, {port.name for port in given})
        for other in list(found):
            others = other.get("outputs") or known.get(other["sha256"]) or []
            if ({p["name"] for p in other["inputs"] or []}, {p["name"] for p in others}) != names:
                found.remove(other)
        return inputs, given
    return (), ()


def _port(port: dict[str, Any], unknown: str) -> Port:
    """Return a port; an extent without a name of its own gets one: N in front, `unknown` and its place elsewhere."""
    shape: list[int | str] = []
    for place, size in enumerate(port["shape"]):
        if isinstance(size, int):
            shape.append(size)
        elif size is None or size == "None" or size.startswith("unk__"):
            shape.append("N" if place == 0 else f"{unknown}{place}")
        else:
            shape.append(size)
    return Port(name=port["name"], datatype=DATA_TYPES[port["type"]], shape=tuple(shape))


def _ports_of_files(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Read the outputs of the few models that lie beside the facts."""
    import hashlib  # noqa: PLC0415 for these alone

    import onnx  # noqa: PLC0415 as above

    found = {}
    for path in sorted(folder.glob("*.onnx")):
        data = path.read_bytes()
        outputs = []
        for value in onnx.load_model_from_string(data).graph.output:
            kind = value.type.tensor_type
            shape = [size.dim_param or size.dim_value or None for size in kind.shape.dim]
            outputs.append({"name": value.name, "type": onnx.TensorProto.DataType.Name(kind.elem_type), "shape": shape})
        found[hashlib.sha256(data).hexdigest()] = outputs
    return found


def main() -> int:
    """Write the file, or compare it."""
    folder = Path(os.environ["EDGE_AGENT_REFERENCE_DATA"]) / "models"
    rows = [json.loads(line) for line in (folder / "onnx_models.jsonl").read_text().splitlines()]
    made = readable(describe(rows, _ports_of_files(folder / "onnx")))
    if "--check" in sys.argv[1:]:
        same = made == PUBLIC_FILE.read_bytes()
        print("the same" if same else f"{PUBLIC_FILE} is not what the facts give")
        return 0 if same else 1
    PUBLIC_FILE.parent.mkdir(exist_ok=True)
    PUBLIC_FILE.write_bytes(made)
    print(f"{PUBLIC_FILE}: {len(made)} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
