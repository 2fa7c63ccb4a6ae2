"""What a watch shows is in the store before kopf sees it, which sees next to nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from functools import partial
from itertools import count
from operator import call
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from warmpool.api.names import API_VERSION, Kind
from warmpool.domain.ids import ClaimUid
from warmpool.handlers.intake import TURNS, Post, Sieve, sieved, take, turns_for
from warmpool.ports.cluster import Body
from warmpool.reconcile.store import Store
from warmpool.reconcile.table import AT_A_TIME


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


FIRST = line("BOOKMARK", {"kind": "VMClaim", "metadata": {"resourceVersion": "1"}})
"""Of what a stream begins with kopf sees some anyway."""


async def shown(store: Store, chunks: Sequence[bytes], post: Post = call) -> list[bytes]:
    """The lines that kopf gets to see of a stream that has begun."""
    content: Any = Content([FIRST + b"\n", *chunks])
    sieve = Sieve(content, partial(take, store, post), TURNS)
    got = b"".join([chunk async for chunk in sieve.iter_chunked(1024)])
    first, *others = got.splitlines()
    assert first == FIRST
    return others


def version(store: Store, name: str = "c") -> int:
    known = store.claim(ClaimUid(name))
    return known.version if known is not None else 0


@pytest.fixture
def store() -> Store:
    """It has got as far as version 5 of one claim."""
    store = Store()
    store.apply(Kind.VM_CLAIM, claim(5))
    return store


async def test_what_is_shown_is_in_the_store_and_not_shown_to_kopf(store: Store) -> None:
    lines = [
        line("ADDED", claim(3)),
        line("MODIFIED", claim(5)),
        line("MODIFIED", claim(6)),
        line("ADDED", claim(4, name="another")),
    ]
    assert await shown(store, [b"\n".join([*lines, b""])]) == []
    assert (version(store), version(store, "another")) == (6, 4)


async def test_only_what_is_not_known_is_read(store: Store) -> None:
    posted: list[object] = []
    lines = [line("ADDED", claim(3)), line("MODIFIED", claim(5)), line("MODIFIED", claim(6))]
    await shown(store, [b"\n".join([*lines, b""])], post=lambda *what: posted.append(what))
    assert posted == [(store.apply, Kind.VM_CLAIM, claim(6))]


async def test_an_end_is_shown_to_kopf_with_what_is_taken_in(store: Store) -> None:
    lines = [line("MODIFIED", claim(6)), line("DELETED", claim(7)), line("ADDED", claim(8, "d"))]
    assert await shown(store, [b"\n".join([*lines, b""])]) == lines[1:2]
    assert (version(store), version(store, "d")) == (6, 8)


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
            line("ADDED", {**claim(5), "apiVersion": "v1", "kind": "Secret"}), id="of others"
        ),
        pytest.param(line("MODIFIED", {**claim(5), "kind": "Widget"}), id="of no known kind"),
    ],
)
async def test_what_kopf_goes_by_always_passes(store: Store, body: bytes) -> None:
    assert await shown(store, [body + b"\n"]) == [body]


async def test_lines_are_whole_however_they_arrive(store: Store) -> None:
    lines = [line("DELETED", claim(version)) for version in (5, 6, 7)]
    text = b"\n".join([*lines, b""])
    for size in (1, 7, 64, len(text)):
        chunks = [text[at : at + size] for at in range(0, len(text), size)]
        assert await shown(store, chunks) == lines, size


async def test_an_answer_of_the_same_moment_is_waited_for(store: Store) -> None:
    """Else up to half of all echoes are read once more: both come by the same turn of the loop."""
    posted: list[object] = []
    echo = [line("MODIFIED", claim(6)) + b"\n"]
    task = asyncio.ensure_future(shown(store, echo, post=lambda *what: posted.append(what)))
    for _ in range(3):  # one of them for what the stream begins with
        await asyncio.sleep(0)
    store.apply(Kind.VM_CLAIM, claim(6))
    assert await task == []
    assert posted == []


async def test_a_stream_of_which_all_is_taken_in_is_not_silent(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kopf would take it for dead, and go on from where it last heard of it."""
    lines = [line("MODIFIED", claim(version)) for version in range(6, 20)]
    chunks = [b"\n".join([*pair, b""]) for pair in zip(lines[::2], lines[1::2], strict=True)]
    times = count()
    monkeypatch.setattr("warmpool.handlers.intake.monotonic", lambda: 4 * next(times))
    assert await shown(store, chunks) == [lines[5], lines[11]], "the last, once in ten seconds"
    assert version(store) == 19


NAMESPACE = {"name": "ns", "uid": "n", "resourceVersion": "5", "labels": {"team": "a"}}


