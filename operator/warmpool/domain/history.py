"""What happened, as records for people: builds, removals from pools, claims, releases, leadership.

A record is made once, where the fact is decided, and never changed. Its id is made of what it tells
of, so a repeat is known as one. Times are in whole milliseconds, spans in seconds.

Every store of records answers the same two questions, so that what people see does not depend on
where it is kept: which records there are, and how many there are of each sort. The second is by
facets, of which each record has the same ones; a span counts by the step it falls into (see
`domain.spans`), so percentiles are the same from every store, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from warmpool.api.names import Reason
from warmpool.domain.cloud import Place
from warmpool.domain.ids import Ref
from warmpool.domain.spans import step_of


class RecordKind(StrEnum):
    """What a record tells of."""

    BUILD = "build"
    REMOVAL = "removal"
    CLAIM = "claim"
    RELEASE = "release"
    LEADERSHIP = "leadership"


class Facet(StrEnum):
    """What records are searched and counted by. Empty where a record has no such thing."""

    KIND = "kind"
    NAMESPACE = "namespace"
    """Of the pool; of a claim's record, the claim's own."""
    POOL = "pool"
    """`namespace/name`. A claim out of several pools has them all, joined by commas."""
    VM = "vm"
    """`namespace/name`."""
    CLAIM = "claim"
    """`namespace/name`."""
    ZONE = "zone"
    RACK = "rack"
    HYPERVISOR = "hypervisor"
    FLAVOR = "flavor"
    RESULT = "result"
    REASON = "reason"
    IDENTITY = "identity"
    SPAN = "span"
    """The step that the record's span falls into: of a build how long it took, of a claim its wait,
    of a removal how long the VM stood ready, of a release how long it was held, of the end of a
    leadership how long it lasted."""


class Result(StrEnum):
    """How it ended."""

    READY = "ready"
    """A build."""
    FAILED = "failed"
    """A build: there was a server, and it came to nothing."""
    REFUSED = "refused"
    """A build: the cloud took no server. A claim: it got nothing."""
    BOUND = "bound"
    """A claim."""
    BEGAN = "began"
    """A leadership."""
    ENDED = "ended"
    """A leadership."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A VM, as far as it was known."""

    uid: str
    ref: Ref
    pool: Ref
    server: str = ""
    """Nova's id."""
    flavor: str = ""
    """As the pool names it."""
    place: Place = field(default_factory=Place)


@dataclass(frozen=True, slots=True)
class Phases:
    """Seconds that each phase of a build took. None: it was not seen.

    Nova tells no moments, so scheduling, spawning and reachable are as fine as the polling.
    """

    queued: float | None = None
    """From the WarmVM to the POST."""
    post: float | None = None
    """Until Nova answered."""
    scheduling: float | None = None
    """Until the server had a host."""
    spawning: float | None = None
    """Until it was ACTIVE."""
    reachable: float | None = None
    """Until its probe passed; without a probe, until it was placed and had its addresses."""
    ready: float | None = None
    """Until that was written."""


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """One attempt to have a VM."""

    kind: ClassVar = RecordKind.BUILD

    id: str
    at: datetime
    """Its end."""
    vm: Machine
    image: str
    result: Result
    attempt: int
    """1, and one more for each build of the pool that has failed since the last that did not."""
    took: float | None = None
    """Seconds from the WarmVM to the end. None: it began under another leader."""
    reason: Reason | None = None
    """Why it failed."""
    blame: str = ""
    """Whose fault that is: capacity, hosts or vm."""
    message: str = ""
    """Why, in the cloud's words."""
    phases: Phases = field(default_factory=Phases)


@dataclass(frozen=True, slots=True)
class RemovalRecord:
    """A VM that was ready has left its pool: a claim has it, or it is deleted."""

    kind: ClassVar = RecordKind.REMOVAL

    id: str
    at: datetime
    vm: Machine
    why: Reason
    """Bound: by the claim. Deleting: with its pool, or by somebody's hand."""
    claim: Ref | None = None
    claim_uid: str = ""
    stood: float | None = None
    """Seconds that it was ready."""


