"""`warmpool adopt` with the real adapter over the simulator's HTTP face."""

import argparse
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from builders import a_pool_body, a_vm_body
from doubles.cluster import FakeCluster
from warmpool.api.names import LEDGER_NAME, TAG_INSTALLATION, TAG_OWNER, Kind
from warmpool.cli.adopt import DONE, ERROR, NOTHING, adopt
from warmpool.domain.adoption import Step
from warmpool.domain.ids import Ref
from warmpool.effects.clock import SystemClock
from warmpool.ports.cluster import Body
from warmpool.sim.builds import BuildRequest
from warmpool.sim.faults import ApiFault
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


async def test_an_adoption_that_fails_half_way_says_how_far_it_came_and_is_gone_on_with(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once it told an error only, and the pool had a server that nobody believed to be adopted."""
    nova = site.sim.site.nova
    servers = [site.built(f"old-{n}") for n in range(2)]
    fault = nova.arm(ApiFault(effect="status", status=403, method="PUT", path="/tags"))
    assert await site.adopt(yes=True, output="table") == ERROR
    shown = capsys.readouterr()
    lines = {line.split()[1]: line for line in shown.out.splitlines()}
    assert lines["old-0"].endswith(Step.BEGUN)
    assert lines["old-1"].endswith(Step.UNTOUCHED)
    assert "tag server" in shown.err
    (vm,) = site.vms().values()
    assert vm["providerID"].endswith(servers[0].id)
    nova.faults.remove(fault)
    assert await site.adopt(yes=True, output="table") == DONE
    lines = {line.split()[1]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["old-0"].endswith(Step.FINISHED)
    assert lines["old-1"].endswith(Step.ADOPTED)
    assert all(len(server.tags) == 2 for server in servers)
    assert len(site.vms()) == 2


async def test_a_pool_that_goes_is_given_nothing(site: Site) -> None:
    """It would take the servers with it."""
    site.built("old-1")
    ops = [{"op": "add", "path": "/metadata/finalizers", "value": ["warmpool.dev/pool"]}]
    await site.cluster.patch(Kind.WARM_POOL, POOL, ops)
    site.cluster.remove(Kind.WARM_POOL, POOL)
    for yes in (False, True):
        with pytest.raises(ValueError, match="is being deleted, and its VMs with it"):
            await site.adopt(yes=yes)
    assert not site.vms()


async def test_a_pool_that_changes_meanwhile_is_given_no_more(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        site.built(f"old-{number}")
    create = site.cluster.create

    async def create_and_go_on(kind: Kind, body: Body) -> Body:
        made = await create(kind, body)
        ops = [{"op": "replace", "path": "/spec/paused", "value": False}]
        await site.cluster.patch(Kind.WARM_POOL, POOL, ops)
        return made

    site.cluster.create = create_and_go_on  # type: ignore[method-assign]
    assert await site.adopt(yes=True) == ERROR
    shown = capsys.readouterr()
    steps = {row["name"]: row["step"] for row in json.loads(shown.out)}
    assert steps == {"old-0": "Adopted", "old-1": "Untouched"}
    assert "is not paused" in shown.err
    assert len(site.vms()) == 1


async def test_a_warmvm_of_the_same_name_is_not_taken_for_the_servers(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names are made of the first eight digits of the server's id."""
    server = site.built("old-1")
    name = Ref(POOL.namespace, f"{POOL.name}-{server.id[:8]}")
    other = a_vm_body(1, providerID="openstack:///RegionOne/another")
    site.cluster.put(Kind.WARM_VM, {**other, "metadata": {"namespace": name.namespace,
                                                          "name": name.name}})  # fmt: skip
    assert await site.adopt(yes=True) == ERROR
    assert "is another server's: another" in capsys.readouterr().err
    assert server.tags == ()


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
