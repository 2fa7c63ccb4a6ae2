"""One term of leadership, from taking the ledger over to handing it on."""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from warmpool.api.names import ClaimPhase
from warmpool.domain.cloud import Server
from warmpool.domain.errors import CloudError, CloudUnavailable, ClusterError, NotLeading
from warmpool.domain.facts import Vm
from warmpool.domain.ids import ClaimUid, InstallationId, Ref, VmUid
from warmpool.domain.pools import Problem
from warmpool.ports.catalogue import Catalogue
from warmpool.ports.clock import Clock
from warmpool.ports.cloud import Cloud
from warmpool.ports.cluster import Cluster
from warmpool.ports.probe import Prober
from warmpool.ports.racks import OpenRacks
from warmpool.reconcile.binder import Binder
from warmpool.reconcile.clerk import Clerk
from warmpool.reconcile.clouds import Clouds
from warmpool.reconcile.custody import ASK_AGAIN, Custody
from warmpool.reconcile.events import Announcer
from warmpool.reconcile.execute import Executor
from warmpool.reconcile.fence import Fenced, FencedCloud
from warmpool.reconcile.keeper import Keeper
from warmpool.reconcile.ledger import Ledger
from warmpool.reconcile.lookback import LookBack
from warmpool.reconcile.orphans import Orphans
from warmpool.reconcile.pools import PoolWorker
from warmpool.reconcile.recorder import Emit, Recorder, unheard
from warmpool.reconcile.store import Change, Store
from warmpool.reconcile.sweeper import READ_WITHIN, Comparer, Sweeper
from warmpool.reconcile.traffic import Traffic
from warmpool.reconcile.vitals import Beat, Loop, Vitals
from warmpool.reconcile.workers import Pools

log = logging.getLogger(__name__)

TAKEOVER_RETRY: Final = 0.3
"""Seconds between attempts to take over while the API server does not answer."""

OpenCloud = Callable[[str, str, InstallationId], Cloud]
"""Text of a clouds.yaml, name of a cloud in it, our mark: to a connection. Raises CloudError."""


@dataclass(frozen=True, slots=True)
class World:
    """All that a term works with."""

    store: Store
    cluster: Cluster
    open_cloud: OpenCloud
    open_racks: OpenRacks
    catalogue: Catalogue
    prober: Prober
    clock: Clock
    rng: random.Random
    namespace: str
    identity: str
    new_installation: Callable[[], InstallationId]
    vitals: Vitals
    traffic: Traffic
    emit: Emit = unheard
    """Takes the records of what happens."""


async def lead(world: World, leads: Callable[[], bool]) -> None:
    """Lead until cancelled: called once for each time the Lease is won.

    Raises:
        NotLeading: another leader has taken over.
    """
    fenced = Fenced(world.cluster, leads)
    ledger = Ledger(
        fenced,
        world.clock,
        namespace=world.namespace,
        holder=world.identity,
        new_installation=world.new_installation,
    )
    with world.vitals.pulse("takeover", READ_WITHIN) as beat:
        await _take_over(ledger, Comparer(world.store, world.cluster), leads, beat)
    log.info("took over: epoch %d, %d bindings to finish", ledger.epoch, len(ledger.entries))
    if ledger.look_back:
        log.warning("nobody led for a while: VMs are held against Nova before they are handed out")
    recorder = Recorder(world.store, world.clock, world.emit)
    recorder.led(world.identity, ledger.epoch)
    since = world.clock.monotonic()
    try:
        await _Term(world, fenced, ledger, recorder).run()
    finally:
        recorder.led(world.identity, ledger.epoch, since)


async def _take_over(
    ledger: Ledger, comparer: Comparer, leads: Callable[[], bool], beat: Beat
) -> None:
    """First the ledger, so that the former leader's commits fail; then one consistent look."""
    while leads():
        beat()
        try:
            await ledger.take_over()
            await comparer.compare()
        except ClusterError as error:
            log.info("cannot take over yet: %s", error)
            await asyncio.sleep(TAKEOVER_RETRY)
        else:
            return
    raise NotLeading("the lease ran out before the ledger was taken over")


def _is_marked_for_another(server: Server, claim: ClaimUid) -> bool:
    marked = server.marks.claim
    return marked is not None and marked.uid != claim


