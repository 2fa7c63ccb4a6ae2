"""Racks that somebody keeps in a ConfigMap."""

from collections.abc import Mapping
from typing import Final

import yaml

from warmpool.domain.errors import ClusterError, RackSourceFailed
from warmpool.domain.racks import Host, Told
from warmpool.effects.racks.names import rack_name
from warmpool.ports.racks import ConfigMaps

REFRESH: Final = 15.0
"""Seconds after which a change of the ConfigMap is seen."""

WHOLE: Final = "racks.yaml"
"""Key whose value names many hosts at once. Keys of a ConfigMap themselves have few letters."""


class ConfigMapSource:
    """Host to rack, out of a ConfigMap."""

    def __init__(self, name: str, config_map: str, read: ConfigMaps) -> None:
        self.name = name
        self.refresh = REFRESH
        self._config_map = config_map
        self._read = read

    async def ask(self, hosts: tuple[Host, ...]) -> Told:
        try:
            data = await self._read(self._config_map)
        except ClusterError as error:
            raise RackSourceFailed(
                f"ConfigMap {self._config_map!r} cannot be read: {error}"
            ) from error
        known: dict[str, object] = {host: rack for host, rack in data.items() if host != WHOLE}
        known |= self._whole(data)
        racks = {host.name: rack_name(known.get(host.name)) for host in hosts}
        good = {host: rack for host, rack in racks.items() if rack is not None}
        return Told(good, f"ConfigMap {self._config_map!r} has values that are no names of racks")

    def _whole(self, data: Mapping[str, str]) -> dict[str, object]:
        try:
            parsed = yaml.safe_load(data.get(WHOLE, "{}"))
        except (yaml.YAMLError, ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, dict):
            raise RackSourceFailed(
                f"ConfigMap {self._config_map!r}: {WHOLE!r} is no YAML mapping of hosts to racks"
            )
        return {str(host): rack for host, rack in parsed.items()}

    async def close(self) -> None:
        """There is nothing to free."""
