"""What a cloud holds, in our words. Nova's own are read once, in the adapter."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto

from warmpool.api.names import Reason
from warmpool.domain.ids import ServerId, VmUid
from warmpool.domain.marks import UNMARKED, Marks


class ServerState(Enum):
    """State of a server. ACTIVE with a task in progress is not steady: see `Server.busy`."""

    BUILDING = auto()
    ACTIVE = auto()
    ERROR = auto()
    STOPPED = auto()
    """SHUTOFF, PAUSED, SUSPENDED, SHELVED and the like: exists, does not run."""
    DELETED = auto()
    """Only in an incremental listing: it is gone for good."""
    OTHER = auto()
    """A state that we do not know or that passes (REBUILD, REBOOT, RESIZE, MIGRATING ...)."""


class FaultClass(Enum):
    """Whose fault a failed build is."""

    CAPACITY = auto()
    """Quota, no valid host: the pool holds, no attempt is used up."""
    HOSTS = auto()
    """No host that it was tried on would have it: with an aimed build, that one alone."""
    VM = auto()
    """This one server failed. An unknown text is this."""


@dataclass(frozen=True, slots=True)
class ServerFault:
    """Why Nova set a server to ERROR."""

    kind: FaultClass
    reason: Reason
    message: str
    """Nova's words, at most 500 characters."""


@dataclass(frozen=True, slots=True)
class Server:
    """One server as a listing tells it."""

    id: ServerId
    name: str
    state: ServerState
    busy: bool
    """A task is in progress (`task_state` is set)."""
    owner: VmUid | None
    """UID of the WarmVM, read from the tag. None: not ours, or the tag was taken away."""
    zone: str = ""
    host_id: str = ""
    """Hash of the host, per project: tells hypervisors apart where their names are not seen."""
    host: str | None = None
    """Name of the compute service. None: the credentials may not see it, or not placed yet."""
    hypervisor: str | None = None
    addresses: tuple[str, ...] = ()
    hostname: str = ""
    status: str = ""
    """Nova's own status and task, for messages: `BUILD/spawning`."""
    fault: ServerFault | None = None
    """Only in an answer about one server, and only while it is in ERROR."""
    created: datetime | None = None
    updated: datetime | None = None
    marks: Marks = UNMARKED
    """What we wrote on it about its use."""


@dataclass(frozen=True, slots=True)
class Listing:
    """One answer to a bulk listing.

    `complete`: every server of ours is in it, so what is missing is gone. An incremental listing
    is never complete, but it names the servers that were deleted.
    """

    servers: tuple[Server, ...]
    complete: bool
    taken_at: datetime
    """The cloud's own time when the listing began: where the next incremental one starts."""


class NetworkChoice(Enum):
    """What to tell Nova where the template names no network."""

    AUTO = "auto"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class FlavorSize:
    """What one server of a flavor takes."""

    vcpus: int = 0
    ram_mb: int = 0
    disk_gb: int = 0
    """Root, ephemeral and swap together."""
    extra_specs: tuple[tuple[str, str], ...] = ()
    """Sorted. Empty also where the credentials may not see them."""


@dataclass(frozen=True, slots=True)
class BuildSpec:
    """The template with all its names resolved."""

    flavor_id: str
    image_id: str
    networks: NetworkChoice | tuple[str, ...]
    """AUTO, NONE, or ids of networks."""
    user_data: str | None = None
    """base64."""
    security_groups: tuple[str, ...] = ()
    key_pair: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    tags: tuple[str, ...] = ()
    config_drive: bool = False
    size: FlavorSize = FlavorSize()
    """Of the flavor. All zero: not known."""
    group: str = ""
    """Id of the server group that its servers are built in. Empty: none."""


@dataclass(frozen=True, slots=True)
class ServerRequest:
    """One server to be built."""

    name: str
    owner: VmUid
    spec: BuildSpec
    zone: str = ""
    """Availability zone. Empty: Nova chooses."""
    hypervisor: str = ""
    """The one to build on, by Nova's name of it. Empty: Nova chooses."""


@dataclass(frozen=True, slots=True)
class ServerGroup:
    """A server group with the policy anti-affinity: no two of its servers on one hypervisor."""

    id: str
    name: str
    """Not unique."""
    members: int
    """Servers in it that are there."""


@dataclass(frozen=True, slots=True)
class Topology:
    """Which rack each host stands in.

    `visible` False: these credentials may not see hosts; `why_not` says so for people. Then
    hypervisors are told apart by `Server.host_id` and racks are not known.
    """

    racks: dict[str, str] = field(default_factory=dict)
    """Compute host to rack."""
    visible: bool = True
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class HostRoom:
    """A hypervisor that takes builds: up and enabled."""

    hypervisor: str
    """Nova's name of the hypervisor, by which a build is aimed."""
    host: str
    """Name of its compute service, by which racks are known."""
    zone: str
    room: int | None
    """Further servers of the flavor that fit on it. None: not known."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """The hypervisors that builds of one flavor may be aimed at.

    `visible` False: these credentials may not see them; `why_not` says so for people.
    """

    hosts: tuple[HostRoom, ...] = ()
    visible: bool = True
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose token it is, as Keystone says. Nothing here is a secret."""

    project_id: str
    project: str
    """Name of the project that the token is scoped to."""
    domain_id: str = ""
    domain: str = ""
    """Name of the project's domain."""
    roles: frozenset[str] = frozenset()
    """Names of its roles there."""


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of something the project uses, whoever built it, and may use."""

    used: int
    limit: int | None
    """None: without bound."""


@dataclass(frozen=True, slots=True)
class Quota:
    """What the project has of its quota, all its servers counted."""

    instances: Usage
    cores: Usage
    ram_mb: Usage
    group_members: int | None = None
    """Servers in one server group at most. None: without bound, or not told."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a VM stands. Empty: not known (rack) or not placed yet (all).

    Two places share a domain when region and the domain's name are the same.
    """

    region: str = ""
    zone: str = ""
    rack: str = ""
    hypervisor: str = ""
