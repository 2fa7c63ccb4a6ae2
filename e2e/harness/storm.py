"""A storm of claims: shapes by chance, clients that throw them, leaders that die meanwhile."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.fleet import Fleet
from harness.history import Api, Recorder
from warmpool.api.names import API_VERSION, Kind

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Profile:
    """How large a storm is."""

    claims: int
    kills: int
    clients: int = 20
    wave: float = 2.0
    """Seconds over which the claims of one leader's life are thrown."""


SMALL = Profile(claims=200, kills=3)
FULL = Profile(claims=1000, kills=10)


def claim_of(rng: random.Random, name: str, namespace: str, pools: Sequence[str]) -> Body:
    """A claim of any shape."""
    count = rng.choice([1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9])
    first, second = rng.sample(list(pools), 2)
    other = rng.randint(1, count - 1) if count > 1 and rng.random() < 0.4 else 0
    requests = [{"name": "a", "pool": {"name": first}, "count": count - other}]
    if other:
        requests.append({"name": "b", "pool": {"name": second}, "count": other})
    spec: Body = {"requests": requests, "priority": rng.choice([0] * 8 + [5, 1000])}
    kind = rng.choice(["BestEffort", "BestEffort", "RackAware", "HypervisorAware", "long", "long"])
    if kind == "long":
        spec["constraints"] = [constraint_of(rng, requests) for _ in range(rng.randint(1, 2))]
    else:
        spec["mode"] = kind
    if rng.random() < 0.15:
        spec |= {"onUnsatisfied": "Wait", "timeout": f"{rng.randint(1, 6)}s"}
    metadata = {"name": name, "namespace": namespace}
    return {
        "apiVersion": API_VERSION,
        "kind": Kind.VM_CLAIM.value,
        "metadata": metadata,
        "spec": spec,
    }


def constraint_of(rng: random.Random, requests: Sequence[Body]) -> Body:
    """A constraint of any kind, over one request or all."""
    said = {
        "maxPerDomain": rng.randint(1, 3),
        "minDomains": rng.randint(1, 4),
        "maxSkew": rng.randint(0, 2),
    }
    chosen = rng.sample(sorted(said), rng.randint(1, 2))
    constraint: Body = {"domain": rng.choice(["zone", "rack", "rack", "hypervisor", "hypervisor"])}
    constraint |= {key: said[key] for key in chosen}
    if rng.random() < 0.4:
        constraint["requests"] = [rng.choice(requests)["name"]]
    return constraint


@dataclass
class Storm:
    """Clients and the killer over one recorder."""

    profile: Profile
    rng: random.Random
    client: Api
    recorder: Recorder
    fleet: Fleet
    namespace: str
    pools: Sequence[str]
    gaps: list[float] = field(default_factory=list)
    """Seconds from each kill to the takeover."""
    posted: dict[str, float] = field(default_factory=dict)
    """When each claim was thrown, in seconds since the epoch, by uid."""
    open: int = 0
    most_open: int = 0
    """Claims that waited for their answer at once."""

    async def rage(self) -> None:
        """Throw all claims, kill all leaders, and wait until every claim has its answer."""
        waves = self.profile.kills + 1
        async with asyncio.TaskGroup() as clients:
            for wave in range(waves):
                share = range(wave, self.profile.claims, waves)
                for number in share:
                    clients.create_task(self._claim(number, self.rng.randrange(2**32)))
                if wave < self.profile.kills:
                    await self._kill()

    async def _claim(self, number: int, seed: int) -> None:
        """Throw one claim, see its answer, and mostly give the VMs back before long."""
        rng = random.Random(seed)  # noqa: S311 - a test's choices
        await asyncio.sleep(rng.uniform(0, self.profile.wave))
        name = f"c{number % self.profile.clients}-{number}"
        body = claim_of(rng, name, self.namespace, self.pools)
        thrown = time.time()  # noqa: TID251
        uid = (await self.client.create(Kind.VM_CLAIM, self.namespace, body))["metadata"]["uid"]
        self.posted[uid] = thrown
        if rng.random() < 0.03:
            await self._delete(name, uid)
            return
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        await self.recorder.until(lambda: self._phase(uid) != "Pending", 60, f"answer to {name}")
        self.open -= 1
        if self._phase(uid) == "Bound" and rng.random() < 0.92:
            await asyncio.sleep(rng.choice([0.0, rng.uniform(0, 2), rng.uniform(0, 10)]))
            await self._delete(name, uid)

    async def _delete(self, name: str, uid: str) -> None:
        await self.client.delete(Kind.VM_CLAIM, self.namespace, name)
        await self.recorder.until(lambda: uid in self.recorder.gone, 60, f"the end of {name}")

    def _phase(self, uid: str) -> str:
        claim = self.recorder.now[Kind.VM_CLAIM].get(uid, {})
        return str(claim.get("status", {}).get("phase", "Pending"))

    async def _kill(self) -> None:
        """Kill the leader somewhere in the wave; on return another has taken over."""
        await asyncio.sleep(self.rng.uniform(0.05, self.profile.wave))
        leader = await asyncio.to_thread(self.fleet.leader)
        epoch = self._epoch()
        started = time.monotonic()
        await asyncio.to_thread(leader.kill)
        await asyncio.to_thread(self.fleet.start)
        await self.recorder.until(lambda: self._epoch() > epoch, 40, "another leader")
        self.gaps.append(time.monotonic() - started)

    def _epoch(self) -> int:
        ledgers = self.recorder.now[Kind.BINDING_LEDGER].values()
        return max(int(ledger["spec"]["epoch"]) for ledger in ledgers)

    async def settle(self, ready: int) -> None:
        """Wait until nothing is under way and so many VMs are ready and free."""
        await self.recorder.until(lambda: self._is_settled(ready), 90, "everything settled")

    def _is_settled(self, ready: int) -> bool:
        now = self.recorder.now
        vms = now[Kind.WARM_VM].values()
        claims = now[Kind.VM_CLAIM].keys()
        free = [vm for vm in vms if "claimRef" not in vm["spec"]]
        held = [vm for vm in vms if "claimRef" in vm["spec"]]
        return (
            not any(b["spec"]["entries"] for b in now[Kind.BINDING_LEDGER].values())
            and not any("deletionTimestamp" in vm["metadata"] for vm in vms)
            and all(vm["spec"]["claimRef"]["uid"] in claims for vm in held)
            and len(free) == ready
            and all(vm.get("status", {}).get("phase") == "Ready" for vm in free)
        )
