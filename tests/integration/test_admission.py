"""What a real API server accepts and refuses of our kinds.

Only it proves the schemas and the CEL rules. A refusal must name the field and the remedy.
"""

import base64
import http.client
import json
import secrets
import ssl
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from warmpool.api.names import API_VERSION, GROUP, VERSION, Kind
from warmpool.tools.cluster import Cluster
from warmpool.tools.crds import ROOT

pytestmark = pytest.mark.integration

NAMESPACE = f"admission-{secrets.token_hex(3)}"
MERGE = "application/merge-patch+json"
numbers = count(1)

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API server said: the object, or why not."""

    code: int
    body: dict[str, Any]

    @property
    def causes(self) -> dict[str, str]:
        """Messages by field."""
        causes = self.body.get("details", {}).get("causes", [])
        return {cause.get("field", ""): cause["message"] for cause in causes}

    def ok(self) -> Manifest:
        assert self.code in {200, 201}, self.body
        return self.body

    def refused(self, field: str, message: str) -> None:
        assert self.code == 422, self.body
        assert message in self.causes.get(field, ""), self.causes


class Api:
    """The API server as one ServiceAccount sees it."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._headers = {"Authorization": f"Bearer {user['token']}"}
        self._connection = http.client.HTTPSConnection(
            urlsplit(cluster["server"]).netloc,
            timeout=30,
            context=ssl.create_default_context(cadata=authority),
        )

    def close(self) -> None:
        self._connection.close()

    def call(
        self, method: str, path: str, body: Manifest | None = None, media: str = "application/json"
    ) -> Answer:
        headers = self._headers | {"Content-Type": media}
        self._connection.request(method, path, json.dumps(body) if body else None, headers)
        response = self._connection.getresponse()
        return Answer(response.status, json.loads(response.read()))

    def dry_run(self, manifest: Manifest) -> Answer:
        query = "dryRun=All&fieldValidation=Strict"
        return self.call("POST", f"{collection(manifest['kind'])}?{query}", manifest)

    def create(self, manifest: Manifest) -> Manifest:
        return self.call("POST", collection(manifest["kind"]), manifest).ok()

    def patch(self, made: Manifest, change: Manifest, part: str = "") -> Answer:
        return self.call("PATCH", address(made) + part, change, MERGE)


def collection(kind: str) -> str:
    if not Kind(kind).namespaced:
        return f"/apis/{GROUP}/{VERSION}/{Kind(kind).plural}"
    return f"/apis/{GROUP}/{VERSION}/namespaces/{NAMESPACE}/{Kind(kind).plural}"


def address(made: Manifest) -> str:
    return f"{collection(made['kind'])}/{made['metadata']['name']}"


@pytest.fixture(scope="module")
def api(control_plane: Cluster) -> Iterator[Api]:
    """All rights in a namespace of our own."""
    control_plane.assert_test_context()
    control_plane.kubectl("apply", "-f", str(ROOT / "crds"))
    control_plane.kubectl("wait", "--for=condition=Established", "-f", str(ROOT / "crds"))
    control_plane.kubectl("create", "namespace", NAMESPACE)
    control_plane.kubectl("create", "serviceaccount", "tester", "-n", NAMESPACE)
    for binding in (["rolebinding", "tester", "-n", NAMESPACE], ["clusterrolebinding", NAMESPACE]):
        control_plane.kubectl(
            *("create", *binding),
            *("--clusterrole=cluster-admin", f"--serviceaccount={NAMESPACE}:tester"),
        )
    with closing(Api(control_plane.service_account_kubeconfig(NAMESPACE, "tester"))) as api:
        yield api
    control_plane.kubectl("delete", "clusterrolebinding", NAMESPACE)
    control_plane.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def manifest(kind: Kind, name: str, spec: Manifest) -> Manifest:
    """Parts that are None are left out."""
    return {
        "apiVersion": API_VERSION,
        "kind": kind.value,
        "metadata": {"name": name or f"{kind.value.lower()}-{next(numbers)}"},
        "spec": {key: value for key, value in spec.items() if value is not None},
    }


