"""Which claims are served now, which are refused, which wait: in memory, in one go, from the store.

Nothing here awaits: between choosing a VM and marking it taken, nobody else runs.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from warmpool.api.names import ClaimPhase, Reason
from warmpool.api.v1alpha1.claim import OnUnsatisfied
from warmpool.api.v1alpha1.ledger import LedgerClaim, LedgerEntry, LedgerVM
from warmpool.domain.claims import Ask, Demand, Fit, Limit, Shortage, Stock, Undecided
from warmpool.domain.cloud import Place
from warmpool.domain.facts import Claim, Pool, Vm
from warmpool.domain.ids import ClaimUid, Ref, VmUid
from warmpool.planning.allocation import allocate
from warmpool.planning.claims import (
    UNKNOWN_NAMESPACE,
    deadline,
    demand_of,
    in_order,
    refusal,
    reserve_for,
)
from warmpool.planning.missing import missing
from warmpool.ports.clock import Clock
from warmpool.reconcile.line import Line
from warmpool.reconcile.store import Store

SURGE: Final = 2
"""A pool builds at most so many times what a claim asks of it, while Nova chooses the hosts and
does not hit the racks that are missing."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A claim that is not served yet, and what to tell it."""

    claim: Claim
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Search:
    """A placement that no flow decides: to be searched for outside the event loop."""

    claim: ClaimUid
    demand: Demand
    supply: Mapping[Ref, Stock]
    """A copy: the search takes its time, and the store goes on."""
    basis: object
    """What the supply was taken from."""


@dataclass(slots=True)
class Decisions:
    """What came of one pass over the claims."""

    bindings: list[LedgerEntry] = field(default_factory=list)
    refusals: list[tuple[Claim, Shortage]] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    wanted: dict[Ref, int] = field(default_factory=dict)
    """Unclaimed VMs that pools shall have for claims that have them build."""
    searches: list[Search] = field(default_factory=list)
    """To be run, and answered by `found`."""
    wake_at: datetime | None = None
    """When a waiting claim is given up."""


