"""Puts servers that are there already under a pool. Run by hand, beside the operator.

The WarmVM is written before the server is marked: a server with our mark and no WarmVM is leaked,
and would be swept. What was cut short is gone on with when it is run again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from warmpool.api.names import Kind
from warmpool.domain.actions import CreateVm
from warmpool.domain.adoption import Existing, Progress, Step, Verdict
from warmpool.domain.cloud import BuildSpec
from warmpool.domain.errors import CloudError, ClusterError, Conflict, NotFound
from warmpool.domain.facts import Pool, Vm
from warmpool.domain.ids import Ref, ServerId, VmUid
from warmpool.planning.adoption import closed, unmarked, verdicts
from warmpool.ports.cluster import Cluster
from warmpool.ports.estate import Estate
from warmpool.reconcile.execute import new_vm
from warmpool.reconcile.reading import provider_id, read_pool, read_vm


@dataclass(frozen=True, slots=True)
class Survey:
    """What could be adopted, and what was begun and not finished."""

    verdicts: Sequence[Verdict]
    unmarked: Sequence[tuple[ServerId, VmUid]]
    """Servers that a WarmVM of the pool names and that do not carry its mark."""


class Adoption:
    """Of servers by one pool."""

    def __init__(self, pool: Pool, region: str, cluster: Cluster, estate: Estate) -> None:
        self._pool = pool
        self._region = region
        self._cluster = cluster
        self._estate = estate

    async def survey(self, spec: BuildSpec, wanted: Callable[[Existing], bool]) -> Survey:
        """Judge the servers that are wanted.

        Raises:
            CloudError, ClusterError: somebody did not answer.
        """
        vms = [read_vm(body) for body in (await self._cluster.list(Kind.WARM_VM)).items]
        servers = [each for each in await self._estate.existing() if wanted(each)]
        owned = {vm.server: vm for vm in vms if vm.server is not None}
        named = {server: str(vm.ref) for server, vm in owned.items()}
        judged = verdicts(self._pool, spec, servers, owned=named, room=self._room(vms))
        left = [(e.server.id, owned[e.server.id].uid) for e in unmarked(servers, named)]
        return Survey(judged, left)

    def _room(self, vms: Sequence[Vm]) -> int:
        """How many more VMs the pool wants."""
        mine = [vm for vm in vms if vm.pool == self._pool.ref and not vm.deleting]
        room = self._pool.spec.replicas - sum(vm.claim is None and not vm.retained for vm in mine)
        if self._pool.spec.max_size is None:
            return room
        return min(room, self._pool.spec.max_size - sum(not vm.retained for vm in mine))

    async def carry_out(self, survey: Survey) -> Progress:
        """Mark what was begun before, then adopt what can be, one by one up to what goes wrong."""
        progress = Progress()
        try:
            for server, owner in survey.unmarked:
                progress.steps[server] = Step.BEGUN
                await self._estate.mark(server, owner)
                progress.steps[server] = Step.FINISHED
            for verdict in survey.verdicts:
                if not verdict.why_not and not progress.stopped:
                    progress.stopped = await self._adopt(verdict.server, verdict.zone, progress)
        except (CloudError, ClusterError) as error:
            progress.stopped = str(error)
        return progress

    async def _adopt(self, server: ServerId, zone: str, progress: Progress) -> str:
        """Write the WarmVM of a server that the pool can take, then mark the server.

        Returns:
            Why not. Empty: it is done.

        Raises:
            CloudError, ClusterError: run it again.
        """
        progress.steps[server] = Step.UNTOUCHED
        if why_not := await self._closed():
            return why_not
        ref = Ref(self._pool.ref.namespace, f"{self._pool.ref.name}-{server[:8]}")
        vm = await self._vm_of(ref, server, zone)
        if vm.server != server:
            return f"WarmVM {ref} is another server's: {vm.server}"
        progress.steps[server] = Step.BEGUN
        await self._estate.mark(server, vm.uid)
        progress.steps[server] = Step.ADOPTED
        return ""

    async def _closed(self) -> str:
        """Why the pool is to be given nothing: one that goes takes what it has with it."""
        try:
            pool = read_pool(await self._cluster.get(Kind.WARM_POOL, self._pool.ref))
        except NotFound:
            return f"pool {self._pool.ref} is gone"
        return closed(pool) if pool.uid == self._pool.uid else f"pool {pool.ref} is another by now"

    async def _vm_of(self, ref: Ref, server: ServerId, zone: str) -> Vm:
        """The WarmVM of this name: a new one that names this server, or the one that is there."""
        build = CreateVm(zone if self._pool.spec.availability_zones else "")
        body = new_vm(self._pool, ref, build, provider_id(self._region, server))
        try:
            return read_vm(await self._cluster.create(Kind.WARM_VM, body))
        except Conflict:
            return read_vm(await self._cluster.get(Kind.WARM_VM, ref))
