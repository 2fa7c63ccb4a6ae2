"""Pools whose catalogue cannot say what an entry means: they go on with what it came to last."""

from typing import Any

import pytest

from doubles.catalogue import Shelf
from lab import Lab
from warmpool.api.names import Kind, Reason
from warmpool.domain.catalogue import Allowed, Entry, ImageQuery, NoEntry
from warmpool.domain.ids import Ref
from warmpool.sim.cloud import SimCloud

pytestmark = pytest.mark.looptime

RESOLVED = "DependenciesResolved"
BY_REF: dict[str, Any] = {"flavorRef": {"name": "g2"}}
MALFORMED = NoEntry(Reason.ENTRY_MALFORMED, "document 'g2': spec.flavor: it is missing")
NEWEST = ImageQuery((("os_distro", "debian"),), ("stable",))


def g2(**fields: Any) -> Entry:
    known: dict[str, Any] = {"flavor": "m1.micro", "image": "debian-13"}
    return Entry("g2", **(known | fields))


@pytest.fixture
def shelf() -> Shelf:
    return Shelf(g2(metadata=(("tier", "gold"),)))


@pytest.mark.parametrize(
    "why",
    [
        pytest.param(NoEntry(Reason.CATALOGUE_UNAVAILABLE, "away"), id="away"),
        pytest.param(MALFORMED, id="malformed"),
    ],
)
@pytest.mark.parametrize("restarted", [False, True])
async def test_a_pool_goes_on_from_what_its_entry_came_to_says_so_and_recovers(
    shelf: Shelf, why: NoEntry, restarted: bool
) -> None:
    async with Lab(catalogue=shelf) as lab:
        pool = lab.pool(replicas=3, template=BY_REF)
        await lab.until(lambda: lab.is_even(pool, 3))
        before = lab.status(pool)["revision"], lab.status(pool)["resolved"]
        shelf.goes(why, forgets=restarted)
        if restarted:
            await lab.restart()
        await lab.until(lambda: lab.condition(pool, RESOLVED) == ("True", why.reason.value))
        await lab.change(pool, replicas=5)
        await lab.until(lambda: lab.is_even(pool, 5))
        assert {s.metadata["tier"] for s in lab.servers()} == {"gold"}
        assert (lab.status(pool)["revision"], lab.status(pool)["resolved"]) == before
        shelf.comes_back()
        await lab.until(lambda: lab.condition(pool, RESOLVED) == ("True", "Resolved"))
        await lab.always(lambda: lab.posts() == 5, 30)
        assert (lab.status(pool)["revision"], lab.status(pool)["resolved"]) == before


async def test_what_was_never_looked_up_is_waited_for(shelf: Shelf) -> None:
    async with Lab(catalogue=shelf) as lab:
        shelf.goes(forgets=True)
        pool = lab.pool(replicas=2, template=BY_REF)
        await lab.until(lambda: lab.condition(pool, RESOLVED) == ("False", "CatalogueUnavailable"))
        assert lab.posts() == 0
        shelf.comes_back()
        await lab.until(lambda: lab.is_even(pool, 2))


async def test_another_entry_than_the_last_is_waited_for(shelf: Shelf) -> None:
    async with Lab(catalogue=shelf) as lab:
        pool = lab.pool(replicas=2, template=BY_REF)
        await lab.until(lambda: lab.is_even(pool, 2))
        shelf.goes(forgets=True)
        await lab.change(pool, template={"flavorRef": {"name": "g3"}}, replicas=4)
        await lab.until(lambda: lab.condition(pool, RESOLVED) == ("False", "CatalogueUnavailable"))
        await lab.always(lambda: lab.posts() == 2, 30)


def told(lab: Lab, pool: Ref) -> str:
    conditions = lab.status(pool)["conditions"]
    return str(next(c["message"] for c in conditions if c["type"] == RESOLVED))


def taken_back(shelf: Shelf, how: str) -> tuple[str, str]:
    if how == "deleted":
        shelf.remove("g2")
        return "False", "EntryNotFound"
    shelf.put(g2(projects=(Allowed("other"),)))
    return "False", "ProjectNotPermitted"


@pytest.mark.parametrize("how", ["deleted", "not-permitted"])
async def test_what_was_taken_back_is_not_remembered(shelf: Shelf, how: str) -> None:
    """A catalogue that goes away must not give back what it had refused."""
    async with Lab(catalogue=shelf) as lab:
        pool = lab.pool(replicas=2, template=BY_REF)
        await lab.until(lambda: lab.is_even(pool, 2))
        refused = taken_back(shelf, how)
        await lab.until(lambda: lab.condition(pool, RESOLVED) == refused)
        shelf.goes(forgets=True)
        for again in (False, True):
            if again:
                await lab.restart()
            await lab.change(pool, replicas=4)
            await lab.until(
                lambda: lab.condition(pool, RESOLVED) == ("False", "CatalogueUnavailable")
            )
            await lab.always(lambda: lab.posts() == 2, 20)


