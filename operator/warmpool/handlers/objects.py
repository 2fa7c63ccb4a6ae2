"""What the watch streams show goes into the store.

Only `on.event`: kopf then writes nothing to any object, so every replica may run all of it.
"""

from functools import partial
from typing import Any

import kopf

from warmpool.api.names import GROUP, VERSION, Kind
from warmpool.handlers.intake import Post
from warmpool.reconcile.store import Store

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
        body: Any = event["object"]
        post(partial(store.apply_namespace, body, deleted=event["type"] == "DELETED"))


def _register_kind(registry: kopf.OperatorRegistry, store: Store, kind: Kind, post: Post) -> None:
    @kopf.on.event(GROUP, VERSION, kind.plural, id=f"{kind.plural}-seen", registry=registry)
    async def seen(event: kopf.RawEvent, **_: Any) -> None:
        body: Any = event["object"]
        post(partial(store.apply, kind, body, deleted=event["type"] == "DELETED"))
