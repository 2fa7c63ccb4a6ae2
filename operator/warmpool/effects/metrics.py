"""Metrics in Prometheus' words. The only module that knows its client.

Labels come from closed sets, and from the names of pools: nothing that a cloud says, no VM and no
claim is ever one. What is counted by pool stays until the process ends, though the pool may not.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from warmpool.api.names import Reason
from warmpool.domain.history import (
    BuildRecord,
    ClaimRecord,
    LeadershipRecord,
    Record,
    ReleaseRecord,
    RemovalRecord,
    Result,
)
from warmpool.domain.ids import Ref
from warmpool.ports.metrics import Sample

POOL: Final = ("namespace", "pool")

QUICK: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 900)
"""Seconds: of claims, and of calls."""

SLOW: Final = (1, 2, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 450, 600, 900, 1800, 3600, 14400)
"""Seconds: of builds."""

LATE: Final = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5)
"""Seconds that the loop was late."""


class Metrics:
    """A `Meter` that Prometheus scrapes."""

    def __init__(self, sample: Callable[[], Sample]) -> None:
        """`sample` is called for each scrape, by whoever calls `scrape`."""
        self._sample = sample
        self._registry = CollectorRegistry()
        self._claims = self._counter(
            "warmpool_claims",
            "Claims answered. outcome: hit (bound at once), late (bound after waiting), miss.",
            ("outcome", "mode", "reason"),
        )
        self._claim_wait = self._histogram(
            "warmpool_claim_wait_seconds",
            "From the first sighting of a claim to its answer.",
            ("outcome", "mode"),
            QUICK,
        )
        self._pool_claims = self._counter(
            "warmpool_pool_claims",
            "Claims answered, once for each pool that they name.",
            (*POOL, "outcome"),
        )
        self._builds = self._counter(
            "warmpool_builds",
            "Builds that came to an end. result: ready, failed, refused (no server was built).",
            (*POOL, "result", "reason"),
        )
        self._build = self._histogram(
            "warmpool_build_seconds", "How long builds took.", ("result",), SLOW
        )
        self._phase = self._histogram(
            "warmpool_build_phase_seconds",
            "How long each phase of a build took.",
            ("phase",),
            (*QUICK, 1800),
        )
        self._refill = self._histogram(
            "warmpool_refill_seconds", "From when a pool was not full to when it was.", POOL, SLOW
        )
        self._removals = self._counter(
            "warmpool_removals", "Ready VMs that left their pool.", (*POOL, "reason")
        )
        self._releases = self._counter(
            "warmpool_releases", "VMs that claims gave back.", (*POOL, "policy")
        )
        self._terms = self._counter(
            "warmpool_leaderships", "Leaderships of this replica.", ("result",)
        )
        self._nova = self._histogram(
            "warmpool_nova_call_seconds",
            "Calls to clouds. outcome: ok, or the class of the error.",
            ("call", "outcome"),
            QUICK,
        )
        self._writes = self._histogram(
            "warmpool_api_write_seconds",
            "Writes to the API server. outcome: ok, or the class of the error.",
            ("verb", "kind", "outcome"),
            QUICK,
        )
        self._write = cache(self._writes.labels)  # there are few, and three writes to a claim
        self._batch = self._histogram(
            "warmpool_ledger_entries",
            "Bindings in flight at each write of the ledger.",
            (),
            (0, 1, 2, 5, 10, 20, 50, 100, 200, 500),
        )
        self._lag = self._histogram(
            "warmpool_loop_lag_seconds", "How late the event loop was.", (), LATE
        )

    def scrape(self) -> Callable[[], bytes]:
        """What renders all of this moment in Prometheus' text format, in any thread.

        With hundreds of pools that takes longer than claims are to wait for the event loop.
        """
        return partial(generate_latest, self._all())

    def described(self) -> dict[str, tuple[str, str]]:
        """Type and help of every metric, by the name that queries use."""
        return {_queried(m): (m.type, m.documentation) for m in self._all().collect()}

    # -- what is told -------------------------------------------------------------------------

    def record(self, record: Record) -> None:
        match record:
            case BuildRecord():
                self._built(record)
            case ClaimRecord():
                self._answered(record)
            case RemovalRecord(vm=vm, why=why):
                self._removals.labels(*_of(vm.pool), why).inc()
            case ReleaseRecord(vm=vm, policy=policy):
                self._releases.labels(*_of(vm.pool), policy).inc()
            case LeadershipRecord(result=result):
                self._terms.labels(result).inc()

    def nova_call(self, name: str, seconds: float, outcome: str) -> None:
        self._nova.labels(name, outcome).observe(seconds)

    def api_write(self, verb: str, kind: str, seconds: float, outcome: str) -> None:
        self._write(verb, kind, outcome).observe(seconds)

    def ledger(self, entries: int) -> None:
        self._batch.observe(entries)

    def refilled(self, pool: Ref, seconds: float) -> None:
        self._refill.labels(*_of(pool)).observe(seconds)

    def lag(self, seconds: float) -> None:
        self._lag.observe(seconds)

    def _built(self, build: BuildRecord) -> None:
        self._builds.labels(*_of(build.vm.pool), build.result, build.reason or "").inc()
        if build.took is not None:
            self._build.labels(build.result).observe(build.took)
        for phase in type(build.phases).__slots__:
            span = getattr(build.phases, phase)
            if span is not None:
                self._phase.labels(phase).observe(span)

    def _answered(self, claim: ClaimRecord) -> None:
        bound = "late" if claim.waited else "hit"
        outcome = bound if claim.result is Result.BOUND else "miss"
        self._claims.labels(outcome, claim.mode, claim.reason).inc()
        self._claim_wait.labels(outcome, claim.mode).observe(claim.wait)
        if claim.reason is Reason.POOL_NOT_FOUND:
            return  # whoever may claim names it: there is no end to such names
        for pool in {ask.pool for ask in claim.asks}:
            self._pool_claims.labels(*_of(pool), outcome).inc()

    # -- inside -------------------------------------------------------------------------------

    def _all(self) -> CollectorRegistry:
        """What was told so far, and gauges of this moment."""
        registry = CollectorRegistry()
        registry.register(_Gauges(self._sample()))
        registry.register(_Told(self._registry))
        return registry

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def _histogram(
        self, name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]
    ) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self._registry)


class _Told(Collector):
    """All of another registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        yield from self._registry.collect()