class Decider:
    """Decides over one store, in one term of leadership."""

    def __init__(
        self, store: Store, clock: Clock, waits: Callable[[Ref], bool] = lambda _: False
    ) -> None:
        """`waits`: whether nothing may be taken from a pool yet."""
        self._waits = waits
        self._store = store
        self._clock = clock
        self._answered: set[ClaimUid] = set()
        """Claims that have their answer, which the store does not show yet."""
        self._in_ledger: set[ClaimUid] = set()
        """Claims with a binding that is not settled: no substitute is looked for meanwhile."""
        self._judged: dict[ClaimUid, tuple[object, Shortage | Undecided]] = {}
        """What was found for a claim that waits, and from what stock: not to be found again."""
        self._targets: dict[Ref, int] = {}
        self._builders: set[ClaimUid] = set()
        """The claims that have VMs built, and what pools were told to have for them."""
        self._searching: dict[ClaimUid, Search] = {}
        self._found: dict[ClaimUid, Fit] = {}

    def committed(self, entry: LedgerEntry) -> None:
        """An entry stands in the ledger: its VMs are taken, its claim has its answer."""
        claim = ClaimUid(entry.claim.uid)
        self._enter(claim)
        for vm in entry.vms:
            self._store.commit(VmUid(vm.uid), claim)

    def _enter(self, claim: ClaimUid) -> None:
        self._answered.add(claim)
        self._in_ledger.add(claim)

    def settled(self, entry: LedgerEntry) -> None:
        """It stands in the ledger no more."""
        self._in_ledger.discard(ClaimUid(entry.claim.uid))

    def take_back(self, claim: ClaimUid) -> None:
        """It has no answer after all."""
        self._answered.discard(claim)

    def decide(self, room: int) -> Decisions:
        """Serve the claims in their order, as long as the ledger has room for that many VMs."""
        decisions = Decisions()
        running = set(self._searching)
        before = Line(self._store)
        for claim in in_order(self._open()):
            demand = self._demand(claim)
            if any(self._waits(ask.pool) for ask in demand.asks):
                self._put_aside(claim, decisions)
                before.add(claim, demand, unsure=True)
                continue
            if sum(ask.count for ask in demand.asks) > room:
                break  # settling makes room, and wakes the binder
            outcome = self._judge(claim, demand, before)
            if isinstance(outcome, Fit):
                entry = self._bind(claim, demand, outcome)
                room -= len(entry.vms)
                decisions.bindings.append(entry)
            else:
                self._put_off(claim, demand, outcome, before, decisions)
        self._have_built(before.waiting, decisions)
        decisions.searches = [s for uid, s in self._searching.items() if uid not in running]
        self._forget_ended(decisions)
        return decisions

    def search_of(self, claim: ClaimUid) -> Search | None:
        """The search that an answer waits for, if it does."""
        return self._searching.get(claim)

    def found(self, search: Search, outcome: Fit | Shortage | Undecided) -> None:
        """A search has ended.

        A fit holds for as long as its VMs are free, a refusal only for the stock it was made from.
        """
        self._searching.pop(search.claim, None)
        if isinstance(outcome, Fit):
            self._found[search.claim] = outcome
        else:
            self._judged[search.claim] = (search.basis, outcome)

    def question(self, claim: Claim) -> Fit | Shortage | Undecided:
        """What a claim that is not there would be answered, behind those that wait before it."""
        before = Line(self._store)
        for other in in_order(self._open()):
            if other.uid == claim.uid or in_order([other, claim])[0] is claim:
                continue
            demand = self._demand(other)
            refused = refusal(other, self._pools(demand), self._store.namespace_labels)
            if not isinstance(refused, Undecided):
                before.add(other, demand, unsure=self._is_open_yet(other, demand))
        return self._judge(claim, self._demand(claim), before)

    # -- one claim ----------------------------------------------------------------------------

    def _open(self) -> list[Claim]:
        """Claims without an answer, and bound ones that want a substitute."""
        return [c for c in self._store.open_claims() if self._is_open(c)]

    def _is_open(self, claim: Claim) -> bool:
        if claim.phase is ClaimPhase.PENDING:
            return claim.uid not in self._answered and not claim.deleting
        return self._wants_substitute(claim)

    def _wants_substitute(self, claim: Claim) -> bool:
        allocation = claim.status.allocation
        return (
            claim.spec.replace_lost
            and claim.phase is ClaimPhase.BOUND
            and not claim.deleting
            and allocation is not None
            and claim.uid not in self._in_ledger
            and sum(not vm.lost for vm in allocation.vms)
            < sum(r.count for r in claim.spec.requests)
        )

    def _demand(self, claim: Claim) -> Demand:
        demand = demand_of(claim)
        return demand if claim.status.allocation is None else substitutes(claim, demand)

    def _judge(self, claim: Claim, demand: Demand, before: Line) -> Fit | Shortage | Undecided:
        known = self._pools(demand)
        refused = refusal(claim, known, self._store.namespace_labels)
        if refused is not None:
            return refused
        basis = (claim.version, self._basis(known), before.mark)
        judged = self._judged.get(claim.uid)
        if judged is not None and judged[0] == basis:
            return judged[1]
        supply = self._supply(claim, known)
        left, outcome = supply, allocate(demand, supply, effort=0)
        if before.waiting and not isinstance(outcome, Shortage):
            alone, left = outcome, before.left(supply)
            outcome = allocate(demand, left, effort=0)
            if isinstance(outcome, Shortage):
                if before.unsure:
                    return Undecided(SEARCHING)  # what they leave is known in a moment
                outcome = _held_back(outcome) if isinstance(alone, Fit) else outcome
        if isinstance(outcome, Undecided):
            return self._search(claim, demand, left, basis)
        if not isinstance(outcome, Fit):
            self._judged[claim.uid] = (basis, outcome)
        return outcome

    def _pools(self, demand: Demand) -> list[Pool]:
        """Those of its pools that there are."""
        pools = [self._store.pool(ask.pool) for ask in demand.asks if not is_kept(ask)]
        return [pool for pool in pools if pool is not None]

    def _is_open_yet(self, claim: Claim, demand: Demand) -> bool:
        """Whether it cannot be said now if a claim is to wait."""
        return claim.uid in self._searching or any(self._waits(ask.pool) for ask in demand.asks)

    def _search(
        self, claim: Claim, demand: Demand, supply: Mapping[Ref, Stock], basis: object
    ) -> Fit | Undecided:
        """What a search has found, if that can still be had; else have it searched for."""
        fit = self._found.pop(claim.uid, None)
        if fit is not None and _is_there(fit, demand, supply):
            return fit
        if claim.uid not in self._searching:
            copied = {pool: replace(s, counts=dict(s.counts)) for pool, s in supply.items()}
            self._searching[claim.uid] = Search(claim.uid, demand, copied, basis)
        return Undecided(SEARCHING)

    def _basis(self, pools: Iterable[Pool]) -> tuple[object, ...]:
        return tuple((p.uid, p.generation, self._store.stock_version(p.ref)) for p in pools)

    def _supply(self, claim: Claim, pools: Iterable[Pool]) -> dict[Ref, Stock]:
        supply = {
            pool.ref: Stock(self._store.counts(pool.ref), reserve_for(claim, pool))
            for pool in pools
        }
        if claim.status.allocation is not None:
            supply.update(kept_stock(claim, self._store))
        return supply

    def _bind(self, claim: Claim, demand: Demand, fit: Fit) -> LedgerEntry:
        """Take the VMs: from here on they are not free."""
        pools = {ask.name: ask.pool for ask in demand.asks if not is_kept(ask)}
        chosen: list[LedgerVM] = []
        for pick in fit.picks:
            if pick.ask not in pools:
                continue  # a VM that the claim has already
            for vm in self._store.oldest(pools[pick.ask], pick.place, pick.count):
                self._store.commit(vm.uid, claim.uid)
                chosen.append(_ledger_vm(vm, pick.ask))
        entry = LedgerEntry(
            claim=LedgerClaim(namespace=claim.ref.namespace, name=claim.ref.name, uid=claim.uid),
            bound_at=self._clock.now(),
            vms=chosen,
        )
        self._enter(claim.uid)
        return entry

    @staticmethod
    def _put_aside(claim: Claim, decisions: Decisions) -> None:
        """No answer yet, not even a refusal: what is free is not known."""
        if claim.status.allocation is None:
            reason = Reason.LOOKING_BACK
            decisions.waiting.append(Waiting(claim, reason, LOOKING_BACK))

    def _put_off(
        self,
        claim: Claim,
        demand: Demand,
        outcome: Shortage | Undecided,
        before: Line,
        decisions: Decisions,
    ) -> None:
        """No VMs now: refused, or told to wait."""
        if claim.status.allocation is not None:
            return  # a substitute may come later; the claim is bound meanwhile
        mode, now = claim.spec.on_unsatisfied, self._clock.now()
        shortage = _as_shortage(outcome)
        final = isinstance(outcome, Shortage) and outcome.reason in _NEVER
        if final or (mode is OnUnsatisfied.FAIL and isinstance(outcome, Shortage)):
            self._answer(claim, shortage, decisions)
            return
        if outcome == Undecided(SEARCHING):
            before.add(claim, demand, unsure=True)
            return  # not even its time is up before the search is
        until = deadline(claim)
        if now >= until:
            text = f"not satisfied within {claim.spec.timeout}: {shortage.message}"
            self._answer(claim, Shortage(Reason.TIMED_OUT, text), decisions)
            return
        decisions.wake_at = min(filter(None, (decisions.wake_at, until)))
        reason = shortage.reason
        if outcome != Undecided(UNKNOWN_NAMESPACE):  # else it keeps nothing from anybody
            before.add(claim, demand)
            if mode is OnUnsatisfied.BUILD:
                reason = Reason.BUILDING_FOR_CLAIM
        decisions.waiting.append(Waiting(claim, reason, shortage.message))

    def _answer(self, claim: Claim, shortage: Shortage, decisions: Decisions) -> None:
        self._answered.add(claim.uid)
        decisions.refusals.append((claim, shortage))

    def _have_built(self, waiting: Iterable[tuple[Claim, Demand]], decisions: Decisions) -> None:
        """What pools shall have so that the claims that have VMs built can all be satisfied.

        Not without end: a pool builds `SURGE` times what is asked of it at most. What it has been
        told to have, it keeps for as long as the same claims wait, however the VMs came to lie.
        """
        further: Counter[Ref] = Counter()
        asked: Counter[Ref] = Counter()
        before = Line(self._store)
        builders: set[ClaimUid] = set()
        for claim, demand in waiting:
            if claim.spec.on_unsatisfied is OnUnsatisfied.BUILD:
                builders.add(claim.uid)
                supply = before.left(self._supply(claim, self._pools(demand)))
                further.update(missing(demand, supply))
                for ask in demand.asks:
                    asked[ask.pool] += ask.count
            before.add(claim, demand)
        told = self._targets if builders == self._builders else {}
        for ref, count in asked.items():
            pool = self._store.pool(ref)
            if pool is not None:
                target = self._store.counts(ref).total + further[ref] if further[ref] else 0
                most = pool.spec.replicas + SURGE * count
                decisions.wanted[ref] = min(max(target, told.get(ref, 0)), most)
        self._targets, self._builders = dict(decisions.wanted), builders

    def _forget_ended(self, decisions: Decisions) -> None:
        waiting = {w.claim.uid for w in decisions.waiting}
        self._judged = {uid: found for uid, found in self._judged.items() if uid in waiting}
        self._answered = {uid for uid in self._answered if self._is_unseen(uid)}
        open_ = {c.uid for c in self._open()}
        self._found = {uid: fit for uid, fit in self._found.items() if uid in open_}

    def _is_unseen(self, answered: ClaimUid) -> bool:
        """Whether our answer may still be on its way, though the claim cannot be read for now."""
        claim = self._store.claim(answered)
        return claim is not None and claim.phase is ClaimPhase.PENDING


