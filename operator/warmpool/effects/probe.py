"""Probes over the network, as `ports.probe` asks."""

import asyncio
from typing import Final

CONNECT_TIMEOUT: Final = 2.0
"""Seconds for a connection within a data center."""

AT_ONCE: Final = 100
"""Probes in flight: each holds a socket."""


class NetworkProber:
    """Opens connections and closes them again."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def tcp(self, address: str, port: int) -> bool:
        async with self._slots:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    _, writer = await asyncio.open_connection(address, port)
            except (OSError, TimeoutError):
                return False
            writer.close()
            return True
