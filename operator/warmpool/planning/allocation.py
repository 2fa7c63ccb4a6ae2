"""Which VMs a claim gets: all of them within all its limits, or proof that it cannot be.

Exact: a demand that can be met is never refused, and what is handed out keeps within every limit.
Domains need not nest for that (a hypervisor may be seen in two racks).

The choice among answers, in this order:

1. A demand without limits uses as many hypervisors, then as many racks, as it can.
2. The pools stay as claimable as they can: summed over the pools asked, there remain as many racks
   with ready VMs as can be, then as many hypervisors, then racks are left as even as can be
   (least sum of squares of their VMs), then hypervisors. That is to take from the most crowded
   racks first, then from the most crowded hypervisors. VMs that cannot serve the ask, since a
   domain that it limits is not known, are not looked at for this.
3. Places in their own order.

This is the optimum, not a heuristic, wherever a flow decides: limits are `max_per_domain` over
nested domains, each over one pool or over sets of asks that are inside one another or have nothing
in common, and no two asks with different limits share a pool. Beyond that it is an attempt, while
the answer is still exact.

The answer does not depend on the order of asks, limits, pools or places.
"""

from collections.abc import Mapping

from warmpool.api.names import Reason
from warmpool.domain.claims import Demand, Fit, Shortage, Supply, Undecided
from warmpool.domain.ids import Ref
from warmpool.planning.modes import mode_limits
from warmpool.planning.problem import picks_of, problem_of
from warmpool.planning.search import EFFORT, OutOfEffort
from warmpool.planning.shortfall import contradiction, explain
from warmpool.planning.solving import solve
from warmpool.planning.stock import Shelf, shelf_of

__all__ = ["allocate", "mode_limits"]

OVERRUN = (
    "the search for a placement ended at its bound without an answer; fewer or simpler "
    "constraints are decided sooner"
)


def allocate(
    demand: Demand, supply: Supply, *, effort: float = EFFORT
) -> Fit | Shortage | Undecided:
    """Decide one demand. The supply stays as it is.

    `effort` bounds the search that limits need which no flow captures, in deterministic seconds of
    CP-SAT. Only such demands can be Undecided. With 0 nothing is searched and nothing heavy loaded:
    a caller that must not block asks so first, and has what is undecided searched elsewhere, over a
    copy of the supply.
    """
    missing = sorted({ask.pool for ask in demand.asks if ask.pool not in supply})
    if missing:
        return Shortage(Reason.POOL_NOT_FOUND, _missing(missing))
    shelves = {ask.pool: shelf_of(supply[ask.pool].counts) for ask in demand.asks}
    refusal = contradiction(demand) or _scarce(demand, supply, shelves)
    if refusal is not None:
        return refusal
    problem = problem_of(demand, shelves)
    try:
        layout = solve(problem, effort=effort, spread=not problem.levels)
    except OutOfEffort:
        return Undecided(OVERRUN)
    if layout is None:
        return explain(problem, effort=effort)
    return Fit(picks_of(problem, layout))


def _missing(pools: list[Ref]) -> str:
    names = ", ".join(str(pool) for pool in pools)
    return f"pool {names} does not exist" if len(pools) == 1 else f"pools {names} do not exist"


def _scarce(demand: Demand, supply: Supply, shelves: Mapping[Ref, Shelf]) -> Shortage | None:
    """Pools without VMs enough, wherever they are."""
    wanted: dict[Ref, int] = {}
    for ask in demand.asks:
        wanted[ask.pool] = wanted.get(ask.pool, 0) + ask.count
    short = [
        _too_few(pool, count, shelves[pool].total, supply[pool].reserve)
        for pool, count in sorted(wanted.items())
        if 0 < count > shelves[pool].total - supply[pool].reserve
    ]
    return Shortage(Reason.NOT_ENOUGH_READY, "; ".join(short)) if short else None


def _too_few(pool: Ref, wanted: int, ready: int, reserve: int) -> str:
    held = min(reserve, ready)
    vms = "VM" if ready - held == 1 else "VMs"
    back = f" ({held} more are held back as reserve)" if held else ""
    return f"pool {pool} has {ready - held} ready {vms}, {wanted} are needed{back}"
