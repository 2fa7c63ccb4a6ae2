"""From a problem to an answer, by the cheapest method that is exact for it."""

from warmpool.planning.greedy import caps_of, choose
from warmpool.planning.problem import Layout, Problem, holds
from warmpool.planning.relaxation import Relaxation, relax
from warmpool.planning.search import search


def solve(problem: Problem, *, effort: float, spread: bool = False) -> Layout | None:
    """An answer, or None: proof that there is none.

    `spread`: VMs on different hypervisors, then racks, are preferred to all else. Only for problems
    without bounds.

    Raises:
        OutOfEffort: neither was found within the effort.
    """
    apart = _apart(problem, spread=spread)
    if apart is None or _good(problem, apart, spread=spread):
        return apart
    weaker = relax(problem, spread=spread)
    if weaker.layout is None or all(holds(bound, weaker.layout) for bound in problem.bounds):
        return weaker.layout
    if _decisive(problem, weaker):
        return None
    return search(problem, near=weaker.layout, effort=effort)


def _apart(problem: Problem, *, spread: bool) -> Layout | None:
    """The best for each group as if it were alone. None: one cannot even be served so."""
    layout: Layout = []
    for g, group in enumerate(problem.groups):
        caps = caps_of([bound for bound in problem.bounds if g in bound.groups], group.shelf)
        chosen = choose(group.shelf, group.count, caps, spread=spread)
        if chosen is None:
            return None
        layout.append(chosen)
    return layout


def _good(problem: Problem, apart: Layout, *, spread: bool) -> bool:
    """The groups do not get in each other's way, so that what is best for each is best for all."""
    groups = problem.groups
    if len(groups) == 1:
        return all(holds(bound, apart) for bound in problem.bounds)
    if len({group.pool for group in groups}) < len(groups):
        return False
    if spread:
        return _all_distinct(problem, apart)
    return all(holds(bound, apart) for bound in problem.bounds)


def _all_distinct(problem: Problem, layout: Layout) -> bool:
    """Every VM has a rack, and thus a hypervisor, that no other has."""
    names = [leaf.names for leaves in layout for leaf, _ in leaves]
    racks = {(name[0], name[2]) for name in names if name[2] and name[3]}
    hypervisors = {(name[0], name[3]) for name in names}
    return len(racks) == len(hypervisors) == problem.count


def _decisive(problem: Problem, weaker: Relaxation) -> bool:
    """The flow used as many domains as can be, all that was asked for, and it was not enough."""
    counted = [bound for bound in problem.bounds if bound.counted]
    return not weaker.left_out and len(counted) == 1 and counted[0].skew is None
