"""I7: nothing is written by a replica that does not lead.

`Fenced` stands between the loops and the API server and asks before each write. The ledger's epoch
is the other half: it stops a leader that was stalled between the question and the write.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from warmpool.api.names import Kind
from warmpool.api.v1alpha1.pool import Template
from warmpool.domain.catalogue import Entry
from warmpool.domain.cloud import (
    BuildSpec,
    Identity,
    Inventory,
    Listing,
    Quota,
    Server,
    ServerGroup,
    ServerRequest,
    Topology,
)
from warmpool.domain.errors import NotLeading
from warmpool.domain.ids import Ref, ServerId, VmUid
from warmpool.domain.racks import Hosts
from warmpool.ports.cloud import Cloud
from warmpool.ports.cluster import Body, Cluster, PatchOp, Snapshot


class Fenced:
    """A `Cluster` that refuses every write with `NotLeading` unless `leads()`."""

    def __init__(self, cluster: Cluster, leads: Callable[[], bool]) -> None:
        self._cluster = cluster
        self._leads = leads

    def check(self) -> None:
        """Raise NotLeading unless this replica leads: before anything else that changes things."""
        if not self._leads():
            raise NotLeading("this replica does not lead")

    async def list(self, kind: Kind, *, pace: float = 0.0) -> Snapshot:
        return await self._cluster.list(kind, pace=pace)

    async def get(self, kind: Kind, ref: Ref) -> Body:
        return await self._cluster.get(kind, ref)

    async def create(self, kind: Kind, body: Body) -> Body:
        self.check()
        return await self._cluster.create(kind, body)

    async def patch(
        self,
        kind: Kind,
        ref: Ref,
        ops: Sequence[PatchOp],
        *,
        status: bool = False,
        brief: bool = False,
    ) -> Body:
        self.check()
        return await self._cluster.patch(kind, ref, ops, status=status, brief=brief)

    async def replace(self, kind: Kind, body: Body) -> Body:
        self.check()
        return await self._cluster.replace(kind, body)

    async def delete(self, kind: Kind, ref: Ref, *, uid: str, version: int) -> None:
        self.check()
        await self._cluster.delete(kind, ref, uid=uid, version=version)

    async def namespaces(self) -> Snapshot:
        return await self._cluster.namespaces()

    async def event(self, namespace: str, body: Body) -> None:
        self.check()
        await self._cluster.event(namespace, body)

    async def secret(self, ref: Ref) -> Mapping[str, bytes]:
        return await self._cluster.secret(ref)

    async def config_map(self, ref: Ref) -> Mapping[str, str]:
        return await self._cluster.config_map(ref)


class FencedCloud:
    """A `Cloud` that asks before it creates, deletes or rebuilds.

    A call that slips through all the same does no harm. A server that comes late is found by its
    owner's tag, or swept; one that goes late was on its way out; and what a former leader may have
    had rebuilt, the next one gives up, so that no rebuild hits a VM that has become a claim's.
    """

    def __init__(self, cloud: Cloud, check: Callable[[], None]) -> None:
        self._cloud = cloud
        self._check = check

    @property
    def region(self) -> str:
        return self._cloud.region

    async def resolve(
        self, template: Template, zones: tuple[str, ...], entry: Entry | None = None
    ) -> BuildSpec:
        return await self._cloud.resolve(template, zones, entry)

    async def create(self, request: ServerRequest) -> ServerId:
        self._check()
        return await self._cloud.create(request)

    async def delete(self, server: ServerId) -> None:
        self._check()
        await self._cloud.delete(server)

    async def rebuild(self, server: ServerId, image_id: str) -> None:
        self._check()
        await self._cloud.rebuild(server, image_id)

    async def set_metadata(self, server: ServerId, metadata: Mapping[str, str]) -> None:
        self._check()
        await self._cloud.set_metadata(server, metadata)

    async def get(self, server: ServerId) -> Server | None:
        return await self._cloud.get(server)

    async def find(self, owner: VmUid) -> tuple[Server, ...]:
        return await self._cloud.find(owner)

    async def list(self, since: datetime | None) -> Listing:
        return await self._cloud.list(since)

    async def identity(self) -> Identity:
        return await self._cloud.identity()

    async def topology(self, key: str = "rack") -> Topology:
        return await self._cloud.topology(key)

    async def traits(self, prefix: str) -> Topology:
        return await self._cloud.traits(prefix)

    async def hosts(self) -> Hosts:
        return await self._cloud.hosts()

    async def inventory(self, spec: BuildSpec) -> Inventory:
        return await self._cloud.inventory(spec)

    async def quota(self) -> Quota:
        return await self._cloud.quota()

    async def groups(self) -> tuple[ServerGroup, ...]:
        return await self._cloud.groups()

    async def create_group(self, name: str) -> str:
        self._check()
        return await self._cloud.create_group(name)

    async def delete_group(self, group: str) -> None:
        self._check()
        await self._cloud.delete_group(group)

    async def down_hosts(self) -> frozenset[str]:
        return await self._cloud.down_hosts()

    async def console(self, server: ServerId, lines: int) -> str:
        return await self._cloud.console(server, lines)

    async def close(self) -> None:
        await self._cloud.close()
