"""Giving up VMs that a claim could have: committed like a binding, and only then deleted.

A DELETE that is only conditional on the object's version can be overtaken: a leader that stalls
with it on the wire is replaced, the next one binds the VM, and until the binding is settled nothing
on the VM has changed. So the ledger says first that the VM goes; a former leader cannot write that
any more, and no later one binds what it reads there.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable

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


class Removals:
    """VMs on their way out. The binder commits them, since it alone writes the ledger."""

    def __init__(self, store: Store, cluster: Cluster, wake: Callable[[], None]) -> None:
        """`wake`: some wait to be committed."""
        self._store = store
        self._cluster = cluster
        self._wake = wake
        self._waiting: list[tuple[LedgerRemoval, asyncio.Event]] = []

    async def give_up(self, vm: Vm) -> None:
        """Have it committed that a withheld VM goes, then delete it. Returns when that is asked."""
        removal = LedgerRemoval(namespace=vm.ref.namespace, name=vm.ref.name, uid=vm.uid)
        committed = asyncio.Event()
        self._waiting.append((removal, committed))
        self._wake()
        await committed.wait()
        await self.carry_out(removal)

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

    async def carry_out(self, removal: LedgerRemoval) -> None:
        """Delete a VM whose removal is committed, in whatever version it is."""
        ref = Ref(removal.namespace, removal.name)
        vm = self._store.vm(VmUid(removal.uid))
        while True:
            try:
                if vm is None:
                    body = await self._cluster.get(Kind.WARM_VM, ref)
                    if is_another(body, removal.uid):
                        return
                    vm = read_vm(body)
                if vm.deleting or vm.claim is not None:
                    return
                await self._cluster.delete(Kind.WARM_VM, ref, uid=vm.uid, version=vm.version)
            except Conflict:
                vm = None
            except NotFound:
                return
            except (ClusterUnavailable, ClusterOutcomeUnknown) as error:
                await asyncio.sleep(pause_after(error))
            except ClusterError as error:
                log.error("VM %s cannot be deleted: %s", ref, error)  # noqa: TRY400
                await asyncio.sleep(pause_after(error))
            else:
                return
