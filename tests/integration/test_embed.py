"""`warmpool.embed` on a real API server: in our loop, in a thread, several at once, leading or not.

The API server is this module's own: an operator that leads works on every pool that there is.
"""

import asyncio
import json
import re
import secrets
import signal
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builders import a_pool_body
from doubles.mail import a_mail_server, text_of
from warmpool.api.names import LABEL_ROLE, Kind
from warmpool.cli import main
from warmpool.domain.ids import Ref
from warmpool.effects.kube import Credentials, KubeCluster
from warmpool.embed import (
    ClusterError,
    Operator,
    OperatorThread,
    Placed,
    Settings,
    Shortage,
)
from warmpool.tools.controlplane import ControlPlane
from warmpool.tools.crds import ROOT
from warmpool.tools.processes import free_ports

pytestmark = pytest.mark.integration

HOME = "warmpool-system"
SPACE = "search"
POOL = Ref(SPACE, "es-data")
PATIENCE = 60.0
"""Seconds for what must come, on however busy a machine."""

OBSERVER = "dashboard"


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane() as started:
        started.assert_test_context()
        for name in ("crds", "manifests/namespace.yaml", "manifests/users.yaml"):
            started.kubectl("apply", "-f", str(ROOT / name))
        started.kubectl("wait", "--for=condition=Established", "-f", str(ROOT / "crds"))
        started.kubectl("create", "namespace", SPACE)
        yield started


@pytest.fixture(scope="module")
def observer(plane: ControlPlane) -> Path:
    """The kubeconfig of an account that has the rights of an observer, and no more."""
    account = f"--serviceaccount={HOME}:{OBSERVER}"
    plane.kubectl("create", "serviceaccount", OBSERVER, "-n", HOME)
    role = ("--clusterrole=warmpool-observer", account)
    plane.kubectl("create", "clusterrolebinding", OBSERVER, *role)
    role = ("--role=warmpool-observer", account)
    plane.kubectl("create", "rolebinding", OBSERVER, "-n", HOME, *role)
    return plane.service_account_kubeconfig(HOME, OBSERVER)


@pytest.fixture
async def cluster(plane: ControlPlane) -> AsyncIterator[KubeCluster]:
    """The admin's hands. What they made is gone afterwards."""
    async with KubeCluster(await Credentials.load(str(plane.kubeconfig)), HOME) as it:
        yield it
        for kind in (Kind.WARM_VM, Kind.WARM_POOL, Kind.VM_CLAIM):
            await asyncio.to_thread(
                plane.kubectl, "delete", kind.plural, "--all", "-n", SPACE, "--wait=false"
            )
        await asyncio.to_thread(plane.kubectl, "delete", "leases", "--all", "-n", HOME)


@pytest.fixture
def settings(plane: ControlPlane) -> Callable[..., Settings]:
    def made(**fields: Any) -> Settings:
        quick = {
            "lease_seconds": 4,
            "lease_deadline_seconds": 3,
            "lease_retry_seconds": 0.4,
            "replica_renew_seconds": 5,
        }
        return Settings(**({"kubeconfig": str(plane.kubeconfig)} | quick | fields))

    return made


async def until(holds: Callable[[], object], what: str) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            while not holds():  # noqa: ASYNC110 - it says nothing when it changes
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"not within {PATIENCE:g} s: {what}")


async def a_ready_vm(cluster: KubeCluster, number: int, rack: str) -> None:
    name = f"es-data-{number}"
    spec = {"poolRef": {"name": POOL.name, "uid": "u"}}
    await cluster.create(
        Kind.WARM_VM, {"metadata": {"namespace": SPACE, "name": name}, "spec": spec}
    )
    where = {"zone": "az1", "rack": rack, "hypervisor": f"h{number}"}
    status = [
        {"op": "add", "path": f"/status/{key}", "value": value}
        for key, value in {"phase": "Ready", "readyAt": "2030-01-01T00:00:00Z", **where}.items()
    ]
    await cluster.patch(Kind.WARM_VM, Ref(SPACE, name), status, status=True)


