"""Finds WarmVMs that no worker looks at, since their pool is gone.

A pool is kept by our finalizer until its last WarmVM is gone. But a former leader's creation may be
under way for long, and arrive when the pool has gone meanwhile. Nobody would ever take such an
object's finalizer off, and it would keep its namespace from going, too.
"""

import asyncio
import contextlib
import logging
from typing import Final

from warmpool.api.names import VM_FINALIZER, Kind
from warmpool.domain.errors import ClusterError, NotFound
from warmpool.domain.facts import Vm
from warmpool.domain.ids import VmUid
from warmpool.ports.clock import Clock
from warmpool.ports.cluster import Cluster
from warmpool.reconcile.finalizing import let_go
from warmpool.reconcile.store import Store
from warmpool.reconcile.vitals import Beat

log = logging.getLogger(__name__)

LOOK_EVERY: Final = 20.0
"""Seconds between looks."""

CONDEMN_AFTER: Final = 60.0
"""Seconds between the first sighting of an orphan and its end: a watch may show a pool late."""


class Orphans:
    """Looks while this replica leads."""

    def __init__(self, store: Store, cluster: Cluster, clock: Clock) -> None:
        self._store = store
        self._cluster = cluster
        self._clock = clock
        self._seen: dict[VmUid, float] = {}

    async def run(self, beat: Beat) -> None:
        """Look until cancelled."""
        while True:
            beat()
            await asyncio.sleep(LOOK_EVERY)
            await self.look()

    async def look(self) -> None:
        """One look at all WarmVMs."""
        now = self._clock.monotonic()
        orphans = [vm for vm in self._store.vms() if self._is_orphan(vm)]
        self._seen = {vm.uid: self._seen.get(vm.uid, now) for vm in orphans}
        for vm in orphans:
            if now - self._seen[vm.uid] < CONDEMN_AFTER:
                continue
            try:
                await self._end(vm)
            except ClusterError as error:
                log.info("VM %s, whose pool is gone: %s", vm.ref, error)

    def _is_orphan(self, vm: Vm) -> bool:
        """One that is nobody's and has never had a server, as far as is known.

        Whoever has taken our finalizer off a pool by force may have left others behind. What is to
        become of their servers is for people to say.
        """
        known = vm.server is not None or self._store.owner(vm) is not None
        return self._store.pool(vm.pool) is None and not known

    async def _end(self, vm: Vm) -> None:
        """Delete it, if the API server has no such pool either."""
        with contextlib.suppress(NotFound):
            await self._cluster.get(Kind.WARM_POOL, vm.pool)
            return
        log.warning("VM %s is of a pool that is gone: deleting it", vm.ref)
        if not vm.deleting:
            await self._cluster.delete(Kind.WARM_VM, vm.ref, uid=vm.uid, version=vm.version)
        await let_go(self._cluster, Kind.WARM_VM, vm.ref, vm.uid, VM_FINALIZER)
