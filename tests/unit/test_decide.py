"""Which claims are served now, which are refused, which wait: over a store, without a cluster."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import NOW, POOL, a_claim, a_claim_body, a_place, a_pool_body, a_vm_body, after
from warmpool.api.names import Kind, Reason
from warmpool.api.v1alpha1.ledger import LedgerClaim, LedgerEntry, LedgerVM
from warmpool.domain.claims import Demand, Fit, Shortage, Supply, Undecided
from warmpool.domain.cloud import Place
from warmpool.domain.ids import ClaimUid, Ref, VmUid
from warmpool.planning.allocation import allocate
from warmpool.planning.claims import UNKNOWN_NAMESPACE
from warmpool.reconcile.decide import SURGE, Decider, Decisions
from warmpool.reconcile.fit import Placed, ask, fit, question_of
from warmpool.reconcile.store import Store
from warmpool.sim.clock import ManualClock

ROOM = 1000
RACKS = {"mode": "RackAware"}


def on(number: int, rack: int) -> Place:
    return a_place(number, rack=f"r{rack}")


def a_store(*racks: int, **pool: Any) -> Store:
    """A pool with a ready VM in each of these racks, each on a hypervisor of its own."""
    store = Store()
    store.apply(Kind.WARM_POOL, a_pool_body(**pool))
    for number, rack in enumerate(racks, 1):
        store.apply(Kind.WARM_VM, a_vm_body(number, place=on(number, rack)))
    return store


def asked(store: Store, name: str, count: int = 1, version: int = 1, **spec: Any) -> ClaimUid:
    meta = {"creationTimestamp": spec.pop("at", NOW).isoformat()}
    body = a_claim_body(name, version=version, count=count, meta=meta, **spec)
    store.apply(Kind.VM_CLAIM, body)
    return ClaimUid(f"uid-of-{name}")


def decided(store: Store, seconds: float = 0, room: int = ROOM) -> Decisions:
    return Decider(store, ManualClock(after(seconds))).decide(room)


def bound(decisions: Decisions) -> Mapping[str, int]:
    return {entry.claim.name: len(entry.vms) for entry in decisions.bindings}


def refused(decisions: Decisions) -> Mapping[str, Reason]:
    return {claim.ref.name: shortage.reason for claim, shortage in decisions.refusals}


def test_a_claim_that_can_be_satisfied_is_bound_to_ready_vms() -> None:
    store = a_store(1, 2)
    asked(store, "logs", 2)
    (entry,) = decided(store).bindings
    assert {vm.uid for vm in entry.vms} == {"vm-1", "vm-2"}
    assert {vm.request for vm in entry.vms} == {"data"}
    assert entry.bound_at == NOW
    assert not store.counts(POOL)


def test_a_claim_that_cannot_be_satisfied_is_refused_at_once_and_takes_nothing() -> None:
    store = a_store(1, 2)
    asked(store, "logs", 3)
    assert refused(decided(store)) == {"logs": Reason.NOT_ENOUGH_READY}
    assert sum(store.counts(POOL).values()) == 2


def test_no_vm_goes_to_two_claims_of_one_pass() -> None:
    store = a_store(1, 2, 3)
    asked(store, "one", 2)
    asked(store, "two", 2)
    decisions = decided(store)
    assert bound(decisions) == {"one": 2}
    assert refused(decisions) == {"two": Reason.NOT_ENOUGH_READY}


def test_a_claim_that_has_its_answer_is_not_answered_again() -> None:
    store = a_store(1)
    asked(store, "logs", 1)
    asked(store, "late", 9)
    decider = Decider(store, ManualClock(NOW))
    first, again = decider.decide(ROOM), decider.decide(ROOM)
    assert (bound(first), refused(first)) == ({"logs": 1}, {"late": Reason.NOT_ENOUGH_READY})
    assert (again.bindings, again.refusals) == ([], [])


def test_nor_is_one_that_could_not_be_read_for_a_while() -> None:
    """Its answer may still be on its way: it would have got as many VMs again."""
    store = a_store(1, 2)
    asked(store, "logs", 1)
    decider = Decider(store, ManualClock(NOW))
    assert bound(decider.decide(ROOM)) == {"logs": 1}
    store.apply(Kind.VM_CLAIM, {**a_claim_body("logs", version=2), "spec": "something newer"})
    assert bound(decider.decide(ROOM)) == {}
    asked(store, "logs", 1, version=3)
    assert bound(decider.decide(ROOM)) == {}


def test_a_claim_of_a_pool_that_is_not_there_is_refused() -> None:
    store = Store()
    asked(store, "logs")
    assert refused(decided(store)) == {"logs": Reason.POOL_NOT_FOUND}


def test_a_claim_that_a_pool_does_not_serve_is_refused_even_if_it_would_wait() -> None:
    store = a_store(1)
    requests = [{"name": "data", "pool": {"name": "data", "namespace": "search"}, "count": 1}]
    body = a_claim_body("logs", requests=requests, onUnsatisfied="Wait")
    body["metadata"]["namespace"] = "elsewhere"
    store.apply(Kind.VM_CLAIM, body)
    assert refused(decided(store)) == {"logs": Reason.NOT_PERMITTED}


def of_a_namespace_that_is_not_known(**spec: Any) -> Store:
    """A claim, in a store with one VM of a pool that serves namespaces by their labels."""
    served = {"namespaces": {"from": "Selector", "matchLabels": {"team": "a"}}}
    store = a_store(1, claims=served)
    requests = [{"name": "data", "pool": {"name": "data", "namespace": "search"}, "count": 1}]
    meta = {"creationTimestamp": NOW.isoformat()}
    body = a_claim_body("logs", requests=requests, meta=meta, **spec)
    body["metadata"]["namespace"] = "elsewhere"
    store.apply(Kind.VM_CLAIM, body)
    return store


def test_a_claim_of_a_namespace_that_is_not_known_waits_and_keeps_nothing_from_others() -> None:
    store = of_a_namespace_that_is_not_known(timeout="1m", onUnsatisfied="Build")
    [waiting] = decided(store).waiting
    assert (waiting.reason, waiting.message) == (Reason.UNDECIDED, UNKNOWN_NAMESPACE)
    assert not decided(store).wanted
    assert decided(store).wake_at == after(60)
    next_one = a_claim(ref=Ref("search", "next"), uid=ClaimUid("next"), created=after(2))
    assert isinstance(Decider(store, ManualClock(NOW)).question(next_one), Fit)
    asked(store, "own", at=after(1))
    assert bound(decided(store)) == {"own": 1}
    assert refused(decided(store, seconds=60))["logs"] is Reason.TIMED_OUT


def test_a_claim_that_comes_before_its_namespace_is_answered_when_that_is_there() -> None:
    """Each comes by a watch of its own."""
    store = of_a_namespace_that_is_not_known()
    decider = Decider(store, ManualClock(NOW))
    assert not decider.decide(ROOM).refusals
    meta = {"name": "elsewhere", "uid": "n", "resourceVersion": "1", "labels": {"team": "a"}}
    store.apply_namespace({"metadata": meta})
    assert bound(decider.decide(ROOM)) == {"logs": 1}


def test_a_full_ledger_leaves_claims_for_later() -> None:
    store = a_store(1, 2, 3)
    asked(store, "one", 2)
    asked(store, "two", 1)
    decisions = decided(store, room=2)
    assert bound(decisions) == {"one": 2}
    assert not decisions.refusals
    assert bound(decided(store, room=2)) == {"two": 1}


def test_a_claim_that_waits_is_told_why_and_when_it_will_be_given_up() -> None:
    store = a_store(1)
    asked(store, "logs", 2, onUnsatisfied="Wait", timeout="90s")
    decisions = decided(store)
    assert [w.reason for w in decisions.waiting] == [Reason.NOT_ENOUGH_READY]
    assert decisions.wake_at == after(90)
    assert not decisions.wanted


def test_a_claim_that_has_waited_long_enough_is_refused() -> None:
    store = a_store(1)
    asked(store, "logs", 2, onUnsatisfied="Wait", timeout="90s")
    ((_, shortage),) = decided(store, 90).refusals
    assert shortage.reason is Reason.TIMED_OUT
    assert shortage.message.startswith("not satisfied within 90s: ")


def test_of_several_that_wait_the_first_to_be_given_up_wakes() -> None:
    store = a_store()
    asked(store, "one", 2, onUnsatisfied="Wait", timeout="90s")
    asked(store, "two", 2, onUnsatisfied="Wait", timeout="60s")
    assert decided(store).wake_at == after(60)


def test_a_waiting_claim_is_served_when_vms_come() -> None:
    store = a_store(1)
    asked(store, "logs", 2, onUnsatisfied="Wait")
    decider = Decider(store, ManualClock(NOW))
    assert not decider.decide(ROOM).bindings
    store.apply(Kind.WARM_VM, a_vm_body(2))
    assert bound(decider.decide(ROOM)) == {"logs": 2}


def test_a_later_claim_takes_nothing_that_a_waiting_one_could_use_and_is_told_so() -> None:
    store = a_store(1, 2)
    asked(store, "large", 3, onUnsatisfied="Wait")
    asked(store, "small", 1, at=after(1))
    decisions = decided(store, 1)
    ((claim, shortage),) = decisions.refusals
    assert claim.ref.name == "small"
    assert "kept for claims that wait before it" in shortage.message


def test_a_later_claim_passes_one_that_waits_for_another_rack() -> None:
    store = a_store(1, 1)
    asked(store, "large", 2, onUnsatisfied="Wait", **RACKS)
    asked(store, "small", 1, at=after(1))
    assert bound(decided(store, 1)) == {"small": 1}


def test_a_claim_of_higher_priority_comes_first_though_it_came_last() -> None:
    store = a_store(1)
    asked(store, "early")
    asked(store, "urgent", at=after(1), priority=1)
    assert bound(decided(store, 1)) == {"urgent": 1}


@pytest.mark.parametrize(("priority", "served"), [(999, False), (1000, True)])
def test_the_reserve_is_for_claims_of_high_priority(priority: int, served: bool) -> None:
    store = a_store(1, reserve=1)
    asked(store, "logs", priority=priority)
    assert bool(decided(store).bindings) is served


def test_a_claim_that_has_vms_built_raises_what_the_pool_shall_have() -> None:
    store = a_store(1, replicas=1)
    asked(store, "logs", 3, onUnsatisfied="Build")
    decisions = decided(store)
    assert decisions.wanted == {POOL: 3}
    assert [w.reason for w in decisions.waiting] == [Reason.BUILDING_FOR_CLAIM]


def test_two_claims_that_have_vms_built_do_not_count_on_the_same_vms() -> None:
    store = a_store(1, replicas=1)
    asked(store, "first", 3, onUnsatisfied="Build")
    asked(store, "second", 3, onUnsatisfied="Build")
    assert decided(store).wanted == {POOL: 6}


def test_what_is_built_for_a_claim_that_nova_misplaces_has_an_end() -> None:
    """Each VM that comes lands in the same rack, so more is wanted, but not without end."""
    store = a_store(1, replicas=1)
    asked(store, "logs", 3, onUnsatisfied="Build", **RACKS)
    decider = Decider(store, ManualClock(NOW))
    for number in range(2, 20):
        wanted = decider.decide(ROOM).wanted[POOL]
        store.apply(Kind.WARM_VM, a_vm_body(number, place=on(number, 1)))
    assert wanted == 1 + SURGE * 3


def test_what_was_wanted_is_over_with_the_claim() -> None:
    store = a_store(1, replicas=1)
    asked(store, "logs", 3, onUnsatisfied="Build")
    decider = Decider(store, ManualClock(NOW))
    assert decider.decide(ROOM).wanted
    store.apply(Kind.VM_CLAIM, a_claim_body("logs", version=9), deleted=True)
    assert not decider.decide(ROOM).wanted


def test_who_is_short_only_of_what_a_search_before_it_may_take_is_not_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A claim behind one that was being searched for was told that there was nothing for it."""
    store = a_store(2)
    asked(store, "hard", 2)
    asked(store, "plain", 1, at=after(1))

    def hard_is_hard(demand: Demand, supply: Supply, **_: float) -> Fit | Shortage | Undecided:
        return Undecided("") if demand.asks[0].count == 2 else allocate(demand, supply)

    monkeypatch.setattr("warmpool.reconcile.decide.allocate", hard_is_hard)
    decider = Decider(store, ManualClock(NOW))
    first = decider.decide(ROOM)
    assert (first.bindings, first.refusals, first.waiting) == ([], [], [])
    decider.found(first.searches[0], Shortage(Reason.CONSTRAINTS_UNSATISFIED, "no"))
    then = decider.decide(ROOM)
    assert list(bound(then)) == ["plain"]
    assert [claim.ref.name for claim, _ in then.refusals] == ["hard"]


