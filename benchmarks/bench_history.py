"""What history costs claims: bursts without it, with it on disk, and on its way to nowhere.

Bursts of 100 claims of one VM, one after the other: the records of one are written and brought on
while the next one is served. Three kinds of operator take turns, in an order that changes: one that
keeps no history, one with SQLite, and one whose Elasticsearch takes connections and never answers,
so that its spool fills. Each round gives the p90 of all claims of each kind; the ratio is between
kinds of the same round, and the median of those is held against the bound.

Writes a table to stdout and the figures to `benchmarks/results/history.json`.
"""

import argparse
import asyncio
import contextlib
import os
import platform
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final

import uvloop
from bench_claims import STORE, Bench, Json, Scenario
from claims_client import Api, ClaimWatch, following, path
from stand import Operator, conclude, installed, say

from doubles.silent import silent_server
from warmpool.tools.controlplane import ControlPlane

RESULTS: Final = Path(__file__).parent / "results" / "history.json"
UNTOLD: Final = str(Path(__file__).parent / "untold.py")
BURST: Final = Scenario("burst_100x1", 100, 1)
BOUND: Final = 1.1
KINDS: Final = ("none", "sqlite", "silent")


class HistoryBench(Bench):
    """One control plane, and operators of three kinds."""

    kind = "none"
    silent = ""
    """The URL of the Elasticsearch that never answers."""

    @contextlib.asynccontextmanager
    async def operator(self) -> AsyncIterator[Operator]:
        if self._serial:
            await self._lead_until_now()
        self._serial += 1
        told = {"WARMPOOL_ELASTICSEARCH_URL": self.silent} if self.kind == "silent" else {}
        run = (UNTOLD,) if self.kind == "none" else ("-m", "warmpool", "run")
        operator = Operator(self._kubeconfig, self._log, program=run, settings=told)
        try:
            await self._create_all(Scenario(f"first_{self._serial}", 1, 1), STORE, operator)
            await operator.idle()
            yield operator
        finally:
            await operator.stop()

    async def bursts(self, kind: str, number: int, bursts: int) -> dict[str, float]:
        """The p90 of each of some bursts, as their median, and what the operator used."""
        self.kind = kind
        async with self.operator() as operator:
            cpu, p90, p50 = operator.cpu(), [], []
            for burst in range(bursts):
                scenario = Scenario(f"{kind}-{number}-{burst}", BURST.claims, BURST.vms)
                figures = await self._create_all(scenario, STORE, operator)
                p90.append(figures["p90_ms"])
                p50.append(figures["p50_ms"])
                await self._settled(operator)
            await operator.idle()
            used = operator.cpu() - cpu
        say(
            f"round {number}, {kind}: p90 {', '.join(f'{p:.0f}' for p in p90)} ms, CPU {used:.2f} s"
        )
        return {"p50_ms": median(p50), "p90_ms": median(p90), "cpu_s": round(used, 2)}


async def measure(arguments: argparse.Namespace, control_plane: ControlPlane, url: str) -> Json:
    kubeconfig, watch = installed(control_plane), ClaimWatch()
    began = perf_counter()
    rounds: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    claims = arguments.bursts * BURST.claims + 1
    async with Api(control_plane.kubeconfig) as api:
        bench = HistoryBench(
            api,
            watch,
            kubeconfig=kubeconfig,
            log=Path(arguments.log),
            vms=arguments.rounds * len(KINDS) * claims + BURST.claims + 1,
            servers=[process.pid for process in control_plane.processes],
        )
        bench.silent = url
        await api.served("vmclaims")
        async with following(api, path("vmclaims"), watch.take_in):
            await bench.fill()
            await bench.bursts("none", 0, 1)  # what is first is slow
            for number in range(1, arguments.rounds + 1):
                turn = number % len(KINDS)
                for kind in (*KINDS[turn:], *KINDS[:turn]):
                    rounds[kind].append(await bench.bursts(kind, number, arguments.bursts))
    return report(rounds, arguments.bursts, perf_counter() - began)


def report(rounds: dict[str, list[dict[str, float]]], bursts: int, seconds: float) -> Json:
    """Of each kind its figures, and its ratio to having none."""
    made: Json = {}
    for kind, measured in rounds.items():
        pairs = zip(measured, rounds["none"], strict=True)
        ratios = [round(one["p90_ms"] / none["p90_ms"], 3) for one, none in pairs]
        made[kind] = {
            "p50_ms": round(median(m["p50_ms"] for m in measured), 1),
            "p90_ms": round(median(m["p90_ms"] for m in measured), 1),
            "operator_cpu_s": round(median(m["cpu_s"] for m in measured), 2),
            "p90_ratio": round(median(ratios), 3),
            "p90_ratios_by_round": ratios,
        }
    made["ratio_bound"] = BOUND
    made["rounds"], made["bursts_per_round"] = len(rounds["none"]), bursts
    made["claims_per_burst"] = BURST.claims
    made["took_s"] = round(seconds)
    made["machine"] = {"python": platform.python_version(), "cores": os.cpu_count()}
    return made


def table(made: Json) -> Iterator[str]:
    yield f"{'history':<10} {'p50 ms':>8} {'p90 ms':>8} {'p90 ratio':>10} {'cpu s':>7}   by round"
    for kind in KINDS:
        row = made[kind]
        by_round = ", ".join(f"{ratio:.2f}" for ratio in row["p90_ratios_by_round"])
        yield (f"{kind:<10} {row['p50_ms']:>8.1f} {row['p90_ms']:>8.1f} {row['p90_ratio']:>10.3f}"
               f" {row['operator_cpu_s']:>7.2f}   {by_round}")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6, help="of each kind")
    parser.add_argument("--bursts", type=int, default=5, help="of 100 claims, in a round")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON goes")
    default_log = Path(tempfile.gettempdir()) / "warmpool-bench-operator.log"
    parser.add_argument("--log", default=str(default_log), help="where the operator's log goes")
    arguments = parser.parse_args()
    with (
        ControlPlane() as control_plane,
        silent_server() as url,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        made = runner.run(measure(arguments, control_plane, url))
    over = [kind for kind in KINDS if made[kind]["p90_ratio"] > BOUND]
    missed = [f"{kind}: p90 {made[kind]['p90_ratio']} of what it is without" for kind in over]
    return conclude(made, table(made), arguments.out, missed)


if __name__ == "__main__":
    raise SystemExit(main())
