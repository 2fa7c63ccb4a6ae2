"""How long one placement decision takes, by demand and by size of the supply.

Writes a table to stdout and the figures to `benchmarks/results/placement.json`. Each sample is one
`allocate` against the same supply of shelves, as the binder calls it; `burst` also takes the VMs of
each fit off the shelves, as the binder does, so that the supply shrinks while it goes on. `a pass`
is all that the binder decides when a VM has come or gone and no claim that waits can be served.
"""

import argparse
import gc
import json
import platform
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from time import perf_counter

from passes import Waiting

from warmpool.domain.claims import Ask, Demand, Domain, Fit, Limit, Stock
from warmpool.domain.cloud import Place
from warmpool.domain.ids import Ref
from warmpool.planning.allocation import allocate
from warmpool.planning.stock import Shelf

RESULTS = Path(__file__).parent / "results" / "placement.json"
DATA, MASTER = Ref("search", "es-data"), Ref("search", "es-master")
SIZES = {1_000: (50, 20), 10_000: (500, 40)}
"""VMs over both pools: hypervisors and racks."""

Supply = dict[Ref, Stock]


@dataclass(frozen=True)
class Case:
    name: str
    demand: Demand
    samples: int = 1000


def limit(domain: Domain, *asks: str, most: int | None = None, least: int | None = None,
          skew: int | None = None) -> Limit:  # fmt: skip
    return Limit(domain, frozenset(asks), most, least, skew)


def one(count: int, *limits: Limit) -> Demand:
    return Demand((Ask("data", DATA, count),), limits)


def two(masters: int, data: int, *limits: Limit) -> Demand:
    return Demand((Ask("data", DATA, data), Ask("master", MASTER, masters)), limits)


BOTH = ("data", "master")
CASES = (
    Case("1 any", one(1)),
    Case("5 any", one(5)),
    Case("50 any", one(50)),
    Case("3+6 any, two pools", two(3, 6)),
    Case("15 RackAware", one(15, limit(Domain.RACK, "data", most=1))),
    Case("40 HypervisorAware", one(40, limit(Domain.HYPERVISOR, "data", most=1))),
    Case("24, 2 per rack, 1 per hypervisor", one(
        24,
        limit(Domain.RACK, "data", most=2),
        limit(Domain.HYPERVISOR, "data", most=1),
    )),
    Case("3+6 RackAware, two pools", two(3, 6, limit(Domain.RACK, *BOTH, most=1))),
    Case("3+12 HypervisorAware, two pools", two(3, 12, limit(Domain.HYPERVISOR, *BOTH, most=1))),
    Case("refused: 60 RackAware", one(60, limit(Domain.RACK, "data", most=1))),
    Case("hard: 12, skew 1, 5 racks", one(
        12, limit(Domain.RACK, "data", least=5, skew=1), limit(Domain.HYPERVISOR, "data", most=1)
    ), 200),
    Case("hard: 3+12, masters apart, data skew 0 on 3 zones", two(
        3, 12,
        limit(Domain.RACK, "master", most=1),
        limit(Domain.ZONE, "data", least=3, skew=0),
        limit(Domain.HYPERVISOR, *BOTH, most=1),
    ), 100),
    Case("hard: 3 asks, overlapping pairs per rack", Demand(
        (Ask("a", DATA, 6), Ask("b", DATA, 4), Ask("c", MASTER, 4)),
        (
            limit(Domain.RACK, "a", "b", most=1),
            limit(Domain.RACK, "b", "c", most=1),
            limit(Domain.RACK, "a", "c", skew=0, least=3),
        ),
    ), 50),
)  # fmt: skip