def a_pool(*, name: str = "", template: Manifest | None = None, **spec: Any) -> Manifest:
    defaults = {
        "replicas": 3,
        "cloudRef": {"secretName": "lab-cloud", "cloud": "lab"},
        "template": {"flavor": "g2", "image": "debian"} | (template or {}),
    }
    return manifest(Kind.WARM_POOL, name, defaults | spec)


def a_rule(domain: str, **bounds: int) -> Manifest:
    return {"domain": domain, **bounds}


def a_request(name: str = "data", count: int = 3) -> Manifest:
    return {"name": name, "pool": {"name": "es-data"}, "count": count}


def a_claim(*, name: str = "", **spec: Any) -> Manifest:
    return manifest(Kind.VM_CLAIM, name, {"requests": [a_request()]} | spec)


def a_vm(*, name: str = "", **spec: Any) -> Manifest:
    return manifest(Kind.WARM_VM, name, {"poolRef": {"name": "es-data", "uid": "u-1"}} | spec)


def a_flavor(**spec: Any) -> Manifest:
    return manifest(Kind.VM_FLAVOR, "", {"flavor": "g2", "image": {"name": "debian"}} | spec)


def a_pool_of(template: Manifest) -> Manifest:
    """A pool whose template is this and nothing else."""
    pool = a_pool()
    return pool | {"spec": pool["spec"] | {"template": template}}


def a_ledger(**spec: Any) -> Manifest:
    return manifest(Kind.BINDING_LEDGER, "", {"epoch": 3, "installation": "i-1"} | spec)


def a_claim_ref(uid: str, request: str = "data") -> Manifest:
    return {"namespace": NAMESPACE, "name": "logs-7", "uid": uid, "request": request}


def an_allocation(count: int = 1, **vm: Any) -> Manifest:
    return {
        "boundAt": "2026-01-02T03:04:05Z",
        "vms": [
            {
                "name": f"vm-{i}",
                "namespace": NAMESPACE,
                "uid": f"u-{i}",
                "request": "data",
                "serverID": f"s-{i}",
            }
            | vm
            for i in range(count)
        ],
    }


PROBE = {"tcpSocket": {"port": 22}}
SECRET_KEY = {"name": "boot", "key": "user-data"}
DURATION_REMEDY = "must be a duration above zero: write it like 90s, 15m or 1h30m"
BASE64_REMEDY = "userData must be base64 without line breaks: encode it"


@pytest.mark.parametrize(
    "good",
    [
        pytest.param(a_pool(), id="pool"),
        pytest.param(a_pool(replicas=0), id="empty-pool"),
        pytest.param(a_pool(name="p" * 50), id="name-of-50"),
        pytest.param(a_pool(maxSize=3), id="max-size-equals-replicas"),
        pytest.param(a_pool(availabilityZones=["az1", "az2"]), id="zones"),
        pytest.param(a_pool(template={"userData": "Zm9vYg=="}), id="padded-user-data"),
        pytest.param(a_pool(template={"userData": "A" * 65532}), id="longest-user-data"),
        pytest.param(a_pool(template={"userDataSecretRef": SECRET_KEY}), id="secret-user-data"),
        pytest.param(a_pool(template={"networks": []}), id="no-network"),
        pytest.param(
            a_pool(health={"probe": PROBE}, template={"networks": [{"network": "lan"}]}),
            id="probe-on-network",
        ),
        pytest.param(a_pool(health={"probe": PROBE}), id="probe-where-nova-chooses"),
        pytest.param(a_pool(health={"launchTimeout": "1h30m"}), id="compound-duration"),
        pytest.param(
            a_pool(health={"probe": {"httpGet": {"port": 80, "path": "/up?x=1"}}}), id="http-probe"
        ),
        pytest.param(
            a_pool(health={"probe": {"none": {}}}, template={"networks": []}), id="no-probe"
        ),
        pytest.param(a_pool(health={"maxUnhealthy": 3}), id="number-of-unhealthy"),
        pytest.param(
            a_pool(expireAfter="168h", updateStrategy={"type": "Recreate", "maxUnavailable": 1}),
            id="turnover",
        ),
        pytest.param(a_pool(health={"maxUnhealthy": "35%"}), id="share-of-unhealthy"),
        pytest.param(a_pool(refill={"maxPerCycle": 10}), id="refill"),
        pytest.param(
            a_pool(spread=[a_rule("rack", minDomains=3, maxSkew=1), a_rule("zone", maxSkew=2)]),
            id="spread",
        ),
        pytest.param(
            a_pool(replicas=0, spread=[a_rule("rack", minDomains=3)]), id="spread-of-nothing"
        ),
        pytest.param(
            a_pool(availabilityZones=["a", "b"], spread=[a_rule("zone", maxPerDomain=2)]),
            id="spread-over-zones",
        ),
        pytest.param(a_claim(), id="claim"),
        pytest.param(a_claim(name="c" * 63), id="claim-name-of-63"),
        pytest.param(a_claim(mode="RackAware"), id="rack-aware"),
        pytest.param(
            a_claim(requests=[a_request(f"r{i}", 31) for i in range(16)]), id="largest-claim"
        ),
        pytest.param(a_vm(claimRef=a_claim_ref("c-1"), zone="az1"), id="vm"),
        pytest.param(a_ledger(entries=[]), id="ledger"),
        pytest.param(a_flavor(), id="flavor"),
        pytest.param(
            a_flavor(
                image={"newest": {"properties": {"os_distro": "debian"}, "tags": ["stable"]}},
                metadata={"tier": "gold"},
                projects=[
                    {"project": "search", "domain": "Default", "roles": ["member"]},
                    {"projectID": "0f3c", "roles": ["admin"]},
                ],
            ),
            id="flavor-of-newest",
        ),
        pytest.param(a_pool_of({"flavorRef": {"name": "g2"}}), id="pool-of-flavor"),
    ],
)
def test_good_manifests_are_accepted(api: Api, good: Manifest) -> None:
    api.dry_run(good).ok()


