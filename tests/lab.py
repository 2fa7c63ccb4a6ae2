"""A whole operator over a simulated cloud and an API server in memory, on the loop's own time.

Everything between is real: the loops of a term, as `reconcile.term` runs them. Minutes pass in
milliseconds where the loop's clock is faked.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, Self

import yaml

from builders import a_pool_body
from doubles.cluster import FakeCluster
from warmpool.api.names import TAG_OWNER, Kind
from warmpool.api.v1alpha1.pool import HTTPGet
from warmpool.domain.cloud import BuildSpec, Identity, NetworkChoice, ServerRequest
from warmpool.domain.errors import NotLeading
from warmpool.domain.history import Record
from warmpool.domain.ids import InstallationId, Ref, VmUid
from warmpool.effects.racks.opening import open_racks
from warmpool.ports.catalogue import Catalogue
from warmpool.ports.cloud import Cloud
from warmpool.ports.cluster import Body
from warmpool.ports.racks import OpenRacks
from warmpool.reconcile.store import Store
from warmpool.reconcile.term import World, lead
from warmpool.reconcile.traffic import Traffic
from warmpool.reconcile.vitals import Vitals
from warmpool.sim.clock import EPOCH, LoopClock
from warmpool.sim.cloud import SimCloud
from warmpool.sim.faults import Fault
from warmpool.sim.nova import Nova
from warmpool.sim.scenarios import demo
from warmpool.sim.spec import HostSpec, QuotaSpec, Timings
from warmpool.sim.world import Server

HOME = "ops"
SPACE = "search"
SECRET = Ref(SPACE, "lab-cloud")
HERE = InstallationId("here")
WATCH_LAG = 0.02
"""Seconds that a watch is behind."""


class Answering:
    """Probes that the simulated guests answer."""

    def __init__(self, nova: Nova) -> None:
        self._nova = nova

    async def tcp(self, address: str, port: int) -> str:
        return "" if self._nova.answers(address) else f"port {port} does not answer"

    async def http(self, address: str, ask: HTTPGet) -> str:
        return "" if self._nova.answers(address) else f"port {ask.port} does not answer HTTP"


class OfProject(SimCloud):
    """A cloud whose tokens name a project of another name than the one that all servers are in."""

    def __init__(self, project: str, nova: Nova, **how: Any) -> None:
        super().__init__(nova, **how)
        self._called = project

    async def identity(self) -> Identity:
        who = await super().identity()
        return replace(who, project_id=self._called, project=self._called) if self._called else who


class Lab:
    """One cloud, one API server, and the replica that leads."""

    def __init__(  # noqa: PLR0913 - each test says what it needs
        self,
        *,
        seed: int = 1,
        build: float = 2.0,
        schedule: float = 0.05,
        racks: int = 4,
        admin: bool = True,
        ahead: float = 0.0,
        behind: float = 0.0,
        page: int = 1000,
        catalogue: Catalogue | None = None,
    ) -> None:
        """Builds take `build` seconds once they have a hypervisor, `schedule` until then.

        Each rack has two hypervisors, each zone two racks. `admin`: the credentials see hosts, and
        may choose them. The operator's clock is `ahead` of all others, the cloud's inner clocks are
        `behind`. A listing has `page` servers a page.
        """
        self.open_racks: OpenRacks = open_racks
        self.revoked: set[str] = set()
        """Passwords in clouds.yaml that are good no more: see `credentials`."""
        self.projects: dict[str, str] = {}
        """Password to the project that it is for, where that is not the cloud's own."""
        self.catalogue = catalogue
        """Where entries are kept instead of in VMFlavors."""
        self.clock = LoopClock()
        self.our_clock = LoopClock(EPOCH + timedelta(seconds=ahead))
        self.traffic = Traffic(self.our_clock)
        self._admin = admin
        hosts = tuple(
            HostSpec(zone=f"az{1 + n // 2}", rack=f"r{n + 1}", count=2) for n in range(racks)
        )
        spec = demo().model_copy(
            update={
                "hosts": hosts,
                "max_limit": page,
                "timings": Timings(
                    schedule=(schedule, schedule), build=(build, build), clock_behind=behind
                ),
                "quota": QuotaSpec(instances=400, cores=4000, ram_mb=4_000_000),
            }
        )
        self.nova = Nova(spec, clock=self.clock, seed=seed)
        self.cluster = FakeCluster(self.clock.now, [HOME, SPACE])
        self.cluster.secrets[SECRET] = {"clouds.yaml": b"clouds: {}"}
        self.vitals = Vitals(self.clock)
        self.chance = random.Random(seed)  # noqa: S311 - names and jitter
        self.records: list[Record] = []
        """What the replicas had to tell, in its order."""
        self.most = 0
        """Servers that there ever were at once."""
        self.store = Store()
        """What the latest replica knows."""
        self._term: asyncio.Task[None] | None = None
        self._leads: list[bool] = []
        self._watching: asyncio.Task[None] | None = None

    # -- the operator -------------------------------------------------------------------------

    def start(self, store: Store | None = None) -> None:
        """A replica wins the Lease, with all that it knows still to be learned, or this store."""
        store = Store() if store is None else store
        self.store = store
        self.feed = self.cluster.feed(store, WATCH_LAG)
        self._leads.append(True)
        mine = len(self._leads) - 1
        world = World(
            store=store,
            cluster=self.cluster,
            open_cloud=self._open,
            open_racks=self.open_racks,
            catalogue=self.catalogue or store.flavors,
            prober=Answering(self.nova),
            clock=self.our_clock,
            rng=self.chance,
            namespace=HOME,
            identity=f"replica-{mine}",
            new_installation=lambda: HERE,
            emit=self.records.append,
            vitals=self.vitals,
            traffic=self.traffic,
        )
        self._term = asyncio.ensure_future(lead(world, partial(self.leads, mine)))
        if self._watching is None:
            self._watching = asyncio.ensure_future(self._count())

    def leads(self, replica: int) -> bool:
        """Whether a replica believes that it leads. It asks before it changes anything."""
        return self._leads[replica]

    async def ended(self) -> None:
        """Until the leader has ended by itself; raises what it died of."""
        task, self._term = self._term, None
        assert task is not None
        await task

    async def stop(self) -> None:
        """The leader dies in the middle of whatever it does."""
        self._leads[-1] = False
        task, self._term = self._term, None
        assert task is not None
        task.cancel()
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        except* NotLeading:
            pass

    async def restart(self) -> None:
        await self.stop()
        self.start()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._term is not None:
            if self._term.done():
                self._term.result()  # a loop that has ended by itself is a failure
            await self.stop()
        if self._watching is not None:
            self._watching.cancel()

    def _open(self, text: str, cloud: str, installation: InstallationId) -> Cloud:
        admin = self._admin or cloud.endswith("-admin")
        password = (yaml.safe_load(text)["clouds"].get(cloud) or {}).get("password", "")
        return OfProject(
            self.projects.get(password, ""),
            self.nova,
            installation=installation,
            admin=admin,
            is_good=lambda: password not in self.revoked,
        )

    async def _count(self) -> None:
        while True:
            self.nova.settle()
            self.most = max(self.most, len(self.servers()))
            await asyncio.sleep(0.05)

    # -- time ---------------------------------------------------------------------------------

    async def until(self, holds: Callable[[], object], within: float = 60.0) -> float:
        """Wait until something holds; the seconds that took.

        Raises:
            AssertionError: it did not in that time.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not holds():
            assert self._term is None or not self._term.done(), "the term has ended"
            assert loop.time() - began < within, self.told()
            await asyncio.sleep(0.05)
        return loop.time() - began

    async def always(self, holds: Callable[[], object], seconds: float) -> None:
        """Watch that something goes on to hold."""
        for _ in range(int(seconds / 0.1)):
            assert holds(), self.told()
            await asyncio.sleep(0.1)

    def told(self) -> str:
        """What a failed test should show."""
        self.nova.settle()
        vms = {
            r.name: (vm["status"], vm["metadata"].get("deletionTimestamp")) for r, vm in self.vms()
        }
        servers = [(s.name, s.vm_state, s.task, s.fault) for s in self.servers()]
        pools = [pool["status"] for pool in self.cluster.peek(Kind.WARM_POOL).values()]
        return f"\nVMs {vms}\nservers {servers}\npools {pools}"

    # -- what users do ------------------------------------------------------------------------

    def pool(self, name: str = "data", **spec: Any) -> Ref:
        """Create a pool; fields of its spec in camelCase."""
        ref = Ref(SPACE, name)
        self.cluster.put(Kind.WARM_POOL, a_pool_body(ref, **({"maxConcurrent": 50} | spec)))
        return ref

    def credentials(self, secret: Ref = SECRET, **passwords: str) -> None:
        """Write clouds.yaml into a Secret: a password for each cloud, `_` for `-` in its name."""
        clouds = {name.replace("_", "-"): {"password": p} for name, p in passwords.items()}
        before = self.cluster.secrets.get(secret, {})
        text = yaml.safe_dump({"clouds": clouds}).encode()
        self.cluster.secrets[secret] = {**before, "clouds.yaml": text}

    def racks(self, text: str) -> None:
        """Write racks.yaml into the cloud's Secret."""
        self.cluster.secrets[SECRET] = {
            **self.cluster.secrets[SECRET],
            "racks.yaml": text.encode(),
        }

    async def change(self, pool: Ref, **spec: Any) -> None:
        """Change fields of a pool's spec."""
        ops = [{"op": "add", "path": f"/spec/{key}", "value": value} for key, value in spec.items()]
        await self.cluster.patch(Kind.WARM_POOL, pool, ops)

    def flavor(self, name: str, **spec: Any) -> None:
        """Create an entry of the catalogue, or change it."""
        ref, body = Ref("", name), {"metadata": {"name": name}, "spec": spec}
        if ref in self.cluster.peek(Kind.VM_FLAVOR):
            self.cluster.edit(Kind.VM_FLAVOR, ref, spec)
        else:
            self.cluster.put(Kind.VM_FLAVOR, body)

    def claim(self, name: str = "logs", count: int = 1, **spec: Any) -> Ref:
        """Create a claim for VMs of the pool `data`."""
        requests = [{"name": "data", "pool": {"name": "data"}, "count": count}]
        meta = {"namespace": SPACE, "name": name}
        self.cluster.put(Kind.VM_CLAIM, {"metadata": meta, "spec": {"requests": requests, **spec}})
        return Ref(SPACE, name)

    async def stray(self, installation: str, owner: str = "nobody") -> Server:
        """A server of some installation that no WarmVM knows."""
        world = self.nova.world
        flavor = next(ident for ident, f in world.flavors.items() if f.name == "m1.micro")
        spec = BuildSpec(flavor, next(iter(world.images)), NetworkChoice.NONE)
        cloud = SimCloud(self.nova, installation=InstallationId(installation))
        made = await cloud.create(ServerRequest("stray", VmUid(owner), spec))
        return world.servers[made]

    def delete(self, kind: Kind, ref: Ref) -> None:
        self.cluster.remove(kind, ref)

    # -- what is there ------------------------------------------------------------------------

    def status(self, pool: Ref) -> Mapping[str, Any]:
        status: Mapping[str, Any] = self.cluster.peek(Kind.WARM_POOL)[pool]["status"]
        return status

    def claim_status(self, claim: Ref) -> Mapping[str, Any]:
        status: Mapping[str, Any] = self.cluster.peek(Kind.VM_CLAIM)[claim].get("status", {})
        return status

    def condition(self, pool: Ref, kind: str) -> tuple[str, str]:
        """Status and reason of a pool's condition."""
        conditions = self.status(pool).get("conditions", [])
        return next(((c["status"], c["reason"]) for c in conditions if c["type"] == kind), ("", ""))

    def notes(self, reason: str) -> list[str]:
        """What the Events of a reason say."""
        return [e["note"] for _, e in self.cluster.events if e["reason"] == reason]

    def vms(self) -> Iterator[tuple[Ref, Body]]:
        yield from self.cluster.peek(Kind.WARM_VM).items()

    def free(self) -> list[Body]:
        """Ready VMs that are nobody's."""
        return [
            vm
            for _, vm in self.vms()
            if vm["status"]["phase"] == "Ready"
            and "claimRef" not in vm["spec"]
            and "deletionTimestamp" not in vm["metadata"]
        ]

    def bound(self, claim: Ref) -> bool:
        """The claim is Bound, and settled on its VMs."""
        body = self.cluster.peek(Kind.VM_CLAIM)[claim]
        wanted = sum(request["count"] for request in body["spec"]["requests"])
        uid = body["metadata"]["uid"]
        settled = sum(vm["spec"].get("claimRef", {}).get("uid") == uid for _, vm in self.vms())
        return body["status"].get("phase") == "Bound" and settled == wanted

    def servers(self) -> list[Server]:
        """Servers that Nova has, whosever they are."""
        return [s for s in self.nova.world.servers.values() if s.vm_state != "deleted"]

    def server_of(self, vm: Body) -> Server:
        (server,) = (
            s for s in self.servers() if f"{TAG_OWNER}{vm['metadata']['uid']}" in s.all_tags
        )
        return server

    def is_even(self, pool: Ref, ready: int) -> bool:
        """So many VMs are free, the pool says so, and each VM has one server; there is no other."""
        self.nova.settle()
        owners = Counter(
            tag for s in self.servers() for tag in s.all_tags if tag.startswith(TAG_OWNER)
        )
        uids = {f"{TAG_OWNER}{vm['metadata']['uid']}" for _, vm in self.vms()}
        return (
            len(self.free()) == ready
            and self.status(pool).get("ready") == ready
            and owners.keys() == uids
            and all(number == 1 for number in owners.values())
        )

    def arm(self, fault: Fault) -> Callable[[], bool]:
        """Switch a fault on; the answer switches it off."""
        number = self.nova.arm(fault)
        return lambda: self.nova.faults.remove(number)

    def quota(self, instances: int) -> None:
        project = self.nova.project()
        project.quota = project.quota.model_copy(update={"instances": instances})

    def posts(self) -> int:
        """POSTs of servers that have reached the cloud."""
        return self.nova.traffic.calls["POST /compute/v2.1/servers"]
