"""JSON over HTTP from strangers: bounded in time, size and where it may lead."""

import asyncio
import functools
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import aiohttp
import orjson
from aiohttp.connector import AddrInfoType

from warmpool.domain.errors import RackSourceFailed
from warmpool.effects.sockets import Sockets

MAX_BODY: Final = 4 * 1024 * 1024
"""Bytes of one answer."""

CONNECTIONS: Final = 8
"""Requests to one source at a time."""

ENOUGH: Final = 60.0
"""Seconds after which a source that takes many requests tells what it knows so far: well before it
is given up, and all that with it."""

GOOD: Final = 200
NOT_FOUND: Final = 404
REFUSED: Final = (401, 403)


class Web:
    """A client for one source. Its errors hold the address, and neither query nor token."""

    def __init__(
        self,
        *,
        headers: Mapping[str, str],
        timeout: float,
        certificates: str | None,
        loopback: bool,
    ) -> None:
        """`certificates`: PEM of those to trust; None: the system's."""
        self._headers = {"Accept": "application/json", "User-Agent": "warmpool", **headers}
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._tls = _trusting(certificates)
        self._session: aiohttp.ClientSession | None = None
        self._sockets = Sockets()
        self._loopback = loopback
        self.slots = asyncio.Semaphore(CONNECTIONS)

    async def get(self, url: str) -> Any:
        """The JSON at a URL; None: 404.

        Raises:
            RackSourceFailed: any other answer, or none.
        """
        where = _shown(url)
        try:
            async with self.slots, self._client().get(url, allow_redirects=False) as response:
                body = await _bounded(response, where)
                status = response.status
        except TimeoutError as error:
            seconds = self._timeout.total
            raise RackSourceFailed(f"{where}: no answer within {seconds:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            reason = getattr(error, "os_error", error)
            said = str(reason) if isinstance(reason, _Barred) else type(error).__name__
            raise RackSourceFailed(f"{where}: no connection ({said})") from error
        if status == NOT_FOUND:
            return None
        if status in REFUSED:
            raise RackSourceFailed(f"{where}: {status}: the token is refused or missing")
        if status != GOOD:
            raise RackSourceFailed(f"{where}: answered {status}")
        try:
            return await asyncio.to_thread(orjson.loads, body)
        except orjson.JSONDecodeError as error:
            raise RackSourceFailed(f"{where}: the answer is no JSON") from error

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=CONNECTIONS,
                ssl=self._tls,
                keepalive_timeout=30,
                socket_factory=self._socket,
            )
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=self._timeout, headers=self._headers, trust_env=False
            )
        return self._session

    def _socket(self, address: AddrInfoType) -> socket.socket:
        """Every connection begins here, whether a URL or a resolver has named the address."""
        if why := barred(str(address[4][0]), loopback=self._loopback):
            raise _Barred(f"{why} may not be asked")
        return self._sockets(address)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            await self._sockets.hang_up()


class Patience:
    """How long one round of requests may go on."""

    def __init__(self) -> None:
        self._time = asyncio.get_running_loop().time
        self._end = self._time() + ENOUGH

    def is_over(self) -> bool:
        """Whether what is known so far is to be told."""
        return self._time() >= self._end


@functools.cache
def _trusting(certificates: str | None) -> ssl.SSLContext:
    """One for all: reading the system's certificates takes long enough for others to notice."""
    return ssl.create_default_context(cadata=certificates)


class _Barred(OSError):
    """The text says why."""


def barred(address: str, *, loopback: bool) -> str:
    """What kind of address this is that may not be asked. Empty: it may, or is a name.

    Who writes the Secret has the operator fetch what they like; what a cloud tells the operator's
    own machine at 169.254.169.254, and what listens there for nobody else, is not for them.
    """
    try:
        one = ipaddress.ip_address(address.partition("%")[0].strip("[]"))
    except ValueError:
        return ""
    one = getattr(one, "ipv4_mapped", None) or one
    if one.is_link_local:
        return "a link-local address"
    is_own = one.is_loopback or one.is_unspecified
    return "an address of the operator's own machine" if is_own and not loopback else ""


async def _bounded(response: aiohttp.ClientResponse, where: str) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(65_536):
        body += chunk
        if len(body) > MAX_BODY:
            raise RackSourceFailed(f"{where}: the answer is longer than {MAX_BODY} bytes")
    return bytes(body)


def _shown(url: str) -> str:
    """What a message may say of a URL: tokens stand in queries."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"[:200]


def origin(url: str) -> tuple[str, str]:
    """Where a token may be sent: scheme and authority."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def next_page(url: str, following: str) -> str:
    """Where the page after this one is, as this one says.

    Raises:
        RackSourceFailed: on another server.
    """
    target = urljoin(url, following)
    if origin(target) != origin(url):
        raise RackSourceFailed("the next page is on another server: it gets no token of ours")
    return target