@pytest.mark.parametrize(
    ("bad", "field", "message"),
    [
        *(
            pytest.param(
                a_pool_of(template), "spec.template", "keep one way", id=f"template-{number}"
            )
            for number, template in enumerate(
                (
                    {},
                    {"flavor": "g2"},
                    {"image": "debian"},
                    {"flavorRef": {"name": "g2"}, "image": "debian"},
                    {"flavorRef": {"name": "g2"}, "flavor": "g2", "image": "debian"},
                )
            )
        ),
        pytest.param(
            a_flavor(image={}), "spec.image", "by name or as the newest", id="flavor-no-image"
        ),
        pytest.param(
            a_flavor(image={"name": "a", "newest": {"tags": ["b"]}}),
            "spec.image",
            "keep one of them",
            id="flavor-two-images",
        ),
        pytest.param(
            a_flavor(image={"newest": {}}),
            "spec.image.newest",
            "name properties or tags",
            id="newest-of-anything",
        ),
        pytest.param(
            a_flavor(projects=[{"roles": ["member"]}]),
            "spec.projects[0]",
            "by projectID or by project",
            id="flavor-of-no-project",
        ),
        pytest.param(
            a_flavor(projects=[{"project": "search"}]),
            "spec.projects[0]",
            "goes with its domain",
            id="flavor-of-a-project-anywhere",
        ),
        pytest.param(
            a_flavor(projects=[{"projectID": "p-1", "domain": "Default"}]),
            "spec.projects[0]",
            "goes with its domain",
            id="flavor-of-an-id-and-a-domain",
        ),
        pytest.param(
            a_pool(replicas=-1), "spec.replicas", "greater than or equal to 0", id="negative"
        ),
        pytest.param(a_pool(replicas="3"), "spec.replicas", "must be of type integer", id="text"),
        pytest.param(a_pool(replicas=None), "spec.replicas", "Required value", id="no-replicas"),
        pytest.param(
            a_pool(replicas=5, maxSize=4),
            "spec.maxSize",
            "must not be below replicas: raise maxSize or lower replicas",
            id="max-size-below-replicas",
        ),
        pytest.param(
            a_pool(spread=[a_rule("rack")]), "spec.spread[0]", "must say something", id="no-rule"
        ),
        pytest.param(
            a_pool(spread=[a_rule("rack", maxSkew=1), a_rule("rack", minDomains=2)]),
            "spec.spread[1]",
            "Duplicate value",
            id="two-rules-for-a-level",
        ),
        pytest.param(
            a_pool(spread=[a_rule("rack", minDomains=4)]),
            "spec.spread",
            "raise replicas",
            id="more-domains-than-vms",
        ),
        pytest.param(
            a_pool(availabilityZones=["a"], spread=[a_rule("zone", minDomains=2)]),
            "spec.spread",
            "name more zones",
            id="more-domains-than-zones",
        ),
        pytest.param(
            a_pool(availabilityZones=["a", "b"], spread=[a_rule("zone", maxPerDomain=1)]),
            "spec.spread",
            "no place for all replicas",
            id="no-place-in-the-zones",
        ),
        pytest.param(a_pool(name="p" * 51), "metadata.name", "choose a shorter", id="name-of-51"),
        pytest.param(a_pool(name="es.data"), "metadata.name", "no dot", id="name-with-a-dot"),
        pytest.param(
            a_pool(availabilityZones=["az1", "az1"]),
            "spec.availabilityZones[1]",
            "Duplicate value",
            id="zone-twice",
        ),
        pytest.param(
            a_pool(template={"userData": "#!/bin/sh"}),
            "spec.template.userData",
            BASE64_REMEDY,
            id="plain-user-data",
        ),
        pytest.param(
            a_pool(template={"userData": "Zm9vYmE"}),
            "spec.template.userData",
            BASE64_REMEDY,
            id="cut-off-user-data",
        ),
        pytest.param(
            a_pool(template={"userData": "Zm9v\nYmFy"}),
            "spec.template.userData",
            BASE64_REMEDY,
            id="folded-user-data",
        ),
        pytest.param(
            a_pool(template={"userData": "Zm9v", "userDataSecretRef": SECRET_KEY}),
            "spec.template.userDataSecretRef",
            "exclude each other: keep one of them",
            id="two-sources-of-user-data",
        ),
        pytest.param(
            a_pool(template={"tags": ["a,b"]}), "spec.template.tags[0]", "should match", id="comma"
        ),
        pytest.param(
            a_pool(template={"tags": ["warmpool.dev:vm=u-1"]}),
            "spec.template.tags",
            "choose another prefix",
            id="tag-like-ours",
        ),
        pytest.param(
            a_pool(template={"metadata": {"warmpool.dev:claim-uid": "u-1"}}),
            "spec.template.metadata",
            "choose another prefix",
            id="metadata-like-ours",
        ),
        pytest.param(
            a_flavor(metadata={"warmpool.dev:vm": "u-1"}),
            "spec.metadata",
            "choose another prefix",
            id="flavor-reserved-metadata",
        ),
        pytest.param(
            a_claim(metadata={"warmpool.dev:claim-uid": "u-1"}),
            "spec.metadata",
            "choose another prefix",
            id="claims-metadata-like-ours",
        ),
        pytest.param(
            a_pool(health={"probe": PROBE}, template={"networks": []}),
            "spec.health.probe",
            "name a network, leave networks out",
            id="probe-without-network",
        ),
        pytest.param(
            a_pool(health={"launchTimeout": "5 minutes"}),
            "spec.health.launchTimeout",
            f"launchTimeout {DURATION_REMEDY}",
            id="duration-in-words",
        ),
        pytest.param(
            a_pool(health={"launchTimeout": "PT5M"}),
            "spec.health.launchTimeout",
            f"launchTimeout {DURATION_REMEDY}",
            id="duration-of-iso-8601",
        ),
        pytest.param(
            a_pool(health={"launchTimeout": "0s"}),
            "spec.health.launchTimeout",
            f"launchTimeout {DURATION_REMEDY}",
            id="no-time-to-launch",
        ),
        pytest.param(
            a_pool(health={"probe": PROBE | {"httpGet": {"port": 80}}}),
            "spec.health.probe",
            "one of tcpSocket, httpGet and none: keep one of them",
            id="two-probes",
        ),
        pytest.param(
            a_pool(health={"probe": {}}),
            "spec.health.probe",
            "one of tcpSocket, httpGet and none",
            id="probe-of-nothing",
        ),
        pytest.param(
            a_pool(health={"probe": {"httpGet": {"port": 80, "path": "up"}}}),
            "spec.health.probe.httpGet.path",
            "should match",
            id="path-without-slash",
        ),
        pytest.param(
            a_pool(health={"maxUnhealthy": "120%"}),
            "spec.health.maxUnhealthy",
            "write it like 5 or 20%",
            id="more-than-all",
        ),
        pytest.param(
            a_pool(health={"maxUnhealthy": -1}),
            "spec.health.maxUnhealthy",
            "greater than or equal to 0",
            id="less-than-none",
        ),
        pytest.param(
            a_pool(expireAfter="7d"),
            "spec.expireAfter",
            f"expireAfter {DURATION_REMEDY}",
            id="days",
        ),
        pytest.param(
            a_pool(updateStrategy={"maxUnavailable": "0%"}),
            "spec.updateStrategy.maxUnavailable",
            "write it like 1 or 20%, or choose type OnReplenish",
            id="none-may-be-missing",
        ),
        pytest.param(
            a_pool(updateStrategy={"maxUnavailable": 0}),
            "spec.updateStrategy.maxUnavailable",
            "maxUnavailable must not be zero",
            id="zero-may-be-missing",
        ),
        pytest.param(
            a_pool(refill={"maxPerCycle": 10, "cycle": "0h0m"}),
            "spec.refill.cycle",
            f"cycle {DURATION_REMEDY}",
            id="cycle-of-zero",
        ),
        pytest.param(
            a_claim(requests=[a_request(count=-1)]),
            "spec.requests[0].count",
            "greater than or equal to 1",
            id="negative-count",
        ),
        pytest.param(
            a_claim(requests=[a_request(), a_request()]),
            "spec.requests[1]",
            'Duplicate value: {"name":"data"}',
            id="request-twice",
        ),
        pytest.param(a_claim(requests=[]), "spec.requests", "at least 1 items", id="no-requests"),
        pytest.param(
            a_claim(requests=[a_request(f"r{i}", 500) for i in range(5)]),
            "spec.requests",
            "must not come to more than 500 VMs in all: split them",
            id="too-many-vms",
        ),
        pytest.param(
            a_claim(mode="Rackaware"),
            "spec.mode",
            'supported values: "BestEffort", "RackAware", "HypervisorAware"',
            id="unknown-mode",
        ),
        pytest.param(
            a_claim(name="c" * 64), "metadata.name", "63 characters at most", id="name-of-64"
        ),
        pytest.param(
            a_vm(poolRef={"name": "es-data"}),
            "spec.poolRef.uid",
            "Required value",
            id="vm-of-a-pool-without-uid",
        ),
        pytest.param(
            a_ledger(epoch=-1), "spec.epoch", "greater than or equal to 0", id="negative-epoch"
        ),
    ],
)
def test_bad_manifests_are_refused_with_field_and_remedy(
    api: Api, bad: Manifest, field: str, message: str
) -> None:
    api.dry_run(bad).refused(field, message)


