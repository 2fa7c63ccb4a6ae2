"""What every `ports.catalogue.Catalogue` owes its callers, held against each store of entries."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any, Protocol

import pytest

from warmpool.api.names import Reason
from warmpool.domain.catalogue import Allowed, Entry, ImageQuery, NoEntry
from warmpool.effects.mongo import MongoCatalogue, MongoShelf, open_client
from warmpool.planning.catalogue import checked
from warmpool.ports.catalogue import Catalogue
from warmpool.reconcile.flavors import Flavors

SPEC: dict[str, Any] = {"flavor": "m1.large", "image": {"name": "debian-13"}}
WHOLE: dict[str, Any] = {
    "flavor": "m1.large",
    "image": {"newest": {"properties": {"b": "2", "a": "1"}, "tags": ["y", "x"]}},
    "metadata": {"tier": "gold"},
    "projects": [{"project": "search", "domain": "Default", "roles": ["member"]}],
}
MALFORMED = [
    pytest.param({**SPEC, "flavor": 7}, "spec.flavor", id="type"),
    pytest.param({"flavor": "m1.large"}, "spec.image", id="missing"),
    pytest.param({**SPEC, "metadata": {"s3cret": 7}}, "spec.metadata", id="value"),
]


class Ground(Protocol):
    """One store, and whoever writes there."""

    catalogue: Catalogue

    async def put(self, name: str, spec: dict[str, Any]) -> None:
        """Write an entry, as it is; it has been seen then."""

    async def remove(self, name: str) -> None:
        """Delete an entry; that has been seen then."""


class FlavorGround:
    """VMFlavors, as a watch tells of them."""

    def __init__(self) -> None:
        self.catalogue: Flavors = Flavors()
        self._bodies: dict[str, dict[str, Any]] = {}
        self._version = 0

    async def put(self, name: str, spec: dict[str, Any]) -> None:
        meta = {"name": name, "uid": f"uid-{name}", "generation": self._version}
        self._bodies[name] = {"metadata": meta, "spec": spec}
        self._tell(name)

    async def remove(self, name: str) -> None:
        self._tell(name, deleted=True)

    def _tell(self, name: str, *, deleted: bool = False) -> None:
        self._version += 1
        self._bodies[name]["metadata"]["resourceVersion"] = str(self._version)
        self.catalogue.apply(self._bodies[name], deleted=deleted)


class MongoGround:
    """Documents in MongoDB."""

    def __init__(self, shelf: MongoShelf) -> None:
        self.shelf = shelf
        self.catalogue: MongoCatalogue = MongoCatalogue(shelf, checked)

    async def put(self, name: str, spec: dict[str, Any]) -> None:
        await self.shelf.put(name, spec)
        await self.catalogue.poll()

    async def remove(self, name: str) -> None:
        await self.shelf.remove(name)
        await self.catalogue.poll()


@pytest.fixture(params=["vmflavors", pytest.param("mongodb", marks=pytest.mark.integration)])
async def ground(request: pytest.FixtureRequest) -> AsyncIterator[Ground]:
    if request.param == "vmflavors":
        yield FlavorGround()
        return
    client = open_client(request.getfixturevalue("mongodb_uri"))
    collection = f"catalogue-{uuid.uuid4().hex}"
    mongo = MongoGround(MongoShelf(client, "warmpool-test", collection))
    await mongo.shelf.prepare()
    await mongo.catalogue.poll()
    yield mongo
    await client["warmpool-test"].drop_collection(collection)
    await client.close()


def entry(ground: Ground, name: str = "g2") -> Entry:
    found = ground.catalogue.find(name).entry
    assert isinstance(found, Entry), found
    return found


def no_entry(ground: Ground, name: str = "g2") -> Reason:
    found = ground.catalogue.find(name).entry
    assert isinstance(found, NoEntry), found
    assert repr(name) in found.message
    return found.reason


async def test_an_entry_says_what_was_written(ground: Ground) -> None:
    await ground.put("g2", WHOLE)
    assert entry(ground) == Entry(
        "g2",
        "m1.large",
        ImageQuery((("a", "1"), ("b", "2")), ("x", "y")),
        (("tier", "gold"),),
        (Allowed("", "search", "Default", frozenset({"member"})),),
    )
    assert ground.catalogue.find("g2").stale is None


async def test_a_name_that_nobody_has_given_means_nothing(ground: Ground) -> None:
    await ground.put("g2", SPEC)
    assert no_entry(ground, "g3") is Reason.ENTRY_NOT_FOUND


async def test_what_is_written_anew_and_deleted_is_followed_and_told(ground: Ground) -> None:
    told: list[str] = []
    await ground.put("other", SPEC)
    unlisten = ground.catalogue.listen(told.append)
    await ground.put("g2", SPEC)
    await ground.put("g2", {**SPEC, "flavor": "m1.huge"})
    assert entry(ground).flavor == "m1.huge"
    await ground.remove("g2")
    assert no_entry(ground) is Reason.ENTRY_NOT_FOUND
    await ground.put("g2", SPEC)
    assert entry(ground).flavor == "m1.large"
    assert told == ["g2"] * 4
    unlisten()
    await ground.remove("g2")
    assert told == ["g2"] * 4


@pytest.mark.parametrize(("spec", "says"), MALFORMED)
async def test_a_malformed_entry_leaves_the_last_good_one_and_is_told_by_name(
    ground: Ground, spec: dict[str, Any], says: str
) -> None:
    told: list[str] = []
    await ground.put("g2", WHOLE)
    before = entry(ground)
    ground.catalogue.listen(told.append)
    await ground.put("g2", spec)
    found = ground.catalogue.find("g2")
    assert found.entry == before
    assert found.stale is not None
    assert found.stale.reason is Reason.ENTRY_MALFORMED
    assert "'g2'" in found.stale.message
    assert says in found.stale.message
    await ground.put("g2", SPEC)
    assert (entry(ground).flavor, ground.catalogue.find("g2").stale) == ("m1.large", None)
    assert told == ["g2", "g2"]


@pytest.mark.parametrize(("spec", "says"), MALFORMED)
async def test_what_was_never_good_is_no_entry_and_says_why(
    ground: Ground, spec: dict[str, Any], says: str
) -> None:
    await ground.put("g2", spec)
    await ground.put("g3", SPEC)
    found = ground.catalogue.find("g2").entry
    assert isinstance(found, NoEntry)
    assert found.reason is Reason.ENTRY_MALFORMED
    assert says in found.message
    assert entry(ground, "g3").flavor == "m1.large"
    await ground.remove("g2")
    assert no_entry(ground) is Reason.ENTRY_NOT_FOUND


async def test_both_mean_the_same_by_the_same_spec(ground: Ground) -> None:
    flavors = FlavorGround()
    for one in (ground, flavors):
        await one.put("g2", WHOLE)
    assert entry(ground) == entry(flavors)


async def test_entries_are_many(ground: Ground) -> None:
    for first in range(0, 60, 20):
        names = [f"e-{n}" for n in range(first, first + 20)]
        await asyncio.gather(*(ground.put(name, {**SPEC, "flavor": name}) for name in names))
    await ground.put("last", SPEC)
    assert [entry(ground, f"e-{n}").flavor for n in range(60)] == [f"e-{n}" for n in range(60)]
