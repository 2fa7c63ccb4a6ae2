"""Why a demand cannot be met, in numbers that a person can act on.

The first of these that holds is told: a limit that no supply could meet; VMs whose domain is not
known; a limit that fails by itself; some asks that fail by themselves; limits that fail together,
with those of them whose absence would help.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import combinations
from typing import Final

from warmpool.api.names import Reason
from warmpool.domain.claims import Demand, Domain, Limit, Shortage
from warmpool.planning.problem import Bound, DomainKey, Group, Problem
from warmpool.planning.search import OutOfEffort
from warmpool.planning.solving import solve
from warmpool.planning.stock import LEVEL, Shelf

TOO_FEW: Final = {
    Domain.ZONE: Reason.NOT_ENOUGH_ZONES,
    Domain.RACK: Reason.NOT_ENOUGH_RACKS,
    Domain.HYPERVISOR: Reason.NOT_ENOUGH_HYPERVISORS,
}
UNKNOWN: Final = {**TOO_FEW, Domain.RACK: Reason.RACKS_UNKNOWN}

EXPLANATION: Final = 0.02
"""Share of a decision's effort that each trial of an explanation may use."""
TRIALS: Final = 16
"""Trials per explanation at most: beyond, it is told less precisely."""
LONGEST: Final = 1000
"""Characters of a message: what a claim's status holds, less a little."""


def contradiction(demand: Demand) -> Shortage | None:
    """A limit that could not be met if there were any number of VMs in any number of domains.

    With those, every VM could have its domains to itself, and that is within any other limit.
    """
    counts: Counter[str] = Counter()
    for ask in demand.asks:
        counts[ask.name] += max(ask.count, 0)
    said = {
        _impossible(limit, sum(counts[name] for name in limit.asks)) for limit in demand.limits
    } - {""}
    return Shortage(Reason.CONSTRAINTS_CONTRADICT, "; ".join(sorted(said))) if said else None


def _impossible(limit: Limit, total: int) -> str:
    level = limit.domain.value
    if limit.min_domains is not None and limit.min_domains > total:
        return f"{_vms(total)} cannot use {_domains(limit.domain, limit.min_domains)}"
    if total and limit.max_per_domain is not None and limit.max_per_domain < 1:
        return f"{_vms(total)} cannot be placed with at most {limit.max_per_domain} per {level}"
    if total and limit.max_skew is not None and limit.max_skew < 0:
        return f"a skew of {limit.max_skew} between {level}s is below zero"
    return ""


def explain(problem: Problem, *, effort: float) -> Shortage:
    """Why a problem without an answer has none."""
    shortage = (
        _unknown(problem)
        or _alone(problem)
        or _single_bound(problem, tuple(range(len(problem.groups))))
        or _some_groups(problem, effort * EXPLANATION)
        or _together(problem, effort * EXPLANATION)
    )
    return replace(shortage, message=shortage.message[:LONGEST])


def _unknown(problem: Problem) -> Shortage | None:
    """A pool with VMs enough, but not enough whose domains are known where it matters."""
    for pool in sorted({group.pool for group in problem.groups}):
        groups = [group for group in problem.groups if group.pool == pool]
        kinds = sorted({group.levels for group in groups}, key=sorted)
        for size in range(1, len(kinds) + 1):
            for chosen in combinations(kinds, size):
                members = [group for group in groups if group.levels in chosen]
                known = sum({p: n for group in members for p, n in group.shelf.items()}.values())
                if known < sum(group.count for group in members):
                    return _not_known(members, known)
    return None


def _not_known(groups: list[Group], known: int) -> Shortage:
    """What to say of groups of one pool that have only so many VMs to choose from."""
    store = groups[0].store
    levels = frozenset().union(*[group.levels for group in groups])
    unknown = [level for level in sorted(levels, key=_racks_first) if store.unknown[level]]
    names = " or ".join(f"{level.value}s" for level in unknown)
    needed = sum(group.count for group in groups)
    return Shortage(
        UNKNOWN[unknown[0]],
        f"{names} are not known for {store.total - known} of {_ready(store.total)} of pool "
        f"{groups[0].pool}; {needed} where they are known are needed",
    )


