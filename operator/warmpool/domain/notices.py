"""News for people, on its way to them: what it is about, who wants it, what waits in the outbox.

News about the same thing is one bundle, however often it happens: so the outbox stays small, and a
person reads how many builds failed instead of one letter for each.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final


class NoticeKind(StrEnum):
    """What people are told of."""

    POOL_STARVING = "PoolStarving"
    """A pool has had no VM ready for a minute, and should have."""
    CREDENTIALS_REFUSED = "CredentialsRefused"
    """The cloud refuses a pool's credentials."""
    BUILDS_FAILING = "BuildsFailing"
    """Builds failed, or the cloud took no server."""
    CLAIM_REFUSED = "ClaimRefused"
    """A claim was refused since there was not enough for it."""
    LEADER_CHANGED = "LeaderChanged"
    POOL_BUILT_UP = "PoolBuiltUp"
    """A pool is full for the first time, or again after trouble that was told."""


URGENT: Final = frozenset({NoticeKind.POOL_STARVING, NoticeKind.CREDENTIALS_REFUSED})
"""What somebody has to act on."""

GATHER: Final = timedelta(minutes=2)
PAUSE: Final = timedelta(minutes=15)
"""Of a route that says nothing else."""


@dataclass(frozen=True, slots=True, order=True)
class Topic:
    """What news is about: news of one topic is counted, not repeated."""

    kind: NoticeKind
    namespace: str
    """Empty: of the operator itself."""
    subject: str
    """`namespace/name` of a pool, or several with commas; the identity of a leader."""
    reason: str


@dataclass(frozen=True, slots=True)
class News:
    """Something happened."""

    topic: Topic
    at: datetime
    text: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """All news of one topic that has not been told yet."""

    topic: Topic
    first: datetime
    last: datetime
    count: int
    samples: tuple[str, ...]
    """The first few texts that differ."""


@dataclass(frozen=True, slots=True)
class Route:
    """Who is told what, and how often."""

    name: str
    to: tuple[str, ...] = field(repr=False)
    """Addresses as apprise has them. They may hold passwords."""
    kinds: frozenset[NoticeKind] = frozenset(NoticeKind)
    namespaces: tuple[str, ...] = ("*",)
    """Patterns. News of the operator itself goes to routes that have all, `*`."""
    gather: timedelta = GATHER
    """How long news waits for more of it."""
    pause: timedelta = PAUSE
    """At least so long between two digests, and until an urgent topic is told once more."""

    def wants(self, topic: Topic) -> bool:
        return topic.kind in self.kinds and (
            "*" in self.namespaces
            or any(topic.namespace and fnmatchcase(topic.namespace, p) for p in self.namespaces)
        )


@dataclass(frozen=True, slots=True)
class Lane:
    """What one route has still to be told."""

    pending: Mapping[Topic, Bundle] = field(default_factory=dict)
    sending: Mapping[Topic, Bundle] = field(default_factory=dict)
    """What is in the letter that is on its way. After a crash it is sent once more."""
    told: Mapping[Topic, datetime] = field(default_factory=dict)
    """Urgent topics, and when they were told last."""
    digest_at: datetime | None = None
    """When the last digest went."""
    failures: int = 0
    """Of sending, in a row."""
    not_before: datetime | None = None
    """When it is tried again."""
    dropped: int = 0
    """News that did not fit."""


@dataclass(frozen=True, slots=True)
class Mood:
    """What people know of a pool."""

    wanted: int
    full: bool = False
    """They know that it is built up, or it was before anybody looked."""
    empty_since: datetime | None = None
    starving: bool = False
    """They know."""
    refused: bool = False
    """They know that its credentials are."""


@dataclass(frozen=True, slots=True)
class Outbox:
    """All that has still to be told, and what was, as far as it matters."""

    lanes: Mapping[str, Lane] = field(default_factory=dict)
    """By the name of the route."""
    unrouted: Mapping[Topic, Bundle] = field(default_factory=dict)
    """The routes could not be read yet."""
    moods: Mapping[str, Mood] = field(default_factory=dict)
    """By the uid of the pool."""

    @property
    def waiting(self) -> int:
        """Bundles of news that somebody has still to be told."""
        lanes = self.lanes.values()
        return len(self.unrouted) + sum(len(lane.pending) + len(lane.sending) for lane in lanes)


@dataclass(frozen=True, slots=True)
class Letter:
    """What goes to a route in one piece."""

    route: str
    title: str
    body: str
    urgent: bool
