"""A TCP proxy between one client and the API server: it cuts, holds, loses or delays, at will.

It passes bytes on and knows nothing of TLS, so what it breaks looks as it does when networks do.
It runs in a thread of its own. A client is led through it by a kubeconfig of its own.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from enum import Enum, auto
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import yaml

from warmpool.tools.kubeconfig import write_private

CHUNK: Final = 65536

RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER that makes a close a reset."""

STARTED_WITHIN: Final = 10.0

ENDING: Final = 0.05
"""Seconds between two looks at connections that are to end."""

SLOWNESS: Final = 0.15
"""Seconds that every chunk takes more where things are slow."""


class Mode(Enum):
    """What becomes of bytes and of new connections."""

    PASS = auto()
    HANG = auto()
    """Nothing passes, nothing is closed; new connections are accepted and get no answer. What was
    held arrives later, though who sent it may be dead by then."""
    DEAF = auto()
    """What clients send arrives, and the answers do not come back."""
    DUMB = auto()
    """What the server says arrives, and what clients send is held until it is over."""
    REFUSE = auto()
    """Connections are reset, the old ones and the new."""
    SWALLOW = auto()
    """Nothing ever arrives, and connections that lost something are reset when it is over."""
    LAG = auto()
    """What the server says is held on connections that nobody asks anything on: watches that are
    there already stand still, and all else goes on."""
    SLOW = auto()
    """All arrives, late."""


HELD: Final = {Mode.HANG: (True, False), Mode.DEAF: (False,), Mode.DUMB: (True,)}
"""Which bytes stand still: those to the server (True), those back."""


class Proxy:
    """One address that leads to another. A context manager; all methods may be called anywhere."""

    def __init__(self, url: str) -> None:
        """`url`: of the API server, `https://127.0.0.1:6443`."""
        address = urlsplit(url)
        assert address.hostname is not None
        self._target = address.hostname, address.port or 443
        self._mode = Mode.PASS
        self._passing: dict[bool, asyncio.Event] = {}
        """Whether bytes pass: to the server (True), and back."""
        self._links: set[_Link] = set()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self.port = 0
        self.served = 0
        """Connections that there were so far."""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(STARTED_WITHIN), "the proxy does not start"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def kubeconfig(self, original: Path, path: Path) -> Path:
        """Write a copy of a kubeconfig that leads here. The server's certificate names no port."""
        document = yaml.safe_load(original.read_text(encoding="utf-8"))
        for entry in document["clusters"]:
            entry["cluster"]["server"] = self.url
        write_private(path, yaml.safe_dump(document))
        return path

    # -- breaking and mending -----------------------------------------------------------------

    def cut(self) -> None:
        """Reset the connections that there are; new ones are served."""
        self._do(self._reset)

    def hang(self) -> None:
        self._set(Mode.HANG)

    def deafen(self) -> None:
        self._set(Mode.DEAF)

    def refuse(self) -> None:
        self._set(Mode.REFUSE)

    def heal(self) -> None:
        """Let bytes pass again: those that were held, too."""
        self._set(Mode.PASS)

    def turn(self, mode: Mode) -> None:
        """Do any of these."""
        self._set(mode)

    def _set(self, mode: Mode) -> None:
        self._do(lambda: self._enter(mode))

    def _do(self, work: Callable[[], None]) -> None:
        """In the proxy's thread; returns when it is done."""
        done = threading.Event()

        def whole() -> None:
            work()
            done.set()

        self._loop.call_soon_threadsafe(whole)
        assert done.wait(STARTED_WITHIN), "the proxy is stuck"

    # -- inside: in the proxy's thread --------------------------------------------------------

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self._passing = {True: asyncio.Event(), False: asyncio.Event()}
        self._enter(Mode.PASS)
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stopping.wait()
        await self._end(server)

    async def _end(self, server: asyncio.Server) -> None:
        """Reset all connections: those, too, that were just accepted or are just being opened.

        A server that is closed at once forgets what it has accepted in the same turn of the loop.
        """
        self._loop.remove_reader(server.sockets[0].fileno())
        await asyncio.sleep(0)
        server.close()
        self._enter(Mode.REFUSE)
        while left := asyncio.all_tasks() - {asyncio.current_task()}:
            self._reset()
            await asyncio.wait(left, timeout=ENDING)

    def _enter(self, mode: Mode) -> None:
        self._mode = mode
        held = HELD.get(mode, ())
        for to_server, event in self._passing.items():
            if to_server in held:
                event.clear()
            else:
                event.set()
        for link in list(self._links):
            link.hold_answers(held=mode is Mode.LAG)
            if mode is Mode.REFUSE or (link.torn and mode is not Mode.SWALLOW):
                link.reset()

    def _reset(self) -> None:
        for link in list(self._links):
            link.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.served += 1
        link = _Link()
        link.add(writer)
        self._links.add(link)
        try:
            if self._mode is Mode.REFUSE:
                return
            upstream, onward = await asyncio.open_connection(*self._target)
            link.add(onward)
            ways = (self._pump(link, reader, onward), self._pump(link, upstream, writer, False))
            link.pumps = [asyncio.ensure_future(way) for way in ways]
            await asyncio.wait(link.pumps, return_when=asyncio.FIRST_COMPLETED)
            await link.close()
        except OSError:
            pass  # the API server is down: so is this connection
        finally:
            link.reset()
            self._links.discard(link)

    async def _pump(
        self,
        link: "_Link",
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        to_server: bool = True,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                if to_server:
                    link.answers_pass.set()
                await self._passing[to_server].wait()
                if not to_server:
                    await link.answers_pass.wait()
                if self._mode is Mode.SLOW:
                    await asyncio.sleep(SLOWNESS)
                link.torn = link.torn or self._mode is Mode.SWALLOW
                if not link.torn:
                    sink.write(data)
                    await sink.drain()


class _Link:
    """One client's connection, and the one that was opened for it."""

    def __init__(self) -> None:
        self._writers: list[asyncio.StreamWriter] = []
        self.pumps: list[asyncio.Future[None]] = []
        self.answers_pass = asyncio.Event()
        self.answers_pass.set()
        self.torn = False
        """Some of its bytes are lost."""

    def hold_answers(self, *, held: bool) -> None:
        if held:
            self.answers_pass.clear()
        else:
            self.answers_pass.set()

    def add(self, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)

    async def close(self) -> None:
        """One side has said goodbye: say so to the other, after all that is still to be sent."""
        for writer in self._writers:
            writer.close()
        with contextlib.suppress(OSError):
            await asyncio.gather(*(writer.wait_closed() for writer in self._writers))

    def reset(self) -> None:
        for pump in self.pumps:
            pump.cancel()
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()
