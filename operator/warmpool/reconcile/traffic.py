"""How busy the answering of claims is: what can wait, waits for a lull."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

from warmpool.ports.clock import Clock

FEW: Final = 16
"""Claims being answered at once that are few: they will be when the ledger is written."""

BURST: Final = 24
"""VMs of claims that are being answered at once that make a burst: it is over soon, and other work
can wait for that. A steady flow of 100 claims/s of one VM has some ten."""

THRONG: Final = 48
"""Claims being answered at once that are a throng: what they need is the API server's time, and we
take less of it when we look seldom, and find much at once."""

CALM: Final = 0.1
"""Seconds after a burst for which other work waits: the rest of the burst must not wait for it."""

TICK: Final = 0.001
"""Seconds that are waited for at least: a clock may round less down to nothing, and stand still."""


class Traffic:
    """Claims that are being answered, for all that runs beside them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._vms = 0
        self._burst_at = float("-inf")
        self._answered_at = float("-inf")
        self._are_few = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self.answering = 0
        """Claims that are being answered."""

    def began(self, vms: int) -> None:
        """A claim is being answered, with so many VMs."""
        self.answering += 1
        self._vms += vms
        self._look_for_burst()
        self._is_idle.clear()
        if self.answering > FEW:
            self._are_few.clear()

    def ended(self, vms: int) -> None:
        """It has its answer."""
        self._look_for_burst()
        self.answering -= 1
        self._vms -= vms
        self._answered_at = self._clock.monotonic()
        if self.answering <= FEW:
            self._are_few.set()
        if not self.answering:
            self._is_idle.set()

    @contextlib.contextmanager
    def answer(self) -> Iterator[None]:
        """Something is done that claims wait for, while inside."""
        self.began(0)
        try:
            yield
        finally:
            self.ended(0)

    @property
    def in_burst(self) -> bool:
        """Whether a burst is under way. May be asked in any thread."""
        return self._vms >= BURST or self._clock.monotonic() < self._burst_at + CALM

    @property
    def is_throng(self) -> bool:
        """Whether so many claims are being answered that news of them had better be gathered."""
        return self.answering >= THRONG

    @property
    def is_quiet(self) -> bool:
        """Whether no claim has been answered for a while."""
        return not self.answering and self._clock.monotonic() >= self._answered_at + CALM

    def _look_for_burst(self) -> None:
        if self._vms >= BURST:
            self._burst_at = self._clock.monotonic()

    async def few(self, within: float) -> None:
        """Until few claims are being answered, and not longer than so many seconds."""
        if self.answering > FEW:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await self._are_few.wait()

    async def calm(self, latest: float) -> bool:
        """Whether no claim is being answered now. A burst is waited for, until `latest`.

        Beside claims that come one by one it is not: they would be waited for all the time.
        """
        while (now := self._clock.monotonic()) < latest and self.in_burst:
            over = (now if self._vms >= BURST else self._burst_at) + CALM
            await asyncio.sleep(max(min(over, latest) - now, TICK))
        return not self.answering

    async def lull(self, within: float) -> None:
        """Until no claim is being answered and no burst is under way, so many seconds at most."""
        latest = self._clock.monotonic() + within
        while not await self.calm(latest) and (left := latest - self._clock.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(left, TICK)):
                    await self._is_idle.wait()