async def a_pool(cluster: KubeCluster, *racks: str) -> None:
    """A pool of VMs that are ready, though no cloud has them: nobody leads who would ask."""
    body = a_pool_body(POOL)
    metadata = {"namespace": SPACE, "name": POOL.name}
    await cluster.create(Kind.WARM_POOL, {"metadata": metadata, "spec": body["spec"]})
    for number, rack in enumerate(racks):
        await a_ready_vm(cluster, number, rack)


def a_claim(count: int, **spec: Any) -> dict[str, Any]:
    request = {"name": "data", "pool": {"name": POOL.name}, "count": count}
    return {"kind": "VMClaim", "spec": {"requests": [request], **spec}}


def roles(operators: Any) -> dict[str, str]:
    return {member.identity: member.role for member in operators}


# -- not taking part --------------------------------------------------------------------------


async def test_who_does_not_take_part_follows_and_answers_with_the_right_to_read_alone(
    cluster: KubeCluster, observer: Path, settings: Callable[..., Settings]
) -> None:
    await a_pool(cluster, "r1", "r1", "r2")
    async with Operator(settings(kubeconfig=str(observer)), participate=False) as operator:
        found = operator.claimable(SPACE, POOL.name)
        assert found is not None
        assert (found.any, found.distinct_racks) == (3, 2)
        assert operator.claimable(SPACE, "none") is None

        placed = await operator.fit(a_claim(2, mode="RackAware"), SPACE)
        assert isinstance(placed, Placed)
        assert sorted(vm.place.rack for _, vm in placed.vms) == ["r1", "r2"]
        short = await operator.fit(a_claim(3, mode="RackAware"), SPACE)
        assert isinstance(short, Shortage)
        assert short.message.startswith("2 racks have ready VMs, 3 are needed")

        await a_ready_vm(cluster, 9, "r3")
        await until(lambda: operator.claimable(SPACE, POOL.name).any == 4, "the watch shows it")  # type: ignore[union-attr]
        assert isinstance(await operator.fit(a_claim(3, mode="RackAware"), SPACE), Placed)

        assert (await operator.leader(), operator.leads) == (None, False)


async def test_who_does_not_take_part_writes_nothing_at_all(
    cluster: KubeCluster, settings: Callable[..., Settings]
) -> None:
    """It has every right to, and nobody else is there."""
    await a_pool(cluster, "r1")
    claim = {"metadata": {"namespace": SPACE, "name": "logs"}, **a_claim(1)}
    await cluster.create(Kind.VM_CLAIM, claim)
    before = [(await cluster.list(kind)).items for kind in Kind]
    async with Operator(settings(), participate=False) as operator:
        await asyncio.sleep(6)  # longer than a lease
        assert not operator.leads
    assert [(await cluster.list(kind)).items for kind in Kind] == before
    assert await cluster.list_leases("") == []


