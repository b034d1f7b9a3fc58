"""The Open Inference Protocol's own OpenAPI file as the judge of the gateway: schemathesis finds no failure."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from gateways import REQUEST, VARIANT, FakeService, served
from needs import module, reference_data

module("schemathesis")

import yaml  # noqa: E402 - schemathesis reads its files with it

SPECIFICATION = reference_data() / "specs" / "open_inference_rest.yaml"
INFER = "/v2/models/{MODEL_NAME}/versions/{MODEL_VERSION}/infer"
NAMES = f'[parameters]\n"path.MODEL_NAME" = "digits"\n"path.MODEL_VERSION" = "{VARIANT.name}"\n'
# Bodies that fit the file's schema need not fit the model, so they may be refused.
CHECKS = "[checks]\npositive_data_acceptance.enabled = false\n"
EXAMPLES = 12


def specification() -> dict[str, Any]:
    """Return the file."""
    # It writes `${NAME}` where OpenAPI has `{NAME}`; taken by the letter, each path would have a dollar sign.
    found: dict[str, Any] = yaml.safe_load(SPECIFICATION.read_text(encoding="utf-8").replace("${", "{"))
    return found


def judged(folder: Path, service: FakeService, document: dict[str, Any], configuration: str, *arguments: str) -> int:
    """Run schemathesis, the same cases in every run; return how many there were, none of which failed."""
    (folder / "specification.json").write_text(json.dumps(document))
    (folder / "schemathesis.toml").write_text(configuration)
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"]
    with served(service) as base_url:
        command += ["specification.json", "--url", base_url, "--max-examples", str(EXAMPLES)]
        command += ["--generation-deterministic", "--no-color", *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    counted = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert counted is not None, done.stdout
    assert counted[1] == counted[2]
    return int(counted[1])


def test_the_specification_finds_no_failure(tmp_path: Path) -> None:
    """Every call of a model that exists, by every check; nothing that it makes up is taken for a job."""
    service = FakeService()
    assert judged(tmp_path, service, specification(), NAMES + CHECKS) > 100
    assert service.submitted == []


def test_any_names_are_answered_as_the_specification_says(tmp_path: Path) -> None:
    """Whatever stands in the place of a model or a version."""
    service = FakeService()
    # The text of the specification: "must be indicated by an HTTP error status (typically 400)"; the file has 400 for
    # inference alone.
    checks = CHECKS + "status_code_conformance.enabled = false\n"
    assert judged(tmp_path, service, specification(), checks) > 100
    assert service.submitted == []


def test_answers_to_requests_that_fit_a_model_are_as_the_specification_says(tmp_path: Path) -> None:
    """From a right request, which no generator makes up: it is taken, its wrong neighbours are not."""
    document = specification()
    document["paths"][INFER]["post"]["requestBody"]["content"]["application/json"]["example"] = REQUEST
    schemas = document["components"]["schemas"]
    # Clients that dump their models, such as MLServer's, write null for what they leave out.
    for schema in (schemas["parameters"], *(schemas["inference_request"]["properties"][n] for n in ("id", "outputs"))):
        schema["nullable"] = True
    service = FakeService()
    only = ("--include-path", INFER, "--phases", "examples,coverage")
    assert judged(tmp_path, service, document, NAMES + CHECKS, *only) > 20
    assert service.submitted
