"""Carries out what a plan says, one action at a time per VM. Thinks as little as it can.

Every method either does what its action says or raises one of our errors; what to do about an
error is decided by the pool's worker. The order of effects matters and is told where it does.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from typing import Final, Never

from warmpool.api.names import (
    API_VERSION,
    LABEL_POOL,
    LABEL_ZONE,
    VM_FINALIZER,
    ClaimPhase,
    Kind,
    Phase,
    Reason,
    VmCondition,
)
from warmpool.api.v1alpha1.base import Condition
from warmpool.api.v1alpha1.pool import Health, ReclaimPolicy
from warmpool.api.v1alpha1.vm import Fault, OwnerPool, WarmVMSpec, WarmVMStatus
from warmpool.domain.actions import CreateVm
from warmpool.domain.cloud import BuildSpec, FaultClass, Place, Server, ServerRequest, ServerState
from warmpool.domain.errors import (
    AimForbidden,
    CloudError,
    ClusterOutcomeUnknown,
    ClusterUnavailable,
    Conflict,
    NotFound,
    OutcomeUnknown,
)
from warmpool.domain.facts import Pool, Vm
from warmpool.domain.ids import Ref, ServerId
from warmpool.planning.condition import condition
from warmpool.ports.clock import Clock
from warmpool.ports.cluster import Body, Cluster, PatchOp
from warmpool.ports.probe import Prober
from warmpool.reconcile.absence import Absences
from warmpool.reconcile.console import ending
from warmpool.reconcile.finalizing import let_go
from warmpool.reconcile.reading import is_another, provider_id, read_claim, read_vm
from warmpool.reconcile.recorder import Mark, Recorder
from warmpool.reconcile.retries import pause_after
from warmpool.reconcile.session import CloudSession
from warmpool.reconcile.store import Store
from warmpool.reconcile.writing import (
    dump,
    forget_user,
    label_value,
    place_labels,
    preserve_vm,
    put_status,
    recycle_vm,
    retain_vm,
    same_uid,
    same_version,
    set_labels,
)

log = logging.getLogger(__name__)

NAME_SUFFIX: Final = 5
"""Characters after the pool's name: with 31 letters, 28 million names."""

NAME_LETTERS: Final = "bcdfghjklmnpqrstvwxz2456789"
"""No vowels and no look-alikes, as Kubernetes' own generated names."""


CONSOLE_LINES: Final = 40
"""Lines of a failed VM's console that are asked for."""

CONSOLE_TIMEOUT: Final = 10.0
"""Seconds that a failed build is kept for the sake of its console."""

CONSOLES_AT_ONCE: Final = 2

_RECYCLING: Final = (Reason.RECYCLING, "its claim has ended: built anew before it is ready again")


_GOING: Final = Phase.TERMINATING.value


class ProbeFailed(Exception):
    """The VM is up as far as Nova knows, and does not answer yet."""


class BuildFailed(Exception):
    """A server ended in ERROR or was never ready: the WarmVM is discarded, the pool counts it."""

    def __init__(
        self,
        reason: Reason,
        message: str,
        kind: FaultClass = FaultClass.VM,
        *,
        console: str = "",
        server: ServerId | None = None,
    ) -> None:
        """`console`: the last that the VM wrote there. `server`: what is there to look at."""
        super().__init__(message)
        self.server = server
        self.reason = reason
        self.kind = kind
        self.console = console


