"""Could this claim be had now? The same planning as the binder's, from the same store."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from warmpool.api.names import Kind
from warmpool.domain.claims import Fit, Shortage, Undecided
from warmpool.domain.cloud import Place
from warmpool.domain.errors import Unreadable
from warmpool.domain.facts import Claim, Vm
from warmpool.domain.ids import Ref
from warmpool.planning.allocation import allocate
from warmpool.planning.claims import demand_of
from warmpool.ports.clock import Clock
from warmpool.reconcile.decide import Decider
from warmpool.reconcile.reading import read_claim
from warmpool.reconcile.store import Store


@dataclass(frozen=True, slots=True)
class Placed:
    """The claim would be bound now, to these VMs: request and VM."""

    vms: tuple[tuple[str, Vm], ...]


Answer = Placed | Shortage | Undecided

FULL: Final = 1_000_000
"""More VMs than any ledger holds: a question is not bounded by it."""


def question_of(manifest: Mapping[str, Any], namespace: str | None = None) -> Claim:
    """A VMClaim that nobody has created, behind every claim of its priority that is there.

    Args:
        manifest: the object as one would create it; `metadata` may be left out.
        namespace: of the claim, if the manifest names none; else `default`.

    Raises:
        ValueError: it is no valid VMClaim; says which field.
    """
    if manifest.get("kind") != Kind.VM_CLAIM:
        raise ValueError(f"kind: {manifest.get('kind')!r} is not {Kind.VM_CLAIM.value!r}")
    meta = {"namespace": namespace or "default", "name": "question"} | manifest.get("metadata", {})
    meta |= {
        "uid": "question",
        "resourceVersion": "0",
        "creationTimestamp": "9999-12-31T00:00:00Z",
    }
    try:
        return read_claim({**manifest, "metadata": meta, "status": {}})
    except Unreadable as error:
        raise ValueError(str(error)) from error


def fit(claim: Claim, store: Store, clock: Clock) -> Answer:
    """What the binder would answer to a new claim now, behind those that wait before it.

    The store is used up by this: those before it that can be served get their VMs.
    """
    decider = Decider(store, clock)
    decider.decide(room=FULL)
    outcome = decider.question(claim)
    search = decider.search_of(claim.uid)
    if search is not None:
        outcome = allocate(search.demand, search.supply)
    return _placed(claim, outcome, store)


async def ask(claim: Claim, store: Store, clock: Clock) -> Answer:
    """The same of a store that lives on: nothing is taken from it.

    For claims before it that wait, all is kept that they could use, even those that are about to
    be served: an answer of the moment in which they are may be too low.
    """
    decider = Decider(store, clock)
    outcome = decider.question(claim)
    search = decider.search_of(claim.uid)
    if search is not None:
        outcome = await asyncio.to_thread(allocate, search.demand, search.supply)
    return _placed(claim, outcome, store)


def _placed(claim: Claim, outcome: Fit | Shortage | Undecided, store: Store) -> Answer:
    if not isinstance(outcome, Fit):
        return outcome
    pools = {ask.name: ask.pool for ask in demand_of(claim).asks}
    vms: list[tuple[str, Vm]] = []
    used: Counter[tuple[Ref, Place]] = Counter()
    for pick in outcome.picks:
        shelf = (pools[pick.ask], pick.place)
        before, used[shelf] = used[shelf], used[shelf] + pick.count
        chosen = store.oldest(*shelf, used[shelf])[before:]
        if len(chosen) < pick.count:
            return Undecided("the pools have changed while the answer was looked for: ask again")
        vms += [(pick.ask, vm) for vm in chosen]
    return Placed(tuple(sorted(vms, key=lambda placed: (placed[0], placed[1].ref))))
