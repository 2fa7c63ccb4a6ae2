"""What calls that came late have left behind goes, and nothing else does."""

from datetime import timedelta

import pytest

from builders import a_pool, a_pool_body
from lab import HERE, SECRET, SPACE, Lab
from warmpool.api.names import Kind
from warmpool.domain.actions import CreateVm
from warmpool.domain.ids import Ref
from warmpool.ports.cluster import Body
from warmpool.reconcile import pools
from warmpool.reconcile.execute import new_vm
from warmpool.reconcile.orphans import CONDEMN_AFTER, LOOK_EVERY
from warmpool.reconcile.sweeper import CONDEMN_AFTER as SWEEP_AFTER
from warmpool.reconcile.sweeper import SWEEP_EVERY
from warmpool.sim.faults import DeleteFault

pytestmark = pytest.mark.looptime

LATE = Ref(SPACE, "gone-x7k2p")
ENDED = CONDEMN_AFTER + 2 * LOOK_EVERY
"""Seconds by which a WarmVM is gone whose pool is."""


def late(**spec: object) -> Body:
    """A WarmVM of a pool that was there when it was asked for."""
    body = new_vm(a_pool(Ref(SPACE, "gone")), LATE, CreateVm(zone="", hypervisor=""))
    return body | {"spec": body["spec"] | spec}  # type: ignore[operator]


async def test_a_warmvm_that_is_written_when_its_pool_is_gone_goes_too() -> None:
    """It would keep its namespace from ever going."""
    async with Lab() as lab:
        pool = lab.pool(replicas=2)
        await lab.until(lambda: lab.is_even(pool, 2))
        lab.cluster.put(Kind.WARM_VM, late())
        await lab.always(lambda: LATE in lab.cluster.peek(Kind.WARM_VM), CONDEMN_AFTER - LOOK_EVERY)
        await lab.until(lambda: LATE not in lab.cluster.peek(Kind.WARM_VM), ENDED)
        assert lab.is_even(pool, 2)


async def test_one_that_has_a_server_is_left_for_people_to_look_at() -> None:
    async with Lab() as lab:
        lab.cluster.put(Kind.WARM_VM, late(providerID="openstack:///RegionOne/some"))
        await lab.always(lambda: LATE in lab.cluster.peek(Kind.WARM_VM), 2 * ENDED)


async def test_one_whose_pool_the_watch_has_missed_is_no_orphan() -> None:
    """The API server is asked before anything is deleted."""
    async with Lab() as lab:
        lab.cluster.put(Kind.WARM_POOL, a_pool_body(Ref(SPACE, "gone"), replicas=0, paused=True))
        await lab.until(lambda: lab.store.pool(Ref(SPACE, "gone")))
        pool = lab.cluster.peek(Kind.WARM_POOL)[Ref(SPACE, "gone")]
        lab.store.apply(Kind.WARM_POOL, pool, deleted=True)
        lab.cluster.put(Kind.WARM_VM, late())
        await lab.always(lambda: LATE in lab.cluster.peek(Kind.WARM_VM), 2 * ENDED)


async def test_a_leaked_server_is_deleted_until_nova_has_none() -> None:
    """Nova may answer 204 and do nothing, and more than once."""
    async with Lab() as lab:
        pool = lab.pool(replicas=1)
        await lab.until(lambda: lab.is_even(pool, 1))
        await lab.stray(HERE)
        lab.arm(DeleteFault(effect="ignored", count=2))
        await lab.until(lambda: len(lab.servers()) == 1, SWEEP_AFTER + 5 * SWEEP_EVERY)
        assert lab.is_even(pool, 1)


async def test_a_secret_that_is_missing_is_asked_for_now_and_then() -> None:
    """However often something wakes the pool: it may have thousands of VMs."""
    async with Lab() as lab:
        text = lab.cluster.secrets.pop(SECRET)
        asked = 0
        secret = lab.cluster.secret

        async def count(ref: Ref) -> object:
            nonlocal asked
            asked += 1
            return await secret(ref)

        lab.cluster.secret = count  # type: ignore[assignment,method-assign]
        pool = lab.pool(replicas=1)
        for replicas in range(2, 62):
            await lab.change(pool, replicas=replicas)
            await lab.always(lambda: True, 1)
        assert asked <= 15
        lab.cluster.secrets[SECRET] = text
        await lab.change(pool, replicas=2)
        await lab.until(lambda: lab.is_even(pool, 2), within=20)


async def test_a_server_that_is_deleted_while_the_secret_is_gone_is_missed_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A VM that was looked at meanwhile was not seen; a large pool's round takes minutes."""
    monkeypatch.setattr(pools, "RELOOK", timedelta(hours=1))
    async with Lab() as lab:
        pool = lab.pool(replicas=2)
        await lab.until(lambda: lab.is_even(pool, 2))
        text = lab.cluster.secrets.pop(SECRET)
        await lab.always(lambda: len(lab.free()) == 2, 40)
        lab.nova.delete(lab.servers()[0], admin=True)
        await lab.always(lambda: len(lab.free()) == 2, 15)
        lab.cluster.secrets[SECRET] = text
        await lab.until(lambda: lab.is_even(pool, 2) and len(lab.servers()) == 2, within=60)
