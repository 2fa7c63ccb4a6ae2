"""Could a claim be had from these VMs? An answer that shares no code with the planner.

The claim's words are handed to a general solver as they stand: one number per request and place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ortools.sat.python import cp_model

Body = dict[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class Spot:
    """Where a VM stands. Empty: not known."""

    zone: str
    rack: str
    hypervisor: str


Free = Mapping[tuple[str, Spot], int]
"""Free VMs by pool and spot."""

APART = {"BestEffort": (), "RackAware": ("rack",), "HypervisorAware": ("hypervisor",)}


def limits_of(spec: Body) -> list[Body]:
    """All that a claim says about placement, in the long form."""
    short = [
        {"domain": level, "maxPerDomain": 1} for level in APART[spec.get("mode", "BestEffort")]
    ]
    names = [request["name"] for request in spec["requests"]]
    every = [*short, *spec.get("constraints", [])]
    return [limit | {"requests": limit.get("requests") or names} for limit in every]


def keeps(limit: Body, vms: Sequence[tuple[str, Spot]]) -> bool:
    """Whether VMs, each with its request, keep within a limit."""
    loads: dict[str, int] = {}
    for request, spot in vms:
        if request in limit["requests"]:
            name = getattr(spot, limit["domain"])
            if not name:
                return False
            loads[name] = loads.get(name, 0) + 1
    most, least = max(loads.values(), default=0), min(loads.values(), default=0)
    return bool(
        most <= limit.get("maxPerDomain", most)
        and len(loads) >= limit.get("minDomains", 0)
        and most - least <= limit.get("maxSkew", most)
    )


def feasible(spec: Body, free: Free, reserves: Mapping[str, int]) -> bool:
    """Whether a claim could be had.

    Args:
        spec: the claim's.
        free: the VMs there are.
        reserves: how many of each pool it must leave.

    Raises:
        AssertionError: the solver could not tell.
    """
    wanted: dict[str, int] = {}
    for request in spec["requests"]:
        pool = request["pool"]["name"]
        wanted[pool] = wanted.get(pool, 0) + request["count"]
    for pool, count in wanted.items():
        if count > sum(n for (of, _), n in free.items() if of == pool) - reserves.get(pool, 0):
            return False
    limits = limits_of(spec)
    return True if not limits else _solve(spec, free, limits)


def _solve(spec: Body, free: Free, limits: Sequence[Body]) -> bool:
    model = cp_model.CpModel()
    taken: dict[tuple[str, Spot], Any] = {}
    for request in spec["requests"]:
        name, pool = request["name"], request["pool"]["name"]
        spots = [spot for of, spot in free if of == pool and _may(name, spot, limits)]
        for spot in spots:
            taken[name, spot] = model.new_int_var(0, free[pool, spot], "")
        model.add(sum(taken[name, spot] for spot in spots) == request["count"])
    for (pool, spot), count in free.items():
        of = [r["name"] for r in spec["requests"] if r["pool"]["name"] == pool]
        model.add(sum(taken[name, spot] for name in of if (name, spot) in taken) <= count)
    for limit in limits:
        _limit(model, limit, taken)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.max_time_in_seconds = 30
    status = solver.solve(model)
    assert status in {cp_model.OPTIMAL, cp_model.FEASIBLE, cp_model.INFEASIBLE}, status
    return status != cp_model.INFEASIBLE


def _may(name: str, spot: Spot, limits: Sequence[Body]) -> bool:
    return all(getattr(spot, limit["domain"]) for limit in limits if name in limit["requests"])


def _limit(model: cp_model.CpModel, limit: Body, taken: Mapping[tuple[str, Spot], Any]) -> None:
    """The limit, over the loads of its domains."""
    domains: dict[str, list[Any]] = {}
    for (name, spot), number in taken.items():
        if name in limit["requests"]:
            domains.setdefault(getattr(spot, limit["domain"]), []).append(number)
    least = model.new_int_var(1, 10_000, "")
    used = []
    for numbers in domains.values():
        load, has = sum(numbers), model.new_bool_var("")
        model.add(load >= 1).only_enforce_if(has)
        model.add(load == 0).only_enforce_if(~has)
        used.append(has)
        if "maxPerDomain" in limit:
            model.add(load <= limit["maxPerDomain"])
        if "maxSkew" in limit:
            model.add(load >= least).only_enforce_if(has)
            model.add(load <= least + limit["maxSkew"])
    model.add(sum(used) >= limit.get("minDomains", 0))
