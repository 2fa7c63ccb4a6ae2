"""Probes over the network, as `ports.probe` asks."""

import asyncio
import re
import ssl
from typing import Final

from warmpool.api.v1alpha1.pool import HTTPGet, Scheme

PROBE_TIMEOUT: Final = 2.0
"""Seconds for a whole probe within a data center."""

AT_ONCE: Final = 100
"""Probes in flight: each holds a socket."""

MAX_LINE: Final = 1024
"""Bytes of a status line that are read. What follows it is never read."""

GOOD: Final = range(200, 400)

_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r\n]")


class NetworkProber:
    """Opens connections and closes them again."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._tls = _unverified()

    async def tcp(self, address: str, port: int) -> str:
        try:
            async with self._slots, asyncio.timeout(PROBE_TIMEOUT):
                _, writer = await asyncio.open_connection(address, port)
        except TimeoutError:
            return f"port {port} does not answer"
        except OSError:
            return f"port {port} refuses connections"
        writer.close()
        return ""

    async def http(self, address: str, ask: HTTPGet) -> str:
        try:
            async with self._slots, asyncio.timeout(PROBE_TIMEOUT):
                status = await self._status(address, ask)
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return f"port {ask.port} does not answer {ask.scheme.value}"
        except OSError:  # ssl.SSLError is one
            return f"port {ask.port} refuses {ask.scheme.value} connections"
        if status is None:
            return f"port {ask.port} does not speak {ask.scheme.value}"
        return "" if status in GOOD else f"port {ask.port} answers {status} to {ask.path}"

    async def _status(self, address: str, ask: HTTPGet) -> int | None:
        """The status of the answer; None: it is no HTTP."""
        tls = self._tls if ask.scheme is Scheme.HTTPS else None
        reader, writer = await asyncio.open_connection(address, ask.port, ssl=tls, limit=MAX_LINE)
        try:
            writer.write(_request(address, ask))
            await writer.drain()
            found = _STATUS.match(await reader.readuntil(b"\n"))
        finally:
            writer.transport.abort()  # whatever else it says, nobody reads
        return int(found[1]) if found else None


def _request(address: str, ask: HTTPGet) -> bytes:
    host = f"[{address}]" if ":" in address else address
    lines = (
        f"GET {ask.path} HTTP/1.1",
        f"Host: {host}:{ask.port}",
        "User-Agent: warmpool-probe",
        "Accept: */*",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode("ascii")


def _unverified() -> ssl.SSLContext:
    """A fresh VM has a certificate that nobody knows."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
