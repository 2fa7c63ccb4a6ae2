"""The catalogue as VMFlavor objects, kept current by the watch like everything in the store."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ValidationError

from warmpool.api.names import Reason
from warmpool.api.v1alpha1 import VMFlavor
from warmpool.domain.catalogue import Entry, Found, NoEntry
from warmpool.planning.catalogue import entry_of
from warmpool.ports.catalogue import Changed
from warmpool.ports.cluster import Body, Snapshot

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Held:
    """One VMFlavor."""

    flavor: VMFlavor
    entry: Entry
    version: int
    stale: NoEntry | None = None
    """Why a newer version is not in force. None: there is none."""


@dataclass(frozen=True, slots=True)
class _Malformed:
    """One of which there is no good version at all."""

    uid: str
    version: int
    why: NoEntry


class Flavors:
    """`ports.catalogue.Catalogue` over VMFlavor objects."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}
        self._malformed: dict[str, _Malformed] = {}
        self._gone: dict[str, int] = {}
        """The version in which one was deleted, until a list is newer."""
        self._floor = 0
        self.newest = 0
        """The highest resourceVersion that was seen."""
        self._listeners: list[Changed] = []

    def find(self, name: str) -> Found:
        held = self._held.get(name)
        if held is not None:
            return Found(held.entry, held.stale)
        if name in self._malformed:
            return Found(self._malformed[name].why)
        text = f"there is no VMFlavor {name!r}: create it, or name another in flavorRef"
        return Found(NoEntry(Reason.ENTRY_NOT_FOUND, text))

    def listen(self, changed: Changed) -> Callable[[], None]:
        self._listeners.append(changed)
        return lambda: self._listeners.remove(changed)

    def all(self) -> list[VMFlavor]:
        """Every VMFlavor, in its newest version that can be read."""
        return [held.flavor for held in self._held.values()]

    # -- feeding ------------------------------------------------------------------------------

    def apply(self, body: Body, *, deleted: bool = False) -> None:
        """Take in one object. One that cannot be read leaves the last good one in force.

        But not what was deleted before it: of that end we may hear later than of what came after.
        """
        meta = body["metadata"]
        name, version = meta["name"], int(meta["resourceVersion"])
        known = self._known(name)
        if version <= (known[1] if known is not None else self._gone.get(name, self._floor)):
            return
        self.newest = max(self.newest, version)
        if deleted:
            self._gone[name] = version
            self._forget(name)
            return
        if known is not None and known[0] != meta["uid"]:
            self._held.pop(name, None)
            self._malformed.pop(name, None)
        held = self._held.get(name)
        try:
            flavor = VMFlavor.model_validate(body)
        except ValidationError as error:
            self._doubt(name, meta["uid"], version, error)
            return
        self._malformed.pop(name, None)
        entry = entry_of(name, flavor.spec)
        self._held[name] = Held(flavor, entry, version)
        if held is None or (held.entry, held.stale) != (entry, None) or _is_touched(held, flavor):
            self._tell(name)

    def reconcile(self, snapshot: Snapshot) -> int:
        """Take in a LIST; the number of objects that had vanished without our hearing of it."""
        for body in snapshot.items:
            self.apply(body)
        seen = {body["metadata"]["name"] for body in snapshot.items}
        missing = [(name, self._known(name)) for name in {*self._held, *self._malformed} - seen]
        lost = [name for name, known in missing if known and known[1] <= snapshot.version]
        for name in lost:
            self._forget(name)
        self._floor = max(self._floor, snapshot.version)
        self._gone = {name: v for name, v in self._gone.items() if v > self._floor}
        return len(lost)

    def _known(self, name: str) -> tuple[str, int] | None:
        """Uid and version of the one that bears this name."""
        held, malformed = self._held.get(name), self._malformed.get(name)
        if held is not None:
            return held.flavor.metadata.uid, held.version
        return None if malformed is None else (malformed.uid, malformed.version)

    def _doubt(self, name: str, uid: str, version: int, error: ValidationError) -> None:
        first = error.errors(include_input=False, include_url=False)[0]
        why = f"VMFlavor {name!r}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        log.warning("%s", why)
        said = NoEntry(Reason.ENTRY_MALFORMED, why)
        held = self._held.get(name)
        if held is None:
            self._malformed[name] = _Malformed(uid, version, said)
        else:
            self._held[name] = Held(held.flavor, held.entry, version, said)
        self._tell(name)

    def _forget(self, name: str) -> None:
        held, malformed = self._held.pop(name, None), self._malformed.pop(name, None)
        if held is not None or malformed is not None:
            self._tell(name)

    def _tell(self, name: str) -> None:
        for listener in self._listeners:
            listener(name)


def _is_touched(held: Held, flavor: VMFlavor) -> bool:
    """Somebody wrote on it what does not change its meaning, or it is another of that name."""
    before, now = held.flavor.metadata, flavor.metadata
    return (before.uid, before.generation) != (now.uid, now.generation)
