"""Never two leaders at once, and never long none: whatever clocks, API server and hands do.

Seconds pass in no time. Every candidate is asked fifty times a second whether it leads.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from doubles.cluster import FakeCluster
from doubles.virtual_time import LoopClock, run
from warmpool.api.names import LEASE_NAME
from warmpool.domain.errors import (
    ClusterOutcomeUnknown,
    ClusterUnavailable,
    Conflict,
    Forbidden,
    NotLeading,
)
from warmpool.ports.cluster import Body
from warmpool.reconcile.election import LONGEST, Elector, LeaseTimes

TIMES = LeaseTimes()
LEASE, DEADLINE, RETRY = (
    span.total_seconds() for span in (TIMES.lease, TIMES.deadline, TIMES.retry)
)


@dataclass
class Line:
    """One candidate's connection, which can hang or fail."""

    api: FakeCluster
    hangs: bool = False
    takes: float = 0.001
    """Seconds that a request takes, half of them on the way there. What is on its way arrives,
    whether or not anybody still waits for the answer."""
    error: Exception | None = None
    answers_get_lost: bool = False

    async def get_lease(self, name: str) -> Body:
        await self._bear()
        return await self.api.get_lease(name)

    async def put_lease(self, name: str, body: Body) -> Body:
        sent = asyncio.ensure_future(self._put(name, body))
        sent.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(sent)

    async def _put(self, name: str, body: Body) -> Body:
        await self._bear()
        written = await self.api.put_lease(name, body)
        await asyncio.sleep(self.takes / 2)
        if self.answers_get_lost:
            raise ClusterOutcomeUnknown("the answer was lost")
        return written

    async def watch_lease(self, name: str, version: str) -> AsyncGenerator[Body | None, None]:
        await self._bear()
        async with contextlib.aclosing(self.api.watch_lease(name, version)) as stream:
            async for seen in stream:
                await self._bear()
                yield seen

    async def _bear(self) -> None:
        await asyncio.sleep(self.takes / 2)
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error


@dataclass
class Candidate:
    """One replica that takes part."""

    name: str
    line: Line
    skew: timedelta = timedelta()
    terms: int = 0
    give_up: Exception | None = None
    """What its `lead` raises, once."""
    when_stopped: Exception | None = None
    """What it raises when it is cancelled."""
    task: "asyncio.Task[None] | None" = None
    elector: Elector = field(init=False)

    def __post_init__(self) -> None:
        self.elector = Elector(
            self.line,
            LoopClock(lambda: self.skew),
            identity=self.name,
            times=TIMES,
            rng=random.Random(self.name),  # noqa: S311 - jitter
        )

    def start(self) -> None:
        self.task = asyncio.ensure_future(self.elector.run(self.lead, lambda: None))

    async def lead(self) -> None:
        self.terms += 1
        await asyncio.sleep(0.5)
        if self.give_up is not None:
            error, self.give_up = self.give_up, None
            raise error
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self.when_stopped is not None:
                raise self.when_stopped from None
            raise

    async def stop(self) -> None:
        """As on SIGTERM."""
        assert self.task is not None
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

    async def die(self) -> None:
        """As on SIGKILL: nothing is released."""
        self.line.hangs = True
        await self.stop()


@dataclass
class Election:
    api: FakeCluster
    candidates: list[Candidate]
    leaders: list[tuple[float, str]] = field(default_factory=list)
    """Who led, from when on; empty: nobody."""

    def leader(self) -> Candidate | None:
        leading = [c for c in self.candidates if c.elector.leads()]
        assert len(leading) <= 1, f"two lead at once: {[c.name for c in leading]}"
        return leading[0] if leading else None

    async def watch(self) -> None:
        while True:
            leader = self.leader()
            name = leader.name if leader else ""
            if not self.leaders or self.leaders[-1][1] != name:
                self.leaders.append((asyncio.get_running_loop().time(), name))
            await asyncio.sleep(0.02)

    async def wins(self, *, within: float, other_than: Candidate | None = None) -> Candidate:
        """The candidate that leads within so many seconds."""
        loop = asyncio.get_running_loop()
        until = loop.time() + within
        while loop.time() <= until:
            leader = self.leader()
            if leader is not None and leader is not other_than:
                return leader
            await asyncio.sleep(0.02)
        raise AssertionError(f"nobody leads within {within} s: {self.leaders}")

    async def keeps(self, leader: Candidate, seconds: float) -> None:
        """It leads all the time, in one term."""
        terms, until = leader.terms, asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < until:
            assert self.leader() is leader, self.leaders
            await asyncio.sleep(0.02)
        assert leader.terms == max(terms, 1)


