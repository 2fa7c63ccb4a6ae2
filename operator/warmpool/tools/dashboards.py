"""Writes the dashboards from their descriptions, or says which are out of date.

Grafana's shows the metrics, and is described here; Kibana's shows the history, and is described in
`warmpool.tools.kibana`.

python -m warmpool.tools.dashboards --write
python -m warmpool.tools.dashboards --check

Every replica is scraped. Gauges of pools are the same from all, so the highest is taken; what is
counted and timed comes from the one that leads, so it is added up.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from warmpool.tools import kibana
from warmpool.tools.crds import ROOT

FILE: Final = Path("manifests/grafana/warmpool.json")
KIBANA: Final = Path("manifests/kibana/warmpool.ndjson")

Json = dict[str, Any]

COLUMNS: Final = 24
HEIGHT: Final = 8
"""Of Grafana's grid: the columns that a row has, and the lines of a panel."""

OURS: Final = 'namespace=~"$namespace", pool=~"$pool"'
"""The pools that are looked at."""

RATE: Final = "$__rate_interval"
"""What Grafana puts in: long enough for a few scrapes."""

SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True)
class Query:
    """What a panel asks for. The legend names labels in double braces."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture. `unit` is Grafana's: short, s, percentunit."""

    title: str
    says: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 12
    stacked: bool = False


def _gauge(metric: str, by: str, **labels: str) -> str:
    named = "".join(f', {name}="{value}"' for name, value in labels.items())
    return f"max by ({by}) ({metric}{{{OURS}{named}}})"


def _rate(metric: str, by: str, labels: str = OURS) -> str:
    return f"sum by ({by}) (rate({metric}{{{labels}}}[{RATE}]))"


def _percentiles(metric: str, by: str = "", labels: str = "") -> tuple[Query, ...]:
    """Half, 90 and 99 % within so many seconds, or by a label 90 % alone."""
    groups, legend = (f"le, {by}", f" {{{{{by}}}}}") if by else ("le", "")
    parts = (90,) if by else (50, 90, 99)
    rate = f"sum by ({groups}) (rate({metric}_bucket{{{labels}}}[{RATE}]))"
    return tuple(Query(f"histogram_quantile({p / 100:g}, {rate})", f"p{p}{legend}") for p in parts)


NOW: Final = (
    Panel(
        "Leader",
        "Which replica leads. None or two for longer than a takeover is wrong.",
        (Query("warmpool_leader == 1", "{{instance}}"),),
    ),
    Panel(
        "Ready, of what is wanted",
        "A pool at 1 is full.",
        (
            Query(
                f"{_gauge('warmpool_pool_vms', 'namespace, pool', state='ready')}"
                f" / ({_gauge('warmpool_pool_wanted', 'namespace, pool')} > 0)",
                "{{namespace}}/{{pool}}",
            ),
        ),
        unit="percentunit",
    ),
    Panel(
        "VMs by state",
        "Over all pools that are chosen.",
        (
            Query(
                f"sum by (state) ({_gauge('warmpool_pool_vms', 'namespace, pool, state')})",
                "{{state}}",
            ),
        ),
        stacked=True,
    ),
    Panel(
        "Largest claim on own racks",
        "How many VMs a claim could have at most, each on a rack of its own.",
        (
            Query(
                _gauge("warmpool_pool_claimable", "namespace, pool", mode="racks"),
                "{{namespace}}/{{pool}}",
            ),
        ),
    ),
)

CLAIMS: Final = (
    Panel(
        "Claims by outcome",
        "hit: bound at once; late: after waiting; miss: refused.",
        (Query(_rate("warmpool_pool_claims_total", "outcome"), "{{outcome}}"),),
        stacked=True,
    ),
    Panel(
        "Why claims are answered as they are",
        "All pools.",
        (Query(_rate("warmpool_claims_total", "reason, mode", ""), "{{reason}} {{mode}}"),),
    ),
    Panel(
        "Wait of claims that hit",
        "From the first sighting of a claim to its answer. All pools.",
        _percentiles("warmpool_claim_wait_seconds", labels='outcome="hit"'),
        unit="s",
    ),
    Panel(
        "Claims without an answer",
        "Those that wait for VMs. All pools.",
        (Query("max(warmpool_claims_waiting)", "waiting"),),
    ),
)

BUILDS: Final = (
    Panel(
        "Builds by result",
        "refused: the cloud took no server.",
        (Query(_rate("warmpool_builds_total", "result"), "{{result}}"),),
        stacked=True,
    ),
    Panel(
        "Why builds fail",
        "By reason; the history has the cloud's words.",
        (
            Query(
                _rate("warmpool_builds_total", "reason", f'{OURS}, result!="ready"'), "{{reason}}"
            ),
        ),
    ),
    Panel(
        "How long builds take",
        "From the WarmVM to Ready. All pools.",
        _percentiles("warmpool_build_seconds", labels='result="ready"'),
        unit="s",
    ),
    Panel(
        "How long each phase takes",
        "90 % within. All pools.",
        _percentiles("warmpool_build_phase_seconds", by="phase"),
        unit="s",
    ),
    Panel(
        "Time to refill",
        "From when a pool was not full to when it was, 90 % within.",
        _percentiles("warmpool_refill_seconds", by="pool", labels=OURS),
        unit="s",
    ),
    Panel(
        "Removals and releases",
        "VMs that left their pools by reason (Bound: to a claim), and those given back.",
        (
            Query(_rate("warmpool_removals_total", "reason"), "{{reason}}"),
            Query(_rate("warmpool_releases_total", "policy"), "given back: {{policy}}"),
        ),
    ),
)

