"""Looks after bound claims: their health, their losses, their end, their metadata in Nova."""

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

from warmpool.api.names import ClaimCondition, ClaimPhase, Kind, Reason
from warmpool.api.v1alpha1.claim import VMClaimStatus
from warmpool.domain.errors import CloudError, ClusterError, NotFound, TestFailed, Unreadable
from warmpool.domain.facts import Claim, Vm
from warmpool.domain.ids import ClaimUid, Ref, VmUid
from warmpool.planning.claims import lifetime, pools_of
from warmpool.planning.condition import condition
from warmpool.planning.keeping import is_lost, kept
from warmpool.ports.clock import Clock
from warmpool.ports.cluster import Cluster
from warmpool.reconcile.events import Announcer, Event
from warmpool.reconcile.store import Store
from warmpool.reconcile.vitals import TURN_EVERY, Beat
from warmpool.reconcile.writing import dump, put_status, same_uid

log = logging.getLogger(__name__)

RETRY_AFTER: Final = timedelta(seconds=5)
"""Until a claim is looked at again after a failure: nothing here is in a claim's way."""

GATHER: Final = 0.5
"""Seconds that changes gather before their claims are looked at: binding one claim makes several,
and whoever binds many has nothing better to do than to wait for us."""

AT_ONCE: Final = 8
"""Claims whose metadata is written to Nova at a time."""

Annotate = Callable[[Vm, Mapping[str, str]], Awaitable[None]]
"""Writes metadata on the server of a VM. Raises CloudError."""


