"""The Grafana dashboard: it is what its description says, and asks for what there is."""

import json
import re
from collections import defaultdict
from itertools import combinations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from builders import POOL
from doubles.history import a_history
from warmpool.effects.metrics import Metrics
from warmpool.ports.metrics import PoolSample, Sample
from warmpool.tools.crds import ROOT
from warmpool.tools.dashboards import COLUMNS, FILE, ROWS, Query, dashboard, main

SCRAPED = {"instance"}
"""What Prometheus adds to every series."""

QUERIES = [query for row in ROWS.values() for panel in row for query in panel.queries]


@pytest.fixture(scope="module")
def labels() -> dict[str, set[str]]:
    """The labels of every series that the operator tells, by its name."""
    pool = PoolSample(POOL, 3, {"ready": 2}, {"racks": 1})
    under = Metrics(lambda: Sample(leads=True, pools=(pool,)))
    for record in a_history(1000):
        under.record(record)
    under.nova_call("create server", 0.1, "ok")
    under.api_write("patch", "VMClaim", 0.1, "ok")
    under.refilled(POOL, 1.0)
    under.ledger(1)
    under.lag(0.1)
    found: dict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(under.scrape()().decode()):
        for sample in family.samples:
            found[sample.name] |= {*sample.labels, *SCRAPED}
    return found


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.expression[:60])
def test_a_query_asks_for_metrics_and_labels_that_there_are(
    query: Query, labels: dict[str, set[str]]
) -> None:
    asked = re.findall(r"(\bwarmpool_\w+)(?:{([^}]*)})?", query.expression)
    assert asked
    for metric, matchers in asked:
        assert metric in labels
        assert set(re.findall(r"(\w+)(?:=~|!=|=)\"", matchers)) <= labels[metric], metric
    grouped = [
        set(re.findall(r"\w+", by)) for by in re.findall(r"by \(([^)]*)\)", query.expression)
    ]
    for by in grouped:
        assert all(by <= labels[metric] for metric, _ in asked)
    left = grouped[0] if grouped else labels[asked[0][0]]
    assert set(re.findall(r"{{(\w+)}}", query.legend)) <= left, "others are gone by then"
    for opened, closed in ("()", "{}", "[]"):
        assert query.expression.count(opened) == query.expression.count(closed)


def test_every_metric_is_shown(labels: dict[str, set[str]]) -> None:
    shown = {m for query in QUERIES for m in re.findall(r"\bwarmpool_\w+", query.expression)}

    def base(name: str) -> str:
        return re.sub(r"_(bucket|count|sum|total|created)$", "", name)

    assert {base(name) for name in labels} == {base(name) for name in shown}


def test_panels_do_not_lie_over_each_other() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= COLUMNS
    for one, other in combinations((panel["gridPos"] for panel in panels), 2):
        apart_across = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_down = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_across or apart_down


def test_the_file_is_what_the_description_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().err
    assert json.loads((ROOT / FILE).read_text()) == dashboard()
