"""What the watch streams show goes into the store.

Only `on.event`: kopf then writes nothing to any object, so every replica may run all of it.
"""

import logging
from typing import Any

import kopf
from pydantic import ValidationError

from warmpool.api.names import GROUP, VERSION, Kind
from warmpool.handlers.hosting import Post
from warmpool.reconcile.store import Store

log = logging.getLogger(__name__)

WATCHED = (Kind.VM_FLAVOR, Kind.WARM_POOL, Kind.VM_CLAIM, Kind.WARM_VM)


RESOURCES = (*(kind.plural for kind in WATCHED), "namespaces")
"""All that is watched, as it stands in URLs."""


def register(registry: kopf.OperatorRegistry, store: Store, post: Post) -> None:
    """Feed a store from the watch streams.

    Args:
        registry: of kopf's handlers.
        store: what is fed.
        post: has a function called in the loop that the store belongs to.
    """
    for kind in WATCHED:
        _register_kind(registry, store, kind, post)

    @kopf.on.event("", "v1", "namespaces", id="namespaces-seen", registry=registry)
    async def seen(event: kopf.RawEvent, **_: Any) -> None:
        meta: Any = event["object"]["metadata"]
        gone = event["type"] == "DELETED"
        post(store.apply_namespace, meta["name"], None if gone else meta.get("labels", {}))


def _register_kind(registry: kopf.OperatorRegistry, store: Store, kind: Kind, post: Post) -> None:
    @kopf.on.event(GROUP, VERSION, kind.plural, id=f"{kind.plural}-seen", registry=registry)
    async def seen(event: kopf.RawEvent, **_: Any) -> None:
        post(take_in, store, kind, event)


def take_in(store: Store, kind: Kind, event: kopf.RawEvent) -> None:
    """One event of a watch stream. An object that cannot be read is told and left out."""
    body: Any = event["object"]
    try:
        store.apply(kind, body, deleted=event["type"] == "DELETED")
    except ValidationError as error:
        meta = body.get("metadata", {})
        name = f"{meta.get('namespace')}/{meta.get('name')}"
        log.warning("%s %s cannot be read: %s", kind.value, name, error.errors(include_input=False))
