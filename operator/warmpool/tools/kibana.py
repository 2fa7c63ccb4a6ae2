"""Views of the history for Kibana, from their description: saved objects, one JSON object a line.

Charts are Vega-Lite, since such a chart has the very query in it that Elasticsearch is asked; a
test asks one. Kibana puts in the time and the filters of the dashboard. Tables are saved searches.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from warmpool.domain.history import Facet, RecordKind, Result

Json = dict[str, Any]

STREAM: Final = "warmpool-history"
"""The data stream's name, unless it was set to another."""

DATA_VIEW: Final = "warmpool-history"
DASHBOARD: Final = "warmpool-dashboard"

TIME: Final = "@timestamp"
FIELDS: Final = {facet: f"warmpool.{facet.value}" for facet in Facet}
"""As `warmpool.effects.elastic_documents` has them; a test sees to that."""

KIND: Final = FIELDS[Facet.KIND]
RESULT: Final = FIELDS[Facet.RESULT]
RACK: Final = FIELDS[Facet.RACK]
SECONDS: Final = "warmpool.seconds"

COLUMNS: Final = 48
HEIGHT: Final = 15
"""Of Kibana's grid: the columns that a row has, and the lines of a panel."""

MOST: Final = 50
"""Racks, hypervisors or reasons that a chart shows."""

AT_ONCE: Final = 500
"""Leaderships in the timeline."""

_CORE: Final = "8.8.0"
_VERSIONS: Final = {
    "index-pattern": "8.0.0",
    "visualization": "8.5.0",
    "search": "8.0.0",
    "dashboard": "8.9.0",
}
"""Whose shape the objects have. Kibana brings older ones up to its own, and refuses newer ones."""


@dataclass(frozen=True, slots=True)
class Chart:
    """One picture: which records, how they are counted, how that is drawn."""

    ident: str
    title: str
    says: str
    where: Mapping[str, Sequence[str]]
    """Fields, and the values that they may have."""
    body: Json
    """The rest of the query: size and aggregations."""
    rows: str
    """Where in the answer the rows are."""
    drawn: Json
    """Of Vega-Lite: transform, mark or layer, encoding."""
    width: int = 24


@dataclass(frozen=True, slots=True)
class Table:
    """Records, the newest first."""

    ident: str
    title: str
    says: str
    query: str
    """In Lucene's words."""
    columns: Sequence[str] = field(default=())
    width: int = 48


# -- parts of queries and pictures ------------------------------------------------------------


def _over_time(**aggs: Json) -> Json:
    span = {"field": TIME, "fixed_interval": {"%autointerval%": True}, "min_doc_count": 0}
    time: Json = {"date_histogram": span}
    if aggs:
        time["aggs"] = aggs
    return {"size": 0, "aggs": {"time": time}}


def _terms(name: str, **aggs: Json) -> Json:
    return {"terms": {"field": name, "size": MOST}} | ({"aggs": aggs} if aggs else {})


def _flat(buckets: str) -> Json:
    return {"flatten": [f"{buckets}.buckets"], "as": ["part"]}


WHEN: Final[Json] = {"field": "key", "type": "temporal", "title": None}


def _number(name: str, title: str, **more: Any) -> Json:
    return {"field": name, "type": "quantitative", "title": title, **more}


def _name(name: str, title: str | None) -> Json:
    return {"field": name, "type": "nominal", "title": title}


def _bars(buckets: str, what: str) -> Json:
    """Stacked over time, one colour for each value."""
    encoding = {
        "x": WHEN,
        "y": _number("part.doc_count", what),
        "color": _name("part.key", None),
        "tooltip": [
            {"field": "key", "type": "temporal", "title": "from"},
            _name("part.key", "what"),
            _number("part.doc_count", what),
        ],
    }
    return {"transform": [_flat(buckets)], "mark": "bar", "encoding": encoding}


PARTS: Final = (50, 90, 99)


def _percentiles() -> Json:
    """One line for each part, over time."""
    names = [f"p{part}" for part in PARTS]
    values = [f"datum.seconds.values['{part}.0']" for part in PARTS]
    lines: list[Json] = [
        {"calculate": value, "as": name} for value, name in zip(values, names, strict=True)
    ]
    return {
        "transform": [*lines, {"fold": names, "as": ["part", "took"]}],
        "mark": {"type": "line", "point": True},
        "encoding": {"x": WHEN, "y": _number("took", "seconds"), "color": _name("part", None)},
    }


# -- the views --------------------------------------------------------------------------------

BUILD: Final = [RecordKind.BUILD.value]
FAILED: Final = [Result.FAILED.value, Result.REFUSED.value]

