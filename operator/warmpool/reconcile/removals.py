"""Giving up VMs that a claim could have: committed like a binding, and only then deleted.

A DELETE that is only conditional on the object's version can be overtaken: a leader that stalls
with it on the wire is replaced, the next one binds the VM, and until the binding is settled nothing
on the VM has changed. So the ledger says first that the VM goes; a former leader cannot write that
any more, and no later one binds what it reads there.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from warmpool.api.names import Kind
from warmpool.api.v1alpha1.ledger import LedgerRemoval
from warmpool.domain.errors import (
    ClusterError,
    ClusterOutcomeUnknown,
    ClusterUnavailable,
    Conflict,
    NotFound,
)
from warmpool.domain.facts import Vm
from warmpool.domain.ids import Ref, VmUid
from warmpool.ports.cluster import Cluster
from warmpool.reconcile.reading import is_another, read_vm
from warmpool.reconcile.retries import pause_after
from warmpool.reconcile.store import Store

log = logging.getLogger(__name__)

AT_ONCE: Final = 64
"""Removals being attempted. Those that wait for another attempt keep nobody else waiting."""


class Removals:
    """VMs on their way out. The binder commits them, since it alone writes the ledger."""

    def __init__(self, store: Store, cluster: Cluster, wake: Callable[[], None]) -> None:
        """`wake`: some wait to be committed."""
        self._store = store
        self._cluster = cluster
        self._wake = wake
        self._waiting: list[tuple[LedgerRemoval, asyncio.Event]] = []
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._left: asyncio.Queue[tuple[LedgerRemoval, float]] = asyncio.Queue()

    async def give_up(self, vm: Vm) -> None:
        """Have it committed that a withheld VM goes, then delete it.

        Returns when that was attempted; if in vain, `carry_out_all` goes on with it.
        """
        removal = LedgerRemoval(namespace=vm.ref.namespace, name=vm.ref.name, uid=vm.uid)
        committed = asyncio.Event()
        self._waiting.append((removal, committed))
        self._wake()
        await committed.wait()
        pause = await self._attempt(removal)
        if pause is not None:
            self._left.put_nowait((removal, pause))

    def waiting(self) -> list[LedgerRemoval]:
        """What the next write of the ledger is to name."""
        return [removal for removal, _ in self._waiting]

    def committed(self, removals: Iterable[LedgerRemoval]) -> None:
        """They stand in the ledger: from here on they may be deleted."""
        written = {removal.uid for removal in removals}
        for removal, committed in self._waiting:
            if removal.uid in written:
                committed.set()
        self._waiting = [each for each in self._waiting if each[0].uid not in written]

    def over(self, removals: Iterable[LedgerRemoval]) -> set[VmUid]:
        """Those that no claim could get any more without the ledger's word: deleted, or gone."""
        return {VmUid(removal.uid) for removal in removals if self._is_over(VmUid(removal.uid))}

    def _is_over(self, uid: VmUid) -> bool:
        vm = self._store.vm(uid)
        return vm is None or vm.deleting or vm.claim is not None

    async def carry_out_all(self) -> None:
        """Go on with what was attempted in vain, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                removal, pause = await self._left.get()
                tasks.create_task(self.carry_out(removal, pause))

    async def carry_out(self, removal: LedgerRemoval, pause: float | None = 0.0) -> None:
        """Delete a VM whose removal is committed, in whatever version it is."""
        while pause is not None:
            await asyncio.sleep(pause)
            pause = await self._attempt(removal)

    async def _attempt(self, removal: LedgerRemoval) -> float | None:
        """Seconds until it is to be tried again. None: it is deleted, or need not be."""
        async with self._slots:
            try:
                await self._delete(removal)
            except NotFound:
                return None
            except (ClusterUnavailable, ClusterOutcomeUnknown) as error:
                return pause_after(error)
            except ClusterError as error:
                name = f"{removal.namespace}/{removal.name}"
                log.error("VM %s cannot be deleted: %s", name, error)  # noqa: TRY400
                return pause_after(error)
        return None

    async def _delete(self, removal: LedgerRemoval) -> None:
        """Delete a VM unless it goes already, or is a claim's, or another's by now.

        Raises:
            ClusterError: it could not be read or deleted.
        """
        ref = Ref(removal.namespace, removal.name)
        vm = self._store.vm(VmUid(removal.uid))
        while True:
            if vm is None:
                body = await self._cluster.get(Kind.WARM_VM, ref)
                if is_another(body, removal.uid):
                    return
                vm = read_vm(body)
            if vm.deleting or vm.claim is not None:
                return
            try:
                await self._cluster.delete(Kind.WARM_VM, ref, uid=vm.uid, version=vm.version)
            except Conflict:
                vm = None
            else:
                return
