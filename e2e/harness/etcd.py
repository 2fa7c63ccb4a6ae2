"""The whole history of our objects out of etcd itself, revision by revision.

An API server that is restarted forgets what it was asked to watch from: a watch at an older version
ends in a 410, and a relist does not tell what came and went in between. etcd runs on meanwhile,
and can be watched on from any revision that is not compacted. So nothing is missed here, unless
the recorder itself is cut off from etcd for longer than the API server keeps revisions, five
minutes at least; then it says so. What etcd holds is what a reader of the API could have seen:
custom resources are stored as JSON, in the one version that there is.
"""

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import orjson

from harness.history import Record
from warmpool.api.names import GROUP, Kind

Body = dict[str, Any]

OURS: Final = f"/registry/{GROUP}/"
KINDS: Final = {kind.plural: kind for kind in Kind}
AGAIN: Final = 0.2
"""Seconds until a watch that broke off is taken up again."""


@dataclass(slots=True)
class Etcd(Record):
    """Records all objects of our group, by etcd's gateway for JSON."""

    url: str
    longest_gap: float = field(default=0.0, kw_only=True)
    """Most seconds for which the recorder was cut off. It has caught up after each."""

    async def run(self, started: asyncio.Event) -> None:
        """Record until cancelled. `started`: from then on nothing is missed.

        Raises:
            AssertionError: etcd has forgotten what came next, so the history has a gap.
        """
        forever = aiohttp.ClientTimeout(total=None, sock_connect=5)
        try:
            async with aiohttp.ClientSession(timeout=forever) as session:
                revision = await self._list(session)
                started.set()
                while True:
                    revision = await self._watch_from(session, revision + 1)
                    broken = time.monotonic()
                    await asyncio.sleep(AGAIN)
                    self.longest_gap = max(self.longest_gap, time.monotonic() - broken)
        finally:
            self.ended = True

    async def _list(self, session: aiohttp.ClientSession) -> int:
        """Take in what there is; the revision at which it was."""
        async with session.post(f"{self.url}/v3/kv/range", json=_span()) as answer:
            answer.raise_for_status()
            found = orjson.loads(await answer.read())
        for kv in found.get("kvs", ()):
            self._put(kv)
        return int(found["header"]["revision"])

    async def _watch_from(self, session: aiohttp.ClientSession, revision: int) -> int:
        """Take in all from a revision on, until etcd breaks off; the last that was taken in."""
        request = {"create_request": _span() | {"start_revision": revision, "prev_kv": True}}
        last = revision - 1
        try:
            async with session.post(f"{self.url}/v3/watch", json=request) as answer:
                answer.raise_for_status()
                async for line in _lines(answer):
                    result = orjson.loads(line)["result"]
                    assert not result.get("canceled"), f"etcd gave up the watch: {result}"
                    for event in result.get("events", ()):
                        self._see(event)
                        last = int(event["kv"]["mod_revision"])
        except aiohttp.ClientError:
            pass
        return last

    def _see(self, event: Body) -> None:
        if event.get("type") != "DELETE":
            self._put(event["kv"])
            return
        kind, body = _read(event["prev_kv"])
        body["metadata"]["resourceVersion"] = event["kv"]["mod_revision"]
        self.take(kind, body, gone=True)

    def _put(self, kv: Body) -> None:
        kind, body = _read(kv)
        self.take(kind, body, gone=False)


def _span() -> Body:
    """All keys of ours."""
    end = OURS[:-1] + chr(ord(OURS[-1]) + 1)
    return {"key": _coded(OURS), "range_end": _coded(end)}


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _read(kv: Body) -> tuple[Kind, Body]:
    key = base64.b64decode(kv["key"]).decode()
    body = orjson.loads(base64.b64decode(kv["value"]))
    body["metadata"]["resourceVersion"] = kv["mod_revision"]
    return KINDS[key.removeprefix(OURS).split("/", 1)[0]], body


async def _lines(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Whole lines, however long."""
    rest = b""
    async for chunk in answer.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
