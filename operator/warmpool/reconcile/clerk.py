"""Writes on VMFlavors what they came to for the pools that use them. Only the leader has one."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from warmpool.api.names import Kind
from warmpool.api.v1alpha1 import VMFlavor
from warmpool.domain.catalogue import Resolution
from warmpool.domain.errors import ClusterError, NotFound, TestFailed
from warmpool.domain.ids import Ref
from warmpool.planning.catalogue import flavor_status
from warmpool.ports.clock import Clock
from warmpool.ports.cluster import Cluster
from warmpool.reconcile.store import Store
from warmpool.reconcile.vitals import Beat
from warmpool.reconcile.writing import put_status

log = logging.getLogger(__name__)

WRITE_EVERY: Final = 1.0
"""Seconds between two looks at what is to be written, while there is something."""

LOOK_EVERY: Final = 30.0
"""Seconds between looks at whether pools have gone."""


class Clerk:
    """Keeps the statuses of VMFlavors."""

    def __init__(self, store: Store, cluster: Cluster, clock: Clock) -> None:
        self._store = store
        self._cluster = cluster
        self._clock = clock
        self._known: dict[Ref, Resolution] = {}
        self._woken = asyncio.Event()

    def note(self, resolution: Resolution) -> None:
        """A pool has looked an entry up."""
        if self._known.get(resolution.pool) != resolution:
            self._known[resolution.pool] = resolution
            self._woken.set()

    def wake(self) -> None:
        """A VMFlavor has changed."""
        self._woken.set()

    async def run(self, beat: Beat) -> None:
        """Write until cancelled."""
        while True:
            beat()
            self._woken.clear()
            self._forget()
            for flavor in self._store.flavors.all():
                try:
                    await self._write(flavor)
                except ClusterError as error:
                    log.info("VMFlavor %s: %s", flavor.metadata.name, error)
            await asyncio.sleep(WRITE_EVERY)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._woken.wait()

    def _forget(self) -> None:
        """Let go of what pools say that are gone, or name another entry by now."""
        users = dict(self._users())
        self._known = {p: one for p, one in self._known.items() if users.get(p) == one.name}

    def _users(self) -> Iterator[tuple[Ref, str]]:
        for pool in self._store.pools():
            if pool.spec.template.flavor_ref is not None:
                yield pool.ref, pool.spec.template.flavor_ref.name

    async def _write(self, flavor: VMFlavor) -> None:
        name, meta = flavor.metadata.name, flavor.metadata
        pools = [ref for ref, used in self._users() if used == name]
        told = [self._known[ref] for ref in pools if ref in self._known]
        silent = frozenset(ref for ref in pools if ref not in self._known)
        now = self._clock.now()
        if silent and not told and not flavor.status.resolved:
            return  # it is used, and nobody has looked it up yet
        status = flavor_status(
            flavor.status, told, silent=silent, generation=meta.generation, now=now
        )
        if status == flavor.status:
            return
        with suppress(NotFound, TestFailed):
            patch = put_status(meta.uid, status)
            body = await self._cluster.patch(Kind.VM_FLAVOR, Ref("", name), patch, status=True)
            self._store.apply(Kind.VM_FLAVOR, body)
