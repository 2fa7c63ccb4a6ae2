"""The next step of one VM."""

from dataclasses import replace
from datetime import timedelta

import pytest

from builders import (
    NOW,
    REVISION,
    a_claim_ref,
    a_place,
    a_pool_spec,
    a_server,
    a_view,
    a_vm,
    after,
    building,
    claimed,
    ready,
)
from warmpool.api.names import Phase, Reason
from warmpool.api.v1alpha1.pool import WarmPoolSpec
from warmpool.domain.actions import (
    Build,
    ConfirmLost,
    Discard,
    Fail,
    InspectFault,
    Keep,
    MakeReady,
    MarkClaimed,
    Rebuild,
    Recover,
    Release,
    Relocate,
    ReportBuilding,
    Sicken,
    Terminate,
)
from warmpool.domain.cloud import Server, ServerState
from warmpool.domain.facts import Vm
from warmpool.domain.ids import ClaimUid, Ref
from warmpool.domain.marks import Marks
from warmpool.domain.pools import VmView
from warmpool.planning.lifecycle import (
    LISTED_AGAIN,
    SHOW_BUILDING_AFTER,
    WAIT,
    Rules,
    Step,
    next_step,
)

SPEC = a_pool_spec(health={"launchTimeout": "10m"})
PENDING = a_vm(1, Phase.PENDING)
UP = a_server(1)
DIRTY = a_vm(1, Phase.BUILDING, dirty=True)


def step(view: VmView, spec: WarmPoolSpec = SPEC, *, may_build: bool = True) -> Step:
    return next_step(view, Rules(spec, NOW, REVISION, may_build=may_build))


def seen(view: VmView) -> Server:
    assert view.server is not None
    return view.server


@pytest.mark.parametrize("why", ["busy", "settling", "leaving"])
def test_a_vm_that_somebody_has_in_hand_is_left_alone(why: str) -> None:
    assert step(a_view(PENDING, **{why: True})) == WAIT


def test_a_vm_whose_action_failed_is_looked_at_again_at_its_time() -> None:
    assert step(a_view(PENDING, not_before=after(3))) == Step(look_again=after(3))


def test_a_vm_whose_time_has_come_is_worked_on_again() -> None:
    assert step(a_view(PENDING, not_before=NOW)) == Step(Build(PENDING))


# --- going ----------------------------------------------------------------------------------


def test_a_vm_that_is_being_deleted_is_terminated_whoever_gave_it_up() -> None:
    going = a_vm(1, deleting=True)
    assert step(a_view(going, leaving=True)) == Step(Terminate(going))


def test_a_vm_without_our_finalizer_goes_by_itself() -> None:
    assert step(a_view(a_vm(1, deleting=True, finalized=False))) == WAIT


def test_a_failed_vm_is_discarded() -> None:
    failed = a_vm(1, Phase.FAILED)
    assert step(a_view(failed)) == Step(Discard(failed, Reason.BUILD_FAULT))


def test_a_vm_that_reads_terminating_waits_for_the_watch_to_show_it_deleted() -> None:
    assert step(a_view(a_vm(1, Phase.TERMINATING))) == WAIT


# --- building -------------------------------------------------------------------------------


def test_a_vm_without_a_server_is_built() -> None:
    assert step(a_view(PENDING)) == Step(Build(PENDING))


def test_nothing_is_built_when_it_may_not_be() -> None:
    assert step(a_view(PENDING), may_build=False) == WAIT


def test_nothing_is_built_in_a_paused_pool() -> None:
    assert step(a_view(PENDING), a_pool_spec(paused=True)) == WAIT


def test_a_server_that_a_listing_lacks_is_asked_for_before_another_is_built() -> None:
    vm = a_vm(1, Phase.BUILDING)
    assert step(a_view(vm, server_missing=True)) == Step(ConfirmLost(vm))


@pytest.mark.parametrize("state", [ServerState.ERROR, ServerState.DELETED])
def test_a_build_that_ended_badly_is_inspected(state: ServerState) -> None:
    server = a_server(1, state)
    assert step(a_view(PENDING, server)) == Step(InspectFault(PENDING, server))