@contextlib.asynccontextmanager
async def an_election(number: int = 3) -> AsyncIterator[Election]:
    api = FakeCluster(lambda: datetime(2030, 1, 1, tzinfo=UTC))
    election = Election(api, [Candidate(f"r{n}", Line(api)) for n in range(number)])
    watching = asyncio.ensure_future(election.watch())
    for candidate in election.candidates:
        candidate.start()
    try:
        yield election
        assert not watching.done(), watching.result()
    finally:
        watching.cancel()
        for candidate in election.candidates:
            if candidate.task is not None and not candidate.task.done():
                await candidate.stop()


Tale = Callable[[Election], Awaitable[None]]


def told(tale: Tale, number: int = 3) -> None:
    async def whole() -> None:
        async with an_election(number) as election:
            await tale(election)

    run(whole())


def test_one_leads_and_goes_on_leading() -> None:
    async def tale(election: Election) -> None:
        leader = await election.wins(within=1)
        await election.keeps(leader, 600)
        assert sum(c.terms for c in election.candidates) == 1

    told(tale)


def test_what_is_released_is_taken_at_once() -> None:
    async def tale(election: Election) -> None:
        leader = None
        for _ in range(2):
            leader = await election.wins(within=1, other_than=leader)
            await asyncio.sleep(RETRY)
            await leader.stop()
            assert await election.wins(within=0.2, other_than=leader)

    told(tale)


@pytest.mark.parametrize("tenth", range(24))
def test_a_renewal_on_its_way_does_not_keep_a_lease_from_being_released(tenth: int) -> None:
    """It arrived before the release, which was for an older Lease then: all waited for its end."""

    async def tale(election: Election) -> None:
        leader = await election.wins(within=1)
        await asyncio.sleep(RETRY)
        leader.line.takes = 0.4
        await asyncio.sleep(tenth / 10)
        await leader.stop()
        assert await election.wins(within=0.2, other_than=leader)

    told(tale)


@pytest.mark.parametrize("lost", [False, True], ids=["nothing arrives", "the answer is lost"])
def test_a_release_that_fails_is_tried_again(lost: bool) -> None:
    async def tale(election: Election) -> None:
        leader = await election.wins(within=1)
        await asyncio.sleep(RETRY)
        leader.line.answers_get_lost = lost
        leader.line.error = None if lost else ClusterUnavailable("the connection was cut")
        stopping = asyncio.ensure_future(leader.stop())
        await asyncio.sleep(0.3)
        leader.line.error = None
        await stopping
        assert await election.wins(within=0.2, other_than=leader)

    told(tale)


def test_the_lease_of_a_dead_leader_is_taken_when_it_runs_out() -> None:
    async def tale(election: Election) -> None:
        leader = await election.wins(within=1)
        await asyncio.sleep(30)
        await leader.die()
        await asyncio.sleep(LEASE - 2 * RETRY - 0.5)
        assert election.leader() is None
        await election.wins(within=2 * RETRY + 1, other_than=leader)

    told(tale)


@pytest.mark.parametrize("jump", [-3600, 3600, 1e8], ids=str)
@pytest.mark.parametrize("whose", ["the leader's", "the others'"])
def test_wall_clocks_do_not_matter(jump: float, whose: str) -> None:
    async def tale(election: Election) -> None:
        leader = await election.wins(within=1)
        await asyncio.sleep(5)
        for candidate in election.candidates:
            if (candidate is leader) == (whose == "the leader's"):
                candidate.skew = timedelta(seconds=jump)
        await election.keeps(leader, 60)

    told(tale)


def test_a_leader_whose_api_server_hangs_stops_before_another_begins() -> None:
    async def tale(election: Election) -> None:
        leader = await election.wins(within=1)
        await asyncio.sleep(20)
        leader.line.hangs = True
        await asyncio.sleep(DEADLINE)
        assert not leader.elector.leads()
        other = await election.wins(within=LEASE - DEADLINE + RETRY + 1)
        leader.line.hangs = False
        await election.keeps(other, 60)

    told(tale)


