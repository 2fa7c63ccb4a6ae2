"""The catalogue in MongoDB, with a whole operator: away, back, and moved into VMFlavors."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.fleet import LEASE, Fleet
from harness.sandbox import Sandbox

from warmpool.api.names import Kind
from warmpool.cli import main
from warmpool.cli.catalogue import manifests
from warmpool.tools.cluster import Cluster
from warmpool.tools.gobuild import BinariesError
from warmpool.tools.mongodb import MongoServer, open_mongodb

RESOLVED = "DependenciesResolved"


@pytest.fixture
def mongodb(tmp_path: Path) -> Iterator[MongoServer]:
    """One that may be killed."""
    try:
        server = open_mongodb(tmp_path / "mongodb")
    except BinariesError as error:
        pytest.skip(f"no MongoDB of our own: {error}")
    with server:
        yield server


@contextlib.contextmanager
def operator(cluster: Cluster, fleet: Fleet, directory: Path, uri: str) -> Iterator[Fleet]:
    """The one that leads, with MongoDB in force; the shared one is down."""
    fleet.stop()
    env = {**LEASE, "WARMPOOL_CATALOGUE": "mongodb", "WARMPOOL_MONGODB_URI": uri}
    own = Fleet(cluster, fleet.kubeconfig, directory, name="mongo", env=env)
    try:
        own.ensure(1)
        yield own
    finally:
        own.stop()


def move(cluster: Cluster, uri: str, *args: str) -> None:
    """`warmpool catalogue`, without the start of a process."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("WARMPOOL_MONGODB_URI", uri)
        patched.setenv("KUBECONFIG", str(cluster.kubeconfig))
        assert main(["catalogue", *args]) == 0


@pytest.fixture
def entry(cluster: Cluster, sandbox: Sandbox) -> Iterator[str]:
    """Name of an entry; a VMFlavor of that name is gone afterwards."""
    yield sandbox.named("g2")
    cluster.kubectl("delete", "vmflavor", sandbox.named("g2"), "--ignore-not-found")


def says(sandbox: Sandbox, pool: str, reason: str) -> None:
    sandbox.until(
        lambda: sandbox.condition(pool, RESOLVED).get("reason") == reason, f"{pool}: {reason}"
    )
    assert sandbox.condition(pool, RESOLVED)["status"] == "True"


def test_mongodb_dies_and_returns_and_the_catalogue_is_moved_and_no_server_is_replaced(
    fleet: Fleet, sandbox: Sandbox, entry: str, mongodb: MongoServer, tmp_path: Path
) -> None:
    cluster = sandbox.cluster
    uri, file = mongodb.uri, tmp_path / "catalogue.yaml"
    by_name = sandbox.cloud.template()
    spec = {"flavor": by_name["flavor"], "image": {"name": by_name["image"]}}
    file.write_text(manifests({entry: spec}), "utf-8")
    move(cluster, uri, "import", "mongodb", str(file))
    by_ref = {"flavor": None, "image": None, "flavorRef": {"name": entry}}
    with operator(cluster, fleet, tmp_path, uri) as own:
        pool = sandbox.full_pool("data", 2, template=by_ref)
        says(sandbox, pool, "Resolved")
        mongodb.stop()
        says(sandbox, pool, "CatalogueUnavailable")
        sandbox.scale(pool, 3)
        sandbox.await_ready(pool, 3)
        mongodb.start()
        says(sandbox, pool, "Resolved")
        assert "Traceback" not in own.log()
    before, servers = sandbox.status(pool)["resolved"], sorted(sandbox.servers())
    move(cluster, uri, "export", "mongodb", "-o", str(file))
    move(cluster, uri, "import", "vmflavors", str(file))
    fleet.ensure(1)
    cluster.kubectl("wait", f"vmflavor/{entry}", "--for=condition=Resolved", "--timeout=60s")
    says(sandbox, pool, "Resolved")
    sandbox.scale(pool, 4)  # what is decided from now on is decided by VMFlavors
    sandbox.await_ready(pool, 4)
    assert sandbox.status(pool)["resolved"] == before
    assert set(servers) < set(sandbox.servers())
    assert len(sandbox.names(Kind.WARM_VM)) == 4
