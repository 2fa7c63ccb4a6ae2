"""What can be made to go wrong, as values that are switched on and off at run time.

A fault lasts until it is removed, for `count` strikes, or for `seconds`, whichever ends first.
Patterns are regular expressions that may match anywhere, as Nova's own filters do.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from pydantic import Field, StringConstraints, TypeAdapter

from warmpool.sim.spec import Seconds, Spec

Pattern = Annotated[str, StringConstraints(max_length=500)]


class Fault(Spec):
    """What all faults have."""

    count: int | None = Field(default=None, ge=1)
    """Strikes until it is over. Unset: without bound."""
    seconds: float | None = Field(default=None, gt=0)
    """Seconds until it is over. Unset: without end."""


class ApiFault(Fault):
    """HTTP calls go wrong."""

    kind: Literal["api"] = "api"
    method: Pattern = ""
    path: Pattern = ""
    """Pattern of the path with its service: `^/compute/v2.1/servers$`."""
    skip: int = Field(default=0, ge=0)
    """So many calls that match are let through first."""
    effect: Literal["status", "slow", "drop", "lost"]
    """`status`: answered with an error, nothing done. `slow`: done after a delay. `drop`: the
    connection is closed, nothing done. `lost`: it is closed after the work was done."""
    status: int = Field(default=500, ge=400, le=599)
    message: str = ""
    retry_after: int | None = Field(default=None, ge=0)
    delay: Seconds = (1.0, 1.0)


class SpawnFault(Fault):
    """Builds go wrong."""

    kind: Literal["spawn"] = "spawn"
    name: Pattern = ""
    """Pattern of the server's name."""
    host: Pattern = ""
    """Pattern of the hypervisor's name. `vanish` knows no host and ignores it."""
    effect: Literal["fail", "abort", "hang", "vanish"]
    """`fail`: this attempt fails, and Nova tries another hypervisor. `abort`: ERROR at once, with
    `message`. `hang`: it stays in BUILD. `vanish`: accepted, but there is never a server."""
    message: str = (
        "Build of instance {id} aborted: Failed to allocate the network(s), not rescheduling."
    )
    """Text of the fault of `abort`, or of the last exception of `fail`. `{id}` is the server."""


class DeleteFault(Fault):
    """Deletions go wrong."""

    kind: Literal["delete"] = "delete"
    name: Pattern = ""
    effect: Literal["hang", "ignored"]
    """`hang`: it stays in task_state deleting. `ignored`: 204, and nothing happens."""

    def suits(self, name: str) -> bool:
        return re.search(self.name, name) is not None


class ActionFault(Fault):
    """Actions on servers go wrong after they were accepted."""

    kind: Literal["action"] = "action"
    name: Pattern = ""
    action: Pattern = ""
    """Pattern of the action's key: `^os-migrateLive$`."""
    effect: Literal["fail", "hang"]
    """`fail`: the server is back as it was, with no fault. A rebuild ends in ERROR. `hang`: its
    task never ends."""

    def suits(self, name: str, action: str) -> bool:
        return bool(re.search(self.name, name) and re.search(self.action, action))


class ListFault(Fault):
    """Listings of servers lie. Every page is a strike."""

    kind: Literal["list"] = "list"
    effect: Literal["cut", "half", "duplicates", "empty"]
    """`cut`: ends after the first page without a link. `half`: every other server is missing.
    `duplicates`: each page after the first begins with the last server of the one before.
    `empty`: there is none."""


class OutageFault(Fault):
    """A part of the control plane is away."""

    kind: Literal["outage"] = "outage"
    count: None = Field(default=None)
    """An outage strikes everything: it has no count."""
    effect: Literal["scheduler", "credentials"]
    """`scheduler`: POSTs are accepted and stay in scheduling until it is over. `credentials`: no
    password is right, and no token is good."""


AnyFault = Annotated[
    ApiFault | SpawnFault | DeleteFault | ActionFault | ListFault | OutageFault,
    Field(discriminator="kind"),
]
F = TypeVar("F", bound=Fault)

_ADAPTER: TypeAdapter[AnyFault] = TypeAdapter(AnyFault)


def parse_fault(document: object) -> AnyFault:
    """A fault from JSON.

    Raises:
        ValueError: it is none, or one of its patterns is no regular expression.
    """
    fault = _ADAPTER.validate_python(document)
    _check_patterns(fault)
    return fault


def _check_patterns(fault: Fault) -> None:
    for key in ("name", "host", "method", "path", "action"):
        pattern = getattr(fault, key, "")
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{key}: {pattern!r} is no regular expression: {error}") from None


@dataclass(slots=True)
class Armed:
    """A fault that is switched on."""

    id: int
    fault: Fault
    until: float | None
    strikes: int = 0
    passed: int = 0


class Faults:
    """The faults that are switched on. `now` tells the moment that is being simulated."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._armed: dict[int, Armed] = {}
        self._numbers = 0

    def add(self, fault: Fault) -> int:
        """Switch a fault on. Returns its number.

        Raises:
            ValueError: one of its patterns is no regular expression.
        """
        _check_patterns(fault)
        self._numbers += 1
        until = None if fault.seconds is None else self._now() + fault.seconds
        self._armed[self._numbers] = Armed(self._numbers, fault, until)
        return self._numbers

    def remove(self, number: int) -> bool:
        """Switch one off. False: there is none of this number, or it is over."""
        return self._armed.pop(number, None) is not None

    def clear(self) -> None:
        """Switch all off."""
        self._armed.clear()

    def armed(self) -> tuple[Armed, ...]:
        """Those that are on, the oldest first."""
        now = self._now()
        for over in [a.id for a in self._armed.values() if a.until is not None and a.until <= now]:
            del self._armed[over]
        return tuple(self._armed.values())

    def strike(self, kind: type[F], suits: Callable[[F], bool]) -> F | None:
        """The oldest fault of the kind that suits. It has struck once more then."""
        for armed in self.armed() if self._armed else ():
            if isinstance(armed.fault, kind) and suits(armed.fault):
                return self._struck(armed, armed.fault)
        return None

    def api(self, method: str, path: str) -> tuple[ApiFault, ...]:
        """All that strikes this call: delays, and at most one that ends it."""
        struck: list[ApiFault] = []
        for armed in self.armed() if self._armed else ():
            fault = armed.fault
            if not isinstance(fault, ApiFault) or not _suits_call(fault, method, path):
                continue
            armed.passed += 1
            if armed.passed <= fault.skip:
                continue
            struck.append(self._struck(armed, fault))
            if fault.effect != "slow":
                break
        return tuple(struck)

    def spawn(self, name: str, host: str | None) -> SpawnFault | None:
        """What strikes a build of this name on this host, or, without a host, its acceptance."""

        def suits(fault: SpawnFault) -> bool:
            if (fault.effect == "vanish") != (host is None):
                return False
            on_host = host is None or re.search(fault.host, host) is not None
            return on_host and re.search(fault.name, name) is not None

        return self.strike(SpawnFault, suits)

    def away(self, what: str) -> bool:
        """Whether this part of the control plane is away."""
        return any(
            isinstance(armed.fault, OutageFault) and armed.fault.effect == what
            for armed in (self.armed() if self._armed else ())
        )

    def _struck(self, armed: Armed, fault: F) -> F:
        armed.strikes += 1
        if fault.count is not None and armed.strikes >= fault.count:
            del self._armed[armed.id]
        return fault


def _suits_call(fault: ApiFault, method: str, path: str) -> bool:
    return bool(re.search(fault.method, method) and re.search(fault.path, path))
