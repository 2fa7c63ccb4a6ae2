"""What a process holds the API server with, and how it can fail: die, stall, be cut off."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from typing import Any, TypeVar

from doubles.cluster import FakeCluster
from warmpool.api.names import Kind
from warmpool.domain.errors import ClusterOutcomeUnknown, ClusterUnavailable, NotLeading
from warmpool.domain.ids import Ref
from warmpool.ports.cluster import Body, PatchOp, Snapshot

T = TypeVar("T")


class Mishap(Enum):
    """What happens at one write. The first two end the process."""

    DIES_BEFORE = auto()
    DIES_AFTER = auto()
    ANSWER_LOST = auto()
    REQUEST_LOST = auto()
    """It did not happen, and nobody can tell."""
    OUTAGE = auto()
    """From here on the API server does not answer for some seconds."""
    STALLS = auto()
    """The process stands still, the write on its way, until it is woken."""


OUTAGE = 4.0
"""Seconds. Longer than the retries in the operator, shorter than a lease."""


@dataclass(eq=False)
class Hand:
    """`ports.cluster.Cluster` of one process. Events are no facts: nothing goes wrong with them."""

    api: FakeCluster
    mishap: Mishap | None = None
    at: int = -1
    """Number of the write at which it happens."""
    leads: Callable[[], bool] = lambda: True
    before_write: Callable[[int, str], None] = lambda _n, _what: None
    """Told of each write, before it takes effect."""
    writes: list[str] = field(default_factory=list)
    died: asyncio.Event = field(default_factory=asyncio.Event)
    stalled: asyncio.Event = field(default_factory=asyncio.Event)
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    _out_until: float = -1.0

    async def list(self, kind: Kind, *, pace: float = 0.0) -> Snapshot:
        return await self._read(lambda: self.api.list(kind, pace=pace))

    async def get(self, kind: Kind, ref: Ref) -> Body:
        return await self._read(lambda: self.api.get(kind, ref))

    async def namespaces(self) -> Snapshot:
        return await self._read(self.api.namespaces)

    async def secret(self, ref: Ref) -> Mapping[str, bytes]:
        return await self._read(lambda: self.api.secret(ref))

    async def config_map(self, ref: Ref) -> Mapping[str, str]:
        return await self._read(lambda: self.api.config_map(ref))

    async def event(self, namespace: str, body: Body) -> None:
        await self._read(lambda: self.api.event(namespace, body))

    async def create(self, kind: Kind, body: Body) -> Body:
        what = f"create {kind.value} {body['metadata']['name']}"
        return await self._write(what, lambda: self.api.create(kind, body))

    async def patch(
        self,
        kind: Kind,
        ref: Ref,
        ops: Sequence[PatchOp],
        *,
        status: bool = False,
        brief: bool = False,
    ) -> Body:
        what = f"{'status of' if status else 'patch'} {kind.value} {ref.name}"
        patch = partial(self.api.patch, kind, ref, ops, status=status, brief=brief)
        return await self._write(what, patch)

    async def replace(self, kind: Kind, body: Body) -> Body:
        what = f"replace {kind.value}"
        if kind is Kind.BINDING_LEDGER and self._is_heartbeat(body):
            return await self._read(lambda: self.api.replace(kind, body))
        return await self._write(what, lambda: self.api.replace(kind, body))

    def _is_heartbeat(self, body: Body) -> bool:
        """It says nothing but that somebody leads: there is no moment in that to be told apart."""
        [ledger] = self.api.peek(Kind.BINDING_LEDGER).values()
        now = {"writtenAt": body["spec"]["writtenAt"]}
        return ledger["spec"] | now == body["spec"]

    async def delete(self, kind: Kind, ref: Ref, *, uid: str, version: int) -> None:
        what = f"delete {kind.value} {ref.name}"
        await self._write(what, lambda: self.api.delete(kind, ref, uid=uid, version=version))

    async def _read(self, call: Callable[[], Awaitable[T]]) -> T:
        await self._stand_by()
        if self._is_out():
            await asyncio.sleep(0.01)
            raise ClusterUnavailable("nobody answers")
        return await call()

    async def _write(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        await self._stand_by()
        number = len(self.writes)
        self.writes.append(what)
        if self._is_out():
            await asyncio.sleep(0.01)
            raise ClusterOutcomeUnknown("nobody answers")
        self.before_write(number, what)
        if number == self.at and self.mishap is not None:
            return await self._go_wrong(self.mishap, call)
        return await call()

    async def _go_wrong(self, mishap: Mishap, call: Callable[[], Awaitable[T]]) -> T:
        match mishap:
            case Mishap.DIES_BEFORE:
                self.died.set()
            case Mishap.DIES_AFTER:
                await call()
                self.died.set()
            case Mishap.ANSWER_LOST:
                await call()
                raise ClusterOutcomeUnknown("the answer was lost")
            case Mishap.REQUEST_LOST:
                await asyncio.sleep(0.01)
                raise ClusterOutcomeUnknown("the request was lost")
            case Mishap.OUTAGE:
                self._out_until = asyncio.get_running_loop().time() + OUTAGE
                raise ClusterUnavailable("nobody answers")
            case Mishap.STALLS:
                self.stalled.set()
                await self.woken.wait()
                return await _sent(call)
        await self._stand_by()
        return await call()

    def _is_out(self) -> bool:
        return asyncio.get_running_loop().time() < self._out_until

    async def _stand_by(self) -> None:
        """The dead wait for ever; who stands still, until woken, and then asks again who leads."""
        if self.died.is_set():
            await asyncio.Event().wait()
        if self.stalled.is_set() and not self.woken.is_set():
            await self.woken.wait()
            if not self.leads():
                raise NotLeading("the lease has run out meanwhile")


async def _sent(call: Callable[[], Awaitable[T]]) -> T:
    """What is on the wire arrives, even if whoever sent it does not wait for the answer."""
    sent = asyncio.ensure_future(call())
    sent.add_done_callback(lambda done: done.exception())
    return await asyncio.shield(sent)


def no_cloud(*_: Any) -> Any:
    """These stories need no cloud: no pool has a Secret."""
    raise AssertionError("no pool has a Secret, so no cloud is opened")
