"""Pools keep what they have: losses, leaks, lies, releases, shrinking and the end."""

import asyncio
from collections import Counter

import pytest

from lab import SECRET, SPACE, Lab
from warmpool.api.names import TAG_INSTALLATION, TAG_OWNER, Kind, Phase
from warmpool.domain.actions import CreateVm
from warmpool.domain.errors import ClusterUnavailable
from warmpool.domain.facts import Vm
from warmpool.domain.ids import Ref, ServerId
from warmpool.domain.pools import VmView
from warmpool.ports.cluster import Body
from warmpool.reconcile.execute import new_vm
from warmpool.reconcile.pools import PoolWorker
from warmpool.reconcile.reading import provider_id, read_pool
from warmpool.reconcile.session import CloudSession
from warmpool.sim.faults import ApiFault, DeleteFault, ListFault, OutageFault

pytestmark = pytest.mark.looptime

BOOT = Ref(SECRET.namespace, "boot")
"""A Secret with user data."""


def pools(lab: Lab) -> dict[Ref, object]:
    return dict(lab.cluster.peek(Kind.WARM_POOL))


def is_going(vm: Body) -> bool:
    return "deletionTimestamp" in vm["metadata"]


async def filled(lab: Lab, **spec: object) -> Ref:
    pool = lab.pool(**spec)
    await lab.until(lambda: lab.is_even(pool, int(str(spec["replicas"]))))
    return pool


# --- losses ---------------------------------------------------------------------------------


async def test_a_server_that_is_deleted_behind_our_back_is_replaced() -> None:
    async with Lab() as lab:
        pool = await filled(lab, replicas=3)
        victim = lab.servers()[0]
        lab.nova.wipe(victim)
        assert await lab.until(lambda: len(lab.free()) < 3, within=75) < 75
        await lab.until(lambda: lab.is_even(pool, 3))
        assert victim.name not in {s.name for s in lab.servers()}


async def test_a_claimed_server_that_is_deleted_is_not_replaced_and_the_claim_hears_of_it() -> None:
    async with Lab() as lab:
        pool = await filled(lab, replicas=1)
        claim = lab.claim()
        await lab.until(lambda: lab.bound(claim))
        await lab.until(lambda: lab.status(pool)["claimed"] == 1)
        (mine,) = (vm for _, vm in lab.vms() if "claimRef" in vm["spec"])
        lab.nova.wipe(lab.server_of(mine))

        def heard() -> bool:
            status = lab.cluster.peek(Kind.VM_CLAIM)[claim]["status"]
            return bool(status["allocation"]["vms"][0].get("lost"))

        await lab.until(heard, within=75)
        lab.delete(Kind.VM_CLAIM, claim)
        await lab.until(lambda: lab.is_even(pool, 1))


async def test_a_vm_that_moved_to_another_host_has_its_place_rewritten() -> None:
    async with Lab() as lab:
        await filled(lab, replicas=1)
        (vm,) = lab.free()
        (server,) = lab.servers()
        other = next(h for h in lab.nova.world.hosts if h[:2] != server.host[:2])
        lab.nova.move(server, other)

        def place() -> tuple[str, str, str]:
            (now,) = lab.free()
            status, labels = now["status"], now["metadata"]["labels"]
            return status["rack"], status["hypervisor"], labels["warmpool.dev/rack"]

        await lab.until(lambda: place() == (other[:2], other, other[:2]), within=75)
        assert lab.free()[0]["metadata"]["uid"] == vm["metadata"]["uid"]


async def test_an_unknown_host_is_a_vm_without_a_rack_and_told_so() -> None:
    async with Lab() as lab:
        for host in lab.nova.world.hosts.values():
            host.spec = host.spec.model_copy(update={"rack": ""})
        pool = lab.pool(replicas=2)
        await lab.until(lambda: lab.status(pool).get("ready") == 2)
        assert {vm["status"]["rack"] for vm in lab.free()} == {""}
        assert lab.status(pool)["claimable"]["distinctRacks"] == 0
        assert lab.status(pool)["claimable"]["distinctHypervisors"] > 0


