"""What a watch shows goes straight into the store, and only what is left goes on to kopf.

kopf takes 0.2 to 0.3 ms for an event, a task, a queue, causes and handlers, to end in the store,
and leaves a cycle for the garbage collector. Of three events of a claim that is served two do not
even say anything new: the watch shows every write of ours once more, after its answer has shown
it. Reading the line takes a fifteenth of that, and no claim waits for kopf.

kopf keeps the streams: it lists, opens and resumes them. What it goes by, bookmarks and errors,
always passes, and so does what is gone, which it would remember for ever.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from time import monotonic
from typing import Any, Final

import aiohttp
import orjson

from warmpool.api.names import GROUP, Kind
from warmpool.reconcile.store import Store
from warmpool.reconcile.table import AT_A_TIME, bits

log = logging.getLogger(__name__)

Post = Callable[..., object]
"""Have a function called with arguments in the loop that the store belongs to."""

Take = Callable[[bytes], bool]
"""Takes in a line of a watch, if it is one that can be: then nobody else need see it."""

TURNS: Final = 3
"""Of the loop, before a change is looked at: an answer that came in the same moment is taken in by
then. Without them a quarter to a half of all echoes were not known as such. (Where kopf has a loop
of its own they are of that one, and some more echoes are read.)"""

CHANGE: Final = b'{"type":"MODIFIED"'
"""How the line of a change begins."""

SILENT: Final = 10.0
"""Seconds after which what was taken in is shown to kopf, too: it takes up a stream that was cut
where it last heard of it, and one in which nothing comes at all for one that is dead."""

SHOWN: Final = ("ADDED", "MODIFIED")
"""Events that show an object as it is."""

NAMESPACE: Final = ("v1", "Namespace")

KINDS: Final = {kind.value: kind for kind in Kind}


def take(store: Store, post: Post, line: bytes) -> bool:
    """Have a store take in an object of ours that a line of a watch shows as it is.

    Args:
        store: may belong to another loop.
        post: has a function called in that loop.
        line: as the API server wrote it.

    Raises:
        AttributeError, LookupError, TypeError, ValueError: it is none that an API server writes.
    """
    event = orjson.loads(line)
    if event["type"] not in SHOWN:
        return False
    body = event["object"]
    if (body.get("apiVersion"), body.get("kind")) == NAMESPACE:  # no claim is to overtake its own
        post(store.apply_namespace, body)
        return True
    kind = KINDS.get(body.get("kind"))
    if kind is None or not str(body.get("apiVersion")).startswith(f"{GROUP}/"):
        return False
    if not store.knows(kind, body):
        post(store.apply, kind, body)
    return True


class Sieve:
    """A watch's lines as kopf reads them, without those that are taken in here."""

    def __init__(self, content: aiohttp.StreamReader, take: Take, turns: int) -> None:
        """`turns` of the loop are waited for answers that changes may repeat."""
        self._content = content
        self._take = take
        self._turns = turns
        self._passed_at = float("-inf")
        """When kopf was last shown a line. It sees one of the first, too: what takes up a stream
        that never lasts would else begin where the first began, with ever more to go through."""

    def __getattr__(self, name: str) -> Any:
        """For all else, above all for its end, it is the content itself."""
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """What is left of all that comes, whole lines at a time."""
        rest = b""
        async for chunk in self._content.iter_chunked(size):
            *lines, rest = (rest + chunk).split(b"\n")
            for some in bits([line for line in lines if line]):
                if any(line.startswith(CHANGE) for line in some):
                    for _ in range(self._turns):
                        await asyncio.sleep(0)
                if left := self._left(some):
                    yield b"\n".join([*left, b""])
                if len(some) == AT_A_TIME:
                    await asyncio.sleep(0)

    def _left(self, lines: Sequence[bytes]) -> Sequence[bytes]:
        """What is not taken in here, or the last line, if none has got through for long."""
        left: Sequence[bytes] = [line for line in lines if not self._is_taken(line)]
        now = monotonic()
        if not left and now >= self._passed_at + SILENT:
            left = lines[-1:]
        if left:
            self._passed_at = now
        return left

    def _is_taken(self, line: bytes) -> bool:
        """Whether it is. One that makes no sense is kopf's: an error here would end its stream."""
        try:
            return self._take(line)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            what = type(error).__name__
            log.warning("a watch shows what cannot be taken in: %s: %s", what, error)
            return False


def turns_for(resource: str) -> int:
    """How many turns the changes of a resource are kept, given as it stands in URLs.

    Namespaces are never written by us: their changes repeat no answer, and are not to come later
    than a claim that was made after them.
    """
    return 0 if resource == "namespaces" else TURNS


def sieved(take: Take) -> type[aiohttp.ClientResponse]:
    """Answers whose content, if they are watches, goes through a sieve."""

    class Response(aiohttp.ClientResponse):
        async def start(self, connection: Any) -> aiohttp.ClientResponse:
            await super().start(connection)
            if self.ok and "watch" in self.url.query:
                content: Any = Sieve(self.content, take, turns_for(self.url.name))
                self.content = content
            return self

    return Response
