"""An event loop whose clock jumps: what waits an hour is over at once, in the order of time.

Where nothing is left to happen, or something spins, it says so rather than hang.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
"""The wall clock when a loop begins."""


STANDSTILL = 20_000
"""Rounds of the loop in which no time passes, after which somebody is spinning."""


class _Jumping(selectors.SelectSelector):
    """Instead of waiting for a file to be ready, it lets the time pass."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._rounds = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("nothing is left that could ever happen")
        self._rounds = 0 if timeout > 0 else self._rounds + 1
        if self._rounds > STANDSTILL:
            raise RuntimeError("time stands still: something spins")
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """For tests without sockets and threads."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run(story: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a loop of its own, as fast as it goes."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(story)


class LoopClock:
    """`ports.clock.Clock` over the loop's time. `skew` sets the wall clock apart from it."""

    def __init__(self, skew: Callable[[], timedelta] = timedelta) -> None:
        self._skew = skew

    def now(self) -> datetime:
        return BEGINNING + timedelta(seconds=self.monotonic()) + self._skew()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()
