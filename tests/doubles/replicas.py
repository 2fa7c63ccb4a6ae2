"""Replicas of the operator over the API server in memory, and the worlds that they serve."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from doubles.cluster import FakeCluster, Feed
from doubles.hands import Hand, no_cloud
from doubles.virtual_time import LoopClock
from warmpool.api.names import LABEL_POOL, POOL_FINALIZER, VM_FINALIZER, Kind, Phase
from warmpool.domain.errors import NotLeading
from warmpool.domain.ids import InstallationId, Ref
from warmpool.ports.cluster import Body
from warmpool.reconcile.store import Store
from warmpool.reconcile.sweeper import Comparer
from warmpool.reconcile.term import World, lead
from warmpool.reconcile.traffic import Traffic
from warmpool.reconcile.vitals import Vitals

HOME = "ns"
READY_AT = "2025-12-31T00:00:00Z"


class Replica:
    """One process: its store, its connection, and, while it leads, its loops."""

    def __init__(self, api: FakeCluster, name: str, hand: Hand, lag: float) -> None:
        self.name = name
        self.hand = hand
        self.store = Store()
        self.feed: Feed = api.feed(self.store, lag)
        self.leads = True
        """What it believes."""
        hand.leads = lambda: self.leads
        self.task: asyncio.Task[None] | None = None

    async def warm_up(self, api: FakeCluster) -> None:
        """Read the objects once, as every replica does when it starts."""
        await Comparer(self.store, api).compare()

    def start(self) -> None:
        """Begin to lead."""
        clock = LoopClock()
        world = World(
            store=self.store,
            cluster=self.hand,
            open_cloud=no_cloud,
            open_racks=no_cloud,
            catalogue=self.store.flavors,
            prober=no_cloud,
            clock=clock,
            rng=random.Random(self.name),  # noqa: S311 - names and jitter
            namespace=HOME,
            identity=self.name,
            new_installation=lambda: InstallationId("installation"),
            traffic=Traffic(clock),
            vitals=Vitals(clock),
        )
        leading = lead(world, lambda: self.leads)
        self.task = asyncio.ensure_future(leading)

    async def stop(self) -> None:
        """As when the process has died: nothing of it goes on."""
        assert self.task is not None
        self.hand.died.set()
        self.task.cancel()
        await self.ended()

    async def ended(self) -> None:
        """Until it has stopped, of itself or not. That it was superseded is no failure."""
        assert self.task is not None
        try:
            with contextlib.suppress(asyncio.CancelledError, NotLeading):
                await self.task
        except BaseExceptionGroup as errors:
            _, rest = errors.split((NotLeading, asyncio.CancelledError))
            if rest is not None:
                raise rest from errors


# -- worlds -----------------------------------------------------------------------------------


def a_world(now: Callable[[], datetime], **pools: str) -> FakeCluster:
    """Pools with the places of their ready VMs: `data="r1/h1 r1/h2 r2/h3"`."""
    api = FakeCluster(now, [HOME])
    for name, places in pools.items():
        add_pool(api, name, len(places.split()))
        for number, place in enumerate(places.split()):
            add_vm(api, name, f"{name}-{number}", place)
    return api


def add_pool(api: FakeCluster, name: str, replicas: int, **spec: Any) -> Body:
    """A pool without a Secret: it can give VMs up, and can build none."""
    whole = {
        "replicas": replicas,
        "cloudRef": {"secretName": "none", "cloud": "none"},
        "template": {"flavor": "f", "image": "i"},
        **spec,
    }
    meta = {"namespace": HOME, "name": name, "finalizers": [POOL_FINALIZER]}
    return api.put(Kind.WARM_POOL, {"metadata": meta, "spec": whole})


def add_vm(api: FakeCluster, pool: str, name: str, place: str, **spec: Any) -> Body:
    """A ready VM."""
    rack, _, hypervisor = place.partition("/")
    owner = api.peek(Kind.WARM_POOL)[Ref(HOME, pool)]["metadata"]["uid"]
    meta = {
        "namespace": HOME,
        "name": name,
        "labels": {LABEL_POOL: pool},
        "finalizers": [VM_FINALIZER],
    }
    whole = {
        "poolRef": {"name": pool, "uid": owner},
        "providerID": f"openstack:///R/server-of-{name}",
        **spec,
    }
    status = {
        "phase": Phase.READY.value,
        "serverID": f"server-of-{name}",
        "rack": rack,
        "hypervisor": hypervisor,
        "zone": "z",
        "readyAt": READY_AT,
    }
    return api.put(Kind.WARM_VM, {"metadata": meta, "spec": whole}, status)


def add_claim(api: FakeCluster, name: str, asks: Mapping[str, int], **spec: Any) -> Body:
    """A claim for so many VMs of each pool."""
    requests = [{"name": p, "pool": {"name": p}, "count": n} for p, n in asks.items()]
    meta = {"namespace": HOME, "name": name}
    return api.put(Kind.VM_CLAIM, {"metadata": meta, "spec": {"requests": requests, **spec}})


async def quiet(api: FakeCluster, seconds: float = 8.0, patience: float = 100.0) -> None:
    """Until nothing has been written for a while: longer than any retry in the operator."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        seen = len(api.history)
        await asyncio.sleep(seconds)
        if len(api.history) == seen:
            return
        assert loop.time() < began + patience, "it never comes to rest"