class Executor:
    """Does things for one pool's worker.

    What it writes on a VM is conditional on the version that was decided on: a stalled leader's
    write that arrives late finds the VM changed, and changes nothing.
    """

    def __init__(  # noqa: PLR0913 - it is handed all that it works with
        self,
        store: Store,
        cluster: Cluster,
        prober: Prober,
        clock: Clock,
        rng: random.Random,
        *,
        give_up: Callable[[Vm], Awaitable[None]],
        recorder: Recorder,
    ) -> None:
        """`give_up` deletes a VM that a claim could have, for good."""
        self._give_up = give_up
        self._recorder = recorder
        self._store = store
        self._cluster = cluster
        self._prober = prober
        self._clock = clock
        self._rng = rng
        self._consoles = asyncio.Semaphore(CONSOLES_AT_ONCE)
        self._absences = Absences(clock)

    # -- building -----------------------------------------------------------------------------

    def new_name(self, pool: Pool) -> Ref:
        """A name for a WarmVM that is to be created."""
        suffix = "".join(self._rng.choice(NAME_LETTERS) for _ in range(NAME_SUFFIX))
        return Ref(pool.ref.namespace, f"{pool.ref.name}-{suffix}")

    async def create_vm(self, pool: Pool, ref: Ref, build: CreateVm) -> Vm:
        """Write a WarmVM: the owner stands before its server does."""
        vm = self._took_in(await self._write_vm(ref, new_vm(pool, ref, build)))
        self._recorder.mark(vm.uid, Mark.CREATED)
        return vm

    async def _write_vm(self, ref: Ref, body: Body) -> Body:
        """Create a WarmVM. The name is ours alone, so it is asked for again until that is known.

        Whoever gave up would count it as not there, and create another in its stead.
        """
        unsure = False
        while True:
            try:
                return await self._cluster.create(Kind.WARM_VM, body)
            except Conflict:
                if not unsure:
                    raise
                return await self._cluster.get(Kind.WARM_VM, ref)
            except ClusterOutcomeUnknown as error:
                unsure = True
                await asyncio.sleep(pause_after(error))
            except ClusterUnavailable as error:
                if not unsure:
                    raise
                await asyncio.sleep(pause_after(error))

    async def post(self, vm: Vm, spec: BuildSpec, session: CloudSession) -> None:
        """POST the server of a WarmVM that certainly has none yet."""
        aim = vm.aim if session.capacity.takes(spec, vm.aim) else ""
        request = ServerRequest(
            name=vm.ref.name, owner=vm.uid, spec=spec, zone=vm.zone, hypervisor=aim
        )
        session.capacity.promise(vm.ref, spec, aim)
        self._recorder.mark(vm.uid, Mark.POSTING)
        self._absences.posted(vm.uid)
        try:
            server = await self._create(request, session)
        except OutcomeUnknown:
            self._absences.unsure(vm.uid)
            session.capacity.posted(vm.ref)
            raise
        except CloudError:
            session.capacity.broken(vm.ref)
            raise
        self._recorder.mark(vm.uid, Mark.POSTED)
        session.capacity.posted(vm.ref)
        session.posted(vm.uid, server, vm.ref.name)

    async def _create(self, request: ServerRequest, session: CloudSession) -> ServerId:
        try:
            return await session.cloud.create(request)
        except AimForbidden as error:
            session.capacity.may_not_aim(str(error))
            return await session.cloud.create(replace(request, hypervisor=""))

    async def build(self, vm: Vm, spec: BuildSpec, session: CloudSession) -> bool:
        """Find the server of a WarmVM by its tag, or else POST it; False: it is not certain yet.

        A search by tag is a listing, and those may lie: a server whose POST was answered is asked
        for by its id before another is POSTed, and one that only a former leader may have POSTed
        is searched for some time.
        """
        mine = await session.cloud.find(vm.uid)
        accepted, ours = session.accepted(vm.uid), self._absences.is_ours(vm.uid)
        if mine:
            session.found(min(mine, key=lambda s: (s.created or self._clock.now(), s.id)))
        elif accepted is not None and (seen := await session.cloud.get(accepted)) is not None:
            session.found(replace(seen, owner=vm.uid))
        elif self._absences.is_sure(vm.uid, asked=ours or accepted is not None):
            await self.post(vm, spec, session)
        else:
            return False
        return True

    async def report_building(self, vm: Vm, server: Server) -> None:
        """Show people the server of a build that takes its time."""
        status = WarmVMStatus(
            observed_generation=vm.generation,
            phase=Phase.BUILDING,
            server_id=server.id,
            zone=server.zone,
            created_at=server.created,
            conditions=[
                condition(
                    VmCondition.READY,
                    holds=False,
                    reason=Reason.BUILDING,
                    message=f"Nova says {server.status}",
                    now=self._clock.now(),
                    generation=vm.generation,
                )
            ],
        )
        await self._write_status(vm, status)

    async def make_ready(self, pool: Pool, vm: Vm, server: Server, session: CloudSession) -> None:
        """Probe a server, then write where it is and that it is ready, in this order.

        If it was used, Nova is told first that it is nobody's any more: else it would be taken for
        one that the API server has forgotten the claim of.

        Raises:
            ProbeFailed: it does not answer yet.
        """
        if said := await self.ask(pool.spec.health, server):
            raise ProbeFailed(said)
        self._recorder.mark(vm.uid, Mark.REACHED)
        if vm.dirty:
            await session.mark_free(server)
        place = session.racks.place(server, vm.place)
        body = await self._cluster.patch(
            Kind.WARM_VM,
            vm.ref,
            [
                same_uid(vm.uid),
                same_version(vm.version),
                {
                    "op": "add",
                    "path": "/spec/providerID",
                    "value": provider_id(place.region, server.id),
                },
                {"op": "add", "path": "/spec/dirty", "value": False},
                *forget_user(vm),
                *set_labels(place_labels(place)),
            ],
        )
        vm = self._took_in(body)
        vm = await self._write_status(vm, self._ready_status(vm, server, place))
        self._recorder.built(pool, vm)

    def _ready_status(self, vm: Vm, server: Server, place: Place) -> WarmVMStatus:
        now = self._clock.now()
        checked = condition(
            VmCondition.READY,
            holds=True,
            reason=Reason.ACTIVE_AND_CHECKED,
            message="ACTIVE, placed and checked",
            now=now,
            generation=vm.generation,
        )
        return standing(server, place, ready_at=now, why=checked)

    async def ask(self, health: Health, server: Server) -> str:
        """Probe a VM: empty if it is up, else what it did instead."""
        probe, address = health.probe, next(iter(server.addresses), "")
        if probe is None or probe.none is not None:
            return ""
        if not address:
            return "it has no address any more"
        if probe.http_get is not None:
            return await self._prober.http(address, probe.http_get)
        assert probe.tcp_socket is not None, "the API server knows no other probe"  # noqa: S101
        return await self._prober.tcp(address, probe.tcp_socket.port)

    # -- failing and going --------------------------------------------------------------------

    async def inspect_fault(self, vm: Vm, server: Server, session: CloudSession) -> None:
        """Read why a server is in ERROR, and fail the build for it.

        Raises:
            BuildFailed: always, unless the server recovered meanwhile.
        """
        seen = await session.cloud.get(server.id)
        if seen is None:
            session.gone(vm.uid)
            raise BuildFailed(Reason.SERVER_LOST, "Nova has no such server")
        if seen.state is not ServerState.ERROR:
            session.found(seen)
            return
        fault = seen.fault
        if fault is not None and fault.kind is not FaultClass.VM:
            raise BuildFailed(fault.reason, fault.message, fault.kind)
        reason, text = Reason.BUILD_FAULT, "ERROR without a fault"
        if fault is not None:
            reason, text = fault.reason, fault.message
        await self._give_up_build(seen, session, reason, text)

    async def give_up_late(
        self, vm: Vm, server: Server, session: CloudSession, why: tuple[Reason, str]
    ) -> None:
        """Fail a build that takes too long, if Nova still says of it what the listings said.

        Raises:
            BuildFailed: it does, or has no such server.
        """
        seen = await session.cloud.get(server.id)
        if seen is None:
            session.gone(vm.uid)
            raise BuildFailed(Reason.SERVER_LOST, "Nova has no such server")
        if _progress(seen) != _progress(server):
            session.found(replace(seen, owner=vm.uid))
            return
        await self._give_up_build(seen, session, *why)

    async def _give_up_build(
        self, server: Server, session: CloudSession, reason: Reason, message: str
    ) -> Never:
        """Fail a build for what is the server's own, with the last that it wrote.

        Raises:
            BuildFailed: always.
        """
        console = await self._console(server, session)
        raise BuildFailed(reason, message, console=console, server=server.id)

    async def _console(self, server: Server, session: CloudSession) -> str:
        """The end of a VM's console; empty if it cannot be had soon.

        A host that is dead keeps who asks waiting for a minute, so few ask at a time.
        """
        if not server.host_id or self._consoles.locked():
            return ""
        try:
            async with self._consoles, asyncio.timeout(CONSOLE_TIMEOUT):
                return ending(await session.cloud.console(server.id, CONSOLE_LINES))
        except (CloudError, TimeoutError) as error:
            log.info("the console of %s cannot be read: %s", server.name, error)
            return ""

    async def fail(self, vm: Vm, error: BuildFailed, keep_until: datetime | None = None) -> None:
        """Say on the WarmVM why its build failed, then discard it, or keep it until then."""
        status = self._not_ready(vm, Phase.FAILED, (error.reason, str(error)), error.console)
        server = status.server_id or error.server or ""
        vm = await self._write_status(vm, status.model_copy(update={"server_id": server}))
        if keep_until is None:
            await self.discard(vm)
        else:
            await self.preserve(vm, keep_until)

    async def preserve(self, vm: Vm, until: datetime) -> None:
        """Keep a VM that has failed, outside its pool's account."""
        self._took_in(await self._cluster.patch(Kind.WARM_VM, vm.ref, preserve_vm(vm, until)))

    async def discard(self, vm: Vm) -> None:
        """Delete a WarmVM that is nobody's. It is kept from claims from the first moment on."""
        if not self._store.withhold(vm.uid):
            self._store.put_back(vm.uid)  # somebody's after all
            return
        if vm.phase is Phase.READY:
            await self._give_up(vm)
            return
        try:
            await self._cluster.delete(Kind.WARM_VM, vm.ref, uid=vm.uid, version=vm.version)
        except BaseException:
            self._store.put_back(vm.uid)
            raise

    async def confirm_lost(self, vm: Vm, session: CloudSession) -> None:
        """Ask Nova about one server that a listing lacks; discard its WarmVM on a 404."""
        server = await session.cloud.get(vm.server) if vm.server is not None else None
        if server is None:
            log.warning("the server of VM %s is gone", vm.ref)
            if vm.claim is not None:
                await self.sicken(vm, Reason.SERVER_LOST, "Nova has no such server any more")
            else:
                await self.discard(vm)
        elif server.owner is not None:
            session.found(server)
        else:
            session.found(replace(server, owner=vm.uid))

    async def release(self, vm: Vm) -> None:
        """Give up a VM whose claim is gone: asked of the API server, since a watch may lag."""
        claim = vm.claim
        if claim is None:
            return
        try:
            body = await self._cluster.get(Kind.VM_CLAIM, Ref(claim.namespace, claim.name))
            is_other = is_another(body, claim.uid)
            if not is_other and read_claim(body).phase is not ClaimPhase.RELEASED:
                self._store.apply(Kind.VM_CLAIM, body)
                return
        except NotFound:
            pass
        self._recorder.released(vm)
        match vm.reclaim:
            case ReclaimPolicy.RETAIN:
                patch = retain_vm(vm)
                self._took_in(await self._cluster.patch(Kind.WARM_VM, vm.ref, patch))
            case ReclaimPolicy.RECYCLE if vm.phase in (Phase.READY, Phase.BUILDING):
                await self._begin_recycling(vm)
            case _:
                await self._cluster.delete(Kind.WARM_VM, vm.ref, uid=vm.uid, version=vm.version)

    async def _begin_recycling(self, vm: Vm) -> None:
        """Not ready first, then nobody's: in no moment is a used VM free."""
        if vm.phase is Phase.READY:
            vm = await self._write_status(vm, self._not_ready(vm, Phase.BUILDING, _RECYCLING))
        self._took_in(await self._cluster.patch(Kind.WARM_VM, vm.ref, recycle_vm(vm)))

    async def rebuild(self, server: Server, spec: BuildSpec, session: CloudSession) -> None:
        """Have Nova build the server of a used VM anew, from the image of now."""
        await session.cloud.rebuild(server.id, spec.image_id)
        session.kick()

    async def relocate(self, vm: Vm, server: Server, place: Place) -> None:
        """Write down where a server stands now."""
        same = [same_uid(vm.uid), same_version(vm.version)]
        patch = [*same, *set_labels(place_labels(place))]
        vm = self._took_in(await self._cluster.patch(Kind.WARM_VM, vm.ref, patch))
        ops: list[PatchOp] = [
            same_uid(vm.uid),
            same_version(vm.version),
            {"op": "add", "path": "/status/zone", "value": place.zone},
            {"op": "add", "path": "/status/rack", "value": place.rack},
            {"op": "add", "path": "/status/hypervisor", "value": place.hypervisor},
            {"op": "add", "path": "/status/addresses", "value": list(server.addresses)},
        ]
        self._took_in(await self._cluster.patch(Kind.WARM_VM, vm.ref, ops, status=True))

    async def sicken(self, vm: Vm, reason: Reason, message: str) -> None:
        """Say on a WarmVM that it does not work. From the first moment on no claim gets it."""
        self._store.doubt(vm.uid)
        status = self._not_ready(vm, Phase.FAILED, (reason, message))
        await self._write_status(vm, status.model_copy(update={"ready_at": vm.ready_at}))
        self._store.trust(vm.uid)

    async def recover(self, vm: Vm, server: Server, place: Place) -> None:
        """Say on a WarmVM that it works again."""
        status = self._ready_status(vm, server, place)
        again = {"ready_at": vm.ready_at or status.ready_at}
        await self._write_status(vm, status.model_copy(update=again))
        self._store.trust(vm.uid)

    def _not_ready(
        self, vm: Vm, phase: Phase, why: tuple[Reason, str], console: str = ""
    ) -> WarmVMStatus:
        """The status of a VM that has a server and a place, and is not ready."""
        reason, message = why[0], why[1][:1000]
        now = self._clock.now()
        fault = Fault(reason=reason.value, message=message, time=now, console=console)
        return WarmVMStatus(
            observed_generation=vm.generation,
            phase=phase,
            server_id=vm.server or "",
            hostname=vm.hostname,
            addresses=list(vm.addresses),
            zone=vm.place.zone,
            rack=vm.place.rack,
            hypervisor=vm.place.hypervisor,
            created_at=vm.created_at,
            fault=fault if phase is Phase.FAILED else None,
            conditions=[
                condition(
                    VmCondition.READY,
                    holds=False,
                    reason=reason,
                    message=message,
                    now=now,
                    generation=vm.generation,
                )
            ],
        )

    async def terminate(self, vm: Vm, session: CloudSession) -> bool:
        """Delete the server of a WarmVM that is going; True once Nova has none.

        Raises:
            CloudError: it could not be asked for.
        """
        if vm.phase is not Phase.TERMINATING:
            self._recorder.goes(vm)
            ops = [same_uid(vm.uid), {"op": "add", "path": "/status/phase", "value": _GOING}]
            self._took_in(await self._cluster.patch(Kind.WARM_VM, vm.ref, ops, status=True))
        known = self._known(vm, session)
        servers = await self._servers_of(vm, known, session)
        if not servers:
            if not self._absences.is_sure(vm.uid, asked=bool(known)):
                return False
            session.gone(vm.uid)
            await self._let_go(vm)
            self._absences.over(vm.uid)
            return True
        self._absences.found(vm.uid, servers)
        for server in servers:
            await session.cloud.delete(server)
        session.kick()
        return False

    def _known(self, vm: Vm, session: CloudSession) -> set[ServerId]:
        """Ids that its servers have or had."""
        seen = session.server(vm.uid)
        ids = {vm.server, session.accepted(vm.uid), seen.id if seen is not None else None}
        ids |= {stray.id for stray in session.strays() if stray.owner == vm.uid}
        return {server for server in ids if server is not None} | self._absences.met(vm.uid)

    async def _servers_of(
        self, vm: Vm, known: set[ServerId], session: CloudSession
    ) -> set[ServerId]:
        found = {server.id for server in await session.cloud.find(vm.uid)}
        for server in known - found:
            if await session.cloud.get(server) is not None:
                found.add(server)
        return found

    async def _let_go(self, vm: Vm) -> None:
        """Take our finalizer off: the server is gone."""
        answer = await let_go(self._cluster, Kind.WARM_VM, vm.ref, vm.uid, VM_FINALIZER)
        if answer is not None:
            gone = not answer["metadata"].get("finalizers")
            self._store.apply(Kind.WARM_VM, answer, deleted=gone)

    # -- inside -------------------------------------------------------------------------------

    def _took_in(self, body: Body) -> Vm:
        self._store.apply(Kind.WARM_VM, body)
        return read_vm(body)

    async def _write_status(self, vm: Vm, status: WarmVMStatus) -> Vm:
        patch: list[PatchOp] = put_status(vm.uid, status, version=vm.version)
        body = await self._cluster.patch(Kind.WARM_VM, vm.ref, patch, status=True)
        return self._took_in(body)


