"""Connections whose end can be waited for.

Whoever closes a TLS connection says so and waits for the other's word, while the session it was
of is long closed: nobody can wait for that. A loop that is closed meanwhile leaves the socket open.
"""

import asyncio
import contextlib
import socket
import weakref
from typing import Final

from aiohttp.connector import AddrInfoType

GRACE: Final = 1.0
"""Seconds at most for the loop to notice that connections have been hung up."""

LOOK_EVERY: Final = 0.001


class Sockets:
    """Makes the sockets of sessions (`socket_factory`), and ends those that outlive them."""

    def __init__(self) -> None:
        self._made: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def __call__(self, address: AddrInfoType) -> socket.socket:
        """Make a socket, to be connected to this address."""
        family, kind, protocol, _, _ = address
        made = socket.socket(family, kind, protocol)
        self._made.add(made)
        return made

    async def hang_up(self) -> None:
        """Cut what is still open, and return when the loop has let go of it.

        To be called when the sessions are closed: a goodbye that has not come is not waited for.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                while still_open := [one for one in self._made if one.fileno() >= 0]:
                    for one in still_open:
                        with contextlib.suppress(OSError):  # not connected, or cut already
                            one.shutdown(socket.SHUT_RDWR)
                    await asyncio.sleep(LOOK_EVERY)
