"""Credentials that are revoked, swapped or not enough: what stops, what goes on, what is told."""

import asyncio

import pytest

from lab import SPACE, Lab
from warmpool.api.names import ClaimCondition, Kind, Phase
from warmpool.domain.ids import Ref
from warmpool.sim.faults import ApiFault

pytestmark = pytest.mark.looptime

RESOLVED, RACKS_KNOWN = "DependenciesResolved", "RacksKnown"
OTHER = Ref(SPACE, "other-cloud")
REFUSED = ("False", "CredentialsRefused")


def message(lab: Lab, pool: Ref, kind: str) -> str:
    told = next(c for c in lab.status(pool)["conditions"] if c["type"] == kind)
    return str(told["message"])


def is_full(lab: Lab, pool: Ref, replicas: int) -> bool:
    status = lab.status(pool)
    return status.get("ready") == status.get("replicas") == replicas


def names(lab: Lab, pool: Ref) -> set[str]:
    """Of the pool's servers in Nova."""
    return {s.name for s in lab.servers() if s.name.startswith(f"{pool.name}-")}


def is_annotated(lab: Lab, claim: Ref) -> bool:
    """The servers of the claim carry its metadata."""
    conditions = lab.claim_status(claim)["conditions"]
    return any(c["type"] == ClaimCondition.METADATA_WRITTEN for c in conditions)


async def test_a_revoked_credential_freezes_its_pool_and_nothing_else() -> None:
    async with Lab() as lab:
        lab.credentials(lab="one")
        lab.credentials(OTHER, lab="two")
        data = lab.pool(replicas=3)
        logs = lab.pool("logs", replicas=2, cloudRef={"secretName": OTHER.name, "cloud": "lab"})
        await lab.until(lambda: is_full(lab, data, 3) and is_full(lab, logs, 2))
        before = names(lab, data)

        lab.revoked.add("one")
        await lab.until(lambda: lab.condition(data, RESOLVED) == REFUSED)
        assert "correct the credentials in clouds.yaml" in message(lab, data, RESOLVED)
        assert lab.condition(logs, RESOLVED)[0] == "True"
        await lab.change(data, replicas=1)
        await lab.change(logs, replicas=4)
        asked = lab.nova.traffic.calls["GET /compute/v2.1/servers/detail"]
        await lab.until(lambda: is_full(lab, logs, 4))
        claim = lab.claim(count=2)
        assert await lab.until(lambda: lab.bound(claim)) < 2
        await lab.always(lambda: names(lab, data) == before, 120)
        assert lab.status(data)["ready"] == 1
        assert lab.nova.traffic.calls["GET /compute/v2.1/servers/detail"] - asked < 130

        lab.credentials(lab="three")
        await lab.change(data, replicas=2)
        assert await lab.until(lambda: is_full(lab, data, 2)) < 60
        assert lab.condition(data, RESOLVED)[0] == "True"
        assert before < names(lab, data)


async def test_what_is_built_while_credentials_are_revoked_is_not_held_against_it() -> None:
    """Its time was over, and it was given up on what Nova had said long ago."""
    async with Lab(build=20.0) as lab:
        lab.credentials(lab="one")
        pool = lab.pool(replicas=2, health={"launchTimeout": "30s"})
        await lab.until(lambda: len(lab.servers()) == 2)
        await asyncio.sleep(5)
        lab.revoked.add("one")
        await asyncio.sleep(120)
        assert len(lab.servers()) == len(list(lab.vms())) == 2
        lab.credentials(lab="two")
        assert await lab.until(lambda: lab.is_even(pool, 2)) < 60
        assert lab.posts() == 2


async def test_a_pool_that_goes_while_they_are_revoked_goes_after_that() -> None:
    async with Lab() as lab:
        lab.credentials(lab="one")
        pool = lab.pool(replicas=2)
        await lab.until(lambda: lab.is_even(pool, 2))
        lab.revoked.add("one")
        await lab.until(lambda: lab.condition(pool, RESOLVED) == REFUSED)
        lab.delete(Kind.WARM_POOL, pool)
        await lab.always(lambda: len(lab.servers()) == 2, 60)
        lab.credentials(lab="two")
        await lab.until(lambda: not lab.servers() and not list(lab.vms()), within=60)


