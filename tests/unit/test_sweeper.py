"""Which servers are leaked."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from builders import a_server, a_vm_body
from warmpool.api.names import Kind
from warmpool.domain.cloud import Server
from warmpool.domain.ids import ServerId, VmUid
from warmpool.effects.clock import SystemClock
from warmpool.reconcile.store import Store
from warmpool.reconcile.sweeper import Sweeper

FIRST, SECOND = a_server(1), a_server(1, id=ServerId("late"))


@dataclass
class Seen:
    """A session that has listed two servers of one WarmVM."""

    kept: Server
    others: list[Server] = field(default_factory=list)

    def servers(self) -> dict[VmUid, Server]:
        return {VmUid("vm-1"): self.kept}

    def strays(self) -> list[Server]:
        return self.others


def leaked(store: Store, session: Any) -> list[str]:
    sweeper = Sweeper(store, session, SystemClock(), session)
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


def test_a_server_without_a_warmvm_is_leaked() -> None:
    assert leaked(Store(), Seen(FIRST, [])) == ["server-1"]
