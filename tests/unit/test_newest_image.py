"""The newest image of some: none that is older follows while the one in force is there."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import pytest

from warmpool.domain.catalogue import ImageQuery
from warmpool.domain.errors import DependencyMissing
from warmpool.effects.nova_calls import Call, Service
from warmpool.effects.nova_images import newest_image

QUERY = ImageQuery(tags=("stable",))


def image(ident: str, created: str, **fields: Any) -> dict[str, Any]:
    return {"id": ident, "created_at": created, "status": "active", "tags": ["stable"]} | fields


OLD, NEW = image("old", "2026-01-01T00:00:00Z"), image("new", "2026-06-01T00:00:00Z")


class Glance:
    """Images by id, and those that a list shows."""

    def __init__(self, there: list[Mapping[str, Any]], listed: list[Mapping[str, Any]]) -> None:
        self._there = {one["id"]: one for one in there}
        self._listed = listed

    async def body(self, call: Call) -> bytes | None:
        path = urlsplit(call.path).path
        if path == "/images":
            return json.dumps({"images": self._listed}).encode()
        found = self._there.get(path.removeprefix("/images/"))
        return json.dumps(found).encode() if found is not None else None

    async def has(self, service: Service) -> bool:
        return service is Service.IMAGE


async def newest(held: str, there: list[dict[str, Any]], listed: list[dict[str, Any]]) -> str:
    query = ImageQuery(tags=QUERY.tags, held=held)
    return await newest_image(query, "g2: image", Glance([*there], [*listed]))


@pytest.mark.parametrize("listed", [[OLD], []], ids=["older", "none"])
async def test_a_list_that_misses_the_one_in_force_is_not_believed(
    listed: list[dict[str, Any]],
) -> None:
    assert await newest("new", [OLD, NEW], listed) == "new"


@pytest.mark.parametrize(
    "there",
    [
        pytest.param([OLD], id="gone"),
        pytest.param([OLD, {**NEW, "tags": []}], id="untagged"),
        pytest.param([OLD, {**NEW, "status": "deactivated"}], id="deactivated"),
        pytest.param([OLD, {**NEW, "os_hidden": True}], id="hidden"),
    ],
)
async def test_one_in_force_that_is_gone_or_fits_no_more_is_followed_by_an_older_one(
    there: list[dict[str, Any]],
) -> None:
    assert await newest("new", there, [OLD]) == "old"


async def test_a_newer_one_follows() -> None:
    assert await newest("old", [OLD, NEW], [NEW, OLD]) == "new"


async def test_none_at_all_is_told() -> None:
    with pytest.raises(DependencyMissing, match="tag stable"):
        await newest("new", [], [])
