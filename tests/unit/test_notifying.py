"""From what the loops tell to what people read: over restarts, full disks and silent servers."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from builders import NOW, POOL, a_pool_body
from doubles.history import a_build
from doubles.mail import a_mail_server, text_of
from warmpool.api.names import Kind, Reason
from warmpool.domain.history import BuildRecord, Result
from warmpool.domain.notices import Letter, Outbox, Route
from warmpool.effects.notify import AppriseSender
from warmpool.effects.outbox import FileBox
from warmpool.planning.news import STARVING_AFTER
from warmpool.ports.notices import NotSent, OutboxUnavailable, RoutesUnknown
from warmpool.reconcile.notifying import Notifying
from warmpool.reconcile.store import Store

ONCALL = Route("oncall", ("mailto://oncall",))


class LoopClock:
    """The loop's own, faked time."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.monotonic())


class MemoryBox:
    def __init__(self) -> None:
        self.kept = Outbox()
        self.works = True

    async def load(self) -> Outbox:
        return self.kept

    async def save(self, outbox: Outbox) -> None:
        await asyncio.sleep(0.01)
        if not self.works:
            raise OutboxUnavailable("disk full")
        self.kept = outbox


class Routing:
    def __init__(self, *routes: Route) -> None:
        self.routes: Sequence[Route] = routes
        self.known = True

    async def read(self) -> Sequence[Route]:
        if not self.known:
            raise RoutesUnknown("503")
        return self.routes


class Postman:
    def __init__(self) -> None:
        self.works = True
        self.letters: list[Letter] = []

    async def send(self, letter: Letter, to: Sequence[str]) -> None:
        await asyncio.sleep(0.5)
        if not self.works:
            raise NotSent("451")
        assert to
        self.letters.append(letter)


class World:
    """What there is around a replica's notices; each `telling` is another life of it."""

    def __init__(self) -> None:
        self.store = Store()
        self.box, self.routing, self.postman = MemoryBox(), Routing(ONCALL), Postman()
        self.leads = True

    def telling(self) -> tuple[Notifying, AbstractAsyncContextManager[None]]:
        notifying = Notifying(
            self.store,
            LoopClock(),
            box=self.box,
            routes=self.routing,
            sender=self.postman,
            leads=lambda: self.leads,
        )
        self.store.listen(notifying.changed)
        return notifying, notifying.running()

    def pool(self, version: int, ready: int) -> None:
        self.store.apply(Kind.WARM_POOL, a_pool_body(version=version, status={"ready": ready}))


def a_failure(number: int) -> BuildRecord:
    message = "No valid host was found."
    fields = {"result": Result.FAILED, "reason": Reason.NO_VALID_HOST, "message": message}
    return a_build(number, at=LoopClock().now(), **fields)


async def until(holds: Callable[[], object], within: float = 3600.0, step: float = 1.0) -> None:
    async with asyncio.timeout(within):
        while not holds():  # noqa: ASYNC110 - the loop's own, faked time
            await asyncio.sleep(step)


@pytest.mark.looptime
async def test_five_hundred_failures_in_a_minute_make_one_letter() -> None:
    world = World()
    notifying, running = world.telling()
    async with running:
        for number in range(500):
            notifying.take(a_failure(number))
            await asyncio.sleep(60 / 500)
        await asyncio.sleep(3600)
    (letter,) = world.postman.letters
    assert letter.title == "warmpool: search/data: 500 builds failed (NoValidHost)"


@pytest.mark.looptime
async def test_a_restart_loses_none() -> None:
    world = World()
    first, running = world.telling()
    async with running:
        first.take(a_failure(1))
        await asyncio.sleep(2)
    second, running = world.telling()
    async with running:
        second.take(a_failure(2))
        await until(lambda: world.postman.letters)
    assert "2 builds failed" in world.postman.letters[0].title


