"""A pool's worker against a watch that is ahead of answers, or behind them. Each was a bug once."""

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from warmpool.api.names import Kind, Phase
from warmpool.api.v1alpha1.pool import Template
from warmpool.domain.cloud import (
    BuildSpec,
    Identity,
    Inventory,
    Listing,
    NetworkChoice,
    Quota,
    Server,
    ServerRequest,
    ServerState,
    Topology,
    Usage,
)
from warmpool.domain.errors import Conflict
from warmpool.domain.facts import Vm
from warmpool.domain.ids import Ref, ServerId, VmUid
from warmpool.domain.racks import Hosts
from warmpool.effects.clock import SystemClock
from warmpool.effects.racks.opening import open_racks
from warmpool.planning.revision import revision_of
from warmpool.ports.cluster import Body, PatchOp
from warmpool.reconcile.clouds import Clouds
from warmpool.reconcile.custody import Custody
from warmpool.reconcile.events import Announcer
from warmpool.reconcile.execute import Executor
from warmpool.reconcile.lookback import LookBack
from warmpool.reconcile.pools import PoolWorker
from warmpool.reconcile.recorder import Recorder, unheard
from warmpool.reconcile.store import Store
from warmpool.reconcile.traffic import Traffic
from warmpool.reconcile.vitals import Vitals

POOL = Ref("search", "es-data")
SECRET = {"clouds.yaml": b"clouds: {}"}


@dataclass
class LaggingCluster:
    """One pool and its WarmVMs. The watch shows a creation `early`, a deletion when told to."""

    store: Store
    early: bool = False
    objects: dict[Ref, dict[str, Any]] = field(default_factory=dict)
    created: list[Ref] = field(default_factory=list)
    deleted: list[Ref] = field(default_factory=list)
    versions: "itertools.count[int]" = field(default_factory=lambda: itertools.count(10))

    def seen(self, ref: Ref) -> None:
        """The watch shows an object as it is."""
        self.store.apply(self._kind(ref), self.objects[ref])

    async def create(self, kind: Kind, body: Body) -> Body:
        ref = Ref(body["metadata"]["namespace"], body["metadata"]["name"])
        self.created.append(ref)
        self.objects[ref] = {**body, "kind": kind.value}
        made = self._touched(ref, uid=f"uid-{ref.name}", creationTimestamp="2026-01-01T00:00:00Z")
        if self.early:
            self.seen(ref)
        await asyncio.sleep(0.02)
        return made

    async def delete(self, _kind: Kind, ref: Ref, *, uid: str, version: int) -> None:
        self.deleted.append(ref)
        meta = self.objects[ref]["metadata"]
        if (meta["uid"], meta["resourceVersion"]) != (uid, str(version)):
            raise Conflict("it has changed since")
        self._touched(ref, deletionTimestamp="2026-01-01T00:01:00Z")

    async def patch(
        self,
        _kind: Kind,
        ref: Ref,
        ops: Sequence[PatchOp],
        *,
        status: bool = False,
        brief: bool = False,
    ) -> Body:
        """Take statuses and the removal of finalizers: of these tests' VMs there is no more."""
        assert not brief
        assert status or ops[-1]["op"] == "remove"
        return self._touched(ref)

    async def get(self, _kind: Kind, ref: Ref) -> Body:
        return self.objects[ref]

    async def secret(self, _ref: Ref) -> Mapping[str, bytes]:
        return SECRET

    def put(self, ref: Ref, body: dict[str, Any]) -> None:
        """An object that is there from the beginning."""
        self.objects[ref] = body
        self._touched(ref)
        self.seen(ref)

    def _kind(self, ref: Ref) -> Kind:
        return Kind(self.objects[ref]["kind"])

    def _touched(self, ref: Ref, **meta: str) -> dict[str, Any]:
        body = self.objects[ref]
        metadata = {**body["metadata"], **meta, "resourceVersion": str(next(self.versions))}
        self.objects[ref] = {**body, "metadata": metadata}
        return self.objects[ref]


class EmptyCloud:
    """A cloud that takes every POST, and knows by its id a server that no listing shows."""

    region = "RegionOne"

    def __init__(self) -> None:
        self.posts: list[VmUid] = []

    async def resolve(
        self, _template: Template, _zones: tuple[str, ...], _entry: object = None
    ) -> BuildSpec:
        return BuildSpec(flavor_id="f", image_id="i", networks=NetworkChoice.NONE)

    async def create(self, request: ServerRequest) -> ServerId:
        self.posts.append(request.owner)
        return ServerId(f"server-{len(self.posts)}")

    async def find(self, _owner: VmUid) -> tuple[Server, ...]:
        return ()

    async def get(self, server: ServerId) -> Server | None:
        return Server(server, "", ServerState.BUILDING, busy=True, owner=None)

    async def list(self, _since: object) -> Listing:
        return Listing(servers=(), taken_at=SystemClock().now(), complete=True)

    async def topology(self, _key: str = "rack") -> Topology:
        return Topology()

    async def traits(self, _prefix: str) -> Topology:
        return Topology()

    async def hosts(self) -> Hosts:
        return Hosts(visible=False, why_not="hidden")

    async def identity(self) -> Identity:
        return Identity("p", "lab")

    async def down_hosts(self) -> frozenset[str]:
        return frozenset()

    async def console(self, _server: ServerId, _lines: int) -> str:
        return ""

    async def inventory(self, _spec: BuildSpec) -> Inventory:
        return Inventory(visible=False, why_not="hidden")

    async def quota(self) -> Quota:
        return Quota(*(Usage(0, None) for _ in range(3)))

    async def delete(self, _server: ServerId) -> None: ...

    async def rebuild(self, _server: ServerId, _image_id: str) -> None: ...

    async def set_metadata(self, _server: ServerId, _items: Mapping[str, str]) -> None: ...

    async def close(self) -> None: ...


