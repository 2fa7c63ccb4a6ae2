"""Where a site keeps the racks of its hosts."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from warmpool.domain.racks import Host, Told
from warmpool.ports.cloud import Cloud


class RackSource(Protocol):
    """One place that knows racks. Asked in the background: nobody who builds or binds waits for it.

    What it answers was parsed, and is bounded: names of at most 255 printable characters.
    """

    @property
    def name(self) -> str:
        """For people; unique in its chain."""
        ...

    @property
    def refresh(self) -> float:
        """Seconds for which an answer is good enough."""
        ...

    async def ask(self, hosts: tuple[Host, ...]) -> Told:
        """The racks of these hosts, as far as it can tell now.

        It names no other hosts. It ends by itself in bounded time, and may be cancelled.

        Raises:
            RackSourceFailed: it could tell nothing at all. The text is for people and holds no
                secret.
        """
        ...

    async def close(self) -> None:
        """Free connections."""
        ...


ConfigMaps = Callable[[str], Awaitable[Mapping[str, str]]]
"""Name of a ConfigMap beside the cloud's Secret, to its data. Raises ClusterError."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What sources are opened from."""

    cloud: str
    """Name of the cloud in clouds.yaml."""
    secret: Mapping[str, bytes]
    """Data of the cloud's Secret: racks.yaml, tokens and certificates."""
    project: Cloud
    """With the credentials that build."""
    open_cloud: Callable[[str], Cloud]
    """Name of another entry of clouds.yaml to a connection. Raises CloudError."""
    config_map: ConfigMaps


@dataclass(frozen=True, slots=True)
class Chain:
    """The sources of one cloud, the weightiest first, and who may see its hosts."""

    inventory: Cloud
    """With credentials that may see hosts, or else those that build."""
    sources: tuple[RackSource, ...]


OpenRacks = Callable[[Surroundings], Chain]
"""Raises RackConfigInvalid: racks.yaml cannot be used."""
