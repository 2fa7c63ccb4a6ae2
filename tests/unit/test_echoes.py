"""What the watch only repeats does not get as far as kopf, and all else does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from functools import partial
from itertools import count
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from warmpool.api.names import API_VERSION, Kind
from warmpool.handlers.echoes import Sieve, is_echo, sieved
from warmpool.ports.cluster import Body
from warmpool.reconcile.store import Store


def claim(version: int, name: str = "c") -> Body:
    meta = {"namespace": "ns", "name": name, "uid": name, "resourceVersion": str(version)}
    request = {"name": "r", "pool": {"name": "p"}, "count": 1}
    spec = {"requests": [request]}
    return {"apiVersion": API_VERSION, "kind": "VMClaim", "metadata": meta, "spec": spec}


def line(what: str, body: Any) -> bytes:
    return orjson.dumps({"type": what, "object": body})


class Content:
    """A watch's content as it arrives."""

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self._chunks = chunks

    async def iter_chunked(self, _size: int) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            await asyncio.sleep(0)
            yield chunk


async def shown(store: Store, chunks: Sequence[bytes]) -> list[bytes]:
    """The lines that kopf gets to see."""
    content: Any = Content(chunks)
    sieve = Sieve(content, partial(is_echo, store.knows))
    got = b"".join([chunk async for chunk in sieve.iter_chunked(1024)])
    return got.splitlines()


@pytest.fixture
def store() -> Store:
    """It has got as far as version 5 of one claim."""
    store = Store()
    store.apply(Kind.VM_CLAIM, claim(5))
    return store


async def test_only_what_is_newer_than_what_is_known_gets_through(store: Store) -> None:
    lines = [
        line("ADDED", claim(3)),
        line("MODIFIED", claim(5)),
        line("MODIFIED", claim(6)),
        line("ADDED", claim(4, name="another")),
    ]
    assert await shown(store, [b"\n".join([*lines, b""])]) == lines[2:]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(line("DELETED", claim(5)), id="its end"),
        pytest.param(line("ERROR", {"kind": "Status", "code": 410}), id="an error"),
        pytest.param(
            line("BOOKMARK", {"kind": "VMClaim", "metadata": {"resourceVersion": "1"}}),
            id="a bookmark",
        ),
        pytest.param(
            line("ADDED", {**claim(5), "apiVersion": "v1", "kind": "Namespace"}), id="of others"
        ),
        pytest.param(line("MODIFIED", {**claim(5), "kind": "WarmPool"}), id="of no known kind"),
    ],
)
async def test_what_kopf_goes_by_always_passes(store: Store, body: bytes) -> None:
    assert await shown(store, [body + b"\n"]) == [body]


async def test_lines_are_whole_however_they_arrive(store: Store) -> None:
    lines = [line("MODIFIED", claim(version)) for version in (5, 6, 7)]
    text = b"\n".join([*lines, b""])
    for size in (1, 7, 64, len(text)):
        chunks = [text[at : at + size] for at in range(0, len(text), size)]
        assert await shown(store, chunks) == lines[1:], size


async def test_an_answer_of_the_same_moment_is_waited_for(store: Store) -> None:
    """Else up to half of all echoes are read by kopf: both come by the same turn of the loop."""
    task = asyncio.ensure_future(shown(store, [line("MODIFIED", claim(6)) + b"\n"]))
    for _ in range(2):
        await asyncio.sleep(0)
    store.apply(Kind.VM_CLAIM, claim(6))
    assert await task == []


async def test_a_stream_in_which_nothing_is_new_is_not_silent(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kopf would take it for dead, and go on from where it last heard of it."""
    echo = line("MODIFIED", claim(5))
    times = count()
    monkeypatch.setattr("warmpool.handlers.echoes.monotonic", lambda: 4 * next(times))
    assert await shown(store, [echo + b"\n"] * 7) == [echo] * 2, "once in ten seconds"


# -- over HTTP ------------------------------------------------------------------------------------

LINES = [line("MODIFIED", claim(5)), line("MODIFIED", claim(6))]


@contextlib.asynccontextmanager
async def watching(store: Store, end: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """A watch over HTTP, which ends by itself, is cut off, or goes on."""
    hang_up = asyncio.Event()

    async def watch(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"\n".join([*LINES, b""]))
        if end == "cut":
            assert request.transport is not None
            request.transport.abort()
        elif end == "open":
            await hang_up.wait()
        return response

    app = web.Application()
    app.router.add_get("/claims", watch)
    async with (
        TestServer(app) as server,
        aiohttp.ClientSession(response_class=sieved(store.knows)) as session,
        session.get(server.make_url("/claims?watch=true")) as response,
    ):
        yield response
        hang_up.set()


async def read(response: aiohttp.ClientResponse) -> list[bytes]:
    return b"".join([chunk async for chunk in response.content.iter_chunked(1024)]).splitlines()


async def test_a_watch_that_ends_has_ended(store: Store) -> None:
    async with watching(store, "ended") as response:
        assert await read(response) == LINES[1:]


async def test_a_watch_that_is_cut_off_says_so_as_any_other(store: Store) -> None:
    """Kopf opens it anew for these errors, and ends for all others."""
    async with watching(store, "cut") as response:
        chunks = response.content.iter_chunked(1024)
        assert (await anext(chunks)).splitlines() == LINES[1:]
        with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)):
            await anext(chunks)


async def test_a_watch_may_be_left(store: Store) -> None:
    async with watching(store, "open") as response:
        async for chunk in response.content.iter_chunked(1024):
            assert chunk.splitlines() == LINES[1:]
            break


async def test_what_is_no_watch_is_read_as_it_is(store: Store) -> None:
    async with watching(store, "ended") as watch:
        url = watch.url.with_query({})
        async with (
            aiohttp.ClientSession(response_class=sieved(store.knows)) as session,
            session.get(url) as response,
        ):
            assert await read(response) == LINES