class NoProber:
    """Nothing is ever up, so nothing is probed."""

    async def tcp(self, _address: str, _port: int) -> str:
        return "no"

    async def http(self, _address: str, _ask: object) -> str:
        return "no"


def a_pool(replicas: int) -> dict[str, Any]:
    return {
        "kind": "WarmPool",
        "metadata": {
            "namespace": POOL.namespace,
            "name": POOL.name,
            "uid": "pool-uid",
            "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "finalizers": ["warmpool.dev/pool"],
        },
        "spec": {
            "replicas": replicas,
            "cloudRef": {"secretName": "cloud", "cloud": "lab"},
            "template": {"flavor": "f", "image": "i", "networks": []},
        },
    }


def a_ready_vm(name: str, rack: str) -> dict[str, Any]:
    return {
        "kind": "WarmVM",
        "metadata": {
            "namespace": POOL.namespace,
            "name": name,
            "uid": f"uid-{name}",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "finalizers": ["warmpool.dev/server"],
        },
        "spec": {
            "poolRef": {"name": POOL.name, "uid": "pool-uid"},
            "revision": revision_of(Template(flavor="f", image="i", networks=[])),
        },
        "status": {"phase": Phase.READY.value, "rack": rack, "hypervisor": f"{rack}-h"},
    }


async def delete(api: Any, vm: Vm) -> None:
    """What a removal comes to in the end."""
    await api.delete(Kind.WARM_VM, vm.ref, uid=vm.uid, version=vm.version)


@contextlib.asynccontextmanager
async def working(
    cluster: LaggingCluster, cloud: EmptyCloud, *, answering: int = 0
) -> AsyncIterator[None]:
    """The pool's worker runs, woken by the store as in a term of leadership.

    All the time so many claims are being answered.
    """
    clock, rng = SystemClock(), random.Random(1)  # noqa: S311 - names, no secrets
    store, traffic = cluster.store, Traffic(clock)
    for _ in range(answering):
        traffic.began(1)
    api: Any = cluster  # as much of the port as a pool's worker uses
    async with asyncio.TaskGroup() as tasks:
        clouds = Clouds(
            api,
            lambda _text, _name: cloud,
            clock,
            rng,
            Vitals(clock),
            open_racks=open_racks,
            wake_vms=lambda _owners: None,
            wake_pool=lambda _pool: worker.wake(),
            nudge=lambda _pool: worker.wake(),
        )
        recorder = Recorder(store, clock, unheard)
        executor = Executor(
            store, api, NoProber(), clock, rng, give_up=partial(delete, api), recorder=recorder
        )
        worker = PoolWorker(
            POOL,
            store=store,
            cluster=api,
            clouds=clouds,
            executor=executor,
            custody=Custody(store, api, clock, Announcer(api, clock, "me", traffic)),
            look_back=LookBack((), lambda: None),
            clock=clock,
            rng=rng,
            catalogue=store.flavors,
            note=lambda _one: None,
            traffic=traffic,
            wanted=lambda _pool: 0,
            announce=lambda _event: None,
            recorder=recorder,
        )
        store.listen(lambda change: worker.wake(change.vm))
        running = [tasks.create_task(clouds.run()), tasks.create_task(worker.run(lambda: None))]
        yield
        for task in running:
            task.cancel()


async def until(predicate: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not predicate():  # noqa: ASYNC110 - nobody tells when
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("early", [False, True], ids=["answer-first", "watch-first"])
async def test_a_vm_that_the_watch_shows_before_the_answer_is_one_vm(early: bool) -> None:
    """It was counted twice, given up as one too many, and its server POSTed twice."""
    cluster, cloud = LaggingCluster(Store(), early=early), EmptyCloud()
    cluster.put(POOL, a_pool(replicas=3))
    async with working(cluster, cloud):
        await until(lambda: len(cloud.posts) >= 3)
        await asyncio.sleep(0.1)
    assert len(cluster.created) == 3
    assert len(set(cloud.posts)) == len(cloud.posts) == 3
    assert cluster.deleted == []


async def test_what_is_given_up_is_given_up_once_however_late_the_watch() -> None:
    """From 4 to 1 gave up all 4: those under deletion were counted and others were chosen."""
    cluster, cloud = LaggingCluster(Store()), EmptyCloud()
    cluster.put(POOL, a_pool(replicas=1))
    for name, rack in (("a", "r1"), ("b", "r1"), ("c", "r2"), ("d", "r3")):
        cluster.put(Ref(POOL.namespace, name), a_ready_vm(name, rack))
    async with working(cluster, cloud):
        await until(lambda: len(cluster.deleted) >= 3)
        await asyncio.sleep(0.1)
        assert len(cluster.deleted) == len(set(cluster.deleted)) == 3
        assert sum(cluster.store.counts(POOL).values()) == 1
        for ref in list(cluster.deleted):
            cluster.seen(ref)
        await asyncio.sleep(0.1)
    assert len(cluster.deleted) == 3
    assert cluster.created == []


async def test_a_pool_is_kept_although_there_is_always_a_claim_to_be_answered() -> None:
    """It waits for a lull, which does not come."""
    cluster, cloud = LaggingCluster(Store()), EmptyCloud()
    cluster.put(POOL, a_pool(replicas=2))
    async with working(cluster, cloud, answering=1):
        await until(lambda: len(cloud.posts) >= 2)
