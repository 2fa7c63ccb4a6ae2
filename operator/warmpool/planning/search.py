"""Whatever no flow captures, by OR-tools CP-SAT: exact, deterministic, within a bound on effort.

Places that no limit tells apart are one cell, so that the model is as small as the limits allow:
claims limited by rack are decided over racks.
"""

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

from warmpool.domain.cloud import Place
from warmpool.domain.ids import Ref
from warmpool.planning.greedy import Caps, choose
from warmpool.planning.problem import Bound, Layout, Problem
from warmpool.planning.stock import LEVEL, Leaf, Shelf

if TYPE_CHECKING:
    from ortools.sat.python import cp_model

EFFORT: Final = 1.0
"""Bound on one search in CP-SAT's deterministic seconds: the same for the same input everywhere.
One takes two to seven seconds of the clock. Claims that people write need a hundredth of it; those
that run into the bound have five overlapping limits or more over hundreds of hypervisors."""

Cell = tuple[str, ...]
"""Region and the names at all limited levels."""


class OutOfEffort(Exception):
    """The search ended at its bound. There may or may not be an answer."""


def search(problem: Problem, *, near: Layout, effort: float) -> Layout | None:
    """An answer to the whole problem, or None: proof that there is none.

    `near`: where to look first. Places that the answer is free to choose are the most crowded.

    Raises:
        OutOfEffort: neither was found within the effort. At once, if that is 0.
    """
    if effort <= 0:
        raise OutOfEffort
    # Imported here: loading it takes longer than the rest of the operator, and few claims need it.
    from ortools.sat.python import cp_model  # noqa: PLC0415

    model = _Model(problem, cp_model.CpModel())
    model.stay_near(near)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 1
    solver.parameters.max_deterministic_time = effort
    status = solver.solve(model.model)
    if status in {cp_model.OPTIMAL, cp_model.FEASIBLE}:
        return model.layout(solver)
    if status == cp_model.INFEASIBLE:
        return None
    raise OutOfEffort


class _Model:
    """The problem as CP-SAT knows it."""

    def __init__(self, problem: Problem, model: "cp_model.CpModel") -> None:
        self.model = model
        self._problem = problem
        self._levels = [LEVEL[level] for level in sorted(problem.levels)]
        self._cells: dict[Ref, dict[Cell, list[Leaf]]] = {}
        self._taken: list[dict[Cell, cp_model.IntVar]] = []
        for g, group in enumerate(problem.groups):
            cells = self._cells_of(group.shelf)
            known = self._cells.setdefault(group.pool, {})
            known.update(cells)
            taken = {
                cell: model.new_int_var(
                    0, min(group.count, sum(leaf.left for leaf in leaves)), f"{g}"
                )
                for cell, leaves in cells.items()
            }
            model.add(sum(taken.values()) == group.count)
            self._taken.append(taken)
        self._keep_within_stock()
        for bound in problem.bounds:
            self._keep_within(bound)

    def _cells_of(self, shelf: Shelf) -> dict[Cell, list[Leaf]]:
        cells: dict[Cell, list[Leaf]] = {}
        for leaf in sorted(shelf.leaves, key=lambda leaf: leaf.names):
            cells.setdefault(self._cell(leaf), []).append(leaf)
        return cells

    def _keep_within_stock(self) -> None:
        """Groups of one pool share its VMs. For a single one, its variables' bounds say it."""
        pools = [group.pool for group in self._problem.groups]
        for pool, cells in self._cells.items():
            if pools.count(pool) == 1:
                continue
            mine = [taken for taken, of in zip(self._taken, pools, strict=True) if of == pool]
            for cell, leaves in cells.items():
                wanted = [taken[cell] for taken in mine if cell in taken]
                self.model.add(sum(wanted) <= sum(leaf.left for leaf in leaves))

    def _keep_within(self, bound: Bound) -> None:
        model = self.model
        at = 1 + self._levels.index(LEVEL[bound.domain])
        loads: dict[tuple[str, str], list[cp_model.IntVar]] = defaultdict(list)
        for g in sorted(bound.groups):
            for cell, variable in self._taken[g].items():
                loads[cell[0], cell[at]].append(variable)
        total = sum(self._problem.groups[g].count for g in bound.groups)
        most = total if bound.most is None else bound.most
        if bound.most is not None:
            for load in loads.values():
                model.add(sum(load) <= most)
        if not bound.counted:
            return
        used = [model.new_bool_var("used") for _ in loads]
        for load, use in zip(loads.values(), used, strict=True):
            model.add(sum(load) >= use)
            model.add(sum(load) <= most * use)
        model.add(sum(used) >= bound.least)
        if bound.skew is not None:
            emptiest = model.new_int_var(1, total, "emptiest")
            for load, use in zip(loads.values(), used, strict=True):
                model.add(sum(load) >= emptiest).only_enforce_if(use)
                model.add(sum(load) <= emptiest + bound.skew)

    def stay_near(self, layout: Layout) -> None:
        """Try first what the weaker problem would have chosen."""
        for taken, leaves in zip(self._taken, layout, strict=True):
            wanted: Counter[Cell] = Counter()
            for leaf, count in leaves:
                wanted[self._cell(leaf)] += count
            for cell, variable in taken.items():
                self.model.add_hint(variable, wanted[cell])

    def _cell(self, leaf: Leaf) -> Cell:
        return (leaf.names[0], *[leaf.names[level] for level in self._levels])

    def layout(self, solver: "cp_model.CpSolver") -> Layout:
        """Counts per cell as counts per place, from the most crowded places first."""
        layout: Layout = [[] for _ in self._problem.groups]
        shelves: dict[tuple[Ref, Cell], Shelf] = {}
        for g, group in enumerate(self._problem.groups):
            for cell, variable in self._taken[g].items():
                if count := solver.value(variable):
                    leaves = self._cells[group.pool][cell]
                    shelf = shelves.setdefault(
                        (group.pool, cell), Shelf({leaf.place: leaf.left for leaf in leaves})
                    )
                    layout[g] += _taken_from(shelf, count)
        return layout


def _taken_from(shelf: Shelf, count: int) -> list[tuple[Leaf, int]]:
    """Take them off the shelf for good, so that the next group of the pool sees the rest."""
    chosen = choose(shelf, count, Caps(), spread=False) or []
    taken: list[tuple[Place, int]] = [(leaf.place, n) for leaf, n in chosen]
    for place, n in taken:
        shelf.take(place, n)
    return chosen
