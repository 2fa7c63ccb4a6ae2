"""Claims become bindings: decide in memory, commit through the ledger, publish, settle.

The order of effects is what the guarantees rest on (design: "one ledger, group commit"):

1. decide, with no await between choosing a VM and marking it taken;
2. commit all decisions that wait with one conditional replace of the ledger: the commit point;
3. publish each claim's status, in parallel: the user sees Bound here;
4. settle claimRef on the VMs, in the background, and drop the entry with the next ledger write.
   Until then nobody else may have or touch the VMs: the next leader would settle them again.

What is committed is carried out, by this leader or the next, and never taken back; but for two
cases. A claim had ended, or was gone, when its status was first to be published: nobody saw these
VMs. Or nobody had led for a while, the claim is not served as far as the API server knows, and by
Nova's word one of the VMs is another claim's: the ledger is a backup's.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from warmpool.api.names import ClaimPhase, Kind, Reason
from warmpool.api.v1alpha1.claim import VMClaimStatus
from warmpool.api.v1alpha1.ledger import LedgerEntry
from warmpool.domain.claims import Shortage
from warmpool.domain.errors import (
    ClusterError,
    ClusterOutcomeUnknown,
    ClusterUnavailable,
    NotFound,
    TestFailed,
)
from warmpool.domain.facts import Claim, Vm
from warmpool.domain.ids import ClaimUid, Ref, VmUid
from warmpool.planning.allocation import allocate
from warmpool.planning.claims import lifetime, pools_of
from warmpool.ports.clock import Clock
from warmpool.ports.cluster import Cluster
from warmpool.reconcile.decide import Decider, Search, Waiting
from warmpool.reconcile.events import Announcer, Event
from warmpool.reconcile.ledger import Ledger
from warmpool.reconcile.reading import is_another, read_claim
from warmpool.reconcile.recorder import Recorder
from warmpool.reconcile.removals import Removals
from warmpool.reconcile.retries import pause_after
from warmpool.reconcile.settling import Settler
from warmpool.reconcile.store import Store
from warmpool.reconcile.traffic import CALM, TICK, Traffic
from warmpool.reconcile.vitals import TURN_EVERY, Beat
from warmpool.reconcile.writing import (
    bound_status,
    put_status,
    refused_status,
    waiting_status,
)

log = logging.getLogger(__name__)

PUBLISH_AT_ONCE: Final = 40
"""Status writes in flight: as many as there are connections that are kept open. In a throng answers
are looked for every 10 ms only, and the API server shall have enough to do until then."""

SEVERAL: Final = 16
"""Claims being answered at once that others wait for, to share a write of the ledger. Of a steady
flow of 100 claims/s there are one to five, and a pause of even 5 ms between two writes kept it from
ever having none. All VMs were settled beside answers then, and those waited for one another."""

GATHER: Final = 0.01
"""Seconds that claims gather for one write of the ledger, while statuses are being written: it
costs the API server CPU for all that stands in the ledger (measured: 5 ms with 100 entries of one
VM, 9 ms with 300), which the statuses then lack..."""

GATHER_MAX: Final = 0.1
"""...and so many seconds at most while there are many of them."""

LONG: Final = 0.005
"""A pass over the claims that takes so many seconds leaves others as many before the next one.
With a thousand that wait it takes 25 ms, and every VM that comes or goes has it done again."""

MOST: Final = 0.1
"""Seconds that they are left at most: claims that can be served may wait."""

LOOKED_AT_EVERY: Final = 0.2
"""Seconds between two looks whether what a former leader has committed may be gone on with."""

SEARCHES: Final = 2
"""Hard placements looked for at once, in threads that nothing else uses: those that all share are
taken by whoever waits for a name server."""

IDLE_DROP: Final = 0.5
"""Seconds after which settled entries are dropped although claims are being answered, none of them
with VMs. Until then theirs can be neither released nor looked after."""


class Binder:
    """Serves the claims of a store while this replica leads. One per term of leadership."""

    def __init__(  # noqa: PLR0913 - it is handed all that it works with
        self,
        store: Store,
        ledger: Ledger,
        cluster: Cluster,
        clock: Clock,
        *,
        traffic: Traffic,
        announcer: Announcer,
        want: Callable[[Mapping[Ref, int]], None],
        recorder: Recorder,
        waits: Callable[[Ref], bool],
        is_anothers: Callable[[Vm, ClaimUid], Awaitable[bool]],
    ) -> None:
        """Serve from a store.

        Args:
            store: the objects.
            ledger: taken over by us.
            cluster: fenced.
            clock: the time.
            traffic: told of the claims that are being answered.
            announcer: writes Events.
            want: told how many unclaimed VMs pools shall have for claims that have VMs built.
            recorder: told of what is decided.
            waits: whether nothing may be taken from a pool yet.
            is_anothers: whether Nova says that a VM is in use by another claim than this one.
        """
        self._store = store
        self._ledger = ledger
        self._decider = Decider(store, clock, waits)
        self._announcer = announcer
        self._recorder = recorder
        self._want = want
        self._cluster = cluster
        self._clock = clock
        self._woken = asyncio.Event()
        self._slots = asyncio.Semaphore(PUBLISH_AT_ONCE)
        self._traffic = traffic
        self._settler = Settler(
            store, ledger, cluster, clock, traffic=traffic, finished=self._finished
        )
        self._waits = waits
        self._is_anothers = is_anothers
        self._taken_back: set[ClaimUid] = set()
        """Claims to be served anew once their entry is out of the ledger."""
        self._settled: set[ClaimUid] = set()
        """Entries that the next ledger write leaves out."""
        self._drop_by = float("inf")
        self._wake_at: datetime | None = None
        """When a waiting claim is given up."""
        self._told: dict[ClaimUid, tuple[Reason, str]] = {}
        """What waiting claims were told last."""
        self._sent: dict[ClaimUid, Claim] = {}
        """Claims as they were when they were to be written Bound: nothing is told of those yet."""
        self._took = 0.0
        """Seconds that the last pass over the claims took."""
        self._passed_at = 0.0
        """When it ended."""
        self._removals = Removals(store, cluster, self.wake)
        self._threads = ThreadPoolExecutor(SEARCHES, thread_name_prefix="search")

    async def give_up(self, vm: Vm) -> None:
        """Delete a withheld VM that a claim could have: no leader, this or a later, binds it."""
        await self._removals.give_up(vm)

    def wake(self) -> None:
        """Something changed that may matter to a claim."""
        self._woken.set()

    async def run(self, beat: Beat) -> None:
        """Serve until cancelled.

        Raises:
            NotLeading: another leader has taken over.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                self._take_up(tasks)
                while True:
                    beat()
                    await self._wait()
                    await self._gather()
                    await self._serve(tasks)
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _take_up(self, tasks: asyncio.TaskGroup) -> None:
        """Go on with what former leaders have committed."""
        for entry in self._ledger.entries:
            self._decider.committed(entry)
            tasks.create_task(self._go_on(entry, tasks))
        for removal in self._ledger.removals:
            self._store.withhold(VmUid(removal.uid))
            tasks.create_task(self._removals.carry_out(removal))
        tasks.create_task(self._removals.carry_out_all(), name="binder-remove")
        tasks.create_task(self._settler.run(), name="binder-settle")
        self.wake()

    async def _go_on(self, entry: LedgerEntry, tasks: asyncio.TaskGroup) -> None:
        """Carry out what a former leader has committed, when its VMs were held against Nova."""
        doubtful = False
        while any(self._waits(vm.pool) for vm in self._vms_of(entry)):
            doubtful = True
            await asyncio.sleep(LOOKED_AT_EVERY)
        if doubtful and await self._is_over(entry):
            self._take_back(entry)
            return
        self._spawn(tasks, self._carry_out(entry, first=False), len(entry.vms))

    def _vms_of(self, entry: LedgerEntry) -> list[Vm]:
        """Those of its VMs that are there."""
        known = (self._store.vm(VmUid(vm.uid)) for vm in entry.vms)
        return [vm for vm in known if vm is not None]

    async def _is_over(self, entry: LedgerEntry) -> bool:
        """Whether it was carried out before, and its VMs have gone on to others since.

        Those that have are kept from claims from here on.
        """
        uid = ClaimUid(entry.claim.uid)
        claim = self._store.claim(uid)
        if claim is None or is_published(claim, entry):
            return False
        over = False
        for vm in self._vms_of(entry):
            if await self._is_anothers(vm, uid):
                self._store.doubt(vm.uid)
                over = True
        return over

    def _take_back(self, entry: LedgerEntry) -> None:
        log.warning("claim %s is served anew: Nova says that others have its VMs", _name(entry))
        self._taken_back.add(ClaimUid(entry.claim.uid))
        self._finished(entry)

    async def _gather(self) -> None:
        """Let claims come together for one write of the ledger, while many are being answered.

        Of few, those that come while it is written share the next write, and wait for no more; if
        many wait, for what does not serve them, other loops have their turn.
        """
        if self._traffic.answering >= SEVERAL:
            await asyncio.sleep(GATHER)
            await self._traffic.few(GATHER_MAX - GATHER)
        elif self._took >= LONG:
            passed = self._clock.monotonic() - self._passed_at
            await asyncio.sleep(max(0.0, min(self._took, MOST) - passed))
        self._woken.clear()

    def _spawn(
        self, tasks: asyncio.TaskGroup, work: Coroutine[Any, Any, object], vms: int = 0
    ) -> None:
        """Answer a claim, with so many VMs."""
        self._traffic.began(vms)
        tasks.create_task(work).add_done_callback(lambda _: self._traffic.ended(vms))

    async def _wait(self) -> None:
        """Until something changed, a waiting claim is over, or settled entries have lain long."""
        left = min(TURN_EVERY, self._ledger.due_in())
        if self._wake_at is not None:
            left = min(left, max(0.0, (self._wake_at - self._clock.now()).total_seconds()))
        if self._settled or self._ledger.removals:
            left = min(left, CALM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left):
                await self._woken.wait()
        self._woken.clear()

    async def _serve(self, tasks: asyncio.TaskGroup) -> None:
        """Decide what waits, commit it, and have it published."""
        began = self._clock.monotonic()
        decided = self._decider.decide(self._ledger.room + self._settled_vms())
        self._passed_at = self._clock.monotonic()
        self._took = self._passed_at - began
        self._wake_at = decided.wake_at
        for search in decided.searches:
            tasks.create_task(self._search(search))
        self._want(decided.wanted)
        due = self._is_drop_due() or self._ledger.due_in() < TICK
        if decided.bindings:
            with self._traffic.answer():
                await self._commit(decided.bindings)
        elif self._removals.waiting() or due:
            await self._commit(())
        for entry in decided.bindings:
            self._spawn(tasks, self._carry_out(entry, first=True), len(entry.vms))
        for claim, shortage in decided.refusals:
            self._spawn(tasks, self._refuse(claim, shortage))
        self._tell_waiting(decided.waiting, tasks)

    async def _commit(self, bindings: Iterable[LedgerEntry]) -> None:
        """One write of the ledger: what was decided comes in, what is finished goes out."""
        drop, remove = set(self._settled), self._removals.waiting()
        dropped = [e for e in self._ledger.entries if e.claim.uid in drop]
        over = self._removals.over(self._ledger.removals)
        await self._ledger.commit(bindings, drop, remove=remove, removed=over)
        self._removals.committed(remove)
        self._settled -= drop
        self._drop_by = self._clock.monotonic() + IDLE_DROP
        for entry in dropped:
            self._let_go(entry)
        for claim in self._taken_back & drop:
            self._taken_back.discard(claim)
            self._decider.take_back(claim)
            self.wake()

    def _is_drop_due(self) -> bool:
        """Finished entries go when there is nothing better to do, but not later and later."""
        idle = not self._woken.is_set() and self._traffic.is_quiet
        if self._settled:
            return idle or self._clock.monotonic() >= self._drop_by
        return idle and bool(self._removals.over(self._ledger.removals))

    async def _search(self, search: Search) -> None:
        """Look for a hard placement in a thread: no claim that is easy waits for it."""
        loop = asyncio.get_running_loop()
        work = partial(allocate, search.demand, search.supply)
        outcome = await loop.run_in_executor(self._threads, work)
        self._decider.found(search, outcome)
        self.wake()

    def _settled_vms(self) -> int:
        return sum(len(e.vms) for e in self._ledger.entries if e.claim.uid in self._settled)

    def _tell_waiting(self, waiting: Iterable[Waiting], tasks: asyncio.TaskGroup) -> None:
        """Write what is short on claims that wait, where that has changed."""
        told = self._told
        self._told = {}
        for each in waiting:
            claim, news = each.claim, (each.reason, each.message)
            self._told[claim.uid] = news
            if told.get(claim.uid) != news:
                now = self._clock.now()
                status = waiting_status(claim, each.reason, each.message, now)
                self._spawn(tasks, self._tell(claim, status))

    # -- publish ------------------------------------------------------------------------------

    async def _carry_out(self, entry: LedgerEntry, *, first: bool) -> None:
        """Publish a committed binding and hand it on to be settled.

        `first`: this leader committed it, so nobody can have seen it before.
        """
        if await self._publish(entry, first=first):
            self._settler.add(entry)
            return
        self._let_go(entry)  # the commit that gives them to another claim drops this entry, too
        self._finished(entry)

    async def _publish(self, entry: LedgerEntry, *, first: bool) -> bool:
        """Make the claim Bound; False: it was gone, and nobody has seen its VMs."""
        unseen = first
        while True:
            try:
                async with self._slots:
                    return await self._publish_once(entry)
            except NotFound:
                self._sent.pop(ClaimUid(entry.claim.uid), None)
                return not unseen
            except (ClusterUnavailable, ClusterOutcomeUnknown) as error:
                unseen = unseen and isinstance(error, ClusterUnavailable)
                log.info("claim %s: %s; trying again", _name(entry), error)
                await asyncio.sleep(pause_after(error))
            except ClusterError as error:
                log.error("the status of claim %s cannot be written: %s", _name(entry), error)  # noqa: TRY400
                await asyncio.sleep(pause_after(error))

    async def _publish_once(self, entry: LedgerEntry) -> bool:
        """False: the claim has ended without these VMs, so nobody has seen them."""
        claim = self._store.claim(ClaimUid(entry.claim.uid)) or await self._look_up(entry)
        while not is_published(claim, entry):
            if claim.phase not in (ClaimPhase.PENDING, ClaimPhase.BOUND):
                self._sent.pop(claim.uid, None)
                return False
            status = self._bound_status(claim, entry)
            # A substitute is written into what others write, too: the keeper, and a late leader.
            version = claim.version if claim.phase is ClaimPhase.BOUND else None
            patch = put_status(claim.uid, status, phase=claim.phase, version=version)
            self._sent[claim.uid] = claim
            try:
                body = await self._cluster.patch(
                    Kind.VM_CLAIM, claim.ref, patch, status=True, brief=True
                )
            except TestFailed:  # changed meanwhile, if not by an attempt whose answer was lost
                claim = await self._look_up(entry)
                continue
            self._store.told(claim, status, body)
            self._tell_bound(entry, status.placed)
            return True
        self._tell_bound(entry, claim.status.placed)
        return True

    def _tell_bound(self, entry: LedgerEntry, placed: str) -> None:
        """Tell of a binding that is seen, if it was we who wrote it, though the answer was lost."""
        before = self._sent.pop(ClaimUid(entry.claim.uid), None)
        if before is not None:
            self._announce(before, Reason.BOUND, placed)
            self._recorder.bound(before, entry, placed)

    def _bound_status(self, claim: Claim, entry: LedgerEntry) -> VMClaimStatus:
        vms = {VmUid(v.uid): self._store.vm(VmUid(v.uid)) for v in entry.vms}
        known = {uid: vm for uid, vm in vms.items() if vm is not None}
        return bound_status(claim, entry, known, self._lifetime(claim))

    async def _look_up(self, entry: LedgerEntry) -> Claim:
        """The entry's claim as it is now; NotFound if it is gone, or another of its name."""
        ref = Ref(entry.claim.namespace, entry.claim.name)
        body = await self._cluster.get(Kind.VM_CLAIM, ref)
        self._store.apply(Kind.VM_CLAIM, body)
        if is_another(body, entry.claim.uid):
            raise NotFound(f"claim {ref} is another one now")
        return read_claim(body)

    def _announce(self, claim: Claim, reason: Reason, note: str, *, warning: bool = False) -> None:
        event = Event(Kind.VM_CLAIM, claim.ref, claim.uid, reason, note, warning)
        self._announcer.say(event)

    def _lifetime(self, claim: Claim) -> timedelta | None:
        pools = [self._store.pool(ref) for ref in pools_of(claim)]
        return lifetime(claim, (pool for pool in pools if pool is not None))

    async def _refuse(self, claim: Claim, shortage: Shortage) -> None:
        """Write that a claim gets nothing, and tell of it once that stands."""
        status = refused_status(claim, shortage.reason, shortage.message, self._clock.now())
        if await self._tell(claim, status):
            self._announce(claim, shortage.reason, shortage.message, warning=True)
            self._recorder.refused(claim, shortage)

    async def _tell(self, claim: Claim, status: VMClaimStatus) -> bool:
        """Write the status of a claim that has got no VMs, unless it has got some meanwhile.

        Whether that was done, as far as can be known.
        """
        patch = put_status(claim.uid, status, phase=ClaimPhase.PENDING)
        unsure = False
        while True:
            try:
                async with self._slots:
                    body = await self._cluster.patch(Kind.VM_CLAIM, claim.ref, patch, status=True)
            except NotFound:
                return False
            except TestFailed:  # by our own write, if its answer was lost
                return unsure
            except (ClusterUnavailable, ClusterOutcomeUnknown) as error:
                unsure = unsure or isinstance(error, ClusterOutcomeUnknown)
                await asyncio.sleep(pause_after(error))
            except ClusterError as error:
                log.error("the status of claim %s cannot be written: %s", claim.ref, error)  # noqa: TRY400
                await asyncio.sleep(pause_after(error))
            else:
                self._store.apply(Kind.VM_CLAIM, body)
                return True

    # -- the end ------------------------------------------------------------------------------

    def _let_go(self, entry: LedgerEntry) -> None:
        """The entry says nothing about its VMs any more: they speak for themselves."""
        for vm in entry.vms:
            self._store.uncommit(VmUid(vm.uid), ClaimUid(entry.claim.uid))

    def _finished(self, entry: LedgerEntry) -> None:
        self._decider.settled(entry)
        if not self._settled:
            self._drop_by = self._clock.monotonic() + IDLE_DROP
        self._settled.add(ClaimUid(entry.claim.uid))
        self.wake()


def is_published(claim: Claim, entry: LedgerEntry) -> bool:
    """Whether the claim's allocation shows the entry's VMs."""
    allocation = claim.status.allocation
    if allocation is None:
        return False
    return {vm.uid for vm in entry.vms} <= {vm.uid for vm in allocation.vms}


def _name(entry: LedgerEntry) -> str:
    return f"{entry.claim.namespace}/{entry.claim.name}"
