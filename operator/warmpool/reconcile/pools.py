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
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, assert_never

from warmpool.api.names import POOL_FINALIZER, ClaimPhase, Kind, Phase, Reason
from warmpool.api.v1alpha1.pool import Health
from warmpool.domain.actions import (
    Action,
    Build,
    Check,
    ConfirmLost,
    CreateVm,
    Discard,
    Fail,
    InspectFault,
    Keep,
    MakeReady,
    MarkClaimed,
    Preserve,
    Rebuild,
    Recover,
    Release,
    Relocate,
    ReportBuilding,
    Sicken,
    Terminate,
    Trouble,
)
from warmpool.domain.claims import Stock
from warmpool.domain.cloud import BuildSpec, FaultClass, Server
from warmpool.domain.errors import (
    CapacityRefused,
    CloudError,
    ClusterError,
    Conflict,
    CredentialsRefused,
    DependencyMissing,
    Forbidden,
    Invalid,
    NotFound,
    OutcomeUnknown,
    RequestRejected,
    TestFailed,
)
from warmpool.domain.facts import Pool, Vm
from warmpool.domain.ids import ClaimUid, Ref, VmUid
from warmpool.domain.pools import (
    PRESERVED_AT_MOST,
    Mending,
    Plan,
    PoolFacts,
    VmView,
    is_contradicted,
    is_sick,
)
from warmpool.planning import pace
from warmpool.planning.claimable import claimable
from warmpool.planning.conditions import pool_status
from warmpool.planning.filling import wall
from warmpool.planning.lifecycle import keep_until
from warmpool.planning.plan import look_back, plan
from warmpool.planning.sizing import excess
from warmpool.planning.turnover import wants_all
from warmpool.ports.clock import Clock
from warmpool.ports.cluster import Cluster
from warmpool.reconcile.checks import Checks
from warmpool.reconcile.clouds import Clouds, CloudSession
from warmpool.reconcile.custody import Custody
from warmpool.reconcile.events import Event
from warmpool.reconcile.execute import BuildFailed, Executor, ProbeFailed, place_of
from warmpool.reconcile.finalizing import hold, let_go
from warmpool.reconcile.groups import delete_groups
from warmpool.reconcile.lookback import LookBack
from warmpool.reconcile.marking import MARK_EVERY, Marking
from warmpool.reconcile.recipe import Recipe
from warmpool.reconcile.recorder import Recorder
from warmpool.reconcile.setbacks import Setbacks
from warmpool.reconcile.store import Store
from warmpool.reconcile.surveying import Surveyor
from warmpool.reconcile.views import Views
from warmpool.reconcile.vitals import Beat
from warmpool.reconcile.writing import put_status

log = logging.getLogger(__name__)

MOVED_ON: Final = timedelta(milliseconds=100)
"""Until a VM is looked at again that was not what it seemed; doubled up to `MOVED_ON_MAX`."""

MOVED_ON_MAX: Final = timedelta(seconds=2)

PROBE_EVERY: Final = timedelta(seconds=1)
"""Between probes of a VM that is not up yet."""

SEARCH_EVERY: Final = timedelta(seconds=1)
"""Between searches for a server that a former leader may have POSTed; doubled to `SEARCH_MAX`."""

SEARCH_MAX: Final = timedelta(seconds=4)

TERMINATE_EVERY: Final = timedelta(seconds=1)
"""Between looks at a server that is being deleted; doubled up to `TERMINATE_MAX`."""

TERMINATE_MAX: Final = timedelta(seconds=20)

CLUSTER_RETRY: Final = timedelta(seconds=1)
"""After the API server failed us."""

PASS_EVERY: Final = 0.03
"""Seconds between two passes over a pool: each event wakes it, and a claim has several."""

STATUS_EVERY: Final = timedelta(milliseconds=500)
"""Between two writes of a pool's status: people read it, and every write costs a claim time."""

RELOOK: Final = timedelta(seconds=30)
"""A pool looks at itself so often, whatever has or has not woken it."""

CONSOLE_SHOWN: Final = 500
"""Characters of a failed VM's console in an Event, which has room for 1000."""