async def test_claims_metadata_waits_for_credentials_that_are_taken() -> None:
    """Each attempt was a login that is refused, every few seconds for each claim."""
    async with Lab() as lab:
        lab.credentials(lab="one")
        pool = lab.pool(replicas=4)
        await lab.until(lambda: lab.is_even(pool, 4))
        lab.revoked.add("one")
        await lab.until(lambda: lab.condition(pool, RESOLVED) == REFUSED)
        claims = [lab.claim(name, metadata={"cluster": name}) for name in ("a", "b", "c", "d")]
        logins = lab.nova.traffic.calls.total()
        await lab.until(lambda: all(map(lab.bound, claims)))
        await asyncio.sleep(120)
        assert lab.nova.traffic.calls.total() - logins < 25, "the listings alone"
        lab.credentials(lab="two")
        for claim in claims:
            await lab.until(lambda claim=claim: is_annotated(lab, claim), within=60)


async def test_credentials_that_never_were_any_are_the_secret_s_fault() -> None:
    """Their first look-up is refused before any listing is."""
    async with Lab() as lab:
        lab.credentials(lab="one")
        lab.revoked.add("one")
        pool = lab.pool(replicas=1)
        await lab.until(lambda: lab.condition(pool, RESOLVED) == REFUSED)
        told = message(lab, pool, RESOLVED)
        assert told.startswith("spec.cloudRef.")
        assert "correct the credentials in clouds.yaml" in told


async def test_a_look_up_that_is_forbidden_stops_builds_and_nothing_else() -> None:
    """It froze the pool, as though the cloud took the credentials for nothing: none ever went."""
    async with Lab() as lab:
        pool = lab.pool(replicas=3)
        await lab.until(lambda: lab.is_even(pool, 3))
        lab.arm(ApiFault(effect="status", status=403, path="/flavors$"))
        await lab.change(pool, replicas=2)
        await lab.until(lambda: lab.condition(pool, RESOLVED) == REFUSED)
        assert message(lab, pool, RESOLVED).startswith("spec.template: ")
        await lab.until(lambda: len(lab.servers()) == 2, within=60)
        await lab.change(pool, replicas=3)
        await lab.always(lambda: lab.posts() == 3, 30)
        lab.delete(Kind.WARM_POOL, pool)
        await lab.until(lambda: not lab.servers() and not list(lab.vms()), within=60)
        await lab.until(lambda: pool not in lab.cluster.peek(Kind.WARM_POOL), within=60)


async def test_credentials_of_another_project_are_held_against_the_entry_at_once() -> None:
    """Until the next look at the template, up to five minutes later, it went on to build."""
    async with Lab() as lab:
        lab.credentials(lab="ours")
        lab.projects["theirs"] = "other"
        own = [{"projectID": lab.nova.project().id}]
        lab.flavor("g2", flavor="m1.micro", image={"name": "debian-13"}, projects=own)
        pool = lab.pool(replicas=2, template={"flavorRef": {"name": "g2"}})
        await lab.until(lambda: lab.is_even(pool, 2))
        lab.credentials(lab="theirs")
        await lab.until(lambda: lab.condition(pool, RESOLVED)[1] == "ProjectNotPermitted", 45)
        await lab.change(pool, replicas=3)
        await lab.always(lambda: lab.posts() == 2 and len(lab.free()) == 2, 30)
        lab.credentials(lab="ours")
        assert await lab.until(lambda: lab.is_even(pool, 3)) < 60


async def test_an_inventory_whose_credentials_are_revoked_is_told_and_in_nobody_s_way() -> None:
    async with Lab(admin=False) as lab:
        lab.credentials(lab="one", lab_admin="two")
        lab.racks("clouds: {lab: {inventory: lab-admin}}")
        pool = lab.pool(replicas=8)
        await lab.until(lambda: lab.is_even(pool, 8))
        assert lab.condition(pool, RACKS_KNOWN)[0] == "True"
        lab.revoked.add("two")
        told = ("False", "InventoryUnavailable")
        await lab.until(lambda: lab.condition(pool, RACKS_KNOWN) == told, within=120)
        assert "401" in message(lab, pool, RACKS_KNOWN)
        claim = lab.claim(count=3, mode="RackAware")
        await lab.until(lambda: lab.bound(claim) and lab.is_even(pool, 8))
        assert {vm["status"]["phase"] for _, vm in lab.vms()} == {Phase.READY}
        assert "" not in {vm["status"]["rack"] for _, vm in lab.vms()}
        assert lab.condition(pool, RESOLVED)[0] == "True"
        lab.credentials(lab="one", lab_admin="three")
        await lab.until(lambda: lab.condition(pool, RACKS_KNOWN)[0] == "True", within=60)
