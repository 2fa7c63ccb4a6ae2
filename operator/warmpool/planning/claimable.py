"""How large a claim of each mode one pool can serve now."""

from warmpool.api.v1alpha1.pool import Claimable
from warmpool.domain.claims import Stock
from warmpool.planning.stock import shelf_of


def claimable(stock: Stock) -> Claimable:
    """The largest claims that `allocate` would answer with a fit, each by itself.

    In time proportional to the number of places, or of racks where the stock holds a `Shelf`.
    """
    shelf = shelf_of(stock.counts)
    free = max(shelf.total - stock.reserve, 0)
    return Claimable(
        any=free,
        distinct_hypervisors=min(free, len(shelf.homes)),
        distinct_racks=min(free, shelf.racks),
    )