def test_refused_user_data_is_not_printed_back(api: Api) -> None:
    """It may hold secrets, and the answer ends up in the logs of a pipeline."""
    refusal = api.dry_run(a_pool(template={"userData": "password=hunter2"}))
    refusal.refused("spec.template.userData", BASE64_REMEDY)
    assert "hunter2" not in json.dumps(refusal.body)


def test_an_unknown_field_is_named(api: Api) -> None:
    refusal = api.dry_run(a_pool(replica=3))
    assert refusal.code == 400
    assert 'unknown field "spec.replica"' in refusal.body["message"]


@pytest.mark.parametrize(
    ("before", "change", "field", "message"),
    [
        pytest.param(
            a_pool(),
            {"cloudRef": {"cloud": "other"}},
            "spec.cloudRef",
            "create another pool for the other cloud",
            id="pool-to-another-cloud",
        ),
        pytest.param(
            a_claim(),
            {"requests": [a_request(count=4)]},
            "spec.requests",
            "requests cannot be changed: create another claim",
            id="claim-of-another-size",
        ),
        pytest.param(
            a_claim(),
            {"requests": [a_request(), a_request("master")]},
            "spec.requests",
            "requests cannot be changed: create another claim",
            id="claim-with-a-further-request",
        ),
        pytest.param(
            a_claim(),
            {"mode": "RackAware"},
            "spec.mode",
            "mode cannot be changed: delete the claim",
            id="claim-of-another-mode",
        ),
        pytest.param(
            a_claim(mode="RackAware"),
            {"mode": None},
            "spec.mode",
            "mode cannot be changed: delete the claim",
            id="claim-back-to-the-default-mode",
        ),
        pytest.param(
            a_vm(claimRef=a_claim_ref("c-1")),
            {"claimRef": a_claim_ref("c-2")},
            "spec.claimRef",
            "the VM is taken; release it first",
            id="double-booking",
        ),
        pytest.param(
            a_vm(),
            {"poolRef": {"uid": "u-2"}},
            "spec.poolRef",
            "poolRef cannot be changed",
            id="vm-to-another-pool",
        ),
        pytest.param(
            a_vm(providerID="openstack:///r/s-1"),
            {"providerID": "openstack:///r/s-2"},
            "spec.providerID",
            "providerID cannot be changed once it is set",
            id="vm-with-another-server",
        ),
        pytest.param(
            a_vm(providerID="openstack:///r/s-1"),
            {"providerID": None},
            "spec.providerID",
            "providerID cannot be changed once it is set",
            id="vm-that-forgets-its-server",
        ),
        pytest.param(
            a_ledger(epoch=3),
            {"epoch": 2},
            "spec.epoch",
            "another leader has taken over",
            id="former-leader",
        ),
        pytest.param(
            a_ledger(),
            {"installation": "i-2"},
            "spec.installation",
            "every server carries it as a tag",
            id="another-installation",
        ),
    ],
)
def test_what_cannot_change_is_refused_with_field_and_remedy(
    api: Api, before: Manifest, change: Manifest, field: str, message: str
) -> None:
    made = api.create(before)
    api.patch(made, {"spec": change}).refused(field, message)


