"""How long a claim takes from its POST to the watch event that shows it Bound, and the bare cost.

The operator runs as a process of its own on the local control plane, with the rights of its role
and no others, over one pool of 10,000 ready VMs whose cloud cannot be reached: claims are served
all the same. The bare cost is an operator that takes no time: the same client creates the same
claims and, on each 201, writes the status itself. No operator runs then. Both are measured in turn,
several times; each figure is the median over all measurements.

Two things are kept from both sides, unless `--as-it-comes` is given: the disk, by having the
control plane's data in memory, and the garbage collections of its Go programs, by giving these
memory enough to do without in a measurement. On two cores one pause of either is the tail of a
scenario.

Writes a table to stdout and the figures to `benchmarks/results/claims.json`.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import os
import platform
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

import uvloop
from claims_client import Api, ClaimWatch, following, path
from stand import (
    HOME,
    RESTS_FOR,
    STARTED_IN,
    Operator,
    conclude,
    cpu_of,
    installed,
    percentile,
    say,
)

from warmpool.api.names import (
    API_VERSION,
    LABEL_CLAIM,
    LABEL_CLAIM_UID,
    LABEL_HYPERVISOR,
    LABEL_POOL,
    LABEL_RACK,
    LABEL_ZONE,
    LEDGER_NAME,
    POOL_FINALIZER,
    VM_FINALIZER,
)
from warmpool.tools.controlplane import ControlPlane

RESULTS: Final = Path(__file__).parent / "results" / "claims.json"
STORE: Final = "bench"
POOL: Final = "warm"
VMS: Final = 10_000
HYPERVISORS: Final = 500
RACKS: Final = 40
SETUP_AT_ONCE: Final = 48
IN_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a temporary directory of ours is made there
ROOM: Final = 4 << 30
"""Bytes that are to be free there."""

GOGC: Final = "1200"
"""Percent of what is alive that Go lets a heap grow by before it collects."""

PATIENCE: Final = 120.0
"""Seconds that anything may take before the run is given up."""

Json = dict[str, Any]
Figures = list[dict[str, float]]
"""Of measurements of the same, one after the other."""

Answer = Callable[[Json], Awaitable[None]]
"""What the client does about a claim that was just created, in place of an operator."""


@dataclass(frozen=True)
class Scenario:
    name: str
    claims: int
    vms: int
    mode: str = "BestEffort"
    pace: float | None = None
    """Claims a second; None: all at once."""
    tail: str = "p90"
    """The percentile that is held against the bare cost."""
    bound: float | None = None
    """What the ratio may come to, if anybody has said so."""
    times: int = 3
    """Measurements for each start of the operator."""

    def body(self, namespace: str, name: str) -> Json:
        request = {"name": "data", "pool": {"name": POOL}, "count": self.vms}
        return {
            "apiVersion": API_VERSION,
            "kind": "VMClaim",
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"requests": [request], "mode": self.mode},
        }

    @property
    def slug(self) -> str:
        return self.name.replace("_", "-")


SCENARIOS: Final = (
    Scenario("burst_300x1", 300, 1, bound=1.3),
    Scenario("burst_100x1", 100, 1),
    Scenario("burst_100x5", 100, 5, bound=1.5),
    Scenario("burst_20x15_rack", 20, 15, mode="RackAware", bound=1.8),
    Scenario("paced_100_per_s", 1000, 1, pace=100.0, tail="p99", bound=3.0, times=2),
)


@dataclass
class Samples:
    """One scenario over all rounds."""

    with_operator: list[Figures] = field(default_factory=list)
    """The measurements of each round."""
    bare: list[Figures] = field(default_factory=list)
    writes: Counter[str] = field(default_factory=Counter)
    cpu: list[float] = field(default_factory=list)
    settled: list[float] = field(default_factory=list)
    status_bytes: int = 0


# -- the world --------------------------------------------------------------------------------


class Bench:
    """One control plane with its 10,000 VMs, and the client that measures."""

    def __init__(  # noqa: PLR0913 - it is handed all that it works with
        self,
        api: Api,
        watch: ClaimWatch,
        *,
        kubeconfig: Path,
        log: Path,
        vms: int,
        servers: list[int],
    ) -> None:
        self.api = api
        self.watch = watch
        self.samples = {scenario.name: Samples() for scenario in SCENARIOS}
        self.starts: list[float] = []
        self.memory: list[float] = []
        self.statuses: dict[str, Json] = {}
        """A status that the operator wrote, per scenario: what the bare run writes."""
        self._kubeconfig = kubeconfig
        self._log = log
        self._vms = vms
        self._servers = servers
        """Process ids of the control plane."""
        self._serial = 0

    async def fill(self) -> None:
        """Create the pool and its VMs, as the operator would have them."""
        await self.api.namespace(STORE)
        pool = await self.api.create("warmpools", STORE, _pool())
        say(f"creating {self._vms} VMs over {HYPERVISORS} hypervisors in {RACKS} racks")
        bodies = iter([_vm(index, pool["metadata"]["uid"]) for index in range(self._vms)])
        done = 0

        async def create() -> None:
            nonlocal done
            for body, status in bodies:
                made = await self.api.create("warmvms", STORE, body)
                name = made["metadata"]["name"]
                await self.api.merge("warmvms", STORE, name, {"metadata": {"managedFields": [{}]}})
                await self.api.merge("warmvms", STORE, name, {"status": status}, status=True)
                done += 1
                if done % 2000 == 0:
                    say(f"  {done}")

        await asyncio.gather(*(create() for _ in range(SETUP_AT_ONCE)))

    async def restore(self) -> None:
        """Take back what a round has bound: the store is as it was. No operator runs."""
        await self.api.delete_all("vmclaims", STORE)
        taken = [vm for vm in await self.api.list("warmvms") if "claimRef" in vm["spec"]]
        labels = {LABEL_CLAIM: None, LABEL_CLAIM_UID: None}
        patch = {"spec": {"claimRef": None}, "metadata": {"labels": labels}}
        names = iter([vm["metadata"]["name"] for vm in taken])

        async def free() -> None:
            for name in names:
                await self.api.merge("warmvms", STORE, name, patch)

        await asyncio.gather(*(free() for _ in range(SETUP_AT_ONCE)))

    @contextlib.asynccontextmanager
    async def operator(self) -> Any:
        """A running operator that has served its first claim and come to rest."""
        if self._serial:
            await self._lead_until_now()
        first = Scenario("first", 1, 1)
        started = perf_counter()
        operator = Operator(self._kubeconfig, self._log)
        try:
            await self._create_all(first, STORE, operator)
            self.starts.append(perf_counter() - started)
            await operator.idle(STARTED_IN)
            yield operator
        finally:
            await operator.stop()

    async def _lead_until_now(self) -> None:
        """Have the last leader seem to have gone a moment ago.

        After a minute without one VMs are held against Nova first, and here is none.
        """
        now = datetime.now(UTC).isoformat()
        await self.api.merge("bindingledgers", HOME, LEDGER_NAME, {"spec": {"writtenAt": now}})

    async def with_operator(self, scenario: Scenario, operator: Operator) -> dict[str, float]:
        """One measurement of the operator, and of what it cost."""
        samples = self.samples[scenario.name]
        writes, cpu = await self.api.writes(), operator.cpu()
        await self.api.collect_garbage()
        started = perf_counter()
        figures = await self._create_all(scenario, STORE, operator)
        await self._settled(operator)
        samples.settled.append(perf_counter() - started)
        await operator.idle()
        samples.cpu.append(operator.cpu() - cpu)
        samples.writes += await self.api.writes() - writes
        samples.writes["claims"] += scenario.claims
        self.memory.append(operator.memory_mb())
        return figures

    async def without(self, scenario: Scenario) -> dict[str, float]:
        """The same claims, answered by the client itself, in a namespace of their own.

        It rests before as an operator does after each measurement.
        """
        namespace = f"bare-{self._serial}"
        status = self.statuses[scenario.name]

        async def answer(claim: Json) -> None:
            patch = [
                {"op": "test", "path": "/metadata/uid", "value": claim["metadata"]["uid"]},
                {"op": "add", "path": "/status", "value": status},
            ]
            name = claim["metadata"]["name"]
            await self.api.json_patch("vmclaims", namespace, name, patch, status=True)

        await self.api.namespace(namespace)
        await asyncio.sleep(RESTS_FOR)
        await self.api.collect_garbage()
        figures = await self._create_all(scenario, namespace, answer)
        await self.api.delete_all("vmclaims", namespace)
        return figures

    async def learn_status(self, scenario: Scenario) -> None:
        """Remember what the operator writes on a claim of this scenario."""
        claims = [c for c in await self.api.list("vmclaims")
                  if c["metadata"]["name"].startswith(scenario.slug)]  # fmt: skip
        status = claims[-1]["status"]
        self.statuses[scenario.name] = status
        self.samples[scenario.name].status_bytes = len(json.dumps(status, separators=(",", ":")))

    async def _create_all(
        self, scenario: Scenario, namespace: str, by: Operator | Answer
    ) -> dict[str, float]:
        """Create the claims, and see each Bound, by an operator or by our own answer."""
        operator = by if isinstance(by, Operator) else None
        self._serial += 1
        numbers = range(scenario.claims)
        names = [f"{scenario.slug}-{self._serial}-{number:04}" for number in numbers]
        bodies = [scenario.body(namespace, name) for name in names]
        sent: dict[str, float] = {}
        await self.api.warm_up()
        bound = self.watch.expect(namespace, names)

        async def one(index: int) -> None:
            if scenario.pace is not None:
                await asyncio.sleep(begin + index / scenario.pace - perf_counter())
            sent[names[index]] = perf_counter()
            claim = await self.api.create("vmclaims", namespace, bodies[index])
            if not isinstance(by, Operator):
                await by(claim)

        with no_garbage_collection():
            cpu = self._cpu(operator)
            begin = perf_counter() + 0.05
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*(one(index) for index in range(scenario.claims)))
                while not bound.done():
                    await asyncio.wait((bound,), timeout=1.0)
                    if operator is not None:
                        operator.check()
            cpu = {name: used - cpu[name] for name, used in self._cpu(operator).items()}
        seen = bound.result()
        taken = sorted((seen[name] - sent[name]) * 1e3 for name in names)
        return {f"p{q}_ms": percentile(taken, q) for q in (50, 90, 99)} | cpu

    def _cpu(self, operator: Operator | None) -> dict[str, float]:
        """Seconds of CPU so far, by who used them."""
        ours = cpu_of(os.getpid())
        servers = sum(map(cpu_of, self._servers))
        alone = 0.0 if operator is None else operator.cpu()
        return {"client_cpu_s": ours, "servers_cpu_s": servers, "operator_cpu_s": alone}

    async def _settled(self, operator: Operator) -> None:
        """Until every binding stands on its VMs and the ledger is empty."""
        async with asyncio.timeout(PATIENCE):
            while True:
                ledger = await self.api.get("bindingledgers", HOME, LEDGER_NAME)
                if not ledger["spec"].get("entries"):
                    return
                operator.check()
                await asyncio.sleep(0.1)


def _pool() -> Json:
    return {
        "apiVersion": API_VERSION,
        "kind": "WarmPool",
        "metadata": {"namespace": STORE, "name": POOL, "finalizers": [POOL_FINALIZER]},
        "spec": {
            "replicas": 10_000,
            "cloudRef": {"secretName": "no-such-secret", "cloud": "none"},
            "template": {"flavor": "m1.small", "image": "debian"},
        },
    }


def _vm(index: int, pool_uid: str) -> tuple[Json, Json]:
    """A WarmVM and its status."""
    host = index % HYPERVISORS
    rack, zone = f"rack-{host % RACKS:02}", f"az{host % RACKS % 3 + 1}"
    name, server = f"{POOL}-{index:05}", f"00000000-0000-4000-8000-{index:012}"
    ready = f"2026-01-01T{index // 3600:02}:{index // 60 % 60:02}:{index % 60:02}Z"
    labels = {
        LABEL_POOL: POOL,
        LABEL_ZONE: zone,
        LABEL_RACK: rack,
        LABEL_HYPERVISOR: f"compute-{host:03}",
    }
    body = {
        "apiVersion": API_VERSION,
        "kind": "WarmVM",
        "metadata": {
            "namespace": STORE,
            "name": name,
            "labels": labels,
            "finalizers": [VM_FINALIZER],
        },
        "spec": {
            "poolRef": {"name": POOL, "uid": pool_uid},
            "zone": zone,
            "providerID": f"openstack:///RegionOne/{server}",
        },
    }
    condition = {
        "type": "Ready",
        "status": "True",
        "reason": "ActiveAndChecked",
        "message": "ACTIVE, placed and checked",
        "lastTransitionTime": ready,
        "observedGeneration": 1,
    }
    status = {
        "observedGeneration": 1,
        "phase": "Ready",
        "serverID": server,
        "hostname": name,
        "addresses": [f"10.{index >> 16 & 255}.{index >> 8 & 255}.{index & 255}"],
        "zone": zone,
        "rack": rack,
        "hypervisor": f"compute-{host:03}",
        "createdAt": ready,
        "readyAt": ready,
        "conditions": [condition],
    }
    return body, status


# -- figures ----------------------------------------------------------------------------------


def over(figures: Figures, key: str) -> float:
    """Their median."""
    return round(median(each[key] for each in figures), 2)


def cpu_used(figures: Figures) -> dict[str, float]:
    """Seconds of CPU from the first POST until the last claim was seen Bound, by who used them."""
    return {who: over(figures, f"{who}_cpu_s") for who in ("client", "servers", "operator")}


def summary(scenario: Scenario, samples: Samples) -> Json:
    """The figures of one scenario."""
    tail, keys = f"{scenario.tail}_ms", ("p50_ms", "p90_ms", "p99_ms")
    all_ours = [*chain.from_iterable(samples.with_operator)]
    all_bare = [*chain.from_iterable(samples.bare)]
    ours = {key: over(all_ours, key) for key in keys}
    bare = {f"bare_{key}": over(all_bare, key) for key in keys}
    pairs = zip(samples.with_operator, samples.bare, strict=True)
    return {
        **ours,
        **bare,
        f"ratio_{scenario.tail}": round(ours[tail] / bare[f"bare_{tail}"], 3),
        "ratio_bound": scenario.bound,
        "measurements": len(all_ours),
        "ratios_by_round": [round(over(a, tail) / over(b, tail), 3) for a, b in pairs],
        "settled_s": round(median(samples.settled), 2),
        "operator_cpu_s": round(median(samples.cpu), 2),
        "cpu_until_bound_s": cpu_used(all_ours),
        "bare_cpu_until_bound_s": cpu_used(all_bare),
        "status_bytes": samples.status_bytes,
        "writes_per_claim": round(writes_per_claim(samples.writes), 3),
        "writes": dict(sorted(samples.writes.items())),
    }


def writes_per_claim(writes: Mapping[str, int]) -> float:
    """All that the operator wrote but its Lease, over the claims of the scenario."""
    return sum(n for key, n in writes.items() if key.startswith("operator ")) / writes["claims"]


def report(bench: Bench, chosen: list[Scenario], rounds: int, seconds: float) -> Json:
    made: Json = {}
    for scenario in chosen:
        made[scenario.name] = summary(scenario, bench.samples[scenario.name])
    if "paced_100_per_s" in made:
        made["paced_100_per_s"]["vms_in_store"] = bench._vms  # noqa: SLF001 - our own class
    for name, key in (("burst_100x1", "writes_per_claim_1"), ("burst_100x5", "writes_per_claim_5")):
        if name in made:
            made[key] = made[name]["writes_per_claim"]
    made["start_to_first_binding_s"] = round(median(bench.starts), 2)
    made["start_to_first_binding_worst_s"] = round(max(bench.starts), 2)
    made["operator_rss_mb"] = round(max(bench.memory), 1)
    made["rounds"] = rounds
    made["took_s"] = round(seconds)
    made["machine"] = {"python": platform.python_version(), "cores": os.cpu_count()}
    return made


def table(made: Json, chosen: list[Scenario]) -> Iterator[str]:
    yield (f"{'scenario':<18} {'p50':>8} {'p90':>8} {'p99':>8}   {'bare p50':>8} {'p90':>8}"
           f" {'p99':>8}   {'ratio':>10} {'bound':>5} {'cpu s':>6} {'writes':>6}")  # fmt: skip
    for scenario in chosen:
        row = made[scenario.name]
        ratio = f"{scenario.tail} {row[f'ratio_{scenario.tail}']:.2f}"
        yield (f"{scenario.name:<18} {row['p50_ms']:>8.1f} {row['p90_ms']:>8.1f}"
               f" {row['p99_ms']:>8.1f}   {row['bare_p50_ms']:>8.1f} {row['bare_p90_ms']:>8.1f}"
               f" {row['bare_p99_ms']:>8.1f}   {ratio:>10} {scenario.bound or '':>5}"
               f" {row['operator_cpu_s']:>6} {row['writes_per_claim']:>6.2f}")  # fmt: skip
    yield (f"start to first binding {made['start_to_first_binding_s']} s (worst"
           f" {made['start_to_first_binding_worst_s']} s), memory {made['operator_rss_mb']} MB,"
           f" {made['rounds']} rounds")  # fmt: skip


def vms_taken(scenarios: Sequence[Scenario]) -> int:
    """By a round of them, and by the first claim after each start."""
    return sum(each.claims * each.vms * each.times + 1 for each in scenarios)


def missed(made: Json, chosen: list[Scenario]) -> Iterator[str]:
    """Bounds that were not kept."""
    for scenario in chosen:
        ratio = made[scenario.name][f"ratio_{scenario.tail}"]
        if scenario.bound is not None and ratio > scenario.bound:
            yield f"{scenario.name}: {scenario.tail} is {ratio} x bare, more than {scenario.bound}"


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """The client's own pauses are not the operator's."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


