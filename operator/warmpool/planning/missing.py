"""How many VMs a pool must build before a claim can be satisfied."""

from collections.abc import Mapping
from dataclasses import replace

from warmpool.domain.claims import Demand, Fit, Stock
from warmpool.domain.cloud import Place
from warmpool.domain.ids import Ref
from warmpool.planning.allocation import allocate


def missing(demand: Demand, supply: Mapping[Ref, Stock]) -> dict[Ref, int]:
    """The least numbers of further VMs per pool that could satisfy a demand, each VM somewhere new.

    Least in the sense that no pool's number alone can be lowered. Empty if the demand cannot be
    satisfied by building at all, or needs nothing.
    """
    wanted: dict[Ref, int] = {}
    for ask in demand.asks:
        wanted[ask.pool] = wanted.get(ask.pool, 0) + ask.count
    for pool in wanted.keys() & supply.keys():
        wanted[pool] += supply[pool].reserve
    if not wanted.keys() <= supply.keys() or not _fits(demand, supply, wanted):
        return {}
    for pool in sorted(wanted):
        wanted[pool] = _least(demand, supply, wanted, pool)
    return {pool: number for pool, number in wanted.items() if number}


def _least(
    demand: Demand, supply: Mapping[Ref, Stock], wanted: Mapping[Ref, int], pool: Ref
) -> int:
    """Bisect for one pool: with more VMs in new places a demand never becomes harder."""
    low, high = 0, wanted[pool]
    while low < high:
        middle = (low + high) // 2
        if _fits(demand, supply, {**wanted, pool: middle}):
            high = middle
        else:
            low = middle + 1
    return low


def _fits(demand: Demand, supply: Mapping[Ref, Stock], further: Mapping[Ref, int]) -> bool:
    grown = {
        pool: replace(stock, counts={**stock.counts, **_new_places(pool, further.get(pool, 0))})
        for pool, stock in supply.items()
    }
    return isinstance(allocate(demand, grown), Fit)


def _new_places(pool: Ref, number: int) -> dict[Place, int]:
    """Places that share no domain with any other."""
    names = [f"\0{pool}/{i}" for i in range(number)]
    return {Place("", name, name, name): 1 for name in names}
