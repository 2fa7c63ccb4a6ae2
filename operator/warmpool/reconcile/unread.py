"""Objects that the API server has and that cannot be read: by a newer operator, or past a gap.

None of them may stop a replica, and none may be taken for gone: a claim that is would lose its VMs,
a WarmVM its server. What was read of one before stands; of one never read it is known that it is.
"""

import logging
from collections.abc import Iterable

from warmpool.api.names import Kind
from warmpool.domain.errors import Unreadable
from warmpool.ports.cluster import Body

log = logging.getLogger(__name__)


class Unread:
    """Which there are, by uid, each with the resourceVersion that could not be read."""

    def __init__(self) -> None:
        self._versions: dict[Kind, dict[str, int]] = {}

    def __contains__(self, uid: object) -> bool:
        return any(uid in versions for versions in self._versions.values())

    def add(self, kind: Kind, body: Body, error: Unreadable) -> None:
        """Note one, and tell of it once."""
        meta = body["metadata"]
        versions = self._versions.setdefault(kind, {})
        uid, version = meta["uid"], int(meta["resourceVersion"])
        if versions.get(uid) == version:
            return
        versions[uid] = version
        name = f"{meta.get('namespace')}/{meta['name']}"
        log.warning("%s %s cannot be read, and is left alone: %s", kind.value, name, error)

    def discard(self, kind: Kind, body: Body) -> None:
        """It can be read again, or is gone."""
        if versions := self._versions.get(kind):
            versions.pop(body["metadata"]["uid"], None)

    def miss(self, kind: Kind, bodies: Iterable[Body], version: int) -> None:
        """Forget those that a LIST of that version does not show."""
        if versions := self._versions.get(kind):
            there = {body["metadata"]["uid"] for body in bodies}
            self._versions[kind] = {u: v for u, v in versions.items() if u in there or v > version}