def test_an_active_and_placed_server_is_made_ready() -> None:
    found = step(a_view(PENDING, UP))
    assert found.action == MakeReady(PENDING, UP)
    assert found.look_again == NOW + timedelta(minutes=10)


@pytest.mark.parametrize(
    "server",
    [
        pytest.param(replace(UP, busy=True), id="a task is in progress"),
        pytest.param(replace(UP, host_id=""), id="not placed"),
        pytest.param(replace(UP, addresses=()), id="no address yet"),
        pytest.param(replace(UP, state=ServerState.BUILDING), id="not active"),
    ],
)
def test_active_alone_is_not_ready(server: object) -> None:
    found = step(a_view(a_vm(1, Phase.BUILDING), server))  # type: ignore[arg-type]
    assert found == Step(look_again=NOW + timedelta(minutes=10))


def test_a_vm_without_networks_needs_no_address() -> None:
    spec = a_pool_spec(template={"flavor": "f", "image": "i", "networks": []})
    server = replace(UP, addresses=())
    assert step(a_view(PENDING, server), spec).action == MakeReady(PENDING, server)


def test_a_quick_build_is_not_shown() -> None:
    server = a_server(1, ServerState.BUILDING)
    assert step(a_view(PENDING, server)) == Step(look_again=NOW + SHOW_BUILDING_AFTER)


def test_a_build_that_takes_its_time_is_shown_with_its_server() -> None:
    vm = replace(PENDING, created=NOW - SHOW_BUILDING_AFTER)
    server = a_server(1, ServerState.BUILDING)
    assert step(a_view(vm, server)).action == ReportBuilding(vm, server)


def test_a_build_over_its_launch_timeout_fails() -> None:
    began = NOW - timedelta(minutes=10)
    server = a_server(1, ServerState.BUILDING, created=began)
    found = step(a_view(replace(PENDING, created=began), server))
    assert isinstance(found.action, Fail)
    assert found.action.reason is Reason.LAUNCH_TIMEOUT
    assert "10m" in found.action.message


def test_a_build_whose_server_names_no_start_is_timed_from_its_object() -> None:
    vm = replace(PENDING, created=NOW - timedelta(minutes=10))
    found = step(a_view(vm, a_server(1, ServerState.BUILDING, created=None)))
    assert isinstance(found.action, Fail)


def test_an_adopted_server_has_its_launch_timeout_from_its_object_on() -> None:
    old = a_server(1, busy=True, created=NOW - timedelta(days=300))
    assert step(a_view(PENDING, old)).action is None
    late = replace(PENDING, created=NOW - timedelta(minutes=10))
    assert isinstance(step(a_view(late, old)).action, Fail)


def test_a_build_that_is_up_when_its_time_is_over_is_asked_once() -> None:
    """It came up in time while no replica led, or while listings lacked it."""
    began = NOW - timedelta(minutes=20)
    vm, server = replace(PENDING, created=began), replace(UP, created=began)
    view = a_view(vm, server)
    assert step(view) == Step(MakeReady(vm, server))
    probed = a_pool_spec(health={"launchTimeout": "10m", "probe": {"tcpSocket": {"port": 22}}})
    assert step(view, probed).action == MakeReady(vm, server)
    silent = step(replace(view, not_before=NOW), probed)
    assert isinstance(silent.action, Fail)
    assert silent.action.reason is Reason.PROBE_FAILED


# --- ready ----------------------------------------------------------------------------------


def test_a_ready_vm_is_left_as_it_is() -> None:
    assert step(ready(place=a_place())) == WAIT


def test_a_ready_vm_whose_server_a_listing_lacks_is_asked_for() -> None:
    view = ready(server_missing=True)
    assert step(view) == Step(ConfirmLost(view.vm))


def test_a_vm_that_moved_gets_its_new_place_written() -> None:
    view = ready(place=a_place(2))
    assert step(view) == Step(Relocate(view.vm, seen(view), a_place(2)))


