"""Names that other systems see: group, labels, finalizers, tags, closed sets of reasons, rights.

A name here is a promise. Code elsewhere refers to these constants and never spells a name out.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

GROUP: Final = "warmpool.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

ANNOTATION_PRESERVE: Final = f"{GROUP}/preserve"
"""On a WarmVM, or on a WarmPool for all its VMs: if it fails, keep it for so long, to be looked
at."""

LABEL_POOL: Final = f"{GROUP}/pool"
LABEL_CLAIM: Final = f"{GROUP}/claim"
LABEL_CLAIM_UID: Final = f"{GROUP}/claim-uid"
LABEL_ZONE: Final = f"{GROUP}/zone"
LABEL_RACK: Final = f"{GROUP}/rack"
LABEL_HYPERVISOR: Final = f"{GROUP}/hypervisor"
LABEL_HELD: Final = f"{GROUP}/held"
"""On a WarmVM that was kept since Nova knows more of it, also once it was given back."""

VM_FINALIZER: Final = f"{GROUP}/server"
"""On every WarmVM: it goes when Nova answers 404 for the server, so that no server is forgotten."""

POOL_FINALIZER: Final = f"{GROUP}/pool"
"""On every WarmPool that has VMs: it goes when the last of them is gone."""

KOPF_FINALIZER: Final = f"{GROUP}/kopf-unused"
"""What kopf believes to be its own finalizer. kopf strips it from objects that need no handler of
its own, so it must never be one that we rely on."""

LABEL_ROLE: Final = f"{GROUP}/role"
LABEL_VERSION: Final = f"{GROUP}/version"
ANNOTATION_HOST: Final = f"{GROUP}/host"
"""On the Lease of each replica: `leader` or `standby`, its version, the host it runs on."""

REPLICA_LEASE_PREFIX: Final = "warmpool-replica-"
"""With the replica's identity: the Lease by which it is listed."""

LEASE_NAME: Final = "warmpool-leader"
LEDGER_NAME: Final = "bindings"

TAG_INSTALLATION: Final = "warmpool.dev:install="
TAG_OWNER: Final = "warmpool.dev:vm="
"""Prefixes of Nova server tags. Nova filters on tags and not on metadata, allows 60 characters,
no comma and no slash. Prefix and a uid of 36 characters come to 52 at most."""

META_PREFIX: Final = "warmpool.dev:"
META_POOL: Final = f"{META_PREFIX}pool"
META_OWNER: Final = f"{META_PREFIX}vm"
META_CLAIM: Final = f"{META_PREFIX}claim"
META_CLAIM_NAMESPACE: Final = f"{META_PREFIX}claim-namespace"
META_CLAIM_UID: Final = f"{META_PREFIX}claim-uid"
META_REQUEST: Final = f"{META_PREFIX}request"
"""Keys of Nova server metadata that are ours: what a server is used for. Nova allows no slash."""


class Kind(StrEnum):
    """The kinds of this group. The value is the `kind` of the object."""

    WARM_POOL = "WarmPool"
    VM_CLAIM = "VMClaim"
    WARM_VM = "WarmVM"
    VM_FLAVOR = "VMFlavor"
    BINDING_LEDGER = "BindingLedger"

    @property
    def plural(self) -> str:
        """The resource in URLs: `warmpools`."""
        return f"{self.value.lower()}s"

    @property
    def namespaced(self) -> bool:
        """Whether its objects live in namespaces."""
        return self is not Kind.VM_FLAVOR


class Role(StrEnum):
    """What a replica is, as its Lease says. The Lease of the election alone decides who leads."""

    LEADER = "leader"
    STANDBY = "standby"


class Phase(StrEnum):
    """`status.phase` of a WarmVM: the machine's state. Whose it is, `spec.claimRef` alone says."""

    PENDING = "Pending"
    BUILDING = "Building"
    READY = "Ready"
    FAILED = "Failed"
    TERMINATING = "Terminating"