# -- the run ----------------------------------------------------------------------------------


async def run(bench: Bench, chosen: list[Scenario], rounds: int) -> None:
    """Fill the store, learn the sizes in a round that does not count, then measure in turn."""
    await bench.fill()
    async with bench.operator() as operator:
        for scenario in chosen:
            await bench.with_operator(scenario, operator)
            await bench.learn_status(scenario)
            learned = bench.statuses[scenario.name]
            bench.samples[scenario.name] = Samples(
                status_bytes=len(json.dumps(learned, separators=(",", ":")))
            )
    bench.starts.clear()
    bench.memory.clear()
    await bench.restore()
    for number in range(rounds):
        for scenario in chosen:
            await pair(bench, scenario, operator_first=number % 2 == 0)
        await bench.restore()


async def pair(bench: Bench, scenario: Scenario, *, operator_first: bool) -> None:
    """Measurements with the operator and without, next to each other."""

    async def with_it() -> Figures:
        async with bench.operator() as operator:
            return [await bench.with_operator(scenario, operator) for _ in range(scenario.times)]

    async def without() -> Figures:
        return [await bench.without(scenario) for _ in range(scenario.times)]

    if operator_first:
        ours, bare = await with_it(), await without()
    else:
        bare, ours = await without(), await with_it()
    samples, tail = bench.samples[scenario.name], f"{scenario.tail}_ms"
    samples.with_operator.append(ours)
    samples.bare.append(bare)
    took, plain = over(ours, tail), over(bare, tail)
    say(f"{scenario.name}: {scenario.tail} {took:.1f} ms, bare {plain:.1f} ms, {took / plain:.2f}")