@pytest.mark.parametrize(
    ("server", "place"),
    [
        pytest.param(None, a_place(2), id="no server"),
        pytest.param(UP, None, id="no place"),
        pytest.param(replace(UP, busy=True), a_place(2), id="on its way"),
        pytest.param(replace(UP, host_id=""), a_place(2), id="not placed"),
    ],
)
def test_a_place_is_only_rewritten_when_it_is_known(server: object, place: object) -> None:
    found = step(a_view(a_vm(1), server, place=place))  # type: ignore[arg-type]
    assert not isinstance(found.action, Relocate)


def test_a_retained_vm_is_only_followed() -> None:
    kept = a_vm(1, retained=True, claim=a_claim_ref())
    view = a_view(kept, UP, place=a_place(2), claim_gone=True)
    assert step(view) == Step(Relocate(kept, seen(view), a_place(2)))


# --- claimed --------------------------------------------------------------------------------


def test_a_vm_whose_claim_is_gone_is_released() -> None:
    view = claimed(claim_gone=True)
    assert step(view) == Step(Release(view.vm))


def test_a_claimed_vm_that_moved_is_followed() -> None:
    view = claimed(place=a_place(2))
    assert step(view) == Step(Relocate(view.vm, seen(view), a_place(2)))


@pytest.mark.parametrize(
    ("state", "reason"),
    [(ServerState.ERROR, Reason.SERVER_ERROR), (ServerState.STOPPED, Reason.SERVER_STOPPED)],
)
def test_a_claimed_vm_that_works_no_more_is_called_sick_and_kept(
    state: ServerState, reason: Reason
) -> None:
    view = a_view(claimed().vm, a_server(1, state, status="SHUTOFF"))
    assert step(view) == Step(Sicken(view.vm, reason, "Nova says SHUTOFF"))


def test_a_claimed_vm_that_is_known_to_be_sick_is_not_called_so_again() -> None:
    sick = a_vm(1, Phase.FAILED, claim=a_claim_ref(), place=a_place())
    assert step(a_view(sick, a_server(1, ServerState.ERROR), place=a_place())) == WAIT


def test_a_claimed_vm_that_works_again_recovers() -> None:
    sick = a_vm(1, Phase.FAILED, claim=a_claim_ref())
    view = a_view(sick, UP)
    assert step(view) == Step(Recover(sick, seen(view)))


@pytest.mark.parametrize("server", [None, replace(UP, busy=True, state=ServerState.ERROR)])
def test_nothing_is_said_of_a_claimed_vm_while_its_server_is_not_seen_or_in_between(
    server: object,
) -> None:
    assert step(a_view(claimed().vm, server)) == WAIT  # type: ignore[arg-type]


def test_a_claimed_vm_whose_server_a_listing_lacks_is_asked_for_once() -> None:
    view = claimed(server_missing=True)
    assert step(view) == Step(ConfirmLost(view.vm))
    lost = a_vm(1, Phase.FAILED, claim=a_claim_ref())
    assert step(a_view(lost, server_missing=True)) == WAIT


# --- what Nova knows better ------------------------------------------------------------------

SOMEBODY = Marks(pool=Ref("search", "data"), claim=a_claim_ref("lost"))
IN_USE = replace(UP, marks=SOMEBODY)


@pytest.mark.parametrize(
    "vm",
    [
        a_vm(1),
        a_vm(1, Phase.PENDING),
        a_vm(1, Phase.BUILDING),
        a_vm(1, Phase.FAILED),
        a_vm(1, claim=a_claim_ref("other")),
        replace(DIRTY, last_claim=ClaimUid("u-before")),
    ],
    ids=["free", "pending", "building", "failed", "another's", "dirty"],
)
@pytest.mark.parametrize("gone", [False, True], ids=["", "its claim is gone"])
def test_a_vm_that_is_somebodys_by_novas_word_is_kept(vm: Vm, gone: bool) -> None:
    assert step(a_view(vm, IN_USE, claim_gone=gone, recycling=False)) == Step(Keep(vm, IN_USE))


def test_a_vm_is_not_kept_for_the_claim_that_it_is_known_to_serve_or_have_served() -> None:
    ours = a_vm(1, claim=a_claim_ref("lost"))
    assert step(a_view(ours, IN_USE)) == WAIT
    served = replace(DIRTY, last_claim=ClaimUid("uid-of-lost"))
    assert step(a_view(served, IN_USE)) == Step(Rebuild(served, IN_USE))


