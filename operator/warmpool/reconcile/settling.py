"""Bindings that are published are written on their VMs: the last step, in nobody's way.

Whoever has got an entry settled may have it dropped from the ledger.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from warmpool.api.names import Kind
from warmpool.api.v1alpha1.ledger import LedgerEntry, LedgerVM
from warmpool.api.v1alpha1.vm import ClaimRef
from warmpool.domain.errors import (
    ClusterError,
    ClusterOutcomeUnknown,
    ClusterUnavailable,
    NotFound,
    TestFailed,
)
from warmpool.domain.facts import Vm
from warmpool.domain.ids import Ref, VmUid
from warmpool.ports.clock import Clock
from warmpool.ports.cluster import Cluster
from warmpool.reconcile.ledger import Ledger
from warmpool.reconcile.reading import is_another, read_vm
from warmpool.reconcile.retries import pause_after
from warmpool.reconcile.store import Store
from warmpool.reconcile.traffic import Traffic
from warmpool.reconcile.writing import bind_vm

log = logging.getLogger(__name__)

SETTLE_AT_ONCE: Final = 16
"""VMs being settled when no claim has been under way for a while..."""

SETTLE_ASIDE: Final = 2
"""...and while some are, or just were. A steady flow of claims would otherwise find all these
writes before it in the API server now and then: they have to be as steady."""

BETWEEN: Final = 0.05
"""Seconds after its claim's answer for which a VM waits for a moment in which no other is being
answered: of a flow of 100/s, each takes a fraction of the time to the next."""

SETTLE_WITHIN: Final = 1.5
"""Seconds after which settling waits no longer: the ledger is written whole each time, so a long
one makes every claim wait."""

BEHIND: Final = 2 * SETTLE_WITHIN
"""Seconds after which settling has fallen behind, as after a takeover beside a flow of claims: it
then goes on as if there were none. Each write of a ledger that grows takes longer, so it would fall
back ever farther."""


class Settler:
    """Settles the entries of one term, some at a time, when no claim waits for its status."""

    def __init__(  # noqa: PLR0913 - it is handed all that it works with
        self,
        store: Store,
        ledger: Ledger,
        cluster: Cluster,
        clock: Clock,
        *,
        traffic: Traffic,
        finished: Callable[[LedgerEntry], None],
    ) -> None:
        """`finished` is told of each entry that stands on its VMs."""
        self._store = store
        self._ledger = ledger
        self._cluster = cluster
        self._clock = clock
        self._traffic = traffic
        self._finished = finished
        self._unsettled: asyncio.Queue[tuple[LedgerEntry, float]] = asyncio.Queue()

    def add(self, entry: LedgerEntry) -> None:
        """It has just been published."""
        self._unsettled.put_nowait((entry, self._clock.monotonic()))

    async def run(self) -> None:
        """Write claimRefs until cancelled, a bounded number at a time.

        Raises:
            NotLeading: another leader has taken over.
        """
        slots, aside = asyncio.Semaphore(SETTLE_AT_ONCE), asyncio.Semaphore(SETTLE_ASIDE)
        async with asyncio.TaskGroup() as tasks:
            while True:
                entry, published = await self._unsettled.get()
                await slots.acquire()
                tasks.create_task(self._settle(entry, published, slots, aside))

    async def _settle(
        self,
        entry: LedgerEntry,
        published: float,
        slots: asyncio.Semaphore,
        aside: asyncio.Semaphore,
    ) -> None:
        """Settle an entry, in a slot of its own that it gives back.

        What is left is tried again later, and has no slot until then: others wait for those.
        """
        try:
            pause = await self._settle_vms(entry, published, aside)
        finally:
            slots.release()
        if pause is None:
            self._finished(entry)
            return
        await asyncio.sleep(pause)
        self._unsettled.put_nowait((entry, published))

    async def _settle_vms(
        self, entry: LedgerEntry, published: float, aside: asyncio.Semaphore
    ) -> float | None:
        """Write an entry's claimRefs; seconds until the rest is to be tried again. None: no rest.

        What one VM is refused for says nothing about the next; an API server that does not answer
        is not asked on.
        """
        pause = None
        for vm in entry.vms:
            await self._traffic.lull(published + BETWEEN - self._clock.monotonic())
            await self._traffic.calm(published + SETTLE_WITHIN)  # a burst may have begun meanwhile
            try:
                if self._traffic.is_quiet or self._clock.monotonic() >= published + BEHIND:
                    await self._settle_vm(entry, vm)
                else:
                    async with aside:
                        await self._settle_vm(entry, vm)
            except (ClusterUnavailable, ClusterOutcomeUnknown) as error:
                return pause_after(error)
            except ClusterError as error:
                log.error("VM %s/%s cannot be settled: %s", vm.namespace, vm.name, error)  # noqa: TRY400
                pause = pause_after(error)
        return pause

    async def _settle_vm(self, entry: LedgerEntry, vm: LedgerVM) -> None:
        """Write the claimRef of one VM.

        Raises:
            ClusterError: it could not be read or written.
        """
        claim = ClaimRef(
            namespace=entry.claim.namespace,
            name=entry.claim.name,
            uid=entry.claim.uid,
            request=vm.request,
        )
        known = self._store.vm(VmUid(vm.uid))
        while True:
            try:
                known = known or await self._look_up_vm(vm)
                if known.claim is not None and known.claim.uid == claim.uid:
                    return
                ref, patch = known.ref, bind_vm(known, claim)
                self._store.apply(Kind.WARM_VM, await self._cluster.patch(Kind.WARM_VM, ref, patch))
            except NotFound:
                return  # deleted by force, finalizer and all: lost like any VM lost later
            except TestFailed:
                known = None
            else:
                return

    async def _look_up_vm(self, vm: LedgerVM) -> Vm:
        """A VM as it is now, and was while its entry stood in the ledger; NotFound if it is gone.

        Raises:
            NotLeading: another leader has finished the entry, and the VM may be anybody's.
        """
        ref = Ref(vm.namespace, vm.name)
        body = await self._cluster.get(Kind.WARM_VM, ref)
        await self._ledger.confirm()
        self._store.apply(Kind.WARM_VM, body)
        if is_another(body, vm.uid):
            raise NotFound(f"VM {ref} is another one now")
        return read_vm(body)
