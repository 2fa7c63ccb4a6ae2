"""Operators as processes of their own, with the rights of their ServiceAccount and no more."""

import contextlib
import itertools
import json
import os
import re
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from warmpool.api.names import LEASE_NAME
from warmpool.domain.history import Record
from warmpool.domain.history_text import from_text
from warmpool.tools.cluster import Cluster
from warmpool.tools.crds import ROOT
from warmpool.tools.processes import Process, wait_until

HOME: Final = "warmpool-system"
ACCOUNT: Final = "warmpool"

R = TypeVar("R", bound=Record)

LEASE: Final = {
    "WARMPOOL_LEASE_SECONDS": "4",
    "WARMPOOL_LEASE_DEADLINE_SECONDS": "3",
    "WARMPOOL_LEASE_RETRY_SECONDS": "0.5",
}
"""Short, so that a killed leader is soon followed; long enough for a machine that is busy."""

TAKEOVER_WITHIN: Final = 30.0
"""Seconds until somebody leads: the lease, a start of Python, and a busy machine."""


def install(cluster: Cluster) -> Path:
    """Put kinds, namespace and role into the cluster; the kubeconfig of the ServiceAccount."""
    for name in ("crds", "manifests/namespace.yaml", "manifests/rbac.yaml"):
        cluster.kubectl("apply", "-f", str(ROOT / name))
    cluster.kubectl("wait", "--for=condition=Established", "-f", str(ROOT / "crds"))
    return cluster.service_account_kubeconfig(HOME, ACCOUNT)


class Fleet:
    """The operator's replicas. Whoever breaks one leaves the mending to the next test."""

    def __init__(
        self,
        cluster: Cluster,
        kubeconfig: Path,
        directory: Path,
        *,
        name: str = "e2e",
        env: Mapping[str, str] = LEASE,
    ) -> None:
        """Replicas called `name`-1, `name`-2 ..., with settings of their own."""
        self._name = name
        self._env = env
        self._cluster = cluster
        self.kubeconfig = kubeconfig
        """Of the operator's ServiceAccount."""
        self._directory = directory
        self._numbers = itertools.count(1)
        self._replicas: dict[str, Process] = {}
        self._read: dict[Path, int] = {}

    def ensure(self, replicas: int = 1) -> None:
        """So many run, and one of them leads."""
        for identity, process in list(self._replicas.items()):
            if not process.alive:
                del self._replicas[identity]
        while len(self._replicas) > replicas:
            self.running[-1].terminate()
            self.ensure(replicas)
        while len(self._replicas) < replicas:
            self.start()
        self.leader()

    def start(self) -> Process:
        """One more. It need not be ready yet."""
        identity = f"{self._name}-{next(self._numbers)}"
        process = Process.start(
            [sys.executable, "-m", "warmpool", "run"],
            log=self._directory / f"{identity}.log",
            env={
                **self._cluster.environment(self.kubeconfig),
                "WARMPOOL_KUBECONFIG": str(self.kubeconfig),
                "WARMPOOL_IDENTITY": identity,
                "WARMPOOL_HISTORY_DIR": str(self._directory / f"history-{identity}"),
                "WARMPOOL_METRICS_PORT": "0",
                "WARMPOOL_PAGE_PORT": "0",
                **self._env,
            },
            name=identity,
        )
        self._replicas[identity] = process
        return process

    @property
    def running(self) -> list[Process]:
        return [process for process in self._replicas.values() if process.alive]

    def leader(self) -> Process:
        """The replica that leads; waits for one."""
        return wait_until(
            self._leader, timeout=TAKEOVER_WITHIN, what="a leader:\n" + self.log_tail(10)
        )

    def holder(self) -> str:
        """Who holds the Lease, whether alive or not."""
        found = self._cluster.kubectl(
            *("get", "lease", LEASE_NAME, "-n", HOME, "-o", "json", "--ignore-not-found")
        )
        lease = json.loads(found.stdout or "{}")
        return str(lease.get("spec", {}).get("holderIdentity") or "")

    def status(self) -> dict[str, Any]:
        """What `warmpool status` says, whether or not somebody leads."""
        done = subprocess.run(
            [sys.executable, "-m", "warmpool", "status", "-o", "json"],
            env=self._cluster.environment(self.kubeconfig),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode in (0, 1), done.stderr
        status: dict[str, Any] = json.loads(done.stdout)
        return status

    def stop(self) -> None:
        for process in self.running:
            process.terminate()
        self._replicas.clear()

    def mark(self) -> None:
        """Forget what the logs said so far."""
        for log in self._logs():
            self._read[log] = log.stat().st_size

    def log(self) -> str:
        """What the logs say since the mark."""
        parts: list[str] = []
        for log in self._logs():
            with log.open("rb") as file:
                file.seek(self._read.get(log, 0), os.SEEK_SET)
                text = file.read().decode(errors="replace")
            if text:
                parts.append(f"--- {log.stem}\n{text}")
        return "\n".join(parts)

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log().splitlines()[-lines:])

    def records(self, kind: type[R]) -> list[R]:
        """Records of a kind that the replicas have told, those of dead ones too."""
        found: list[Record] = []
        for path in self._directory.glob("history-*/history.sqlite"):
            with contextlib.closing(sqlite3.connect(path, timeout=10)) as database:
                rows = database.execute("SELECT body FROM records ORDER BY at, id").fetchall()
            found += [from_text(body) for (body,) in rows]
        return [record for record in found if isinstance(record, kind)]

    def metrics(self) -> str:
        """What the leader's metrics say."""
        return self._ask(r"metrics at (http://\S+)", "")

    def page(self, path: str) -> Any:
        """What the leader's page is told under a path."""
        return json.loads(self._ask(r"the page is at (http://\S+)", path))

    def _ask(self, where: str, path: str) -> str:
        log = self._directory / f"{self.leader().name}.log"
        url = re.findall(where, log.read_text())[-1]
        with urllib.request.urlopen(url + path, timeout=30) as answer:  # noqa: S310 - http, ours
            return str(answer.read().decode())

    def _leader(self) -> Process | None:
        process = self._replicas.get(self.holder())
        return process if process is not None and process.alive else None

    def _logs(self) -> list[Path]:
        return sorted(
            self._directory.glob(f"{self._name}-*.log"), key=lambda log: log.stat().st_mtime
        )
