"""The servers of a local control plane: their command lines, their files, the API server itself."""

import base64
import contextlib
import http.client
import json
import os
import secrets
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from warmpool.tools import kubeconfig as kubeconfigs
from warmpool.tools.binaries import Programs
from warmpool.tools.processes import Process, free_ports, wait_until

READY_WITHIN = 90.0
"""Seconds for one server to become ready; two are usual, a starved machine takes many more."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything is in a control plane's directory."""

    root: Path

    @property
    def etcd_data(self) -> Path:
        return self.root / "etcd"

    @property
    def pki(self) -> Path:
        """The serving certificate, which the first API server makes and the second one shares."""
        return self.root / "pki"

    @property
    def authority(self) -> Path:
        return self.pki / "apiserver.crt"

    @property
    def signing_key(self) -> Path:
        return self.root / "service-accounts.key"

    @property
    def token_file(self) -> Path:
        return self.root / "tokens.csv"

    def kubeconfig(self, server: str = "apiserver") -> Path:
        """The admin's, by one of the API servers."""
        return self.root / ("kubeconfig" if server == "apiserver" else f"kubeconfig-{server}")

    def log(self, name: str) -> Path:
        return self.root / "logs" / f"{name}.log"


def etcd_command(programs: Programs, layout: Layout, *, client: int, peer: int) -> list[str]:
    """One member, on the loopback interface, that syncs to disk: real write cost."""
    client_url, peer_url = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    return [
        *programs.etcd,
        "--name=local",
        f"--data-dir={layout.etcd_data}",
        f"--listen-client-urls={client_url}",
        f"--advertise-client-urls={client_url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=local={peer_url}",
        "--log-level=warn",
    ]


GARBAGE_COLLECTION: Final = {"GOGC": "400", "GOMEMLIMIT": "4GiB"}
"""How the API server collects its garbage. Its heap is small here, so Go's default has it do so far
more often than a server with a cluster's worth of objects: measured, a quarter of its CPU while
claims come one after the other. With these it takes up to five times the memory that is alive (with
10,000 VMs 3.3 GB), within a limit that has to be well above that: near it, it does nothing else."""


def apiserver_command(
    programs: Programs, layout: Layout, *, etcd: int, port: int, extra: Sequence[str]
) -> list[str]:
    """TLS, token users, ServiceAccount tokens, RBAC; no node and no pod will ever come."""
    return [
        *programs.kube_apiserver,
        f"--etcd-servers=http://127.0.0.1:{etcd}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={layout.pki}",
        f"--token-auth-file={layout.token_file}",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={layout.signing_key}",
        f"--service-account-signing-key-file={layout.signing_key}",
        # Pods would have to mount tokens of ServiceAccounts that no controller makes here.
        "--disable-admission-plugins=ServiceAccount",
        "--endpoint-reconciler-type=none",
        # Else it waits a minute on SIGTERM for watches that nobody tells to end.
        "--shutdown-watch-termination-grace-period=1s",
        *extra,
    ]


def controller_manager_command(program: Sequence[str], layout: Layout) -> list[str]:
    """Only what makes a store of objects a Kubernetes: owners are followed, namespaces end."""
    return [
        *program,
        f"--kubeconfig={layout.kubeconfig()}",
        "--controllers=garbage-collector-controller,namespace-controller",
        "--leader-elect=false",
        "--use-service-account-credentials=false",
        "--secure-port=0",
    ]