# --- leaks ----------------------------------------------------------------------------------


async def test_a_leaked_server_of_ours_is_deleted_after_two_sightings_a_minute_apart() -> None:
    async with Lab() as lab:
        pool = await filled(lab, replicas=1)
        leaked = await lab.stray("here")
        began = asyncio.get_running_loop().time()
        await lab.until(lambda: leaked not in lab.servers(), within=240)
        assert asyncio.get_running_loop().time() - began > 60
        assert lab.is_even(pool, 1)


async def test_a_second_server_of_one_vm_is_swept_and_the_first_kept() -> None:
    async with Lab() as lab:
        pool = await filled(lab, replicas=1)
        (vm,) = lab.free()
        first = lab.servers()[0]
        await lab.stray("here", owner=vm["metadata"]["uid"])
        await lab.until(lambda: lab.is_even(pool, 1), within=240)
        assert lab.servers() == [first]


async def test_a_server_of_another_installation_is_never_touched() -> None:
    async with Lab() as lab:
        await filled(lab, replicas=1)
        other = await lab.stray("elsewhere")
        await asyncio.sleep(600)
        assert other in lab.servers()


# --- wrong answers --------------------------------------------------------------------------


@pytest.mark.parametrize("effect", ["half", "empty", "cut"])
async def test_a_listing_that_lacks_servers_condemns_none_of_them(effect: str) -> None:
    async with Lab() as lab:
        pool = await filled(lab, replicas=6)
        before = {vm["metadata"]["uid"] for vm in lab.free()}
        over = lab.arm(ListFault(effect=effect))
        await lab.always(lambda: len(lab.free()) == 6, 200)
        over()
        await asyncio.sleep(90)
        assert {vm["metadata"]["uid"] for vm in lab.free()} == before
        assert lab.is_even(pool, 6)
        assert lab.posts() == 6


async def test_a_listing_that_lacks_builds_starts_no_second_one() -> None:
    async with Lab(build=150.0) as lab:
        pool = lab.pool(replicas=4)
        await lab.until(lambda: len(lab.servers()) == 4)
        lab.arm(ListFault(effect="empty", seconds=120))
        await lab.until(lambda: lab.is_even(pool, 4), within=240)
        assert lab.posts() == 4


async def test_a_listing_that_lacks_a_server_that_was_just_posted_starts_no_second_one() -> None:
    """No WarmVM names its server that early, and a search by tag is a listing as well."""
    async with Lab(build=20.0) as lab:
        pool = await filled(lab, replicas=1)
        await asyncio.sleep(61 - asyncio.get_running_loop().time() % 60 - 3)
        lab.arm(ListFault(effect="empty", seconds=10))
        await lab.change(pool, replicas=4)
        await lab.until(lambda: lab.is_even(pool, 4), within=240)
        assert lab.posts() == 4


async def test_a_listing_that_fails_condemns_nothing() -> None:
    async with Lab() as lab:
        pool = await filled(lab, replicas=3)
        lab.arm(ApiFault(effect="status", status=500, path="/servers", seconds=200))
        await lab.always(lambda: len(lab.free()) == 3, 220)
        assert lab.posts() == 3
        await lab.until(lambda: lab.condition(pool, "DependenciesResolved")[0] == "True")


async def test_refused_credentials_freeze_the_pool_until_they_are_right_again() -> None:
    async with Lab() as lab:
        pool = await filled(lab, replicas=2)
        over = lab.arm(OutageFault(effect="credentials"))
        await lab.change(pool, replicas=4)
        await lab.until(
            lambda: lab.condition(pool, "DependenciesResolved") == ("False", "CredentialsRefused")
        )
        await lab.always(lambda: len(lab.free()) == 2, 120)
        over()
        assert await lab.until(lambda: lab.is_even(pool, 4)) < 60


async def test_a_missing_secret_is_named_and_found_when_it_is_there() -> None:
    async with Lab() as lab:
        secret = lab.cluster.secrets.pop(SECRET)
        pool = lab.pool(replicas=1)
        await lab.until(
            lambda: lab.condition(pool, "DependenciesResolved") == ("False", "SecretNotFound")
        )
        lab.cluster.secrets[SECRET] = secret
        assert await lab.until(lambda: lab.is_even(pool, 1)) < 20