class _Gauges(Collector):
    """What is asked for when somebody scrapes."""

    def __init__(self, now: Sample) -> None:
        self._now = now

    def collect(self) -> Iterator[Metric]:
        now = self._now
        yield _gauge("warmpool_leader", "1: this replica leads.", float(now.leads))
        yield _gauge("warmpool_claims_waiting", "Claims without an answer.", now.claims_waiting)
        yield _gauge(
            "warmpool_history_spooled",
            "Records on their way to where history is kept.",
            now.spool_records,
        )
        lost = CounterMetricFamily(
            "warmpool_history_lost", "Records of history that had to be dropped."
        )
        lost.add_metric((), now.history_lost)
        yield lost
        yield GaugeMetricFamily(
            "warmpool_notices_waiting",
            "Topics that people have not been told of yet.",
            now.notices_waiting,
        )
        yield from _of_pools(now)


def _of_pools(now: Sample) -> Iterator[Metric]:
    wanted = GaugeMetricFamily(
        "warmpool_pool_wanted", "VMs that a pool shall have ready.", labels=POOL
    )
    states = GaugeMetricFamily("warmpool_pool_vms", "VMs by state.", labels=(*POOL, "state"))
    claimable = GaugeMetricFamily(
        "warmpool_pool_claimable",
        "VMs of the largest claim that a pool could serve. mode: any, hypervisors, racks.",
        labels=(*POOL, "mode"),
    )
    for pool in now.pools:
        wanted.add_metric(_of(pool.ref), pool.wanted)
        for state, count in pool.counts.items():
            states.add_metric((*_of(pool.ref), state), count)
        for mode, count in pool.claimable.items():
            claimable.add_metric((*_of(pool.ref), mode), count)
    yield from (wanted, states, claimable)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _of(pool: Ref) -> tuple[str, str]:
    return pool.namespace, pool.name


def _queried(metric: Metric) -> str:
    return f"{metric.name}_total" if metric.type == "counter" else metric.name
