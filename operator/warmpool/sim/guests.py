"""Guests that answer TCP: a listener on the address of every guest that is up."""

import asyncio
import ipaddress
import socket

from warmpool.sim.nova import Nova

BANNER = b"SSH-2.0-warmpool-sim\r\n"


class PortTaken(OSError):
    """The port of the guests is in use on an address of theirs."""


class Guests:
    """Opens and closes the ports of guests as a cloud says."""

    def __init__(self, nova: Nova, port: int) -> None:
        self._nova = nova
        self._first = str(next(ipaddress.ip_network(nova.spec.guests.network).hosts()))
        self.port = port or _free_port(self._first)
        self._listeners: dict[str, asyncio.Server] = {}

    async def sync(self) -> None:
        """Carry out what guests have done since the last time.

        Raises:
            PortTaken: somebody else listens there.
        """
        log = self._nova.world.guest_log
        while log:
            address, up = log.popleft()
            if up:
                await self._open(address)
            else:
                await self._close(address)

    async def close(self) -> None:
        """Close all."""
        for address in list(self._listeners):
            await self._close(address)

    async def _open(self, address: str) -> None:
        try:
            listener = await asyncio.start_server(_greet, address, self.port)
        except OSError as error:
            raise PortTaken(f"guests cannot answer on {address}:{self.port}: {error}") from error
        self._listeners[address] = listener

    async def _close(self, address: str) -> None:
        listener = self._listeners.pop(address, None)
        if listener is not None:
            listener.close()
            await listener.wait_closed()


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


async def _greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say hello and hang up, as a guest that lets nobody in."""
    try:
        writer.write(BANNER)
        await writer.drain()
    except ConnectionError:
        return
    finally:
        writer.close()