@pytest.mark.parametrize("room", [ROOM, 4])
def test_what_was_found_counts_although_others_waited_for_a_moment(
    room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was searched for anew, and the claim had no answer for as long as that went on."""
    store = a_store(1, 2)
    asked(store, "large", 5, onUnsatisfied="Wait", timeout="1h")
    asked(store, "hard", 2, at=after(1), onUnsatisfied="Wait", timeout="1m")

    def hard_is_hard(demand: Demand, supply: Supply, **_: float) -> Fit | Shortage | Undecided:
        return Undecided("") if demand.asks[0].count == 2 else allocate(demand, supply)

    monkeypatch.setattr("warmpool.reconcile.decide.allocate", hard_is_hard)
    clock = ManualClock(NOW)
    decider = Decider(store, clock)
    [search] = decider.decide(ROOM).searches
    if room == ROOM:
        asked(store, "urgent", 3, priority=10, onUnsatisfied="Wait", timeout="1h")
    decider.decide(room)
    if room == ROOM:
        store.apply(Kind.VM_CLAIM, a_claim_body("urgent", version=9), deleted=True)
    decider.decide(ROOM)
    decider.found(search, Undecided("the bound"))
    clock.advance(120)
    assert refused(decider.decide(ROOM)) == {"hard": Reason.TIMED_OUT}


# --- substitutes ----------------------------------------------------------------------------


def a_loss(store: Store, *, settled: bool = True, **spec: Any) -> Decider:
    """A claim bound to VMs 1 and 2, of which 2 is lost."""
    vms = [
        {"name": f"data-{n}", "namespace": "search", "uid": f"vm-{n}", "request": "data",
         "serverID": f"server-{n}", "lost": n == 2}
        for n in (1, 2)
    ]  # fmt: skip
    status = {"phase": "Bound", "allocation": {"boundAt": NOW.isoformat(), "vms": vms}}
    body = a_claim_body("logs", count=2, status=status, replaceLost=True, **spec)
    store.apply(Kind.VM_CLAIM, body)
    decider = Decider(store, ManualClock(NOW))
    store.apply(Kind.WARM_VM, a_vm_body(1, version=50, place=on(1, 1), claim="logs"))
    entry = LedgerEntry(
        claim=LedgerClaim(namespace="search", name="logs", uid="uid-of-logs"),
        bound_at=NOW,
        vms=[LedgerVM(namespace="search", name="data-1", uid="vm-1", request="data")],
    )
    decider.committed(entry)
    if settled:
        decider.settled(entry)
    return decider


def test_a_lost_vm_is_replaced_within_the_claims_limits() -> None:
    store = a_store(1, 1, 1, 3)
    (entry,) = a_loss(store, mode="RackAware").decide(ROOM).bindings
    assert [vm.uid for vm in entry.vms] == ["vm-4"]


def test_a_substitute_that_is_not_there_is_waited_for_without_a_word() -> None:
    store = a_store(1)
    decisions = a_loss(store).decide(ROOM)
    assert (decisions.bindings, decisions.refusals, decisions.waiting) == ([], [], [])


def test_no_substitute_is_looked_for_while_a_binding_is_in_the_ledger() -> None:
    store = a_store(1, 2, 3)
    assert not a_loss(store, settled=False).decide(ROOM).bindings


# --- what holds of every pass ---------------------------------------------------------------


@settings(max_examples=settings().max_examples // 5)
@given(
    st.lists(st.integers(1, 3), max_size=6),
    st.lists(
        st.tuples(
            st.integers(1, 3),
            st.sampled_from(["BestEffort", "RackAware", "HypervisorAware"]),
            st.sampled_from(["Fail", "Wait", "Build"]),
        ),
        max_size=5,
    ),
    st.randoms(),
)
def test_decisions_are_whole_disjoint_and_the_same_in_whatever_order_claims_are_heard_of(
    racks: list[int], wishes: list[tuple[int, str, str]], chance: Any
) -> None:
    def told(order: list[int]) -> Decisions:
        store = a_store(*racks)
        for n in order:
            count, mode, how = wishes[n]
            asked(store, f"claim-{n}", count, mode=mode, onUnsatisfied=how, at=after(n % 2))
        return decided(store, 2)

    order = list(range(len(wishes)))
    one = told(order)
    chance.shuffle(order)
    assert told(order) == one
    taken = [vm.uid for entry in one.bindings for vm in entry.vms]
    assert len(taken) == len(set(taken))
    for name, number in bound(one).items():
        assert number == wishes[int(name.removeprefix("claim-"))][0]
    answered = [*bound(one), *refused(one), *(w.claim.ref.name for w in one.waiting)]
    assert sorted(answered) == sorted(f"claim-{n}" for n in range(len(wishes)))


# --- asked beforehand -----------------------------------------------------------------------


def test_a_question_is_answered_with_the_vms_that_the_claim_would_get() -> None:
    answer = fit(a_claim(count=2), a_store(1, 2), ManualClock(NOW))
    assert isinstance(answer, Placed)
    assert [(request, vm.uid) for request, vm in answer.vms] == [("data", "vm-1"), ("data", "vm-2")]


def test_a_question_is_answered_behind_those_that_wait() -> None:
    store = a_store(1, 2)
    asked(store, "large", 3, onUnsatisfied="Wait")
    answer = fit(a_claim(created=after(1)), store, ManualClock(after(1)))
    assert isinstance(answer, Shortage)


def test_a_question_that_comes_before_the_others_is_not_kept_waiting() -> None:
    store = a_store(1, 2)
    asked(store, "large", 3, onUnsatisfied="Wait")
    answer = fit(a_claim(created=after(1), priority=5), store, ManualClock(after(1)))
    assert isinstance(answer, Placed)


def test_a_refused_question_says_what_is_short() -> None:
    answer = fit(a_claim(count=3, mode="RackAware"), a_store(1, 1, 2), ManualClock(NOW))
    assert isinstance(answer, Shortage)
    assert answer.reason is Reason.NOT_ENOUGH_RACKS


def everything(store: Store) -> object:
    return store.counts(POOL).facts(), store.stock_version(POOL)


async def test_a_question_takes_nothing_from_a_store_that_lives_on() -> None:
    store, clock = a_store(1, 2, 2), ManualClock(NOW)
    before = everything(store)
    for _ in range(2):
        answer = await ask(a_claim(count=3), store, clock)
        assert isinstance(answer, Placed)
        assert sorted(vm.uid for _, vm in answer.vms) == ["vm-1", "vm-2", "vm-3"]
    assert everything(store) == before


async def test_a_question_to_a_store_that_lives_on_is_answered_behind_those_that_wait() -> None:
    store, clock = a_store(1, 2), ManualClock(after(1))
    asked(store, "large", 3, onUnsatisfied="Wait")
    later = question_of(a_claim_body("later"))
    assert isinstance(await ask(later, store, clock), Shortage)
    assert isinstance(await ask(a_claim(priority=5), store, clock), Placed)


async def test_an_answer_that_is_found_too_late_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a hard placement is searched for, somebody else is given the VMs."""
    store, clock = a_store(1, 1, 2, 2), ManualClock(NOW)

    def search(demand: Demand, supply: Supply) -> Fit | Shortage | Undecided:
        store.commit(VmUid("vm-1"), ClaimUid("other"))
        return allocate(demand, supply)

    monkeypatch.setattr("warmpool.reconcile.decide.allocate", lambda *_, **__: Undecided(""))
    monkeypatch.setattr("warmpool.reconcile.fit.allocate", search)
    answer = await ask(a_claim(count=4), store, clock)
    assert isinstance(answer, Undecided)
    assert "ask again" in answer.message


@pytest.mark.parametrize(
    ("manifest", "where"),
    [
        ({"kind": "WarmPool"}, "kind"),
        ({"kind": "VMClaim"}, "spec"),
        ({"kind": "VMClaim", "spec": {"requests": [{"name": "data"}]}}, "spec.requests.0"),
    ],
    ids=["another-kind", "no-spec", "half-a-request"],
)
def test_a_question_that_is_no_claim_is_told_why(manifest: dict[str, Any], where: str) -> None:
    with pytest.raises(ValueError, match=where):
        question_of(manifest)


def test_a_committed_vm_is_nobody_elses_before_the_watch_shows_it() -> None:
    store = a_store(1)
    store.commit(VmUid("vm-1"), ClaimUid("uid-of-first"))
    asked(store, "logs")
    assert refused(decided(store)) == {"logs": Reason.NOT_ENOUGH_READY}
    assert store.pool(Ref("search", "data")) is not None


def test_a_claim_that_is_put_aside_keeps_its_place_before_later_ones() -> None:
    """One of its pools is still held against Nova; the last VM of the other went to who came next.

    Nor is that one refused: in a moment the first may be.
    """
    store, slow = a_store(1), Ref(POOL.namespace, "slow")
    store.apply(Kind.WARM_POOL, a_pool_body(slow))
    both = [
        {"name": name, "pool": {"name": pool.name}, "count": 1}
        for name, pool in (("data", POOL), ("more", slow))
    ]
    asked(store, "first", requests=both)
    asked(store, "second", at=after(1))
    looked_at: set[Ref] = {POOL}
    decider = Decider(store, ManualClock(after(2)), lambda pool: pool not in looked_at)
    early = decider.decide(ROOM)
    assert (bound(early), refused(early)) == ({}, {})
    assert [each.claim.ref.name for each in early.waiting] == ["first"]
    looked_at.add(slow)
    late = decider.decide(ROOM)
    assert (bound(late), refused(late)) == ({"second": 1}, {"first": Reason.NOT_ENOUGH_READY})
