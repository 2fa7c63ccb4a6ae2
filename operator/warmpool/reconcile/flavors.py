"""The catalogue as VMFlavor objects, kept current by the watch like everything in the store."""

import asyncio
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
from warmpool.reconcile.vitals import TURN_EVERY, Beat

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Held:
    """One VMFlavor."""

    flavor: VMFlavor
    entry: Entry
    version: int
    stale: str = ""
    """Why a newer version is not in force. Empty: there is none."""


class Flavors:
    """`ports.catalogue.Catalogue` over VMFlavor objects."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}
        self._floor = 0
        self.newest = 0
        """The highest resourceVersion that was seen."""
        self._listeners: list[Changed] = []

    def find(self, name: str) -> Found:
        held = self._held.get(name)
        if held is None:
            text = f"there is no VMFlavor {name!r}: create it, or name another in flavorRef"
            return Found(NoEntry(Reason.ENTRY_NOT_FOUND, text))
        return Found(held.entry, held.stale)

    def listen(self, changed: Changed) -> Callable[[], None]:
        self._listeners.append(changed)
        return lambda: self._listeners.remove(changed)

    async def run(self, beat: Beat) -> None:
        """The watch does it all."""
        while True:
            beat()
            await asyncio.sleep(TURN_EVERY)

    def all(self) -> list[VMFlavor]:
        """Every VMFlavor, in its newest version that can be read."""
        return [held.flavor for held in self._held.values()]

    # -- feeding ------------------------------------------------------------------------------

    def apply(self, body: Body, *, deleted: bool = False) -> None:
        """Take in one object. One that cannot be read leaves the last good one in force."""
        name, version = body["metadata"]["name"], int(body["metadata"]["resourceVersion"])
        held = self._held.get(name)
        if version <= (held.version if held is not None else self._floor):
            return
        self.newest = max(self.newest, version)
        if deleted:
            self._forget(name)
            return
        try:
            flavor = VMFlavor.model_validate(body)
        except ValidationError as error:
            self._malformed(name, held, version, error)
            return
        entry = entry_of(name, flavor.spec)
        self._held[name] = Held(flavor, entry, version)
        if held is None or (held.entry, held.stale) != (entry, "") or _is_touched(held, flavor):
            self._tell(name)

    def reconcile(self, snapshot: Snapshot) -> int:
        """Take in a LIST; the number of objects that had vanished without our hearing of it."""
        for body in snapshot.items:
            self.apply(body)
        seen = {body["metadata"]["name"] for body in snapshot.items}
        lost = [
            name
            for name, held in self._held.items()
            if name not in seen and held.version <= snapshot.version
        ]
        for name in lost:
            self._forget(name)
        self._floor = max(self._floor, snapshot.version)
        return len(lost)

    def _malformed(
        self, name: str, held: Held | None, version: int, error: ValidationError
    ) -> None:
        first = error.errors(include_input=False, include_url=False)[0]
        why = f"VMFlavor {name!r}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        log.warning("%s", why)
        if held is not None:
            self._held[name] = Held(held.flavor, held.entry, version, f"{why}; the last good one")
            self._tell(name)

    def _forget(self, name: str) -> None:
        if self._held.pop(name, None) is not None:
            self._tell(name)

    def _tell(self, name: str) -> None:
        for listener in self._listeners:
            listener(name)


def _is_touched(held: Held, flavor: VMFlavor) -> bool:
    """Somebody wrote on it what does not change its meaning, or it is another of that name."""
    before, now = held.flavor.metadata, flavor.metadata
    return (before.uid, before.generation) != (now.uid, now.generation)
