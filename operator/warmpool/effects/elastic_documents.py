"""Records as Elasticsearch documents, with the names of the Elastic Common Schema where it has any.

The record itself is in `event.original`, as text; everything else is there to be searched. What
the schema has no name for stands under `warmpool`, the facets among it.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from warmpool.domain.history import (
    BuildRecord,
    ClaimRecord,
    Facet,
    LeadershipRecord,
    Machine,
    Record,
    ReleaseRecord,
    RemovalRecord,
    Result,
    facets,
    span_of,
)
from warmpool.domain.history_text import to_text

ECS_VERSION: Final = "8.17.0"

DATASET: Final = "warmpool.history"

FIELDS: Final[Mapping[Facet, str]] = {facet: f"warmpool.{facet.value}" for facet in Facet}
"""Where each facet stands."""

TIME: Final = "@timestamp"
IDENT: Final = "event.id"
ORIGINAL: Final = "event.original"

_KEYWORD: Final = {"type": "keyword", "ignore_above": 8191}
_TEXT: Final = {"type": "text"}
_NUMBER: Final = {"type": "double"}
_PHASES: Final = ("queued", "post", "scheduling", "spawning", "reachable", "ready")


def mappings() -> dict[str, Any]:
    """The fields that are searched. Others are kept, and not."""

    def some(*names: str, **more: Any) -> dict[str, Any]:
        return {"properties": dict.fromkeys(names, _KEYWORD) | more}

    return {
        "dynamic": False,
        "properties": {
            TIME: {"type": "date"},
            "message": _TEXT,
            "ecs": some("version"),
            "event": some(
                "id",
                "kind",
                "dataset",
                "action",
                "outcome",
                "reason",
                duration={"type": "long"},
                original={"type": "keyword", "index": False, "doc_values": False},
            ),
            "error": some("code", message=_TEXT),
            "cloud": some(
                "region", "availability_zone", instance=some("id", "name"), machine=some("type")
            ),
            "orchestrator": some("namespace", resource=some("id", "name", "type")),
            "warmpool": some(
                *(facet.value for facet in Facet),
                "mode",
                "blame",
                "image",
                "policy",
                seconds=_NUMBER,
                size={"type": "integer"},
                attempt={"type": "integer"},
                epoch={"type": "long"},
                phases={"properties": dict.fromkeys(_PHASES, _NUMBER)},
            ),
        },
    }


def document(record: Record) -> dict[str, Any]:
    """A record as a document. Its id is the record's."""
    span, told = span_of(record), _own(record)
    event: dict[str, Any] = {
        "id": record.id,
        "kind": "event",
        "dataset": DATASET,
        "action": record.kind.value,
        "original": to_text(record),
        **told.pop("event", {}),
    }
    own: dict[str, Any] = {facet.value: value for facet, value in facets(record).items()}
    if span is not None:
        event["duration"] = round(span * 1e9)
        own["seconds"] = span
    return {
        TIME: record.at.isoformat(timespec="milliseconds"),
        "ecs": {"version": ECS_VERSION},
        "event": event,
        **told,
        "warmpool": own | told.pop("warmpool", {}),
    }


def _own(record: Record) -> dict[str, Any]:
    match record:
        case BuildRecord():
            return _of_build(record)
        case RemovalRecord(vm=vm, why=why):
            return {"event": {"reason": why}, **_of_vm(vm)}
        case ReleaseRecord(vm=vm, policy=policy):
            return {**_of_vm(vm), "warmpool": {"policy": policy}}
        case ClaimRecord():
            return _of_claim(record)
        case LeadershipRecord(epoch=epoch):
            return {"warmpool": {"epoch": epoch}}


def _of_build(build: BuildRecord) -> dict[str, Any]:
    failed = build.result is not Result.READY
    phases = {name: took for name, took in asdict(build.phases).items() if took is not None}
    return {
        "event": {"outcome": "failure" if failed else "success"},
        **({"error": {"code": build.reason, "message": build.message}} if failed else {}),
        **_of_vm(build.vm),
        "warmpool": {
            "attempt": build.attempt,
            "blame": build.blame,
            "image": build.image,
            "phases": phases,
        },
    }


def _of_claim(claim: ClaimRecord) -> dict[str, Any]:
    refused = claim.result is Result.REFUSED
    return {
        "message": claim.message,
        "event": {"outcome": "failure" if refused else "success", "reason": claim.reason},
        **({"error": {"code": claim.reason, "message": claim.message}} if refused else {}),
        "orchestrator": {
            "namespace": claim.claim.namespace,
            "resource": {"id": claim.uid, "name": claim.claim.name, "type": "VMClaim"},
        },
        "warmpool": {"size": claim.size, "mode": claim.mode},
    }


def _of_vm(vm: Machine) -> dict[str, Any]:
    return {
        "cloud": {
            "region": vm.place.region,
            "availability_zone": vm.place.zone,
            "instance": {"id": vm.server, "name": vm.ref.name},
            "machine": {"type": vm.flavor},
        },
        "orchestrator": {
            "namespace": vm.ref.namespace,
            "resource": {"id": vm.uid, "name": vm.ref.name, "type": "WarmVM"},
        },
    }
