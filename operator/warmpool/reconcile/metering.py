"""Measures what no record tells: writes to the API server, pools that fill, the loop's lag."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

from warmpool.api.names import ClaimPhase, Kind
from warmpool.domain.ids import Ref
from warmpool.ports.clock import Clock
from warmpool.ports.cluster import Body, Cluster, PatchOp, Snapshot
from warmpool.ports.metrics import Meter, PoolSample
from warmpool.reconcile.store import Change, Store

T = TypeVar("T")

LAG_EVERY: Final = 0.5
"""Seconds between two looks whether the loop is late."""


class Metered:
    """A `Cluster` whose writes are measured."""

    def __init__(self, cluster: Cluster, meter: Meter, clock: Clock) -> None:
        self._cluster = cluster
        self._meter = meter
        self._clock = clock

    async def list(self, kind: Kind, *, pace: float = 0.0) -> Snapshot:
        return await self._cluster.list(kind, pace=pace)

    async def get(self, kind: Kind, ref: Ref) -> Body:
        return await self._cluster.get(kind, ref)

    async def create(self, kind: Kind, body: Body) -> Body:
        return await self._timed("create", kind, self._cluster.create(kind, body))

    async def patch(
        self,
        kind: Kind,
        ref: Ref,
        ops: Sequence[PatchOp],
        *,
        status: bool = False,
        brief: bool = False,
    ) -> Body:
        patching = self._cluster.patch(kind, ref, ops, status=status, brief=brief)
        return await self._timed("patch status" if status else "patch", kind, patching)

    async def replace(self, kind: Kind, body: Body) -> Body:
        if kind is Kind.BINDING_LEDGER:
            self._meter.ledger(len(body["spec"].get("entries", ())))
        return await self._timed("replace", kind, self._cluster.replace(kind, body))

    async def delete(self, kind: Kind, ref: Ref, *, uid: str, version: int) -> None:
        deleting = self._cluster.delete(kind, ref, uid=uid, version=version)
        await self._timed("delete", kind, deleting)

    async def namespaces(self) -> Snapshot:
        return await self._cluster.namespaces()

    async def event(self, namespace: str, body: Body) -> None:
        await self._timed("create", "Event", self._cluster.event(namespace, body))

    async def secret(self, ref: Ref) -> Mapping[str, bytes]:
        return await self._cluster.secret(ref)

    async def config_map(self, ref: Ref) -> Mapping[str, str]:
        return await self._cluster.config_map(ref)

    async def _timed(self, verb: str, kind: str, writing: Awaitable[T]) -> T:
        began, outcome = self._clock.monotonic(), "ok"
        try:
            return await writing
        except BaseException as error:
            outcome = type(error).__name__
            raise
        finally:
            self._meter.api_write(verb, kind, self._clock.monotonic() - began, outcome)


class Refills:
    """How long pools take to be full again. To be told of every change in a store."""

    def __init__(
        self, store: Store, clock: Clock, meter: Meter, counts: Callable[[], bool]
    ) -> None:
        """`counts`: whether this replica's measurements count, of all that see the same."""
        self._store = store
        self._clock = clock
        self._meter = meter
        self._counts = counts
        self._since: dict[Ref, float] = {}

    def changed(self, change: Change) -> None:
        if change.kind is not Kind.WARM_POOL or change.pool is None:
            return
        pool = self._store.pool(change.pool)
        if pool is None or pool.deleting or pool.spec.paused:
            self._since.pop(change.pool, None)
        elif pool.status.ready < pool.spec.replicas:
            self._since.setdefault(pool.ref, self._clock.monotonic())
        elif (since := self._since.pop(pool.ref, None)) is not None and self._counts():
            self._meter.refilled(pool.ref, self._clock.monotonic() - since)


async def measure_lag(clock: Clock, meter: Meter) -> None:
    """Measure until cancelled."""
    while True:
        began = clock.monotonic()
        await asyncio.sleep(LAG_EVERY)
        meter.lag(max(0.0, clock.monotonic() - began - LAG_EVERY))


def pool_samples(store: Store) -> tuple[PoolSample, ...]:
    """All pools, as their statuses say."""
    return tuple(
        PoolSample(
            ref=pool.ref,
            wanted=pool.spec.replicas,
            counts={
                "ready": pool.status.ready,
                "building": pool.status.building,
                "claimed": pool.status.claimed,
                "failed": pool.status.failed,
                "retained": pool.status.retained,
            },
            claimable={
                "any": pool.status.claimable.any,
                "hypervisors": pool.status.claimable.distinct_hypervisors,
                "racks": pool.status.claimable.distinct_racks,
            },
        )
        for pool in store.pools()
    )


def claims_waiting(store: Store) -> int:
    """Claims without an answer."""
    return sum(claim.phase is ClaimPhase.PENDING for claim in store.open_claims())
