"""Traces out of records: whose they are, how long each part took, what is linked to what."""

from uuid import UUID

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from builders import NOW, POOL
from doubles.history import a_build, a_machine
from doubles.silent import ends_within, silent_server
from warmpool.api.names import Reason
from warmpool.domain.history import (
    AskRecord,
    ClaimRecord,
    LeadershipRecord,
    Phases,
    Record,
    RemovalRecord,
    Result,
)
from warmpool.domain.ids import Ref
from warmpool.effects.traces import Traces, open_traces

CLAIM = "7f0c2f0e-0c5b-4d6e-9d0a-1f0e5a3b9c11"


def a_claim(result: Result = Result.BOUND, reason: Reason = Reason.BOUND) -> ClaimRecord:
    ask = AskRecord("data", POOL, 2)
    claim = Ref("search", "logs-7")
    shape = ("RackAware", "Fail", result, reason, "", 0.25)
    return ClaimRecord(f"claim:{CLAIM}", NOW, claim, CLAIM, (ask,), *shape)


def a_removal(number: int) -> RemovalRecord:
    claim = Ref("search", "logs-7")
    return RemovalRecord(f"r:{number}", NOW, a_machine(number), Reason.BOUND, claim, CLAIM, 60.0)


async def spans_of(*records: Record) -> list[ReadableSpan]:
    exporter = InMemorySpanExporter()
    traces = Traces(exporter, identity="replica-a")
    for record in records:
        traces.take(record)
    await traces.close()
    return list(exporter.get_finished_spans())


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


async def test_a_build_has_its_phases_one_after_the_other() -> None:
    build = a_build(took=60.32, phases=Phases(0.0, 0.3, 2.0, 50.0, 8.0, 0.02))
    *phases, root = await spans_of(build)
    assert (root.name, seconds(root)) == ("build", pytest.approx(60.32))
    assert root.end_time == round(NOW.timestamp() * 1e9)
    assert [(p.name, round(seconds(p), 3)) for p in phases] == [
        ("queued", 0.0),
        ("post", 0.3),
        ("scheduling", 2.0),
        ("spawning", 50.0),
        ("reachable", 8.0),
        ("ready", 0.02),
    ]
    assert phases[0].start_time == root.start_time
    assert phases[-1].end_time == root.end_time
    assert root.context is not None
    assert {p.parent.span_id for p in phases if p.parent} == {root.context.span_id}
    assert root.attributes is not None
    assert root.attributes["warmpool.pool"] == "search/data"
    assert root.resource.attributes["service.instance.id"] == "replica-a"


async def test_a_phase_that_was_not_seen_ends_them() -> None:
    *phases, _ = await spans_of(a_build(phases=Phases(0.1, 0.2, None, 3.0)))
    assert [p.name for p in phases] == ["queued", "post"]


async def test_a_build_whose_beginning_nobody_saw_has_none() -> None:
    assert await spans_of(a_build(took=None)) == []
    assert await spans_of(LeadershipRecord("l", NOW, "a", 1, Result.BEGAN)) == []


async def test_a_claim_has_its_uid_for_the_id_of_its_trace_and_its_vms_in_it() -> None:
    build, claim, bind = await spans_of(a_build(1, phases=Phases()), a_claim(), a_removal(1))
    assert claim.context is not None
    assert claim.context.trace_id == UUID(CLAIM).int
    assert seconds(claim) == pytest.approx(0.25)
    assert claim.attributes is not None
    assert claim.attributes["warmpool.size"] == 2
    assert bind.parent is not None
    assert (bind.parent.trace_id, bind.parent.span_id) == (
        claim.context.trace_id,
        claim.context.span_id,
    )
    assert build.context is not None
    (link,) = bind.links
    assert (link.context.trace_id, link.context.span_id) == (
        build.context.trace_id,
        build.context.span_id,
    )


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (a_claim(Result.REFUSED, Reason.NOT_ENOUGH_RACKS), "NotEnoughRacks"),
        (a_build(result=Result.FAILED, reason=Reason.BUILD_FAULT, phases=Phases()), "BuildFault"),
    ],
)
async def test_what_went_wrong_is_marked(record: Record, why: str) -> None:
    (span,) = await spans_of(record)
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, why)


async def test_a_collector_is_told_over_http() -> None:
    told: list[ExportTraceServiceRequest] = []

    async def take(request: web.Request) -> web.Response:
        told.append(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    async with TestServer(app) as server:
        traces = open_traces(str(server.make_url("/v1/traces")), identity="replica-a")
        traces.take(a_claim())
        await traces.close()
    (spans,) = [s.spans for t in told for r in t.resource_spans for s in r.scope_spans]
    assert [span.name for span in spans] == ["claim"]
    assert spans[0].trace_id.hex() == CLAIM.replace("-", "")


async def test_a_collector_that_never_answers_does_not_hold_up_the_end() -> None:
    with silent_server() as url:
        await ends_within(
            9,  # a request may take ten, and is tried again
            "import asyncio\n"
            "from doubles.history import a_build\n"
            "from warmpool.effects.traces import open_traces\n"
            "async def main():\n"
            f"    traces = open_traces('{url}/v1/traces', identity='replica-a')\n"
            "    traces.take(a_build())\n"
            "    print('ending', flush=True)\n"
            "    await traces.close()\n"
            "asyncio.run(main())\n",
        )
