"""What a CRD says beyond the fields: columns, rules, list types. One table entry per kind.

Every path is that of the object as users write it, `[]` standing for the items of a list. The
renderer refuses a path that the models do not have.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from warmpool.api.names import Kind


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`; a wide one shows with `-o wide` only."""

    name: str
    path: str
    description: str
    type: str = "string"
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """A CEL rule, and what it tells who breaks it: the field and the remedy.

    `at` is where `self` stands, `field` the child that the message is about. A rule that stands
    `for_pattern` checks the pattern of its field itself, so that the API server answers with the
    message and not with a regular expression.
    """

    at: str
    rule: str
    message: str
    field: str = ""
    for_pattern: bool = False

    @property
    def about(self) -> str:
        """The path of the field that the message is about."""
        return ".".join(part for part in (self.at, self.field) if part)


@dataclass(frozen=True, slots=True)
class Extras:
    """All of it for one kind.

    Lists: `keyed` ones merge by that key of their items, `sets` hold no duplicates, all others are
    atomic; `conditions` are keyed by type wherever they stand.
    """

    short_names: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    rules: tuple[Rule, ...] = ()
    keyed: Mapping[str, str] = field(default_factory=dict)
    sets: tuple[str, ...] = ()
    selectable: tuple[str, ...] = ()
    scalable: bool = False


AGE: Final = Column("Age", ".metadata.creationTimestamp", "Time since creation.", "date")


def _positive_duration(at: str, name: str) -> Rule:
    """Bounded to six digits a part, so that the CEL duration cannot overflow."""
    return Rule(
        at,
        "self.matches('^([0-9]{1,6}(h|m|s))+$') && duration(self) > duration('0s')",
        f"{name} must be a duration above zero: write it like 90s, 15m or 1h30m",
        for_pattern=True,
    )


def _unreserved(at: str, name: str) -> Rule:
    """Keys, or items, that look like the operator's own would be believed."""
    return Rule(
        at,
        f"!has(self.{name}) || self.{name}.all(k, !k.startsWith('warmpool.dev:'))",
        f"{name} must leave warmpool.dev: alone, with which the operator marks its servers: choose"
        " another prefix",
        field=name,
    )


def _share(at: str, name: str) -> Rule:
    return Rule(
        at,
        "type(self) == int || self.matches('^(100|[0-9]{1,2})%$')",
        f"{name} must be a number or a share: write it like 5 or 20%",
        for_pattern=True,
    )


