"""Pools of catalogue entries: they follow what the entry comes to, within their budgets."""

import uuid
from typing import Any

import pytest

from lab import Lab
from warmpool.api.names import TAG_OWNER, Kind
from warmpool.domain.ids import Ref
from warmpool.sim.spec import ImageSpec

pytestmark = pytest.mark.looptime

RESOLVED = "DependenciesResolved"
BY_REF = {"flavorRef": {"name": "g2"}}
NEWEST = {"newest": {"properties": {"os_distro": "debian"}, "tags": ["stable"]}}


def entry(image: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return {"flavor": "m1.micro", "image": image or {"name": "debian-13"}} | fields


def images(lab: Lab) -> set[str]:
    """Names of the images that the pool's servers were built from."""
    known = lab.nova.world.images
    return {known[s.image_id].name for s in lab.servers()}


def flavor_status(lab: Lab, name: str = "g2") -> Any:
    return lab.cluster.peek(Kind.VM_FLAVOR)[Ref("", name)].get("status", {})


async def test_a_pool_of_an_entry_is_filled_and_both_say_what_it_came_to() -> None:
    async with Lab() as lab:
        lab.flavor("g2", **entry(metadata={"tier": "gold"}))
        pool = lab.pool(replicas=3, template=BY_REF)
        await lab.until(lambda: lab.is_even(pool, 3))
        assert images(lab) == {"debian-13"}
        assert {s.metadata["tier"] for s in lab.servers()} == {"gold"}
        resolved = lab.status(pool)["resolved"]
        assert resolved["name"] == "g2"
        await lab.until(lambda: flavor_status(lab).get("state") == "Resolved")
        [row] = flavor_status(lab)["resolved"]
        assert (row["pool"], row["imageID"]) == ("search/data", resolved["imageID"])
        assert row["projectID"] == lab.nova.project().id


async def test_a_changed_entry_rolls_out_a_few_at_a_time() -> None:
    async with Lab() as lab:
        lab.flavor("g2", **entry())
        pool = lab.pool(
            replicas=5,
            template=BY_REF,
            updateStrategy={"maxUnavailable": 1, "type": "RollingUpdate"},
        )
        await lab.until(lambda: lab.is_even(pool, 5))
        lab.flavor("g2", **entry({"name": "debian-12"}))

        def rolled() -> bool:
            assert len(lab.free()) >= 4
            return images(lab) == {"debian-12"} and lab.is_even(pool, 5)

        await lab.until(rolled, within=120)
        assert lab.posts() == 10


async def test_an_entry_that_says_the_same_in_other_words_replaces_nothing() -> None:
    async with Lab() as lab:
        lab.flavor("g2", **entry())
        pool = lab.pool(replicas=3, template=BY_REF)
        await lab.until(lambda: lab.is_even(pool, 3))
        lab.flavor(
            "g2",
            **entry(NEWEST, projects=[{"project": lab.nova.project().name, "domain": "Default"}]),
        )
        lab.flavor("other", **entry())
        await lab.always(lambda: lab.posts() == 3, 30)
        await lab.change(pool, template={"flavorRef": {"name": "other"}})
        await lab.always(lambda: lab.posts() == 3, 30)
        assert lab.status(pool)["resolved"]["name"] == "other"
        await lab.until(lambda: flavor_status(lab)["state"] == "NotUsed", within=60)


async def test_a_newer_image_rolls_out_by_itself() -> None:
    async with Lab() as lab:
        lab.flavor("g2", **entry(NEWEST))
        pool = lab.pool(replicas=3, template=BY_REF)
        await lab.until(lambda: lab.is_even(pool, 3))
        lab.nova.world.images[str(uuid.uuid4())] = ImageSpec(
            name="debian-13.1", properties={"os_distro": "debian"}, tags=["stable"], created=9999
        )
        await lab.until(lambda: images(lab) == {"debian-13.1"}, within=400)
        await lab.until(lambda: lab.is_even(pool, 3))


async def test_an_entry_that_is_not_there_is_waited_for() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=2, template=BY_REF)
        await lab.until(lambda: lab.condition(pool, RESOLVED) == ("False", "EntryNotFound"))
        lab.flavor("g2", **entry())
        assert await lab.until(lambda: lab.is_even(pool, 2)) < 10
        assert lab.condition(pool, RESOLVED)[0] == "True"


async def test_an_entry_that_goes_stops_builds_and_takes_nothing_away() -> None:
    async with Lab() as lab:
        lab.flavor("g2", **entry())
        pool = lab.pool(replicas=3, template=BY_REF)
        await lab.until(lambda: lab.is_even(pool, 3))
        lab.delete(Kind.VM_FLAVOR, Ref("", "g2"))
        await lab.until(lambda: lab.condition(pool, RESOLVED) == ("False", "EntryNotFound"))
        claim = lab.claim(count=1)
        await lab.until(lambda: lab.bound(claim))
        await lab.always(lambda: lab.posts() == 3, 30)
        lab.flavor("g2", **entry())
        await lab.until(lambda: lab.is_even(pool, 3) or len(lab.free()) == 3)
        assert lab.posts() == 4