@pytest.mark.looptime
async def test_what_was_taken_a_moment_before_the_end_is_kept() -> None:
    world = World()
    notifying, running = world.telling()
    async with running:
        notifying.take(a_failure(1))
    assert world.box.kept.waiting == 1


@pytest.mark.looptime
async def test_a_letter_is_tried_until_it_arrives() -> None:
    world = World()
    world.postman.works = False
    notifying, running = world.telling()
    async with running:
        notifying.take(a_failure(1))
        await asyncio.sleep(600)
        assert notifying.waiting == 1
        world.postman.works = True
        await until(lambda: world.postman.letters)
        await until(lambda: not notifying.waiting)
    assert len(world.postman.letters) == 1


@pytest.mark.looptime
async def test_news_waits_for_routes_and_takes_new_ones() -> None:
    world = World()
    world.routing.known = False
    notifying, running = world.telling()
    async with running:
        notifying.take(a_failure(1))
        await asyncio.sleep(600)
        assert not world.postman.letters
        world.routing.known = True
        await until(lambda: world.postman.letters, within=60)


@pytest.mark.looptime
async def test_a_full_disk_keeps_nobody_from_being_told(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.box.works = False
    notifying, running = world.telling()
    async with running:
        notifying.take(a_failure(1))
        await until(lambda: world.postman.letters)
    assert caplog.text.count("notices wait, outbox: disk full") == 1


@pytest.mark.looptime
async def test_a_pool_that_starves_is_told_and_so_is_that_it_is_over() -> None:
    world = World()
    _, running = world.telling()
    async with running:
        world.pool(1, ready=3)
        await asyncio.sleep(10)
        world.pool(2, ready=0)
        after = STARVING_AFTER.total_seconds() + 30
        await until(lambda: world.postman.letters, within=after)
        assert world.postman.letters[0].title == f"warmpool: {POOL} has no VM ready"
        assert world.postman.letters[0].urgent
        world.pool(3, ready=3)
        await until(lambda: len(world.postman.letters) == 2)
    assert "is built up" in world.postman.letters[1].title


@pytest.mark.looptime
async def test_of_pools_the_leader_tells() -> None:
    world = World()
    world.leads = False
    _, running = world.telling()
    async with running:
        world.pool(1, ready=1)
        await asyncio.sleep(10)
        world.pool(2, ready=3)
        await asyncio.sleep(600)
        assert not world.postman.letters
        world.leads = True
        world.pool(3, ready=0)
        await asyncio.sleep(10)
        world.pool(4, ready=3)
        await until(lambda: world.postman.letters, within=600)


@pytest.mark.looptime
async def test_pools_that_are_gone_are_forgotten() -> None:
    world = World()
    _, running = world.telling()
    async with running:
        world.pool(1, ready=3)
        await until(lambda: world.box.kept.moods)
        world.store.apply(Kind.WARM_POOL, a_pool_body(version=2), deleted=True)
        await until(lambda: not world.box.kept.moods)


async def test_a_mail_arrives_by_smtp_and_the_outbox_on_disk_is_empty(tmp_path: Path) -> None:
    """All of it for real, but the waiting."""
    async with a_mail_server() as server:
        at_once = Route("oncall", (server.url,), gather=timedelta(0))
        box = FileBox(tmp_path / "outbox.json")
        notifying = Notifying(
            Store(),
            LoopClock(),
            box=box,
            routes=Routing(at_once),
            sender=AppriseSender(),
            leads=lambda: True,
        )
        async with notifying.running():
            for number in range(500):
                notifying.take(a_failure(number))
            await until(lambda: server.mails, within=30, step=0.02)
            await until(lambda: not notifying.waiting, within=30, step=0.02)
    (mail,) = server.mails
    assert mail["subject"] == "warmpool: search/data: 500 builds failed (NoValidHost)"
    assert "No valid host was found." in text_of(mail)
    assert (await box.load()).waiting == 0