LOOKING_BACK: Final = "nobody led for a while: VMs are held against Nova before they are handed out"

SEARCHING: Final = "a placement is being searched for"


def _is_there(fit: Fit, demand: Demand, supply: Mapping[Ref, Stock]) -> bool:
    """Whether all that a fit picks is still free."""
    pools = {ask.name: ask.pool for ask in demand.asks}
    taken: dict[Ref, Counter[Place]] = {}
    for pick in fit.picks:
        taken.setdefault(pools[pick.ask], Counter())[pick.place] += pick.count
    return all(
        sum(places.values()) <= sum(supply[pool].counts.values()) - supply[pool].reserve
        and all(supply[pool].counts.get(place, 0) >= n for place, n in places.items())
        for pool, places in taken.items()
    )


_NEVER: Final = (Reason.CONSTRAINTS_CONTRADICT, Reason.NOT_PERMITTED)
"""Waiting does not help."""

KEPT: Final = "\0kept:"
"""Marks, in a demand for substitutes, the VMs that a claim has already. No request's name begins
so."""


def is_kept(ask: Ask) -> bool:
    """Whether an ask stands for VMs that the claim has already."""
    return ask.name.startswith(KEPT)


def substitutes(claim: Claim, demand: Demand) -> Demand:
    """The demand for what a bound claim has lost, given what it still has.

    The VMs it has are asks of their own, each from a pool that holds exactly them, so the limits
    are held over old and new ones together.
    """
    have = _have(claim)
    asks: list[Ask] = []
    for ask in demand.asks:
        kept = len(have.get(ask.name, ()))
        if kept:
            asks.append(Ask(KEPT + ask.name, _kept_pool(ask.name), kept))
        if ask.count > kept:
            asks.append(replace(ask, count=ask.count - kept))
    names = {ask.name for ask in asks}
    limits = [_widened(limit, names) for limit in demand.limits]
    return Demand(tuple(asks), tuple(limits))


