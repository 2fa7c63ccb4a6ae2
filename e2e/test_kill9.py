"""kill -9 of the leader at random moments of filling and claiming: nothing is lost or doubled.

    pytest e2e/test_kill9.py --cycles 20 --seed 7

Two replicas run, and the one that leads is killed once in each cycle, while claims are made and
deleted and a pool grows. A cycle ends when all is quiet; then everything must add up, and at the
end so must the whole history: every version of every object that the API server has shown, and
every server that Nova ever had.
"""

import random
import secrets
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from harness.clouds import Body, Simulator
from harness.fleet import HOME, Fleet
from harness.sandbox import Sandbox
from harness.watching import Watch

from warmpool.api.names import LEDGER_NAME, Kind

pytestmark = pytest.mark.simulator

SPAN = 3.0
"""Seconds of claiming and filling in which the kill falls."""

QUIET_WITHIN = 60.0
"""Seconds from a kill until everything is as it shall be: the lease, and some rounds of builds."""

LOOK = 0.05
"""Seconds between samples of Nova. No server lives shorter."""


@dataclass
class Nova:
    """What Nova was seen to hold, sampled all the time in a thread."""

    simulator: Simulator
    mark: str
    ceiling: int = 0
    """Servers that there may be now at most: by the plan, not one more."""
    most: int = 0
    names: dict[str, str] = field(default_factory=dict)
    """Name of every server that there ever was, by id."""
    excess: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.ended.wait(LOOK):
            ceiling = self.ceiling
            records = self.simulator.records(self.mark)
            self.names.update((server["id"], server["name"]) for server in records)
            self.most = max(self.most, len(records))
            if len(records) > max(ceiling, self.ceiling):
                self.excess.append(f"{len(records)} servers where {ceiling} are planned")


@dataclass
class Trial:
    """The pools, and what is asked of them."""

    sandbox: Sandbox
    nova: Nova
    rng: random.Random
    replicas: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    """VMs that each claim asks for. Of the claims that there are."""

    def plan(self) -> None:
        """Now that all is quiet: so many servers there are, and may be."""
        self.nova.ceiling = sum(self.replicas.values()) + sum(self.counts.values())

    def begin(self) -> None:
        for short, replicas in (("data", 5), ("master", 3)):
            self.replicas[self.sandbox.named(short)] = replicas
            self.nova.ceiling += replicas
            self.sandbox.pool(short, replicas, maxConcurrent=4)

    def claim(self, name: str) -> None:
        pools = {pool: self.rng.randint(1, 3) for pool in self.rng.sample([*self.replicas], 2)}
        self.counts[name] = sum(pools.values())
        self.nova.ceiling += self.counts[name]
        mode = self.rng.choice(["BestEffort", "BestEffort", "HypervisorAware"])
        self.sandbox.claim(name, pools, mode=mode)

    def release(self) -> None:
        """Delete a claim; its servers may stay for a while, so the ceiling does too."""
        if self.counts:
            name = self.rng.choice([*self.counts])
            self.sandbox.kubectl("delete", "vmclaim", name)
            del self.counts[name]

    def grow(self) -> None:
        pool = self.rng.choice([*self.replicas])
        self.replicas[pool] += 1
        self.nova.ceiling += 1
        self.sandbox.scale(pool, self.replicas[pool])

    # -- what must be so once all is quiet ----------------------------------------------------

    def is_quiet(self) -> bool:
        """All claims are answered, and each pool has as many free VMs as it shall have."""
        claims, vms = self.sandbox.all(Kind.VM_CLAIM), self.sandbox.all(Kind.WARM_VM)
        answered = all(c.get("status", {}).get("phase") in ("Bound", "Failed") for c in claims)
        free = Counter(vm["spec"]["poolRef"]["name"] for vm in vms if is_free(vm))
        owners = {c["metadata"]["uid"] for c in claims}
        rest = [vm for vm in vms if not is_free(vm)]
        kept = all(vm["spec"].get("claimRef", {}).get("uid") in owners for vm in rest)
        return answered and dict(free) == self.replicas and kept and len(claims) == len(self.counts)

    def check(self) -> None:
        claims, vms = self.sandbox.all(Kind.VM_CLAIM), self.sandbox.all(Kind.WARM_VM)
        names = sorted(vm["metadata"]["name"] for vm in vms)
        assert sorted(self.sandbox.servers()) == names
        owned: dict[str, set[str]] = defaultdict(set)
        for vm in vms:
            if "claimRef" in vm["spec"]:
                owned[vm["spec"]["claimRef"]["uid"]].add(vm["metadata"]["uid"])
        for claim in claims:
            self._check_claim(claim, owned[claim["metadata"]["uid"]])
        for pool, replicas in self.replicas.items():
            self.sandbox.await_ready(pool, replicas)
        self.sandbox.until(self._is_ledger_empty, "all bindings are settled", 10)
        self.plan()

    def _check_claim(self, claim: Body, owned: set[str]) -> None:
        """It has all that it asked for, or nothing at all."""
        name, status = claim["metadata"]["name"], claim["status"]
        allocated = {vm["uid"] for vm in status.get("allocation", {}).get("vms", [])}
        assert owned == allocated, name
        assert len(allocated) == (self.counts[name] if status["phase"] == "Bound" else 0), name

    def _is_ledger_empty(self) -> bool:
        path = "jsonpath={.spec.entries}"
        ledger = ("get", Kind.BINDING_LEDGER.plural, LEDGER_NAME, "-n", HOME, "-o", path)
        return self.sandbox.cluster.kubectl(*ledger).stdout in ("", "[]")