@pytest.mark.parametrize("closed", [SECRET, BOOT], ids=["clouds.yaml", "user data"])
async def test_a_secret_that_may_not_be_read_is_named_and_read_once_it_may(closed: Ref) -> None:
    """Of one with user data each pass of the pool ended in the log, and nothing told why."""
    async with Lab() as lab:
        lab.cluster.secrets[BOOT] = {"script": b"#!/bin/sh\n"}
        lab.cluster.closed.add(closed)
        where = {"name": BOOT.name, "key": "script"}
        template = {"flavor": "m1.micro", "image": "debian-13", "userDataSecretRef": where}
        pool = lab.pool(replicas=1, template=template)
        await lab.until(
            lambda: lab.condition(pool, "DependenciesResolved") == ("False", "SecretUnreadable")
        )
        lab.cluster.closed.clear()
        assert await lab.until(lambda: lab.is_even(pool, 1)) < 60


async def test_new_credentials_are_taken_up() -> None:
    async with Lab() as lab:
        pool = await filled(lab, replicas=1)
        over = lab.arm(OutageFault(effect="credentials"))
        await lab.until(
            lambda: lab.condition(pool, "DependenciesResolved") == ("False", "CredentialsRefused"),
            within=90,
        )
        over()
        lab.cluster.secrets[SECRET] = {"clouds.yaml": b"clouds: {lab: {}}"}
        await lab.change(pool, replicas=2)
        assert await lab.until(lambda: lab.is_even(pool, 2)) < 60


# --- going ----------------------------------------------------------------------------------


async def test_a_claim_that_ends_has_its_vms_deleted_and_the_pool_is_full_again() -> None:
    async with Lab() as lab:
        pool = await filled(lab, replicas=2)
        claim = lab.claim(count=2)
        await lab.until(lambda: lab.bound(claim))
        used = {vm["metadata"]["uid"] for _, vm in lab.vms() if "claimRef" in vm["spec"]}
        lab.delete(Kind.VM_CLAIM, claim)
        await lab.until(lambda: lab.is_even(pool, 2))
        assert not used & {vm["metadata"]["uid"] for vm in lab.free()}


async def test_a_recycled_vm_is_rebuilt_in_its_place_before_it_is_ready_again() -> None:
    async with Lab() as lab:
        pool = await filled(lab, replicas=1, reclaimPolicy="Recycle", maxSize=1)
        (before,) = lab.free()
        claim = lab.claim()
        await lab.until(lambda: lab.bound(claim))
        lab.delete(Kind.VM_CLAIM, claim)
        await lab.until(lambda: lab.is_even(pool, 1))
        (now,) = lab.free()
        assert now["spec"]["providerID"] == before["spec"]["providerID"]
        assert not now["spec"]["dirty"]
        assert lab.nova.traffic.calls["POST /compute/v2.1/servers/{id}/action"] == 1


async def test_a_recycled_vm_that_cannot_be_rebuilt_is_replaced() -> None:
    async with Lab() as lab:
        pool = await filled(lab, replicas=1, reclaimPolicy="Recycle", maxSize=1)
        claim = lab.claim()
        await lab.until(lambda: lab.bound(claim))
        (server,) = lab.servers()
        lab.nova.wipe(server)
        lab.delete(Kind.VM_CLAIM, claim)
        await lab.until(lambda: lab.is_even(pool, 1), within=120)
        assert lab.servers() != [server]


async def test_a_retained_vm_stays_outside_the_account_until_it_is_deleted() -> None:
    async with Lab() as lab:
        pool = await filled(lab, replicas=1, reclaimPolicy="Retain", maxSize=1)
        claim = lab.claim()
        await lab.until(lambda: lab.bound(claim))
        lab.delete(Kind.VM_CLAIM, claim)
        await lab.until(lambda: lab.status(pool)["retained"] == 1 and len(lab.free()) == 1)
        await asyncio.sleep(60)
        assert len(lab.servers()) == 2
        (kept,) = (ref for ref, vm in lab.vms() if vm["spec"].get("retained"))
        lab.delete(Kind.WARM_VM, kept)
        await lab.until(lambda: lab.is_even(pool, 1))


