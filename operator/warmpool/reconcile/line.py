"""The claims that wait, as far as a pass over them has got."""

from collections.abc import Mapping
from hashlib import blake2b

from warmpool.domain.claims import Demand, Stock
from warmpool.domain.facts import Claim
from warmpool.domain.ids import Ref
from warmpool.planning import queue
from warmpool.reconcile.store import Store


class Line:
    """Those that come before a claim, and what they leave of the store to it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._line = queue.Line()
        self.waiting: list[tuple[Claim, Demand]] = []
        self.mark = b""
        """Says which claims they are, in this pass and any other. To compare the claims themselves
        would take as long for each as there are before it."""
        self.unsure = False
        """Whether it cannot be said now if all of them are to wait."""

    def add(self, claim: Claim, demand: Demand, *, unsure: bool = False) -> None:
        """One more is to wait, or may have to."""
        self.waiting.append((claim, demand))
        self._line.add(demand)
        self.mark = blake2b(self.mark + claim.uid.encode(), digest_size=16).digest()
        self.unsure = self.unsure or unsure

    def left(self, supply: Mapping[Ref, Stock]) -> dict[Ref, Stock]:
        """What they leave of each pool."""
        return {ref: self._left(ref, stock) for ref, stock in supply.items()}

    def _left(self, ref: Ref, stock: Stock) -> Stock:
        if not ref.namespace:
            return stock  # no pool, but what the claim itself has already
        return self._line.left(ref, stock, self._store.stock_version(ref))