def supply_of(vms: int) -> Supply:
    """Two thirds in one pool, spread as a scheduler would: everywhere, not evenly."""
    rng = random.Random(7)  # noqa: S311 - a fixed world, not a secret
    hosts, racks = SIZES[vms]
    places = [Place("RegionOne", f"az{h % racks % 3}", f"r{h % racks:02}", f"h{h:03}")
              for h in range(hosts)]  # fmt: skip
    supply = {}
    for pool, count in ((DATA, vms * 2 // 3), (MASTER, vms - vms * 2 // 3)):
        counts: dict[Place, int] = {}
        for _ in range(count):
            place = rng.choice(places)
            counts[place] = counts.get(place, 0) + 1
        supply[pool] = Stock(Shelf(counts))
    return supply


def timed(call: Callable[[], object]) -> float:
    started = perf_counter()
    call()
    return perf_counter() - started


def figures(samples: list[float]) -> dict[str, float]:
    cuts = quantiles(samples, n=100)
    return {"p50_us": round(cuts[49] * 1e6, 1), "p99_us": round(cuts[98] * 1e6, 1)}


def measure(case: Case, supply: Supply, samples: int) -> dict[str, object]:
    answer = allocate(case.demand, supply)
    taken = [timed(lambda: allocate(case.demand, supply)) for _ in range(samples)]
    return {"case": case.name, "answer": type(answer).__name__, **figures(taken)}


def burst(demand: Demand, vms: int, claims: int) -> dict[str, object]:
    """Decide claims one after the other and take what they get."""
    supply = supply_of(vms)
    taken = [timed(lambda: bind(demand, supply)) for _ in range(claims)]
    name = f"burst of {claims} x {sum(a.count for a in demand.asks)} any, taken"
    return {"case": name, "answer": f"{sum(taken) * 1e3:.1f} ms", **figures(taken)}


def bind(demand: Demand, supply: Supply) -> None:
    answer = allocate(demand, supply)
    if not isinstance(answer, Fit):
        raise TypeError(answer)
    pools = {ask.name: ask.pool for ask in demand.asks}
    for pick in answer.picks:
        shelf = supply[pools[pick.ask]].counts
        if isinstance(shelf, Shelf):
            shelf.take(pick.place, pick.count)


def waiting(shelf: Shelf, claims: int, count: int, mode: str) -> dict[str, object]:
    """One pass over claims that go on waiting, as there is one whenever a VM comes or goes."""
    world = Waiting(shelf, claims, count, mode)
    taken = []
    for _ in range(20):
        world.change()
        taken.append(timed(world.pass_))
    name = f"a pass over {claims} x {count} {mode}, all wait"
    return {"case": name, "vms": shelf.total, "answer": "", **figures(taken)}


def rows(samples: int) -> Iterator[dict[str, object]]:
    for vms in SIZES:
        supply = supply_of(vms)
        for case in CASES:
            yield {"vms": vms, **measure(case, supply, min(case.samples, samples))}
        yield {"vms": vms, **burst(one(1), vms, 300)}
        yield {"vms": vms, **burst(one(5), vms, 100)}
        plain = supply_of(vms)[DATA]
        listed = {DATA: Stock(dict(plain.counts))}
        case = Case("1 any, from a plain mapping", one(1))
        yield {"vms": vms, **measure(case, listed, min(200, samples))}
    whole = Shelf(supply_of(10_000)[DATA].counts)
    few = Shelf(dict.fromkeys(list(whole)[:40], 1))
    for claims in (100, 500, 1000):
        yield waiting(few, claims, 100, "BestEffort")
        yield waiting(whole, claims, 60, "RackAware")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1000, help="decisions per case at most")
    arguments = parser.parse_args()
    gc.collect()
    gc.freeze()
    made = []
    print(f"{'VMs':>6}  {'demand':<52} {'answer':<10} {'p50 us':>9} {'p99 us':>9}")
    for row in rows(arguments.samples):
        made.append(row)
        print(f"{row['vms']:>6}  {row['case']:<52} {row['answer']:<10} "
              f"{row['p50_us']:>9} {row['p99_us']:>9}", flush=True)  # fmt: skip
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps({"python": platform.python_version(), "rows": made}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