async def test_shrinking_takes_from_the_most_crowded_rack_and_no_more_than_it_should() -> None:
    async with Lab() as lab:
        pool = await filled(lab, replicas=8)
        servers = lab.servers()
        for n, server in enumerate(servers):
            lab.nova.move(server, "r1-h1" if n < 5 else f"r{n - 3}-h1")
        racks = lambda: Counter(vm["status"]["rack"] for vm in lab.free())  # noqa: E731
        await lab.until(lambda: racks() == Counter(r1=5, r2=1, r3=1, r4=1), within=90)
        await lab.change(pool, replicas=4)
        await lab.until(lambda: lab.is_even(pool, 4))
        assert racks() == Counter(r1=1, r2=1, r3=1, r4=1)
        assert lab.posts() == 8


async def test_a_large_pool_shrinks_to_exactly_its_replicas() -> None:
    """More deletes than run side by side: those that wait count as gone."""
    async with Lab() as lab:
        pool = await filled(lab, replicas=150, maxConcurrent=200)
        await lab.change(pool, replicas=20)
        await lab.until(lambda: lab.is_even(pool, 20))
        assert lab.posts() == 150


@pytest.mark.parametrize("whole", [False, True], ids=["shrinks", "is deleted"])
async def test_vms_that_wait_for_their_ends_are_not_looked_at_again_and_again(
    monkeypatch: pytest.MonkeyPatch, *, whole: bool
) -> None:
    """Whatever wakes their pool: of a large one there are thousands."""
    looks = 0
    view = PoolWorker._view

    def counted(worker: PoolWorker, vm: Vm, session: CloudSession | None) -> VmView:
        nonlocal looks
        looks += 1
        return view(worker, vm, session)

    monkeypatch.setattr(PoolWorker, "_view", counted)
    async with Lab() as lab:
        pool = await filled(lab, replicas=150, maxConcurrent=200)
        hang = lab.arm(DeleteFault(effect="hang"))
        if whole:
            lab.delete(Kind.WARM_POOL, pool)
        else:
            await lab.change(pool, replicas=10)
        going = 150 if whole else 140
        await lab.until(lambda: sum(is_going(vm) for _, vm in lab.vms()) == going)
        looks = 0
        for n in range(100):
            note = [{"op": "add", "path": "/metadata/annotations", "value": {"note": str(n)}}]
            await lab.cluster.patch(Kind.WARM_POOL, pool, note)
            await lab.always(lambda: True, 0.1)
        assert looks <= 10 * going, "a look whenever one's delete is tried again, not at each note"
        hang()


async def test_a_pool_that_is_deleted_waits_for_its_claims_and_for_nova_to_say_404() -> None:
    async with Lab() as lab:
        pool = await filled(lab, replicas=3)
        claim = lab.claim()
        await lab.until(lambda: lab.bound(claim))
        await lab.until(lambda: lab.is_even(pool, 3) or len(lab.free()) == 3)
        lab.delete(Kind.WARM_POOL, pool)
        await lab.until(lambda: len(lab.servers()) == 1)
        await lab.until(lambda: lab.condition(pool, "Progressing") == ("True", "WaitingForClaims"))
        await lab.always(lambda: pools(lab), 120)
        hang = lab.arm(DeleteFault(effect="hang"))
        lab.delete(Kind.VM_CLAIM, claim)
        await lab.always(lambda: pools(lab) and list(lab.vms()), 60)
        hang()
        for server in lab.servers():
            lab.nova.wipe(server)
        await lab.until(lambda: not pools(lab))
        assert not list(lab.vms())
        assert not lab.servers()


async def test_a_delete_that_is_accepted_and_forgotten_is_asked_for_again() -> None:
    async with Lab() as lab:
        pool = await filled(lab, replicas=2)
        lab.arm(DeleteFault(effect="ignored", count=3))
        await lab.change(pool, replicas=1)
        await lab.until(lambda: lab.is_even(pool, 1))


