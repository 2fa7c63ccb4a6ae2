"""Is this replica alive, and is it ready? What `/livez` and `/readyz` answer from.

Alive: every loop has turned lately. A loop says so at each turn, and never waits without a bound,
however little there is to do. One that retries because the API server or a cloud is down turns all
the same: to restart a replica would mend neither.

Ready: everything that it needs to know has been seen once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Final

from warmpool.ports.clock import Clock

TURN_EVERY: Final = 10.0
"""Seconds that a loop without a pace of its own waits at most to be woken. It then looks whether
there is something to do, so that even a wake-up that got lost costs no more than this."""

STUCK_AFTER: Final = 180.0
"""Seconds without a turn after which a loop hangs. Longer than the longest call to the API server
(30) or to a cloud (90), so that whoever merely waits for an answer is left alone."""

Beat = Callable[[], None]
"""Called by a loop at each turn."""

Loop = Callable[[Beat], Awaitable[None]]


@dataclass(slots=True)
class _Pulse:
    name: str
    within: float
    last: float


@dataclass(frozen=True, slots=True)
class Turn:
    """A loop, and how long ago it turned last."""

    name: str
    ago: float
    """Seconds."""
    within: float
    """Seconds that are allowed."""

    @property
    def stuck(self) -> bool:
        return self.ago > self.within


class Vitals:
    """The pulses of one replica's loops, and what it still waits for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pulses: dict[int, _Pulse] = {}
        self._numbers = count()
        self._lacks: set[str] = set()
        self._complete = asyncio.Event()

    # -- alive --------------------------------------------------------------------------------

    @contextmanager
    def pulse(self, name: str, within: float = STUCK_AFTER) -> Iterator[Beat]:
        """While inside, `name` is a loop, and has to turn at least every so many seconds."""
        number, pulse = next(self._numbers), _Pulse(name, within, self._clock.monotonic())
        self._pulses[number] = pulse

        def beat() -> None:
            pulse.last = self._clock.monotonic()

        try:
            yield beat
        finally:
            del self._pulses[number]

    async def watch(self, name: str, loop: Loop, within: float = STUCK_AFTER) -> None:
        """Run a loop, with its pulse taken."""
        with self.pulse(name, within) as beat:
            await loop(beat)

    def turns(self) -> list[Turn]:
        """All loops, by name."""
        now = self._clock.monotonic()
        turns = [Turn(p.name, now - p.last, p.within) for p in list(self._pulses.values())]
        return sorted(turns, key=lambda turn: (turn.name, turn.ago))

    # -- ready --------------------------------------------------------------------------------

    def need(self, lack: str) -> None:
        """This replica is not ready, for this reason, until it `has` what it lacks."""
        self._lacks.add(lack)

    def has(self, lack: str) -> None:
        """It lacks this no more."""
        self._lacks.discard(lack)
        if not self._lacks:
            self._complete.set()

    def lacks(self) -> list[str]:
        """Why it is not ready; empty: it is."""
        return sorted(self._lacks)

    async def ready(self) -> None:
        """Until it lacked nothing for once."""
        await self._complete.wait()
