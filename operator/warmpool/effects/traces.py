"""Traces for OpenTelemetry, made of the records that history gets, and told when they end.

The only module that knows its SDK, which is there only where `warmpool[traces]` was installed. A
claim's trace has the claim's uid for its id, a build's that of its WarmVM: whoever has the object
finds the trace. In a claim's trace each VM that it got is linked to the trace of its build.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Final
from uuid import UUID

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from warmpool.domain.history import (
    BuildRecord,
    ClaimRecord,
    Facet,
    Phases,
    Record,
    RemovalRecord,
    Result,
    facets,
)
from warmpool.effects.threads import Daemons

CLOSE_WITHIN: Final = 2.0
"""Seconds that the end of the process may take for what is still to be sent."""

EVERY: Final = 2000
"""Milliseconds between two batches."""

WAITING: Final = 8192
"""Spans that wait for a collector; beyond that new ones are dropped."""

TOLD: Final = (Facet.POOL, Facet.VM, Facet.CLAIM, Facet.ZONE, Facet.RACK, Facet.HYPERVISOR,
               Facet.FLAVOR, Facet.RESULT, Facet.REASON)  # fmt: skip

Attributes = Mapping[str, str | int]


class Traces:
    """Tells one collector."""

    def __init__(self, exporter: SpanExporter, *, identity: str) -> None:
        """`identity`: of the replica."""
        self._ids = _Ids()
        resource = Resource({"service.name": "warmpool", "service.instance.id": identity})
        self._provider = TracerProvider(resource=resource, id_generator=self._ids)
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter, max_queue_size=WAITING, schedule_delay_millis=EVERY)
        )
        self._tracer = self._provider.get_tracer("warmpool")
        self._threads = Daemons(1, "traces")

    def take(self, record: Record) -> None:
        """Take a record over. Returns at once: spans are made in a thread."""
        self._threads.submit(self._tell, record)

    async def close(self) -> None:
        """Send what is left, if that is quickly done."""
        loop = asyncio.get_running_loop()
        ending = loop.run_in_executor(self._threads, self._provider.shutdown)
        self._threads.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_WITHIN):
                await ending

    # -- in the thread ------------------------------------------------------------------------

    def _tell(self, record: Record) -> None:
        match record:
            case BuildRecord(took=float(took), vm=vm):
                self._ids.begin(vm.uid)
                began = record.at - timedelta(seconds=took)
                with self._span("build", record, began) as span:
                    _end_badly(span, record.result, record.reason or "")
                    self._phases(span, record.phases, began)
            case ClaimRecord(wait=wait, uid=uid):
                self._ids.begin(uid)
                asked: Attributes = {"warmpool.mode": record.mode, "warmpool.size": record.size}
                began = record.at - timedelta(seconds=wait)
                with self._span("claim", record, began, asked) as span:
                    _end_badly(span, record.result, record.reason)
            case RemovalRecord(claim_uid=uid, vm=vm) if uid:
                self._bound(record, uid, vm.uid)
            case _:
                pass

    @contextlib.contextmanager
    def _span(
        self, name: str, record: Record, began: datetime, more: Attributes | None = None
    ) -> Iterator[Span]:
        """The root of a trace."""
        told = {f"warmpool.{f.value}": v for f, v in facets(record).items() if f in TOLD}
        span = self._tracer.start_span(
            name, kind=SpanKind.INTERNAL, attributes=told | dict(more or {}), start_time=_ns(began)
        )
        yield span
        span.end(_ns(record.at))

    def _phases(self, root: Span, phases: Phases, began: datetime) -> None:
        """One after the other, until the first that was not seen."""
        inside = set_span_in_context(root)
        for name, seconds in asdict(phases).items():
            if seconds is None:
                return
            phase = self._tracer.start_span(name, context=inside, start_time=_ns(began))
            began += timedelta(seconds=seconds)
            phase.end(_ns(began))

    def _bound(self, record: RemovalRecord, claim_uid: str, vm_uid: str) -> None:
        """A VM of a claim: in the claim's trace, with a link to that of its build."""
        link = Link(_root(vm_uid))
        told = {f"warmpool.{f.value}": v for f, v in facets(record).items() if f in TOLD}
        span = self._tracer.start_span(
            "bind",
            context=set_span_in_context(NonRecordingSpan(_root(claim_uid))),
            attributes=told,
            links=[link],
            start_time=_ns(record.at),
        )
        span.end(_ns(record.at))


def open_traces(url: str, *, identity: str) -> Traces:
    """Traces to a collector that takes OTLP over HTTP at this address."""
    return Traces(OTLPSpanExporter(endpoint=url), identity=identity)


class _Ids(IdGenerator):
    """Ids of roots come from what they are about; those of other spans from chance."""

    def __init__(self) -> None:
        self._chance = RandomIdGenerator()
        self._root: SpanContext | None = None

    def begin(self, uid: str) -> None:
        """The next span is the root of this trace."""
        self._root = _root(uid)

    def generate_trace_id(self) -> int:
        return self._root.trace_id if self._root is not None else self._chance.generate_trace_id()

    def generate_span_id(self) -> int:
        if self._root is None:
            return self._chance.generate_span_id()
        root, self._root = self._root, None
        return root.span_id


def _root(uid: str) -> SpanContext:
    """Of the root of the trace about an object."""
    try:
        trace = UUID(uid).int
    except ValueError:
        trace = int.from_bytes(blake2b(uid.encode(), digest_size=16).digest(), "big")
    span = int.from_bytes(blake2b(uid.encode(), digest_size=8).digest(), "big")
    return SpanContext(trace, span, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _end_badly(span: Span, result: Result, reason: str) -> None:
    if result in (Result.FAILED, Result.REFUSED):
        span.set_status(Status(StatusCode.ERROR, reason))


def _ns(moment: datetime) -> int:
    return round(moment.timestamp() * 1000) * 1_000_000
