"""The claims that wait, as far as a pass over them has got."""

from collections.abc import Mapping
from itertools import count

from warmpool.domain.claims import Demand, Stock
from warmpool.domain.facts import Claim
from warmpool.domain.ids import ClaimUid, Ref
from warmpool.planning import queue
from warmpool.reconcile.store import Store


class Marks:
    """A number for every line that there was in this pass or the last: the same for the same one.

    Comparing the claims themselves would take as long for each of them as there are before it.
    """

    def __init__(self) -> None:
        self._before: dict[tuple[int, ClaimUid], int] = {}
        self._now: dict[tuple[int, ClaimUid], int] = {}
        self._numbers = count(1)

    def new_pass(self) -> None:
        """What the pass before the last one had is forgotten."""
        self._before, self._now = self._now, {}

    def after(self, mark: int, claim: ClaimUid) -> int:
        """The number of a line to which this claim was added; of an empty one it is 0."""
        key = (mark, claim)
        number = self._now.get(key) or self._before.get(key) or next(self._numbers)
        self._now[key] = number
        return number


class Line:
    """Those that come before a claim, and what they leave of the store to it."""

    def __init__(self, store: Store, marks: Marks) -> None:
        self._store = store
        self._marks = marks
        self._line = queue.Line()
        self.waiting: list[tuple[Claim, Demand]] = []
        self.mark = 0
        """Says which claims they are."""
        self.unsure = False
        """Whether it cannot be said now if all of them are to wait."""

    def add(self, claim: Claim, demand: Demand, *, unsure: bool = False) -> None:
        """One more is to wait, or may have to."""
        self.waiting.append((claim, demand))
        self._line.add(demand)
        self.mark = self._marks.after(self.mark, claim.uid)
        self.unsure = self.unsure or unsure

    def left(self, supply: Mapping[Ref, Stock]) -> dict[Ref, Stock]:
        """What they leave of each pool."""
        return {ref: self._left(ref, stock) for ref, stock in supply.items()}

    def _left(self, ref: Ref, stock: Stock) -> Stock:
        if not ref.namespace:
            return stock  # no pool, but what the claim itself has already
        return self._line.left(ref, stock, self._store.stock_version(ref))