class _Term:
    """The loops of one term, and who wakes whom."""

    def __init__(self, world: World, fenced: Fenced, ledger: Ledger, recorder: Recorder) -> None:
        self._world = world
        self._fenced = fenced
        self._ledger = ledger
        self._recorder = recorder
        self._look_back = LookBack(self._doubtful(), self._looked_at_one)
        self._clouds = Clouds(
            fenced,
            self._open_cloud,
            world.clock,
            world.rng,
            world.vitals,
            open_racks=world.open_racks,
            wake_vms=self._wake_vms,
            wake_pool=self._wake_pool,
            nudge=self._nudge_pool,
        )
        self._pools = Pools(world.store, self._new_worker, world.vitals)
        self._announcer = Announcer(fenced, world.clock, world.identity, world.traffic)
        self._custody = Custody(world.store, fenced, world.clock, self._announcer)
        self._binder = Binder(
            world.store,
            ledger,
            fenced,
            world.clock,
            traffic=world.traffic,
            announcer=self._announcer,
            want=self._pools.want,
            recorder=recorder,
            waits=self._look_back.waits,
            is_anothers=self._is_anothers,
        )
        self._executor = Executor(
            world.store,
            fenced,
            world.prober,
            world.clock,
            world.rng,
            give_up=self._binder.give_up,
            recorder=recorder,
        )
        self._keeper = Keeper(
            world.store,
            fenced,
            world.clock,
            announcer=self._announcer,
            annotate=self._annotate,
            confirm=ledger.confirm,
        )
        compare = Comparer(world.store, world.cluster).compare
        self._sweeper = Sweeper(world.store, self._clouds, world.clock, self._custody, compare)
        self._orphans = Orphans(world.store, fenced, world.clock)
        self._clerk = Clerk(world.store, fenced, world.clock)

    async def run(self) -> None:
        if self._ledger.look_back and self._look_back.over_everywhere:
            self._ledger.looked_back()
        unlisten = self._world.store.listen(self._changed)
        unlisten_catalogue = self._world.catalogue.listen(self._entry_changed)
        loops: dict[str, Loop] = {
            "binder": self._binder.run,
            "pools": self._pools.run,
            "keeper": self._keeper.run,
            "events": self._announcer.run,
            "sweeper": self._sweeper.run,
            "orphans": self._orphans.run,
        }
        if self._world.catalogue is self._world.store.flavors:
            loops["clerk"] = self._clerk.run
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._clouds.run(), name="clouds")
                for name, loop in loops.items():
                    tasks.create_task(self._world.vitals.watch(name, loop), name=name)
        finally:
            unlisten()
            unlisten_catalogue()
            self._world.store.forget_commitments()

    async def _is_anothers(self, vm: Vm, claim: ClaimUid) -> bool:
        """Whether Nova, asked now, says that a VM is in use by another claim than this one."""
        while True:
            try:
                pool = self._world.store.pool(vm.pool)
                session = await self._clouds.session(pool) if pool is not None else None
                if session is None or isinstance(session, Problem):
                    return False
                server = session.server(vm.uid, vm.server)
                if server is None or not _is_marked_for_another(server, claim):
                    return False
                seen = await session.cloud.get(server.id)  # a listing may be older than our write
            except CloudError as error:
                log.info("VM %s: %s", vm.ref, error)
                await asyncio.sleep(ASK_AGAIN)
            else:
                return seen is not None and _is_marked_for_another(seen, claim)

    def _doubtful(self) -> list[Ref]:
        """Pools to be held against Nova first: one without VMs has none to hand out or to lose."""
        if not self._ledger.look_back:
            return []
        store = self._world.store
        return [pool.ref for pool in store.pools() if store.vms_by_uid(pool.ref)]

    def _looked_at_one(self) -> None:
        if self._look_back.over_everywhere:
            log.info("all VMs were held against Nova")
            self._ledger.looked_back()
        self._binder.wake()

    def _open_cloud(self, clouds_yaml: str, cloud: str) -> Cloud:
        opened = self._world.open_cloud(clouds_yaml, cloud, self._ledger.installation)
        return FencedCloud(opened, self._fenced.check)

    def _new_worker(self, pool: Ref) -> PoolWorker:
        return PoolWorker(
            pool,
            store=self._world.store,
            cluster=self._fenced,
            clouds=self._clouds,
            executor=self._executor,
            custody=self._custody,
            look_back=self._look_back,
            clock=self._world.clock,
            rng=self._world.rng,
            catalogue=self._world.catalogue,
            note=self._clerk.note,
            traffic=self._world.traffic,
            wanted=self._pools.wanted,
            announce=self._announcer.say,
            recorder=self._recorder,
        )

    async def _annotate(self, vm: Vm, metadata: Mapping[str, str]) -> None:
        pool = self._world.store.pool(vm.pool)
        if pool is None or vm.server is None:
            return
        session = await self._clouds.session(pool)
        if isinstance(session, Problem):
            raise CloudUnavailable(session.message, reason=session.reason)
        if (problem := session.problem) is not None:  # each call may be a login that is refused
            raise CloudUnavailable(problem.message, reason=problem.reason)
        await session.cloud.set_metadata(vm.server, metadata)

    def _entry_changed(self, name: str) -> None:
        self._clerk.wake()
        for pool in self._world.store.pools():
            ref = pool.spec.template.flavor_ref
            if ref is not None and ref.name == name:
                self._pools.wake(pool.ref)

    def _changed(self, change: Change) -> None:
        self._binder.wake()
        self._recorder.changed(change)
        if change.claim is not None:
            self._keeper.touch(change.claim)
        if change.pool is not None:
            self._pools.wake(change.pool, change.vm)
        elif change.claim is not None:
            self._claim_changed(change.claim)

    def _claim_changed(self, uid: ClaimUid) -> None:
        """The end of a claim is its VMs' business."""
        claim = self._world.store.claim(uid)
        if claim is None or claim.phase is ClaimPhase.RELEASED:
            for vm in self._world.store.vms_of_claim(uid):
                self._pools.wake(vm.pool, vm.uid)

    def _wake_vms(self, owners: Iterable[VmUid]) -> None:
        for owner in owners:
            vm = self._world.store.vm(owner)
            if vm is not None:
                self._pools.wake(vm.pool, vm.uid)

    def _wake_pool(self, pool: Ref) -> None:
        self._pools.look_at_all(pool)

    def _nudge_pool(self, pool: Ref) -> None:
        self._pools.wake(pool)