@pytest.mark.parametrize(
    ("before", "changes"),
    [
        pytest.param(a_pool(), [{"replicas": 9}, {"maxSize": 9}, {"paused": True}], id="pool"),
        pytest.param(
            a_claim(requests=[a_request(), a_request("master")]),
            [{"requests": [a_request("master"), a_request()]}],
            id="requests-in-another-order",
        ),
        pytest.param(
            a_vm(),
            [
                {"claimRef": a_claim_ref("c-1")},
                {"claimRef": None},
                {"claimRef": a_claim_ref("c-2")},
            ],
            id="vm-released-between-two-claims",
        ),
        pytest.param(
            a_vm(claimRef=a_claim_ref("c-1")),
            [{"claimRef": a_claim_ref("c-1", request="master")}],
            id="same-claim",
        ),
        pytest.param(a_vm(), [{"providerID": "openstack:///r/s-1"}], id="vm-gets-its-server"),
        pytest.param(a_ledger(), [{"epoch": 3}, {"epoch": 4}], id="next-leader"),
    ],
)
def test_what_may_change_is_accepted(api: Api, before: Manifest, changes: list[Manifest]) -> None:
    made = api.create(before)
    for change in changes:
        made = api.patch(made, {"spec": change}).ok()


BOUND = {"phase": "Bound", "allocation": an_allocation()}


