"""The full history of claims, VMs and the ledger, as a side watcher sees it over raw HTTP."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
import orjson

from warmpool.api.names import GROUP, VERSION, Kind
from warmpool.effects.kube import CONNECTIONS, Credentials
from warmpool.effects.sockets import Sockets

Body = dict[str, Any]
CREATED: Final = 201
POLL: Final = 0.05
"""Seconds between looks at what the events have shown."""


@dataclass(frozen=True, slots=True)
class Event:
    """One change of one object. Revisions are etcd's: they order the events of all kinds."""

    revision: int
    at: float
    """When the watcher saw it, in seconds since the epoch."""
    kind: Kind
    body: Body
    gone: bool = False

    @property
    def uid(self) -> str:
        return str(self.body["metadata"]["uid"])


class Api:
    """An API server as one user sees it, without a library between. An async context manager."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig

    async def __aenter__(self) -> Self:
        credentials = await Credentials.load(str(self._kubeconfig))
        self.server = credentials.endpoint.server
        self._headers = {"Authorization": f"Bearer {await credentials.token()}"}
        self._sockets = Sockets()
        self._session = credentials.session(CONNECTIONS, self._sockets)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self._sockets.hang_up()

    async def list(self, kind: Kind, namespace: str) -> Body:
        async with self._session.get(self._url(kind, namespace), headers=self._headers) as answer:
            answer.raise_for_status()
            return dict(orjson.loads(await answer.read()))

    async def create(self, kind: Kind, namespace: str, body: Body) -> Body:
        url = self._url(kind, namespace)
        async with self._session.post(url, json=body, headers=self._headers) as answer:
            text = await answer.read()
            if answer.status != CREATED:
                raise aiohttp.ClientResponseError(
                    answer.request_info, (), status=answer.status, message=text.decode()
                )
            return dict(orjson.loads(text))

    async def delete(self, kind: Kind, namespace: str, name: str) -> None:
        url = f"{self._url(kind, namespace)}/{name}"
        async with self._session.delete(url, headers=self._headers) as answer:
            answer.raise_for_status()

    async def merge(self, kind: Kind, namespace: str, name: str, patch: Body) -> None:
        url = f"{self._url(kind, namespace)}/{name}"
        headers = self._headers | {"Content-Type": "application/merge-patch+json"}
        async with self._session.patch(url, data=orjson.dumps(patch), headers=headers) as answer:
            answer.raise_for_status()

    async def token(self, namespace: str, account: str) -> str:
        """A new token of a ServiceAccount."""
        url = f"{self.server}/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        body: Body = {"spec": {"expirationSeconds": 3600}}
        async with self._session.post(url, json=body, headers=self._headers) as answer:
            answer.raise_for_status()
            return str(orjson.loads(await answer.read())["status"]["token"])

    async def watch(self, kind: Kind, namespace: str, since: str) -> AsyncIterator[Body]:
        """Events until the API server ends it. Lines may be long: a ledger in a storm is."""
        query = {"watch": "true", "resourceVersion": since, "timeoutSeconds": "3600"}
        forever = aiohttp.ClientTimeout(total=None, sock_connect=5)
        async with self._session.get(
            self._url(kind, namespace), params=query, headers=self._headers, timeout=forever
        ) as answer:
            answer.raise_for_status()
            rest = b""
            with contextlib.suppress(aiohttp.ClientPayloadError):  # ended in the middle
                async for chunk in answer.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        yield orjson.loads(line)

    def _url(self, kind: Kind, namespace: str) -> str:
        return f"{self.server}/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{kind.plural}"


@dataclass(slots=True, kw_only=True)
class Record:
    """Every event, and what there is now."""

    events: list[Event] = field(default_factory=list)
    now: dict[Kind, dict[str, Body]] = field(default_factory=lambda: {kind: {} for kind in Kind})
    """What there is, by uid."""
    gone: set[str] = field(default_factory=set)
    """Uids of what was deleted."""
    ended: bool = False
    """The history has a gap from here on."""

    async def until(self, predicate: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait for what the events show.

        Raises:
            TimeoutError: it did not come; says what was waited for.
        """
        ends = time.monotonic() + seconds
        while not predicate():
            assert not self.ended, "the recorder has died"
            if time.monotonic() > ends:
                raise TimeoutError(f"within {seconds} s: {what}")
            await asyncio.sleep(POLL)

    def take(self, kind: Kind, body: Body, *, gone: bool) -> None:
        """Write down one change."""
        body["metadata"].pop("managedFields", None)
        revision = int(body["metadata"]["resourceVersion"])
        self.events.append(Event(revision, time.time(), kind, body, gone))  # noqa: TID251
        if gone:
            self.now[kind].pop(body["metadata"]["uid"], None)
            self.gone.add(body["metadata"]["uid"])
        else:
            self.now[kind][body["metadata"]["uid"]] = body


@dataclass(slots=True)
class Recorder(Record):
    """Records some collections by watching them."""

    api: Api
    collections: Mapping[Kind, str]
    """Namespace of each kind."""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Record while inside.

        Raises:
            AssertionError: at the end, if the history has a gap.
        """
        started = asyncio.Event()
        watching = asyncio.ensure_future(self.run(started))
        await started.wait()
        try:
            yield self
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching  # raises what it has died of

    async def run(self, started: asyncio.Event) -> None:
        """Record until cancelled. `started`: from then on nothing is missed.

        Raises:
            AssertionError: the API server cannot go on where it was, so the history has a gap.
        """
        since: dict[Kind, str] = {}
        for kind, namespace in self.collections.items():
            found = await self.api.list(kind, namespace)
            since[kind] = found["metadata"]["resourceVersion"]
            for body in found["items"]:
                self.take(kind, body, gone=False)
        try:
            async with asyncio.TaskGroup() as tasks:
                for kind, version in since.items():
                    tasks.create_task(self._follow(kind, version))
                started.set()
        finally:
            self.ended = True

    async def _follow(self, kind: Kind, version: str) -> None:
        """Watch on from the last event when the API server ends a watch, as it may at any time."""
        while True:
            async for event in self.api.watch(kind, self.collections[kind], version):
                assert event["type"] != "ERROR", event
                self.take(kind, event["object"], gone=event["type"] == "DELETED")
                version = event["object"]["metadata"]["resourceVersion"]


def moment(timestamp: str) -> float:
    """An RFC 3339 time in seconds since the epoch."""
    return datetime.fromisoformat(timestamp).astimezone(UTC).timestamp()
