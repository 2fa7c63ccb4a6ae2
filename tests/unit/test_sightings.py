"""What is known of servers, one by one."""

from dataclasses import replace
from datetime import timedelta

import pytest

from builders import NOW, a_server
from warmpool.domain.cloud import Listing, Server, ServerState
from warmpool.domain.ids import ServerId, VmUid
from warmpool.reconcile.session import skew
from warmpool.reconcile.sightings import UNSEEN_FOR, Sightings

ONE = VmUid("vm-1")
SERVER = a_server(1, owner=ONE)


def everything(*servers: Server) -> Listing:
    return Listing(servers, complete=True, taken_at=NOW)


def changes(*servers: Server) -> Listing:
    return Listing(servers, complete=False, taken_at=NOW)


def posted(at: float) -> Sightings:
    seen = Sightings()
    seen.posted(ONE, SERVER.id, "data-1", (at, NOW))
    return seen


def test_what_was_posted_is_there_before_a_listing_shows_it() -> None:
    seen = posted(10)
    assert seen.take_in(everything(), 9) == []
    assert seen.server(ONE) is not None


def test_what_a_complete_listing_lacks_that_began_after_the_post_is_missing() -> None:
    seen = posted(10)
    assert seen.take_in(everything(), 11) == [ONE]
    assert seen.server(ONE) is None
    assert seen.accepted(ONE) == SERVER.id, "it is to be asked for by its id"


def test_what_no_listing_of_changes_has_shown_for_long_is_missing() -> None:
    seen = posted(10)
    assert seen.take_in(changes(), 10 + UNSEEN_FOR) == []
    assert seen.take_in(changes(), 11 + UNSEEN_FOR) == [ONE]
    assert seen.server(ONE) is None


def test_what_was_shown_once_is_not_missing_because_nothing_changes() -> None:
    seen = posted(10)
    seen.take_in(changes(SERVER), 12)
    assert seen.take_in(changes(), 1000) == []
    assert seen.server(ONE) == SERVER


def test_a_second_server_of_one_owner_is_a_stray_until_it_is_deleted() -> None:
    seen, other = posted(10), a_server(1, id=ServerId("late"), owner=ONE)
    seen.take_in(changes(SERVER, other), 12)
    assert seen.strays() == [other]
    assert seen.server(ONE, other.id) == other
    seen.take_in(changes(a_server(1, id=other.id, owner=ONE, state=ServerState.DELETED)), 13)
    assert seen.strays() == []
    assert seen.server(ONE) == SERVER


MOVED = replace(SERVER, host="elsewhere")
TWO = a_server(2, owner=VmUid("vm-2"))


def asked_for_all(*servers: Server) -> Sightings:
    """These are known, and a complete listing goes on that began at 10."""
    seen = Sightings()
    seen.take_in(everything(*servers), 1)
    seen.all_asked_for()
    return seen


def answer(seen: Sightings, *servers: Server) -> set[VmUid]:
    return set(seen.take_in(seen.brought_up(everything(*servers)), 10))


def test_what_changed_while_all_were_listed_is_as_it_was_told_last() -> None:
    """The page that shows a server may be older than a listing of changes, by minutes."""
    seen = asked_for_all(SERVER, TWO)
    seen.take_in(changes(MOVED), 12)
    assert answer(seen, SERVER, TWO) == set()
    assert seen.server(ONE) == MOVED


def test_what_was_deleted_while_all_were_listed_does_not_come_back() -> None:
    seen = asked_for_all(SERVER, TWO)
    seen.take_in(changes(replace(SERVER, state=ServerState.DELETED)), 12)
    seen.gone(VmUid("vm-2"))
    answer(seen, SERVER, TWO)
    assert not seen.servers()


def test_what_was_found_while_all_were_listed_is_not_missing() -> None:
    """Its page was read before it came to be."""
    seen = asked_for_all(SERVER)
    seen.posted(VmUid("vm-2"), TWO.id, "data-2", (11, NOW))
    seen.take_in(changes(TWO), 12)
    answer(seen, SERVER)
    assert seen.server(VmUid("vm-2")) == TWO


def test_a_second_server_that_came_while_all_were_listed_is_a_stray() -> None:
    seen, other = asked_for_all(SERVER), a_server(1, id=ServerId("late"), owner=ONE)
    seen.take_in(changes(other), 12)
    answer(seen, SERVER)
    assert seen.strays() == [other]
    assert seen.server(ONE) == SERVER


def test_what_nobody_has_told_of_is_as_the_complete_listing_shows_it() -> None:
    seen = asked_for_all(SERVER, TWO)
    assert answer(seen, MOVED) == {ONE, VmUid("vm-2")}
    assert seen.servers() == {ONE: MOVED}


def test_news_are_of_one_complete_listing_only() -> None:
    seen = asked_for_all(SERVER)
    seen.take_in(changes(MOVED), 12)
    answer(seen, SERVER)
    seen.all_asked_for()
    answer(seen, SERVER)
    assert seen.server(ONE) == SERVER


def test_what_is_forgotten_is_that_server_only() -> None:
    seen, other = posted(10), a_server(1, id=ServerId("late"), owner=ONE)
    seen.take_in(changes(SERVER, other), 12)
    seen.forget(other)
    assert seen.strays() == []
    assert seen.server(ONE) == SERVER
    seen.forget(SERVER)
    assert seen.server(ONE) is None


def test_a_build_is_timed_by_the_listing_that_first_shows_it_up() -> None:
    seen = posted(10)
    assert seen.build_time(SERVER, 14) == 4
    seen.take_in(changes(SERVER), 14)
    assert seen.build_time(SERVER, 15) is None


@pytest.mark.parametrize(
    ("told", "ahead"),
    [(-90, -90), (-3, 0), (0, 0), (20, 0), (24, 0), (110, 90)],
    ids=["behind", "whole-seconds", "right", "while-it-answered", "a-little", "ahead"],
)
def test_a_clock_is_wrong_by_what_the_answers_own_time_cannot_explain(
    told: int, ahead: int
) -> None:
    """An answer that took 20 s says nothing against a clock that tells a time within them."""
    second = timedelta(seconds=1)
    assert skew(NOW, NOW + told * second, NOW + 20 * second) == ahead * second
