"""The manifests: the operator's rights are what the code says, and no more."""

from typing import Any

import pytest
import yaml

from warmpool.api.names import GROUP, PERMISSIONS, Kind
from warmpool.settings import Settings
from warmpool.tools.crds import ROOT

MANIFESTS = ROOT / "manifests"


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((MANIFESTS / name).read_text()))


def the(documents: list[dict[str, Any]], kind: str, name: str = "warmpool") -> dict[str, Any]:
    [found] = [d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name]
    return found


def rights(rules: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    assert all(rule.keys() == {"apiGroups", "resources", "verbs"} for rule in rules)
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.mark.parametrize(("role", "namespaced"), [("ClusterRole", False), ("Role", True)])
def test_the_operator_has_exactly_the_rights_that_the_code_names(
    role: str, namespaced: bool
) -> None:
    permitted = {
        (group, resource, verb)
        for permission in PERMISSIONS
        if permission.namespaced is namespaced
        for group in permission.groups
        for resource in permission.resources
        for verb in permission.verbs
    }
    assert rights(the(documents("rbac.yaml"), role)["rules"]) == permitted


@pytest.mark.parametrize("role", ["ClusterRole", "Role"])
def test_the_rights_are_bound_to_the_account_that_the_deployment_uses(role: str) -> None:
    binding = the(documents("rbac.yaml"), f"{role}Binding")
    account = the(documents("rbac.yaml"), "ServiceAccount")["metadata"]
    assert binding["roleRef"]["kind"] == role
    assert binding["roleRef"]["name"] == "warmpool"
    assert binding["subjects"] == [{"kind": "ServiceAccount", **account}]
    [deployment] = documents("deployment.yaml")
    assert deployment["metadata"]["namespace"] == account["namespace"]
    assert deployment["spec"]["template"]["spec"]["serviceAccountName"] == account["name"]


def test_namespaced_rights_hold_where_the_operator_lives() -> None:
    [namespace] = documents("namespace.yaml")
    for kind in ("Role", "RoleBinding", "ServiceAccount"):
        found = the(documents("rbac.yaml"), kind)
        assert found["metadata"]["namespace"] == namespace["metadata"]["name"]


@pytest.mark.parametrize("role", ["warmpool-view", "warmpool-edit", "warmpool-claimant"])
def test_no_user_role_reaches_what_is_the_operators(role: str) -> None:
    granted = rights(the(documents("users.yaml"), "ClusterRole", role)["rules"])
    assert not {right for right in granted if right[1].startswith(Kind.BINDING_LEDGER.plural)}
    assert not {right for right in granted if right[1].endswith("/status")}
    written = {verb for _, resource, verb in granted if resource == Kind.WARM_VM.plural}
    assert written <= {"get", "list", "watch", "delete"}
    assert {group for group, _, _ in granted} == {GROUP}


def test_who_observes_may_read_and_nothing_else() -> None:
    for kind in ("ClusterRole", "Role"):
        granted = rights(the(documents("users.yaml"), kind, "warmpool-observer")["rules"])
        assert {verb for _, _, verb in granted} == {"get", "list", "watch"}
        assert not {right for right in granted if right[1] in ("secrets", "bindingledgers")}


def test_a_claimant_can_do_all_that_claiming_takes() -> None:
    granted = rights(the(documents("users.yaml"), "ClusterRole", "warmpool-claimant")["rules"])
    assert {(GROUP, "vmclaims", verb) for verb in ("create", "watch", "delete")} <= granted
    assert {(GROUP, "warmpools", verb) for verb in ("get", "list")} <= granted


def test_the_deployment_holds_the_restricted_pod_security_standard() -> None:
    [deployment] = documents("deployment.yaml")
    assert deployment["spec"]["replicas"] == 2
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    [container] = pod["containers"]
    assert container["args"] == ["warmpool", "run"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_probes_ask_where_the_operator_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    [deployment] = documents("deployment.yaml")
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], variable.get("value", "10.0.0.7"))
    settings = Settings()
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {
        "probes": settings.probe_port,
        "metrics": settings.metrics_port,
    }
    assert settings.probe_address == settings.metrics_address == "10.0.0.7"
    asked = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness")}
    assert {probe["path"] for probe in asked.values()} == {"/livez"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "probes"}


def test_history_is_kept_where_the_operator_may_write() -> None:
    [deployment] = documents("deployment.yaml")
    spec = deployment["spec"]["template"]["spec"]
    [container] = spec["containers"]
    env = {variable["name"]: variable.get("value") for variable in container["env"]}
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounted[env["WARMPOOL_HISTORY_DIR"]] in {volume["name"] for volume in spec["volumes"]}


def test_kustomization_names_every_manifest() -> None:
    [kustomization] = documents("kustomization.yaml")
    files = {path.name for path in MANIFESTS.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == files
