"""WarmPool: rules for one flavor of VM."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from warmpool.api.names import Kind
from warmpool.api.v1alpha1.base import (
    Condition,
    DomainName,
    Duration,
    Metadata,
    Model,
    NovaName,
    ServerMetadata,
    Share,
    Time,
)

ObjectName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", min_length=1, max_length=253),
]
NamespaceName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=63),
]

PoolName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=50),
]
GroupHint = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$", min_length=1, max_length=63
    ),
]
BASE64_PATTERN = r"^[A-Za-z0-9+/]*={0,2}$"
UserData = Annotated[str, StringConstraints(pattern=BASE64_PATTERN, max_length=65535)]


class CloudRef(Model):
    """Which cloud, and with whose credentials."""

    secret_name: ObjectName
    """Secret in the pool's namespace whose key `clouds.yaml` holds the credentials."""
    cloud: str = Field(min_length=1, max_length=253)
    """Name of the entry below `clouds:` in that file."""


class Network(Model):
    """One network that every VM gets an interface on."""

    network: NovaName
    """Name or id of the Neutron network."""


class SecretKeyRef(Model):
    """One key of a Secret in the same namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: str = Field(min_length=1, max_length=253)
    """Key in the Secret."""


class FlavorRef(Model):
    """An entry of the catalogue."""

    name: ObjectName
    """Name of the VMFlavor."""


class Template(Model):
    """What every VM of the pool is built from."""

    flavor_ref: FlavorRef | None = None
    """Flavor and image by an entry of the catalogue. When what it comes to changes, VMs are
    replaced by `updateStrategy`."""
    flavor: NovaName | None = None
    """Nova flavor, by name or id. With `flavorRef` unset."""
    image: NovaName | None = None
    """Glance image, by name or id. With `flavorRef` unset."""
    user_data: UserData | None = None
    """cloud-init user data, base64. At most 65535 characters, Nova's own limit."""
    user_data_secret_ref: SecretKeyRef | None = None
    """Where the user data stands instead, if it holds secrets: plain, not base64 twice."""
    networks: list[Network] | None = Field(default=None, max_length=16)
    """Networks of every VM. Unset: Nova chooses (`auto`). Empty list: no network at all."""
    security_groups: list[NovaName] = Field(default_factory=list, max_length=32)
    """Names of security groups. None: the project's default."""
    key_pair: NovaName | None = None
    """Name of the Nova key pair put on every VM."""
    metadata: ServerMetadata = Field(default_factory=dict, max_length=100)
    """Metadata written on every server."""
    tags: list[Annotated[str, StringConstraints(pattern=r"^[^,/]+$", max_length=60)]] = Field(
        default_factory=list, max_length=40
    )
    """Further tags of every server. Nova allows no comma and no slash in them."""
    config_drive: bool = False
    """Give every VM a config drive."""
    group_hint: GroupHint | None = None
    """No two VMs of the pool on one hypervisor, claimed ones included: they are put into a Nova
    server group of this name with the policy anti-affinity. The project's quota of members per
    group, 10 by default, then bounds the pool, and so does the number of hypervisors."""

    @property
    def flavor_called(self) -> str:
        """What its flavor is called: by the catalogue, or by Nova."""
        return self.flavor_ref.name if self.flavor_ref is not None else self.flavor or ""


class TCPSocket(Model):
    """A TCP connection that must be accepted."""

    port: int = Field(ge=1, le=65535)
    """Port on the first address of the VM."""


class Scheme(StrEnum):
    """How an HTTP probe speaks. With HTTPS the certificate is not verified."""

    HTTP = "HTTP"
    HTTPS = "HTTPS"


class HTTPGet(Model):
    """An HTTP request that must be answered with a status from 200 to 399."""

    port: int = Field(ge=1, le=65535)
    """Port on the first address of the VM."""
    path: str = Field(default="/", pattern=r"^/[!-~]*$", max_length=1024)
    """What to ask for."""
    scheme: Scheme = Scheme.HTTP
    """How to ask. With HTTPS the certificate is not verified."""


