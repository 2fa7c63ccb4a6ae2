"""What a name in the catalogue means, as values."""

from dataclasses import dataclass
from datetime import datetime

from warmpool.api.names import Reason
from warmpool.domain.ids import Ref


@dataclass(frozen=True, slots=True)
class ImageQuery:
    """The newest active image that has all of this."""

    properties: tuple[tuple[str, str], ...] = ()
    """Sorted."""
    tags: tuple[str, ...] = ()
    """Sorted."""
    held: str = ""
    """Id of the image in force. No older one follows it while it is there and still fits: a list
    may miss the newest for a moment. Empty: there is none."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """A project that may use an entry."""

    project_id: str = ""
    """Empty: it is told by name."""
    project: str = ""
    """Its name."""
    domain: str = ""
    """Id or name of its domain, where it is told by name."""
    roles: frozenset[str] = frozenset()
    """One of these is needed. Empty: any role will do."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the catalogue. Equal ones mean the same, wherever they are kept."""

    name: str
    flavor: str
    """Nova flavor, by name or id."""
    image: str | ImageQuery
    """Glance image by name or id, or the newest of some."""
    metadata: tuple[tuple[str, str], ...] = ()
    """Sorted."""
    projects: tuple[Allowed, ...] = ()
    """Empty: every project may use it."""


@dataclass(frozen=True, slots=True)
class NoEntry:
    """There is none that could be used, and why."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Found:
    """What the catalogue says of a name."""

    entry: Entry | NoEntry
    stale: NoEntry | None = None
    """Why it may not be the newest word: the catalogue does not answer, or the newest is malformed.
    None: it is."""
    remembered: bool = False
    """The entry is what it came to last, for the project and roles that were permitted then."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """What an entry came to for one pool, or why it did not."""

    name: str
    pool: Ref
    region: str = ""
    project: str = ""
    flavor_id: str = ""
    image_id: str = ""
    time: datetime | None = None
    message: str = ""
    """Why it means nothing there. Empty: it does."""