VIEWS: Final[tuple[Chart | Table, ...]] = (
    Chart(
        "warmpool-builds",
        "Instances built, and when",
        "Builds that came to an end, by result. refused: the cloud took no server.",
        {KIND: BUILD},
        _over_time(result=_terms(RESULT)),
        "aggregations.time.buckets",
        _bars("result", "builds"),
    ),
    Chart(
        "warmpool-errors",
        "Errors",
        "Why builds failed.",
        {KIND: BUILD, RESULT: FAILED},
        _over_time(reason=_terms(FIELDS[Facet.REASON])),
        "aggregations.time.buckets",
        _bars("reason", "builds"),
    ),
    Chart(
        "warmpool-build-time",
        "Build time",
        "From the WarmVM to Ready: half, 90 and 99 % of the builds within so many seconds.",
        {KIND: BUILD, RESULT: [Result.READY.value]},
        _over_time(seconds={"percentiles": {"field": SECONDS, "percents": list(PARTS)}}),
        "aggregations.time.buckets",
        _percentiles(),
    ),
    Chart(
        "warmpool-racks",
        "Racks available",
        "How many racks got instances.",
        {KIND: BUILD, RESULT: [Result.READY.value]},
        _over_time(racks={"cardinality": {"field": RACK}}),
        "aggregations.time.buckets",
        {
            "mark": {"type": "line", "interpolate": "step-after", "point": True},
            "encoding": {"x": WHEN, "y": _number("racks.value", "racks")},
        },
    ),
    Chart(
        "warmpool-rack-density",
        "Instance density per rack",
        "Instances that came to each rack and those that left their pool there.",
        {KIND: [*BUILD, RecordKind.REMOVAL.value]},
        {
            "size": 0,
            "aggs": {
                "rack": _terms(
                    RACK,
                    built={"filter": {"term": {RESULT: Result.READY.value}}},
                    left={"filter": {"term": {KIND: RecordKind.REMOVAL.value}}},
                )
            },
        },
        "aggregations.rack.buckets",
        {
            "transform": [
                {"calculate": "datum.built.doc_count", "as": "built"},
                {"calculate": "datum.left.doc_count", "as": "left their pool"},
                {"fold": ["built", "left their pool"], "as": ["what", "instances"]},
            ],
            "mark": "bar",
            "encoding": {
                "y": _name("key", None),
                "x": _number("instances", "instances", stack=None),
                "yOffset": {"field": "what"},
                "color": _name("what", None),
            },
        },
    ),
    Chart(
        "warmpool-hypervisor-density",
        "Instance density per hypervisor of each rack",
        "Instances that were built there.",
        {KIND: BUILD, RESULT: [Result.READY.value]},
        {
            "size": 0,
            "aggs": {"rack": _terms(RACK, hypervisor=_terms(FIELDS[Facet.HYPERVISOR]))},
        },
        "aggregations.rack.buckets",
        {
            "transform": [_flat("hypervisor")],
            "mark": "rect",
            "encoding": {
                "y": _name("key", None),
                "x": _name("part.key", None),
                "color": _number("part.doc_count", "instances"),
                "tooltip": [
                    _name("key", "rack"),
                    _name("part.key", "hypervisor"),
                    _number("part.doc_count", "instances"),
                ],
            },
        },
    ),
    Chart(
        "warmpool-leaders",
        "Leadership timeline",
        "Who led from when to when; a dot where a leadership began.",
        {KIND: [RecordKind.LEADERSHIP.value]},
        {
            "size": AT_ONCE,
            "sort": [{TIME: "desc"}],
            "_source": [TIME, FIELDS[Facet.IDENTITY], RESULT, SECONDS, "warmpool.epoch"],
        },
        "hits.hits",
        {
            "transform": [
                {"calculate": f"toDate(datum._source['{TIME}'])", "as": "until"},
                {"calculate": "datum._source.warmpool.seconds || 0", "as": "seconds"},
                {"calculate": "datum.until - 1000 * datum.seconds", "as": "from"},
                {"calculate": "datum._source.warmpool.identity", "as": "leader"},
            ],
            "layer": [
                {"mark": {"type": "bar", "height": 12}},
                {
                    "transform": [{"filter": "datum.seconds == 0"}],
                    "mark": {"type": "point", "filled": True, "size": 60},
                },
            ],
            "encoding": {
                "y": _name("leader", None),
                "x": {"field": "from", "type": "temporal", "title": None},
                "x2": {"field": "until"},
                "color": {**_name("leader", None), "legend": None},
                "tooltip": [
                    _name("leader", "leader"),
                    _number("seconds", "seconds"),
                    _number("_source.warmpool.epoch", "epoch"),
                ],
            },
        },
        width=48,
    ),
    Chart(
        "warmpool-claims",
        "Claims and their answers",
        "Bound, or why not.",
        {KIND: [RecordKind.CLAIM.value]},
        _over_time(reason=_terms(FIELDS[Facet.REASON])),
        "aggregations.time.buckets",
        _bars("reason", "claims"),
        width=48,
    ),
    Table(
        "warmpool-removals",
        "Removals",
        "Instances that left their pool: when, of what flavor, where, for which claim or why.",
        f"{KIND}:{RecordKind.REMOVAL.value}",
        (
            "cloud.machine.type",
            "cloud.availability_zone",
            FIELDS[Facet.POOL],
            FIELDS[Facet.VM],
            FIELDS[Facet.CLAIM],
            FIELDS[Facet.REASON],
            RACK,
        ),
    ),
    Table(
        "warmpool-failures",
        "Failed builds",
        "The last ones, in the cloud's words.",
        f"{KIND}:{RecordKind.BUILD.value} AND {RESULT}:({' OR '.join(FAILED)})",
        (
            FIELDS[Facet.POOL],
            FIELDS[Facet.VM],
            FIELDS[Facet.ZONE],
            FIELDS[Facet.REASON],
            "error.message",
            "warmpool.attempt",
        ),
    ),
)


