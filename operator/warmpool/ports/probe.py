"""Does a VM answer?"""

from typing import Protocol

from warmpool.api.v1alpha1.pool import HTTPGet


class Prober(Protocol):
    """Looks at VMs over the network. Never raises for a VM that does not answer.

    Each answer is empty if the VM is up, or else says in a few words what it did instead: the
    words are ours, never the VM's.
    """

    async def tcp(self, address: str, port: int) -> str:
        """Whether a TCP connection to this port is accepted within the prober's time."""
        ...

    async def http(self, address: str, ask: HTTPGet) -> str:
        """Whether an HTTP request is answered with a status from 200 to 399 within that time."""
        ...
