"""Puts servers that are there already under a pool. Run by hand, beside the operator.

The WarmVM is written before the server is marked: a server with our mark and no WarmVM is leaked,
and would be swept. What was cut short is gone on with when it is run again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from warmpool.api.names import Kind
from warmpool.domain.actions import CreateVm
from warmpool.domain.adoption import Existing, Verdict
from warmpool.domain.cloud import BuildSpec
from warmpool.domain.errors import Conflict
from warmpool.domain.facts import Pool, Vm
from warmpool.domain.ids import Ref, ServerId, VmUid
from warmpool.planning.adoption import unmarked, verdicts
from warmpool.ports.cluster import Cluster
from warmpool.ports.estate import Estate
from warmpool.reconcile.execute import new_vm
from warmpool.reconcile.reading import provider_id, read_vm


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

    async def finish(self, server: ServerId, owner: VmUid) -> None:
        """Mark a server whose WarmVM is there."""
        await self._estate.mark(server, owner)

    async def adopt(self, verdict: Verdict) -> Ref:
        """Write the WarmVM of a server that the pool can take, then mark the server.

        Raises:
            CloudError, ClusterError: run it again.
        """
        pool = self._pool
        ref = Ref(pool.ref.namespace, f"{pool.ref.name}-{verdict.server[:8]}")
        build = CreateVm(verdict.zone if pool.spec.availability_zones else "")
        body = new_vm(pool, ref, build, provider_id(self._region, verdict.server))
        try:
            made = await self._cluster.create(Kind.WARM_VM, body)
        except Conflict:
            made = await self._cluster.get(Kind.WARM_VM, ref)
        vm = read_vm(made)
        if vm.server == verdict.server:
            await self._estate.mark(verdict.server, vm.uid)
        return ref
