"""The Grafana dashboard of our gauges, and the check of one."""

import json
import re
from typing import Any

from gristmill.clusters.findings import Checked
from gristmill.execution.gauges import CHECKPOINT, FIGURES, PREFIX, SEEN

RAY_PREFIX = "ray_"
"""Ray puts it before every gauge it exports."""
BY_RUN = '{run=~"$run"}'
WIDTH, HEIGHT = 12, 8


def _gauge(name: str) -> str:
    return f"{RAY_PREFIX}{PREFIX}{name}{BY_RUN}"


PANELS = (
    ("Tokens a second", _gauge("tokens_per_second"), "short"),
    ("Samples a second", _gauge("samples_per_second"), "short"),
    ("MFU", _gauge("mfu"), "percentunit"),
    ("Waiting for data, share of a step", _gauge("data_seconds_share"), "percentunit"),
    ("Age of the newest checkpoint", f"time() - {_gauge(CHECKPOINT)}", "s"),
    ("Silence: time since the last line", f"time() - {_gauge(SEEN)}", "s"),
    ("Loss", _gauge("loss"), "short"),
    ("Time left", _gauge("seconds_left"), "s"),
    ("GPU utilisation, Ray's own", "avg(ray_node_gpus_utilization)", "percent"),
    ("Nodes by state, Ray's own", "sum by (node_type) (ray_cluster_active_nodes)", "short"),
)


def dashboard(name: str) -> str:
    """The dashboard as Grafana imports it."""
    panels = [
        {
            "id": index + 1,
            "type": "timeseries",
            "title": title,
            "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "gridPos": {
                "h": HEIGHT,
                "w": WIDTH,
                "x": WIDTH * (index % 2),
                "y": HEIGHT * (index // 2),
            },
            "targets": [{"refId": "A", "expr": expression, "legendFormat": "{{run}}{{node_type}}"}],
        }
        for index, (title, expression, unit) in enumerate(PANELS)
    ]
    runs = f"label_values({RAY_PREFIX}{PREFIX}{SEEN}, run)"
    variables = [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Source"},
        {
            "name": "run",
            "type": "query",
            "label": "Run",
            "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "query": {"query": runs, "refId": "runs"},
            "includeAll": True,
            "multi": True,
            "refresh": 2,
        },
    ]
    made: dict[str, Any] = {
        "title": name,
        "uid": f"{name}-runs",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": variables},
        "panels": panels,
    }
    return json.dumps(made, indent=1) + "\n"


def check_dashboard_file(checked: Checked, data: dict[str, Any]) -> None:
    """Every panel asks for a gauge of ours that exists."""
    known = {f"{RAY_PREFIX}{PREFIX}{name}" for name in (*FIGURES, CHECKPOINT, SEEN)}
    for index, panel in enumerate(data.get("panels", [])):
        for target in panel.get("targets", []):
            for name in re.findall(rf"{RAY_PREFIX}{PREFIX}\w+", str(target.get("expr", ""))):
                if name not in known:
                    checked.wrong(
                        f"panels.{index}.targets.expr",
                        f"no gauge {name}; known: {', '.join(sorted(known))}",
                    )
    checked.means.append("the gauges we set")