class ClaimPhase(StrEnum):
    """`status.phase` of a VMClaim."""

    PENDING = "Pending"
    BOUND = "Bound"
    FAILED = "Failed"
    RELEASED = "Released"


class PoolCondition(StrEnum):
    """Condition types of a WarmPool."""

    READY = "Ready"
    PROGRESSING = "Progressing"
    CAPACITY_AVAILABLE = "CapacityAvailable"
    DEPENDENCIES_RESOLVED = "DependenciesResolved"
    HEALTHY = "Healthy"
    UP_TO_DATE = "UpToDate"
    BALANCED = "Balanced"
    RACKS_KNOWN = "RacksKnown"


class ClaimCondition(StrEnum):
    """Condition types of a VMClaim."""

    BOUND = "Bound"
    HEALTHY = "Healthy"
    METADATA_WRITTEN = "MetadataWritten"


class FlavorCondition(StrEnum):
    """Condition types of a VMFlavor."""

    RESOLVED = "Resolved"


class VmCondition(StrEnum):
    """Condition types of a WarmVM."""

    READY = "Ready"
    HELD = "Held"


class Reason(StrEnum):
    """Why a condition is as it is. Closed: alerts and clients match on these."""

    # pools
    POOL_FULL = "PoolFull"
    FILLING = "Filling"
    SHRINKING = "Shrinking"
    PAUSED = "Paused"
    DELETING = "Deleting"
    WAITING_FOR_CLAIMS = "WaitingForClaims"
    RESOLVED = "Resolved"
    CAPACITY_OK = "CapacityOk"
    HELD = "Held"
    ALL_HEALTHY = "AllHealthy"
    REPLACING_UNHEALTHY = "ReplacingUnhealthy"
    TOO_MANY_UNHEALTHY = "TooManyUnhealthy"
    UP_TO_DATE = "UpToDate"
    ROLLING_OUT = "RollingOut"
    OLDER_KEPT = "OlderKept"
    # spread of a pool
    SPREAD_KEPT = "SpreadKept"
    NO_SPREAD_ASKED = "NoSpreadAsked"
    MENDING = "Mending"
    NO_ROOM_ELSEWHERE = "NoRoomElsewhere"
    NOVA_CHOOSES = "NovaChooses"
    # the catalogue
    ENTRY_NOT_FOUND = "EntryNotFound"
    ENTRY_MALFORMED = "EntryMalformed"
    CATALOGUE_UNAVAILABLE = "CatalogueUnavailable"
    PROJECT_NOT_PERMITTED = "ProjectNotPermitted"
    NOT_USED = "NotUsed"
    UNRESOLVED = "Unresolved"
    # racks of a cloud
    RACKS_KNOWN = "RacksKnown"
    RACKS_CONTRADICT = "RacksContradict"
    INVENTORY_UNAVAILABLE = "InventoryUnavailable"
    RACK_SOURCE_SILENT = "RackSourceSilent"
    RACK_CONFIG_INVALID = "RackConfigInvalid"
    # dependencies of a pool
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason, not a secret
    SECRET_INVALID = "SecretInvalid"  # noqa: S105 - a reason, not a secret
    SECRET_UNREADABLE = "SecretUnreadable"  # noqa: S105 - a reason, not a secret
    CLOUD_NOT_FOUND = "CloudNotFound"
    CREDENTIALS_REFUSED = "CredentialsRefused"
    FLAVOR_NOT_FOUND = "FlavorNotFound"
    IMAGE_NOT_FOUND = "ImageNotFound"
    NETWORK_NOT_FOUND = "NetworkNotFound"
    KEY_PAIR_NOT_FOUND = "KeyPairNotFound"
    ZONE_NOT_FOUND = "ZoneNotFound"
    REQUEST_REJECTED = "RequestRejected"
    INVALID_SPEC = "InvalidSpec"
    # capacity
    QUOTA_EXCEEDED = "QuotaExceeded"
    NO_VALID_HOST = "NoValidHost"
    RATE_LIMITED = "RateLimited"
    CLOUD_UNAVAILABLE = "CloudUnavailable"
    MAX_SIZE_REACHED = "MaxSizeReached"
    SPREAD_EXHAUSTED = "SpreadExhausted"
    # single VMs
    BUILDING = "Building"
    ACTIVE_AND_CHECKED = "ActiveAndChecked"
    BUILD_FAULT = "BuildFault"
    LAUNCH_TIMEOUT = "LaunchTimeout"
    PROBE_FAILED = "ProbeFailed"
    SERVER_LOST = "ServerLost"
    SERVER_ERROR = "ServerError"
    SERVER_STOPPED = "ServerStopped"
    SERVER_BUSY = "ServerBusy"
    HOST_DOWN = "HostDown"
    UNHEALTHY = "Unhealthy"
    PRESERVED = "Preserved"
    OUTDATED = "Outdated"
    TOO_OLD = "TooOld"
    RECYCLING = "Recycling"
    HELD_FOR_CLAIM = "HeldForClaim"
    FOUND_IN_NOVA = "FoundInNova"
    # claims
    BOUND = "Bound"
    ALL_VMS_HEALTHY = "AllVMsHealthy"
    POOL_NOT_FOUND = "PoolNotFound"
    NOT_PERMITTED = "NotPermitted"
    NOT_ENOUGH_READY = "NotEnoughReady"
    NOT_ENOUGH_RACKS = "NotEnoughRacks"
    NOT_ENOUGH_HYPERVISORS = "NotEnoughHypervisors"
    NOT_ENOUGH_ZONES = "NotEnoughZones"
    CONSTRAINTS_UNSATISFIED = "ConstraintsUnsatisfied"
    CONSTRAINTS_CONTRADICT = "ConstraintsContradict"
    RACKS_UNKNOWN = "RacksUnknown"
    WAITING = "Waiting"
    LOOKING_BACK = "LookingBack"
    BUILDING_FOR_CLAIM = "BuildingForClaim"
    TIMED_OUT = "TimedOut"
    UNDECIDED = "Undecided"
    EXPIRED = "Expired"
    VMS_UNHEALTHY = "VMsUnhealthy"
    VMS_LOST = "VMsLost"
    METADATA_WRITTEN = "MetadataWritten"


