"""A pool's plan: cases, and what holds of every plan."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import (
    NOW,
    REVISION,
    a_claim_ref,
    a_place,
    a_pool,
    a_server,
    a_site,
    a_view,
    a_vm,
    after,
    building,
    claimed,
    ready,
    some_facts,
)
from warmpool.api.names import Phase, Reason
from warmpool.api.v1alpha1.base import portion
from warmpool.api.v1alpha1.pool import ScaleDown, UpdateType
from warmpool.api.v1alpha1.vm import Fault
from warmpool.domain.actions import (
    Action,
    Build,
    ConfirmLost,
    CreateVm,
    Discard,
    Fail,
    Keep,
    MakeReady,
    Preserve,
    Release,
    Terminate,
)
from warmpool.domain.cloud import Place, ServerState
from warmpool.domain.marks import Marks
from warmpool.domain.pools import (
    PRESERVED_AT_MOST,
    Checked,
    Headroom,
    Hold,
    Mending,
    Plan,
    PoolFacts,
    Problem,
    Site,
    Survey,
    VmView,
)
from warmpool.planning.plan import look_back, plan
from warmpool.planning.sizing import (
    counts_for_size,
    in_flight,
    is_bare,
    members,
    servers,
    unclaimed,
    under_way,
)

PROBLEM = Problem(Reason.IMAGE_NOT_FOUND, "no such image")
REFUSED = Problem(Reason.CREDENTIALS_REFUSED, "401", "spec.cloudRef.secretName")
HOLD = Hold(after(20), Reason.QUOTA_EXCEEDED, "no more")
PENDING = a_vm(1, Phase.PENDING)


def test_a_new_pool_creates_its_vms() -> None:
    assert plan(some_facts(replicas=2)).actions == (CreateVm(""), CreateVm(""))


def test_refused_credentials_stop_builds_and_deletes_and_condemn_nothing() -> None:
    """Surplus VMs went all the same, and those that had not come up when their time was over."""
    slow = a_vm(3, Phase.BUILDING, created=after(-4000))
    late = a_view(slow, a_server(3, ServerState.BUILDING), posted_at=after(-4000))
    going = a_view(a_vm(4, deleting=True), a_server(4))
    failed = a_view(a_vm(5, Phase.FAILED))
    bare = a_view(a_vm(6, Phase.PENDING))
    some = (ready(1), ready(2), late, going, failed, bare)
    assert plan(some_facts(*some, replicas=1, problem=REFUSED)).actions == ()
    done = {type(action) for action in plan(some_facts(*some, replicas=1)).actions}
    assert {Discard, Fail, Terminate} <= done


@pytest.mark.parametrize("dirty", [False, True])
def test_a_used_vm_is_not_made_ready_while_credentials_are_refused(*, dirty: bool) -> None:
    """Nova is told first that it is nobody's: one more login that is refused."""
    vm = a_vm(1, Phase.BUILDING, dirty=dirty)
    view = a_view(vm, a_server(1), rebuilt_at=after(-5), seen_since_rebuild=True, recycling=True)
    for problem, done in ((None, True), (REFUSED, not dirty)):
        actions = plan(some_facts(view, replicas=1, problem=problem)).actions
        assert any(isinstance(action, MakeReady) for action in actions) is done


def test_a_pool_that_goes_while_its_credentials_are_refused_asks_nova_for_nothing() -> None:
    going = a_view(a_vm(2, deleting=True), a_server(2))
    facts = some_facts(ready(1), going, pool=a_pool(deleting=True), problem=REFUSED)
    assert [type(action) for action in plan(facts).actions] == [Discard]


def test_a_full_pool_does_nothing_and_needs_no_waking() -> None:
    found = plan(some_facts(ready(1), ready(2), replicas=2))
    assert (found.actions, found.wake_at) == ((), None)


def test_nothing_is_created_before_the_cloud_was_looked_at() -> None:
    assert plan(some_facts(replicas=2, cloud_ready=False)).actions == ()