OPERATOR: Final = (
    Panel(
        "Calls to clouds",
        "90 % within, by call.",
        _percentiles("warmpool_nova_call_seconds", by="call"),
        unit="s",
    ),
    Panel(
        "Calls to clouds that fail",
        "By call and the class of the error.",
        (
            Query(
                _rate("warmpool_nova_call_seconds_count", "call, outcome", 'outcome!="ok"'),
                "{{call}} {{outcome}}",
            ),
        ),
    ),
    Panel(
        "Writes to the API server",
        "By kind and outcome.",
        (
            Query(
                _rate("warmpool_api_write_seconds_count", "verb, kind, outcome", ""),
                "{{verb}} {{kind}} {{outcome}}",
            ),
        ),
    ),
    Panel(
        "How long they take",
        "90 % within, by kind.",
        _percentiles("warmpool_api_write_seconds", by="kind"),
        unit="s",
    ),
    Panel(
        "Loop lag",
        "How late the event loop is, 99 % within, by replica.",
        (
            Query(
                "histogram_quantile(0.99, sum by (le, instance)"
                f" (rate(warmpool_loop_lag_seconds_bucket[{RATE}])))",
                "{{instance}}",
            ),
        ),
        unit="s",
    ),
    Panel(
        "Bindings in flight",
        "At each write of the ledger, 90 % at most.",
        (
            Query(
                "histogram_quantile(0.9, sum by (le)"
                f" (rate(warmpool_ledger_entries_bucket[{RATE}])))",
                "p90",
            ),
        ),
    ),
    Panel(
        "History on its way",
        "Records that wait for their store, by replica, and those lost.",
        (
            Query("warmpool_history_spooled", "waiting {{instance}}"),
            Query("warmpool_history_lost_total", "lost {{instance}}"),
        ),
    ),
    Panel(
        "Notices on their way",
        "Topics that people have not been told of yet, by replica.",
        (Query("warmpool_notices_waiting", "{{instance}}"),),
    ),
    Panel(
        "Changes of the leader",
        "Leaderships that began and ended within an hour.",
        (
            Query(
                "sum by (result) (increase(warmpool_leaderships_total[1h]))",
                "{{result}}",
            ),
        ),
    ),
)

ROWS: Final = {"Pools now": NOW, "Claims": CLAIMS, "Builds": BUILDS, "The operator": OPERATOR}


def dashboard() -> Json:
    """What Grafana imports."""
    return {
        "uid": "warmpool",
        "title": "warmpool",
        "description": "Pools of booted VMs: what they hold, what claims get, how builds go.",
        "tags": ["warmpool"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": list(_variables())},
        "panels": list(_panels()),
    }


def _variables() -> Iterator[Json]:
    yield {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    for name, query in (
        ("namespace", "label_values(warmpool_pool_wanted, namespace)"),
        ("pool", 'label_values(warmpool_pool_wanted{namespace=~"$namespace"}, pool)'),
    ):
        yield {
            "name": name,
            "type": "query",
            "datasource": SOURCE,
            "query": {"query": query, "refId": name},
            "refresh": 2,
            "sort": 3,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
        }


def _panels() -> Iterator[Json]:
    number, y = 0, 0
    for title, panels in ROWS.items():
        number += 1
        grid = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        yield {"id": number, "type": "row", "title": title, "gridPos": grid, "panels": []}
        x, y = 0, y + 1
        for panel in panels:
            number += 1
            if x + panel.width > COLUMNS:
                x, y = 0, y + HEIGHT
            grid = {"x": x, "y": y, "w": panel.width, "h": HEIGHT}
            yield {"id": number, "gridPos": grid, **_panel(panel)}
            x += panel.width
        y += HEIGHT


def _panel(panel: Panel) -> Json:
    drawn = {"stacking": {"mode": "normal"}, "fillOpacity": 30} if panel.stacked else {}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": SOURCE,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, "custom": drawn},
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": SOURCE,
                "expr": query.expression,
                "legendFormat": query.legend,
            }
            for index, query in enumerate(panel.queries)
        ],
    }


def text() -> str:
    """The file."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


FILES: Final[Mapping[Path, Callable[[], str]]] = {FILE: text, KIBANA: kibana.text}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--write", action="store_true", help="write them")
    how.add_argument("--check", action="store_true", help="fail if one is not up to date")
    arguments = parser.parse_args(argv)
    wrong = [str(file) for file in FILES if not _is_right(file, write=arguments.write)]
    if wrong:
        sys.stderr.write(f"{', '.join(wrong)} out of date: make dashboards\n")
    return 1 if wrong else 0


def _is_right(file: Path, *, write: bool) -> bool:
    path, wanted = ROOT / file, FILES[file]()
    if write:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted, encoding="utf-8")
    return path.exists() and path.read_text(encoding="utf-8") == wanted


if __name__ == "__main__":
    sys.exit(main())
