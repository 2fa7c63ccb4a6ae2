"""kopf as a host: its settings, its login, its start and end."""

import asyncio
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from typing import Any, Final

import aiohttp
import kopf
from aiohttp.connector import AddrInfoType

from warmpool.api.names import KOPF_FINALIZER
from warmpool.handlers.intake import Post, Take, sieved
from warmpool.ports.cluster import Login
from warmpool.reconcile.vitals import Beat, Vitals

STREAM_WITHIN: Final = 450.0
"""Seconds within which a stream is opened anew: after 330 at most, and a LIST may come before."""

LOGIN_EVERY: Final = 1.0
"""Seconds between two logins while the API server refuses them."""

OpenSocket = Callable[[AddrInfoType], socket.socket]
"""Make a socket that can be connected to an address."""

LAST_BACKOFF: Final = 3.0
"""Seconds between two attempts to reach an API server that has been away for a while."""


class _NoDiffs(kopf.DiffBaseStorage):
    """Nothing of kopf's is kept on our objects."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        pass


class _NoProgress(kopf.ProgressStorage):
    """Nothing of kopf's is kept on our objects."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        pass

    def purge(self, **_: Any) -> None:
        pass

    def touch(self, **_: Any) -> None:
        pass

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


class _Patience:
    """Seconds between attempts to reach an API server, without end.

    When they are used up kopf stops, and with it a replica that has all objects in memory; and
    what an outage ends must not be seen half a minute late.
    """

    def __iter__(self) -> Iterator[float]:
        yield from (0.1, 0.2, 0.5, 1, 2)
        while True:
            yield LAST_BACKOFF


def kopf_settings() -> kopf.OperatorSettings:
    """How kopf runs: it watches and calls, and writes nothing."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 5
    settings.watching.inactivity_timeout = 70
    settings.watching.reconnect_backoff = 0.1
    settings.watching.chunk_size = 500  # thousands of objects at once would stop the loop
    settings.queueing.idle_timeout = 2
    settings.queueing.exit_timeout = 2
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = _Patience()
    settings.persistence.finalizer = KOPF_FINALIZER
    settings.persistence.diffbase_storage = _NoDiffs()
    settings.persistence.progress_storage = _NoProgress()
    settings.process.ultimate_exiting_timeout = 60
    return settings


class Streams:
    """The watch streams' pulses, taken from the requests that kopf makes.

    Events tell nothing: there may be none for hours. But a stream that is well is opened anew
    before long, and one that cannot be opened is tried again and again.
    """

    def __init__(self, vitals: Vitals, post: Post, relisted: Callable[[], None]) -> None:
        """`relisted` is told that a stream has begun anew, with a LIST.

        Of objects that vanished meanwhile kopf tells nobody, and of an empty LIST nothing at all.
        """
        self._vitals = vitals
        self._post = post
        self._relisted = relisted
        self._beats: dict[str, Beat] = {}

    @contextmanager
    def taken(self, resources: Iterable[str]) -> Iterator[None]:
        """While inside, these resources are watched."""
        with ExitStack() as pulses:
            for resource in resources:
                pulse = self._vitals.pulse(f"watch of {resource}", STREAM_WITHIN)
                self._beats[resource] = pulses.enter_context(pulse)
            yield

    def trace(self) -> aiohttp.TraceConfig:
        """To be built into the session that kopf uses."""
        trace = aiohttp.TraceConfig()
        trace.on_request_start.append(self._asked)
        trace.on_request_end.append(self._answered)
        return trace

    async def _asked(
        self, _session: Any, _context: Any, params: aiohttp.TraceRequestStartParams
    ) -> None:
        beat = self._beats.get(params.url.name)
        if beat is not None:
            beat()

    async def _answered(
        self, _session: Any, _context: Any, params: aiohttp.TraceRequestEndParams
    ) -> None:
        if params.url.name not in self._beats or params.response.status != HTTPStatus.OK:
            return
        if "watch" in params.url.query:
            self._post(self._vitals.has, unwatched(params.url.name))
        else:
            self._post(self._relisted)


def unwatched(resource: str) -> str:
    """Why a replica is not ready before it watches this resource."""
    return f"{resource} are not watched yet"


def _register_login(
    registry: kopf.OperatorRegistry,
    login: Login,
    streams: Streams,
    take: Take,
    open_socket: OpenSocket,
) -> None:
    """Kopf speaks to the API server with the same credentials as we do, in a session of its own."""
    before: list[float] = []

    @kopf.on.login(id="login", registry=registry)
    async def log_in(**_: Any) -> kopf.AiohttpSession:
        clock = asyncio.get_running_loop()
        if before:  # refused: kopf asks again at once, and would do so without end
            await asyncio.sleep(before.pop() + LOGIN_EVERY - clock.time())
        before.append(clock.time())
        where = login.endpoint
        info = kopf.ConnectionInfo(
            server=where.server,
            ca_path=where.ca_path,
            insecure=where.insecure,
            token=await login.token(),
            scheme="Bearer",
            certificate_path=where.certificate_path,
            private_key_path=where.private_key_path,
        )
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, ssl=info.as_ssl_context(), socket_factory=open_socket
            ),
            headers=info.as_http_headers(),
            trace_configs=[streams.trace()],
            response_class=sieved(take),
        )
        return kopf.AiohttpSession(server=info.server, aiohttp_session=session)


def unless_closing(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Tell of what nobody has caught, but not of generators that the end of the loop closes.

    A stream that was cancelled while it showed an event is left to that, and it closes all that
    there are at once: some, which others hold open and close too, complain of being closed twice.
    """
    if "asyncgen" not in context:
        loop.default_exception_handler(context)


async def watch(  # noqa: PLR0913 - what it runs, and what with
    register: Callable[[kopf.OperatorRegistry], None],
    resources: Iterable[str],
    login: Login,
    streams: Streams,
    stop: asyncio.Event,
    *,
    take: Take,
    open_socket: OpenSocket,
) -> None:
    """Run kopf until `stop` is set, in a loop of its own or of the operator's.

    `register` enters the handlers, which watch these resources; what `take` takes in does not get
    as far as them. What `open_socket` made may be open at the end: TLS connections say goodbye
    after their session is closed.
    """
    asyncio.get_running_loop().set_exception_handler(unless_closing)
    registry = kopf.OperatorRegistry()
    _register_login(registry, login, streams, take, open_socket)
    register(registry)
    with streams.taken(resources):
        await kopf.operator(
            registry=registry, settings=kopf_settings(), stop_flag=stop, clusterwide=True
        )