def test_nothing_is_created_or_built_while_something_is_missing() -> None:
    assert plan(some_facts(a_view(PENDING), replicas=2, problem=PROBLEM)).actions == ()


def test_a_hold_stops_builds_and_says_when_it_ends() -> None:
    found = plan(some_facts(a_view(PENDING), replicas=2, holds={"": HOLD}))
    assert (found.actions, found.wake_at) == ((), HOLD.until)


def test_a_hold_in_one_zone_leaves_the_others_alone() -> None:
    here, there = a_vm(1, Phase.PENDING, zone="az1"), a_vm(2, Phase.PENDING, zone="az2")
    facts = some_facts(
        a_view(here),
        a_view(there),
        replicas=3,
        availability_zones=["az1", "az2"],
        holds={"az1": HOLD},
    )
    assert plan(facts).actions == (Build(there), CreateVm("az2"))


def test_a_pool_out_of_tokens_wakes_for_the_next_one() -> None:
    found = plan(some_facts(replicas=2, tokens=0, next_token=after(7)))
    assert (found.actions, found.wake_at) == ((), after(7))


def test_a_paused_pool_neither_builds_nor_gives_up() -> None:
    assert plan(some_facts(ready(1), ready(2), replicas=1, paused=True)).actions == ()
    assert plan(some_facts(replicas=1, paused=True)).actions == ()


def test_a_paused_pool_releases_and_terminates_what_has_ended() -> None:
    over = claimed(1, claim_gone=True)
    gone = a_vm(2, deleting=True)
    found = plan(some_facts(over, a_view(gone), replicas=0, paused=True))
    assert found.actions == (Release(over.vm), Terminate(gone))


def test_a_pool_that_goes_discards_what_is_nobodys_and_builds_nothing() -> None:
    pool = a_pool(replicas=9, deleting=True)
    found = plan(some_facts(ready(1), claimed(2), pool=pool))
    assert found.actions == (Discard(a_vm(1), Reason.DELETING),)


def test_a_pool_that_goes_leaves_vms_in_hand_alone_even_when_paused() -> None:
    pool = a_pool(deleting=True, paused=True)
    settling = ready(2, settling=True)
    found = plan(some_facts(ready(1, busy=True), settling, ready(3), pool=pool))
    assert found.actions == (Discard(a_vm(3), Reason.DELETING),)


IN_USE = a_server(1, marks=Marks(claim=a_claim_ref("lost")))


def test_before_all_is_held_against_nova_nothing_is_done_but_keeping() -> None:
    kept, over, gone = a_vm(1), claimed(2, claim_gone=True), a_vm(3, deleting=True)
    facts = some_facts(a_view(kept, IN_USE, taken=True), over, a_view(gone), ready(4), replicas=9)
    decided, proven = look_back(facts)
    assert decided.actions == (Keep(kept, IN_USE),)
    assert not proven


def test_all_is_held_against_nova_once_it_was_listed_and_nothing_is_in_use() -> None:
    kept = a_view(a_vm(1, retained=True), IN_USE, taken=True)
    for listed in (False, True):
        decided, proven = look_back(some_facts(kept, ready(2), replicas=0, cloud_ready=listed))
        assert (decided.actions, proven) == ((), listed)


def test_all_is_not_held_against_nova_while_a_vm_that_is_free_has_no_server() -> None:
    lost = a_view(a_vm(1), server_missing=True)
    decided, proven = look_back(some_facts(lost, ready(2), replicas=2))
    assert (decided.actions, proven) == ((ConfirmLost(lost.vm),), False)


def test_a_claim_that_has_lost_its_server_holds_nobody_else_up() -> None:
    views = (claimed(1, server_missing=True), a_view(a_vm(2, deleting=True), server_missing=True))
    assert look_back(some_facts(*views, replicas=0))[1]


def test_whose_a_binding_in_flight_is_the_binder_asks() -> None:
    view = a_view(a_vm(1), IN_USE, taken=True, settling=True)
    assert look_back(some_facts(view, replicas=0)) == (Plan(()), True)