async def measure(
    arguments: argparse.Namespace, chosen: list[Scenario], control_plane: ControlPlane
) -> Json:
    """All of it, on a control plane that runs."""
    kubeconfig = installed(control_plane)
    started = perf_counter()
    watch = ClaimWatch()
    async with Api(control_plane.kubeconfig) as api:
        bench = Bench(
            api,
            watch,
            kubeconfig=kubeconfig,
            log=Path(arguments.log),
            vms=arguments.vms,
            servers=[process.pid for process in control_plane.processes],
        )
        await api.served("vmclaims")
        async with following(api, path("vmclaims"), watch.take_in):
            await run(bench, chosen, arguments.rounds)
    return report(bench, chosen, arguments.rounds, perf_counter() - started)


def rarely_collected() -> dict[str, str]:
    """Go's variables, for a heap that may take half of this machine's memory."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"GOGC": GOGC, "GOMEMLIMIT": f"{memory >> 21}MiB"}


def undisturbed() -> Path:
    """Prepare for a control plane that neither disk nor collector disturbs; where its data go.

    Raises:
        SystemExit: this machine has no memory for that.
    """
    if not IN_MEMORY.is_dir() or shutil.disk_usage(IN_MEMORY).free < ROOM:
        sys.exit(f"{IN_MEMORY} has not {ROOM >> 30} GiB free: run bench_claims.py --as-it-comes")
    os.environ.update(rarely_collected())
    return IN_MEMORY


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--rounds", type=int, default=4, help="starts of the operator per scenario")
    parser.add_argument("--only", nargs="+", choices=names, help="some of the scenarios")
    parser.add_argument("--vms", type=int, default=VMS, help="VMs in the store")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON goes")
    parser.add_argument(
        "--as-it-comes", action="store_true", help="on disk, and collecting garbage as ever"
    )
    default_log = Path(tempfile.gettempdir()) / "warmpool-bench-operator.log"
    parser.add_argument("--log", default=str(default_log), help="where the operator's log goes")
    arguments = parser.parse_args()
    chosen = [s for s in SCENARIOS if not arguments.only or s.name in arguments.only]
    if arguments.vms < vms_taken(chosen):
        parser.error(f"--vms {arguments.vms}: a round of these takes {vms_taken(chosen)}")
    data = Path(tempfile.gettempdir()) if arguments.as_it_comes else undisturbed()
    with (
        tempfile.TemporaryDirectory(prefix="warmpool-bench-", dir=data) as directory,
        ControlPlane(Path(directory)) as control_plane,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        made = runner.run(measure(arguments, chosen, control_plane))
    made["as_it_comes"] = arguments.as_it_comes
    judged = [] if arguments.as_it_comes else [*missed(made, chosen)]
    return conclude(made, table(made, chosen), arguments.out, judged)


if __name__ == "__main__":
    sys.exit(main())
