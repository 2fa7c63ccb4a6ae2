"""A namespace per test, and the few things that a user does in it, with kubectl as users do."""

import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

from harness.clouds import CloudUnderTest
from warmpool.api.names import API_VERSION, Kind
from warmpool.tools.cluster import Cluster
from warmpool.tools.processes import wait_until

SECRET: Final = "cloud"  # noqa: S105 - the name of a Secret
CLEAN_WITHIN: Final = 90
"""Seconds for all pools of a test to go: backed-off deletes take up to 20 s to look again."""

Body = dict[str, Any]


class Sandbox:
    """One namespace. Names of pools carry its mark, and with them those of the servers."""

    def __init__(self, cluster: Cluster, cloud: CloudUnderTest) -> None:
        self.mark = secrets.token_hex(3)
        self.namespace = f"e2e-{self.mark}"
        self.cluster = cluster
        self.cloud = cloud

    # -- setting up ---------------------------------------------------------------------------

    def create(self) -> None:
        self.cluster.kubectl("create", "namespace", self.namespace)
        self.secret(SECRET, {"clouds.yaml": self.cloud.clouds_yaml})

    def clear(self) -> None:
        """Delete what users create, and wait until the operator has let all of it go."""
        self.kubectl("delete", "vmclaims", "--all", "--wait=false")
        timeout = f"--timeout={CLEAN_WITHIN}s"
        self.kubectl("delete", "warmpools", "--all", timeout, seconds=CLEAN_WITHIN + 10)
        assert self.names(Kind.WARM_VM) == []

    def remove(self) -> None:
        self.cluster.kubectl("delete", "namespace", self.namespace, "--wait=false")

    # -- what users write ---------------------------------------------------------------------

    def secret(self, name: str, data: Mapping[str, str]) -> None:
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name, "namespace": self.namespace},
                "stringData": dict(data),
            }
        )

    def named(self, short: str) -> str:
        """The whole name of a pool."""
        return f"{short}-{self.mark}"

    def pool_manifest(self, short: str, replicas: int, **spec: Any) -> Body:
        """A pool of this cloud; `spec` overrides, `template` and `cloudRef` key by key."""
        base: Body = {
            "replicas": replicas,
            "cloudRef": {"secretName": SECRET, "cloud": self.cloud.name} | spec.pop("cloudRef", {}),
            "template": self.cloud.template() | spec.pop("template", {}),
            "availabilityZones": list(self.cloud.zones),
        }
        if (probe := self.cloud.probe()) is not None:
            base["health"] = {"launchTimeout": "5m", "probe": probe}
        return self._object(Kind.WARM_POOL, self.named(short), base | spec)

    def pool(self, short: str, replicas: int, **spec: Any) -> str:
        """Create or change a pool; its whole name."""
        self.apply(self.pool_manifest(short, replicas, **spec))
        return self.named(short)

    def full_pool(self, short: str, replicas: int, **spec: Any) -> str:
        """A pool, once it is full."""
        name = self.pool(short, replicas, **spec)
        self.await_ready(name, replicas)
        return name

    def claim_manifest(self, name: str, pools: Mapping[str, int], **spec: Any) -> Body:
        requests = [
            {"name": f"r{n}", "pool": {"name": pool}, "count": count}
            for n, (pool, count) in enumerate(pools.items())
        ]
        return self._object(Kind.VM_CLAIM, name, {"requests": requests, **spec})

    def claim(self, name: str, pools: Mapping[str, int], **spec: Any) -> str:
        """Create a claim on pools by their whole names."""
        self.apply(self.claim_manifest(name, pools, **spec))
        return name

    def bound(self, name: str, pools: Mapping[str, int], **spec: Any) -> list[Body]:
        """Create a claim and wait as a script does; the VMs that it got."""
        self.claim(name, pools, **spec)
        self.wait(f"vmclaim/{name}", "condition=Bound")
        vms: list[Body] = self.get(Kind.VM_CLAIM, name)["status"]["allocation"]["vms"]
        return vms

    def refused(self, name: str, pools: Mapping[str, int], **spec: Any) -> Body:
        """Create a claim that cannot be had; what was short."""
        self.claim(name, pools, **spec)
        self.wait(f"vmclaim/{name}", "condition=Bound=False")
        status: Body = self.get(Kind.VM_CLAIM, name)["status"]
        assert status["phase"] == "Failed"
        assert "allocation" not in status
        shortfall: Body = status["shortfall"]
        return shortfall

    def apply(self, *bodies: Body) -> None:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(bodies)})
        self.cluster.kubectl("apply", "-f", "-", stdin=text)

    def refusal(self, body: Body) -> str:
        """What the API server says to an object that it does not take."""
        text = json.dumps(body)
        done = self.cluster.kubectl("apply", "-f", "-", stdin=text, check=False)
        assert done.returncode != 0, f"it was taken: {text}"
        return done.stderr

    def scale(self, pool: str, replicas: int) -> None:
        self.kubectl("scale", f"warmpool/{pool}", f"--replicas={replicas}")

    def change(self, pool: str, spec: Body) -> None:
        patch = json.dumps({"spec": spec})
        self.kubectl("patch", f"warmpool/{pool}", "--type=merge", f"--patch={patch}")

    # -- what users read ----------------------------------------------------------------------

    def kubectl(self, *args: str, check: bool = True, seconds: float = 60) -> str:
        done = self.cluster.kubectl(*args, "-n", self.namespace, check=check, timeout=seconds)
        return done.stdout

    def get(self, kind: Kind, name: str) -> Body:
        body: Body = json.loads(self.kubectl("get", kind.plural, name, "-o", "json"))
        return body

    def all(self, kind: Kind) -> list[Body]:
        items: list[Body] = json.loads(self.kubectl("get", kind.plural, "-o", "json"))["items"]
        return items

    def names(self, kind: Kind) -> list[str]:
        return [body["metadata"]["name"] for body in self.all(kind)]

    def status(self, pool: str) -> Body:
        status: Body = self.get(Kind.WARM_POOL, pool).get("status", {})
        return status

    def condition(self, pool: str, kind: str) -> Body:
        found = [c for c in self.status(pool).get("conditions", []) if c["type"] == kind]
        return found[0] if found else {}

    def table(self, kinds: str, *args: str) -> list[dict[str, str]]:
        """`kubectl get` as people see it, by the names of its columns."""
        head, *rows = self.kubectl("get", kinds, *args).splitlines()
        starts = [i for i, c in enumerate(head) if c != " " and (i == 0 or head[i - 1] == " ")]
        ends = [*starts[1:], None]
        spans = list(zip(starts, ends, strict=True))
        return [{head[a:b].strip(): row[a:b].strip() for a, b in spans} for row in rows]

    # -- waiting ------------------------------------------------------------------------------

    def wait(self, what: str, condition: str, *, seconds: int = 60) -> None:
        """`kubectl wait`, as a script does."""
        args = ("wait", f"--for={condition}", what, f"--timeout={seconds}s")
        self.kubectl(*args, seconds=seconds + 10)

    def await_status(self, pool: str, path: str, value: object, *, seconds: int = 60) -> None:
        self.wait(f"warmpool/{pool}", f"jsonpath={{.status.{path}}}={value}", seconds=seconds)

    def await_ready(self, pool: str, ready: int, *, seconds: int = 60) -> None:
        """So many are free, and the pool says that this is what it shall be.

        Its word alone may be a second old, and of before the last claim.
        """
        self.until(lambda: len(self.free(pool)) >= ready, f"{ready} free VMs of {pool}", seconds)
        self.await_status(pool, "ready", ready, seconds=seconds)
        self.wait(f"warmpool/{pool}", "condition=Ready", seconds=seconds)

    def free(self, pool: str) -> list[Body]:
        """Ready VMs of a pool that no claim of this namespace has."""
        claims = [body.get("status", {}) for body in self.all(Kind.VM_CLAIM)]
        bound = [status["allocation"] for status in claims if status.get("phase") == "Bound"]
        taken = {vm["uid"] for allocation in bound for vm in allocation["vms"]}
        return [
            vm
            for vm in self.all(Kind.WARM_VM)
            if vm["spec"]["poolRef"]["name"] == pool
            and vm.get("status", {}).get("phase") == "Ready"
            and "claimRef" not in vm["spec"]
            and vm["metadata"]["uid"] not in taken
        ]

    def until(self, predicate: Callable[[], object], what: str, seconds: float = 60) -> None:
        wait_until(lambda: predicate() or None, timeout=seconds, what=what)

    def servers(self) -> list[str]:
        """Names of this test's servers, as Nova has them."""
        return self.cloud.servers(self.mark)

    def tables(self) -> str:
        """Everything, for who looks into a failure."""
        shown = self.kubectl("get", "warmpools,vmclaims,warmvms", "-o", "wide", check=False)
        conditions = "\n".join(
            f"{body['metadata']['name']}: {c['type']}={c['status']} {c['reason']}: {c['message']}"
            for body in self.all(Kind.WARM_POOL)
            for c in body.get("status", {}).get("conditions", [])
        )
        return f"{shown}\n{conditions}\nservers: {self.servers()}"

    def _object(self, kind: Kind, name: str, spec: Body) -> Body:
        metadata = {"name": name, "namespace": self.namespace}
        return {
            "apiVersion": API_VERSION,
            "kind": kind.value,
            "metadata": metadata,
            "spec": spec,
        }
