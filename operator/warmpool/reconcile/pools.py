"""One worker per pool: observe, plan, execute, and say how it stands. Serial per pool.

Actions run side by side as tasks; what is under way is a fact of the next decision, so a slow watch
or a slow cloud never makes the pool do a thing twice.
"""

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from warmpool.api.names import POOL_FINALIZER, ClaimPhase, Kind, Phase, Reason
from warmpool.domain.actions import (
    Action,
    Build,
    Check,
    CreateVm,
    Discard,
    Keep,
    MarkClaimed,
    Preserve,
    Release,
    Sicken,
)
from warmpool.domain.claims import Stock
from warmpool.domain.cloud import Server
from warmpool.domain.errors import (
    CloudError,
    ClusterError,
    Conflict,
    CredentialsRefused,
    NotFound,
    RequestRejected,
    TestFailed,
)
from warmpool.domain.facts import Pool, Vm
from warmpool.domain.ids import ClaimUid, Ref, VmUid
from warmpool.domain.pools import (
    Plan,
    PoolFacts,
    VmView,
    is_contradicted,
    is_sick,
)
from warmpool.domain.racks import RackReport
from warmpool.planning import pace
from warmpool.planning.claimable import claimable
from warmpool.planning.conditions import pool_status
from warmpool.planning.filling import wall
from warmpool.planning.plan import look_back, plan
from warmpool.planning.sizing import excess
from warmpool.planning.turnover import wants_all
from warmpool.ports.catalogue import Catalogue
from warmpool.ports.clock import Clock
from warmpool.ports.cluster import Cluster
from warmpool.reconcile.checks import Checks
from warmpool.reconcile.clouds import Clouds
from warmpool.reconcile.custody import Custody
from warmpool.reconcile.deeds import Deeds
from warmpool.reconcile.events import Event
from warmpool.reconcile.execute import Executor
from warmpool.reconcile.finalizing import hold, let_go
from warmpool.reconcile.groups import delete_groups
from warmpool.reconcile.lookback import LookBack
from warmpool.reconcile.marking import MARK_EVERY, Marking
from warmpool.reconcile.memory import Memory
from warmpool.reconcile.outcomes import CLUSTER_RETRY, Outcomes
from warmpool.reconcile.recipe import Note, Recipe
from warmpool.reconcile.recorder import Recorder
from warmpool.reconcile.session import CloudSession
from warmpool.reconcile.setbacks import Setbacks
from warmpool.reconcile.store import Store
from warmpool.reconcile.surveying import Surveyor
from warmpool.reconcile.traffic import Traffic
from warmpool.reconcile.views import Views
from warmpool.reconcile.vitals import Beat
from warmpool.reconcile.writing import put_status

log = logging.getLogger(__name__)

PASS_EVERY: Final = 0.03
"""Seconds between two passes over a pool: each event wakes it, and a claim has several."""

PASS_WITHIN: Final = 1.0
"""Seconds for which a pass waits at most for a moment in which no claim is being answered, unless
it is to be sooner, the last one left something over, or servers are being marked. In a steady flow
each VM that is handed out would be looked at three times else; half a second ends within a burst of
300 claims."""

STATUS_EVERY: Final = timedelta(milliseconds=500)
"""Between two writes of a pool's status: people read it, and every write costs a claim time."""

RELOOK: Final = timedelta(seconds=30)
"""A pool looks at itself so often, whatever has or has not woken it."""

VISIT_EVERY: Final = 1.0
"""Seconds between two parts of a round over the VMs at rest, which nobody waits for."""

AT_ONCE: Final = 64
"""Actions of one pool that run side by side, besides the bound on builds."""