def _racks_first(level: Domain) -> tuple[bool, int]:
    return (level is not Domain.RACK, LEVEL[level])


def _alone(problem: Problem) -> Shortage | None:
    """A group that fails by itself at a single bound."""
    shortages = (_single_bound(problem, (g,)) for g in range(len(problem.groups)))
    return next((shortage for shortage in shortages if shortage is not None), None)


def _single_bound(problem: Problem, members: tuple[int, ...]) -> Shortage | None:
    """A bound that these groups cannot keep within even if it were the only one."""
    for bound in problem.bounds:
        inside = [g for g in members if g in bound.groups]
        if len(inside) == len(bound.groups):
            text = _short_of_domains(problem, bound, inside)
        else:
            text = _short_of_domains(problem, replace(bound, least=0), inside)
        if text:
            return Shortage(TOO_FEW[bound.domain], text)
    return None


def _short_of_domains(problem: Problem, bound: Bound, members: list[int]) -> str:
    """What to say if the bound alone fails for these groups, else nothing."""
    total = sum(problem.groups[g].count for g in members)
    loads = _loads(problem, bound, members)
    given = (
        sum(loads.values())
        if bound.most is None
        else sum(min(n, bound.most) for n in loads.values())
    )
    level = bound.domain.value
    if len(loads) < bound.least or (bound.most == 1 and given < total):
        needed = bound.least or total
        others = sum(loads.values()) - len(loads)
        text = (
            f"{_whose(problem, members, bound, loads)}, {needed} are needed; "
            f"the other {_rest(others)} {_same(bound.domain, len(loads))}"
        )
    elif given < total:
        text = (
            f"{_whose(problem, members, bound, loads)}; with at most {bound.most} per {level} "
            f"they can give {given}, {total} are needed"
        )
    else:
        return ""
    hidden = sum(shelf.unknown[bound.domain] for shelf in _stores(problem, members))
    return text + (f"; {level}s are not known for {_ready(hidden)}" if hidden else "")


def _loads(problem: Problem, bound: Bound, members: Iterable[int]) -> Counter[DomainKey]:
    """VMs per domain that the groups may use."""
    loads: Counter[DomainKey] = Counter()
    for shelf in {problem.groups[g].pool: problem.groups[g].shelf for g in members}.values():
        for leaf in shelf.leaves:
            loads[bound.key(leaf)] += leaf.left
    return loads


def _stores(problem: Problem, members: Iterable[int]) -> list[Shelf]:
    """All that the pools of the groups hold, whether its domains are known or not."""
    return list({problem.groups[g].pool: problem.groups[g].store for g in members}.values())


def _whose(problem: Problem, members: list[int], bound: Bound, loads: Counter[DomainKey]) -> str:
    have = "has" if len(loads) == 1 else "have"
    text = f"{_domains(bound.domain, len(loads))} {have} ready VMs"
    return text if len(members) == len(problem.groups) else f"{text} for {_names(problem, members)}"


def _some_groups(problem: Problem, effort: float) -> Shortage | None:
    """The fewest groups that cannot be served even without the others."""
    trials = 0
    everyone = range(len(problem.groups))
    for size in range(1, len(problem.groups)):
        for members in combinations(everyone, size):
            trials += 1
            if trials > TRIALS:
                return None
            if _fails(_part(problem, members), effort):
                return _of_part(problem, members)
    return None


def _of_part(problem: Problem, members: tuple[int, ...]) -> Shortage:
    single = _single_bound(problem, members)
    if single is not None:
        return single
    names = _names(problem, members)
    total = sum(problem.groups[g].count for g in members)
    return Shortage(
        Reason.CONSTRAINTS_UNSATISFIED,
        f"{names}: no placement of these {_vms(total)} by themselves keeps within the limits; "
        f"{_supply_of(problem, members)}",
    )