async def test_a_locked_server_stops_neither_builds_nor_the_other_deletes() -> None:
    async with Lab() as lab:
        pool = await filled(lab, replicas=2)
        locked = lab.servers()[0]
        lab.nova.act(locked, "lock", {}, admin=True)
        for ref, _ in list(lab.vms()):
            lab.delete(Kind.WARM_VM, ref)
        await lab.until(lambda: lab.status(pool)["ready"] == 2, within=20)
        assert lab.condition(pool, "CapacityAvailable") == ("True", "CapacityOk")
        lab.nova.act(locked, "unlock", {}, admin=True)
        await lab.until(lambda: lab.is_even(pool, 2))


async def test_a_vm_that_a_user_deletes_is_deleted_with_its_server_and_replaced() -> None:
    async with Lab() as lab:
        pool = await filled(lab, replicas=2)
        (victim, _), *_ = lab.vms()
        lab.delete(Kind.WARM_VM, victim)
        await lab.until(lambda: victim not in dict(lab.vms()) and lab.is_even(pool, 2))
        assert lab.posts() == 3


async def test_two_pools_share_a_cloud_and_stay_apart() -> None:
    async with Lab() as lab:
        one, other = lab.pool("data", replicas=2), lab.pool("master", replicas=3)
        ready = lambda p: lab.status(p).get("ready")  # noqa: E731
        await lab.until(lambda: (ready(one), ready(other)) == (2, 3))
        lab.delete(Kind.WARM_POOL, other)
        await lab.until(lambda: other not in pools(lab))
        assert len(lab.servers()) == 2
        assert {vm["metadata"]["labels"]["warmpool.dev/pool"] for vm in lab.free()} == {"data"}
        assert {ref.namespace for ref, _ in lab.vms()} == {SPACE}
        assert {vm["status"]["phase"] for vm in lab.free()} == {Phase.READY.value}


async def test_an_api_server_that_takes_no_deletes_is_not_hammered_with_them() -> None:
    """A plan chose the same surplus build again in the pass right after the failure."""
    async with Lab(build=120.0) as lab:
        pool = lab.pool(replicas=2)
        await lab.until(lambda: len(lab.servers()) == 2)
        works, asked = lab.cluster.delete, []

        async def refuses(_kind: Kind, ref: Ref, *, uid: str, version: int) -> None:
            await asyncio.sleep(0.001)
            asked.append((ref, uid, version))
            raise ClusterUnavailable("503")

        lab.cluster.delete = refuses  # type: ignore[method-assign]
        await lab.change(pool, replicas=1)
        await asyncio.sleep(30)
        assert 5 < len(asked) < 60
        lab.cluster.delete = works  # type: ignore[method-assign]
        await lab.until(lambda: any(s.task == "deleting" for s in lab.servers()), within=6)


# --- adopted --------------------------------------------------------------------------------


async def test_an_adopted_server_is_ready_when_it_has_passed_its_checks_however_old() -> None:
    """With its WarmVM written and its mark not yet, as when an adoption is cut short."""
    async with Lab() as lab:
        old = await lab.stray("nobody-yet")
        lab.nova.set_tags(old, ())
        await asyncio.sleep(60)
        template = {"flavor": "m1.micro", "image": "debian-13", "networks": []}
        pool = lab.pool(replicas=1, template=template, health={"launchTimeout": "30s"})
        body = read_pool(lab.cluster.peek(Kind.WARM_POOL)[pool])
        ref, server = Ref(pool.namespace, "data-old"), provider_id("RegionOne", ServerId(old.id))
        made = lab.cluster.put(Kind.WARM_VM, new_vm(body, ref, CreateVm(""), server))
        await lab.until(lambda: [vm for vm in lab.free() if vm["metadata"]["name"] == "data-old"])
        lab.nova.set_tags(old, [f"{TAG_INSTALLATION}here", f"{TAG_OWNER}{made['metadata']['uid']}"])
        await asyncio.sleep(1000)
        assert lab.is_even(pool, 1)
        assert lab.servers() == [old]
