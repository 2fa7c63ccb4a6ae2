"""How long nobody is served when the leader goes: by SIGTERM, as in a rollout, or by kill -9.

Two replicas run on the local control plane, each a process of its own with the rights of its role,
over a pool of 2,000 VMs in the simulated cloud. A client makes 20 claims a second all the time and
deletes each a moment after it is bound; its VM is recycled. Now and then the leader is told to go,
or killed, and a new replica is started in its place once the other has taken over.

A failover lasts from the signal to the watch event of the first claim that was bound after the
other replica had taken the ledger over. Meanwhile no claim may be refused, lost, or get another's
VM.

Writes a table to stdout and the figures to `benchmarks/results/failover.json`. Exits with 1 if a
bound is missed.
"""

import argparse
import asyncio
import contextlib
import os
import platform
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final

import uvloop
from claims_client import Api, following
from stand import HOME, Json, Operator, conclude, installed, percentile, say, simulated_cloud

from warmpool.api.names import API_VERSION, GROUP
from warmpool.tools.controlplane import ControlPlane
from warmpool.tools.processes import temporary_directory

HERE: Final = Path(__file__).parent
RESULTS: Final = HERE / "results" / "failover.json"
WORLD: Final = HERE / "failover_world.yaml"
STORE: Final = "bench"
POOL: Final = "warm"
LEASE_SECONDS: Final = 10.0
"""As the operator has it by default."""

PACE: Final = 20.0
"""Claims a second."""

HOLD: Final = 1.5
"""Seconds for which a claim keeps its VM."""

STEADY: Final = 3.0
"""Seconds of load between two failovers, once everybody is there."""

CALM: Final = 1.5
"""Seconds that no claim has waited for when the next failover begins."""

IDLE: Final = 60.0
"""Seconds over which the writes of an idle operator are counted."""

PATIENCE: Final = 300.0
"""Seconds that anything may take before the run is given up."""

SIGTERM_BOUND: Final = 1.0
KILL_BOUND: Final = LEASE_SECONDS + 1.0


# -- the load -----------------------------------------------------------------------------------


@dataclass
class Load:
    """Claims at a steady pace, and what became of them."""

    api: Api
    answers: dict[str, "asyncio.Future[Json]"] = field(default_factory=dict)
    """Claims that wait, by name."""
    bound: list[tuple[int, float]] = field(default_factory=list)
    """Revision and moment of each binding, in the order in which they were seen."""
    waits: list[tuple[float, float]] = field(default_factory=list)
    """When each claim was made, and how many seconds it waited."""
    faults: list[str] = field(default_factory=list)
    holders: dict[str, str] = field(default_factory=dict)
    """The claim that has each VM, by the VM's uid."""
    made: int = 0
    stopping: bool = False

    async def run(self) -> None:
        """Go on until told to stop, then until the last claim has its answer."""
        begin = perf_counter()
        async with asyncio.TaskGroup() as tasks:
            while not self.stopping:
                await asyncio.sleep(begin + self.made / PACE - perf_counter())
                self.made += 1
                tasks.create_task(self._claim(f"c-{self.made:06}"))

    async def _claim(self, name: str) -> None:
        answer = self.answers[name] = asyncio.get_running_loop().create_future()
        sent = perf_counter()
        await self.api.create("vmclaims", STORE, _claim(name))
        try:
            async with asyncio.timeout(PATIENCE):
                status = await answer
        except TimeoutError:
            self.faults.append(f"claim {name} was lost: it never had an answer")
            return
        self.waits.append((sent, perf_counter() - sent))
        uids = [vm["uid"] for vm in status.get("allocation", {}).get("vms", ())]
        if status["phase"] != "Bound":
            self.faults.append(f"claim {name} could be had, and was refused: {status}")
        for uid in uids:
            if uid in self.holders:
                self.faults.append(f"VM {uid} is {name}'s and {self.holders[uid]}'s")
            self.holders[uid] = name
        await asyncio.sleep(HOLD)
        for uid in uids:
            self.holders.pop(uid, None)
        await self.api.delete("vmclaims", STORE, name)

    def take_in(self, event: Json, now: float) -> None:
        """One event of the watch of claims."""
        claim = event["object"]
        status, meta = claim.get("status", {}), claim["metadata"]
        answer = self.answers.get(meta["name"])
        if answer is None or status.get("phase", "Pending") == "Pending":
            return
        del self.answers[meta["name"]]
        answer.set_result(status)
        if status["phase"] == "Bound":
            self.bound.append((int(meta["resourceVersion"]), now))