def kept_stock(claim: Claim, store: Store) -> dict[Ref, Stock]:
    """The stock of the VMs that a bound claim still has."""
    stocks: dict[Ref, Stock] = {}
    for request, uids in _have(claim).items():
        counts: dict[Place, int] = {}
        for uid in uids:
            vm = store.vm(uid)
            place = vm.place if vm is not None else Place()
            counts[place] = counts.get(place, 0) + 1
        stocks[_kept_pool(request)] = Stock(counts)
    return stocks


def _have(claim: Claim) -> Mapping[str, list[VmUid]]:
    have: dict[str, list[VmUid]] = {}
    for vm in claim.status.allocation.vms if claim.status.allocation is not None else ():
        if not vm.lost:
            have.setdefault(vm.request, []).append(VmUid(vm.uid))
    return have


def _kept_pool(request: str) -> Ref:
    return Ref("", KEPT + request)


def _widened(limit: Limit, names: set[str]) -> Limit:
    both = limit.asks | {KEPT + name for name in limit.asks}
    return replace(limit, asks=frozenset(both & names))


def _held_back(found: Shortage) -> Shortage:
    """What a claim is told that could be satisfied but for those that wait before it."""
    text = f"{found.message}; the rest of the ready VMs is kept for claims that wait before it"
    return replace(found, message=text)


def _as_shortage(outcome: Shortage | Undecided) -> Shortage:
    if isinstance(outcome, Shortage):
        return outcome
    return Shortage(Reason.UNDECIDED, outcome.message)


def _ledger_vm(vm: Vm, request: str) -> LedgerVM:
    return LedgerVM(namespace=vm.ref.namespace, name=vm.ref.name, uid=vm.uid, request=request)
