"""Clocks for simulated clouds: one to be moved by hand, one that may be pushed ahead."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)


class ManualClock:
    """Time that passes only when told to."""

    def __init__(self, start: datetime = EPOCH) -> None:
        self._start = start
        self._passed = 0.0

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._passed)

    def monotonic(self) -> float:
        return self._passed

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._passed += seconds


class PushedClock:
    """The machine's time, and what it was pushed ahead."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def now(self) -> datetime:
        machine = datetime.now(UTC)  # noqa: TID251 - the simulator's one place that asks the machine
        return machine + timedelta(seconds=self._ahead)

    def monotonic(self) -> float:
        return time.monotonic() + self._ahead

    def advance(self, seconds: float) -> None:
        """Push it ahead."""
        self._ahead += seconds


class LoopClock:
    """The time of the running event loop: agrees with its sleeps, faked or not."""

    def __init__(self, start: datetime = EPOCH) -> None:
        self._time = asyncio.get_running_loop().time
        self._began = self._time()
        self._start = start

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._time() - self._began)

    def monotonic(self) -> float:
        return self._time()
