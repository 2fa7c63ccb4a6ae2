"""The local control plane is a real one, breaks on request, and leaves nothing behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from warmpool.tools.cluster import ClusterError
from warmpool.tools.controlplane import ControlPlane
from warmpool.tools.processes import Process, ProcessError, wait_until

pytestmark = pytest.mark.integration

CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: probes.test.warmpool}
spec:
  group: test.warmpool
  scope: Namespaced
  names: {kind: Probe, plural: probes, singular: probe}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer, minimum: 1}}}
"""

PARENT = """
import json
from warmpool.tools.controlplane import ControlPlane
control_plane = ControlPlane()
control_plane.start()
pids = [process.pid for process in control_plane.processes]
print(json.dumps({"pids": pids, "directory": str(control_plane.directory)}), flush=True)
control_plane.apiserver.process.wait()
"""


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    with namespace_in(control_plane) as name:
        yield name


@pytest.fixture
def fragile_namespace(fragile: ControlPlane) -> Iterator[str]:
    with namespace_in(fragile) as name:
        yield name


@contextlib.contextmanager
def namespace_in(cluster: ControlPlane) -> Iterator[str]:
    name = f"test-{uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


def config_map(name: str, owner: dict[str, str] | None = None) -> str:
    metadata = {"name": name, "ownerReferences": [owner] if owner else []}
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})


def exists(cluster: ControlPlane, *what: str) -> bool:
    return cluster.kubectl("get", *what, check=False).returncode == 0


