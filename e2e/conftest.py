"""Journeys of the whole operator, seen from outside: `pytest e2e`.

The API server is the local control plane, or the one that `--kubeconfig` or $WARMPOOL_KUBECONFIG
names if its context is a test's own. The cloud is the simulator, or with `--cloud` one of the
user's clouds.yaml; what only a simulator can be made to do is left out then, and said so. Control
plane, cloud and operators are shared; every test has a namespace, and leaves no server behind.
"""

import asyncio
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from harness.clouds import CloudUnderTest, Simulator, UserCloud
from harness.fleet import Fleet, install
from harness.lab import Lab
from harness.sandbox import Sandbox

from warmpool.tools.cluster import Cluster, ClusterError
from warmpool.tools.controlplane import open_cluster
from warmpool.tools.processes import temporary_directory

# looptime asks for the current event loop before every test, and asyncio makes one that nobody
# closes, unless it was told that there is none.
asyncio.set_event_loop(None)

TOLD = 60
"""Lines of the operators' logs that a failure shows."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("journeys")
    group.addoption("--kubeconfig", type=Path, help="another API server: kind-* contexts only")
    group.addoption("--cloud", help="a cloud of your clouds.yaml instead of the simulator")
    group.addoption("--flavor", help="with --cloud; by default the smallest")
    group.addoption("--image", help="with --cloud; by default the smallest that fits the flavor")
    group.addoption("--network", help="with --cloud; by default the first; none: no network")
    group.addoption(
        "--lab",
        metavar="PID_FILES",
        help="with --cloud; it is yours to break: its quota is changed, and nova-compute is killed"
        " by the process id at this path, where {n} is the number in the hypervisor's name",
    )
    group.addoption(
        "--member", help="with --cloud; the entry of a plain member of the same project"
    )
    group.addoption("--cycles", type=int, default=5, help="of kill -9")
    group.addoption("--seed", type=int, help="of what is random; by default a new one, printed")
    group.addoption("--minutes", type=float, default=1.0, help="of chaos, before all settles")
    group.addoption("--deeds", help="of chaos, only these: kill,hold,lag; see harness/monkey.py")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "simulator: needs a cloud that can be made to misbehave")
    config.addinivalue_line("markers", "openstack: needs a real one; the simulator has more")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    cloud = config.getoption("--cloud")
    needs = "simulator" if cloud else "openstack"
    left_out = [item for item in items if item.get_closest_marker(needs)]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
    config.stash[LEFT_OUT] = [item.name for item in left_out if cloud]


LEFT_OUT = pytest.StashKey[list[str]]()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    left_out = config.stash.get(LEFT_OUT, [])
    if left_out:
        cloud = config.getoption("--cloud")
        terminalreporter.write_line(
            f"{len(left_out)} journeys left out: no fault can be switched on in cloud {cloud!r},"
            f" only in the simulator: {', '.join(sorted(left_out))}"
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what a failure looked like from outside."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        fleet, sandbox = item.funcargs.get("fleet"), item.funcargs.get("sandbox")
        if isinstance(sandbox, Sandbox):
            report.sections.append(("kubectl get", _shown(sandbox)))
        if isinstance(fleet, Fleet):
            report.sections.append(("operators", fleet.log_tail(TOLD)))
    return report


def _shown(sandbox: Sandbox) -> str:
    """What a failure left; where nothing can be asked any more, that must not hide the failure."""
    try:
        return sandbox.tables()
    except ClusterError as error:
        return str(error)


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with open_cluster(request.config.getoption("--kubeconfig")) as opened:
        opened.assert_test_context()
        yield opened


@pytest.fixture(scope="session")
def cloud(request: pytest.FixtureRequest) -> Iterator[CloudUnderTest]:
    option = request.config.getoption
    if name := option("--cloud"):
        asked = {key: option(f"--{key}") for key in ("flavor", "image", "network", "lab")}
        yield UserCloud(name, **asked)
        return
    with temporary_directory("warmpool-novasim-") as directory:
        simulator = Simulator(directory)
        yield simulator
        simulator.stop()


@pytest.fixture
def simulator(cloud: CloudUnderTest) -> Iterator[Simulator]:
    """The simulator, whole again afterwards. Only for tests that are marked so."""
    assert isinstance(cloud, Simulator), "mark the test with pytest.mark.simulator"
    yield cloud
    cloud.mend()


@pytest.fixture
def lab(cloud: CloudUnderTest, sandbox: Sandbox) -> Iterator[Lab]:
    """A real cloud that is ours to break. Only for tests that are marked so."""
    assert isinstance(cloud, UserCloud), "mark the test with pytest.mark.openstack"
    yield cloud.own()
    cloud.mend()
    sandbox.clear()
    cloud.own().tidy()


@pytest.fixture(scope="session")
def replicas(cluster: Cluster) -> Iterator[Fleet]:
    with temporary_directory("warmpool-operators-") as directory:
        started = Fleet(cluster, install(cluster), directory)
        yield started
        started.stop()


@pytest.fixture
def fleet(replicas: Fleet) -> Fleet:
    """One operator that leads, whatever the test before has done to it."""
    replicas.ensure(1)
    replicas.mark()
    return replicas


@pytest.fixture
def sandbox(
    cluster: Cluster, cloud: CloudUnderTest, fleet: Fleet, request: pytest.FixtureRequest
) -> Iterator[Sandbox]:
    """A namespace; afterwards everything in it is gone, and its servers with it."""
    if "simulator" in request.fixturenames:  # mended after the namespace is cleared, else before
        request.getfixturevalue("simulator")
    opened = Sandbox(cluster, cloud)
    opened.create()
    yield opened
    cloud.mend()
    fleet.ensure(1)
    opened.clear()
    assert opened.servers() == []
    opened.remove()
    assert "Traceback" not in fleet.log()
