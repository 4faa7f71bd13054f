"""What `ops/` holds for Grafana, Prometheus and KEDA names only what there is, and the rules say what they should."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from windlass import metrics
from windlass.web.dashboard import spots

OPS = Path(__file__).parent.parent / "ops"
PROMTOOL = shutil.which("promtool") or ""


def expressions() -> list[str]:
    """What the panels of Grafana ask Prometheus, with its variables filled in."""
    panels: list[dict[str, Any]] = json.loads((OPS / "grafana.json").read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [one.replace("$__rate_interval", "5m").replace("$queue", ".*") for one in asked]


@pytest.mark.parametrize("file", ["grafana.json", "alerts.yml", "alerts_test.yml"])
def test_only_series_that_there_are(file: str) -> None:
    parts = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    known = {one.name + part for one in metrics.ALL for part in parts[one.kind]}
    named = set(re.findall(r"\bwindlass_\w+", (OPS / file).read_text()))
    assert named
    assert named <= known


def test_autoscalers_ask_for_what_the_dashboard_answers() -> None:
    [path] = re.findall(r"url: http://[\w-]+:\d+(/\S+)\?queue=mail", (OPS / "keda.yml").read_text())
    assert path in {spot.path for spot in spots()}


@pytest.mark.skipif(not PROMTOOL, reason="promtool is not here; scripts/servers brings it")
def test_the_rules_and_the_panels_are_what_prometheus_takes(tmp_path: Path) -> None:
    subprocess.run([PROMTOOL, "test", "rules", OPS / "alerts_test.yml"], check=True, capture_output=True)
    rules = [{"record": f"panel:{n}", "expr": expr} for n, expr in enumerate(expressions())]
    file = tmp_path / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))  # JSON is YAML
    subprocess.run([PROMTOOL, "check", "rules", file], check=True, capture_output=True)
