"""Pools of one cloud share one session, however they come to it."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from builders import NOW, a_pool
from warmpool.api.names import Reason
from warmpool.domain.errors import (
    CloudConfigInvalid,
    CloudUnavailable,
    ClusterError,
    ClusterOutcomeUnknown,
    ClusterUnavailable,
    Forbidden,
)
from warmpool.domain.ids import Ref
from warmpool.domain.pools import Problem
from warmpool.effects.racks.opening import open_racks
from warmpool.reconcile.clouds import SECRET_AGAIN, SECRET_EVERY, Clouds
from warmpool.reconcile.session import CloudSession
from warmpool.reconcile.vitals import Vitals
from warmpool.sim.clock import LoopClock, ManualClock


class StillClock:
    def now(self) -> Any:
        return NOW

    def monotonic(self) -> float:
        return 0.0


class SlowSecrets:
    async def secret(self, ref: Ref) -> Mapping[str, bytes]:
        del ref
        await asyncio.sleep(0.01)
        return {"clouds.yaml": b"clouds: {}"}


class NoCloud:
    """Never answers; says whether it was closed."""

    def __init__(self) -> None:
        self.closed = False

    async def topology(self, _key: str = "rack") -> None:
        await asyncio.Event().wait()

    async def hosts(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        self.closed = True


def a_clouds(secrets: Any, open_cloud: Callable[[str, str], Any], clock: Any) -> Clouds:
    return Clouds(
        secrets,
        open_cloud,
        clock,
        random.Random(1),  # noqa: S311 - jitter
        Vitals(clock),
        open_racks=open_racks,
        wake_vms=lambda _: None,
        wake_pool=lambda _: None,
        nudge=lambda _: None,
    )


async def test_pools_that_come_at_the_same_time_open_one_cloud() -> None:
    """The second session closed the first one under the pool that was using it."""
    opened: list[NoCloud] = []

    def open_cloud(text: str, name: str) -> Any:
        del text, name
        opened.append(NoCloud())
        return opened[-1]

    clouds = a_clouds(SlowSecrets(), open_cloud, StillClock())
    running = asyncio.ensure_future(clouds.run())
    await asyncio.sleep(0)
    pools = [a_pool(Ref("search", name)) for name in ("data", "master")]
    first, second = await asyncio.gather(*(clouds.session(pool) for pool in pools))
    await asyncio.sleep(0)
    assert first is second
    assert [cloud.closed for cloud in opened] == [False]
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


class Secrets:
    text = b"good"

    async def secret(self, ref: Ref) -> Mapping[str, bytes]:
        del ref
        return {"clouds.yaml": self.text}


def open_good(text: str, name: str) -> Any:
    if text != "good":
        raise CloudConfigInvalid(f"{name}: {text}")
    return BrokenCloud()


@pytest.mark.looptime
async def test_credentials_that_cannot_be_used_are_told_until_they_are_mended() -> None:
    """Told once: from the second look on the session of the former ones was handed out."""
    secrets, clock = Secrets(), LoopClock()
    clouds = a_clouds(secrets, open_good, clock)
    running = asyncio.ensure_future(clouds.run())
    await asyncio.sleep(0)
    pool = a_pool(Ref("search", "data"))
    session = await clouds.session(pool)
    assert isinstance(session, CloudSession)
    secrets.text = b"bad"
    for _ in range(3):
        await asyncio.sleep(SECRET_EVERY + 1)
        assert isinstance(await clouds.session(pool), Problem)
    secrets.text = b"good"
    await asyncio.sleep(SECRET_EVERY + 1)
    assert await clouds.session(pool) is session
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


class FailingSecrets(Secrets):
    """Of an API server that may fail."""

    error: ClusterError | None = None

    async def secret(self, ref: Ref) -> Mapping[str, bytes]:
        if self.error is not None:
            raise self.error
        return await super().secret(ref)


@pytest.fixture
async def failing() -> AsyncIterator[tuple[FailingSecrets, Clouds, ManualClock]]:
    secrets, clock = FailingSecrets(), ManualClock(NOW)
    clouds = a_clouds(secrets, open_good, clock)
    running = asyncio.ensure_future(clouds.run())
    await asyncio.sleep(0)
    yield secrets, clouds, clock
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


@pytest.mark.parametrize("error", [ClusterUnavailable("503"), ClusterOutcomeUnknown("cut off")])
async def test_a_secret_that_cannot_be_read_now_says_what_it_said_last(
    failing: tuple[FailingSecrets, Clouds, ManualClock], error: ClusterError
) -> None:
    """Each failure of the API server told all pools that their Secret was not there."""
    secrets, clouds, clock = failing
    pool = a_pool(Ref("search", "data"))
    session = await clouds.session(pool)
    secrets.error = error
    clock.advance(SECRET_EVERY)
    assert await clouds.session(pool) is session
    secrets.error, secrets.text = None, b"bad"
    clock.advance(SECRET_EVERY)
    wrong = await clouds.session(pool)
    assert isinstance(wrong, Problem)
    secrets.error = error
    clock.advance(SECRET_AGAIN)
    assert await clouds.session(pool) is wrong


async def test_a_secret_that_was_never_read_is_told_and_read_again_soon(
    failing: tuple[FailingSecrets, Clouds, ManualClock],
) -> None:
    secrets, clouds, clock = failing
    pool = a_pool(Ref("search", "data"))
    secrets.error = ClusterUnavailable("503")
    found = await clouds.session(pool)
    assert isinstance(found, Problem)
    assert found.reason is Reason.SECRET_UNREADABLE
    assert "503" in found.message
    secrets.error = None
    assert await clouds.session(pool) is found
    clock.advance(SECRET_AGAIN)
    assert isinstance(await clouds.session(pool), CloudSession)


async def test_a_secret_that_may_not_be_read_any_more_is_told_with_its_remedy(
    failing: tuple[FailingSecrets, Clouds, ManualClock],
) -> None:
    secrets, clouds, clock = failing
    pool = a_pool(Ref("search", "data"))
    session = await clouds.session(pool)
    secrets.error = Forbidden("403")
    clock.advance(SECRET_EVERY)
    found = await clouds.session(pool)
    assert isinstance(found, Problem)
    assert found.reason is Reason.SECRET_UNREADABLE
    assert "namespace 'search'" in found.message
    assert "ServiceAccount" in found.message
    secrets.error = None
    clock.advance(SECRET_AGAIN)
    assert await clouds.session(pool) is session


class BrokenCloud(NoCloud):
    """Refuses everything; says how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def list(self, _since: object) -> None:
        self.asked += 1
        raise CloudUnavailable("503")