class Keeper:
    """Looks after the bound claims of a store while this replica leads."""

    def __init__(  # noqa: PLR0913 - it is handed all that it works with
        self,
        store: Store,
        cluster: Cluster,
        clock: Clock,
        *,
        announcer: Announcer,
        annotate: Annotate,
        confirm: Callable[[], Awaitable[None]],
    ) -> None:
        """`confirm` raises NotLeading if another leader has taken over, whatever our clock says."""
        self._confirm = confirm
        self._store = store
        self._cluster = cluster
        self._clock = clock
        self._announcer = announcer
        self._annotate = annotate
        self._dirty: set[ClaimUid] = set()
        self._due: list[tuple[datetime, ClaimUid]] = []
        self._woken = asyncio.Event()
        self._annotating: set[ClaimUid] = set()
        self._slots = asyncio.Semaphore(AT_ONCE)

    def touch(self, claim: ClaimUid) -> None:
        """Something about a claim or one of its VMs changed."""
        self._dirty.add(claim)
        self._woken.set()

    async def run(self, beat: Beat) -> None:
        """Look after claims until cancelled."""
        for claim in self._store.claims():
            self.touch(claim.uid)
        async with asyncio.TaskGroup() as tasks:
            while True:
                beat()
                await self._wait()
                await asyncio.sleep(GATHER)
                self._woken.clear()
                for uid in self._take():
                    beat()
                    await self._look_after(uid, tasks)

    async def _wait(self) -> None:
        left = TURN_EVERY
        if self._due:
            left = min(left, max(0.0, (self._due[0][0] - self._clock.now()).total_seconds()))
        try:
            async with asyncio.timeout(left):
                await self._woken.wait()
        except TimeoutError:
            pass

    def _take(self) -> list[ClaimUid]:
        """Claims that changed or whose time has come."""
        now = self._clock.now()
        while self._due and self._due[0][0] <= now:
            self._dirty.add(heapq.heappop(self._due)[1])
        taken, self._dirty = sorted(self._dirty), set()
        return taken

    def _again(self, uid: ClaimUid, when: datetime) -> None:
        heapq.heappush(self._due, (when, uid))

    async def _look_after(self, uid: ClaimUid, tasks: asyncio.TaskGroup) -> None:
        claim = self._store.claim(uid)
        if claim is None or claim.phase is not ClaimPhase.BOUND or claim.deleting:
            return
        try:
            await self._keep(claim)
        except (NotFound, TestFailed):
            return
        except ClusterError as error:
            log.info("claim %s: %s", claim.ref, error)
            self._again(uid, self._later())
        if claim.spec.metadata and uid not in self._annotating and not _is_annotated(claim):
            self._annotating.add(uid)
            tasks.create_task(self._annotate_all(claim))

    def _later(self) -> datetime:
        return self._clock.now() + RETRY_AFTER

    # -- health and end -----------------------------------------------------------------------

    async def _keep(self, claim: Claim) -> None:
        """Write what has changed about a bound claim."""
        allocation = claim.status.allocation
        if allocation is None:
            return
        pools = [self._store.pool(ref) for ref in pools_of(claim)]
        span = lifetime(claim, (pool for pool in pools if pool is not None))
        status = kept(claim, await self._own(claim), span, self._clock.now())
        if status.allocation is not None and status.allocation.expires_at is not None:
            self._again(claim.uid, status.allocation.expires_at)
        if status == claim.status:
            return
        if _losses(status) > _losses(claim.status):
            # A VM that another leader has just bound is not known here as the claim's.
            await self._confirm()
        patch = put_status(claim.uid, status, phase=ClaimPhase.BOUND, version=claim.version)
        body = await self._cluster.patch(Kind.VM_CLAIM, claim.ref, patch, status=True)
        self._store.apply(Kind.VM_CLAIM, body)
        self._announce(claim, status)

    async def _own(self, claim: Claim) -> dict[VmUid, Vm]:
        """The claim's VMs. What the store does not show as such is asked for before it is lost."""
        allocation = claim.status.allocation
        own: dict[VmUid, Vm] = {}
        for entry in allocation.vms if allocation is not None else ():
            uid = VmUid(entry.uid)
            vm = self._store.vm(uid)
            if not entry.lost and (vm is None or self._store.owner(vm) != claim.uid):
                vm = await self._ask(Ref(entry.namespace, entry.name), uid)
            if vm is not None and (is_lost(vm) or self._store.owner(vm) == claim.uid):
                own[uid] = vm
        return own

    async def _ask(self, ref: Ref, uid: VmUid) -> Vm | None:
        try:
            self._store.apply(Kind.WARM_VM, await self._cluster.get(Kind.WARM_VM, ref))
        except NotFound:
            return None
        if self._store.is_unread(uid):
            raise Unreadable(f"WarmVM {ref} cannot be read: nothing is concluded about the claim")
        return self._store.vm(uid)

    def _announce(self, claim: Claim, status: VMClaimStatus) -> None:
        old = {c.type: c for c in claim.status.conditions}
        for new in status.conditions:
            before = old.get(new.type)
            if before is not None and before.status is not new.status:
                bad = new.status.value != "True"
                event = Event(
                    Kind.VM_CLAIM, claim.ref, claim.uid, Reason(new.reason), new.message, bad
                )
                self._announcer.say(event)

    # -- metadata -----------------------------------------------------------------------------

    async def _annotate_all(self, claim: Claim) -> None:
        """Write a claim's metadata on its servers. Never in anybody's way; tried again for ever."""
        try:
            async with self._slots:
                for vm in (await self._own(claim)).values():
                    if not is_lost(vm):
                        await self._annotate(vm, claim.spec.metadata)
                await self._say_annotated(claim)
        except (NotFound, TestFailed):
            pass
        except (CloudError, ClusterError) as error:
            log.info("the metadata of claim %s is not written yet: %s", claim.ref, error)
            self._again(claim.uid, self._later())
        finally:
            self._annotating.discard(claim.uid)
        self._woken.set()

    async def _say_annotated(self, claim: Claim) -> None:
        done = condition(
            ClaimCondition.METADATA_WRITTEN,
            holds=True,
            reason=Reason.METADATA_WRITTEN,
            message="the servers in Nova carry the claim's metadata",
            now=self._clock.now(),
            generation=claim.generation,
        )
        ops = [
            same_uid(claim.uid),
            {"op": "add", "path": "/status/conditions/-", "value": dump(done)},
        ]
        body = await self._cluster.patch(Kind.VM_CLAIM, claim.ref, ops, status=True)
        self._store.apply(Kind.VM_CLAIM, body)


def _losses(status: VMClaimStatus) -> int:
    return sum(vm.lost for vm in status.allocation.vms) if status.allocation is not None else 0


def _is_annotated(claim: Claim) -> bool:
    return any(c.type == ClaimCondition.METADATA_WRITTEN for c in claim.status.conditions)
