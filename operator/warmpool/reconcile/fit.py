"""Could this claim be had now? The same planning as the binder's, from the same store."""

from dataclasses import dataclass
from typing import Final

from warmpool.domain.claims import Fit, Shortage, Undecided
from warmpool.domain.facts import Claim, Vm
from warmpool.planning.allocation import allocate
from warmpool.planning.claims import demand_of
from warmpool.ports.clock import Clock
from warmpool.reconcile.decide import Decider
from warmpool.reconcile.store import Store


@dataclass(frozen=True, slots=True)
class Placed:
    """The claim would be bound now, to these VMs: request and VM."""

    vms: tuple[tuple[str, Vm], ...]


FULL: Final = 1_000_000
"""More VMs than any ledger holds: a question is not bounded by it."""


def fit(claim: Claim, store: Store, clock: Clock) -> Placed | Shortage | Undecided:
    """What the binder would answer to a new claim now, behind those that wait before it.

    The store is used up by this: what is picked counts as taken.
    """
    decider = Decider(store, clock)
    decider.decide(room=FULL)
    outcome = decider.question(claim)
    search = decider.search_of(claim.uid)
    if search is not None:
        outcome = allocate(search.demand, search.supply)
    if not isinstance(outcome, Fit):
        return outcome
    pools = {ask.name: ask.pool for ask in demand_of(claim).asks}
    vms: list[tuple[str, Vm]] = []
    for pick in outcome.picks:
        for vm in store.oldest(pools[pick.ask], pick.place, pick.count):
            store.commit(vm.uid, claim.uid)
            vms.append((pick.ask, vm))
    return Placed(tuple(sorted(vms, key=lambda placed: (placed[0], placed[1].ref))))