class NoProbe(Model):
    """Nothing is asked of the VM itself."""


class Probe(Model):
    """How a VM proves that it is up. One of them."""

    tcp_socket: TCPSocket | None = None
    """Connect to this port."""
    http_get: HTTPGet | None = None
    """Ask for this page."""
    none: NoProbe | None = None
    """Write `none: {}` to say that ACTIVE and placed is enough."""


class Health(Model):
    """When a VM counts as ready, when a build as failed, and when a ready VM as sick."""

    launch_timeout: Duration = "15m"
    """From the POST to Nova until the VM must be ready."""
    probe: Probe | None = None
    """Checked after the server is ACTIVE. Unset: ACTIVE and placed is enough."""
    period: Duration = "60s"
    """Time between two checks of a ready VM. Nova's own word is heard at once."""
    failure_threshold: int = Field(default=3, ge=1, le=1000)
    """A ready VM that fails a check is kept from claims at once, and deleted after so many failed
    checks in a row."""
    max_unhealthy: Share = "20%"
    """Of the VMs that are or were ready and are unclaimed: if more than so many fail their checks
    at once, none of them is deleted, since the fault may lie elsewhere. A number or a share."""


class ReclaimPolicy(StrEnum):
    """What becomes of a VM whose claim has ended."""

    DELETE = "Delete"
    RECYCLE = "Recycle"
    RETAIN = "Retain"


class NamespacesFrom(StrEnum):
    """Whose claims a pool serves."""

    SAME = "Same"
    ALL = "All"
    SELECTOR = "Selector"


class AllowedNamespaces(Model):
    """Namespaces whose claims the pool serves."""

    from_: NamespacesFrom = Field(default=NamespacesFrom.SAME, alias="from")
    """Same: the pool's own. All: any. Selector: those with the labels of `matchLabels`."""
    match_labels: dict[str, Annotated[str, StringConstraints(max_length=63)]] = Field(
        default_factory=dict, max_length=20
    )
    """Labels that a namespace must have, with `from: Selector`."""


class ClaimRules(Model):
    """Who may claim, and for how long."""

    namespaces: AllowedNamespaces = Field(default_factory=AllowedNamespaces)
    """Namespaces whose claims are served."""
    default_lifetime: Duration = "0s"
    """Lifetime of claims that name none. `0s`: until deleted."""
    max_lifetime: Duration = "0s"
    """No claim keeps VMs of this pool longer. `0s`: no bound."""


class UpdateType(StrEnum):
    """What becomes of unclaimed VMs when the template changes."""

    ROLLING_UPDATE = "RollingUpdate"
    ON_REPLENISH = "OnReplenish"
    RECREATE = "Recreate"


class UpdateStrategy(Model):
    """How unclaimed VMs are replaced that are of an older template, or too old. Claimed ones stay.

    Nothing is replaced while builds are held, something that the template names is missing, or the
    pool is paused.
    """

    type: UpdateType = UpdateType.ROLLING_UPDATE
    """When the template changes. RollingUpdate: a few at a time. OnReplenish: only new VMs follow
    it. Recreate: all at once."""
    max_unavailable: Share = "20%"
    """So many VMs may be missing at once for the sake of newer ones: a number, or a share of
    those that the pool shall have ready. Expiry keeps to it whatever the type."""


class ScaleDown(StrEnum):
    """Which ready VMs go first when there are too many."""

    MOST_CROWDED_DOMAIN = "MostCrowdedDomain"
    OLDEST = "Oldest"
    NEWEST = "Newest"


class Refill(Model):
    """Pace of building: a token bucket that starts full."""

    max_per_cycle: int = Field(ge=1, le=10000)
    """Builds started per cycle at most."""
    cycle: Duration = "15m"
    """Length of a cycle."""


