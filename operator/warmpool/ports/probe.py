"""Does a VM answer?"""

from typing import Protocol


class Prober(Protocol):
    """Looks at VMs over the network. Never raises for a VM that does not answer."""

    async def tcp(self, address: str, port: int) -> bool:
        """Whether a TCP connection to this port is accepted within the prober's time."""
        ...