def _progress(server: Server) -> tuple[object, ...]:
    """How far a build has come."""
    return server.state, server.busy, server.host_id, server.addresses


def standing(server: Server, place: Place, *, ready_at: datetime, why: Condition) -> WarmVMStatus:
    """The status of a WarmVM whose server stands at a place, and why it is there."""
    return WarmVMStatus(
        observed_generation=why.observed_generation,
        phase=Phase.READY,
        server_id=server.id,
        hostname=server.hostname,
        addresses=list(server.addresses),
        zone=place.zone,
        rack=place.rack,
        hypervisor=place.hypervisor,
        created_at=server.created,
        ready_at=ready_at,
        conditions=[why],
    )


def new_vm(
    pool: Pool, ref: Ref, build: CreateVm, provider_id: str | None = None
) -> dict[str, object]:
    """A WarmVM to be written; with `provider_id`, of a server that is there already."""
    zone = build.zone
    spec = WarmVMSpec(
        pool_ref=OwnerPool(name=pool.ref.name, uid=pool.uid),
        revision=pool.revision,
        zone=zone,
        hypervisor=build.hypervisor,
        provider_id=provider_id,
        reclaim_policy=pool.spec.reclaim_policy,
    )
    labels = {LABEL_POOL: pool.ref.name}
    if zone:
        labels[LABEL_ZONE] = label_value(zone)
    return {
        "apiVersion": API_VERSION,
        "kind": Kind.WARM_VM.value,
        "metadata": {
            "namespace": ref.namespace,
            "name": ref.name,
            "labels": labels,
            "finalizers": [VM_FINALIZER],
        },
        "spec": dump(spec),
    }
