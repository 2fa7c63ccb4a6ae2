"""The client of `bench_claims.py`: plain aiohttp and orjson, and a watch of its own."""

import asyncio
import base64
import contextlib
import re
import ssl
from collections import Counter
from collections.abc import Mapping, Sequence
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
        async with self.session.get("/metrics") as response:
            text = await response.text()
        counted: Counter[str] = Counter()
        for found in WRITES.finditer(text):
            if found["verb"] in ("GET", "LIST", "WATCH", "DELETECOLLECTION", "CONNECT"):
                continue
            what = found["resource"] + (f"/{found['sub']}" if found["sub"] else "")
            if found["group"] == GROUP and (found["verb"], what) != ("POST", "vmclaims"):
                counted[f"operator {found['verb']} {what}"] += int(float(found["count"]))
        return counted

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


class ClaimWatch:
    """Sees claims become Bound. An async context manager."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._version = "0"
        self._waiting: set[tuple[str, str]] = set()
        self._seen: dict[str, float] = {}
        self._done: asyncio.Future[Mapping[str, float]] | None = None

    def expect(self, namespace: str, names: Sequence[str]) -> "asyncio.Future[Mapping[str, float]]":
        """The moments at which each of these claims was first shown Bound, once all were."""
        self._waiting = {(namespace, name) for name in names}
        self._seen = {}
        self._done = asyncio.get_running_loop().create_future()
        return self._done

    async def __aenter__(self) -> Self:
        ready = asyncio.Event()
        self._task = asyncio.ensure_future(self._run(ready))
        opened = asyncio.ensure_future(ready.wait())
        await asyncio.wait((self._task, opened), return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            self._task.result()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self, ready: asyncio.Event) -> None:
        """Watch for ever. The API server ends watches at times: go on where it did."""
        await self._api.served("vmclaims")
        forever = aiohttp.ClientTimeout(total=None)
        query = {"watch": "true", "timeoutSeconds": "7200", "allowWatchBookmarks": "true"}
        while True:
            async with self._api.session.get(
                path("vmclaims"),
                params=query | {"resourceVersion": self._version},
                timeout=forever,
                raise_for_status=True,
            ) as response:
                ready.set()
                await self._read(response)

    async def _read(self, response: aiohttp.ClientResponse) -> None:
        rest = b""
        async for chunk in response.content.iter_any():
            now = perf_counter()
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                event = orjson.loads(line)
                if event["type"] == "ERROR":
                    raise RuntimeError(f"the watch was refused: {event['object']}")
                self._version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._take_in(event["object"], now)

    def _take_in(self, claim: Json, now: float) -> None:
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
