"""How often the operator's own event loop looks for news."""

import asyncio
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from warmpool.embed import OperatorThread, Settings
from warmpool.embed.pacing import PAUSE, PacedSelector, paced_loop
from warmpool.embed.replica import Replica


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds of each rest that was taken. None is waited for."""
    taken: list[float] = []
    monkeypatch.setattr(time, "sleep", taken.append)
    return taken


@contextmanager
def looking(*, throng: bool) -> Iterator[tuple[PacedSelector, socket.socket]]:
    """A selector, and what is to be written to for it to find something."""
    ours, theirs = socket.socketpair()
    with ours, theirs, PacedSelector(lambda: throng) as selector:
        selector.register(ours, selectors.EVENT_READ)
        yield selector, theirs


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_in_a_throng_it_rests_before_it_looks(timeout: float | None, rests: list[float]) -> None:
    with looking(throng=True) as (selector, other):
        other.send(b"news")
        assert len(selector.select(timeout)) == 1
    assert rests == [PAUSE]


def test_what_is_ready_to_run_does_not_wait(rests: list[float]) -> None:
    with looking(throng=True) as (selector, _):
        assert selector.select(0) == []
    assert rests == []


def test_what_is_due_before_is_not_overslept(rests: list[float]) -> None:
    with looking(throng=True) as (selector, _):
        began = time.monotonic()
        assert selector.select(PAUSE / 2) == []
        assert time.monotonic() - began < PAUSE / 2  # the rest was all of it, and is not taken here
    assert rests == [PAUSE / 2]


def test_without_a_throng_it_never_rests(rests: list[float]) -> None:
    with looking(throng=False) as (selector, other):
        other.send(b"news")
        assert len(selector.select(None)) == 1
        assert selector.select(0.001) != []
    assert rests == []


def test_a_chain_of_steps_costs_one_rest(rests: list[float]) -> None:
    """A step that makes another ready would cost a rest each, if rests were taken by a task."""

    async def steps() -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=lambda: paced_loop(lambda: True)) as runner:
        runner.get_loop()
        rests.clear()
        runner.run(steps())
        assert len(rests) <= 1


@pytest.mark.parametrize("throng", [True, False])
def test_an_operator_in_a_thread_rests_while_its_replica_has_a_throng(
    throng: bool, rests: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait(*_: object) -> None:
        await asyncio.sleep(0.05)

    monkeypatch.setattr(Replica, "run", wait)
    monkeypatch.setattr(Replica, "is_throng", property(lambda _: throng))
    operator = OperatorThread(Settings())
    operator.start()
    operator.ended(5)
    assert (PAUSE in rests) == throng