def test_vms_of_a_server_group_get_their_servers_one_after_the_other() -> None:
    waiting = [a_view(a_vm(n, Phase.PENDING)) for n in (1, 2)]
    assert plan(some_facts(*waiting, replicas=2, group="g")).actions == (Build(waiting[0].vm),)
    busy = replace(waiting[0], busy=True)
    assert plan(some_facts(busy, waiting[1], replicas=2, group="g")).actions == ()


def test_what_is_in_use_by_novas_word_is_not_given_up_with_its_pool() -> None:
    """Not even while it cannot be kept, since Nova or the API server do not answer."""
    view = a_view(a_vm(1), IN_USE, taken=True, not_before=after(9))
    assert plan(some_facts(view, pool=a_pool(deleting=True))).actions == ()
    assert plan(some_facts(view, replicas=0)).actions == ()


def test_a_vm_that_is_given_up_is_not_built_in_the_same_breath() -> None:
    found = plan(some_facts(a_view(PENDING), replicas=0))
    assert found.actions == (Discard(PENDING, Reason.SHRINKING),)


def test_a_vm_that_fails_is_not_given_up_besides() -> None:
    began = NOW - timedelta(hours=1)
    vm = a_vm(1, Phase.BUILDING, created=began)
    late = a_server(1, ServerState.BUILDING, created=began)
    found = plan(some_facts(a_view(vm, late), replicas=0))
    assert [type(a) for a in found.actions] == [Fail]


# --- what holds of every plan ---------------------------------------------------------------

ZONES = ["az1", "az2"]
FAULTS = [
    None,
    Fault(reason=Reason.PROBE_FAILED, message="silent", time=NOW),
    Fault(reason=Reason.SERVER_BUSY, message="busy", time=after(-99)),
]