@pytest.mark.parametrize(
    ("statuses", "change", "field", "message"),
    [
        pytest.param(
            [BOUND],
            {"allocation": an_allocation(serverID="another")},
            "status.allocation",
            "allocation cannot be changed once it is set",
            id="another-allocation",
        ),
        pytest.param(
            [BOUND],
            {"allocation": None},
            "status.allocation",
            "allocation cannot be changed once it is set",
            id="allocation-taken-back",
        ),
        pytest.param([BOUND], {"phase": "Pending"}, "status.phase", "Released only", id="unbound"),
        pytest.param([BOUND], {"phase": "Failed"}, "status.phase", "Released only", id="failed"),
        pytest.param(
            [], {"phase": "Bound"}, "status.phase", "write both at once", id="bound-to-nothing"
        ),
        pytest.param(
            [BOUND, {"phase": "Released"}],
            {"phase": "Bound"},
            "status.phase",
            "from Released nowhere",
            id="bound-again",
        ),
    ],
)
def test_a_bound_claim_stays_as_it_is(
    api: Api, statuses: list[Manifest], change: Manifest, field: str, message: str
) -> None:
    made = api.create(a_claim())
    for status in statuses:
        made = api.patch(made, {"status": status}, "/status").ok()
    api.patch(made, {"status": change}, "/status").refused(field, message)