@dataclass(frozen=True, slots=True)
class AskRecord:
    """So many VMs out of one pool."""

    name: str
    pool: Ref
    count: int


@dataclass(frozen=True, slots=True)
class ClaimRecord:
    """A claim has its answer."""

    kind: ClassVar = RecordKind.CLAIM

    id: str
    at: datetime
    claim: Ref
    uid: str
    asks: tuple[AskRecord, ...]
    mode: str
    on_unsatisfied: str
    result: Result
    reason: Reason
    message: str
    """Where its VMs are, or what is short, in numbers."""
    wait: float
    """Seconds from when it was first seen to the answer."""
    waited: bool = False
    """It was told to wait before: there was nothing for it at first."""

    @property
    def size(self) -> int:
        """VMs asked for."""
        return sum(ask.count for ask in self.asks)


@dataclass(frozen=True, slots=True)
class ReleaseRecord:
    """A claim has given a VM back."""

    kind: ClassVar = RecordKind.RELEASE

    id: str
    at: datetime
    vm: Machine
    claim: Ref
    claim_uid: str
    policy: str
    """What becomes of the VM: its reclaim policy."""


@dataclass(frozen=True, slots=True)
class LeadershipRecord:
    """A replica began to lead, or ended."""

    kind: ClassVar = RecordKind.LEADERSHIP

    id: str
    at: datetime
    identity: str
    epoch: int
    """Of the ledger: one more for each leadership."""
    result: Result
    led: float | None = None
    """Seconds, at the end."""


Record = BuildRecord | RemovalRecord | ClaimRecord | ReleaseRecord | LeadershipRecord


def span_of(record: Record) -> float | None:
    """The span that a record counts by, in seconds."""
    match record:
        case BuildRecord(took=span) | RemovalRecord(stood=span) | LeadershipRecord(led=span):
            return span
        case ClaimRecord(wait=span):
            return span
        case ReleaseRecord():  # pragma: no branch - there is no other record
            return None


def facets(record: Record) -> dict[Facet, str]:
    """What a record is searched and counted by. What is empty is left out."""
    span = span_of(record)
    found = {
        Facet.KIND: record.kind.value,
        Facet.SPAN: "" if span is None else str(step_of(span)),
        **_own_facets(record),
    }
    return {facet: value for facet, value in found.items() if value}


def _own_facets(record: Record) -> Mapping[Facet, str]:
    match record:
        case BuildRecord(vm=vm, result=result, reason=reason):
            return {**_of_vm(vm), Facet.RESULT: result, Facet.REASON: reason or ""}
        case RemovalRecord(vm=vm, why=why, claim=claim):
            return {**_of_vm(vm), Facet.REASON: why, Facet.CLAIM: str(claim) if claim else ""}
        case ReleaseRecord(vm=vm, claim=released):
            return {**_of_vm(vm), Facet.CLAIM: str(released)}
        case ClaimRecord(claim=claimed):
            return {
                Facet.NAMESPACE: claimed.namespace,
                Facet.POOL: ",".join(sorted({str(ask.pool) for ask in record.asks})),
                Facet.CLAIM: str(claimed),
                Facet.RESULT: record.result,
                Facet.REASON: record.reason,
            }
        case LeadershipRecord(identity=identity, result=result):  # pragma: no branch
            return {Facet.IDENTITY: identity, Facet.RESULT: result}


def _of_vm(vm: Machine) -> Mapping[Facet, str]:
    return {
        Facet.NAMESPACE: vm.pool.namespace,
        Facet.POOL: str(vm.pool),
        Facet.VM: str(vm.ref),
        Facet.ZONE: vm.place.zone,
        Facet.RACK: vm.place.rack,
        Facet.HYPERVISOR: vm.place.hypervisor,
        Facet.FLAVOR: vm.flavor,
    }