WARM_POOL: Final = Extras(
    short_names=("wp",),
    columns=(
        Column("Desired", ".spec.replicas", "VMs to keep ready and unclaimed.", "integer"),
        Column("Ready", ".status.ready", "Ready and unclaimed.", "integer"),
        Column("Building", ".status.building", "Under way to ready.", "integer"),
        Column("Claimed", ".status.claimed", "Claimed.", "integer"),
        Column(
            "Racks",
            ".status.claimable.distinctRacks",
            "Largest claim that could have every VM on its own rack now.",
            "integer",
        ),
        Column(
            "Hypervisors",
            ".status.claimable.distinctHypervisors",
            "Largest claim that could have every VM on its own hypervisor now.",
            "integer",
        ),
        Column("State", ".status.state", "How the pool is, in a word."),
        AGE,
        Column("Flavor", ".spec.template.flavor", "Nova flavor.", wide=True),
        Column("FlavorRef", ".spec.template.flavorRef.name", "Catalogue entry.", wide=True),
        Column("Image", ".spec.template.image", "Glance image.", wide=True),
        Column("Cloud", ".spec.cloudRef.cloud", "Cloud that it builds in.", wide=True),
        Column("Revision", ".status.revision", "Template as it is now.", wide=True),
        Column("Failure", ".status.lastFailure.reason", "Why builds failed last.", wide=True),
    ),
    rules=(
        Rule(
            "",
            "self.metadata.name.size() <= 50 && !self.metadata.name.contains('.')",
            "metadata.name must have 50 characters at most and no dot, since the names of servers"
            " derive from it: choose a shorter or plainer name",
            field="metadata.name",
        ),
        Rule(
            "spec",
            "!has(self.maxSize) || self.maxSize >= self.replicas",
            "maxSize must not be below replicas: raise maxSize or lower replicas",
            field="maxSize",
        ),
        Rule(
            "spec",
            "!has(self.reserve) || self.reserve <= self.replicas",
            "reserve must not be above replicas: lower reserve or raise replicas",
            field="reserve",
        ),
        Rule(
            "spec.spread[]",
            "has(self.maxPerDomain) || has(self.minDomains) || has(self.maxSkew)",
            "a rule must say something: set maxPerDomain, minDomains or maxSkew",
        ),
        Rule(
            "spec",
            "!has(self.spread) || self.replicas == 0"
            " || self.spread.all(s, !has(s.minDomains) || s.minDomains <= self.replicas)",
            "minDomains must not be above replicas, since each domain needs a VM: lower minDomains"
            " or raise replicas",
            field="spread",
        ),
        Rule(
            "spec",
            "!has(self.spread) || !has(self.availabilityZones)"
            " || self.availabilityZones.size() == 0 || self.spread.all(s, s.domain != 'zone'"
            " || !has(s.minDomains) || s.minDomains <= self.availabilityZones.size())",
            "minDomains of zone must not be above the number of availabilityZones: lower it or name"
            " more zones",
            field="spread",
        ),
        Rule(
            "spec",
            "!has(self.spread) || !has(self.availabilityZones)"
            " || self.availabilityZones.size() == 0 || self.spread.all(s, s.domain != 'zone'"
            " || !has(s.maxPerDomain)"
            " || s.maxPerDomain * self.availabilityZones.size() >= self.replicas)",
            "maxPerDomain of zone leaves no place for all replicas in availabilityZones: raise it,"
            " name more zones, or lower replicas",
            field="spread",
        ),
        Rule(
            "spec.claims.namespaces",
            "has(self.from) && self.from == 'Selector'"
            " ? has(self.matchLabels) && size(self.matchLabels) > 0"
            " : !has(self.matchLabels) || size(self.matchLabels) == 0",
            "matchLabels goes with from: Selector, and from: Selector needs it: set both or"
            " neither",
            field="matchLabels",
        ),
        Rule(
            "spec",
            "!has(self.health.probe) || has(self.health.probe.none)"
            " || !has(self.template.networks) || self.template.networks.size() > 0",
            "health.probe needs an address to connect to, and template.networks is the empty list:"
            " name a network, leave networks out (Nova chooses), or leave the probe out",
            field="health.probe",
        ),
        Rule(
            "spec.health.probe",
            "[has(self.tcpSocket), has(self.httpGet), has(self.none)].filter(x, x).size() == 1",
            "a probe is one of tcpSocket, httpGet and none: keep one of them",
        ),
        Rule(
            "spec.cloudRef",
            "self == oldSelf",
            "cloudRef cannot be changed, since the VMs of the pool would be left behind in the"
            " former cloud: create another pool for the other cloud, then delete this one",
        ),
        _unreserved("spec.template", "metadata"),
        _unreserved("spec.template", "tags"),
        Rule(
            "spec.template",
            "has(self.flavorRef) != has(self.flavor) && has(self.flavor) == has(self.image)",
            "a template names flavorRef, or both flavor and image: keep one way",
        ),
        Rule(
            "spec.template",
            "!(has(self.userData) && has(self.userDataSecretRef))",
            "userData and userDataSecretRef exclude each other: keep one of them",
            field="userDataSecretRef",
        ),
        Rule(
            # At the template, since a rule at the string itself has its secrets printed back.
            "spec.template",
            "!has(self.userData) || (self.userData.size() % 4 == 0"
            " && self.userData.matches('^[A-Za-z0-9+/]*={0,2}$'))",
            "userData must be base64 without line breaks: encode it, as by `base64 -w0 <file>`",
            field="userData",
            for_pattern=True,
        ),
        _positive_duration("spec.health.launchTimeout", "launchTimeout"),
        _positive_duration("spec.health.period", "period"),
        _share("spec.health.maxUnhealthy", "maxUnhealthy"),
        _positive_duration("spec.expireAfter", "expireAfter"),
        _share("spec.updateStrategy.maxUnavailable", "maxUnavailable"),
        Rule(
            "spec.updateStrategy.maxUnavailable",
            "type(self) == int ? self > 0 : self != '0%'",
            "maxUnavailable must not be zero, since nothing could ever be replaced: write it like"
            " 1 or 20%, or choose type OnReplenish",
        ),
        _positive_duration("spec.refill.cycle", "cycle"),
    ),
    keyed={"spec.spread": "domain"},
    sets=("spec.availabilityZones", "spec.template.securityGroups", "spec.template.tags"),
    selectable=(".status.state",),
    scalable=True,
)

