"""Holds every state that a reader of the API could have seen against what must always be true.

I1: no VM is two claims'. I2: Bound with all its VMs or with none, and the allocation stays. I3: no
claim is refused that could have been satisfied at every moment since it was made, and what is bound
keeps its limits. And: what a claim has, the operator neither deletes nor calls broken.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from doubles.cluster import Change
from warmpool.api.names import ClaimPhase, Kind, Phase
from warmpool.api.v1alpha1.claim import OnUnsatisfied
from warmpool.domain.claims import Demand, Domain, Fit, Stock
from warmpool.domain.cloud import Place
from warmpool.domain.facts import Claim
from warmpool.domain.ids import Ref
from warmpool.planning.allocation import allocate
from warmpool.planning.claims import demand_of, in_order, reserve_for
from warmpool.planning.queue import without
from warmpool.ports.cluster import Body
from warmpool.reconcile.reading import read_claim, read_pool, read_vm

LEGAL = {
    ("Pending", "Pending"),
    ("Pending", "Bound"),
    ("Pending", "Failed"),
    ("Bound", "Bound"),
    ("Bound", "Released"),
    ("Failed", "Failed"),
    ("Released", "Released"),
}


def entries_of(ledger: Body) -> list[Body]:
    """The bindings that a ledger holds."""
    return [json.loads(text) for text in ledger["spec"].get("entries", [])]


@dataclass
class State:
    """All objects at one moment, by uid."""

    claims: dict[str, Body] = field(default_factory=dict)
    vms: dict[str, Body] = field(default_factory=dict)
    pools: dict[str, Body] = field(default_factory=dict)
    ledger: Body | None = None

    def take_in(self, change: Change) -> None:
        if change.kind is Kind.BINDING_LEDGER:
            self.ledger = None if change.deleted else change.body
            return
        table = {
            Kind.VM_CLAIM: self.claims,
            Kind.WARM_VM: self.vms,
            Kind.WARM_POOL: self.pools,
        }[change.kind]
        uid = change.body["metadata"]["uid"]
        if change.deleted:
            table.pop(uid, None)
        else:
            table[uid] = change.body

    def entries(self) -> list[Body]:
        return [] if self.ledger is None else entries_of(self.ledger)

    def removals(self) -> set[str]:
        spec = {} if self.ledger is None else self.ledger["spec"]
        return {vm["uid"] for vm in spec.get("removals", [])}

    def owners(self) -> dict[str, set[str]]:
        """Whose each VM is, by any word that is written anywhere."""
        owners: dict[str, set[str]] = {}
        for uid, claim in self.claims.items():
            for vm in held(claim):
                owners.setdefault(vm["uid"], set()).add(uid)
        for uid, vm in self.vms.items():
            if vm["spec"].get("claimRef"):
                owners.setdefault(uid, set()).add(vm["spec"]["claimRef"]["uid"])
        for entry in self.entries():
            for vm in entry["vms"]:
                owners.setdefault(vm["uid"], set()).add(entry["claim"]["uid"])
        return owners


def held(claim: Body) -> list[Any]:
    """The VMs that a claim has and has not lost."""
    if claim["status"]["phase"] != ClaimPhase.BOUND:
        return []
    return [vm for vm in claim["status"]["allocation"]["vms"] if not vm.get("lost")]


def states(history: Iterable[Change]) -> Iterator[tuple[Change, State]]:
    """Each change with the state that it leads to; the state is one object that moves on."""
    state = State()
    for change in history:
        state.take_in(change)
        yield change, state


def check(history: list[Change], *, taken_away: set[str]) -> State:
    """Check all states; the last one. `taken_away`: uids of VMs that users have deleted.

    Raises:
        AssertionError: what did not hold, and when.
    """
    before: dict[str, Body] = {}
    state = State()
    for index, (change, state) in enumerate(states(history)):
        try:
            _check_owners(state)
            _check_held(state, taken_away)
            if change.kind is Kind.VM_CLAIM and not change.deleted:
                uid = change.body["metadata"]["uid"]
                _check_step(before.get(uid), change.body, state, taken_away)
                if _is_refused(before.get(uid), change.body):
                    _check_refusal(history[: index + 1], uid)
                before[uid] = change.body
        except AssertionError as error:
            raise AssertionError(f"{error}\n{story_of(history[: index + 1])}") from error
    return state


def story_of(history: list[Change], last: int = 25) -> str:
    """The changes that led here, for people."""
    lines = (f"  {c.version} {c.kind.value} {c.ref.name}: {_gist(c)}" for c in history[-last:])
    return "\n".join(lines)


def _gist(change: Change) -> str:
    body = change.body
    if change.deleted:
        return "gone"
    if change.kind is Kind.BINDING_LEDGER:
        entries = [
            f"{e['claim']['name']}={','.join(v['name'] for v in e['vms'])}"
            for e in entries_of(body)
        ]
        removals = [vm["name"] for vm in body["spec"].get("removals", [])]
        return f"epoch {body['spec']['epoch']} {entries} -{removals}"
    phase = body["status"].get("phase", "")
    ref = (body["spec"].get("claimRef") or {}).get("name", "")
    going = " deleting" if "deletionTimestamp" in body["metadata"] else ""
    vms = [vm["name"] + ("!" * vm.get("lost", False)) for vm in _allocated(body)]
    return f"{phase} {ref} {vms or ''}{going}"


def _allocated(body: Body) -> list[Any]:
    return list((body["status"].get("allocation") or {}).get("vms", []))


def _check_owners(state: State) -> None:
    for vm, owners in state.owners().items():
        assert len(owners) == 1, f"I1: {vm} belongs to {sorted(owners)}"
        assert vm not in state.removals(), f"{vm} is bound and to be removed"


def _check_held(state: State, taken_away: set[str]) -> None:
    for claim in state.claims.values():
        for entry in held(claim):
            vm, name = state.vms.get(entry["uid"]), claim["metadata"]["name"]
            if entry["uid"] in taken_away:
                continue
            assert vm is not None, f"{name} is bound to {entry['name']}, which is gone"
            going = "deletionTimestamp" in vm["metadata"]
            assert not going, f"{entry['name']} of {name} is deleted"
            assert vm["status"]["phase"] == Phase.READY, f"{entry['name']} of {name} is not ready"


def _check_step(old: Body | None, new: Body, state: State, taken_away: set[str]) -> None:
    name = new["metadata"]["name"]
    was = "Pending" if old is None else old["status"]["phase"]
    phase = new["status"]["phase"]
    assert (was, phase) in LEGAL, f"I2: {name} went from {was} to {phase}"
    if phase == ClaimPhase.BOUND:
        _check_counts(new)
        fresh = [] if old is None else [vm["uid"] for vm in _allocated(old)]
        _check_places(new, [vm for vm in held(new) if vm["uid"] not in fresh], state, taken_away)
    if was == ClaimPhase.BOUND and old is not None:
        _check_growth(old, new)


def _check_counts(claim: Body) -> None:
    """All its VMs: only a loss makes them fewer, and never are they more."""
    have = Counter(vm["request"] for vm in held(claim))
    lost = Counter(vm["request"] for vm in _allocated(claim) if vm.get("lost"))
    for request in claim["spec"]["requests"]:
        asked, name = request["count"], request["name"]
        assert have[name] <= asked <= have[name] + lost[name], f"I2: {name}: {have}, {lost} lost"


def _check_growth(old: Body, new: Body) -> None:
    name = new["metadata"]["name"]
    had = {vm["uid"]: vm for vm in _allocated(old)}
    has = {vm["uid"]: vm for vm in _allocated(new)}
    assert had.keys() <= has.keys(), f"I2: {name} has lost VMs without a word"
    if not new["spec"].get("replaceLost"):
        assert had.keys() == has.keys(), f"I2: {name} has got more VMs"
    for uid, vm in had.items():
        assert has[uid].get("lost", False) >= vm.get("lost", False), f"I2: {name}: {uid} came back"
    bound_at = [c["status"]["allocation"]["boundAt"] for c in (old, new)]
    assert bound_at[0] == bound_at[1], f"I2: {name} was bound twice"


def _check_places(claim: Body, fresh: list[Any], state: State, taken_away: set[str]) -> None:
    for entry in fresh:
        if entry["uid"] in taken_away:
            continue
        vm = state.vms[entry["uid"]]
        assert vm["status"]["serverID"] == entry["serverID"], f"{entry['name']}: another server"
        assert vm["status"]["hypervisor"] == entry["hypervisor"], f"{entry['name']}: another place"
    for limit in demand_of(read_claim(claim)).limits:
        if limit.max_per_domain is None:
            continue
        level = limit.domain.value if limit.domain is not Domain.ZONE else "zone"
        used = Counter(vm[level] for vm in held(claim) if vm["request"] in limit.asks)
        assert max(used.values(), default=0) <= limit.max_per_domain, f"I3: {used}"


def _is_refused(old: Body | None, new: Body) -> bool:
    was = "Pending" if old is None else old["status"]["phase"]
    return bool(was == ClaimPhase.PENDING and new["status"]["phase"] == ClaimPhase.FAILED)


def _check_refusal(history: list[Change], uid: str) -> None:
    """There was a moment at which it could not be had."""
    for _, state in states(history[:-1]):
        if uid in state.claims and not _could_be_had(read_claim(state.claims[uid]), state):
            return
    raise AssertionError(f"I3: {history[-1].ref} was refused and could be had all the time")


def _could_be_had(claim: Claim, state: State) -> bool:
    pools = {p.ref: p for p in map(read_pool, state.pools.values())}
    counts: dict[Ref, Counter[Place]] = {ref: Counter() for ref in pools}
    taken = state.owners().keys() | state.removals()
    for vm in map(read_vm, state.vms.values()):
        if vm.phase is Phase.READY and not vm.deleting and vm.uid not in taken:
            counts[vm.pool][vm.place] += 1
    supply = {ref: Stock(counts[ref], reserve_for(claim, pool)) for ref, pool in pools.items()}
    return isinstance(allocate(demand_of(claim), left_by(supply, _before(claim, state))), Fit)


def _before(claim: Claim, state: State) -> list[Any]:
    """The demands that wait before this claim and could pass nothing on to it."""
    answered = {entry["claim"]["uid"] for entry in state.entries()}
    waiting = [
        c
        for c in map(read_claim, state.claims.values())
        if c.phase is ClaimPhase.PENDING
        and c.uid not in answered
        and c.spec.on_unsatisfied is not OnUnsatisfied.FAIL
    ]
    ahead = in_order({c.uid: c for c in [*waiting, claim]}.values())
    return [demand_of(c) for c in ahead[: [c.uid for c in ahead].index(claim.uid)]]


def left_by(supply: Mapping[Ref, Stock], waiting: Iterable[Demand]) -> dict[Ref, Stock]:
    """The supply without what the waiting demands could use, from the first of them."""
    left = dict(supply)
    for demand in waiting:
        for pool in {ask.pool for ask in demand.asks} & left.keys():
            left[pool] = without(left[pool], demand, pool)
    return left