async def test_the_example_of_the_docs_runs(
    cluster: KubeCluster,
    observer: Path,
    settings: Callable[..., Settings],
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (ROOT / "docs" / "embedding.md").read_text(encoding="utf-8")
    [example, *_] = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    scope: dict[str, Any] = {}
    exec(compile(example, "embedding.md", "exec"), scope)  # noqa: S102 - our own docs
    could_we_have_three = scope["could_we_have_three"]
    await a_pool(cluster, "r1", "r2")
    mine = settings(kubeconfig=str(observer))
    assert await could_we_have_three(mine) is False
    assert "led by nobody" in capsys.readouterr().out
    await a_ready_vm(cluster, 7, "r3")
    assert await could_we_have_three(mine) is True
    assert "data es-data-7 r3" in capsys.readouterr().out


# -- taking part ------------------------------------------------------------------------------


async def test_of_two_in_one_process_one_leads_and_the_other_follows_at_once(
    cluster: KubeCluster, settings: Callable[..., Settings], plane: ControlPlane
) -> None:
    """One in our loop and one in a thread, each with a name of its own making."""
    second = OperatorThread(settings())
    async with Operator(settings()) as first:
        await until(lambda: first.leads, "the first leads")
        second.start()
        await asyncio.to_thread(second.ready, PATIENCE)
        assert first.identity != second.identity
        await until_listed(first, {first.identity: "leader", second.identity: "standby"})
        assert await asyncio.to_thread(second.leader) == await first.leader()
        shown = await asyncio.to_thread(
            plane.kubectl, "get", "leases", "-n", HOME, "-l", LABEL_ROLE, "-L", LABEL_ROLE
        )
        assert re.search(rf"{first.identity} .* leader", shown.stdout)
        assert not second.leads
    started = asyncio.get_running_loop().time()
    await until(lambda: second.leads, "the second leads")
    assert asyncio.get_running_loop().time() - started < 4, "it waited for the lease to run out"
    leader = await asyncio.to_thread(second.leader)
    assert leader is not None
    assert (leader.identity, leader.changes) == (second.identity, 1)
    assert roles(await asyncio.to_thread(second.members)).keys() == {second.identity}
    await asyncio.to_thread(second.stop)
    assert await cluster.list_leases(LABEL_ROLE) == []


async def until_listed(operator: Operator, wanted: dict[str, str]) -> None:
    listed: dict[str, str] = {}
    async with asyncio.timeout(PATIENCE):
        while listed != wanted:
            listed = roles(await operator.members())
            await asyncio.sleep(0.1)


@pytest.mark.usefixtures("cluster")
async def test_status_tells_who_leads(
    settings: Callable[..., Settings], plane: ControlPlane, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ["status", "--kubeconfig", str(plane.kubeconfig)]
    assert await asyncio.to_thread(main, ask) == 1
    assert capsys.readouterr().out.startswith("Nobody leads.\n")
    async with Operator(settings(identity="me")) as operator:
        await until(lambda: operator.leads, "it leads")
        await until_listed(operator, {"me": "leader"})
        assert await asyncio.to_thread(main, ask) == 0
        assert capsys.readouterr().out.startswith("me leads, for ")
        assert await asyncio.to_thread(main, [*ask, "-o", "json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["leader"]["identity"] == told["replicas"][0]["identity"] == "me"


# -- a guest in somebody's program ------------------------------------------------------------


@pytest.mark.usefixtures("cluster")
async def test_an_operator_in_our_loop_leaves_all_that_is_ours_alone(
    settings: Callable[..., Settings],
) -> None:
    """Kopf cancels all tasks of its loop that are younger than itself, and takes over signals."""
    loop, ours = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, ours.set)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    async with Operator(settings()) as operator:
        await until(lambda: operator.leads, "it leads")
        younger = asyncio.ensure_future(asyncio.Event().wait())
        assert {number: signal.getsignal(number) for number in before} == before
    await asyncio.sleep(0.1)
    assert not younger.done()
    younger.cancel()
    signal.raise_signal(signal.SIGUSR1)
    async with asyncio.timeout(5):
        await ours.wait()
    loop.remove_signal_handler(signal.SIGUSR1)


@pytest.mark.usefixtures("cluster")
async def test_an_operator_that_is_cancelled_with_its_owner_hands_leadership_on(
    settings: Callable[..., Settings],
) -> None:
    leading = asyncio.Event()

    async def service() -> None:
        async with Operator(settings(identity="one")) as operator:
            await until(lambda: operator.leads, "it leads")
            leading.set()
            await asyncio.Event().wait()

    owner = asyncio.ensure_future(service())
    await leading.wait()
    owner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await owner
    async with Operator(settings(), participate=False) as other:
        assert await other.leader() is None
        assert await other.members() == []


@pytest.mark.usefixtures("cluster")
async def test_probes_tell_of_all_that_turns(settings: Callable[..., Settings]) -> None:
    [port] = free_ports(1)
    slow = 600  # the pace of its own Lease, far longer than a loop may otherwise pause
    async with Operator(settings(probe_port=port, replica_renew_seconds=slow)) as operator:
        await until(lambda: operator.leads, "it leads")
        await until(lambda: "binder" in {turn.name for turn in operator.turns()}, "it works")
        assert await asyncio.to_thread(get, f"http://127.0.0.1:{port}/readyz") == "ok\n"
        text = await asyncio.to_thread(get, f"http://127.0.0.1:{port}/livez")
    assert text.startswith("ok\n")
    loops = {line.partition(": ")[0] for line in text.splitlines()[1:]}
    assert loops >= {"elector", "comparer", "registration", "clearing", "binder", "keeper"}
    assert re.search(r"registration: turned .*, 780 s are allowed", text)
    assert loops >= {f"watch of {kind.plural}" for kind in (Kind.WARM_POOL, Kind.WARM_VM)}


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:  # noqa: S310 - http, and ours
        text: str = answer.read().decode()
        return text


# -- what it dies of --------------------------------------------------------------------------


async def test_what_an_operator_dies_of_is_told_to_whoever_waits(
    settings: Callable[..., Settings], tmp_path: Path
) -> None:
    lost = settings(kubeconfig=str(tmp_path / "none"))
    with pytest.raises(ClusterError, match="cannot use kubeconfig"):
        async with Operator(lost):
            pytest.fail("it cannot have started")
    with pytest.raises(ClusterError, match="cannot use kubeconfig"):
        await asyncio.to_thread(OperatorThread(lost).__enter__)
    dead = OperatorThread(lost)
    dead.start()
    with pytest.raises(ClusterError, match="cannot use kubeconfig"):
        await asyncio.to_thread(dead.ended, PATIENCE)
    assert not dead.running
    with pytest.raises(ClusterError):
        await asyncio.to_thread(dead.members)


async def test_a_handle_that_was_not_started_says_so(settings: Callable[..., Settings]) -> None:
    operator = Operator(settings())
    with pytest.raises(RuntimeError, match="not started"):
        await operator.ready()
    with pytest.raises(RuntimeError, match="does not run"):
        await operator.members()
    thread = OperatorThread(settings())
    assert not thread.running
    for ask in (thread.ready, thread.members, thread.stop, thread.ended):
        with pytest.raises(RuntimeError, match="not started"):
            ask()


async def test_an_operator_that_is_stopped_while_nobody_answers_ends(
    settings: Callable[..., Settings], tmp_path: Path, plane: ControlPlane
) -> None:
    [port] = free_ports(1)
    text = plane.kubeconfig.read_text()
    nobody = tmp_path / "kubeconfig"
    nobody.write_text(re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{port}", text))
    operator = Operator(settings(kubeconfig=str(nobody), identity=f"x-{secrets.token_hex(2)}"))
    operator.start()
    waiting = asyncio.ensure_future(operator.ready())
    await until(lambda: "first look" in {turn.name for turn in operator.turns()}, "it tries")
    assert operator.lacks()
    with pytest.raises(RuntimeError, match="started before"):
        operator.start()
    async with asyncio.timeout(PATIENCE):
        await operator.stop()
    with pytest.raises(RuntimeError, match="stopped before it was ready"):
        await waiting


@pytest.mark.usefixtures("cluster")
async def test_people_are_told_by_mail_who_leads(
    plane: ControlPlane, settings: Callable[..., Settings], tmp_path: Path
) -> None:
    """As whoever follows docs/notices.md has it: the Secret, the variable, a mail."""
    async with a_mail_server() as server:
        notices = f"routes: {{oncall: {{to: ['{server.url}'], gather: 0s}}}}"
        create = ("create", "secret", "generic", "warmpool-notices", "-n", HOME)
        content = f"--from-literal=notices.yaml={notices}"
        await asyncio.to_thread(plane.kubectl, *create, content)
        told = {"notices_secret": "warmpool-notices", "history_dir": tmp_path}
        async with Operator(settings(identity="replica-a", **told)):
            await until(lambda: server.mails, "a mail")
    assert server.mails[0]["subject"] == "warmpool: replica-a leads"
    assert "leads since" in text_of(server.mails[0])