async def test_an_image_that_is_not_there_is_told_by_pool_and_entry() -> None:
    async with Lab() as lab:
        lab.flavor("g2", **entry())
        pool = lab.pool(replicas=3, template=BY_REF)
        await lab.until(lambda: lab.is_even(pool, 3))
        lab.flavor("g2", **entry({"name": "plan9"}))
        await lab.until(lambda: lab.condition(pool, RESOLVED) == ("False", "ImageNotFound"))
        await lab.until(lambda: flavor_status(lab)["state"] == "Unresolved")
        await lab.always(lambda: lab.posts() == 3 and len(lab.free()) == 3, 60)


async def test_a_project_that_may_not_use_an_entry_is_refused() -> None:
    async with Lab() as lab:
        lab.flavor("g2", **entry(projects=[{"projectID": "other"}]))
        pool = lab.pool(replicas=2, template=BY_REF)
        await lab.until(lambda: lab.condition(pool, RESOLVED) == ("False", "ProjectNotPermitted"))
        assert lab.posts() == 0
        own = {"projectID": lab.nova.project().id, "roles": ["member"]}
        lab.flavor("g2", **entry(projects=[{"projectID": "other"}, own]))
        await lab.until(lambda: lab.is_even(pool, 2))


async def test_a_permission_that_is_taken_back_stops_builds_and_takes_nothing_away() -> None:
    async with Lab() as lab:
        lab.flavor("g2", **entry())
        pool = lab.pool(replicas=3, template=BY_REF)
        await lab.until(lambda: lab.is_even(pool, 3))
        lab.flavor("g2", **entry(projects=[{"projectID": "other"}]))
        await lab.until(lambda: lab.condition(pool, RESOLVED) == ("False", "ProjectNotPermitted"))
        await lab.always(lambda: lab.posts() == 3 and len(lab.free()) == 3, 60)


async def test_a_new_leader_builds_nothing_anew() -> None:
    async with Lab() as lab:
        lab.flavor("g2", **entry(NEWEST))
        pool = lab.pool(replicas=4, template=BY_REF)
        await lab.until(lambda: lab.is_even(pool, 4))
        before = lab.status(pool)["revision"], lab.status(pool)["resolved"]
        await lab.until(lambda: flavor_status(lab).get("state") == "Resolved")
        said = flavor_status(lab)
        await lab.restart()
        await lab.always(lambda: lab.posts() == 4 and len(lab.free()) == 4, 60)
        assert (lab.status(pool)["revision"], lab.status(pool)["resolved"]) == before
        assert flavor_status(lab) == said


async def test_builds_under_way_of_an_older_meaning_are_given_up() -> None:
    async with Lab(build=30.0) as lab:
        lab.flavor("g2", **entry())
        pool = lab.pool(replicas=2, template=BY_REF)
        await lab.until(lambda: len(lab.servers()) == 2)
        lab.flavor("g2", **entry({"name": "debian-12"}))
        await lab.until(lambda: lab.is_even(pool, 2) and images(lab) == {"debian-12"}, within=300)
        owners = [tag for s in lab.servers() for tag in s.all_tags if tag.startswith(TAG_OWNER)]
        assert len(owners) == 2


async def test_a_pool_without_its_secret_keeps_no_entry_from_telling_of_the_others() -> None:
    async with Lab() as lab:
        lab.flavor("g2", **entry())
        lab.pool("lost", replicas=1, template=BY_REF, cloudRef={"secretName": "no", "cloud": "lab"})
        pool = lab.pool(replicas=2, template=BY_REF)
        await lab.until(lambda: lab.is_even(pool, 2))
        await lab.until(lambda: flavor_status(lab).get("state") == "Unresolved")
        rows = {row["pool"]: row for row in flavor_status(lab)["resolved"]}
        assert rows["search/data"]["imageID"]
        assert "Secret" in rows["search/lost"]["message"]


BY_NAME = {"flavor": "m1.micro", "image": "debian-13", "metadata": {"tier": "gold"}}


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(entry(metadata={"tier": "gold"}), id="same-words"),
        pytest.param(entry(NEWEST, metadata={"tier": "gold"}), id="other-words"),
    ],
)
async def test_a_pool_is_moved_from_names_to_an_entry_that_means_the_same(
    written: dict[str, Any],
) -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=3, template=BY_NAME)
        await lab.until(lambda: lab.is_even(pool, 3))
        before = lab.status(pool)["revision"]
        lab.flavor("g2", **written)
        await lab.change(pool, template=BY_REF)
        await lab.until(lambda: lab.status(pool).get("resolved"))
        await lab.always(lambda: lab.posts() == 3 and len(lab.free()) == 3, 30)
        await lab.restart()
        await lab.always(lambda: lab.posts() == 3 and len(lab.free()) == 3, 30)
        assert lab.status(pool)["revision"] == before
        lab.flavor("g2", **entry({"name": "debian-12"}, metadata={"tier": "gold"}))
        await lab.until(lambda: images(lab) == {"debian-12"}, within=120)
        assert lab.status(pool)["revision"] != before


async def test_a_pool_is_moved_from_names_to_an_entry_while_nobody_leads() -> None:
    async with Lab() as lab:
        lab.flavor("g2", **entry(metadata={"tier": "gold"}))
        pool = lab.pool(replicas=3, template=BY_NAME)
        await lab.until(lambda: lab.is_even(pool, 3))
        await lab.stop()
        await lab.change(pool, template=BY_REF)
        lab.start()
        await lab.until(lambda: lab.status(pool).get("resolved"))
        await lab.always(lambda: lab.posts() == 3 and len(lab.free()) == 3, 30)