def running(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def nothing_left(pids: list[int], directory: str) -> bool:
    return not any(running(pid) for pid in pids) and not Path(directory).exists()


@pytest.mark.parametrize("ahead", [0, 500], ids=["revisions repeat", "revisions go on"])
def test_a_backup_that_is_restored_is_all_that_there_is(
    fragile: ControlPlane, tmp_path: Path, ahead: int
) -> None:
    def revision() -> int:
        answer = fragile.kubectl("get", "--raw", "/api/v1/configmaps?limit=1").stdout
        return int(json.loads(answer)["metadata"]["resourceVersion"])

    names = [f"m-{uuid4().hex[:8]}" for _ in range(2)]
    fragile.kubectl("create", "-f", "-", stdin=config_map(names[0]))
    fragile.backup(tmp_path / "backup")
    fragile.kubectl("create", "-f", "-", stdin=config_map(names[1]))
    url, before = fragile.apiserver.url, revision()
    fragile.restore(tmp_path / "backup", ahead=ahead)
    assert fragile.apiserver.url == url
    assert exists(fragile, f"configmap/{names[0]}")
    assert not exists(fragile, f"configmap/{names[1]}")
    started = 300  # revisions that a start takes, at most
    assert (revision() > before + started) == bool(ahead)


def test_a_kind_of_ours_is_stored_and_its_schema_holds(
    control_plane: ControlPlane, namespace: str
) -> None:
    control_plane.kubectl("apply", "-f", "-", stdin=CRD)
    control_plane.kubectl("wait", "--for=condition=Established", "crd/probes.test.warmpool")
    probe = "apiVersion: test.warmpool/v1\nkind: Probe\nmetadata: {name: p}\nspec: {size: %d}\n"
    control_plane.kubectl("apply", "-n", namespace, "-f", "-", stdin=probe % 3)
    assert exists(control_plane, "probe/p", "-n", namespace)
    with pytest.raises(ClusterError, match="greater than or equal to 1"):
        control_plane.kubectl("apply", "-n", namespace, "-f", "-", stdin=probe % 0)


def test_what_is_owned_goes_with_its_owner(control_plane: ControlPlane, namespace: str) -> None:
    apply = ("apply", "-n", namespace, "-o", "jsonpath={.metadata.uid}", "-f", "-")
    uid = control_plane.kubectl(*apply, stdin=config_map("owner")).stdout
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    control_plane.kubectl(*apply, stdin=config_map("owned", owner))
    control_plane.kubectl("delete", "configmap/owner", "-n", namespace)
    wait_until(
        lambda: not exists(control_plane, "configmap/owned", "-n", namespace),
        timeout=20,
        what="the garbage collector",
    )


def test_a_namespace_goes_with_all_that_is_in_it(
    control_plane: ControlPlane, namespace: str
) -> None:
    control_plane.kubectl("apply", "-n", namespace, "-f", "-", stdin=config_map("inside"))
    control_plane.kubectl("delete", "namespace", namespace, "--timeout=30s")
    assert not exists(control_plane, "namespace", namespace)


def test_a_user_may_do_what_a_role_allows_and_nothing_else(
    control_plane: ControlPlane, namespace: str
) -> None:
    user = control_plane.user_kubeconfig("warmpool-user")
    get = ("get", "configmaps", "-n", namespace)
    with pytest.raises(ClusterError, match="Forbidden"):
        control_plane.kubectl(*get, kubeconfig=user)
    in_namespace = ("-n", namespace)
    control_plane.kubectl(
        "create", "role", "r", "--verb=list", "--resource=configmaps", *in_namespace
    )
    control_plane.kubectl(
        "create", "rolebinding", "b", "--role=r", "--user=warmpool-user", *in_namespace
    )
    allowed = lambda: control_plane.kubectl(*get, kubeconfig=user, check=False).returncode == 0  # noqa: E731
    wait_until(allowed, timeout=10, what="the role's effect")
    with pytest.raises(ClusterError, match="Forbidden"):
        control_plane.kubectl("get", "secrets", *in_namespace, kubeconfig=user)


def test_a_service_account_is_itself(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.kubectl("create", "serviceaccount", "operator", "-n", namespace)
    own = control_plane.service_account_kubeconfig(namespace, "operator")
    answer = control_plane.kubectl("auth", "whoami", "-o", "json", kubeconfig=own).stdout
    user = json.loads(answer)["status"]["userInfo"]["username"]
    assert user == f"system:serviceaccount:{namespace}:operator"


def test_an_unknown_user_is_refused(control_plane: ControlPlane) -> None:
    with pytest.raises(ClusterError, match=r"no user 'nobody' among admin, warmpool-operator"):
        control_plane.user_kubeconfig("nobody")


@pytest.mark.parametrize("end", ["as it runs", "after it was killed"])
def test_a_restarted_api_server_has_all_its_data(
    end: str, fragile: ControlPlane, fragile_namespace: str
) -> None:
    fragile.kubectl("apply", "-n", fragile_namespace, "-f", "-", stdin=config_map("kept"))
    if end == "after it was killed":
        fragile.kill_apiserver()
        assert not exists(fragile, "configmap/kept", "-n", fragile_namespace)
    fragile.restart_apiserver()
    assert exists(fragile, "configmap/kept", "-n", fragile_namespace)


def test_a_paused_api_server_does_not_answer_until_it_is_resumed(
    fragile: ControlPlane, fragile_namespace: str
) -> None:
    fragile.pause_apiserver()
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            fragile.kubectl("get", "namespace", fragile_namespace, timeout=1)
    finally:
        fragile.resume_apiserver()
    assert exists(fragile, "namespace", fragile_namespace)


def test_a_second_api_server_serves_while_the_first_is_down(
    fragile: ControlPlane, fragile_namespace: str
) -> None:
    second = fragile.start_second_apiserver()
    fragile.kill_apiserver()
    try:
        fragile.kubectl("get", "namespace", fragile_namespace, kubeconfig=second.kubeconfig)
    finally:
        fragile.restart_apiserver()
        second.stop(grace=0)
    assert exists(fragile, "namespace", fragile_namespace)


def test_the_users_own_configuration_is_not_touched(tmp_path: Path) -> None:
    environ = {**os.environ, "HOME": str(tmp_path)}
    environ["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    environ["GOCACHE"] = environ["GOMODCACHE"] = str(tmp_path / "not-kube")
    with ControlPlane(environ=environ) as own:
        own.kubectl("get", "namespaces")
        assert (own.directory / "kubectl-cache").exists()
        pids = [process.pid for process in own.processes]
        directory = str(own.directory)
    assert nothing_left(pids, directory)
    assert not (tmp_path / ".kube").exists()


def test_a_server_that_does_not_start_says_why_and_leaves_nothing() -> None:
    broken = ControlPlane(apiserver_args=["--no-such-flag"])
    with pytest.raises(ProcessError, match=r"apiserver: ended with 1(.|\n)*unknown flag"):
        broken.start()
    assert nothing_left([process.pid for process in broken.processes], str(broken.directory))


def test_a_kept_directory_is_started_again_with_its_data(tmp_path: Path) -> None:
    with ControlPlane(tmp_path / "kept") as first:
        first.kubectl("apply", "-f", "-", stdin=config_map("kept"))
        token = first.kubeconfig.read_text().partition("token: ")[2]
        with pytest.raises(ClusterError, match="another control plane runs in"):
            ControlPlane(tmp_path / "kept").start()
    with ControlPlane(tmp_path / "kept") as second:
        assert exists(second, "configmap/kept")
        assert second.kubeconfig.read_text().partition("token: ")[2] == token


def test_nothing_is_left_of_a_parent_that_was_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT]
    with Process.start(command, log=tmp_path / "log", name="parent") as parent:
        left = json.loads(parent.wait_for(lambda: parent.tail(1), 120, "its control plane"))
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait(10)
        wait_until(lambda: nothing_left(**left), timeout=15, what="the end of what it started")
    assert len(left["pids"]) == 3


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_up_ends_cleanly_when_asked_to(number: signal.Signals, code: int, tmp_path: Path) -> None:
    # As a script starts what is to run in the background: deaf to Ctrl-C.
    deaf = ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh"]
    command = [*deaf, sys.executable, "-m", "warmpool.tools.controlplane", "up"]
    with Process.start(command, log=tmp_path / "log", name="up") as up:
        up.wait_for(lambda: "ready" in up.tail(), 120, "the control plane")
        [exported] = [line for line in up.tail().splitlines() if line.startswith("export ")]
        kubeconfig = Path(exported.removeprefix("export KUBECONFIG="))
        assert kubeconfig.exists()
        up.send(number)
        assert up.wait(20) == code
    assert not kubeconfig.parent.exists()