AT_ONCE: Final = 64
"""Actions of one pool that run side by side, besides the bound on builds."""


@dataclass(slots=True)
class _Memory:
    """What a worker remembers between decisions. Lost with the leader, and found again."""

    busy: set[VmUid] = field(default_factory=set)
    creating: dict[Ref, CreateVm] = field(default_factory=dict)
    """WarmVMs whose creation is under way. The watch may show one before the answer to its creation
    comes, so they are known by name."""
    mending: Mending = field(default_factory=Mending)
    retries: dict[VmUid, tuple[datetime, int]] = field(default_factory=dict)
    recycling: set[VmUid] = field(default_factory=set)
    """VMs whose claims have ended in this term, and that are to be built anew. One whose rebuild
    may or may not have happened is in it no more."""
    rebuilt: dict[VmUid, tuple[datetime, float]] = field(default_factory=dict)
    bucket: pace.Bucket | None = None
    status_at: datetime | None = None
    pause_until: datetime | None = None
    """The API server failed us: a plan would have the same made or deleted again at once."""


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
        wanted: Callable[[Ref], int],
        announce: Callable[[Event], None],
        recorder: Recorder,
    ) -> None:
        """`wanted`: how many unclaimed VMs waiting claims have this pool build."""
        self._wanted = wanted
        self._announce = announce
        self._recorder = recorder
        self._ref = ref
        self._store = store
        self._cluster = cluster
        self._clouds = clouds
        self._executor = executor
        self._custody = custody
        self._look_back = look_back
        self._clock = clock
        self._rng = rng
        self._memory = _Memory()
        self._setbacks = Setbacks(ref, clock, rng)
        self._recipe = Recipe(cluster, clouds, clock)
        self._views = Views()
        self._checks = Checks(clock.now())
        self._marking = Marking()
        for vm in store.vms_of(ref):
            self._views.touch(vm.uid)
        self._surveyor = Surveyor(ref)
        self._generation = -1
        self._relook_at = clock.now()
        self._woken = asyncio.Event()
        self._slots = asyncio.Semaphore(AT_ONCE)

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
        await asyncio.sleep(PASS_EVERY)  # whoever waits for the loop comes first
        left = max(0.0, left - PASS_EVERY)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left):
                await self._woken.wait()

    async def _reconcile(self, pool: Pool, tasks: asyncio.TaskGroup) -> datetime | None:
        """One pass. Between observing and marking what is under way, nothing is awaited."""
        if not pool.deleting and not pool.finalized:
            self._store.apply(Kind.WARM_POOL, await hold(self._cluster, pool))
            pool = self._store.pool(self._ref) or pool
        self._refresh(pool)
        session = await self._recipe.prepare(pool)
        waits = self._look_back.waits(self._ref)
        self._surveyor.look(session, self._recipe.latest)
        facts = self._observe(pool, session, whole=waits)
        if excess(facts) or pool.deleting or wants_all(facts):
            facts = self._observe(pool, session, whole=True)
        decided = self._hold_against_nova(facts) if waits else self._marking.paced(plan(facts))
        self._views.settle(facts.vms, decided, facts.zones)
        self._memory.mending = decided.mending
        for action in sorted(decided.actions, key=_goes_last):
            self._start(action, pool, session, tasks)
        if (unmarked := self._marking.next()) is not None:
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

        Without credentials nobody can delete a group. An empty one does no harm, and a pool that
        stays for it would keep its namespace from going.
        """
        has_group = pool.spec.template.group_hint or pool.status.server_group
        if has_group and session is not None:
            try:
                await delete_groups(session.cloud, pool.uid)
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
        """Have every VM looked at again when the rules change, and now and then."""
        now = self._clock.now()
        if pool.generation != self._generation or now >= self._relook_at:
            self._generation, self._relook_at = pool.generation, now + RELOOK
            self._views.touch_all()
            self._checks.keep(self._store.vms_by_uid(self._ref))
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
            mending=memory.mending,
            cloud_ready=session is not None and session.listed,
            problem=self._recipe.problem,
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
            place=place_of(server, session) if server is not None and session is not None else None,
            posted_at=_posted_at(server, session),
            recycling=vm.uid in self._memory.recycling,
            rebuilt_at=rebuilt_at,
            seen_since_rebuild=session is not None and session.seen_since(moment),
            not_before=not_before,
            host_down=server is not None and session is not None and session.is_dead(server.host),
            checked=self._checks.of(vm),
        )

    def _is_taken(self, vm: Vm, server: Server | None) -> bool:
        return vm.retained or self._store.owner(vm) is not None or is_contradicted(vm, server)

    def _is_claim_gone(self, vm: Vm) -> bool:
        if vm.claim is None:
            return False
        claim = self._store.claim(ClaimUid(vm.claim.uid))
        return claim is None or claim.phase is ClaimPhase.RELEASED

    def _use(self, facts: PoolFacts, session: CloudSession | None) -> None:
        """Tell the poller whether anything of ours is under way."""
        if session is None:
            return
        moving = any(_is_moving(view) for view in facts.vms)
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
            self._not_created(ref, error)
            return
        else:
            self._memory.busy.add(vm.uid)
            self._views.touch(vm.uid)
        finally:
            del self._memory.creating[ref]
            self.wake()
        await self._guarded(vm, self._post(vm, session), builds=True)

    def _not_created(self, ref: Ref, error: ClusterError) -> None:
        """A WarmVM could not be written. Only what is refused has its cause in what was written."""
        log.warning("pool %s cannot create a WarmVM: %s", self._ref, error)
        self._surveyor.broken(ref)
        if isinstance(error, Invalid | Forbidden):
            self._setbacks.refused("", Reason.INVALID_SPEC, str(error))
        else:
            self._memory.pause_until = self._clock.now() + CLUSTER_RETRY

    async def _post(self, vm: Vm, session: CloudSession) -> None:
        spec = self._recipe.spec_for(vm)
        if spec is not None:
            await self._executor.post(vm, spec, session)
            self._setbacks.posted(vm.uid)

    async def _act(self, action: Action, pool: Pool, session: CloudSession | None) -> None:
        assert not isinstance(action, CreateVm)  # noqa: S101 - has a path of its own
        builds = isinstance(action, Build)
        work = self._guarded(action.vm, self._work(action, pool, session), builds=builds)
        if isinstance(action, Check):
            await work  # many that do not answer must keep nothing else waiting
            return
        if isinstance(action, MarkClaimed):
            await work
            await self._next_mark()
            return
        async with self._slots:
            await work

    async def _work(self, action: Action, pool: Pool, session: CloudSession | None) -> None:
        do = self._executor
        match action:
            case Discard(vm=vm, reason=reason):
                self._recorder.condemned(vm.uid, reason)
                await do.discard(vm)
                self._memory.retries.pop(vm.uid, None)  # its end begins anew, and at once
            case Release(vm=vm):
                self._memory.recycling.add(vm.uid)
                await do.release(vm)
            case Sicken() | Preserve():
                await self._write_down(action)
            case CreateVm():
                pass  # has a path of its own
            case _ if session is None:
                pass  # _start lets nothing through that needs a cloud when there is none
            case Fail(vm=vm, server=server, reason=reason, message=message):
                await do.give_up_late(vm, server, session, (reason, message))
            case Build() | Rebuild() | ReportBuilding() | MakeReady() | InspectFault():
                await self._bring_up(action, pool, session)
            case Check():
                await self._check(action, pool.spec.health, session)
            case ConfirmLost() | Relocate() | Recover() | Terminate() | MarkClaimed() | Keep():
                await self._look_after(action, session)
            case _:
                assert_never(action)

    async def _write_down(self, action: Sicken | Preserve) -> None:
        """Say of a VM that it does not work, or that it is kept although it does not."""
        match action:
            case Sicken(vm=vm, reason=reason, message=message):
                await self._executor.sicken(vm, reason, message)
            case Preserve(vm=vm, until=until):
                await self._executor.preserve(vm, until)
                note = f"VM {vm.ref.name} has failed and is kept until {until:%F %T} UTC"
                self._tell(Reason.PRESERVED, note)

    async def _bring_up(
        self,
        action: Build | Rebuild | ReportBuilding | MakeReady | InspectFault,
        pool: Pool,
        session: CloudSession,
    ) -> None:
        do, spec = self._executor, self._recipe.spec_for(action.vm)
        match action:
            case Build(vm=vm):
                if spec is not None and await do.build(vm, spec, session):
                    self._setbacks.posted(vm.uid)
                elif spec is not None:
                    self._again(vm, SEARCH_EVERY, SEARCH_MAX)
            case Rebuild(vm=vm, server=server):
                if spec is not None:
                    await self._rebuild(vm, server, spec, session)
                    moment = self._clock.now(), self._clock.monotonic()
                    self._memory.rebuilt[vm.uid] = moment
            case ReportBuilding(vm=vm, server=server):
                await do.report_building(vm, server)
            case MakeReady(vm=vm, server=server):
                await do.make_ready(pool, vm, server, session)
                self._succeeded(vm)
            case InspectFault(vm=vm, server=server):
                await do.inspect_fault(vm, server, session)

    async def _rebuild(
        self, vm: Vm, server: Server, spec: BuildSpec, session: CloudSession
    ) -> None:
        try:
            await self._executor.rebuild(server, spec, session)
        except OutcomeUnknown:
            self._memory.recycling.discard(vm.uid)
            raise

    async def _check(self, action: Check, health: Health, session: CloudSession) -> None:
        """See whether a VM works, and write it down if that is new."""
        do, vm, found = self._executor, action.vm, action.trouble
        if found is None and (said := await do.ask(health, action.server)):
            found = Trouble(Reason.PROBE_FAILED, said)
        self._checks.note(vm.uid, self._clock.now(), failed=found is not None)
        if found is None:
            if vm.phase is not Phase.READY:
                await do.recover(vm, action.server, place_of(action.server, session))
            self._store.trust(vm.uid)
        elif vm.fault is None or vm.fault.reason != found.reason:
            await do.sicken(vm, found.reason, found.message)

    async def _look_after(
        self,
        action: ConfirmLost | Relocate | Recover | Terminate | MarkClaimed | Keep,
        session: CloudSession,
    ) -> None:
        do = self._executor
        match action:
            case ConfirmLost(vm=vm):
                await do.confirm_lost(vm, session)
            case Relocate(vm=vm, server=server, place=place):
                await do.relocate(vm, server, place)
            case Recover(vm=vm, server=server):
                await do.recover(vm, server, place_of(server, session))
            case MarkClaimed(vm=vm, server=server):
                if vm.claim is not None:
                    await session.mark_claim(server, vm.claim, vm.pool)
            case Keep(vm=vm, server=server):
                await self._custody.keep(vm, server, session)
            case Terminate(vm=vm):
                if not await do.terminate(vm, session):
                    self._again(vm, TERMINATE_EVERY, TERMINATE_MAX)

    async def _next_mark(self) -> None:
        await asyncio.sleep(MARK_EVERY)
        self.wake(self._marking.done())

    async def _guarded(self, vm: Vm, work: Coroutine[Any, Any, None], *, builds: bool) -> None:
        """Run an action on a VM and turn what went wrong into what to do about it."""
        uid = vm.uid
        try:
            await work
        except ProbeFailed:
            self._memory.retries[uid] = (self._clock.now() + PROBE_EVERY, 0)
        except BuildFailed as failure:
            await self._build_failed(vm, failure)
        except CloudError as error:
            self._cloud_refused(vm, error, builds=builds)
        except (Conflict, TestFailed, NotFound):
            # The object moved on: a later pass sees it as it is, once the watch has shown it.
            self._again(vm, MOVED_ON, MOVED_ON_MAX)
        except ClusterError as error:
            log.warning("VM %s: %s", vm.ref, error)
            self._again(vm, CLUSTER_RETRY, timedelta(seconds=10))
            self._memory.pause_until = self._clock.now() + CLUSTER_RETRY
        else:
            if not isinstance(self._store.vm(uid), Vm):
                self._memory.retries.pop(uid, None)
                self._memory.recycling.discard(uid)
        finally:
            self._memory.busy.discard(uid)
            self._views.touch(uid)
            self.wake()

    def _tell(self, reason: Reason, note: str) -> None:
        """Write an Event about the pool that a person would want to know of."""
        pool = self._store.pool(self._ref)
        if pool is not None:
            self._announce(Event(Kind.WARM_POOL, self._ref, pool.uid, reason, note, warning=True))

    # -- what went wrong ----------------------------------------------------------------------

    def _again(self, vm: Vm, first: timedelta, longest: timedelta) -> None:
        """Leave a VM alone for a while, twice as long each time."""
        _, count = self._memory.retries.get(vm.uid, (None, 0))
        pause = min(first * (1 << min(count, 10)), longest)
        self._memory.retries[vm.uid] = (self._clock.now() + pause, count + 1)

    def _cloud_refused(self, vm: Vm, error: CloudError, *, builds: bool) -> None:
        """A call to the cloud failed: hold what has the same cause, condemn nothing.

        Args:
            vm: of which VM.
            error: what the cloud said.
            builds: whether it was asked for a server. A server that may not be deleted or rebuilt,
                say since somebody has locked it, is no reason to build no others.
        """
        self._again(vm, pace.BACKOFF_FIRST, pace.BACKOFF_MAX)
        if builds:
            self._recorder.build_refused(vm, error)
        match error:
            case CredentialsRefused():
                self._setbacks.refused("", error.reason, str(error))
            case CapacityRefused():
                self._no_room(vm, error.reason, str(error))
            case RequestRejected() | DependencyMissing() if builds:
                self._recipe.doubt()
                self._setbacks.refused("", error.reason, str(error))
            case _:
                log.info("VM %s: %s", vm.ref, error)
                self._setbacks.fault(error.reason, str(error))

    async def _build_failed(self, vm: Vm, failure: BuildFailed) -> None:
        """A server failed: the WarmVM goes, and the pool holds or slows down."""
        log.warning("VM %s failed: %s: %s", vm.ref, failure.reason, failure)
        self._recorder.build_failed(vm, failure.reason, str(failure), failure.kind)
        ends = f"; its console ends: {failure.console[-CONSOLE_SHOWN:]}" if failure.console else ""
        self._tell(failure.reason, f"VM {vm.ref.name} failed: {failure}{ends}")
        if failure.kind is FaultClass.CAPACITY:
            self._no_room(vm, failure.reason, str(failure))
        elif self._surveyor.failed(vm) and failure.kind is FaultClass.HOSTS:
            self._setbacks.fault(failure.reason, str(failure))
        else:
            self._setbacks.failed(failure.reason, str(failure))
        with contextlib.suppress(ClusterError):
            await self._executor.fail(vm, failure, self._keep_until(vm, failure))

    def _keep_until(self, vm: Vm, failure: BuildFailed) -> datetime | None:
        """Until when a failed build is kept that has a server to look at."""
        pool = self._store.pool(self._ref)
        kept = sum(other.keep_until is not None for other in self._store.vms_of(self._ref))
        if pool is None or failure.server is None or kept >= PRESERVED_AT_MOST:
            return None
        return keep_until(vm, pool.preserve, self._clock.now())

    def _no_room(self, vm: Vm, reason: Reason, message: str) -> None:
        """What was refused for want of room: on one hypervisor, or anywhere that Nova looked."""
        if reason is Reason.NO_VALID_HOST and self._surveyor.failed(vm):
            self._setbacks.fault(reason, message)
        else:
            self._setbacks.refused(vm.zone, reason, message)

    def _succeeded(self, vm: Vm) -> None:
        """A build came to its end."""
        self._surveyor.worked(vm)
        self._setbacks.succeeded(vm.uid, vm.zone)
        self._memory.retries.pop(vm.uid, None)
        self._memory.rebuilt.pop(vm.uid, None)
        self._memory.recycling.discard(vm.uid)

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
    """A change of its server is expected soon: it is built, or deleted."""
    vm = view.vm
    settled = vm.phase is Phase.READY or is_sick(vm) or view.taken
    return vm.deleting or not settled