VM_CLAIM: Final = Extras(
    short_names=("vmc",),
    columns=(
        Column("Mode", ".spec.mode", "Placement that was asked for."),
        Column("Phase", ".status.phase", "Pending, Bound, Failed or Released."),
        Column("Placed", ".status.placed", "VMs, racks and hypervisors that it got."),
        Column("Reason", ".status.shortfall.reason", "Why it is not bound."),
        AGE,
        Column("Message", ".status.shortfall.message", "What is short, in numbers.", wide=True),
    ),
    rules=(
        Rule(
            "",
            "self.metadata.name.size() <= 63",
            "metadata.name must have 63 characters at most, since it is written as a label on the"
            " VMs: choose a shorter name",
            field="metadata.name",
        ),
        Rule(
            "spec",
            "self.requests == oldSelf.requests",
            "requests cannot be changed: create another claim for further VMs, or delete this one"
            " and create it anew",
            field="requests",
        ),
        Rule(
            "spec",
            "self.mode == oldSelf.mode",
            "mode cannot be changed: delete the claim and create it anew with the other mode",
            field="mode",
        ),
        Rule(
            "spec",
            "has(self.constraints) == has(oldSelf.constraints)"
            " && (!has(self.constraints) || self.constraints == oldSelf.constraints)",
            "constraints cannot be changed: delete the claim and create it anew",
            field="constraints",
        ),
        Rule(
            "spec",
            "has(self.onUnsatisfied) == has(oldSelf.onUnsatisfied)"
            " && (!has(self.onUnsatisfied) || self.onUnsatisfied == oldSelf.onUnsatisfied)",
            "onUnsatisfied cannot be changed: delete the claim and create it anew",
            field="onUnsatisfied",
        ),
        Rule(
            "spec",
            "has(self.timeout) == has(oldSelf.timeout)"
            " && (!has(self.timeout) || self.timeout == oldSelf.timeout)",
            "timeout cannot be changed: delete the claim and create it anew",
            field="timeout",
        ),
        Rule(
            "spec",
            "has(self.priority) == has(oldSelf.priority)"
            " && (!has(self.priority) || self.priority == oldSelf.priority)",
            "priority cannot be changed: delete the claim and create it anew",
            field="priority",
        ),
        Rule(
            "spec",
            "has(self.replaceLost) == has(oldSelf.replaceLost)"
            " && (!has(self.replaceLost) || self.replaceLost == oldSelf.replaceLost)",
            "replaceLost cannot be changed: delete the claim and create it anew",
            field="replaceLost",
        ),
        Rule(
            "spec",
            "has(self.metadata) == has(oldSelf.metadata)"
            " && (!has(self.metadata) || self.metadata == oldSelf.metadata)",
            "metadata cannot be changed: delete the claim and create it anew",
            field="metadata",
        ),
        _unreserved("spec", "metadata"),
        Rule(
            "spec",
            "!has(self.constraints) || self.constraints.all(c, !has(c.requests)"
            " || c.requests.all(n, self.requests.exists(r, r.name == n)))",
            "constraints[].requests must name requests of this claim: correct the name, or leave"
            " requests out to mean all of them",
            field="constraints",
        ),
        Rule(
            "spec.constraints[]",
            "has(self.maxPerDomain) || has(self.minDomains) || has(self.maxSkew)",
            "a constraint must say something: set maxPerDomain, minDomains or maxSkew",
        ),
        _positive_duration("spec.timeout", "timeout"),
        Rule(
            "spec.requests",
            "self.map(request, request.count).sum() <= 500",
            "requests must not come to more than 500 VMs in all: split them into several claims",
        ),
        Rule(
            "status",
            # Equal first: it is all that most writes need, and sets cost their product.
            "!has(oldSelf.allocation) || (has(self.allocation)"
            " && (self.allocation == oldSelf.allocation"
            " || (self.allocation.boundAt == oldSelf.allocation.boundAt"
            " && sets.contains(self.allocation.vms.map(vm, vm.uid + vm.serverID),"
            " oldSelf.allocation.vms.map(vm, vm.uid + vm.serverID)))))",
            "allocation cannot be changed once it is set: delete the claim to release its VMs",
            field="allocation",
        ),
        Rule(
            "status",
            "!has(self.phase) || self.phase != 'Bound' || has(self.allocation)",
            "phase Bound needs the allocation: write both at once",
            field="phase",
        ),
        Rule(
            "status",
            "!has(oldSelf.phase) || !(oldSelf.phase in ['Bound', 'Released'])"
            " || (has(self.phase) && self.phase in [oldSelf.phase, 'Released'])",
            "phase may go from Bound to Released only, and from Released nowhere: create another"
            " claim",
            field="phase",
        ),
    ),
    keyed={"spec.requests": "name", "status.allocation.vms": "uid"},
    selectable=(".spec.mode", ".status.phase"),
)

