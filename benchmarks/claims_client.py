"""The client of `bench_claims.py`: plain aiohttp and orjson, and a watch of its own."""

import asyncio
import base64
import contextlib
import re
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import orjson
import yaml

from warmpool.api.names import GROUP, VERSION

CONNECTIONS: Final = 128
"""Enough that no status waits for a connection while claims are being created."""

WRITES: Final = re.compile(
    r'^apiserver_request_total\{.*?group="(?P<group>[^"]*)".*?resource="(?P<resource>[^"]*)"'
    r'.*?subresource="(?P<sub>[^"]*)",verb="(?P<verb>[^"]*)".*?\} (?P<count>[0-9.e+]+)$',
    re.MULTILINE,
)

Json = dict[str, Any]


class Api:
    """The API server as the administrator sees it. An async context manager."""

    def __init__(self, kubeconfig: Path) -> None:
        document = yaml.safe_load(kubeconfig.read_text())
        cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self.server = cluster["server"]
        self.headers = {"Authorization": f"Bearer {user['token']}"}
        self._tls = ssl.create_default_context(cadata=authority)
        self.session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=CONNECTIONS, ssl=self._tls, keepalive_timeout=300)
        self.session = aiohttp.ClientSession(self.server, connector=connector, headers=self.headers)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.session.close()

    async def warm_up(self) -> None:
        """Open all connections: TLS handshakes are nobody's claim."""

        async def open_one() -> None:
            async with self.session.get("/readyz") as response:
                await response.read()

        await asyncio.gather(*(open_one() for _ in range(CONNECTIONS)))

    async def collect_garbage(self) -> None:
        """Have the API server's heap walked now: what comes next shall not pay for what was."""
        async with self.session.get("/debug/pprof/heap?gc=1", raise_for_status=True) as response:
            await response.read()

    async def served(self, plural: str) -> None:
        """Until the API server serves a kind: it says 429 or 404 for a while after its CRD came."""
        while True:
            async with self.session.get(path(plural)) as response:
                if response.status == 200:
                    return
            await asyncio.sleep(0.2)

    async def namespace(self, name: str) -> None:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        await self._call("POST", "/api/v1/namespaces", body)

    async def secret(self, namespace: str, name: str, data: Mapping[str, str]) -> None:
        body = {"metadata": {"name": name}, "stringData": dict(data)}
        await self._call("POST", f"/api/v1/namespaces/{namespace}/secrets", body)

    async def create(self, plural: str, namespace: str, body: Json) -> Json:
        return await self._call("POST", path(plural, namespace), body)

    async def get(self, plural: str, namespace: str, name: str) -> Json:
        return await self._call("GET", f"{path(plural, namespace)}/{name}")

    async def merge(
        self, plural: str, namespace: str, name: str, body: Json, *, status: bool = False
    ) -> Json:
        where = f"{path(plural, namespace)}/{name}" + ("/status" if status else "")
        return await self._call("PATCH", where, body, "application/merge-patch+json")

    async def json_patch(
        self, plural: str, namespace: str, name: str, ops: Sequence[Json], *, status: bool = False
    ) -> Json:
        where = f"{path(plural, namespace)}/{name}" + ("/status" if status else "")
        return await self._call("PATCH", where, ops, "application/json-patch+json")

    async def delete(self, plural: str, namespace: str, name: str) -> None:
        await self._call("DELETE", f"{path(plural, namespace)}/{name}")

    async def delete_all(self, plural: str, namespace: str) -> None:
        await self._call("DELETE", path(plural, namespace))

    async def list(self, plural: str) -> list[Json]:
        """All of them, page by page."""
        items: list[Json] = []
        follow = ""
        while True:
            page = await self._call("GET", f"{path(plural)}?limit=1000{follow}")
            items += page["items"]
            if not page["metadata"].get("continue"):
                return items
            follow = f"&continue={page['metadata']['continue']}"

    async def writes(self) -> Counter[str]:
        """Writes that the API server has counted, but for those that are the client's.

        Claims and namespaces are created by the client alone, while no operator writes either.
        """
        text = await self.text("/metrics")
        counted: Counter[str] = Counter()
        for found in WRITES.finditer(text):
            if found["verb"] in ("GET", "LIST", "WATCH", "DELETECOLLECTION", "CONNECT"):
                continue
            what = found["resource"] + (f"/{found['sub']}" if found["sub"] else "")
            if found["group"] == GROUP and (found["verb"], what) != ("POST", "vmclaims"):
                counted[f"operator {found['verb']} {what}"] += int(float(found["count"]))
        return counted

    async def text(self, where: str) -> str:
        """What is there that is no JSON."""
        async with self.session.get(where) as response:
            return await response.text()

    async def _call(
        self, method: str, where: str, body: Any = None, kind: str = "application/json"
    ) -> Json:
        data = None if body is None else orjson.dumps(body)
        headers = {"Content-Type": kind}
        async with self.session.request(method, where, data=data, headers=headers) as response:
            payload = await response.read()
        if response.status >= 400:
            raise RuntimeError(f"{method} {where}: {response.status} {payload[:500].decode()}")
        answer: Json = orjson.loads(payload)
        return answer


