"""Calls to a cloud and their answers, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import Final, Protocol

Microversion = tuple[int, int]

BASE_VERSION: Final[Microversion] = (2, 52)
"""The oldest Nova that is spoken to (Pike, 2017), and what every changing call asks for: tags at
create came last of what we need (networks auto and none 2.37, tags in lists 2.26). Not more, since
a newer version only refuses more."""

AIM_VERSION: Final[Microversion] = (2, 74)
"""Asked for where a server is to be built on a named hypervisor."""

HYPERVISORS_VERSION: Final[Microversion] = (2, 87)
"""Asked for where hypervisors are listed. From 2.88 on Nova asks each of them, and one that is dead
makes the whole call a 500 after its time-out."""

FLAVOR_VERSION: Final[Microversion] = (2, 61)
"""Asked for where a flavor is read: from here on its extra specs come with it."""

PLACEMENT_VERSION: Final[Microversion] = (1, 22)
"""Asked of Placement (Rocky, 2018): traits may be forbidden from here on."""

READ_VERSION: Final[Microversion] = (2, 90)
"""Asked for where servers are read, if the cloud has it: members see the host name of a server
from 2.90 on, and from 2.69 on Nova owns up to servers whose cell does not answer."""


class Service(StrEnum):
    """Services by their type in the catalogue."""

    COMPUTE = "compute"
    IMAGE = "image"
    NETWORK = "network"
    PLACEMENT = "placement"


class Effect(Enum):
    """What a call may have done when its answer is lost."""

    NONE = auto()
    """It reads."""
    CHANGE = auto()
    """It changes a server that is there."""
    BUILD = auto()
    """It builds one, which takes capacity."""


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP call."""

    name: str
    """The call in words, for messages and metrics: `create server`. From a small closed set."""
    path: str
    """Below the endpoint of the service, quoted."""
    method: str = "GET"
    service: Service = Service.COMPUTE
    effect: Effect = Effect.NONE
    query: Mapping[str, str] = field(default_factory=dict)
    json: object = None
    version: Microversion = BASE_VERSION
    """Microversion, of Nova and Placement. Above BASE_VERSION: as far as Nova has it."""
    withheld: tuple[str, ...] = ()
    """Values of the request that no message may repeat."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    call: Call
    status: int
    body: bytes
    date: str | None = None
    """The `Date` header."""


class Lookup(Protocol):
    """Reading calls, as resolving names needs them."""

    async def body(self, call: Call) -> bytes | None:
        """Body of a good answer. None: 404.

        Raises:
            CredentialsRefused: 401 or 403.
            CloudUnavailable: any other refusal, or no answer.
        """
        ...

    async def has(self, service: Service) -> bool:
        """Whether the project's catalogue has an endpoint of the service."""
        ...