def test_a_vm_that_is_kept_already_is_left_alone() -> None:
    kept = a_vm(1, retained=True)
    assert step(a_view(kept, IN_USE)) == WAIT


def test_a_vm_that_is_kept_and_does_not_say_why_does_so() -> None:
    """Who kept it died between the two writes."""
    kept = a_vm(1, retained=True, held=True)
    assert step(a_view(kept, IN_USE)) == Step(Keep(kept, IN_USE))
    assert step(a_view(replace(kept, held_told=True), IN_USE)) == WAIT


GIVEN_BACK = a_vm(1, held=True, held_told=True, claim=a_claim_ref("other"))


def test_a_vm_that_a_person_gave_back_is_what_the_api_server_knows() -> None:
    """It was kept again at once, since its mark still named another claim: for ever."""
    assert step(a_view(GIVEN_BACK, IN_USE, claim_gone=True)) == Step(Release(GIVEN_BACK))
    told = Step(Recover(GIVEN_BACK, IN_USE))
    assert step(a_view(GIVEN_BACK, IN_USE)) == told
    silent = replace(GIVEN_BACK, held_told=False)
    assert step(a_view(silent, IN_USE)) == Step(MarkClaimed(silent, IN_USE))
    dirty = replace(DIRTY, held=True, last_claim=ClaimUid("uid-of-other"))
    assert step(a_view(dirty, IN_USE)) == Step(Rebuild(dirty, IN_USE))


def test_a_vm_that_was_given_back_is_never_free_with_the_mark_of_a_claim() -> None:
    free = replace(GIVEN_BACK, claim=None)
    assert step(a_view(free, IN_USE)) == Step(Keep(free, IN_USE))


def test_a_vm_that_goes_goes() -> None:
    """Somebody has deleted it."""
    going = a_vm(1, deleting=True)
    assert step(a_view(going, IN_USE)) == Step(Terminate(going))


def test_a_claims_server_is_marked_once_nova_takes_it() -> None:
    vm = a_vm(1, claim=a_claim_ref())
    assert step(a_view(vm, UP, marked=False)) == Step(MarkClaimed(vm, UP))
    assert step(a_view(vm, replace(UP, busy=True), marked=False)) == WAIT
    broken = replace(UP, state=ServerState.ERROR)
    assert isinstance(step(a_view(vm, broken, marked=False)).action, Sicken)
    failed, off = replace(vm, phase=Phase.FAILED), replace(UP, state=ServerState.STOPPED)
    assert step(a_view(failed, off, marked=False)) == Step(MarkClaimed(failed, off))


# --- recycled -------------------------------------------------------------------------------


def test_a_used_vm_is_rebuilt_before_anything_else() -> None:
    assert step(a_view(DIRTY, UP)) == Step(Rebuild(DIRTY, UP))


def test_a_used_vm_that_another_leader_may_have_had_rebuilt_is_given_up() -> None:
    """That rebuild may arrive when a claim has the VM."""
    for server in (UP, None):
        view = a_view(DIRTY, server, recycling=False)
        assert step(view, may_build=False) == Step(Discard(DIRTY, Reason.RECYCLING))


def test_a_used_vm_is_not_rebuilt_when_nothing_may_be_built() -> None:
    assert step(a_view(DIRTY, UP), may_build=False) == WAIT


def test_a_rebuilt_vm_waits_for_a_listing_that_began_afterwards() -> None:
    """An older one shows it ACTIVE as it was before."""
    found = step(a_view(DIRTY, UP, rebuilt_at=NOW))
    assert found == Step(look_again=NOW + LISTED_AGAIN)


def test_a_rebuilt_vm_is_timed_from_its_rebuild() -> None:
    old = replace(UP, created=NOW - timedelta(days=3))
    found = step(a_view(DIRTY, old, rebuilt_at=NOW, seen_since_rebuild=True))
    assert found.action == MakeReady(DIRTY, old)


def test_a_build_in_progress_names_when_it_ends() -> None:
    assert step(building()).look_again is not None
