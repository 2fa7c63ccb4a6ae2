"""The newest image of some, by asking Glance. Knows no client library."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlencode

from warmpool.api.names import Reason
from warmpool.domain.catalogue import ImageQuery
from warmpool.domain.errors import DependencyMissing
from warmpool.effects.nova_calls import Call, Lookup, Service
from warmpool.effects.nova_reading import as_objects, whole_object

PAGE: Final = "100"
MAX_PAGES: Final = 50
"""Pages that are read at most. With the filters at work, the first image of the first is it."""


async def newest_image(query: ImageQuery, called: str, lookup: Lookup) -> str:
    """The id of the newest active image with these properties and tags.

    Raises:
        DependencyMissing: there is none.
    """
    listed = await _listed(query, lookup)
    if query.held and (listed is None or listed["id"] != query.held):
        held = await _one(query.held, lookup)
        if held is not None and fits(held, query):
            listed = held if listed is None else max(listed, held, key=_age)
    if listed is not None:
        return str(listed["id"])
    raise DependencyMissing(
        f"{called}: no active image has {described(query)}",
        reason=Reason.IMAGE_NOT_FOUND,
        field=called,
    )


async def _one(ident: str, lookup: Lookup) -> Mapping[str, object] | None:
    """An image by its id. None: it is gone."""
    path = f"/images/{quote(ident, safe='')}"
    body = await lookup.body(Call("get image", path, service=Service.IMAGE))
    return whole_object(body) if body is not None else None


async def _listed(query: ImageQuery, lookup: Lookup) -> Mapping[str, object] | None:
    """The newest that Glance lists.

    It sorts and filters, but a filter that it does not know it may ignore: what comes is held
    against the query again.
    """
    pairs = [
        *query.properties,
        *(("tag", tag) for tag in query.tags),
        ("status", "active"),
        ("sort", "created_at:desc,id:asc"),
        ("limit", PAGE),
    ]
    marker: str | None = None
    for _ in range(MAX_PAGES):
        more = [("marker", marker)] if marker is not None else []
        call = Call("list images", f"/images?{urlencode([*pairs, *more])}", service=Service.IMAGE)
        body = await lookup.body(call) or b""
        rows = as_objects(body, "images")
        found = max((r for r in rows if fits(r, query)), key=_age, default=None)
        if found is not None:
            return found
        marker = str(rows[-1].get("id")) if rows and whole_object(body).get("next") else None
        if marker is None:
            break
    return None


def fits(image: Mapping[str, object], query: ImageQuery) -> bool:
    """Whether an image has all that is asked of it, and may be built from."""
    tags = image.get("tags")
    return (
        image.get("status") == "active"
        and image.get("os_hidden") is not True
        and bool(image.get("id"))
        and all(str(image.get(key)) == value for key, value in query.properties)
        and set(query.tags) <= set(tags if isinstance(tags, list) else ())
    )


def _age(image: Mapping[str, object]) -> tuple[str, str]:
    """Newer is greater: Glance writes its times so that they sort as texts."""
    return str(image.get("created_at")), str(image.get("id"))


def described(query: ImageQuery) -> str:
    """The query in words."""
    properties = [f"{key}={value}" for key, value in query.properties]
    return ", ".join([*properties, *(f"tag {tag}" for tag in query.tags)])[:300]