WARM_VM: Final = Extras(
    short_names=("wvm",),
    columns=(
        Column("Pool", ".spec.poolRef.name", "Pool that it belongs to."),
        Column("Phase", ".status.phase", "State of the machine."),
        Column("Claim", ".spec.claimRef.name", "Claim that it is bound to."),
        Column("Rack", ".status.rack", "Rack that it stands in."),
        Column("Hypervisor", ".status.hypervisor", "Hypervisor that it runs on."),
        Column("Zone", ".status.zone", "Availability zone that it stands in."),
        Column("IP", ".status.addresses[0]", "First address."),
        Column("Revision", ".spec.revision", "Template that it was built from."),
        AGE,
        Column("Server", ".status.serverID", "Nova's id of the server.", wide=True),
        Column("Fault", ".status.fault.reason", "Why it failed.", wide=True),
    ),
    rules=(
        Rule(
            "spec",
            "!has(oldSelf.claimRef) || !has(self.claimRef)"
            " || oldSelf.claimRef.uid == self.claimRef.uid",
            "claimRef cannot go from one claim to another: the VM is taken; release it first by"
            " removing claimRef",
            field="claimRef",
        ),
        Rule(
            "spec",
            "!has(oldSelf.providerID)"
            " || (has(self.providerID) && self.providerID == oldSelf.providerID)",
            "providerID cannot be changed once it is set, since its server would be forgotten:"
            " delete the WarmVM instead",
            field="providerID",
        ),
        Rule(
            "spec.poolRef",
            "self == oldSelf",
            "poolRef cannot be changed: delete the WarmVM, and the other pool builds its own",
        ),
    ),
    selectable=(
        ".spec.poolRef.name",
        ".spec.revision",
        ".spec.claimRef.name",
        ".status.phase",
    ),
)

VM_FLAVOR: Final = Extras(
    short_names=("vmf",),
    columns=(
        Column("Flavor", ".spec.flavor", "Nova flavor."),
        Column("Image", ".spec.image.name", "Glance image. Empty: the newest that fits."),
        Column("State", ".status.state", "Whether it means something to the pools that use it."),
        AGE,
        Column("FlavorID", ".status.resolved[0].flavorID", "For its first pool.", wide=True),
        Column("ImageID", ".status.resolved[0].imageID", "For its first pool.", wide=True),
        Column("Pool", ".status.resolved[0].pool", "Its first pool.", wide=True),
    ),
    rules=(
        _unreserved("spec", "metadata"),
        Rule(
            "spec.image",
            "has(self.name) != has(self.newest)",
            "an image is told by name or as the newest of some: keep one of them",
        ),
        Rule(
            "spec.image.newest",
            "(has(self.properties) && size(self.properties) > 0)"
            " || (has(self.tags) && size(self.tags) > 0)",
            "newest must say of which images: name properties or tags",
        ),
        Rule(
            "spec.projects[]",
            "has(self.projectID) != has(self.project)",
            "a project is told by projectID or by project: keep one of them",
        ),
        Rule(
            "spec.projects[]",
            "has(self.project) == has(self.domain)",
            "the name of a project goes with its domain, since names are unique within one only:"
            " say both",
        ),
    ),
    keyed={"status.resolved": "pool"},
    sets=("spec.image.newest.tags", "spec.projects[].roles"),
)

BINDING_LEDGER: Final = Extras(
    columns=(
        Column("Epoch", ".spec.epoch", "Number of the leader's term.", "integer"),
        Column("Holder", ".spec.holder", "Leader that wrote it last."),
        AGE,
    ),
    rules=(
        Rule(
            "spec",
            "self.epoch >= oldSelf.epoch",
            "epoch cannot go down: another leader has taken over; read the ledger anew and stop"
            " leading",
            field="epoch",
        ),
        Rule(
            "spec",
            "self.installation == oldSelf.installation",
            "installation cannot be changed, since every server carries it as a tag: restore the"
            " former value",
            field="installation",
        ),
    ),
)

EXTRAS: Final[Mapping[Kind, Extras]] = {
    Kind.WARM_POOL: WARM_POOL,
    Kind.VM_CLAIM: VM_CLAIM,
    Kind.WARM_VM: WARM_VM,
    Kind.VM_FLAVOR: VM_FLAVOR,
    Kind.BINDING_LEDGER: BINDING_LEDGER,
}
