"""Whose a server is stands on it soon, also after a burst: until then it is not protected."""

import asyncio

import pytest

from lab import Lab
from warmpool.domain.marks import read_marks
from warmpool.sim.faults import ApiFault

pytestmark = pytest.mark.looptime

BURST = 120


def marked(lab: Lab) -> int:
    return sum(read_marks(server.metadata).claim is not None for server in lab.servers())


async def test_a_burst_is_marked_within_seconds_by_a_cloud_that_takes_its_time() -> None:
    """One at a time, each took Nova's answer and a pause: twenty seconds of this test."""
    async with Lab() as lab:
        pool = lab.pool(replicas=BURST, maxConcurrent=BURST)
        await lab.until(lambda: lab.is_even(pool, BURST))
        lab.arm(ApiFault(effect="slow", method="POST", path="/metadata", delay=(0.1, 0.1)))
        claims = [lab.claim(f"c-{number}", 4) for number in range(BURST // 4)]
        await lab.until(lambda: all(map(lab.bound, claims)))
        assert marked(lab) < BURST
        await asyncio.sleep(5)
        assert marked(lab) == BURST