def _claim(name: str) -> Json:
    request = {"name": "data", "pool": {"name": POOL}, "count": 1}
    return {
        "apiVersion": API_VERSION,
        "kind": "VMClaim",
        "metadata": {"namespace": STORE, "name": name},
        "spec": {"requests": [request]},
    }


def _pool(vms: int) -> Json:
    return {
        "apiVersion": API_VERSION,
        "kind": "WarmPool",
        "metadata": {"namespace": STORE, "name": POOL},
        "spec": {
            "replicas": vms,
            "maxSize": vms,  # else one more is built for each claim, and one goes for each end
            "cloudRef": {"secretName": "cloud", "cloud": "sim"},
            "template": {"flavor": "m1.micro", "image": "tiny"},
            "availabilityZones": ["az1", "az2", "az3"],
            "maxConcurrent": 64,
            "reclaimPolicy": "Recycle",
        },
    }


# -- the replicas -------------------------------------------------------------------------------


@dataclass
class Replicas:
    """Two operators, and who of them leads."""

    api: Api
    kubeconfig: Path
    log: Path
    running: dict[str, Operator] = field(default_factory=dict)
    epoch: int = 0
    holder: str = ""
    taken_over_at: int = 0
    """Revision at which the holder took the ledger over."""
    _number: int = 0

    def take_in(self, event: Json, _: float) -> None:
        """One event of the watch of the ledger."""
        spec = event["object"]["spec"]
        if spec["epoch"] != self.epoch:
            self.epoch, self.holder = spec["epoch"], spec["holder"]
            self.taken_over_at = int(event["object"]["metadata"]["resourceVersion"])

    async def complete(self) -> None:
        """Have two that are ready: one leads, the other watches the Lease."""
        while len(self.running) < 2:
            self._number += 1
            identity = f"bench-{self._number}"
            self.running[identity] = Operator(self.kubeconfig, self.log, identity=identity)
        await until(lambda: self.holder in self.running, "a leader")
        async with asyncio.timeout(PATIENCE):
            while not await self._stands_by():  # noqa: ASYNC110 - asked of the API server
                await asyncio.sleep(0.2)

    async def _stands_by(self) -> bool:
        """Whether a replica that has filled its store waits for the Lease."""
        for operator in self.running.values():
            operator.check()
        text = await self.api.text("/metrics")
        return any(float(found["count"]) > 0 for found in LEASE_WATCHES.finditer(text))

    def leader(self) -> Operator:
        return self.running[self.holder]

    async def end_leader(self, how: signal.Signals) -> float:
        """Send the leader a signal; the moment."""
        operator = self.running.pop(self.holder)
        began = perf_counter()
        operator.process.send(how)
        await asyncio.to_thread(operator.process.wait, PATIENCE)
        return began


LEASE_WATCHES: Final = re.compile(
    r'^apiserver_longrunning_requests\{.*?resource="leases".*?scope="resource".*?verb="WATCH"'
    r".*?\} (?P<count>[0-9.e+]+)$",
    re.MULTILINE,
)
"""Watches of one Lease by its name: nobody but our standbys does that."""


# -- the measurement ----------------------------------------------------------------------------