# -- as Kibana has them -----------------------------------------------------------------------


def objects() -> list[Json]:
    """What Kibana imports, in an order in which each comes after what it refers to."""
    return [_data_view(), *map(_view, VIEWS), _dashboard()]


def text() -> str:
    """The file."""
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in objects())


def _saved(kind: str, ident: str, attributes: Json, references: Sequence[Json] = ()) -> Json:
    return {
        "id": ident,
        "type": kind,
        "coreMigrationVersion": _CORE,
        "typeMigrationVersion": _VERSIONS[kind],
        "attributes": attributes,
        "references": list(references),
    }


def _data_view() -> Json:
    named = {"title": STREAM, "name": "warmpool history", "timeFieldName": TIME}
    return _saved("index-pattern", DATA_VIEW, named)


def _view(view: Chart | Table) -> Json:
    return _visualization(view) if isinstance(view, Chart) else _search(view)


def _visualization(chart: Chart) -> Json:
    state = {
        "title": chart.title,
        "type": "vega",
        "aggs": [],
        "params": {"spec": json.dumps(spec(chart), indent=2)},
    }
    attributes = {
        "title": f"warmpool: {chart.title}",
        "description": chart.says,
        "visState": json.dumps(state),
        "uiStateJSON": "{}",
        "version": 1,
        "kibanaSavedObjectMeta": {"searchSourceJSON": "{}"},
    }
    return _saved("visualization", chart.ident, attributes)


def spec(chart: Chart) -> Json:
    """The chart in Vega-Lite, with what Elasticsearch is asked."""
    chosen = [{"terms": {name: list(values)}} for name, values in chart.where.items()]
    query = {
        "bool": {
            "must": ["%dashboard_context-must_clause%"],
            "filter": [
                "%dashboard_context-filter_clause%",
                {"range": {TIME: {"%timefilter%": True}}},
                *chosen,
            ],
            "must_not": ["%dashboard_context-must_not_clause%"],
        }
    }
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {
            "url": {"index": STREAM, "body": {"query": query, **chart.body}},
            "format": {"property": chart.rows},
        },
        **chart.drawn,
    }


def _search(table: Table) -> Json:
    where = "kibanaSavedObjectMeta.searchSourceJSON.index"
    source = {
        "query": {"query": table.query, "language": "lucene"},
        "filter": [],
        "indexRefName": where,
    }
    attributes = {
        "title": f"warmpool: {table.title}",
        "description": table.says,
        "columns": list(table.columns),
        "sort": [[TIME, "desc"]],
        "grid": {},
        "hideChart": True,
        "kibanaSavedObjectMeta": {"searchSourceJSON": json.dumps(source)},
    }
    refers = {"name": where, "type": "index-pattern", "id": DATA_VIEW}
    return _saved("search", table.ident, attributes, [refers])


def _dashboard() -> Json:
    panels, references = [], []
    for number, (view, grid) in enumerate(_laid_out(), 1):
        kind, name = _view(view)["type"], f"panel_{number}"
        panels.append(
            {
                "type": kind,
                "title": view.title,
                "gridData": {**grid, "i": str(number)},
                "panelIndex": str(number),
                "embeddableConfig": {"enhancements": {}},
                "panelRefName": name,
            }
        )
        references.append({"name": f"{number}:{name}", "type": kind, "id": view.ident})
    source = {"query": {"query": "", "language": "kuery"}, "filter": []}
    attributes = {
        "title": "warmpool",
        "description": "What the pools did: builds, errors, racks, claims, removals, leaders.",
        "panelsJSON": json.dumps(panels),
        "optionsJSON": json.dumps({"useMargins": True, "hidePanelTitles": False}),
        "timeRestore": True,
        "timeFrom": "now-7d",
        "timeTo": "now",
        "version": 1,
        "kibanaSavedObjectMeta": {"searchSourceJSON": json.dumps(source)},
    }
    return _saved("dashboard", DASHBOARD, attributes, references)


def _laid_out() -> Iterator[tuple[Chart | Table, Json]]:
    x, y = 0, 0
    for view in VIEWS:
        if x + view.width > COLUMNS:
            x, y = 0, y + HEIGHT
        yield view, {"x": x, "y": y, "w": view.width, "h": HEIGHT}
        x += view.width