class PoolWorker:
    """Keeps one pool as its spec wants it, while this replica leads."""

    def __init__(  # noqa: PLR0913 - it is handed all that it works with
        self,
        ref: Ref,
        *,
        store: Store,
        cluster: Cluster,
        clouds: Clouds,
        executor: Executor,
        custody: Custody,
        look_back: LookBack,
        clock: Clock,
        rng: random.Random,
        catalogue: Catalogue,
        note: Note,
        traffic: Traffic,
        wanted: Callable[[Ref], int],
        announce: Callable[[Event], None],
        recorder: Recorder,
    ) -> None:
        """It looks after one pool.

        `wanted`: how many unclaimed VMs waiting claims have this pool build; `note`: told what
        the catalogue's entry came to.
        """
        self._wanted = wanted
        self._recorder = recorder
        self._ref = ref
        self._store = store
        self._cluster = cluster
        self._clouds = clouds
        self._executor = executor
        self._look_back = look_back
        self._clock = clock
        self._memory = Memory()
        self._setbacks = Setbacks(ref, clock, rng)
        self._recipe = Recipe(cluster, clouds, catalogue, note, clock)
        self._views = Views()
        self._checks = Checks(clock.now())
        self._marking = Marking()
        for vm in store.vms_of(ref):
            self._views.touch(vm.uid)
        self._surveyor = Surveyor(ref)
        self._outcomes = Outcomes(
            ref,
            store=store,
            clock=clock,
            memory=self._memory,
            executor=executor,
            setbacks=self._setbacks,
            surveyor=self._surveyor,
            recipe=self._recipe,
            recorder=recorder,
            announce=announce,
        )
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._deeds = Deeds(
            executor,
            self._outcomes,
            custody,
            store=store,
            clock=clock,
            memory=self._memory,
            setbacks=self._setbacks,
            checks=self._checks,
            recipe=self._recipe,
            recorder=recorder,
            slots=self._slots,
        )
        self._generation = -1
        self._relook_at = self._visit_at = clock.now()
        self._session: CloudSession | None = None
        """With which the VMs were looked at last."""
        self._traffic = traffic
        self._woken = asyncio.Event()

    def wake(self, vm: VmUid | None = None) -> None:
        """Something about one VM of this pool changed, or about the pool itself."""
        if vm is not None:
            self._views.touch(vm)
        self._woken.set()

    def look_at_all(self) -> None:
        """Anything about this pool may have changed."""
        self._views.touch_all()
        self._woken.set()

    async def run(self, beat: Beat) -> None:
        """Work until the pool is gone.

        Raises:
            NotLeading: this replica leads no more.
        """
        async with asyncio.TaskGroup() as tasks:
            while True:
                beat()
                self._woken.clear()
                pool = self._store.pool(self._ref)
                if pool is None:
                    self._look_back.over(self._ref)
                    return
                try:
                    wake_at = await self._reconcile(pool, tasks)
                except ClusterError as error:
                    log.warning("pool %s: %s", self._ref, error)
                    wake_at = self._clock.now() + CLUSTER_RETRY
                await self._wait(wake_at)

    async def _wait(self, wake_at: datetime | None) -> None:
        left = RELOOK.total_seconds()
        if self._views.behind:
            left = 0.0
        elif wake_at is not None:
            left = min(left, max(0.0, (wake_at - self._clock.now()).total_seconds()))
        until = self._clock.monotonic() + left
        idle = min(left, VISIT_EVERY) if self._views.on_round else left
        await asyncio.sleep(PASS_EVERY)  # whoever waits for the loop comes first
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, idle - PASS_EVERY)):
                await self._woken.wait()
        if not self._marking.busy:
            await self._traffic.lull(min(PASS_WITHIN, until - self._clock.monotonic()))

    async def _reconcile(self, pool: Pool, tasks: asyncio.TaskGroup) -> datetime | None:
        """One pass. Between observing and marking what is under way, nothing is awaited."""
        if not pool.deleting and not pool.finalized:
            self._store.apply(Kind.WARM_POOL, await hold(self._cluster, pool))
            pool = self._store.pool(self._ref) or pool
        self._refresh(pool)
        session = await self._recipe.prepare(pool)
        if session is not self._session:  # what was looked at without it was not seen
            self._session = session
            self._views.touch_all()
        pool = self._recipe.revised(pool)
        waits = self._look_back.waits(self._ref)
        self._surveyor.look(session, self._recipe.latest)
        facts = self._observe(pool, session, whole=waits)
        if excess(facts) or wants_all(facts):
            facts = self._observe(pool, session, whole=True)
        decided = self._hold_against_nova(facts) if waits else self._marking.paced(plan(facts))
        self._views.settle(facts.vms, decided, facts.zones)
        self._memory.mending = decided.mending
        for action in sorted(decided.actions, key=_goes_last):
            self._start(action, pool, session, tasks)
        for unmarked in self._marking.next():
            self.wake(unmarked)
        self._use(facts, session)
        written = await self._say(facts)
        if pool.deleting and not self._store.size(self._ref) and not self._memory.creating:
            await self._end(pool, session)
        memory = self._memory
        times = (
            decided.wake_at,
            self._views.alarm,
            written,
            self._recipe.due,
            memory.pause_until,
        )
        return min((t for t in times if t is not None), default=None)

    async def _end(self, pool: Pool, session: CloudSession | None) -> None:
        """Let go of a pool that has no VM left, once its server group is gone too.

        Without credentials, or with such as may not, nobody can delete a group. An empty one does
        no harm, and a pool that stays for it would keep its namespace from going.
        """
        has_group = pool.spec.template.group_hint or pool.status.server_group
        if has_group and session is not None:
            try:
                await delete_groups(session.cloud, pool.uid)
            except (CredentialsRefused, RequestRejected) as error:
                log.warning("pool %s leaves its server group behind: %s", self._ref, error)
            except CloudError as error:
                log.warning("the server group of pool %s cannot be deleted: %s", self._ref, error)
                self._recipe.due = self._clock.now() + CLUSTER_RETRY
                return
        elif has_group:
            log.warning("pool %s leaves its server group behind: no credentials", self._ref)
        with contextlib.suppress(NotFound, Conflict):
            await let_go(self._cluster, Kind.WARM_POOL, pool.ref, pool.uid, POOL_FINALIZER)

    def _hold_against_nova(self, facts: PoolFacts) -> Plan:
        """Do nothing but keep what is in use, until all that is has been."""
        decided, proven = look_back(facts)
        if proven:
            self._look_back.over(self._ref)
            self.wake()
        return decided

    def _refresh(self, pool: Pool) -> None:
        """Have every VM looked at again when the rules change, and visited now and then."""
        now = self._clock.now()
        if pool.generation != self._generation:
            self._generation = pool.generation
            self._views.touch_all()
        if now >= self._relook_at:
            self._relook_at = now + RELOOK
            self._views.begin_round()
            self._checks.keep(self._store.vms_by_uid(self._ref))
        if now >= self._visit_at:
            self._visit_at = now + timedelta(seconds=VISIT_EVERY)
            self._views.visit_some()
        self._views.ring(now)

    # -- observe ------------------------------------------------------------------------------

    def _observe(
        self, pool: Pool, session: CloudSession | None, *, whole: bool = False
    ) -> PoolFacts:
        memory, now = self._memory, self._clock.now()
        self._setbacks.heed(pool.spec)
        if memory.pause_until is not None and memory.pause_until <= now:
            memory.pause_until = None
        self._fill_bucket(pool, now)
        refill, bucket = pool.spec.refill, memory.bucket
        paced = refill is not None and bucket is not None
        vms = self._store.vms_by_uid(self._ref)
        unseen = [build for ref, build in memory.creating.items() if not self._store.has_vm(ref)]
        return PoolFacts(
            pool=pool,
            now=now,
            vms=self._views.look(vms, partial(self._view, session=session), whole=whole),
            rest=dict(self._views.rest),
            creating=Counter(build.zone for build in unseen),
            aiming=Counter(build.hypervisor for build in unseen if build.hypervisor),
            survey=self._surveyor.survey(),
            racks=session.racks.report if session is not None else RackReport(),
            mending=memory.mending,
            cloud_ready=session is not None and session.listed,
            problem=self._recipe.problem,
            resolved=self._recipe.resolved,
            stale=self._recipe.stale,
            withdrawn=self._recipe.withdrawn,
            holds=self._setbacks.holds(),
            tokens=pace.whole(bucket) if bucket is not None and paced else None,
            next_token=pace.next_token(bucket, refill) if bucket and refill else None,
            group=self._recipe.group,
            wanted=self._wanted(self._ref),
        )

    def _fill_bucket(self, pool: Pool, now: datetime) -> None:
        memory, refill = self._memory, pool.spec.refill
        if refill is None:
            memory.bucket = None
        elif memory.bucket is None:
            memory.bucket = pace.full(refill, now)
        else:
            memory.bucket = pace.filled(memory.bucket, refill, now)

    def _view(self, vm: Vm, session: CloudSession | None) -> VmView:
        server = session.server(vm.uid, vm.server) if session is not None else None
        if server is not None:
            self._recorder.saw(vm.uid, server)
        listed = session is not None and session.listed and session.problem is None
        not_before, _ = self._memory.retries.get(vm.uid, (None, 0))
        rebuilt_at, moment = self._memory.rebuilt.get(vm.uid, (None, 0.0))
        return VmView(
            vm=vm,
            server=server,
            server_missing=listed and server is None and vm.server is not None,
            taken=self._is_taken(vm, server),
            settling=self._store.is_committed(vm.uid),
            claim_gone=self._is_claim_gone(vm),
            busy=vm.uid in self._memory.busy or vm.ref in self._memory.creating,
            leaving=self._store.is_withheld(vm.uid),
            place=session.racks.place(server, vm.place) if server and session else None,
            posted_at=_posted_at(server, session),
            recycling=vm.uid in self._memory.recycling,
            rebuilt_at=rebuilt_at,
            seen_since_rebuild=session is not None and session.seen_since(moment),
            not_before=not_before,
            host_down=server is not None and session is not None and session.is_dead(server),
            checked=self._checks.of(vm),
            unread=self._store.is_unread(vm.uid),
        )

    def _is_taken(self, vm: Vm, server: Server | None) -> bool:
        return vm.retained or self._store.owner(vm) is not None or is_contradicted(vm, server)

    def _is_claim_gone(self, vm: Vm) -> bool:
        if vm.claim is None:
            return False
        claim = self._store.claim(ClaimUid(vm.claim.uid))
        if claim is None:
            return not self._store.is_unread(vm.claim.uid)
        return claim.phase is ClaimPhase.RELEASED

    def _use(self, facts: PoolFacts, session: CloudSession | None) -> None:
        """Tell the poller whether anything of ours is under way."""
        if session is None:
            return
        moving = facts.tally["deleting",] > 0 or any(_is_moving(view) for view in facts.vms)
        session.use(self._ref, busy=moving or bool(self._memory.creating))
        self._surveyor.ask(facts)

    # -- execute ------------------------------------------------------------------------------

    def _start(
        self, action: Action, pool: Pool, session: CloudSession | None, tasks: asyncio.TaskGroup
    ) -> None:
        """Mark an action as under way and let it run."""
        memory = self._memory
        if isinstance(action, CreateVm):
            if session is None or memory.pause_until is not None:
                return
            self._start_build(action, pool, session, tasks)
            return
        if session is None and not isinstance(action, Discard | Release | Sicken | Preserve):
            return
        if isinstance(action, Discard) and (
            memory.pause_until is not None or not self._store.withhold(action.vm.uid)
        ):
            return
        if isinstance(action, Keep):
            self._store.doubt(action.vm.uid)
        memory.busy.add(action.vm.uid)
        self._views.touch(action.vm.uid)
        tasks.create_task(self._act(action, pool, session))

    def _start_build(
        self, build: CreateVm, pool: Pool, session: CloudSession, tasks: asyncio.TaskGroup
    ) -> None:
        memory, ref = self._memory, self._executor.new_name(pool)
        memory.creating[ref] = build
        self._surveyor.begun(ref, build)
        if memory.bucket is not None:
            memory.bucket = pace.spend(memory.bucket, 1)
        tasks.create_task(self._create(ref, build, pool, session))

    async def _create(self, ref: Ref, build: CreateVm, pool: Pool, session: CloudSession) -> None:
        try:
            vm = await self._executor.create_vm(pool, ref, build)
        except ClusterError as error:
            self._outcomes.not_created(ref, error)
            return
        else:
            self._memory.busy.add(vm.uid)
            self._views.touch(vm.uid)
        finally:
            del self._memory.creating[ref]
            self.wake()
        await self._guarded(vm, self._deeds.post(vm, session), builds=True)

    async def _act(self, action: Action, pool: Pool, session: CloudSession | None) -> None:
        assert not isinstance(action, CreateVm)  # noqa: S101 - has a path of its own
        builds = isinstance(action, Build)
        work = self._guarded(action.vm, self._deeds.do(action, pool, session), builds=builds)
        if isinstance(action, Check | Keep):
            await work  # many that do not answer must keep nothing else waiting
            return
        if isinstance(action, MarkClaimed):
            await work
            await self._next_mark()
            return
        async with self._slots:
            await work

    async def _next_mark(self) -> None:
        await asyncio.sleep(MARK_EVERY)
        self._marking.done()
        for unmarked in self._marking.next():
            self.wake(unmarked)

    async def _guarded(self, vm: Vm, work: Coroutine[Any, Any, None], *, builds: bool) -> None:
        try:
            await self._outcomes.await_end(vm, work, builds=builds)
        finally:
            self._memory.busy.discard(vm.uid)
            self._views.touch(vm.uid)
            self.wake()

    # -- say ----------------------------------------------------------------------------------

    async def _say(self, facts: PoolFacts) -> datetime | None:
        """Write the status if it changed; when to try again if that is too soon."""
        memory, now = self._memory, self._clock.now()
        if memory.status_at is not None and now < memory.status_at + STATUS_EVERY:
            return memory.status_at + STATUS_EVERY
        counts = self._store.counts(self._ref)
        full = wall(facts)
        if full is not None and full.reason in (Reason.QUOTA_EXCEEDED, Reason.NO_VALID_HOST):
            self._setbacks.blocked(full.reason, full.message)
        failure = self._setbacks.showing(full=facts.tally["ready",] >= facts.target)
        status = pool_status(facts, claimable(Stock(counts, facts.pool.spec.reserve)), failure)
        if status == facts.pool.status:
            return None
        memory.status_at = now
        with contextlib.suppress(NotFound, TestFailed):
            patch = put_status(facts.pool.uid, status)
            body = await self._cluster.patch(Kind.WARM_POOL, self._ref, patch, status=True)
            self._store.apply(Kind.WARM_POOL, body)
        return None


def _posted_at(server: Server | None, session: CloudSession | None) -> datetime | None:
    if server is None or server.created is None or session is None:
        return None
    return session.here(server.created)


def _goes_last(action: Action) -> bool:
    """Nova works while we write down what is ready, so what it shall build is begun first."""
    return not isinstance(action, CreateVm | Build)


def _is_moving(view: VmView) -> bool:
    """A change of its server is expected soon: it is being built."""
    vm = view.vm
    return not (vm.phase is Phase.READY or is_sick(vm) or view.taken or view.unread)