@pytest.mark.looptime
async def test_a_cloud_may_be_away_for_a_day() -> None:
    """After nine hours the pause between listings was a number too large for the machine."""
    cloud: Any = BrokenCloud()
    session = CloudSession(
        cloud,
        LoopClock(),
        random.Random(1),  # noqa: S311 - jitter
        open_racks=open_racks,
        wake_vms=lambda _: None,
        wake_pool=lambda _: None,
        nudge=lambda _: None,
    )
    running = asyncio.ensure_future(session.run(lambda: None))
    await asyncio.sleep(24 * 3600)
    assert not running.done()
    assert 2000 < cloud.asked < 4000
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_what_a_secret_says_ends_nobody() -> None:
    """A tag on the wrong node made the parser raise what nobody caught: each leader ended by it."""
    read: list[str] = []

    def open_cloud(text: str, name: str) -> Any:
        del name
        read.append(text)
        if text == "odd":
            raise ZeroDivisionError("s3cret")
        if text == "bad":
            raise CloudConfigInvalid("no")
        return NoCloud()

    secrets, clock = Secrets(), ManualClock(NOW)
    secrets.text = b"odd"
    clouds = a_clouds(secrets, open_cloud, clock)
    running = asyncio.ensure_future(clouds.run())
    await asyncio.sleep(0)
    pool = a_pool(Ref("search", "data"))
    for _ in range(3):
        found = await clouds.session(pool)
        assert isinstance(found, Problem)
        assert "ZeroDivisionError" in found.message
        assert "s3cret" not in found.message
        clock.advance(SECRET_AGAIN)
    assert read == ["odd"] * 3, "it may have been something else, such as a lack of memory"
    secrets.text = b"bad"
    for _ in range(3):
        assert isinstance(await clouds.session(pool), Problem)
        clock.advance(SECRET_AGAIN)
    assert read[3:] == ["bad"], "to read it again would only take its time again"
    secrets.text = b"good"
    assert isinstance(await clouds.session(pool), CloudSession)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