async def test_a_namespace_is_there_as_soon_as_its_claims_are(store: Store) -> None:
    """It came by way of kopf, which takes longer: its claims were refused, for good."""
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": NAMESPACE}
    assert await shown(store, [line("ADDED", body) + b"\n"]) == []
    assert store.namespace_labels == {"ns": {"team": "a"}}
    assert await shown(store, [line("DELETED", body) + b"\n"]) == [line("DELETED", body)]


@pytest.mark.parametrize("kind", [Kind.VM_FLAVOR, Kind.WARM_POOL, Kind.VM_CLAIM, Kind.WARM_VM])
async def test_each_of_our_kinds_is_taken_in(store: Store, kind: Kind) -> None:
    posted: list[object] = []
    body = {**claim(5, "new"), "kind": kind.value}
    told = await shown(store, [line("ADDED", body) + b"\n"], lambda *what: posted.append(what))
    assert told == []
    assert posted == [(store.apply, kind, body)]


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(b'{"type":"MODIFIED"}', id="without an object"),
        pytest.param(
            line("MODIFIED", {"apiVersion": API_VERSION, "kind": "VMClaim", "metadata": {}}),
            id="without a version",
        ),
        pytest.param(b'{"type":', id="cut off"),
        pytest.param(b"[]", id="another form"),
        pytest.param(b'{"type":"ADDED","object":null}', id="with nothing in it"),
    ],
)
async def test_a_line_that_makes_no_sense_is_left_to_kopf(store: Store, odd: bytes) -> None:
    """An error here would be one of the stream, and end kopf: what follows is taken in."""
    lines = [odd, line("MODIFIED", claim(6))]
    assert await shown(store, [b"\n".join([*lines, b""])]) == [odd]
    assert version(store) == 6


async def test_half_a_line_at_the_end_is_none(store: Store) -> None:
    assert await shown(store, [line("DELETED", claim(6))[:20]]) == []


async def test_others_have_their_turn_between_many_lines(store: Store) -> None:
    """A thousand in one turn of the loop would have a claim wait for a tenth of a second."""
    taken: list[int] = []
    most = 0

    async def watch_it() -> None:
        nonlocal most
        before = 0
        while True:
            most = max(most, len(taken) - before)
            before = len(taken)
            await asyncio.sleep(0)

    loop = asyncio.get_running_loop()
    watcher = asyncio.ensure_future(watch_it())
    lines = [line("ADDED", claim(number, f"c{number}")) for number in range(10, 1060)]

    def post(*_: object) -> None:
        loop.call_soon(taken.append, 1)

    await shown(store, [b"\n".join([*lines, b""])], post)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    watcher.cancel()
    assert len(taken) == 1050
    assert most <= AT_A_TIME


async def drained(sieve: Sieve) -> None:
    async for _ in sieve.iter_chunked(1024):
        pass


async def test_no_change_of_a_namespace_comes_later_than_a_claim_made_after_it() -> None:
    """Both were there when the loop looked, and the claim was refused, for good."""
    store, order = Store(), list[object]()
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": NAMESPACE}
    namespaces: Any = Content([line("MODIFIED", body) + b"\n"])
    claims: Any = Content([line("ADDED", claim(5)) + b"\n"])

    def post(what: object, *_: object) -> None:
        asyncio.get_running_loop().call_soon(order.append, what)

    taken = partial(take, store, post)
    await asyncio.gather(
        drained(Sieve(namespaces, taken, turns_for("namespaces"))),
        drained(Sieve(claims, taken, turns_for("vmclaims"))),
    )
    await asyncio.sleep(0)
    assert order == [store.apply_namespace, store.apply]


# -- over HTTP ------------------------------------------------------------------------------------

LINES = [line("MODIFIED", claim(6)), line("DELETED", claim(7))]


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
        aiohttp.ClientSession(response_class=sieved(partial(take, store, call))) as session,
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


async def test_a_stream_that_never_lasts_moves_on_all_the_same(store: Store) -> None:
    """Kopf takes it up where it last heard of it: it would have ever more to go through."""
    lines = [line("MODIFIED", claim(6)), line("MODIFIED", claim(7))]
    content: Any = Content([b"\n".join([*lines, b""])])
    sieve = Sieve(content, partial(take, store, call), TURNS)
    assert [chunk async for chunk in sieve.iter_chunked(1024)] == [lines[-1] + b"\n"]
    assert version(store) == 7


async def test_what_is_no_watch_is_read_as_it_is(store: Store) -> None:
    async with watching(store, "ended") as watch:
        url = watch.url.with_query({})
        async with (
            aiohttp.ClientSession(response_class=sieved(partial(take, store, call))) as session,
            session.get(url) as response,
        ):
            assert await read(response) == LINES
