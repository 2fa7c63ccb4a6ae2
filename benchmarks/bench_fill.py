"""How long a pool of 200 VMs takes to fill, what it writes, and what it asks of Nova.

One operator runs on the local control plane, a process of its own with the rights of its role, over
the simulated cloud, where every build takes two seconds from POST to ACTIVE. A round creates a pool
of 200 VMs with 20 builds in flight, waits until all are Ready, and deletes it again. A perfect
operator would take ten times two seconds.

Writes a table to stdout and the figures to `benchmarks/results/fill.json`. Exits with 1 if a bound
is missed.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final

import uvloop
from bench_failover import until
from claims_client import Api, following
from stand import Json, Operator, conclude, installed, percentile, say, simulated_cloud

from warmpool.api.names import API_VERSION
from warmpool.tools.controlplane import ControlPlane
from warmpool.tools.processes import temporary_directory

HERE: Final = Path(__file__).parent
RESULTS: Final = HERE / "results" / "fill.json"
WORLD: Final = HERE / "fill_world.yaml"
STORE: Final = "bench"
VMS: Final = 200
AT_ONCE: Final = 20
BUILD_SECONDS: Final = 2.0
"""From the POST until the server is ACTIVE; `fill_world.yaml` says so."""

PATIENCE: Final = 300.0
"""Seconds that anything may take before the run is given up."""

LISTING: Final = "GET /compute/v2.1/servers/detail"
"""What all pools share, however many VMs are built."""

RATIO_BOUND: Final = 1.1
WRITES_BOUND: Final = 4.0
CALLS_BOUND: Final = 2.0


class Cloud:
    """The simulator as a process of its own."""

    def __init__(self, url: str, clouds_yaml: str) -> None:
        self.clouds_yaml = clouds_yaml
        self._url = url

    def asked(self) -> Counter[str]:
        """Calls so far, by method and route. Logins are Keystone's."""
        calls = self._get("state")["calls"]
        return Counter({name: n for name, n in calls.items() if "/identity/" not in name})

    def posted(self) -> list[float]:
        """When each server was asked for, in seconds, in order."""
        entries = self._get("journal")["entries"]
        return sorted(
            datetime.fromisoformat(entry["at"]).timestamp()
            for entry in entries
            if entry["what"] == "posted"
        )

    def _get(self, what: str) -> Json:
        url = f"{self._url}/_sim/{what}"
        with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - ours, on loopback
            answer: Json = json.load(response)
        return answer


@dataclass
class Watch:
    """The WarmVMs that are ready, as a client's watch shows them."""

    ready: dict[str, float] = field(default_factory=dict)
    """By name, when each was first seen so."""
    there: set[str] = field(default_factory=set)

    def take_in(self, event: Json, now: float) -> None:
        name = event["object"]["metadata"]["name"]
        if event["type"] == "DELETED":
            self.there.discard(name)
            return
        self.there.add(name)
        if event["object"].get("status", {}).get("phase") == "Ready":
            self.ready.setdefault(name, now)


@dataclass
class Round:
    """One filling."""

    seconds: float
    """From the POST of the pool until the last VM was seen Ready."""
    first_post: float
    """Seconds until the first server was asked for, as far as two clocks tell."""
    idle: list[float]
    """Seconds from the end of each build in Nova to the POST that took its place."""
    writes: Counter[str]
    calls: Counter[str]
    operator_cpu: float


class Bench:
    """Everything that runs."""

    def __init__(self, api: Api, watch: Watch, cloud: Cloud, operator: Operator) -> None:
        self.api = api
        self.watch = watch
        self.cloud = cloud
        self.operator = operator
        self.rounds: list[Round] = []

    async def round(self, number: int) -> Round:
        """Fill a pool, and empty it again."""
        name = f"fill-{number}"
        writes, calls = await self.api.writes(), self.cloud.asked()
        cpu, posts = self.operator.cpu(), len(self.cloud.posted())
        self.watch.ready.clear()
        began, moment = perf_counter(), datetime.now().timestamp()  # noqa: DTZ005
        await self.api.create("warmpools", STORE, _pool(name))
        await until(lambda: len(self.watch.ready) == VMS, "a full pool")
        seconds = max(self.watch.ready.values()) - began
        await self.operator.idle()
        posted = self.cloud.posted()[posts:]
        made = Round(
            seconds,
            first_post=posted[0] - moment,
            idle=[b - a - BUILD_SECONDS for a, b in zip(posted, posted[AT_ONCE:], strict=False)],
            writes=await self.api.writes() - writes,
            calls=self.cloud.asked() - calls,
            operator_cpu=self.operator.cpu() - cpu,
        )
        made.writes["operator POST warmpools"] = 0  # that was us
        await self.api.delete("warmpools", STORE, name)
        await until(lambda: not self.watch.there, "the end of the pool's VMs")
        return made


def _pool(name: str) -> Json:
    return {
        "apiVersion": API_VERSION,
        "kind": "WarmPool",
        "metadata": {"namespace": STORE, "name": name},
        "spec": {
            "replicas": VMS,
            "maxConcurrent": AT_ONCE,
            "cloudRef": {"secretName": "cloud", "cloud": "sim"},
            "template": {"flavor": "m1.micro", "image": "tiny"},
        },
    }


