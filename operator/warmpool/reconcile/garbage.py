"""Walks of Python's garbage collector, when no burst of claims waits for them.

Left to itself it walks each time so many objects more are alive, and so above all in a burst, where
next to nothing of what is new is garbage: a seventh of the operator's work was that.
"""

import asyncio
import gc
from typing import Final

from warmpool.ports.clock import Clock
from warmpool.reconcile.traffic import Traffic
from warmpool.reconcile.vitals import Beat

EVERY: Final = 0.3
"""Seconds between two walks over what is new. 100 claims/s leave 6,000 objects by then: 5 ms. The
more seldom, the more of them have gone by themselves."""

WORTH_IT: Final = 1000
"""New objects that are worth a walk."""

WITHIN: Final = 1.0
"""Seconds that a burst puts a walk off at most."""

FARTHER: Final = 10
"""Each so many-th walk is over what survived the others, too."""


async def collect(traffic: Traffic, clock: Clock, beat: Beat) -> None:
    """Walk until cancelled. Old objects are left to the collector's own rule."""
    turn = 0
    while True:
        beat()
        await asyncio.sleep(EVERY)
        await traffic.calm(clock.monotonic() + WITHIN)
        if gc.get_count()[0] < WORTH_IT:
            continue
        turn += 1
        gc.collect(0 if turn % FARTHER else 1)
