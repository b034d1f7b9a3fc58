"""What operators are given for Prometheus and Grafana: valid, and about metrics that there are."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import needs
import pytest
from gateways import FakeService, call
from prometheus_client.parser import text_string_to_metric_families

FOLDER = Path(__file__).parents[2] / "docs" / "operations"
PAGE = FOLDER.with_suffix(".md").read_text()
EXPRESSIONS = [
    target["expr"]
    for panel in json.loads((FOLDER / "grafana.json").read_text())["panels"]
    for target in panel["targets"]
]
NAME = re.compile(r"\b(edge_agent_[a-z_]+|process_[a-z_]+)\b")


def there_are() -> set[str]:
    """Return every name that /metrics can have, with what Prometheus makes of histograms and counters."""
    found = set()
    for family in text_string_to_metric_families(call(FakeService(), "GET", "/metrics").text):
        ends = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",)}.get(family.type, ("",))
        found |= {f"{family.name}{end}" for end in ends}
    return found


def test_the_rules_are_valid_and_fire_when_they_should() -> None:
    """Prometheus's own checker, and our cases."""
    promtool = needs.tool("promtool")
    for command in (("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")):
        done = subprocess.run([promtool, *command], cwd=FOLDER, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_metrics_are_as_prometheus_wants_them() -> None:
    """Names, units and help texts: promtool reads /metrics and has nothing to say."""
    promtool = needs.tool("promtool")
    text = call(FakeService(), "GET", "/metrics").text
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "edge_agent" in line]
    assert ours == []


def test_no_series_says_when_a_counter_was_made() -> None:
    """Histograms have children only after a call: the second look would show theirs."""
    service = FakeService()
    call(service, "GET", "/metrics")
    text = call(service, "GET", "/metrics").text
    assert "edge_agent_http_request_duration_seconds_bucket" in text
    assert "_created" not in text


@pytest.mark.parametrize("source", ["alerts.yml", "grafana.json"])
def test_only_metrics_that_there_are_are_asked_for(source: str) -> None:
    """A renamed metric must not leave a dead alert or an empty panel behind."""
    text = (FOLDER / source).read_text() if source == "alerts.yml" else "\n".join(EXPRESSIONS)
    used = set(NAME.findall(text))
    assert len(used) > 5
    assert used <= there_are()


def test_every_expression_of_the_panels_is_promql(tmp_path: Path) -> None:
    """Written as rules, so that the checker parses them."""
    promtool = needs.tool("promtool")
    rules = [
        {"record": f"panel:{n}", "expr": e.replace("$instance", ".*").replace("[$__rate_interval]", "[5m]")}
        for n, e in enumerate(EXPRESSIONS)
    ]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))  # JSON is YAML
    done = subprocess.run(
        [promtool, "check", "rules", "rules.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_metric_and_every_alert_is_explained() -> None:
    """In docs/operations.md."""
    plain = {re.sub(r"_(bucket|sum|count)$", "", name) for name in there_are() if name.startswith("edge_agent_")}
    assert {name for name in plain if f"`{name}" not in PAGE} == set()
    alerts = set(re.findall(r"alert: (\w+)", (FOLDER / "alerts.yml").read_text()))
    assert {name for name in alerts if f"`{name}`" not in PAGE} == set()
