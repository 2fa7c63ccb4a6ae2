"""The workers of all pools: started, woken, told what claims want of them."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Final

from warmpool.domain.ids import Ref, VmUid
from warmpool.reconcile.pools import PoolWorker
from warmpool.reconcile.store import Store
from warmpool.reconcile.vitals import TURN_EVERY, Beat, Vitals

WORKED_WITHIN: Final = 600.0
"""Seconds within which a worker turns: it may look up a handful of names in a slow cloud, and each
may take 90."""


class Pools:
    """A worker for each pool that there is."""

    def __init__(
        self, store: Store, new_worker: Callable[[Ref], PoolWorker], vitals: Vitals
    ) -> None:
        self._vitals = vitals
        self._store = store
        self._new_worker = new_worker
        self._workers: dict[Ref, PoolWorker] = {}
        self._changed = asyncio.Event()
        self._targets: dict[Ref, int] = {}

    def want(self, targets: Mapping[Ref, int]) -> None:
        """Waiting claims have pools build: so many unclaimed VMs each, and no more elsewhere."""
        before, self._targets = self._targets, dict(targets)
        for pool in before.keys() | targets.keys():
            if before.get(pool) != targets.get(pool):
                self.wake(pool)

    def wanted(self, pool: Ref) -> int:
        """What `want` was told of a pool."""
        return self._targets.get(pool, 0)

    def wake(self, pool: Ref, vm: VmUid | None = None) -> None:
        """Something about a pool, or one VM of it, changed; the pool may be new."""
        worker = self._workers.get(pool)
        if worker is not None:
            worker.wake(vm)
        else:
            self._changed.set()

    def look_at_all(self, pool: Ref) -> None:
        """Anything about the VMs of a pool may have changed."""
        worker = self._workers.get(pool)
        if worker is not None:
            worker.look_at_all()

    async def run(self, beat: Beat) -> None:
        """Start workers until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                beat()
                for pool in self._store.pools():
                    if pool.ref not in self._workers:
                        worker = self._workers[pool.ref] = self._new_worker(pool.ref)
                        tasks.create_task(self._work(pool.ref, worker), name=f"pool-{pool.ref}")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TURN_EVERY):
                        await self._changed.wait()
                self._changed.clear()

    async def _work(self, ref: Ref, worker: PoolWorker) -> None:
        try:
            await self._vitals.watch(f"pool {ref}", worker.run, WORKED_WITHIN)
        finally:
            del self._workers[ref]
            self._changed.set()