class Spread(Model):
    """A rule on how the unclaimed VMs of a pool lie over the domains of one level."""

    domain: DomainName
    """The level: zone, rack or hypervisor. One rule for each."""
    min_domains: int | None = Field(default=None, ge=1, le=500)
    """They use at least so many domains."""
    max_skew: int | None = Field(default=None, ge=1, le=500)
    """The fullest and the emptiest domain differ by at most so much. Domains without a VM count
    too, where they are known to have room for one."""
    max_per_domain: int | None = Field(default=None, ge=1, le=500)
    """At most so many of them in one domain. Where builds are aimed the pool rather stays short
    than go beyond it."""


class WarmPoolSpec(Model):
    """What a pool shall be."""

    replicas: int = Field(ge=0, le=10000)
    """How many VMs are kept ready and unclaimed. Claimed ones do not count."""
    reserve: int = Field(default=0, ge=0, le=10000)
    """Of the ready ones, so many are kept for claims of priority 1000 and above."""
    max_size: int | None = Field(default=None, ge=0, le=20000)
    """How many servers the pool may have in all, claimed ones included. Unset: no bound."""
    cloud_ref: CloudRef
    """The cloud to build in."""
    availability_zones: list[NovaName] = Field(default_factory=list, max_length=32)
    """Zones to build in, side by side and evenly. None: Nova chooses."""
    template: Template
    """What is built."""
    spread: list[Spread] = Field(default_factory=list, max_length=3)
    """How the unclaimed VMs lie while the pool is filled. Where the credentials may choose hosts,
    each build is aimed; elsewhere Nova chooses. What lies askew is mended by building one more and
    giving up one of the most crowded domain, within the pace. Without a rule builds are aimed all
    the same, at the racks and hypervisors with the fewest."""
    refill: Refill | None = None
    """Pace of building. Unset: no pace but `maxConcurrent`."""
    max_concurrent: int = Field(default=8, ge=1, le=500)
    """Builds in flight at most, over all zones."""
    health: Health = Field(default_factory=Health)
    """When a VM is ready, and when its build has failed."""
    expire_after: Duration | None = None
    """Ready VMs that nobody has claimed are replaced at this age at the latest, and up to a tenth
    of it sooner, so that those that were built together do not go together. Unset: never."""
    update_strategy: UpdateStrategy = Field(default_factory=UpdateStrategy)
    """How VMs of an older template, and VMs that are too old, are replaced."""
    scale_down: ScaleDown = ScaleDown.MOST_CROWDED_DOMAIN
    """Which ready VMs go first when there are too many, after those that fail their checks and
    builds under way. MostCrowdedDomain: those of the fullest rack and hypervisor. Oldest, Newest:
    by age. Whichever it is, the rest keeps to `spread` as well as it can."""
    reclaim_policy: ReclaimPolicy = ReclaimPolicy.DELETE
    """Of VMs whose claim has ended. Delete: they go. Recycle: Nova builds them anew from the
    image, and they join the pool again. Retain: they stay, outside the pool's account."""
    claims: ClaimRules = Field(default_factory=ClaimRules)
    """Who may claim, and for how long."""
    paused: bool = False
    """Build and delete nothing. Claims are still served, and claimed VMs still released."""


class Claimable(Model):
    """The largest claim of each mode that could be had now from this pool alone."""

    any: int = Field(default=0, ge=0)
    """VMs, placed anyhow."""
    distinct_hypervisors: int = Field(default=0, ge=0)
    """VMs, each on its own hypervisor."""
    distinct_racks: int = Field(default=0, ge=0)
    """VMs, each on its own rack."""


class DomainCount(Model):
    """VMs of the pool in one rack."""

    rack: str = Field(max_length=255)
    """Name of the rack. Empty: the rack is not known."""
    ready: int = Field(default=0, ge=0)
    """Ready and unclaimed."""
    claimed: int = Field(default=0, ge=0)
    """Claimed."""
    building: int = Field(default=0, ge=0)
    """Building, where the rack is known already."""