async def test_what_is_remembered_is_for_the_project_that_was_permitted(shelf: Shelf) -> None:
    async with Lab(catalogue=shelf) as lab:
        pool = lab.pool(replicas=2, template=BY_REF)
        await lab.until(lambda: lab.is_even(pool, 2))
        assert lab.status(pool)["resolved"]["projectID"] == lab.nova.project().id
        shelf.goes(forgets=True)
        resolved = {"op": "replace", "path": "/status/resolved/projectID", "value": "p-other"}
        await lab.cluster.patch(Kind.WARM_POOL, pool, [resolved], status=True)
        await lab.restart()
        await lab.until(lambda: lab.condition(pool, RESOLVED) == ("False", "ProjectNotPermitted"))


async def test_what_is_remembered_is_for_the_roles_that_were_permitted(shelf: Shelf) -> None:
    async with Lab(catalogue=shelf) as lab:
        shelf.put(
            g2(projects=(Allowed(project_id=lab.nova.project().id, roles=frozenset({"member"})),))
        )
        pool = lab.pool(replicas=2, template=BY_REF)
        await lab.until(lambda: lab.is_even(pool, 2))
        assert lab.status(pool)["resolved"]["roles"] == ["member"]
        shelf.goes(forgets=True)
        resolved = {"op": "replace", "path": "/status/resolved/roles", "value": ["owner"]}
        await lab.cluster.patch(Kind.WARM_POOL, pool, [resolved], status=True)
        await lab.restart()
        await lab.until(lambda: lab.condition(pool, RESOLVED) == ("False", "ProjectNotPermitted"))


async def test_wrong_credentials_in_an_outage_do_not_take_what_is_remembered(shelf: Shelf) -> None:
    """Nobody withdrew anything: the catalogue was not there to do so."""
    async with Lab(catalogue=shelf) as lab:
        lab.credentials(lab="ours")
        lab.projects["theirs"] = "other"
        pool = lab.pool(replicas=2, template=BY_REF)
        await lab.until(lambda: lab.is_even(pool, 2))
        before = lab.status(pool)["resolved"]
        shelf.goes(forgets=True)
        lab.credentials(lab="theirs")
        await lab.restart()
        await lab.until(lambda: lab.condition(pool, RESOLVED) == ("False", "ProjectNotPermitted"))
        assert lab.status(pool)["resolved"] == before
        lab.credentials(lab="ours")
        await lab.restart()
        await lab.until(lambda: lab.condition(pool, RESOLVED) == ("True", "CatalogueUnavailable"))
        await lab.change(pool, replicas=3)
        await lab.until(lambda: lab.is_even(pool, 3))


async def test_a_catalogue_that_comes_and_goes_has_nothing_looked_up_again(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pools at once would ask Nova and Glance, at each change of what is wrong."""
    async with Lab(catalogue=shelf) as lab:
        pool = lab.pool(replicas=2, template=BY_REF)
        await lab.until(lambda: lab.is_even(pool, 2))
        looked: list[str] = []
        resolve = SimCloud.resolve

        async def counted(self: SimCloud, *args: Any) -> Any:
            looked.append("again")
            return await resolve(self, *args)

        monkeypatch.setattr(SimCloud, "resolve", counted)
        for text in ("away", "lost", "refused"):
            shelf.goes(NoEntry(Reason.CATALOGUE_UNAVAILABLE, text))
            await lab.until(lambda text=text: text in told(lab, pool))
            shelf.comes_back()
            await lab.until(lambda: lab.condition(pool, RESOLVED) == ("True", "Resolved"))
        assert looked == []


async def test_a_pool_is_flipped_from_one_store_to_the_other_without_replacing_a_vm() -> None:
    async with Lab() as lab:
        lab.flavor(
            "g2",
            flavor="m1.micro",
            image={"newest": {"properties": {"os_distro": "debian"}, "tags": ["stable"]}},
            metadata={"tier": "gold"},
        )
        pool = lab.pool(replicas=3, template=BY_REF)
        await lab.until(lambda: lab.is_even(pool, 3))
        before = lab.status(pool)["revision"], lab.status(pool)["resolved"]
        lab.catalogue = Shelf(g2(image=NEWEST, metadata=(("tier", "gold"),)))
        await lab.restart()
        lab.delete(Kind.VM_FLAVOR, Ref("", "g2"))
        await lab.always(lambda: lab.posts() == 3 and len(lab.free()) == 3, 60)
        lab.flavor("g2", flavor="m1.micro", image={"name": "debian-13"}, metadata={"tier": "gold"})
        lab.catalogue = None
        await lab.restart()
        await lab.always(lambda: lab.posts() == 3 and len(lab.free()) == 3, 60)
        assert (lab.status(pool)["revision"], lab.status(pool)["resolved"]) == before
