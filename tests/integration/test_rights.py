"""What the roles in `manifests/` allow, as a real API server with RBAC resolves them."""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from warmpool.api.names import API_VERSION, GROUP, PERMISSIONS, Kind
from warmpool.effects.clock import SystemClock
from warmpool.effects.kube import Credentials, KubeCluster
from warmpool.handlers.access import SCRAPES, SEES_ALL, Guard, Verdict
from warmpool.tools.cluster import Cluster
from warmpool.tools.crds import ROOT

pytestmark = pytest.mark.integration

HOME = "warmpool-system"
AWAY = f"rights-{secrets.token_hex(3)}"


class Account:
    """A ServiceAccount at work in the namespace `AWAY`."""

    def __init__(self, cluster: Cluster, kubeconfig: Path) -> None:
        self._cluster = cluster
        self._kubeconfig = kubeconfig

    @property
    def kubeconfig(self) -> Path:
        return self._kubeconfig

    async def token(self) -> str:
        return await (await Credentials.load(str(self._kubeconfig))).token() or ""

    def may(self, *args: str, stdin: str | None = None) -> bool:
        """Do it, and say whether that was permitted."""
        done = self._cluster.kubectl(
            *args, "-n", AWAY, stdin=stdin, kubeconfig=self._kubeconfig, check=False
        )
        if done.returncode == 0:
            return True
        assert "(Forbidden)" in done.stderr, done.stderr
        return False

    def rights(self, namespace: str) -> set[tuple[str, str, str]]:
        """All that the account may do in a namespace: (group, resource, verb)."""
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": namespace},
        }
        answer = self._cluster.kubectl(
            *("create", "-f", "-", "-o", "json", "--validate=false"),
            stdin=json.dumps(review),
            kubeconfig=self._kubeconfig,
        )
        return {
            (group, resource, verb)
            for rule in json.loads(answer.stdout)["status"]["resourceRules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }


def a_manifest(kind: Kind, name: str, spec: dict[str, Any]) -> str:
    metadata = {"name": name, "namespace": AWAY}
    return json.dumps(
        {"apiVersion": API_VERSION, "kind": kind.value, "metadata": metadata, "spec": spec}
    )


def a_claim(name: str) -> str:
    request = {"name": "data", "pool": {"name": "es-data"}, "count": 1}
    return a_manifest(Kind.VM_CLAIM, name, {"requests": [request]})


@pytest.fixture(scope="module")
def cluster(control_plane: Cluster) -> Iterator[Cluster]:
    """With the manifests installed, and a claim, a VM, a ledger and a Secret in `AWAY`."""
    control_plane.assert_test_context()
    for name in ("crds", "manifests/namespace.yaml", "manifests/rbac.yaml", "manifests/users.yaml"):
        control_plane.kubectl("apply", "-f", str(ROOT / name))
    control_plane.kubectl("wait", "--for=condition=Established", "-f", str(ROOT / "crds"))
    control_plane.kubectl("create", "namespace", AWAY)
    control_plane.kubectl("create", "secret", "generic", "lab-cloud", "-n", AWAY)
    for manifest in (
        a_claim("logs-7"),
        a_manifest(Kind.WARM_VM, "vm-1", {"poolRef": {"name": "es-data", "uid": "u-1"}}),
        a_manifest(Kind.BINDING_LEDGER, "bindings", {"epoch": 1, "installation": "i-1"}),
    ):
        control_plane.kubectl("create", "-f", "-", stdin=manifest)
    yield control_plane
    control_plane.kubectl("delete", "namespace", AWAY, "--wait=false")


@pytest.fixture(scope="module")
def operator(cluster: Cluster) -> Account:
    return Account(cluster, cluster.service_account_kubeconfig(HOME, "warmpool"))


@pytest.fixture(scope="module")
def anybody(cluster: Cluster) -> Account:
    """Nothing is bound to it: it may do what every account may."""
    cluster.kubectl("create", "serviceaccount", "anybody", "-n", AWAY)
    return Account(cluster, cluster.service_account_kubeconfig(AWAY, "anybody"))


@pytest.fixture(scope="module")
def claimant(cluster: Cluster) -> Account:
    cluster.kubectl("create", "serviceaccount", "provisioner", "-n", AWAY)
    cluster.kubectl(
        *("create", "rolebinding", "provisioner", "-n", AWAY),
        *("--clusterrole=warmpool-claimant", f"--serviceaccount={AWAY}:provisioner"),
    )
    return Account(cluster, cluster.service_account_kubeconfig(AWAY, "provisioner"))


@pytest.mark.parametrize(("namespace", "home"), [(AWAY, False), (HOME, True)], ids=["away", "home"])
def test_the_operator_may_do_what_the_code_names_and_nothing_else(
    operator: Account, anybody: Account, namespace: str, home: bool
) -> None:
    needed = {
        (group, resource, verb)
        for permission in PERMISSIONS
        if home or not permission.namespaced
        for group in permission.groups
        for resource in permission.resources
        for verb in permission.verbs
    }
    assert operator.rights(namespace) - anybody.rights(namespace) == needed


@pytest.mark.parametrize(
    "deed",
    [
        pytest.param("delete vmclaim logs-7", id="delete-a-claim"),
        pytest.param("get bindingledger bindings", id="read-a-ledger-that-is-not-its-own"),
        pytest.param("get secrets", id="list-secrets"),
        pytest.param("delete secret lab-cloud", id="delete-a-secret"),
        pytest.param("get pods", id="list-pods"),
        pytest.param("delete namespace default", id="delete-a-namespace"),
    ],
)
def test_the_operator_may_not(operator: Account, deed: str) -> None:
    assert not operator.may(*deed.split())


def test_the_operator_reads_what_it_must(operator: Account) -> None:
    assert operator.may("get", "warmpools,vmclaims,warmvms")
    assert operator.may("get", "secret", "lab-cloud")


def test_a_claimant_claims_and_releases(claimant: Account) -> None:
    assert claimant.may("create", "-f", "-", stdin=a_claim("logs-8"))
    assert claimant.may("get", "vmclaims")
    assert claimant.may("get", "warmpools")
    assert claimant.may("delete", "vmclaim", "logs-8")


def test_a_claimant_writes_neither_a_status_nor_a_vm(claimant: Account) -> None:
    assert (GROUP, "vmclaims", "patch") in claimant.rights(AWAY)
    assert not {right for right in claimant.rights(AWAY) if right[1].endswith("/status")}
    assert not claimant.may("patch", "warmvm", "vm-1", "--type=merge", '--patch={"spec":{}}')
    assert not claimant.may("delete", "warmvm", "vm-1")


@pytest.mark.parametrize(
    ("roles", "page", "metrics"),
    [
        pytest.param((), Verdict.MAY_NOT, Verdict.MAY_NOT, id="nothing"),
        pytest.param(("warmpool-claimant",), Verdict.MAY_NOT, Verdict.MAY_NOT, id="claimant"),
        pytest.param(("warmpool-view",), Verdict.MAY, Verdict.MAY_NOT, id="view"),
        pytest.param(("warmpool-metrics",), Verdict.MAY_NOT, Verdict.MAY, id="metrics"),
    ],
)
async def test_who_is_shown_the_page_and_the_metrics_beyond_loopback(
    cluster: Cluster, operator: Account, roles: tuple[str, ...], page: Verdict, metrics: Verdict
) -> None:
    """The operator asks, with no more rights than its own."""
    name = f"looks-{secrets.token_hex(3)}"
    cluster.kubectl("create", "serviceaccount", name, "-n", AWAY)
    for role in roles:
        bound = (f"--clusterrole={role}", f"--serviceaccount={AWAY}:{name}")
        cluster.kubectl("create", "clusterrolebinding", name, *bound)
    token = await Account(cluster, cluster.service_account_kubeconfig(AWAY, name)).token()
    login = await Credentials.load(str(operator.kubeconfig))
    async with KubeCluster(login, HOME) as kube:
        assert await Guard(kube, SystemClock(), SEES_ALL).judge(token) is page
        assert await Guard(kube, SystemClock(), SCRAPES).judge(token) is metrics
        assert await Guard(kube, SystemClock(), SCRAPES).judge(f"{token}x") is Verdict.UNKNOWN