def path(plural: str, namespace: str | None = None) -> str:
    scope = "" if namespace is None else f"/namespaces/{namespace}"
    return f"/apis/{GROUP}/{VERSION}{scope}/{plural}"


async def follow(
    api: Api, where: str, take_in: Callable[[Json, float], None], ready: asyncio.Event
) -> None:
    """Watch a collection for ever, from what there is. `take_in`: an event, and when it was seen.

    The API server ends watches at times: this goes on where it did.
    """
    forever = aiohttp.ClientTimeout(total=None)
    query = {"watch": "true", "timeoutSeconds": "7200", "allowWatchBookmarks": "true"}
    version = "0"
    while True:
        async with api.session.get(
            where,
            params=query | {"resourceVersion": version},
            timeout=forever,
            raise_for_status=True,
        ) as response:
            ready.set()
            rest = b""
            async for chunk in response.content.iter_any():
                now = perf_counter()
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        raise RuntimeError(f"the watch was refused: {event['object']}")
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        take_in(event, now)


@contextlib.asynccontextmanager
async def following(
    api: Api, where: str, take_in: Callable[[Json, float], None]
) -> AsyncIterator[None]:
    """A watch, for as long as the context lasts."""
    ready = asyncio.Event()
    task = asyncio.ensure_future(follow(api, where, take_in, ready))
    opened = asyncio.ensure_future(ready.wait())
    await asyncio.wait((task, opened), return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class ClaimWatch:
    """Sees claims become Bound, while it is `following` them."""

    def __init__(self) -> None:
        self._waiting: set[tuple[str, str]] = set()
        self._seen: dict[str, float] = {}
        self._done: asyncio.Future[Mapping[str, float]] | None = None

    def expect(self, namespace: str, names: Sequence[str]) -> "asyncio.Future[Mapping[str, float]]":
        """The moments at which each of these claims was first shown Bound, once all were."""
        self._waiting = {(namespace, name) for name in names}
        self._seen = {}
        self._done = asyncio.get_running_loop().create_future()
        return self._done

    def take_in(self, event: Json, now: float) -> None:
        """One event of the watch of claims."""
        claim = event["object"]
        meta, status = claim["metadata"], claim.get("status", {})
        key = (meta["namespace"], meta["name"])
        if key not in self._waiting or status.get("phase") in (None, "Pending"):
            return
        if self._done is None or self._done.done():
            return
        if status["phase"] != "Bound":
            self._done.set_exception(RuntimeError(f"claim {key} was not bound: {status}"))
            return
        self._waiting.discard(key)
        self._seen[meta["name"]] = now
        if not self._waiting:
            self._done.set_result(self._seen)