# -- figures ------------------------------------------------------------------------------------


def report(rounds: list[Round]) -> Json:
    ideal = VMS / AT_ONCE * BUILD_SECONDS
    seconds = median(each.seconds for each in rounds)
    writes, calls = Counter[str](), Counter[str]()
    for each in rounds:
        writes += each.writes
        calls += each.calls
    listings = calls.pop(LISTING, 0)
    idle = sorted(gap for each in rounds for gap in each.idle)
    built = VMS * len(rounds)
    return {
        f"fill_{VMS}": {
            "seconds": round(seconds, 2),
            "ideal_seconds": ideal,
            "ratio": round(seconds / ideal, 3),
            "ratio_bound": RATIO_BOUND,
            "ratios_by_round": [round(each.seconds / ideal, 3) for each in rounds],
            "until_first_post_s": round(median(each.first_post for each in rounds), 2),
            "slot_idle_s": {f"p{q}": round(percentile(idle, q), 3) for q in (50, 90)},
        },
        "writes_per_vm": round(sum(writes.values()) / built, 3),
        "writes": _per_vm(writes, built),
        "nova_calls_per_vm": round(sum(calls.values()) / built, 3),
        "nova_calls": _per_vm(calls, built),
        "listings_per_s": round(listings / sum(each.seconds for each in rounds), 2),
        "operator_cpu_s": round(median(each.operator_cpu for each in rounds), 2),
        "max_concurrent": AT_ONCE,
        "build_seconds": BUILD_SECONDS,
        "rounds": len(rounds),
        "machine": {"python": platform.python_version(), "cores": os.cpu_count()},
    }


def _per_vm(counted: Counter[str], built: int) -> dict[str, float]:
    return {name: round(n / built, 3) for name, n in sorted(counted.items()) if n}


def table(made: Json) -> Iterator[str]:
    fill = made[f"fill_{VMS}"]
    yield f"{'':<26} {'measured':>9} {'bound':>6}"
    yield f"{f'seconds for {VMS} VMs':<26} {fill['seconds']:>9.2f} {'':>6}   ideal {fill['ideal_seconds']:.0f}"  # noqa: E501
    rows = (
        ("ratio to the ideal", fill["ratio"], RATIO_BOUND),
        ("API writes per VM", made["writes_per_vm"], WRITES_BOUND),
        ("Nova calls per VM", made["nova_calls_per_vm"], CALLS_BOUND),
    )
    for name, figure, bound in rows:
        yield f"{name:<26} {figure:>9.3f} {bound:>6}"
    yield (f"{made['rounds']} rounds, ratios {fill['ratios_by_round']}; the first POST after"
           f" {fill['until_first_post_s']} s, the next one {fill['slot_idle_s']['p50']} s after a"
           f" build has ended (p90 {fill['slot_idle_s']['p90']} s);"
           f" beside the calls {made['listings_per_s']} listings/s;"
           f" operator {made['operator_cpu_s']} s of CPU a round")  # fmt: skip


def missed(made: Json) -> list[str]:
    """What is not as it must be."""
    held = (
        ("ratio", made[f"fill_{VMS}"]["ratio"], RATIO_BOUND),
        ("writes per VM", made["writes_per_vm"], WRITES_BOUND),
        ("Nova calls per VM", made["nova_calls_per_vm"], CALLS_BOUND),
    )
    return [f"{name}: {is_} where {bound} is the bound" for name, is_, bound in held if is_ > bound]


# -- the run ------------------------------------------------------------------------------------


async def measure(arguments: argparse.Namespace, control_plane: ControlPlane, cloud: Cloud) -> Json:
    """All of it, on a control plane that runs."""
    kubeconfig = installed(control_plane)
    watch, where = Watch(), f"/apis/{API_VERSION}/warmvms"
    async with Api(control_plane.kubeconfig) as api:
        await api.served("warmvms")
        await api.namespace(STORE)
        await api.secret(STORE, "cloud", {"clouds.yaml": cloud.clouds_yaml})
        async with following(api, where, watch.take_in):
            operator = Operator(kubeconfig, Path(arguments.log))
            try:
                bench = Bench(api, watch, cloud, operator)
                await operator.idle()
                for number in range(arguments.rounds + 1):
                    made = await bench.round(number)
                    told = "does not count" if number == 0 else f"of {arguments.rounds}"
                    say(f"round {number} {told}: {made.seconds:.2f} s,"
                        f" first POST after {made.first_post:.2f} s")  # fmt: skip
                    bench.rounds.append(made)
            finally:
                await operator.stop()
    return report(bench.rounds[1:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="pools that are filled")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON goes")
    default_log = Path(tempfile.gettempdir()) / "warmpool-bench-fill.log"
    parser.add_argument("--log", default=str(default_log), help="where the operator's log goes")
    arguments = parser.parse_args()
    with (
        temporary_directory("warmpool-bench-") as folder,
        simulated_cloud(folder, "--scenario", WORLD) as told,
        ControlPlane() as control_plane,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        made = runner.run(measure(arguments, control_plane, Cloud(*told)))
    return conclude(made, table(made), arguments.out, missed(made))


if __name__ == "__main__":
    sys.exit(main())
