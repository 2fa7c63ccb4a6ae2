"""Racks that somebody keeps in a ConfigMap."""

import asyncio
from typing import Final

from warmpool.domain.errors import ClusterError, RackSourceFailed
from warmpool.domain.racks import Host, Told
from warmpool.effects.plain_yaml import KeyTwiceError, NotPlainYamlError, parse
from warmpool.effects.racks.names import rack_name
from warmpool.ports.racks import ConfigMaps

REFRESH: Final = 15.0
"""Seconds after which a change of the ConfigMap is seen."""

WHOLE: Final = "racks.yaml"
"""Key whose value names many hosts at once. Keys of a ConfigMap themselves have few letters."""

MAX_TEXT: Final = 512 * 1024
"""Characters of that value: some twenty thousand hosts."""


class ConfigMapSource:
    """Host to rack, out of a ConfigMap."""

    def __init__(self, name: str, config_map: str, read: ConfigMaps) -> None:
        self.name = name
        self.refresh = REFRESH
        self._config_map = config_map
        self._read = read
        self._text = "{}"
        """What was parsed last."""
        self._parsed: dict[str, object] | str = {}
        """Host to rack, or what is wrong."""

    async def ask(self, hosts: tuple[Host, ...]) -> Told:
        try:
            data = await self._read(self._config_map)
        except ClusterError as error:
            raise RackSourceFailed(
                f"ConfigMap {self._config_map!r} cannot be read: {error}"
            ) from error
        known: dict[str, object] = {host: rack for host, rack in data.items() if host != WHOLE}
        known |= await self._whole(data.get(WHOLE, "{}"))
        racks = {host.name: rack_name(known.get(host.name)) for host in hosts}
        good = {host: rack for host, rack in racks.items() if rack is not None}
        return Told(good, f"ConfigMap {self._config_map!r} has values that are no names of racks")

    async def _whole(self, text: str) -> dict[str, object]:
        """Parsed when it has changed, and beside the loop: a large one takes seconds."""
        if text != self._text:
            self._parsed = await asyncio.to_thread(_mapping, text)
            self._text = text
        if isinstance(self._parsed, str):
            raise RackSourceFailed(f"ConfigMap {self._config_map!r}: {WHOLE!r} {self._parsed}")
        return self._parsed

    async def close(self) -> None:
        """There is nothing to free."""


def _mapping(text: str) -> dict[str, object] | str:
    """Host to what shall be its rack, or what is wrong."""
    try:
        parsed = parse(text, MAX_TEXT)
    except KeyTwiceError as error:
        return f"{error}: {error.key[:100]!r}"
    except NotPlainYamlError as error:
        return str(error)
    if not isinstance(parsed, dict):
        return "is no mapping of hosts to racks"
    return {str(host): rack for host, rack in parsed.items()}