SOME = settings(max_examples=settings().max_examples // 5)
"""Facts are many objects, and slow to draw."""


@st.composite
def some_place(draw: st.DrawFn) -> Place:
    return a_place(draw(st.integers(1, 4)), rack=f"r{draw(st.integers(1, 2))}")


@st.composite
def some_view(draw: st.DrawFn, number: int) -> VmView:
    """A VM in any state that its own fields and its claim allow."""
    phase = draw(st.sampled_from(Phase))
    claim = draw(st.sampled_from([None, None, a_claim_ref()]))
    was_ready = phase in (Phase.READY, Phase.FAILED) and draw(st.booleans())
    vm = a_vm(
        number,
        phase,
        claim=claim,
        zone=draw(st.sampled_from(ZONES)),
        place=Place() if phase is Phase.PENDING else draw(some_place()),
        deleting=draw(st.booleans()) and draw(st.booleans()),
        dirty=phase is Phase.BUILDING and draw(st.booleans()),
        retained=claim is not None and draw(st.booleans()) and draw(st.booleans()),
        created=after(draw(st.integers(-900, 0))),
        revision=draw(st.sampled_from([REVISION, REVISION, "older"])),
        ready_at=after(draw(st.integers(-900, 0))) if was_ready else None,
        fault=draw(st.sampled_from(FAULTS)) if phase is Phase.FAILED else None,
    )
    state = draw(st.sampled_from([None, *ServerState]))
    settling = (
        claim is None and phase is Phase.READY and draw(st.booleans()) and draw(st.booleans())
    )
    return a_view(
        vm,
        None if state is None else a_server(number, state, busy=draw(st.booleans())),
        server_missing=state is None and draw(st.booleans()),
        taken=claim is not None or settling,
        settling=settling,
        claim_gone=claim is not None and draw(st.booleans()),
        busy=draw(st.booleans()) and draw(st.booleans()),
        leaving=claim is None and draw(st.booleans()) and draw(st.booleans()),
        not_before=draw(st.sampled_from([None, None, after(-1), after(9)])),
        checked=draw(st.sampled_from([None, Checked(NOW), Checked(after(-99), 5)])),
        unread=draw(st.booleans()) and draw(st.booleans()),
    )


@st.composite
def any_facts(draw: st.DrawFn) -> PoolFacts:
    number = draw(st.integers(0, 8))
    pool = a_pool(
        replicas=draw(st.integers(0, 6)),
        max_size=draw(st.sampled_from([None, 3, 8])),
        max_concurrent=draw(st.integers(1, 5)),
        availability_zones=draw(st.sampled_from([[], ZONES])),
        paused=draw(st.booleans()) and draw(st.booleans()),
        deleting=draw(st.booleans()) and draw(st.booleans()),
        expire_after=draw(st.sampled_from([None, "5m"])),
        update_strategy={
            "type": draw(st.sampled_from(UpdateType)),
            "maxUnavailable": draw(st.sampled_from([1, "20%", "100%"])),
        },
        health={"maxUnhealthy": draw(st.sampled_from([0, "20%", "100%"]))},
        spread=draw(st.sampled_from([[], [], *SPREADS])),
        scale_down=draw(st.sampled_from(ScaleDown)),
    )
    return some_facts(
        *[draw(some_view(n)) for n in range(number)],
        pool=pool,
        creating=draw(st.sampled_from([{}, {"az1": 1}, {"": 2}])),
        cloud_ready=draw(st.sampled_from([True, True, False])),
        problem=draw(st.sampled_from([None, None, PROBLEM, REFUSED])),
        holds=draw(st.sampled_from([{}, {}, {"az1": HOLD}, {"": HOLD}])),
        tokens=draw(st.sampled_from([None, 0, 1, 3])),
        wanted=draw(st.integers(0, 7)),
        survey=draw(some_survey()),
        mending=draw(st.sampled_from([Mending(), Mending(1, 2, after(60))])),
        group=draw(st.sampled_from(["", "", "g-1"])),
    )


SPREADS = (
    [{"domain": "rack", "maxSkew": 1}],
    [{"domain": "hypervisor", "maxPerDomain": 2}, {"domain": "zone", "minDomains": 2}],
)


@st.composite
def some_survey(draw: st.DrawFn) -> Survey:
    """Where `some_view` has its VMs there may be room, or Nova chooses."""
    rooms = draw(st.none() | st.lists(st.sampled_from([None, 0, 1, 5]), min_size=4, max_size=4))
    numbered = enumerate(rooms or [], start=1)
    zones = draw(st.sampled_from([["az1"], ZONES]))
    sites = [a_site(n, r, rack=f"r{n % 2 + 1}", zone=zones[n % len(zones)]) for n, r in numbered]
    return Survey(
        done=draw(st.sampled_from([True, True, False])),
        headroom=Headroom(draw(st.sampled_from([None, None, 0, 2]))),
        sites=None if rooms is None else tuple(sites),
        for_now=draw(st.booleans()),
        group_members=draw(st.sampled_from([None, 4])),
    )


def started(actions: tuple[Action, ...]) -> Counter[str]:
    return Counter(a.zone for a in actions if isinstance(a, CreateVm))


def applied(facts: PoolFacts) -> PoolFacts:
    """The facts of a pass right after the plan was begun: all its work is under way."""
    actions = plan(facts).actions
    begun = {a.vm.uid for a in actions if not isinstance(a, CreateVm)}
    leaving = {a.vm.uid for a in actions if isinstance(a, Discard)}
    creating = Counter(facts.creating) + started(actions)
    number = started(actions).total()
    aimed = Counter(a.hypervisor for a in actions if isinstance(a, CreateVm) and a.hypervisor)
    posts = sum(isinstance(a, CreateVm | Build) for a in actions)
    return replace(
        facts,
        creating=creating,
        aiming=Counter(facts.aiming) + aimed,
        mending=plan(facts).mending,
        survey=with_less(facts.survey, aimed, posts),
        tokens=None if facts.tokens is None else facts.tokens - number,
        vms=tuple(
            replace(v, busy=v.busy or v.vm.uid in begun, leaving=v.leaving or v.vm.uid in leaving)
            for v in facts.vms
        ),
    )


def with_less(survey: Survey, aimed: Counter[str], posts: int) -> Survey:
    """Without the room and the quota that builds on their way will take."""
    left = survey.headroom.left
    sites = tuple(
        Site(s.place, None if s.room is None else s.room - aimed[s.place.hypervisor])
        for s in survey.sites or ()
    )
    return replace(
        survey,
        headroom=Headroom(None if left is None else left - posts),
        sites=None if survey.sites is None else sites,
    )


@SOME
@given(any_facts())
def test_a_plan_starts_no_more_than_target_size_concurrency_and_pace_allow(
    facts: PoolFacts,
) -> None:
    number, spec = started(plan(facts).actions).total(), facts.pool.spec
    if not number:
        return
    going = sum(isinstance(a, Discard) for a in plan(facts).actions)
    surge = int(bool(spec.spread) and number == 1 and unclaimed(facts) - going == facts.target)
    assert unclaimed(facts) - going + number <= max(spec.replicas, facts.wanted) + surge
    assert not surge or not (going or under_way(facts))
    assert in_flight(facts) - going + number <= spec.max_concurrent
    assert spec.max_size is None or servers(facts) + number <= spec.max_size
    assert facts.tokens is None or number <= facts.tokens
    left = facts.survey.headroom.left
    posts = number + sum(isinstance(a, Build) for a in plan(facts).actions)
    assert left is None or posts <= left
    assert facts.survey.done
    assert facts.cloud_ready
    assert facts.problem is None
    assert not spec.paused
    assert not facts.pool.deleting


@SOME
@given(any_facts())
def test_a_plan_asks_for_no_server_beyond_the_pools_size(facts: PoolFacts) -> None:
    posts = sum(isinstance(a, Build) for a in plan(facts).actions)
    most = facts.pool.spec.max_size
    if posts and most is not None:
        assert servers(facts) - sum(map(is_bare, facts.vms)) + posts <= most


@SOME
@given(any_facts())
def test_no_two_builds_of_a_group_meet(facts: PoolFacts) -> None:
    """On a hypervisor, or on their way to one that Nova is still to choose."""
    found = plan(facts).actions
    new = [a for a in found if isinstance(a, CreateVm)]
    homeless = sum(not a.hypervisor for a in new) + sum(isinstance(a, Build) for a in found)
    if not facts.group or not new:
        return
    aimed = [a.hypervisor for a in new if a.hypervisor]
    assert len(aimed) == len(set(aimed))
    assert not set(aimed) & {view.vm.place.hypervisor for view in facts.vms}
    assert homeless <= 1
    most = facts.survey.group_members
    assert most is None or members(facts) + len(new) <= most


@SOME
@given(any_facts())
def test_a_plan_applied_to_its_own_facts_plans_nothing_more(facts: PoolFacts) -> None:
    assert plan(applied(facts)).actions == ()


@SOME
@given(any_facts(), st.randoms())
def test_the_order_of_the_vms_changes_nothing(facts: PoolFacts, chance: object) -> None:
    shuffled = list(facts.vms)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = plan(facts), plan(replace(facts, vms=tuple(shuffled)))
    assert Counter(map(repr, one.actions)) == Counter(map(repr, other.actions))
    assert one.wake_at == other.wake_at


@SOME
@given(any_facts())
def test_a_plan_never_gives_up_what_is_claimed_settling_or_in_hand(facts: PoolFacts) -> None:
    views = {v.vm.uid: v for v in facts.vms}
    for action in plan(facts).actions:
        if isinstance(action, Discard):
            view = views[action.vm.uid]
            assert not view.taken
            assert not view.settling
            assert not view.busy


@SOME
@given(any_facts())
def test_a_plan_leaves_alone_what_cannot_be_read(facts: PoolFacts) -> None:
    unread = {view.vm.uid for view in facts.vms if view.unread}
    assert not unread & {a.vm.uid for a in plan(facts).actions if not isinstance(a, CreateVm)}


@SOME
@given(any_facts())
def test_a_plan_has_at_most_one_action_for_each_vm(facts: PoolFacts) -> None:
    uids = [a.vm.uid for a in plan(facts).actions if not isinstance(a, CreateVm)]
    assert len(uids) == len(set(uids))


@SOME
@given(any_facts())
def test_no_more_ready_vms_go_for_newer_ones_than_may_be_missing(facts: PoolFacts) -> None:
    spec = facts.pool.spec
    newer = [
        a.vm
        for a in plan(facts).actions
        if isinstance(a, Discard) and a.reason in (Reason.OUTDATED, Reason.TOO_OLD)
    ]
    ready_ones = [vm for vm in newer if vm.phase is Phase.READY]
    if spec.update_strategy.type is UpdateType.RECREATE:
        ready_ones = [vm for vm in ready_ones if vm.revision == REVISION]
    if ready_ones:
        left = facts.tally["ready",] - len(ready_ones)
        most = portion(spec.update_strategy.max_unavailable, facts.target)
        attainable = facts.target
        if spec.max_size is not None:
            attainable = min(attainable, spec.max_size - servers(facts) + unclaimed(facts))
        assert left >= attainable - most
        assert not facts.holds
        assert not spec.paused


@SOME
@given(any_facts())
def test_a_pool_is_never_shrunk_below_its_target_nor_its_size(facts: PoolFacts) -> None:
    actions, most = plan(facts).actions, facts.pool.spec.max_size
    shrunk = {a.vm.uid for a in actions if isinstance(a, Discard) and a.reason is Reason.SHRINKING}
    if shrunk:
        there = [v for v in facts.vms if counts_for_size(v) and v.vm.uid not in shrunk]
        left = len(there) + sum(facts.creating.values())
        is_full = most is not None and left + facts.tally["claimed",] >= most
        assert left >= facts.target or is_full


@SOME
@given(any_facts())
def test_a_plan_lets_a_wait_end(facts: PoolFacts) -> None:
    """Whatever waits for a time of its own has the pool woken by then."""
    found = plan(facts)
    for view in facts.vms:
        in_hand = view.busy or view.settling or view.leaving or view.unread
        waits = view.not_before is not None and view.not_before > NOW and not in_hand
        if waits and not facts.pool.deleting:
            wake_at = found.alarms.get(view.vm.uid, found.wake_at)
            assert wake_at is not None
            assert wake_at <= view.not_before


def test_a_build_within_its_time_is_planned_for() -> None:
    assert plan(some_facts(building(), replicas=1)).wake_at == NOW + timedelta(minutes=15)


def test_of_many_vms_that_fail_at_once_a_few_are_kept_and_all_are_given_up() -> None:
    fault = Fault(reason=Reason.PROBE_FAILED, message="silent", time=NOW)
    sick = [a_vm(n, Phase.FAILED, ready_at=NOW, fault=fault) for n in range(5)]
    failed = Checked(NOW, failures=9)
    views = [a_view(vm, a_server(n), checked=failed) for n, vm in enumerate(sick)]
    found = some_facts(*views, replicas=5, health={"maxUnhealthy": "100%"})
    kept_for = timedelta(hours=1)
    actions = plan(replace(found, pool=replace(found.pool, preserve=kept_for))).actions
    kept = [action for action in actions if isinstance(action, Preserve)]
    assert [action.until for action in kept] == [NOW + kept_for] * PRESERVED_AT_MOST
    assert sum(isinstance(action, Discard) for action in actions) == 2


def test_a_vm_that_is_kept_goes_when_its_time_is_over() -> None:
    kept = a_vm(1, Phase.FAILED, retained=True, keep_until=after(60))
    early = plan(some_facts(a_view(kept, a_server(1)), replicas=0))
    assert early.actions == ()
    assert early.alarms == {kept.uid: after(60)}
    late = replace(kept, keep_until=NOW)
    found = plan(some_facts(a_view(late, a_server(1)), replicas=0))
    assert found.actions == (Discard(late, Reason.PRESERVED),)
