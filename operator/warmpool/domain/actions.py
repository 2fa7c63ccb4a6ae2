"""What a pool can do: a closed union. Decided in `planning`, carried out in `reconcile`."""

from dataclasses import dataclass
from datetime import datetime

from warmpool.api.names import Reason
from warmpool.domain.cloud import Place, Server
from warmpool.domain.facts import Vm


@dataclass(frozen=True, slots=True)
class CreateVm:
    """Write a new WarmVM and have its server built."""

    zone: str
    """Availability zone to ask for; empty: Nova's choice."""
    hypervisor: str = ""
    """Hypervisor to ask for; empty: Nova's choice."""


@dataclass(frozen=True, slots=True)
class Build:
    """Look for the server of a WarmVM that has none; if there is none, POST it."""

    vm: Vm


@dataclass(frozen=True, slots=True)
class ReportBuilding:
    """A build takes long enough that people want to see its server."""

    vm: Vm
    server: Server


@dataclass(frozen=True, slots=True)
class MakeReady:
    """The server is ACTIVE and placed: probe it, and if it answers, the VM is ready."""

    vm: Vm
    server: Server


@dataclass(frozen=True, slots=True)
class Fail:
    """The build has failed: say why on the WarmVM, then discard it."""

    vm: Vm
    server: Server
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class InspectFault:
    """The server is in ERROR: read its fault, and fail the build for that reason."""

    vm: Vm
    server: Server


@dataclass(frozen=True, slots=True)
class Discard:
    """Delete the WarmVM; its finalizer holds it until the server is gone."""

    vm: Vm
    reason: Reason


@dataclass(frozen=True, slots=True)
class ConfirmLost:
    """A complete listing lacks the server: ask Nova about it alone, and discard on a 404."""

    vm: Vm


@dataclass(frozen=True, slots=True)
class Release:
    """The claim seems to be over: ask the API server, and if so do what the reclaim policy says."""

    vm: Vm


@dataclass(frozen=True, slots=True)
class MarkClaimed:
    """Write on the server whose it is: that outlives what the API server knows."""

    vm: Vm
    server: Server


@dataclass(frozen=True, slots=True)
class Keep:
    """Its server is a claim's by Nova's word, and not by ours: keep it until a person decides."""

    vm: Vm
    server: Server


@dataclass(frozen=True, slots=True)
class Rebuild:
    """A claim has used the VM: have Nova build its server anew."""

    vm: Vm
    server: Server


@dataclass(frozen=True, slots=True)
class Relocate:
    """The server stands elsewhere now: write that down."""

    vm: Vm
    server: Server
    place: Place


@dataclass(frozen=True, slots=True)
class Sicken:
    """A claimed VM does not work any more: say so on the WarmVM. It stays its claim's."""

    vm: Vm
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Recover:
    """A claimed VM that did not work works again."""

    vm: Vm
    server: Server


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a VM that should work."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Check:
    """See whether an unclaimed VM works: it becomes sick, stays so, or is ready again."""

    vm: Vm
    server: Server
    trouble: Trouble | None
    """What Nova says against it. None: nothing, so ask the VM itself."""


@dataclass(frozen=True, slots=True)
class Preserve:
    """It has failed: take it out of the pool's account, and keep it for looking at."""

    vm: Vm
    until: datetime


@dataclass(frozen=True, slots=True)
class Terminate:
    """The WarmVM is being deleted: delete its server, or if Nova has none, let the WarmVM go."""

    vm: Vm


Action = (
    CreateVm
    | Build
    | ReportBuilding
    | MakeReady
    | Fail
    | InspectFault
    | Discard
    | ConfirmLost
    | Release
    | MarkClaimed
    | Keep
    | Rebuild
    | Relocate
    | Sicken
    | Recover
    | Check
    | Preserve
    | Terminate
)
