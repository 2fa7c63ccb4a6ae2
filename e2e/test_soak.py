"""Pools are left alone with a cloud that misbehaves: `make soak MINUTES=30 SEED=7`.

Four pools of different rules, users who claim, release and scale, and troubles of all sorts: what
clouds answer, what becomes of hypervisors and servers, quota, images, templates, leaders. Then all
of it ends, and every pool has to be full and balanced by itself, with one server for each WarmVM
and no other. What is looked at is told in docs/testing.md.
"""

import asyncio
import contextlib
import json
import random
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest
from harness.clouds import Simulator
from harness.crew import now
from harness.fleet import HOME, Fleet
from harness.history import Api, Event, Recorder
from harness.market import Market
from harness.replay import Replay
from harness.sandbox import Sandbox
from harness.servers import crowded, doubles, forgotten, servers_of, untouched
from harness.weather import Weather, forecast

from warmpool.api.names import TAG_INSTALLATION, TAG_OWNER, Kind
from warmpool.tools.cluster import Cluster

pytestmark = pytest.mark.simulator

Body = dict[str, Any]

EVENLY = [{"domain": "rack", "maxSkew": 1}, {"domain": "hypervisor", "maxSkew": 1}]

POOLS: Final[dict[str, Body]] = {
    "data": {"replicas": 18, "maxSize": 40, "maxConcurrent": 8, "spread": EVENLY},
    "master": {"replicas": 9, "maxSize": 24, "maxConcurrent": 6, "reclaimPolicy": "Recycle"},
    "brain": {"replicas": 3, "maxSize": 6, "template": {"groupHint": "brain"}},
    "short": {
        "replicas": 6,
        "maxSize": 16,
        "expireAfter": "3m",
        "refill": {"maxPerCycle": 20, "cycle": "1m"},
        "spread": [{"domain": "rack", "minDomains": 3}],
    },
}
SIZES: Final = {"data": (12, 24), "master": (5, 12), "brain": (2, 4), "short": (4, 10)}

HEALTH: Final[Body] = {"launchTimeout": "60s", "period": "5s", "maxUnhealthy": "60%"}

CLAIM_EVERY: Final = 1.5
"""Seconds between two claims, on the average."""

RESTED_WITHIN: Final = 400.0
"""Seconds until all is well: builds that hang have their minute, a server that was left behind is
seen for one before it goes, and what was refused is asked for again after up to 45 s."""

FOREIGN: Final = 5
"""Servers in the cloud that are none of ours, of each sort."""

WELL: Final = ("Ready", "CapacityAvailable", "DependenciesResolved", "Balanced", "Healthy",
               "UpToDate")  # fmt: skip

BROKEN: Final = ("it goes, or is not ready", "its allocation has changed", "could be had all")
"""What the replay calls a fault, and is none where servers are broken: a claimed VM fails, its
claim says so, and a VM that is not ready yet by the records may be known to be sick."""


class Tenants(Market):
    """Users with time between their claims."""

    async def trade(self, seconds: float) -> None:
        """Go on for so long, then wait until every claim has its answer."""
        ends = now() + seconds
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._scale(ends))
            while now() < ends:
                await asyncio.sleep(self.rng.expovariate(1 / CLAIM_EVERY))
                tasks.create_task(self._claim(self.rng.randrange(2**32)))


@contextlib.asynccontextmanager
async def recording(sandbox: Sandbox, api: Api) -> AsyncIterator[Recorder]:
    kinds = (Kind.WARM_POOL, Kind.VM_CLAIM, Kind.WARM_VM)
    collections = dict.fromkeys(kinds, sandbox.namespace) | {Kind.BINDING_LEDGER: HOME}
    async with Recorder(api=api, collections=collections).running() as recorder:
        yield recorder


@pytest.fixture
def world(cluster: Cluster, simulator: Simulator, fleet: Fleet) -> Iterator[Sandbox]:
    """A namespace over a cloud in which others have servers, too."""
    opened = Sandbox(cluster, simulator)
    for tags in ([], [f"{TAG_INSTALLATION}another", f"{TAG_OWNER}{secrets.token_hex(8)}"]):
        simulator.preload(count=FOREIGN, name=f"{opened.named('data')}-alien", tags=tags)
    opened.create()
    yield opened
    simulator.mend()
    fleet.ensure(1)
    opened.clear()
    opened.remove()


def opened(world: Sandbox) -> None:
    """All pools, once they are full."""
    for short, spec in POOLS.items():
        rest = {key: value for key, value in spec.items() if key != "replicas"}
        health = HEALTH | {"probe": world.cloud.probe()}
        world.pool(short, spec["replicas"], health=health, **rest)
    for short, spec in POOLS.items():
        world.await_ready(world.named(short), spec["replicas"], seconds=120)


def restless(world: Sandbox, record: Recorder, replicas: dict[str, int]) -> list[str]:
    """What is not as it has to be in the end."""
    found = [f"claim {c['metadata']['name']} is there" for c in record.now[Kind.VM_CLAIM].values()]
    pools = {p["metadata"]["name"]: p for p in record.now[Kind.WARM_POOL].values()}
    for name, wanted in replicas.items():
        status = pools[name]["status"]
        holds = {c["type"]: c for c in status["conditions"]}
        found += [f"{name}: {holds.get(kind)}" for kind in WELL if not _is_true(holds.get(kind))]
        if status.get("ready") != wanted or status.get("replicas") != wanted:
            found.append(f"{name}: {status.get('ready')} ready of {wanted}")
    vms = {vm["metadata"]["uid"]: vm for vm in record.now[Kind.WARM_VM].values()}
    if len(vms) != sum(replicas.values()):
        found.append(f"{len(vms)} WarmVMs where {sum(replicas.values())} shall be")
    return found + strangers(world, vms)