@dataclass(frozen=True, slots=True)
class Permission:
    """One RBAC rule. `namespaced` rights are needed in the operator's own namespace only."""

    groups: tuple[str, ...]
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    namespaced: bool = False


PERMISSIONS: Final = (
    Permission((GROUP,), ("warmpools", "vmclaims"), ("get", "list", "watch", "patch")),
    Permission((GROUP,), ("warmvms",), ("get", "list", "watch", "create", "patch", "delete")),
    Permission((GROUP,), ("vmflavors",), ("get", "list", "watch")),
    Permission(
        (GROUP,),
        ("warmpools/status", "vmclaims/status", "warmvms/status", "vmflavors/status"),
        ("patch",),
    ),
    Permission((GROUP,), ("bindingledgers",), ("get", "create", "update"), namespaced=True),
    Permission(
        ("coordination.k8s.io",),
        ("leases",),
        ("get", "list", "watch", "create", "update", "delete"),
        namespaced=True,
    ),
    Permission(("",), ("secrets", "configmaps"), ("get",)),
    Permission(("",), ("namespaces",), ("get", "list", "watch")),
    Permission(("events.k8s.io",), ("events",), ("create", "patch")),
    Permission(("apiextensions.k8s.io",), ("customresourcedefinitions",), ("get", "list", "watch")),
    Permission(("authentication.k8s.io",), ("tokenreviews",), ("create",)),
    Permission(("authorization.k8s.io",), ("subjectaccessreviews",), ("create",)),
)
"""All that the operator may do. `manifests/rbac.yaml` is held against this by a test."""
