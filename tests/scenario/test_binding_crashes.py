"""The binding protocol holds whatever dies, is lost or is deleted, and whenever.

Every story is told once for each write of the leader, with something going wrong at it; each time
all states of the API that there ever were are checked (`doubles.checker`), and so is the end.
"""

import pytest

from doubles.hands import Mishap
from doubles.stories import BATCH, STORIES, SUBSTITUTE, WAITING, Story, Told, World, tell
from doubles.virtual_time import run
from warmpool.api.names import ClaimPhase

MISHAPS = [mishap for mishap in Mishap if mishap is not Mishap.STALLS]
DEATHS = [None, Mishap.DIES_BEFORE, Mishap.DIES_AFTER]

ALL_OF_BATCH = {f"data-{n}" for n in range(6)}


def writes_of(story: Story) -> range:
    """Numbers of the writes of an undisturbed leader, and of one more."""
    return range(len(run(tell(story)).writes) + 1)


@pytest.mark.parametrize("story", STORIES, ids=str)
@pytest.mark.parametrize("mishap", MISHAPS, ids=lambda m: m.name)
def test_whatever_happens_at_whichever_write(story: Story, mishap: Mishap) -> None:
    for number in writes_of(story):
        run(tell(story, mishap, number))


@pytest.mark.parametrize("death", DEATHS, ids=lambda d: d.name if d else "nobody dies")
@pytest.mark.parametrize("claim", ["pair", "racks", "one", "too-large"])
def test_a_claim_is_deleted_at_any_moment(claim: str, death: Mishap | None) -> None:
    """Its VMs are ready again if it never was Bound, and reclaimed otherwise."""
    story = Story(BATCH.name, BATCH.pools, BATCH.begin)
    for number in writes_of(story):
        told = run(
            tell(
                story,
                death,
                number,
                meanwhile=lambda world: world.delete_claim(claim),
                meanwhile_at=number,
            )
        )
        check_the_others(told, claim)
        if told.phase(claim) is not None:  # that write never came: the leader had died before
            continue
        reclaimed = ALL_OF_BATCH - told.free() - of_others(told, claim)
        seen = told.was_ever(claim, ClaimPhase.BOUND)
        if death is None:
            assert bool(reclaimed) == seen, f"{number}: {reclaimed} reclaimed, Bound: {seen}"
        assert len(reclaimed) in {0, {"pair": 2, "racks": 2, "one": 1, "too-large": 0}[claim]}


def test_a_claim_is_deleted_after_it_was_bound_without_the_leader_knowing() -> None:
    """The answer was lost, but the client has seen its VMs: nobody else gets them as they are."""
    soon = {0.1: lambda world: world.delete_claim("pair")}
    story = Story("deleted before the publication is tried again", BATCH.pools, BATCH.begin, soon)
    for number in writes_of(story):
        told = run(tell(story, Mishap.ANSWER_LOST, number))
        if told.was_ever("pair", ClaimPhase.BOUND):
            assert len(ALL_OF_BATCH - told.free() - of_others(told, "pair")) == 2


def of_others(told: Told, claim: str) -> set[str]:
    others = {"pair", "racks", "one"} - {claim}
    return {vm for other in others for vm in told.vms_of(other)}


def check_the_others(told: Told, claim: str) -> None:
    for other in {"pair", "racks", "one"} - {claim}:
        assert told.phase(other) == ClaimPhase.BOUND


@pytest.mark.parametrize("death", DEATHS, ids=lambda d: d.name if d else "nobody dies")
@pytest.mark.parametrize("vm", ["data-0", "data-2", "data-3"])
def test_a_vm_is_deleted_at_any_moment(vm: str, death: Mishap | None) -> None:
    """It is settled all the same, and then lost; or no claim gets it. Nobody waits for it."""
    story = Story("a vm is deleted", BATCH.pools, BATCH.begin)
    for number in writes_of(story):
        told = run(
            tell(
                story,
                death,
                number,
                meanwhile=lambda world: world.delete_vm(vm),
                meanwhile_at=number,
            )
        )
        assert {told.phase(c) for c in ("pair", "racks", "one")} == {ClaimPhase.BOUND}
        assert vm not in told.free() | of_others(told, "") or not told.world.taken_away


@pytest.mark.parametrize("death", [Mishap.DIES_BEFORE, Mishap.DIES_AFTER], ids=lambda d: d.name)
def test_a_claim_is_deleted_while_its_substitute_is_bound(death: Mishap) -> None:
    story = Story("gone with its substitute", SUBSTITUTE.pools, SUBSTITUTE.begin, SUBSTITUTE.acts)
    for number in writes_of(story):
        run(
            tell(
                story,
                death,
                number,
                meanwhile=lambda world: world.delete_claim("pair"),
                meanwhile_at=number,
            )
        )


def test_a_claim_that_ends_while_its_substitute_is_bound_gives_that_up() -> None:
    """The entry once stayed in the ledger for ever: Released claims cannot be Bound again."""

    def begin(world: World) -> None:
        SUBSTITUTE.begin(world)

    for number in writes_of(SUBSTITUTE):
        story = Story("it ends", SUBSTITUTE.pools, begin, SUBSTITUTE.acts)
        run(tell(story, meanwhile=lambda world: world.release("pair"), meanwhile_at=number))


@pytest.mark.parametrize("story", STORIES, ids=str)
def test_without_a_mishap_each_story_ends_as_told(story: Story) -> None:
    told = run(tell(story))
    assert told.writes
    assert not told.later_writes


def test_nobody_dies_and_nothing_is_left_of_the_waiting_story() -> None:
    told = run(tell(WAITING))
    assert told.vms_of("cluster") == {"data-0", "data-1", "data-late", "master-1"}
    assert told.vms_of("other") == {"master-0"}