def strangers(world: Sandbox, vms: dict[str, Body]) -> list[str]:
    """Servers without a WarmVM, WarmVMs without a server, two for one."""
    assert isinstance(world.cloud, Simulator)
    servers = {s["id"]: s for s in world.cloud.records() if "alien" not in s["name"]}
    known = Counter(vm.get("status", {}).get("serverID", "") for vm in vms.values())
    found = [f"server {servers[s]} has no WarmVM" for s in servers.keys() - known.keys()]
    found += [f"no server {s!r} for its WarmVM" for s in known.keys() - servers.keys()]
    found += [f"{count} WarmVMs have server {s}" for s, count in known.items() if count > 1]
    for server in servers.values():
        owners = [t.removeprefix(TAG_OWNER) for t in server["tags"] if t.startswith(TAG_OWNER)]
        found += [f"server {server['name']} of nobody" for uid in owners if uid not in vms]
    return found


def _is_true(condition: Body | None) -> bool:
    return condition is not None and condition["status"] == "True"


async def rest(world: Sandbox, record: Recorder, replicas: dict[str, int]) -> list[str]:
    """Wait until all is as it has to be; what is not."""
    began = now()
    while found := await asyncio.to_thread(restless, world, record, replicas):
        if now() > began + RESTED_WITHIN:
            return found
        await asyncio.sleep(1)
    return []


def swapped(events: list[Event]) -> Iterator[str]:
    """I2: claims that have other VMs than they were given."""
    given: dict[str, list[str]] = {}
    for event in events:
        allocation = event.body.get("status", {}).get("allocation")
        if event.kind is not Kind.VM_CLAIM or event.gone or allocation is None:
            continue
        vms = [vm["uid"] for vm in allocation["vms"]]
        if given.setdefault(event.uid, vms) != vms:
            yield f"I2: claim {event.body['metadata']['name']} had {given[event.uid]}, has {vms}"


def judge(world: Sandbox, record: Recorder) -> tuple[list[str], Counter[str]]:
    """What the history and the cloud's journal say; and how much there was of what."""
    assert isinstance(world.cloud, Simulator)
    events = sorted(record.events, key=lambda event: event.revision)
    journal = world.cloud.journal()
    [ledger] = record.now[Kind.BINDING_LEDGER].values()
    installation = ledger["spec"]["installation"]
    servers = servers_of(journal, {s["id"] for s in world.cloud.records()})
    verdict = Replay([e for e in events if e.kind is not Kind.WARM_POOL], {}).run()
    faults = [f for f in verdict.faults if not any(text in f for text in BROKEN)]
    faults += swapped(events)
    faults += forgotten(events)
    faults += untouched([e for e in journal if "alien" in e["name"]], installation)
    faults += crowded(servers, {world.named(s): spec["maxSize"] for s, spec in POOLS.items()})
    aliens = sum("alien" in s["name"] for s in world.cloud.records())
    if aliens != 2 * FOREIGN:
        faults.append(f"I6: {aliens} servers of others are left of {2 * FOREIGN}")
    figures = verdict.figures + Counter(
        {
            "servers": len(servers),
            "servers beside another": doubles(servers),
            "events": len(events),
        }
    )
    return faults, figures


async def test_pools_are_full_and_balanced_after_all_of_it(
    world: Sandbox,
    fleet: Fleet,
    pytestconfig: pytest.Config,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert isinstance(world.cloud, Simulator)
    seconds = 60 * pytestconfig.getoption("--minutes")
    seed = pytestconfig.getoption("--seed") or secrets.randbits(32)
    rng = random.Random(seed)  # noqa: S311 - a test's choices
    troubles = forecast(rng, seconds)
    with capsys.disabled():
        print(f"\nsoak, seed {seed}: {len(troubles)} troubles in {seconds:.0f} s", flush=True)
    await asyncio.to_thread(opened, world)

    def restart() -> None:
        fleet.leader().kill()
        fleet.start()
        fleet.ensure(1)

    async with Api(world.cluster.kubeconfig) as api, recording(world, api) as record:
        tenants = Tenants(
            api,
            record,
            world.namespace,
            rng,
            {world.named(short): sizes for short, sizes in SIZES.items()},
            {world.named(short): spec["replicas"] for short, spec in POOLS.items()},
        )
        weather = Weather(world, world.cloud, record, restart)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(weather.blow(troubles))
            tasks.create_task(tenants.trade(seconds))
        world.kubectl("delete", "vmclaims", "--all", "--wait=false")
        began = now()
        faults = await rest(world, record, tenants.replicas)
        rested = now() - began
        told, figures = await asyncio.to_thread(judge, world, record)
        faults += told
    done: Body = dict(sorted(figures.items())) | {"troubles": dict(sorted(weather.done.items()))}
    done |= {"claims answered": len(tenants.waits), "seconds until all was well": round(rested)}
    with capsys.disabled():
        print(json.dumps(done, indent=1), flush=True)
    assert faults == [], f"seed {seed}"
    assert figures["bound"] > 0
