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
    """Which there are, by uid, each with the newest resourceVersion that could not be read."""

    def __init__(self) -> None:
        self._versions: dict[str, tuple[Kind, int]] = {}

    def __contains__(self, uid: object) -> bool:
        return uid in self._versions

    def __len__(self) -> int:
        return len(self._versions)

    def add(self, kind: Kind, body: Body, error: Unreadable) -> None:
        """Note one, and tell of it once."""
        meta = body["metadata"]
        uid, version = meta["uid"], int(meta["resourceVersion"])
        if self._version(uid) >= version:
            return
        self._versions[uid] = kind, version
        name = f"{meta.get('namespace')}/{meta['name']}"
        log.warning("%s %s cannot be read, and is left alone: %s", kind.value, name, error)

    def read(self, body: Body) -> None:
        """This version can be read: if none that cannot is newer, all is known again."""
        meta = body["metadata"]
        if self._version(meta["uid"]) <= int(meta["resourceVersion"]):
            self.gone(meta["uid"])

    def gone(self, uid: str) -> None:
        """There is no such object any more."""
        self._versions.pop(uid, None)

    def missed(self, kind: Kind, bodies: Iterable[Body], version: int) -> list[str]:
        """Those that a LIST of that version does not show."""
        there = {body["metadata"]["uid"] for body in bodies}
        held = self._versions.items()
        return [u for u, (k, v) in held if k is kind and v <= version and u not in there]

    def _version(self, uid: str) -> int:
        return self._versions.get(uid, (None, 0))[1]