ERRORS = [
    ClusterUnavailable("503"),
    ClusterOutcomeUnknown("500"),
    Conflict("409"),
    Forbidden("403"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_a_short_trouble_is_outlived(error: Exception) -> None:
    async def tale(election: Election) -> None:
        leader = await election.wins(within=1)
        for _ in range(5):
            await asyncio.sleep(10)
            for candidate in election.candidates:
                candidate.line.error = error
            await asyncio.sleep(DEADLINE - 2 * RETRY - 0.5)
            for candidate in election.candidates:
                candidate.line.error = None
        await election.keeps(leader, 30)
        assert sum(c.terms for c in election.candidates) == 1

    told(tale)


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_after_a_long_trouble_somebody_leads_again(error: Exception) -> None:
    async def tale(election: Election) -> None:
        await election.wins(within=1)
        await asyncio.sleep(10)
        for candidate in election.candidates:
            candidate.line.error = error
        await asyncio.sleep(60)
        assert election.leader() is None
        for candidate in election.candidates:
            candidate.line.error = None
        await election.wins(within=LEASE + RETRY)

    told(tale)


def test_a_leader_whose_answers_get_lost_leads_by_what_it_reads() -> None:
    async def tale(election: Election) -> None:
        leader = await election.wins(within=1)
        leader.line.answers_get_lost = True
        await election.keeps(leader, 60)

    told(tale)


def test_who_wins_and_does_not_hear_of_it_does_not_lead() -> None:
    async def tale(election: Election) -> None:
        leader = await election.wins(within=1)
        deaf, other = (c for c in election.candidates if c is not leader)
        await other.stop()
        deaf.line.answers_get_lost = True
        await leader.stop()
        await asyncio.sleep(LEASE)
        assert not deaf.elector.leads()
        deaf.line.answers_get_lost = False
        await election.wins(within=RETRY)

    told(tale)


@pytest.mark.parametrize("takes", [1.0, 2.2])
def test_a_leader_waits_for_slow_answers(takes: float) -> None:
    """Each attempt once was given up after the retry, so a loaded API server deposed leaders."""

    async def tale(election: Election) -> None:
        leader = await election.wins(within=1)
        await asyncio.sleep(RETRY)
        leader.line.takes = takes
        await election.keeps(leader, 60)

    told(tale)


def test_a_leader_outlives_a_connection_that_is_dead() -> None:
    """A request without an answer must leave time for another one."""

    async def tale(election: Election) -> None:
        leader = await election.wins(within=1)
        for _ in range(10):
            leader.line.takes = DEADLINE
            await asyncio.sleep(RETRY + 0.01)  # a renewal is under way by now
            leader.line.takes = 0.5
            await election.keeps(leader, DEADLINE)

    told(tale)


def test_slow_answers_do_not_keep_a_candidate_from_winning() -> None:
    async def tale(election: Election) -> None:
        for candidate in election.candidates:
            candidate.line.takes = 1.5
        await election.wins(within=5)

    told(tale)


def test_a_lease_deleted_by_hand_is_written_again_by_its_holder() -> None:
    """Others once took the deletion for a release, while the holder still led for seconds."""

    async def tale(election: Election) -> None:
        leader = await election.wins(within=1)
        for _ in range(3):
            await asyncio.sleep(7.3)
            election.api.edit_lease(LEASE_NAME, None)
            await election.keeps(leader, RETRY + 1)
        assert election.api.lease(LEASE_NAME)["spec"]["holderIdentity"] == leader.name

    told(tale)


@pytest.mark.parametrize("holder", ["", "nobody", "r0", "r1", "r2"])
def test_a_lease_given_away_by_hand_makes_no_two_leaders(holder: str) -> None:
    async def tale(election: Election) -> None:
        await election.wins(within=1)
        for _ in range(3):
            await asyncio.sleep(7.3)
            election.api.edit_lease(LEASE_NAME, {"holderIdentity": holder})
            await asyncio.sleep(RETRY)
            await election.wins(within=LEASE + RETRY + 1)

    told(tale)


@pytest.mark.parametrize("seconds", [1, 3, 100_000])
def test_a_duration_changed_by_hand_makes_no_two_leaders(seconds: int) -> None:
    """Others once believed a shorter one, while the holder did not know of it yet."""

    async def tale(election: Election) -> None:
        leader = await election.wins(within=1)
        for _ in range(5):
            await asyncio.sleep(7.3)
            election.api.edit_lease(LEASE_NAME, {"leaseDurationSeconds": seconds})
            await election.keeps(leader, 2 * RETRY)
        assert election.api.lease(LEASE_NAME)["spec"]["leaseDurationSeconds"] == LEASE

    told(tale)


def test_a_dead_leaders_lease_is_not_waited_for_longer_than_any_may_last() -> None:
    async def tale(election: Election) -> None:
        leader = await election.wins(within=1)
        await leader.die()
        election.api.edit_lease(LEASE_NAME, {"leaseDurationSeconds": 100_000})
        await election.wins(within=LONGEST + RETRY, other_than=leader)

    told(tale)


def test_a_lease_edited_by_hand_that_still_names_its_holder_is_kept() -> None:
    async def tale(election: Election) -> None:
        leader = await election.wins(within=1)
        for _ in range(5):
            await asyncio.sleep(3.3)
            election.api.edit_lease(LEASE_NAME, {"renewTime": "1999-01-01T00:00:00.000000Z"})
        await election.keeps(leader, 30)

    told(tale)


def test_whoever_finds_that_it_does_not_lead_lets_others() -> None:
    async def tale(election: Election) -> None:
        leader = await election.wins(within=1)
        leader.give_up = NotLeading("the ledger is another's")
        await asyncio.sleep(0.5)
        other = await election.wins(within=0.2, other_than=leader)
        await other.stop()
        assert leader.task is not None
        assert not leader.task.done()

    told(tale)


def test_the_only_candidate_leads_again_after_it_was_superseded() -> None:
    async def tale(election: Election) -> None:
        (only,) = election.candidates
        only.give_up = NotLeading("the ledger is another's")
        await asyncio.sleep(2 * RETRY)
        await election.wins(within=RETRY)
        assert only.elector.leads()
        assert only.terms == 2

    told(tale, number=1)


def test_a_leader_that_is_stopped_while_it_finds_that_it_does_not_lead_stops() -> None:
    """It once forgot that it was to stop, contended anew, and had to be killed."""

    async def tale(election: Election) -> None:
        (only,) = election.candidates
        await election.wins(within=1)
        only.when_stopped = NotLeading("the ledger is another's")
        await only.stop()
        assert only.task is not None
        assert only.task.done()

    told(tale, number=1)


def test_what_a_leader_dies_of_is_told_and_the_lease_released() -> None:
    async def tale(election: Election) -> None:
        leader = await election.wins(within=1)
        leader.give_up = KeyError("a bug")
        await asyncio.sleep(0.6)
        assert leader.task is not None
        with pytest.raises(KeyError):
            await leader.task
        await election.wins(within=0.2, other_than=leader)

    told(tale)


@pytest.mark.parametrize("seed", range(20))
def test_never_two_whatever_happens(seed: int) -> None:
    """Each second one candidate's line breaks, heals or hangs, or a hand is at the Lease."""

    async def tale(election: Election) -> None:
        rng = random.Random(seed)  # noqa: S311 - a story
        await election.wins(within=1)
        await asyncio.sleep(RETRY)
        for _ in range(300):
            await asyncio.sleep(rng.random() * 2)
            _meddle(rng, election)
        for candidate in election.candidates:
            candidate.line.hangs = candidate.line.answers_get_lost = False
            candidate.line.error, candidate.line.takes = None, 0.001
        await election.wins(within=2 * LEASE + RETRY)

    told(tale)


def _meddle(rng: random.Random, election: Election) -> None:
    candidate = rng.choice(election.candidates)
    line: Any = candidate.line
    match rng.randrange(9):
        case 0:
            line.hangs = not line.hangs
        case 1:
            line.error = rng.choice([None, *ERRORS])
        case 2:
            line.answers_get_lost = not line.answers_get_lost
        case 3:
            candidate.skew = timedelta(seconds=rng.uniform(-1e6, 1e6))
        case 4:
            candidate.give_up = NotLeading("superseded")
        case 5 if election.api.lease(LEASE_NAME) is not None and rng.random() < 0.3:
            election.api.edit_lease(LEASE_NAME, None)
        case 6 if election.api.lease(LEASE_NAME) is not None and rng.random() < 0.3:
            election.api.edit_lease(LEASE_NAME, {"renewTime": "1999-01-01T00:00:00.000000Z"})
        case 7:
            line.takes = rng.choice([0.001, 1.0, 3.0, 8.0])
        case _:
            line.hangs, line.error, line.answers_get_lost = False, None, False
            line.takes = 0.001