class Failure(Model):
    """The last failure of a build, or of what builds need."""

    reason: str = Field(max_length=63)
    """Why, as one word."""
    message: str = Field(max_length=1024)
    """Why, for people."""
    time: Time
    """When it was seen last."""
    count: int = Field(default=1, ge=1)
    """How often in a row."""
    retry_at: Time | None = None
    """When the pool tries again."""


class ResolvedTemplate(Model):
    """What the catalogue's entry came to last."""

    name: str = Field(max_length=253)
    """Name of the entry."""
    flavor_id: str = Field(max_length=255, alias="flavorID")
    """Nova's id of the flavor."""
    image_id: str = Field(max_length=255, alias="imageID")
    """Glance's id of the image."""
    metadata: ServerMetadata = Field(default_factory=dict, max_length=100)
    """Metadata that the entry adds to every server."""
    project_id: str = Field(default="", max_length=64, alias="projectID")
    """Project that was permitted to use it. While the catalogue does not answer, no other is."""
    roles: list[Annotated[str, StringConstraints(max_length=255)]] = Field(
        default_factory=list, max_length=20
    )
    """Roles by which it was permitted: meanwhile one of them is needed. Empty: any will do."""
    content: str = Field(default="", max_length=63)
    """Hash of all that VMs are built from. While it stays, the pool's revision does."""
    time: Time
    """When it came to these."""


class WarmPoolStatus(Model):
    """What a pool is."""

    observed_generation: int = Field(default=0, ge=0)
    """The `metadata.generation` that this status was computed from."""
    replicas: int = Field(default=0, ge=0)
    """Unclaimed VMs: ready, building and pending. What the scale subresource reports."""
    ready: int = Field(default=0, ge=0)
    """Ready and unclaimed."""
    building: int = Field(default=0, ge=0)
    """Under way to ready."""
    claimed: int = Field(default=0, ge=0)
    """Claimed."""
    failed: int = Field(default=0, ge=0)
    """Builds that have failed and are not yet gone, and VMs that fail their checks."""
    retained: int = Field(default=0, ge=0)
    """Kept after their claim ended (`reclaimPolicy: Retain`), outside the pool's account."""
    revision: str = Field(default="", max_length=63)
    """Name of the template as it is now: a hash."""
    updated: int = Field(default=0, ge=0)
    """Unclaimed VMs of that revision."""
    server_group: str = Field(default="", max_length=255)
    """Id of the Nova server group that VMs are built in, with `template.groupHint`."""
    resolved: ResolvedTemplate | None = None
    """What `template.flavorRef` came to last. VMs are built from it also while the catalogue does
    not answer."""
    selector: str = Field(default="", max_length=512)
    """Label selector of the pool's WarmVMs, for the scale subresource."""
    state: str = Field(default="", max_length=63)
    """One word for `kubectl get`. Conditions are the contract."""
    claimable: Claimable = Field(default_factory=Claimable)
    """The largest claim of each mode now."""
    domains: list[DomainCount] = Field(default_factory=list, max_length=2000)
    """VMs per rack."""
    last_failure: Failure | None = None
    """The last failure, while it matters."""
    conditions: list[Condition] = Field(default_factory=list, max_length=16)
    """Ready, Progressing, CapacityAvailable, DependenciesResolved, Healthy, UpToDate, Balanced,
    RacksKnown."""


class WarmPool(Model):
    """Rules for one flavor of VM: how many are kept ready, where, how fast, how checked."""

    kind: ClassVar[Kind] = Kind.WARM_POOL

    metadata: Metadata
    spec: WarmPoolSpec
    """What the pool shall be."""
    status: WarmPoolStatus = Field(default_factory=WarmPoolStatus)
    """What the pool is. Written by the operator."""