def is_free(vm: Body) -> bool:
    ready = vm.get("status", {}).get("phase") == "Ready"
    going = "deletionTimestamp" in vm["metadata"]
    return ready and not going and "claimRef" not in vm["spec"]


@pytest.fixture
def trial(sandbox: Sandbox, simulator: Simulator, seed: int) -> Iterator[Trial]:
    nova = Nova(simulator, sandbox.mark)
    sampling = threading.Thread(target=nova.run)
    sampling.start()
    yield Trial(sandbox, nova, random.Random(seed))  # noqa: S311 - a journey to be repeated
    nova.ended.set()
    sampling.join()


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    given = request.config.getoption("--seed")
    return secrets.randbelow(10**6) if given is None else int(given)


def disturb(trial: Trial, fleet: Fleet, cycle: int) -> None:
    """Claim, release and grow while the leader is killed."""
    fleet.ensure(2)
    victim = fleet.leader()
    rng = trial.rng
    moment = rng.uniform(0, SPAN)
    killing = threading.Timer(moment, victim.kill)
    killing.start()
    claims = [partial(trial.claim, f"c{cycle}-{n}") for n in range(rng.randint(2, 4))]
    deeds: list[Callable[[], None]] = [*claims, trial.release, trial.release, trial.grow]
    rng.shuffle(deeds)
    for deed in deeds:
        deed()
    killing.join()
    fleet.start()
    print(f"cycle {cycle}: {victim.name} killed after {moment:.2f} s, {len(deeds)} deeds")


def check_history(trial: Trial, vms: Watch, claims: Watch) -> str:
    """Hold the whole history against the invariants; a summary."""
    takers: dict[str, set[str]] = defaultdict(set)
    created: set[str] = set()
    for vm in vms.versions():
        created.add(vm["metadata"]["uid"])
        if "claimRef" in vm["spec"]:
            takers[vm["metadata"]["uid"]].add(vm["spec"]["claimRef"]["uid"])
    allocations: dict[str, set[frozenset[str]]] = defaultdict(set)
    for claim in claims.versions():
        if "allocation" in claim.get("status", {}):
            uids = frozenset(vm["uid"] for vm in claim["status"]["allocation"]["vms"])
            allocations[claim["metadata"]["uid"]].add(uids)
    assert all(len(versions) == 1 for versions in allocations.values()), "one changed"
    for owner, [allocation] in allocations.items():
        for uid in allocation:
            takers[uid].add(owner)
    doubled = {uid: owners for uid, owners in takers.items() if len(owners) > 1}
    assert doubled == {}
    names = Counter(trial.nova.names.values())
    assert [name for name, servers in names.items() if servers > 1] == []
    assert trial.nova.excess == []
    assert len(created) == len(names) == sum(trial.replicas.values()) + len(takers)
    return (
        f"{len(created)} VMs for {len(allocations)} bound claims of {len(takers)} VMs,"
        f" {len(names)} servers, {trial.nova.most} at once at most"
    )


@pytest.mark.usefixtures("simulator")
def test_nothing_is_lost_or_doubled_when_leaders_are_killed(
    trial: Trial, fleet: Fleet, seed: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    cycles, sandbox = request.config.getoption("--cycles"), trial.sandbox
    print(f"{cycles} cycles with --seed {seed}")
    vms, claims = (
        Watch(sandbox.cluster, kind, sandbox.namespace, tmp_path)
        for kind in (Kind.WARM_VM, Kind.VM_CLAIM)
    )
    posts = trial.nova.simulator.state()["servers_accepted"]
    fleet.ensure(2)
    trial.begin()
    for cycle in range(1, cycles + 1):
        disturb(trial, fleet, cycle)
        sandbox.until(trial.is_quiet, f"quiet after cycle {cycle} of --seed {seed}", QUIET_WITHIN)
        trial.check()
    accepted = trial.nova.simulator.state()["servers_accepted"] - posts
    vms.stop()
    claims.stop()
    print(check_history(trial, vms, claims))
    assert accepted == len(trial.nova.names)