def test_a_dropped_status_is_held_against_the_former_one(api: Api) -> None:
    made = api.create(a_claim())
    api.patch(made, {"status": BOUND}, "/status").ok()
    refusal = api.patch(made, {"status": None}, "/status")
    refusal.refused("status.allocation", "allocation cannot be changed once it is set")


def test_the_rules_can_afford_the_largest_allocation(api: Api) -> None:
    """CEL has a budget at run time too: a claim beyond it could never be written again."""
    addresses = [f"fd00:1234:5678:9abc:def0:1234:5678:{i:04x}" for i in range(4)]
    largest = an_allocation(500, addresses=addresses, hostname="h" * 60, rack="r" * 60)
    made = api.create(a_claim(requests=[a_request(f"r{i}", 125) for i in range(4)]))
    api.patch(made, {"status": {"phase": "Bound", "allocation": largest}}, "/status").ok()
    largest["vms"] += [largest["vms"][0] | {"uid": "substitute"}]
    largest["vms"][0] = largest["vms"][0] | {"lost": True}
    after = api.patch(made, {"status": {"allocation": largest}}, "/status").ok()
    assert len(after["status"]["allocation"]["vms"]) == 501


@pytest.mark.parametrize(
    ("new", "status"),
    [
        pytest.param(a_claim(), {"phase": "Pending", "observedGeneration": 0}, id="claim"),
        pytest.param(a_vm(), {"phase": "Pending", "observedGeneration": 0}, id="vm"),
    ],
)
def test_a_new_object_has_a_phase_before_anybody_writes_one(
    api: Api, new: Manifest, status: Manifest
) -> None:
    made = api.create(new)
    assert made["status"] == status
    assert api.call("GET", address(made)).ok()["status"] == status


def test_a_new_pool_is_not_taken_for_settled(api: Api) -> None:
    """A missing observedGeneration reads as settled to Flux and Argo CD."""
    made = api.create(a_pool())
    assert made["status"]["observedGeneration"] < made["metadata"]["generation"]


def test_a_pool_scales(api: Api) -> None:
    made = api.create(a_pool(replicas=3))
    status = {"replicas": 2, "selector": f"{GROUP}/pool=es"}
    api.patch(made, {"status": status}, "/status").ok()
    scale = api.patch(made, {"spec": {"replicas": 5}}, "/scale").ok()
    assert scale["status"] == status
    assert api.call("GET", address(made)).ok()["spec"]["replicas"] == 5


def test_kubectl_get_answers_how_many_and_whose(control_plane: Cluster, api: Api) -> None:
    vm = api.create(a_vm(name="es-data-x1", claimRef=a_claim_ref("c-1")))
    status = {"phase": "Ready", "rack": "r7", "hypervisor": "hv12", "addresses": ["10.0.0.5"]}
    api.patch(vm, {"status": status}, "/status").ok()
    api.create(a_pool(name="warmest", replicas=7))
    listing = control_plane.kubectl("get", "wp,wvm", "-n", NAMESPACE).stdout
    rows = {
        line.split()[0].split("/")[-1]: line.split()[1:-1] for line in listing.splitlines() if line
    }
    assert rows["es-data-x1"] == ["es-data", "Ready", "logs-7", "r7", "hv12", "10.0.0.5"]
    assert rows["warmest"] == ["7", "0", "0", "0", "0", "0"]
    one = control_plane.kubectl("get", "warmpool", "warmest", "-n", NAMESPACE, "-o", "name")
    assert one.stdout.strip() == "warmpool.warmpool.dev/warmest"
    of_claim = control_plane.kubectl(
        *("get", "wvm", "-n", NAMESPACE, "-o", "name"),
        "--field-selector=spec.claimRef.name=logs-7,status.phase=Ready",
    )
    assert of_claim.stdout.split() == ["warmvm.warmpool.dev/es-data-x1"]