class ApiServer:
    """One kube-apiserver, which keeps its port and its kubeconfig however often it is started.

    Attributes:
        name: also that of its log.
        url: where it listens.
        kubeconfig: the admin's, leading to this one.
    """

    def __init__(
        self, name: str, layout: Layout, programs: Programs, *, etcd: int, extra: Sequence[str]
    ) -> None:
        (self._port,) = free_ports(1)
        self.name = name
        self.url = f"https://127.0.0.1:{self._port}"
        self.kubeconfig = layout.kubeconfig(name)
        self._layout = layout
        self._programs = programs
        self._etcd = etcd
        self._extra = extra
        self._command = apiserver_command(programs, layout, etcd=etcd, port=self._port, extra=extra)
        self._token = ""
        self._process: Process | None = None

    def twin(self, name: str) -> "ApiServer":
        """Another one over the same etcd, not started yet."""
        return ApiServer(name, self._layout, self._programs, etcd=self._etcd, extra=self._extra)

    @property
    def process(self) -> Process:
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process

    def start(self, token: str) -> None:
        """Start it, wait until it is ready and write its kubeconfig; `token` is the admin's.

        Raises:
            ProcessError: it ended or was not ready in time; the text has the end of its log.
        """
        self._token = token
        log = self._layout.log(self.name)
        environ = {**GARBAGE_COLLECTION, **os.environ}
        self._process = Process.start(self._command, log=log, env=environ, name=self.name)
        self._process.wait_for(self.ready, READY_WITHIN, "/readyz")
        authority = self._layout.authority.read_bytes()
        text = kubeconfigs.render(server=self.url, authority=authority, user="admin", token=token)
        kubeconfigs.write_private(self.kubeconfig, text)

    def restart(self) -> None:
        """Stop it as an update would, if it still runs, and start it at the same address."""
        self.process.terminate()
        self.start(self._token)

    def stop(self, *, grace: float) -> None:
        if self._process is not None:
            self._process.terminate(grace)

    def kill(self) -> None:
        self.process.kill()

    def pause(self) -> None:
        self.process.pause()

    def resume(self) -> None:
        self.process.resume()

    def ready(self) -> bool:
        try:
            status, _ = self.call("GET", "/readyz")
        except (OSError, http.client.HTTPException):
            return False
        return status == http.HTTPStatus.OK

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> tuple[int, bytes]:
        """One request as the admin: the status and what came with it."""
        trust = ssl.create_default_context(cafile=self._layout.authority)
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=10, context=trust)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        with contextlib.closing(connection):
            connection.request(method, path, json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()


def etcd_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/health")
            return b'"true"' in connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            return False


def etcd_put(port: int, key: str, value: str) -> None:
    """Write one key, beside all that is Kubernetes': the revision is one higher then.

    Raises:
        OSError: etcd did not do it.
    """
    texts = {"key": key, "value": value}
    pair = {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", "/v3/kv/put", json.dumps(pair))
        answer = connection.getresponse()
        if answer.status != http.HTTPStatus.OK:
            raise OSError(f"etcd: {answer.status} {answer.read()!r}")


def await_controllers(server: ApiServer, process: Process) -> None:
    """Return once an object whose owner is gone was seen to be cleared away.

    The namespace controller starts in the same moment; it takes five seconds for every namespace,
    empty or not, so its work is not waited for.

    Raises:
        ProcessError: that was not in time; the text has the end of the controller manager's log.
    """
    name = f"warmpool-probe-{secrets.token_hex(4)}"
    lost = {"apiVersion": "v1", "kind": "ConfigMap", "name": "never-was", "uid": name}
    maps = "/api/v1/namespaces/default/configmaps"
    _create(server, maps, {"name": name, "ownerReferences": [lost]})

    def gone() -> bool:
        return server.call("GET", f"{maps}/{name}")[0] == http.HTTPStatus.NOT_FOUND

    process.wait_for(gone, READY_WITHIN, "the garbage collector's work")


def _create(server: ApiServer, path: str, metadata: Mapping[str, Any]) -> None:
    def created() -> bool:
        # A ready server may not have made the default namespace yet.
        return server.call("POST", path, {"metadata": metadata})[0] in (
            http.HTTPStatus.CREATED,
            http.HTTPStatus.CONFLICT,
        )

    wait_until(created, timeout=READY_WITHIN, what=f"a first object at {path}")
