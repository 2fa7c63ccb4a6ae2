"""Which servers are leaked."""

from dataclasses import dataclass, field
from typing import Any, Self

import pytest

from builders import a_server, a_vm_body
from warmpool.api.names import Kind
from warmpool.domain.cloud import Server
from warmpool.domain.ids import ServerId, VmUid
from warmpool.effects.clock import SystemClock
from warmpool.reconcile.store import Store
from warmpool.reconcile.sweeper import CONDEMN_AFTER, Sweeper

FIRST, SECOND = a_server(1), a_server(1, id=ServerId("late"))


@dataclass
class Seen:
    """A session that has listed two servers of one WarmVM."""

    kept: Server
    others: list[Server] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    listed: bool = True
    problem: None = None

    @property
    def cloud(self) -> Self:
        return self

    def sessions(self) -> list[Self]:
        return [self]

    async def get(self, server: ServerId) -> Server:
        return next(s for s in (self.kept, *self.others) if s.id == server)

    async def delete(self, server: ServerId) -> None:
        self.deleted.append(server)

    def servers(self) -> dict[VmUid, Server]:
        return {VmUid("vm-1"): self.kept}

    def strays(self) -> list[Server]:
        return self.others


async def nothing() -> None:
    pass


class Later(SystemClock):
    """Each look at it is a minute and more after the last."""

    now_is = 0.0

    def monotonic(self) -> float:
        self.now_is += CONDEMN_AFTER + 1
        return self.now_is


def leaked(store: Store, session: Any) -> list[str]:
    sweeper = Sweeper(store, session, SystemClock(), session, nothing)
    return [server.id for server in sweeper._leaked(session)]


def a_store(**spec: Any) -> Store:
    store = Store()
    store.apply(Kind.WARM_VM, a_vm_body(1, **spec))
    return store


@pytest.mark.parametrize("kept", [FIRST, SECOND], ids=["listed-first", "listed-second"])
def test_of_two_servers_the_one_that_its_warmvm_names_is_never_swept(kept: Server) -> None:
    """A fresh leader kept the older of the two, and would have swept a bound claim's."""
    other = SECOND if kept is FIRST else FIRST
    assert leaked(a_store(claim="logs"), Seen(kept, [other])) == ["late"]
    named = a_store(providerID="openstack:///RegionOne/late")
    assert leaked(named, Seen(kept, [other])) == ["server-1"]


def test_a_warmvm_that_names_no_server_yet_keeps_the_one_that_is_held() -> None:
    store = a_store(phase="Pending", providerID=None)
    assert leaked(store, Seen(FIRST, [SECOND])) == ["late"]


def test_while_a_warmvm_cannot_be_read_none_of_its_servers_is_leaked() -> None:
    """What was read of it before names a server that may not be its own any more."""
    store = a_store(claim="logs")
    unread = a_vm_body(1, version=9, claim="logs", providerID="openstack:///RegionOne/late")
    store.apply(Kind.WARM_VM, unread | {"status": "what a newer operator writes"})
    assert leaked(store, Seen(FIRST, [SECOND])) == []


def test_a_server_without_a_warmvm_is_leaked() -> None:
    assert leaked(Store(), Seen(FIRST, [])) == ["server-1"]


async def test_a_server_whose_warmvm_no_watch_has_shown_is_not_deleted() -> None:
    """The watch of who led stood still for longer than a leaked server is left alone."""
    store, session, asked = Store(), Seen(FIRST, [SECOND]), []

    async def compare() -> None:
        asked.append(1)
        store.apply(Kind.WARM_VM, a_vm_body(1))

    sweeper = Sweeper(store, session, Later(), session, compare)  # type: ignore[arg-type]
    for _ in range(3):
        await sweeper.sweep()
    assert session.deleted == ["late", "late"], "the stray alone, until it is gone"
    assert len(asked) == 1
