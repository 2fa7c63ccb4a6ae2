"""Claims as the planner sees them: demands over counts, and what came of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from warmpool.api.names import Reason
from warmpool.domain.cloud import Place
from warmpool.domain.ids import Ref


class Domain(StrEnum):
    """A level at which VMs can be kept apart. A hypervisor is in a rack, a rack in a zone."""

    ZONE = "zone"
    RACK = "rack"
    HYPERVISOR = "hypervisor"


@dataclass(frozen=True, slots=True)
class Ask:
    """So many VMs out of one pool."""

    name: str
    pool: Ref
    count: int


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound on how the VMs of some asks lie over the domains of one level.

    All that is set must hold. A VM whose domain is not known (its name is empty) cannot serve an
    ask that is limited at that level.
    """

    domain: Domain
    asks: frozenset[str]
    """Names of the asks whose VMs are counted together."""
    max_per_domain: int | None = None
    """At most so many of them in one domain."""
    min_domains: int | None = None
    """They use at least so many domains."""
    max_skew: int | None = None
    """Among the domains they use, the fullest and the emptiest differ by at most so much."""


@dataclass(frozen=True, slots=True)
class Demand:
    """One claim. All its asks are satisfied within all its limits, or none is."""

    asks: tuple[Ask, ...]
    limits: tuple[Limit, ...] = ()


@dataclass(frozen=True, slots=True)
class Stock:
    """What one pool has to give now."""

    counts: Mapping[Place, int]
    """Ready and unclaimed VMs per place."""
    reserve: int = 0
    """So many of them must be left when the claim is served."""


Supply = Mapping[Ref, Stock]
"""Stock per pool. A pool that is not in it does not exist."""


@dataclass(frozen=True, slots=True)
class Pick:
    """Take so many VMs from one place of the ask's pool, the oldest first."""

    ask: str
    place: Place
    count: int


@dataclass(frozen=True, slots=True)
class Fit:
    """The demand can be met, so."""

    picks: tuple[Pick, ...]


@dataclass(frozen=True, slots=True)
class Shortage:
    """The demand cannot be met from this supply: proven, never guessed."""

    reason: Reason
    message: str
    """For people, in numbers: "3 racks have ready VMs, 5 are needed; 17 ready in all"."""


@dataclass(frozen=True, slots=True)
class Undecided:
    """The search ended at its bound without an answer, or what the answer hangs on is not known.

    Never to be told as a refusal.
    """

    message: str