def _part(problem: Problem, members: tuple[int, ...]) -> Problem:
    """Only these groups, without what a part need not meet for the whole to be met."""
    at = {g: index for index, g in enumerate(members)}
    bounds = [
        Bound(b.domain, frozenset(at[g] for g in b.groups if g in at), b.most, 0, None)
        for b in problem.bounds
        if b.most is not None
    ]
    groups = tuple(problem.groups[g] for g in members)
    return Problem(groups, tuple(b for b in bounds if b.groups), problem.levels)


def _together(problem: Problem, effort: float) -> Shortage:
    """Limits that can each be met, but not all of them at once."""
    helpful = list(_helpful(problem, effort))
    everyone = tuple(range(len(problem.groups)))
    supply = _supply_of(problem, everyone)
    limits = "; ".join(_described(problem, bound) for bound in problem.bounds)
    if len(problem.bounds) == 1:
        return Shortage(Reason.CONSTRAINTS_UNSATISFIED, f"no placement has {limits}; {supply}")
    text = f"no placement has all of this: {limits}; {supply}"
    if helpful:
        names = ", or without ".join(_described(problem, bound) for bound in helpful)
        text += f"; it would fit without {names}"
    return Shortage(Reason.CONSTRAINTS_UNSATISFIED, text)


def _helpful(problem: Problem, effort: float) -> Iterator[Bound]:
    """Bounds without which there would be an answer."""
    for bound in problem.bounds[:TRIALS]:
        rest = tuple(other for other in problem.bounds if other is not bound)
        try:
            if solve(replace(problem, bounds=rest), effort=effort) is not None:
                yield bound
        except OutOfEffort:
            continue


def _fails(problem: Problem, effort: float) -> bool:
    try:
        return solve(problem, effort=effort) is None
    except OutOfEffort:
        return False


def _described(problem: Problem, bound: Bound) -> str:
    parts = []
    if bound.most is not None:
        parts.append(f"at most {bound.most} per {bound.domain.value}")
    if bound.least:
        parts.append(f"at least {_domains(bound.domain, bound.least)}")
    if bound.skew is not None:
        parts.append(f"a skew of at most {bound.skew} between {bound.domain.value}s")
    return f"{' and '.join(parts)} for {_names(problem, sorted(bound.groups))}"


def _supply_of(problem: Problem, members: Iterable[int]) -> str:
    """Ready VMs and known domains of each pool asked."""
    stores = {problem.groups[g].pool: problem.groups[g].store for g in members}
    return "; ".join(f"pool {pool} has {_spread(problem, stores[pool])}" for pool in sorted(stores))


def _spread(problem: Problem, store: Shelf) -> str:
    counts = []
    for level in sorted(problem.levels, key=LEVEL.__getitem__):
        names = {(leaf.names[0], leaf.names[LEVEL[level]]) for leaf in store.leaves}
        counts.append(_domains(level, sum(1 for _, name in names if name)))
    return f"{_ready(store.total)} on {' and '.join(counts)}"


def _names(problem: Problem, members: Iterable[int]) -> str:
    return ", ".join(sorted(ask.name for g in members for ask in problem.groups[g].asks))


def _domains(level: Domain, count: int) -> str:
    return f"{count} {level.value}" + ("" if count == 1 else "s")


def _vms(count: int) -> str:
    return f"{count} VM" if count == 1 else f"{count} VMs"


def _ready(count: int) -> str:
    return f"{count} ready VM" if count == 1 else f"{count} ready VMs"


def _same(level: Domain, count: int) -> str:
    place = "in" if level is Domain.ZONE else "on"
    return f"{place} the same {level.value}" + ("" if count == 1 else "s")


def _rest(count: int) -> str:
    return "ready VM is" if count == 1 else f"{count} ready VMs are"
