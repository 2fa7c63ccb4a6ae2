"""Carries out what a plan says, one action at a time per VM. Thinks as little as it can.

Every method either does what its action says or raises one of our errors; what to do about an
error is decided by the pool's worker. The order of effects matters and is told where it does.
"""

import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

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
from warmpool.api.v1alpha1.pool import ReclaimPolicy
from warmpool.api.v1alpha1.vm import Fault, OwnerPool, WarmVMSpec, WarmVMStatus
from warmpool.domain.cloud import BuildSpec, FaultClass, Place, Server, ServerRequest, ServerState
from warmpool.domain.errors import (
    ClusterOutcomeUnknown,
    Conflict,
    NotFound,
    TestFailed,
)
from warmpool.domain.facts import Pool, Vm
from warmpool.domain.ids import Ref, ServerId
from warmpool.planning.condition import condition
from warmpool.ports.clock import Clock
from warmpool.ports.cluster import Body, Cluster, PatchOp
from warmpool.ports.probe import Prober
from warmpool.reconcile.clouds import CloudSession
from warmpool.reconcile.reading import provider_id, read_claim, read_vm
from warmpool.reconcile.store import Store
from warmpool.reconcile.writing import (
    dump,
    label_value,
    place_labels,
    pointer,
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


_RECYCLING: Final = (Reason.RECYCLING, "its claim has ended: built anew before it is ready again")


_GOING: Final = Phase.TERMINATING.value


class ProbeFailed(Exception):
    """The VM is up as far as Nova knows, and does not answer yet."""


class BuildFailed(Exception):
    """A server ended in ERROR or was never ready: the WarmVM is discarded, the pool counts it."""

    def __init__(self, reason: Reason, message: str, *, capacity: bool) -> None:
        super().__init__(message)
        self.reason = reason
        self.capacity = capacity


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
    ) -> None:
        """`give_up` deletes a VM that a claim could have, for good."""
        self._give_up = give_up
        self._store = store
        self._cluster = cluster
        self._prober = prober
        self._clock = clock
        self._rng = rng

    # -- building -----------------------------------------------------------------------------

    def new_name(self, pool: Pool) -> Ref:
        """A name for a WarmVM that is to be created."""
        suffix = "".join(self._rng.choice(NAME_LETTERS) for _ in range(NAME_SUFFIX))
        return Ref(pool.ref.namespace, f"{pool.ref.name}-{suffix}")

    async def create_vm(self, pool: Pool, ref: Ref, zone: str) -> Vm:
        """Write a WarmVM: the owner stands before its server does."""
        body = _new_vm(pool, ref, zone)
        try:
            return self._took_in(await self._cluster.create(Kind.WARM_VM, body))
        except ClusterOutcomeUnknown:
            # The name is ours alone: whether it is there tells what has happened.
            return self._took_in(await self._cluster.get(Kind.WARM_VM, ref))

    async def post(self, vm: Vm, spec: BuildSpec, session: CloudSession) -> None:
        """POST the server of a WarmVM that certainly has none yet."""
        request = ServerRequest(name=vm.ref.name, owner=vm.uid, spec=spec, zone=vm.zone)
        server = await session.cloud.create(request)
        session.posted(vm.uid, server, vm.ref.name)

    async def build(self, vm: Vm, spec: BuildSpec, session: CloudSession) -> None:
        """Find the server of a WarmVM by its tag, or else POST it.

        A search by tag is a listing, and those may lie: a server whose POST was answered is asked
        for by its id before another is POSTed.
        """
        mine = await session.cloud.find(vm.uid)
        accepted = session.accepted(vm.uid)
        if mine:
            session.found(min(mine, key=lambda s: (s.created or self._clock.now(), s.id)))
        elif accepted is not None and (seen := await session.cloud.get(accepted)) is not None:
            session.found(replace(seen, owner=vm.uid))
        else:
            await self.post(vm, spec, session)

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

        Raises:
            ProbeFailed: it does not answer yet.
        """
        await self._probe(pool, server)
        place = place_of(server, session)
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
                *set_labels(place_labels(place)),
            ],
        )
        vm = self._took_in(body)
        await self._write_status(vm, self._ready_status(vm, server, place))

    def _ready_status(self, vm: Vm, server: Server, place: Place) -> WarmVMStatus:
        now = self._clock.now()
        return WarmVMStatus(
            observed_generation=vm.generation,
            phase=Phase.READY,
            server_id=server.id,
            hostname=server.hostname,
            addresses=list(server.addresses),
            zone=place.zone,
            rack=place.rack,
            hypervisor=place.hypervisor,
            created_at=server.created,
            ready_at=now,
            conditions=[
                condition(
                    VmCondition.READY,
                    holds=True,
                    reason=Reason.ACTIVE_AND_CHECKED,
                    message="ACTIVE, placed and checked",
                    now=now,
                    generation=vm.generation,
                )
            ],
        )

    async def _probe(self, pool: Pool, server: Server) -> None:
        probe = pool.spec.health.probe
        if probe is None:
            return
        answers = await self._prober.tcp(server.addresses[0], probe.tcp_socket.port)
        if not answers:
            raise ProbeFailed(f"{server.addresses[0]}:{probe.tcp_socket.port} does not answer")

    # -- failing and going --------------------------------------------------------------------

    async def inspect_fault(self, vm: Vm, server: Server, session: CloudSession) -> None:
        """Read why a server is in ERROR, and fail the build for it.

        Raises:
            BuildFailed: always, unless the server recovered meanwhile.
        """
        seen = await session.cloud.get(server.id)
        if seen is None:
            session.gone(vm.uid)
            raise BuildFailed(Reason.SERVER_LOST, "Nova has no such server", capacity=False)
        if seen.state is not ServerState.ERROR:
            session.found(seen)
            return
        fault = seen.fault
        if fault is None:
            raise BuildFailed(Reason.BUILD_FAULT, "ERROR without a fault", capacity=False)
        raise BuildFailed(fault.reason, fault.message, capacity=fault.kind is FaultClass.CAPACITY)

    async def fail(self, vm: Vm, error: BuildFailed) -> None:
        """Say on the WarmVM why its build failed, then discard it."""
        status = self._not_ready(vm, Phase.FAILED, (error.reason, str(error)))
        await self.discard(await self._write_status(vm, status))

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
        except Conflict:
            self._store.put_back(vm.uid)
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
            seen = read_claim(body)
            if seen.uid == claim.uid and seen.phase is not ClaimPhase.RELEASED:
                self._store.apply(Kind.VM_CLAIM, body)
                return
        except NotFound:
            pass
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
        """Say on a claimed WarmVM that it does not work."""
        await self._write_status(vm, self._not_ready(vm, Phase.FAILED, (reason, message)))

    async def recover(self, vm: Vm, server: Server, place: Place) -> None:
        """Say on a claimed WarmVM that it works again."""
        await self._write_status(vm, self._ready_status(vm, server, place))

    def _not_ready(self, vm: Vm, phase: Phase, why: tuple[Reason, str]) -> WarmVMStatus:
        """The status of a VM that has a server and a place, and is not ready."""
        reason, message = why[0], why[1][:1000]
        now = self._clock.now()
        failed = phase is Phase.FAILED
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
            fault=Fault(reason=reason.value, message=message, time=now) if failed else None,
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
            ops = [same_uid(vm.uid), {"op": "add", "path": "/status/phase", "value": _GOING}]
            self._took_in(await self._cluster.patch(Kind.WARM_VM, vm.ref, ops, status=True))
        servers = await self._servers_of(vm, session)
        if not servers:
            session.gone(vm.uid)
            await self._let_go(vm)
            return True
        for server in servers:
            await session.cloud.delete(server)
        session.kick()
        return False

    async def _servers_of(self, vm: Vm, session: CloudSession) -> set[ServerId]:
        found = {server.id for server in await session.cloud.find(vm.uid)}
        known = session.server(vm.uid)
        for server in {vm.server, known.id if known is not None else None} - found - {None}:
            if server is not None and await session.cloud.get(server) is not None:
                found.add(server)
        return found

    async def _let_go(self, vm: Vm) -> None:
        """Take our finalizer off: the server is gone."""
        body = await self._cluster.get(Kind.WARM_VM, vm.ref)
        finalizers = body["metadata"].get("finalizers", [])
        if body["metadata"]["uid"] != vm.uid or VM_FINALIZER not in finalizers:
            return
        index = str(finalizers.index(VM_FINALIZER))
        path = pointer("metadata", "finalizers", index)
        try:
            answer = await self._cluster.patch(
                Kind.WARM_VM,
                vm.ref,
                [
                    same_uid(vm.uid),
                    {"op": "test", "path": path, "value": VM_FINALIZER},
                    {"op": "remove", "path": path},
                ],
            )
        except (NotFound, TestFailed):
            return
        self._store.apply(Kind.WARM_VM, answer, deleted=not answer["metadata"].get("finalizers"))

    # -- inside -------------------------------------------------------------------------------

    def _took_in(self, body: Body) -> Vm:
        self._store.apply(Kind.WARM_VM, body)
        return read_vm(body)

    async def _write_status(self, vm: Vm, status: WarmVMStatus) -> Vm:
        patch: list[PatchOp] = put_status(vm.uid, status, version=vm.version)
        body = await self._cluster.patch(Kind.WARM_VM, vm.ref, patch, status=True)
        return self._took_in(body)


def place_of(server: Server, session: CloudSession) -> Place:
    """Where a server stands. Without a view of hosts, `hostId` still tells hypervisors apart."""
    hypervisor = server.hypervisor or server.host or server.host_id[:16]
    return Place(
        region=session.cloud.region,
        zone=server.zone,
        rack=session.rack_of(server),
        hypervisor=hypervisor,
    )


def _new_vm(pool: Pool, ref: Ref, zone: str) -> dict[str, object]:
    spec = WarmVMSpec(
        pool_ref=OwnerPool(name=pool.ref.name, uid=pool.uid),
        zone=zone,
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
