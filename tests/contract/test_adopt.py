"""`warmpool adopt` with the real adapter over the simulator's HTTP face."""

import argparse
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from builders import a_pool_body
from doubles.cluster import FakeCluster
from warmpool.api.names import LEDGER_NAME, TAG_INSTALLATION, TAG_OWNER, Kind
from warmpool.cli.adopt import DONE, NOTHING, adopt
from warmpool.domain.ids import Ref
from warmpool.effects.clock import SystemClock
from warmpool.sim.builds import BuildRequest
from warmpool.sim.http import Running, running
from warmpool.sim.scenarios import tiny
from warmpool.sim.spec import GuestSpec
from warmpool.sim.world import Server

HOME, POOL = "warmpool-system", Ref("search", "data")


@dataclass
class Site:
    """A cloud with servers that somebody built, and an API server with a pool."""

    sim: Running
    cluster: FakeCluster

    def built(self, name: str, flavor: str = "m1.micro") -> Server:
        nova = self.sim.site.nova
        flavors = {f.name: ident for ident, f in nova.world.flavors.items()}
        images = {i.name: ident for ident, i in nova.world.images.items()}
        request = BuildRequest(name, flavors[flavor], images["debian-13"])
        return nova.preload(1, request)[0]

    def vms(self) -> dict[str, Any]:
        return {ref.name: vm["spec"] for ref, vm in self.cluster.peek(Kind.WARM_VM).items()}

    async def adopt(self, **asked: Any) -> int:
        args = {
            "pool": POOL.name,
            "namespace": POOL.namespace,
            "operator_namespace": HOME,
            "name": "",
            "server": [],
            "yes": False,
            "output": "json",
        }
        return await adopt(argparse.Namespace(**(args | asked)), self.cluster)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    quiet = tiny().model_copy(update={"guests": GuestSpec(listen=False)})
    async with running(quiet) as sim:
        cluster = FakeCluster(SystemClock().now, [HOME, POOL.namespace])
        secret = Ref(POOL.namespace, "lab-cloud")
        cluster.secrets[secret] = {"clouds.yaml": sim.clouds_yaml().encode()}
        template = {"flavor": "m1.micro", "image": "debian-13", "networks": []}
        where = {"secretName": "lab-cloud", "cloud": "sim-member"}
        pool = a_pool_body(POOL, replicas=2, paused=True, template=template, cloudRef=where)
        cluster.put(Kind.WARM_POOL, pool)
        meta = {"namespace": HOME, "name": LEDGER_NAME}
        ledger = {"metadata": meta, "spec": {"installation": "here", "epoch": 1}}
        cluster.put(Kind.BINDING_LEDGER, ledger)
        yield Site(sim, cluster)


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Why not, by name."""
    return {row["name"]: row["whyNot"] for row in json.loads(capsys.readouterr().out)}


async def test_what_would_be_adopted_is_shown_and_nothing_is_done(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, flavor in (("old-1", "m1.micro"), ("old-2", "m1.small"), ("other", "m1.micro")):
        site.built(name, flavor)
    assert await site.adopt(name="old-.*") == DONE
    assert told(capsys) == {"old-1": "", "old-2": "it is of another flavor"}
    assert not site.vms()
    assert not any(server.tags for server in site.sim.site.nova.world.servers.values())


async def test_what_is_adopted_has_a_warmvm_and_our_mark(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    servers = [site.built(f"old-{n}") for n in range(3)]
    assert await site.adopt(yes=True) == DONE
    assert told(capsys)["old-2"].startswith("the pool wants no more")
    taken = {s.id for s in servers[:2]}
    assert {vm["providerID"].rpartition("/")[2] for vm in site.vms().values()} == taken
    for server in servers[:2]:
        ours, owner = sorted(server.tags)
        assert ours == f"{TAG_INSTALLATION}here"
        assert owner.startswith(TAG_OWNER)
    assert servers[2].tags == ()
    assert await site.adopt(yes=True) == NOTHING
    assert len(site.vms()) == 2


async def test_an_adoption_that_was_cut_short_is_gone_on_with(site: Site) -> None:
    server = site.built("old-1")
    await site.adopt(yes=True)
    marked = server.tags
    site.sim.site.nova.set_tags(server, ())
    assert await site.adopt(yes=True) == NOTHING
    assert server.tags == marked
    assert len(site.vms()) == 1


async def test_a_pool_that_builds_is_given_nothing(site: Site) -> None:
    site.built("old-1")
    ops = [{"op": "replace", "path": "/spec/paused", "value": False}]
    await site.cluster.patch(Kind.WARM_POOL, POOL, ops)
    assert await site.adopt() == DONE
    with pytest.raises(ValueError, match="is not paused"):
        await site.adopt(yes=True)


async def test_what_is_not_there_is_named(site: Site) -> None:
    with pytest.raises(ValueError, match="no WarmPool search/nope"):
        await site.adopt(pool="nope")
    with pytest.raises(ValueError, match="no BindingLedger elsewhere/bindings"):
        await site.adopt(operator_namespace="elsewhere")
