"""Does to VMs what a pool's plan says."""

import asyncio
from datetime import timedelta
from typing import Final, assert_never

from warmpool.api.names import Phase, Reason
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
from warmpool.domain.cloud import BuildSpec, Server
from warmpool.domain.errors import NotFound, OutcomeUnknown
from warmpool.domain.facts import Pool, Vm
from warmpool.ports.clock import Clock
from warmpool.reconcile.checks import Checks
from warmpool.reconcile.custody import Custody
from warmpool.reconcile.execute import Executor
from warmpool.reconcile.memory import Memory
from warmpool.reconcile.outcomes import Outcomes
from warmpool.reconcile.recipe import Recipe
from warmpool.reconcile.recorder import Recorder
from warmpool.reconcile.session import CloudSession
from warmpool.reconcile.setbacks import Setbacks
from warmpool.reconcile.store import Store

SEARCH_EVERY: Final = timedelta(seconds=1)
"""Between searches for a server that a former leader may have POSTed; doubled to `SEARCH_MAX`."""

SEARCH_MAX: Final = timedelta(seconds=4)

TERMINATE_EVERY: Final = timedelta(seconds=1)
"""Between looks at a server that is being deleted; doubled up to `TERMINATE_MAX`."""

TERMINATE_MAX: Final = timedelta(seconds=20)


class Deeds:
    """Of one pool: picks the executor's method for an action, and remembers what came of it."""

    def __init__(  # noqa: PLR0913 - it is handed all that it works with
        self,
        executor: Executor,
        outcomes: Outcomes,
        custody: Custody,
        *,
        store: Store,
        clock: Clock,
        memory: Memory,
        setbacks: Setbacks,
        checks: Checks,
        recipe: Recipe,
        recorder: Recorder,
        slots: asyncio.Semaphore,
    ) -> None:
        """`slots`: what an action holds that keeps others waiting. Keeping a VM takes its own."""
        self._executor = executor
        self._outcomes = outcomes
        self._custody = custody
        self._store = store
        self._clock = clock
        self._memory = memory
        self._setbacks = setbacks
        self._checks = checks
        self._recipe = recipe
        self._recorder = recorder
        self._slots = slots

    async def post(self, vm: Vm, session: CloudSession) -> None:
        """Ask for the server of a WarmVM that was just written."""
        spec = self._recipe.spec_for(vm)
        if spec is not None:
            await self._executor.post(vm, spec, session)
            self._setbacks.posted(vm.uid)

    async def do(self, action: Action, pool: Pool, session: CloudSession | None) -> None:
        """Carry an action out; raises what the executor raises."""
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
                self._outcomes.tell(Reason.PRESERVED, note)

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
                    self._outcomes.again(vm, SEARCH_EVERY, SEARCH_MAX)
            case Rebuild(vm=vm, server=server):
                if spec is not None:
                    await self._rebuild(vm, server, spec, session)
                    moment = self._clock.now(), self._clock.monotonic()
                    self._memory.rebuilt[vm.uid] = moment
            case ReportBuilding(vm=vm, server=server):
                await do.report_building(vm, server)
            case MakeReady(vm=vm, server=server):
                await do.make_ready(pool, vm, server, session)
                self._outcomes.succeeded(vm)
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
                await do.recover(vm, action.server, session.racks.place(action.server, vm.place))
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
                await do.recover(vm, server, session.racks.place(server, vm.place))
            case MarkClaimed(vm=vm, server=server):
                if vm.claim is not None:
                    await session.mark_claim(server, vm.claim, vm.pool)
            case Keep(vm=vm, server=server):
                await self._custody.keep(vm, server, lambda: self._session(vm), self._slots)
            case Terminate(vm=vm):
                if not await do.terminate(vm, session):
                    self._outcomes.again(vm, TERMINATE_EVERY, TERMINATE_MAX)

    async def _session(self, vm: Vm) -> CloudSession:
        """The session of the pool's credentials as they are now."""
        pool = self._store.pool(vm.pool)
        if pool is None:
            raise NotFound(f"pool {vm.pool}")
        return await self._recipe.session(pool)