@dataclass
class Bench:
    """Everything that runs."""

    api: Api
    load: Load
    replicas: Replicas
    took: dict[str, list[float]] = field(default_factory=lambda: {"sigterm": [], "kill9": []})
    longest: dict[str, list[float]] = field(default_factory=lambda: {"sigterm": [], "kill9": []})
    """The longest that a claim waited in each failover."""
    steady: list[float] = field(default_factory=list)
    """Seconds that claims waited while nothing happened."""

    async def fill(self, clouds_yaml: str, vms: int) -> None:
        """Have a pool of so many VMs."""
        await self.api.namespace(STORE)
        await self.api.secret(STORE, "cloud", {"clouds.yaml": clouds_yaml})
        await self.api.create("warmpools", STORE, _pool(vms))
        say(f"filling a pool of {vms}")
        await self.full(vms)

    async def full(self, vms: int) -> None:
        """Until all VMs of the pool are ready, and no binding is under way."""
        async with asyncio.timeout(PATIENCE):
            while True:
                pool = await self.api.get("warmpools", STORE, POOL)
                if pool.get("status", {}).get("ready") == vms:
                    return
                await asyncio.sleep(0.5)

    async def fail_over(self, name: str, how: signal.Signals) -> None:
        """Once, with everything as it shall be before."""
        await self.replicas.complete()
        self.steady += await self._calm()
        epoch, first = self.replicas.epoch, len(self.load.bound)
        began = await self.replicas.end_leader(how)
        await until(lambda: self.replicas.epoch > epoch, "another leader")
        bound = await self._first_bound(first)
        self.took[name].append(bound - began)
        await asyncio.sleep(1.0)  # whoever waited meanwhile has been served by then
        waits = [wait for sent, wait in self.load.waits if sent + wait > began]
        self.longest[name].append(max(waits))
        say(f"{name}: {bound - began:.2f} s, the longest wait {max(waits):.2f} s")

    async def _calm(self) -> list[float]:
        """Until the last failover is over for those who claim, too: how long they waited then.

        A replica that starts takes a core for some seconds, and those who had no leader for a lease
        want their VMs, and to give them back, all at once.
        """
        deadline = perf_counter() + PATIENCE
        while perf_counter() < deadline:
            before = len(self.load.waits)
            await asyncio.sleep(STEADY)
            waits = [wait for _, wait in self.load.waits[before:]]
            if len(waits) > STEADY * PACE / 2 and max(waits) < CALM:
                return waits
        raise RuntimeError(f"claims waited for {CALM} s and longer, {PATIENCE} s after a failover")

    async def _first_bound(self, since: int) -> float:
        """When the first claim was seen that was bound by the new leader."""
        at = self.replicas.taken_over_at
        while True:
            for revision, seen in self.load.bound[since:]:
                if revision > at:
                    return seen
            await asyncio.sleep(0.005)

    async def writes_when_idle(self, seconds: float) -> float:
        """All writes of both replicas a minute, when nothing happens."""
        leases = 0

        def count(_: Json, __: float) -> None:
            nonlocal leases
            leases += 1

        async with following(self.api, f"/apis/coordination.k8s.io/v1/namespaces/{HOME}/leases",
                             count):  # fmt: skip
            leases, before = 0, await self._writes()
            await asyncio.sleep(seconds)
            return (leases + await self._writes() - before) * 60 / seconds

    async def _writes(self) -> int:
        """Writes of objects of ours and of Events, as the API server has counted them."""
        text = await self.api.text("/metrics")
        return sum(int(float(found["count"])) for found in WRITES.finditer(text))


WRITES: Final = re.compile(
    rf'^apiserver_request_total\{{.*?group="(?:{re.escape(GROUP)}|events\.k8s\.io)".*?'
    r'verb="(?:POST|PUT|PATCH|DELETE)".*?\} (?P<count>[0-9.e+]+)$',
    re.MULTILINE,
)


async def until(predicate: Callable[[], bool], what: str) -> None:
    """Wait for what the watches show."""
    deadline = perf_counter() + PATIENCE
    while not predicate():
        if perf_counter() > deadline:
            raise RuntimeError(f"no sign after {PATIENCE} s of {what}")
        await asyncio.sleep(0.005)


# -- the run ------------------------------------------------------------------------------------


async def run(bench: Bench, arguments: argparse.Namespace, clouds_yaml: str) -> float:
    """All of it; the writes a minute when idle."""
    await bench.replicas.complete()
    await bench.fill(clouds_yaml, arguments.vms)
    loading = asyncio.ensure_future(bench.load.run())
    try:
        for number in range(arguments.rounds):
            say(f"round {number + 1} of {arguments.rounds}")
            await bench.fail_over("sigterm", signal.SIGTERM)
            await bench.fail_over("kill9", signal.SIGKILL)
    finally:
        bench.load.stopping = True
        await loading
    await bench.replicas.complete()
    await bench.full(arguments.vms)
    for operator in bench.replicas.running.values():
        await operator.idle()
    say(f"counting the writes of {arguments.idle:.0f} s")
    return await bench.writes_when_idle(arguments.idle)


