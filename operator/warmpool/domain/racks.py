"""Which rack each compute host stands in, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, order=True)
class Host:
    """A compute host, by both names that Nova has of it."""

    name: str
    """Of its compute service: `OS-EXT-SRV-ATTR:host` of a server."""
    hypervisor: str = ""
    """Nova's name of the hypervisor. Empty: not known."""


@dataclass(frozen=True, slots=True)
class Hosts:
    """All compute hosts of a cloud.

    `visible` False: these credentials may not see them; `why_not` says so for people.
    """

    hosts: tuple[Host, ...] = ()
    visible: bool = True
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """What one source says of the hosts that it was asked about."""

    racks: Mapping[str, str]
    """Name of a host to its rack; empty: the source knows of none. A host that is missing here was
    not answered for this time, and `why` says so."""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Telling:
    """What one source of a chain has told so far."""

    source: str
    racks: Mapping[str, str]
    """As `Told.racks`: a host that is missing it has never answered for."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What a chain comes to."""

    racks: Mapping[str, str] = field(default_factory=dict)
    """Host to rack; empty: known to be in none."""
    pending: frozenset[str] = frozenset()
    """Hosts of which a source that counts more has never said anything yet, or which are in no rack
    by an answer that is not believed yet."""
    contradictions: tuple[str, ...] = ()
    """In words, the host first."""


@dataclass(frozen=True, slots=True)
class RackReport:
    """How well racks are known, for people."""

    hosts: int = 0
    unknown: tuple[str, ...] = ()
    """Hosts whose rack no source names, sorted."""
    contradictions: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    """Sources that do not answer, each with why. What they said before stands."""
    hidden: str = ""
    """Why the credentials see no hosts."""
    unlisted: str = ""
    """Why the inventory, which should see the hosts, cannot list them now. What was known of them
    before stands."""
    wrong: str = ""
    """What is wrong with racks.yaml. The former chain stands."""
    looked: bool = False
    """Whether everybody was asked at least once."""
