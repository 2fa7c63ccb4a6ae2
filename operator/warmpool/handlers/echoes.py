"""Keeps from kopf what the watch only repeats.

The watch shows every write of ours once more, after its answer has shown it. Of three events of a
claim that is served two are such echoes, and kopf takes 0.2 to 0.3 ms for each: a task, a queue,
causes and handlers, to end in a store that knows it already. Reading the line takes a fifteenth of
that. What is gone, and what kopf goes by itself (bookmarks, errors), always passes.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any, Final

import aiohttp
import orjson

from warmpool.api.names import GROUP, Kind
from warmpool.ports.cluster import Body

Knows = Callable[[Kind, Body], bool]
"""Whether this version of an object, or a newer one, has been taken in."""

TURNS: Final = 3
"""Of the loop, before a change is judged: an answer that came in the same moment is taken in by
then. Without them a quarter to a half of all echoes were not known as such. (Where kopf has a loop
of its own they are of that one, and some more echoes get through.)"""

CHANGE: Final = b'{"type":"MODIFIED"'
"""How the line of a change begins."""

SILENT: Final = 10.0
"""Seconds after which an echo is let through: kopf takes up a stream that was cut where it last
heard of it, and one in which nothing comes at all for one that is dead."""

SHOWN: Final = ("ADDED", "MODIFIED")
"""Events that show an object as it is."""

KINDS: Final = {kind.value: kind for kind in Kind}


def is_echo(knows: Knows, line: bytes) -> bool:
    """Whether a line of a watch shows nothing but what is known."""
    event = orjson.loads(line)
    if event["type"] not in SHOWN:
        return False
    body = event["object"]
    kind = KINDS.get(body.get("kind"))
    if kind is None or not str(body.get("apiVersion")).startswith(f"{GROUP}/"):
        return False
    return knows(kind, body)


class Sieve:
    """A watch's lines as kopf reads them, without those that are echoes."""

    def __init__(self, content: aiohttp.StreamReader, is_echo: Callable[[bytes], bool]) -> None:
        self._content = content
        self._is_echo = is_echo
        self._passed_at = monotonic()

    def __getattr__(self, name: str) -> Any:
        """For all else, above all for its end, it is the content itself."""
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """What is left of all that comes, whole lines at a time."""
        rest = b""
        async for chunk in self._content.iter_chunked(size):
            *lines, rest = (rest + chunk).split(b"\n")
            if any(line.startswith(CHANGE) for line in lines):
                for _ in range(TURNS):
                    await asyncio.sleep(0)
            if news := self._news(lines):
                yield b"\n".join([*news, b""])
        if rest:
            yield rest

    def _news(self, lines: Sequence[bytes]) -> Sequence[bytes]:
        """What is not an echo; all of it, if nothing has got through for long."""
        now = monotonic()
        if now < self._passed_at + SILENT:
            lines = [line for line in lines if line and not self._is_echo(line)]
        if lines:
            self._passed_at = now
        return lines


def sieved(knows: Knows) -> type[aiohttp.ClientResponse]:
    """Answers whose content, if they are watches, goes through a sieve."""

    class Response(aiohttp.ClientResponse):
        async def start(self, connection: Any) -> aiohttp.ClientResponse:
            await super().start(connection)
            if self.ok and "watch" in self.url.query:
                content: Any = Sieve(self.content, partial(is_echo, knows))
                self.content = content
            return self

    return Response
