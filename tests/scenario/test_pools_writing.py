"""The API server does not take the WarmVM that a pool wants to write."""

import asyncio

import pytest

from lab import Lab
from warmpool.api.names import Kind
from warmpool.domain.errors import (
    ClusterError,
    ClusterOutcomeUnknown,
    ClusterUnavailable,
    Conflict,
    Forbidden,
    Invalid,
)
from warmpool.domain.ids import Ref
from warmpool.ports.cluster import Body

pytestmark = pytest.mark.looptime


class Refusal:
    """Every creation of a WarmVM fails, until it is over."""

    def __init__(self, lab: Lab, error: ClusterError) -> None:
        self.asked = 0
        self.over = False
        create = lab.cluster.create

        async def refuse(kind: Kind, body: Body) -> Body:
            if kind is not Kind.WARM_VM or self.over:
                return await create(kind, body)
            self.asked += 1
            raise error

        lab.cluster.create = refuse  # type: ignore[method-assign]


@pytest.mark.parametrize("error", [ClusterUnavailable("503: down"), Conflict("409: name taken")])
async def test_what_did_not_happen_is_tried_again_and_blames_nobody(error: ClusterError) -> None:
    """Some seconds without an API server say nothing about a pool's spec, and hold no build."""
    async with Lab() as lab:
        refusal = Refusal(lab, error)
        pool = lab.pool(replicas=3)
        await lab.until(lambda: refusal.asked >= 9)
        assert lab.condition(pool, "CapacityAvailable") == ("True", "CapacityOk")
        assert "lastFailure" not in lab.status(pool)
        refusal.over = True
        took = await lab.until(lambda: lab.is_even(pool, 3))
        assert took < 5


@pytest.mark.parametrize("error", [Invalid("422: too long"), Forbidden("403: exceeded quota")])
async def test_what_is_refused_is_told_and_asked_for_ever_more_seldom(error: ClusterError) -> None:
    async with Lab() as lab:
        refusal = Refusal(lab, error)
        pool = lab.pool(replicas=3)
        await lab.until(
            lambda: lab.condition(pool, "CapacityAvailable") == ("False", "InvalidSpec")
        )
        await lab.always(lambda: refusal.asked <= 30, 60)
        refusal.over = True
        await lab.until(lambda: lab.is_even(pool, 3))


async def test_a_vm_whose_creation_had_no_answer_counts_until_that_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its answer was lost, so was the question whether it is there: another came in its stead."""
    async with Lab() as lab:
        create, get = lab.cluster.create, lab.cluster.get
        cut: list[float] = []

        def is_cut() -> bool:
            return bool(cut) and asyncio.get_running_loop().time() < cut[0]

        async def creates(kind: Kind, body: Body) -> Body:
            if is_cut():
                raise ClusterUnavailable("refused")
            made = await create(kind, body)
            if kind is Kind.WARM_VM and not cut:
                feed.paused = True
                cut.append(asyncio.get_running_loop().time() + 2)
                raise ClusterOutcomeUnknown("reset")
            return made

        async def gets(kind: Kind, ref: Ref) -> Body:
            if is_cut():
                raise ClusterUnavailable("refused")
            return await get(kind, ref)

        monkeypatch.setattr(lab.cluster, "create", creates)
        monkeypatch.setattr(lab.cluster, "get", gets)
        feed = lab.feed
        pool = lab.pool(replicas=1, maxSize=1)
        for _ in range(50):
            await asyncio.sleep(0.1)
            assert len(list(lab.vms())) <= 1
        feed.resume()
        await lab.until(lambda: lab.is_even(pool, 1))
