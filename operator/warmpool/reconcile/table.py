"""Objects of one kind, each in its newest version, however events and LISTs come in between."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Generic, Protocol, TypeVar

from warmpool.domain.ids import Ref
from warmpool.ports.cluster import Body

AT_A_TIME: Final = 100
"""Objects that are taken in before others have their turn: some milliseconds, if all are new."""


class Versioned(Protocol):
    @property
    def ref(self) -> Ref: ...
    @property
    def uid(self) -> str: ...
    @property
    def version(self) -> int: ...


T = TypeVar("T", bound=Versioned)


class Table(Generic[T]):
    """Objects of one kind by name, each in the newest version that was seen."""

    def __init__(self) -> None:
        self.by_ref: dict[Ref, T] = {}
        self.floor = 0
        """resourceVersion of the last LIST. An event that is not newer, about an object that we
        do not hold, is an echo of something that the LIST showed to be gone."""
        self.newest = 0
        """The highest resourceVersion that was seen."""
        self._gone: dict[str, int] = {}
        """Objects deleted since the last LIST, by uid: the watch may still be behind an answer."""

    def is_old(self, body: Body) -> bool:
        """Whether we hold this version or a newer one: told without reading the body.

        The watch repeats every write of ours, so most of what it shows is old.
        """
        meta = body["metadata"]
        held = self.by_ref.get(ref_of(body))
        return held is not None and held.version >= int(meta["resourceVersion"])

    def contradicts(self, body: Body, version: int) -> bool:
        """Whether a LIST of that version shows an object as it was, and not as we know it since.

        Or one that was there long before an earlier LIST, and that this one had not.
        """
        meta = body["metadata"]
        shown, held = int(meta["resourceVersion"]), self.by_ref.get(ref_of(body))
        if held is not None:
            return shown < held.version <= version
        return shown <= self.floor <= version and meta["uid"] not in self._gone

    def put(self, item: T) -> bool:
        """Take in a version; False if it is stale."""
        old = self.by_ref.get(item.ref)
        if old is not None and old.version >= item.version:
            return False
        if old is None and (item.version <= self.floor or item.uid in self._gone):
            return False
        self.newest = max(self.newest, item.version)
        self.by_ref[item.ref] = item
        return True

    def drop(self, body: Body) -> T | None:
        """Take an object out. Its version is that of its deletion, and the rest is not read."""
        meta, ref = body["metadata"], ref_of(body)
        version = int(meta["resourceVersion"])
        self._gone[meta["uid"]] = version
        self.newest = max(self.newest, version)
        held = self.by_ref.get(ref)
        if held is None or held.uid != meta["uid"]:
            return None
        return self.by_ref.pop(ref)

    def vanished(self, seen: Iterable[Ref], version: int) -> list[T]:
        """What a LIST of that version does not show any more."""
        present = set(seen)
        lost = [t for r, t in self.by_ref.items() if r not in present and t.version <= version]
        self.floor = max(self.floor, version)
        self.newest = max(self.newest, version)
        self._gone = {uid: v for uid, v in self._gone.items() if v > version}
        return lost


Item = TypeVar("Item")


def bits(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """All of them in their order, so many at a time."""
    for begin in range(0, len(items), AT_A_TIME):
        yield items[begin : begin + AT_A_TIME]


def ref_of(body: Body) -> Ref:
    """What an object is called."""
    meta = body["metadata"]
    return Ref(meta.get("namespace", ""), meta["name"])
