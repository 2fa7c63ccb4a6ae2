"""Racks that Nova and Placement keep."""

from collections.abc import Awaitable, Callable
from typing import Final

from warmpool.domain.cloud import Topology
from warmpool.domain.errors import CloudError, RackSourceFailed
from warmpool.domain.racks import Host, Told
from warmpool.effects.racks.names import rack_name
from warmpool.ports.cloud import Cloud

REFRESH: Final = 60.0
"""Seconds between looks at what Nova says."""


class NovaSource:
    """One answer of the cloud's tells all racks."""

    def __init__(
        self, name: str, look: Callable[[], Awaitable[Topology]], key: Callable[[Host], str]
    ) -> None:
        """`key`: by which of its names a host is found in the answer."""
        self.name = name
        self.refresh = REFRESH
        self._look = look
        self._key = key

    async def ask(self, hosts: tuple[Host, ...]) -> Told:
        try:
            topology = await self._look()
        except CloudError as error:
            raise RackSourceFailed(str(error)) from error
        if not topology.visible:
            raise RackSourceFailed(topology.why_not)
        racks = topology.racks
        return Told({host.name: rack_name(racks.get(self._key(host))) or "" for host in hosts})

    async def close(self) -> None:
        """The cloud is not ours to close."""


def aggregate_source(name: str, cloud: Cloud, key: str) -> NovaSource:
    """Racks in the metadata of host aggregates."""
    return NovaSource(name, lambda: cloud.topology(key), lambda host: host.name)


def trait_source(name: str, cloud: Cloud, prefix: str) -> NovaSource:
    """Racks in the traits of hypervisors."""
    return NovaSource(name, lambda: cloud.traits(prefix), lambda host: host.hypervisor or host.name)
