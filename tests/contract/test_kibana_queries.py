"""Every query in Kibana's saved objects, asked of a real Elasticsearch with a history in it."""

import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import elasticsearch
import pytest

from builders import NOW
from doubles.history import a_history
from warmpool.domain.history import (
    BuildRecord,
    ClaimRecord,
    LeadershipRecord,
    Record,
    RemovalRecord,
    Result,
)
from warmpool.effects.elastic import ElasticHistory, ElasticLogin
from warmpool.tools.crds import ROOT
from warmpool.tools.dashboards import KIBANA

pytestmark = pytest.mark.integration

Json = dict[str, Any]
RECORDS = a_history(3000)
OBJECTS = {
    each["id"]: each
    for each in map(json.loads, (ROOT / KIBANA).read_text(encoding="utf-8").splitlines())
}
PUT_IN: Json = {
    "%timefilter%": {
        "gte": (NOW - timedelta(days=40)).isoformat(),
        "lte": (NOW + timedelta(days=1)).isoformat(),
    },
    "%autointerval%": "12h",
}
"""What Kibana puts in: the time that is looked at, and how it is divided."""


def filled_in(part: Any) -> Any:
    """A query as Kibana sends it, from a dashboard without filters."""
    if isinstance(part, dict):
        for name, value in PUT_IN.items():
            if name in part:
                return value
        return {key: filled_in(value) for key, value in part.items()}
    if isinstance(part, list):
        return [filled_in(v) for v in part if not str(v).startswith("%dashboard_context")]
    return part


@pytest.fixture
async def ask(elasticsearch_url: str) -> AsyncIterator[Callable[..., Json]]:
    stream = f"kibana-{uuid.uuid4().hex}"
    history = ElasticHistory(ElasticLogin((elasticsearch_url,)), stream, max_age=None, at_once=True)
    for first in range(0, len(RECORDS), 500):
        await history.append(RECORDS[first : first + 500])
    client = elasticsearch.Elasticsearch(elasticsearch_url)

    def asked(**body: Any) -> Json:
        return dict(client.search(index=stream, **body).body)

    yield asked
    client.close()
    await history.close()


def expected(ident: str) -> Counter[str]:
    """What a view counts, from the records themselves."""
    return Counter(filter(None, (COUNTED[ident](record) for record in RECORDS)))


def _built(record: Record, name: Callable[[BuildRecord], str]) -> str:
    ready = isinstance(record, BuildRecord) and record.result is Result.READY
    return name(record) if ready and isinstance(record, BuildRecord) else ""


COUNTED: dict[str, Callable[[Record], str]] = {
    "warmpool-builds": lambda r: r.result if isinstance(r, BuildRecord) else "",
    "warmpool-errors": lambda r: (r.reason or "") if isinstance(r, BuildRecord) else "",
    "warmpool-claims": lambda r: r.reason if isinstance(r, ClaimRecord) else "",
    "warmpool-hypervisor-density": lambda r: _built(r, lambda b: b.vm.place.hypervisor),
    "warmpool-rack-density": lambda r: _built(r, lambda b: b.vm.place.rack),
}


def counted(ident: str, rows: list[Json]) -> Counter[str]:
    """The same from what Elasticsearch answered."""
    if ident == "warmpool-rack-density":
        return Counter({row["key"]: row["built"]["doc_count"] for row in rows})
    found: Counter[str] = Counter()
    for row in rows:
        (parts,) = (v["buckets"] for v in row.values() if isinstance(v, dict) and "buckets" in v)
        found.update({part["key"]: part["doc_count"] for part in parts})
    return found


async def test_every_query_is_answered_with_what_happened(ask: Callable[..., Json]) -> None:
    tried = set()
    for ident, saved in OBJECTS.items():
        if saved["type"] == "visualization":
            spec = json.loads(json.loads(saved["attributes"]["visState"])["params"]["spec"])
            rows: Any = ask(**_parameters(filled_in(spec["data"]["url"]["body"])))
            for step in spec["data"]["format"]["property"].split("."):
                rows = rows[step]
            assert rows, ident
            if ident in COUNTED:
                assert counted(ident, rows) == expected(ident), ident
            else:
                LOOKED_AT[ident](rows)
        elif saved["type"] == "search":
            source = json.loads(saved["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])
            query = {"query_string": {"query": source["query"]["query"]}}
            found = ask(query=query, size=0, track_total_hits=True)["hits"]["total"]["value"]
            assert found == sum(map(LISTED[ident], RECORDS)), ident
        else:
            continue
        tried.add(ident)
    assert tried == COUNTED.keys() | LOOKED_AT.keys() | LISTED.keys()


def _parameters(body: Json) -> Json:
    return {("source" if key == "_source" else key): value for key, value in body.items()}


def _times(rows: list[Json]) -> None:
    built = [row["seconds"]["values"] for row in rows if row["doc_count"]]
    assert built
    assert all(0 < each["50.0"] <= each["90.0"] <= each["99.0"] for each in built)


def _racks(rows: list[Json]) -> None:
    assert 1 <= max(row["racks"]["value"] for row in rows) <= 10


def _leaders(rows: list[Json]) -> None:
    records = [record for record in RECORDS if isinstance(record, LeadershipRecord)]
    assert len(rows) == len(records)
    told = {row["_source"]["warmpool"]["identity"] for row in rows}
    assert told == {record.identity for record in records}


LOOKED_AT: dict[str, Callable[[list[Json]], None]] = {
    "warmpool-build-time": _times,
    "warmpool-racks": _racks,
    "warmpool-leaders": _leaders,
}

LISTED: dict[str, Callable[[Record], bool]] = {
    "warmpool-removals": lambda r: isinstance(r, RemovalRecord),
    "warmpool-failures": lambda r: isinstance(r, BuildRecord) and r.result is not Result.READY,
}