async def measure(arguments: argparse.Namespace, control_plane: ControlPlane, cloud: str) -> Json:
    """All of it, on a control plane that runs."""
    kubeconfig = installed(control_plane)
    ours = f"/apis/{API_VERSION}"
    async with contextlib.AsyncExitStack() as stack:
        api = await stack.enter_async_context(Api(control_plane.kubeconfig))
        for plural in ("vmclaims", "bindingledgers"):
            await api.served(plural)
        bench = Bench(api, Load(api), Replicas(api, kubeconfig, Path(arguments.log)))
        for plural, take_in in (
            ("vmclaims", bench.load.take_in),
            ("bindingledgers", bench.replicas.take_in),
        ):
            await stack.enter_async_context(following(api, f"{ours}/{plural}", take_in))
        try:
            writes = await run(bench, arguments, cloud)
        finally:
            for operator in bench.replicas.running.values():
                await operator.stop()
    return report(bench, arguments, writes)


def report(bench: Bench, arguments: argparse.Namespace, writes: float) -> Json:
    steady = sorted(bench.steady)
    return {
        "sigterm_to_next_bind_s": _figures(bench.took["sigterm"]),
        "kill9_to_next_bind_s": _figures(bench.took["kill9"]) | {"lease_s": LEASE_SECONDS},
        "api_writes_per_minute_idle": round(writes, 1),
        "longest_wait_of_a_claim_s": {
            name: _figures(waits) for name, waits in bench.longest.items()
        },
        "claims": {
            "per_s": PACE,
            "made": bench.load.made,
            "bound": len(bench.load.bound),
            "faults": bench.load.faults,
            "steady_p50_ms": round(percentile(steady, 50) * 1e3, 1),
            "steady_p99_ms": round(percentile(steady, 99) * 1e3, 1),
        },
        "vms_in_store": arguments.vms,
        "replicas": 2,
        "rounds": arguments.rounds,
        "machine": {"python": platform.python_version(), "cores": os.cpu_count()},
    }


def _figures(seconds: list[float]) -> Json:
    return {
        "p50": round(median(seconds), 3),
        "max": round(max(seconds), 3),
        "all": [round(each, 3) for each in seconds],
    }


def table(made: Json) -> Iterator[str]:
    rows = (("sigterm", "SIGTERM", SIGTERM_BOUND), ("kill9", "kill -9", KILL_BOUND))
    yield f"{'seconds from':<14} {'to the next binding':>20} {'longest wait of a claim':>26}"
    yield f"{'':<14} {'p50':>8} {'max':>5} {'bound':>5} {'p50':>14} {'max':>11}"
    for key, name, bound in rows:
        took, longest = made[f"{key}_to_next_bind_s"], made["longest_wait_of_a_claim_s"][key]
        yield (f"{name:<14} {took['p50']:>8.2f} {took['max']:>5.2f} {bound:>5.0f}"
               f" {longest['p50']:>14.2f} {longest['max']:>11.2f}")  # fmt: skip
    claims = made["claims"]
    yield (f"{claims['made']} claims, {claims['per_s']:.0f}/s: {claims['bound']} bound,"
           f" {len(claims['faults'])} faults; p50 {claims['steady_p50_ms']} ms,"
           f" p99 {claims['steady_p99_ms']} ms while nothing happens")  # fmt: skip
    yield (f"{made['vms_in_store']} VMs, {made['rounds']} failovers of each kind;"
           f" {made['api_writes_per_minute_idle']} API writes a minute when idle")  # fmt: skip


def missed(made: Json) -> list[str]:
    """What is not as it must be."""
    wrong = list(made["claims"]["faults"])
    if made["claims"]["bound"] != made["claims"]["made"]:
        wrong.append("not every claim was bound")
    if made["sigterm_to_next_bind_s"]["max"] >= SIGTERM_BOUND:
        wrong.append(f"SIGTERM: {SIGTERM_BOUND} s are the bound")
    if made["kill9_to_next_bind_s"]["max"] >= KILL_BOUND:
        wrong.append(f"kill -9: {KILL_BOUND} s are the bound")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="failovers of each kind")
    parser.add_argument("--vms", type=int, default=2000, help="VMs in the store")
    parser.add_argument("--idle", type=float, default=IDLE, help="seconds of counting when idle")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON goes")
    default_log = Path(tempfile.gettempdir()) / "warmpool-bench-failover.log"
    parser.add_argument("--log", default=str(default_log), help="where the operators' log goes")
    arguments = parser.parse_args()
    with (
        temporary_directory("warmpool-bench-") as folder,
        simulated_cloud(folder, "--scenario", WORLD) as (_, cloud),
        ControlPlane() as control_plane,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        made = runner.run(measure(arguments, control_plane, cloud))
    return conclude(made, table(made), arguments.out, missed(made))


if __name__ == "__main__":
    sys.exit(main())
